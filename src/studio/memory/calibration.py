"""What earlier runs took on this machine, and what that says of the next one.

After a job that ended well its forecast and what was measured are kept in the home: one small file for each machine,
library versions, model and choice of precision, with the last runs that loaded the model (cold) and the last that found
it loaded (warm), which are never mixed. Reading gives a ``Calibration``, plain data that a plan takes as an argument,
so planning stays a pure function.

Seconds are multiplied by the median of measured / predicted; what a much smaller job took longer is added instead,
because a small model waits where a large one computes. Peaks follow the largest run, and never the more daring of
two readings of it: that the error is a share of the forecast, or that it is a constant.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import statistics
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.plans import Plan, Rates
from studio.version import installed

log = logging.getLogger(__name__)

KEPT = 16
"""Runs that are kept of each kind, cold and warm; older ones go."""
LOWEST, HIGHEST = 0.05, 20.0
"""A ratio beyond these says that something else was measured."""
NEAR = 16.0
"""Of another model's stage, a ratio holds for what is foreseen to take up to so many times as long."""
_NEAR: dict[str, float | None] = {"load": 1.0, "generate": None}
"""Importing takes as long for all. Text is written at the memory's speed, which a small model tells as well as a large
one, and what a token costs besides is foreseen."""
HELD = 0.09
"""A peak that was forecast so much too large, and no more, is as exact as forecasts are meant to be."""
SPARE = 1.05
"""A peak is forecast this much above the largest that was measured."""
LOCK_S = 2.0

Level = Literal["choice", "model", "family"]


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Run(_Data):
    """One job that ended well: pairs of what was predicted by uncorrected rates and what was measured.

    ``rates`` names the rates behind the predictions; ``stages`` are seconds by phase; ``other_s`` is what was measured
    beside them. Peaks are bytes of the executing process, ``None`` where they could not be told.
    """

    cold: bool
    rates: str
    stages: dict[str, tuple[float, float]] = Field(default_factory=dict)
    other_s: float = Field(default=0.0, ge=0)
    vram: tuple[int, int] | None = None
    ram: tuple[int, int] | None = None


class Subject(_Data):
    """What runs must have in common to be compared: the machine, library versions, family, model and choice."""

    machine: str
    software: dict[str, str]
    pipeline: str
    model: str
    choice: str


class Kept(_Data):
    """One file."""

    format: Literal[1] = 1
    subject: Subject
    runs: tuple[Run, ...]


class KeptRates(_Data):
    """The measured rates of one machine. ``disk`` is false where there was no file to measure its reading with, and
    the rate is the typical one; ``figures`` are what else was measured, by name."""

    format: Literal[1] = 1
    machine: str
    rates: Rates
    disk: bool
    figures: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Guess:
    """Seconds by measurement: from how many runs, and how near they are to what is asked."""

    seconds: float
    runs: int
    level: Level


@dataclass(frozen=True)
class Calibration:
    """All that is known of a machine. An empty one corrects nothing."""

    kept: tuple[Kept, ...] = ()
    rates: Mapping[str, Rates] = field(default_factory=dict)

    def runs(self, subject: Subject, level: Level) -> list[Run]:
        """The runs of the same choice, model or family, on the same machine with the same libraries."""
        return [run for kept in self.kept if _same(kept.subject, subject, level) for run in kept.runs]

    def seconds(self, subject: Subject, rates: str, stage: str, predicted_s: float) -> Guess | None:
        """What ``stage`` will take: from the nearest level that has runs of it, cold ones before warm ones."""
        for level in ("choice", "model", "family"):
            runs = [run for run in self.runs(subject, level) if run.rates == rates and stage in run.stages]
            for kind in _kinds(runs, loading=stage == "load"):
                pairs = [run.stages[stage] for run in kind]
                near = None if level != "family" else _NEAR.get(stage, NEAR)
                return Guess(expected(predicted_s, pairs, near=near), len(pairs), level)
        return None

    def other(self, subject: Subject, rates: str) -> float:
        """The seconds beside all stages, by the median of the nearest runs of the model."""
        for level in ("choice", "model"):
            runs = [run for run in self.runs(subject, level) if run.rates == rates and set(run.stages) - {"load"}]
            for kind in _kinds(runs):
                return statistics.median(run.other_s for run in kind)
        return 0.0

    def peak(self, subject: Subject, memory: Literal["vram", "ram"], predicted: int) -> tuple[int, int]:
        """The most bytes, and from how many runs (0: the prediction stands). Only runs of the same choice lower it."""
        for level in ("choice", "model"):
            found = [getattr(run, memory) for run in self.runs(subject, level)]
            pairs = [pair for pair in found if pair is not None and pair[0] > 0]
            if pairs and predicted:
                bytes_ = expected_peak(predicted, pairs)
                if level == "choice" or bytes_ > predicted:
                    return bytes_, len(pairs)
        return predicted, 0


def _same(one: Subject, other: Subject, level: Level) -> bool:
    names = {"choice": ("model", "choice"), "model": ("model",), "family": ("pipeline",)}[level]
    return all(getattr(one, name) == getattr(other, name) for name in ("machine", "software", *names))


def _kinds(runs: Sequence[Run], *, loading: bool = False) -> list[list[Run]]:
    """Cold runs, then warm ones, as far as there are any. A warm run says nothing of loading."""
    cold, warm = [run for run in runs if run.cold], [run for run in runs if not run.cold]
    return [kind for kind in ((cold,) if loading else (cold, warm)) if kind]


def expected(predicted: float, pairs: Iterable[tuple[float, float]], *, near: float | None = None) -> float:
    """``predicted`` times the median of measured / predicted, within ``LOWEST`` to ``HIGHEST``; of two runs in the
    middle the quicker one, because what disturbs a run only lengthens it.

    ``near``: where a run took longer than predicted and ``predicted`` is more than so many times what was predicted of
    it, what it took longer may be the same for any size, and the smaller of the two readings is taken (a small model
    needs a second to start and waits for its card between steps; a large one does not need a hundred, nor wait).
    """
    guesses = []
    for foreseen, measured in pairs:
        guess = predicted * measured / foreseen if foreseen > 0 else predicted
        small = near is not None and predicted > near * foreseen
        guesses.append(min(guess, predicted + max(0.0, measured - foreseen)) if small else guess)
    if not guesses:
        return predicted
    return min(max(statistics.median_low(guesses), LOWEST * predicted), HIGHEST * predicted)


def expected_peak(predicted: int, pairs: Sequence[tuple[int, int]]) -> int:
    """The most bytes by the runs' (predicted, measured) peaks, those of similar size if there are any.

    Of each run the larger of two readings is taken: the error is a share of the size, or a constant. So a small run
    cannot lower the forecast of a large one by much. A forecast that held, with up to ``HELD`` of it left over,
    stands; else ``SPARE`` comes on top of what was measured.
    """
    like = [pair for pair in pairs if predicted <= 2 * pair[0] and pair[0] <= 2 * predicted] or pairs
    reading = max(max(predicted * measured / foreseen, predicted + measured - foreseen) for foreseen, measured in like)
    if (1 - HELD) * predicted <= reading <= predicted:
        return predicted
    return round(min(max(SPARE * reading, LOWEST * predicted), HIGHEST * predicted))


def choice_of(plan: Plan) -> str:
    """How a model is held: the device, and its networks' precisions or, of a family that plans itself, its settings."""
    networks: Mapping[str, Mapping[str, Any]] = plan.settings.get("networks", {})
    parts = [
        f"{name}:{held.get('precision')}{':compiled' * bool(held.get('compiled'))}" for name, held in networks.items()
    ]
    if not parts:
        parts = [f"{name}={value}" for name, value in plan.settings.items() if not isinstance(value, dict | list)]
    return " ".join([plan.device, *sorted(parts)])


def software_of(libraries: Iterable[str]) -> dict[str, str]:
    """The versions that a measurement holds for; nothing is imported."""
    return {name: installed(name) for name in ("torch", *libraries)}


def rates_id(rates: Rates) -> str:
    """A name for the rates behind a prediction. What only cards without bf16 have counts only for those."""
    others = {"half", "wide_flops_per_s"} if rates.half == "bf16" else set()
    return _digest(rates.model_dump(exclude={"measured", "attention", *others}))


# -- the files ---------------------------------------------------------------------------------------------------


def read(folder: Path, machines: Iterable[str]) -> Calibration:
    """All that is kept of these machines (the card, the processor). Damaged files count as absent."""
    wanted = set(machines)
    kept, rates = [], {}
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("rates-"):
            one = _read(path, KeptRates)
            if one is not None and one.machine in wanted:
                rates[one.machine] = one.rates
        elif (found := _read(path, Kept)) is not None and found.subject.machine in wanted:
            kept.append(found)
    return Calibration(tuple(kept), rates)


def record(folder: Path, subject: Subject, run: Run) -> None:
    """Add a run. Other processes may write as well. What cannot be written is left out, and the log says so."""
    path = folder / f"{_slug(subject.model)}-{_digest(subject.model_dump())}.json"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / "lock", timeout=LOCK_S):
            before = _read(path, Kept)
            runs = [*(before.runs if before is not None and before.subject == subject else ()), run]
            cold, warm = ([one for one in runs if one.cold is kind][-KEPT:] for kind in (True, False))
            _write(path, Kept(subject=subject, runs=(*cold, *warm)))
    except (OSError, Timeout) as error:
        log.warning("what a run of %s took was not kept: %s", subject.model, error)


def read_rates(folder: Path, machine: str) -> KeptRates | None:
    """The measured rates of a machine; ``None`` if there are none, or they cannot be read."""
    kept = _read(_rates_file(folder, machine), KeptRates)
    return kept if kept is not None and kept.machine == machine else None


def keep_rates(folder: Path, kept: KeptRates) -> None:
    """Write measured rates. What cannot be written is measured again next time."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(_rates_file(folder, kept.machine), kept)
    except OSError as error:
        log.warning("the measured rates of %s were not kept: %s", kept.machine, error)


def _rates_file(folder: Path, machine: str) -> Path:
    return folder / f"rates-{_digest(machine)}.json"


K = TypeVar("K", bound=_Data)


def _read(path: Path, kind: type[K]) -> K | None:
    try:
        return kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _write(path: Path, content: _Data) -> None:
    """Whole or not at all. Not flushed: what a power cut takes is measured again."""
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content.model_dump_json(indent=1))
        Path(name).replace(path)
    except OSError:
        with suppress(OSError):
            Path(name).unlink()
        raise


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _slug(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9.-]+", "-", Path(name).name)[-60:].strip("-.") or "model"
