"""Whether a model fits this machine now, as one of three words, remembered for as long as the machine stays alike."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

from studio import hardware
from studio.core import Studio
from studio.errors import DoesNotFit, StudioError
from studio.hardware import Hardware
from studio.media import check_input, sniff
from studio.memory.activations import Measured, Run, run_apart
from studio.pictures import check_whole
from studio.pipeline import Plan, Probe
from studio.units import GIB

log = logging.getLogger(__name__)

LOOK_S = 1.0
"""How often it is looked whether the queue has come to rest."""

LONG_S = 3600.0
"""A picture or a film that takes longer is said to be slow."""

SLOW_TOKENS_PER_S = 0.5
"""A text that is written no quicker is said to be slow."""

Verdict = Literal["fits", "streams", "no", "unknown"]


@dataclass(frozen=True)
class Forecast:
    """A plan, or why there is none."""

    verdict: Verdict
    plan: Plan | None = None
    why: str = ""
    error: StudioError | None = None
    """The refusal behind ``why``, where there was one."""
    tokens: int | None = None
    """How many a model that writes may write."""

    @property
    def tokens_per_s(self) -> float | None:
        """How fast a text is written, of a plan that says what each token reads."""
        writing = next((one for one in self.plan.phases if one.token_bytes), None) if self.plan else None
        return self.tokens / writing.seconds if writing and writing.seconds and self.tokens else None

    @property
    def slow(self) -> bool:
        """Whether it fits but takes so long that one should know before it is begun or downloaded."""
        if self.plan is None or not self.plan.fits:
            return False
        rate = self.tokens_per_s
        return (self.plan.seconds or 0.0) > LONG_S if rate is None else rate < SLOW_TOKENS_PER_S


def verdict_of(plan: Plan) -> Verdict:
    """``streams``: a card computes while part of the weights waits in memory or on the disk."""
    if not plan.fits:
        return "no"
    waits = any(
        row.size_bytes and row.phase != "load" and ("memory" in row.where or "disk" in row.where) for row in plan.rows
    )
    return "streams" if plan.device != "cpu" and waits else "fits"


class _Unmeasured(Exception):
    """This forecast needs a measurement that nobody has made."""


def _nothing_new(_probes: list[Probe]) -> list[Measured]:
    raise _Unmeasured


class Fits:
    """Forecasts with default parameters for the lists, and with the given ones for a form."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._known: dict[str, tuple[tuple[object, ...], Forecast]] = {}
        self._wanted: list[str] = []
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def of(self, model: str) -> Forecast | None:
        """With the model's own defaults, as far as it is known: never waits. An old answer stands until the new one.

        What needs no measurement comes first, in the order in which it was asked for. What does, since the model was
        not shipped with Studio, is measured one model after another, at low priority and while no job runs.
        """
        with self._lock:
            key, forecast = self._known.get(model, ((), None))
            if forecast is None or key != self._key(model):
                if model not in self._wanted:
                    self._wanted.append(model)
                if self._thread is None:
                    self._thread = threading.Thread(target=self._work, name="forecasts", daemon=True)
                    self._thread.start()
            return forecast

    def _work(self) -> None:
        slow: set[str] = set()
        while True:
            with self._lock:
                if not self._wanted:
                    self._thread = None
                    return
                model = next((one for one in self._wanted if one not in slow), "")
                first = self._wanted[0]
            if not model and self._studio.jobs.find(states=["running"], limit=1):
                time.sleep(LOOK_S)
                continue
            key = self._key(model or first)
            try:
                run = _nothing_new if model else partial(run_apart, low=True)
                self._keep(model or first, key, self.ask(model or first, {}, run))
            except _Unmeasured:
                slow.add(model)

    def _keep(self, model: str, key: tuple[object, ...], forecast: Forecast) -> None:
        with self._lock:
            self._known[model] = (key, forecast)
            self._wanted.remove(model)

    def _key(self, model: str) -> tuple[object, ...]:
        return (self._studio.models.files(model) is not None, *_alike(hardware.probe(self._studio.home.root)))

    def ask(self, model: str, params: dict[str, Any], run: Run | None = None) -> Forecast:
        """With these parameters, at once as a rule; ``run`` measures what was never measured."""
        try:
            self._look_through(model, params)
            plan = self._studio.foresee(model, params, run=run, near=True)
        except _Unmeasured:
            raise
        except DoesNotFit as error:
            return Forecast("no", why=str(error))
        except StudioError as error:  # the request is not complete yet, or foreseeing it took too long
            return Forecast("unknown", why=str(error), error=error)
        except Exception as error:  # a family's own bug must not take the page away
            log.exception("forecast of %s: a bug", model)
            return Forecast("unknown", why=f"{type(error).__name__}: {error}")
        return Forecast(verdict_of(plan), plan, "" if plan.fits else plan.nearest, tokens=self._tokens(plan, params))

    def _tokens(self, plan: Plan, params: dict[str, Any]) -> int | None:
        """The longest answer, within the context."""
        asked = next((one.default for one in self._studio.fields(plan.model) if one.name == "max_tokens"), None)
        asked, room = params.get("max_tokens", asked), plan.settings.get("n_ctx")
        return min(asked, room) if isinstance(asked, int) and isinstance(room, int) else asked

    def _look_through(self, model: str, params: dict[str, Any]) -> None:
        """Pictures that begin well but are cut off are refused now, and not when everything else is filled in."""
        for one in self._studio.fields(model) if params else ():
            given = params.get(one.name) if one.kind == "file" else None
            for path in map(Path, given if isinstance(given, list) else filter(None, [given])):
                if path.is_file() and sniff(path).startswith("image/"):
                    _whole(path, path.stat().st_mtime, one.accept, one.name)


@lru_cache(maxsize=64)
def _whole(path: Path, _time: float, accept: tuple[str, ...], name: str) -> None:
    check_input(path, accept, name)  # by its header, before anything is decoded
    check_whole(path, f"--{name.replace('_', '-')}")


def _alike(machine: Hardware) -> tuple[int, ...]:
    return (machine.ram_free_bytes // GIB, *(card.free_bytes // GIB for card in machine.gpus))
