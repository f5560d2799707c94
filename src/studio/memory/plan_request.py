"""From a family and its checked parameters to an explained plan, whoever makes it: the planner or the family."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from studio.errors import DoesNotFit
from studio.hardware import Hardware
from studio.memory.calibration import Calibration, read, software_of
from studio.memory.plan_machine import CORE_FLOPS_PER_S, machines_of, rates_of
from studio.memory.plan_measured import Corrector, Drawn, Make, held, proven
from studio.memory.plan_nearest import nearest_plan
from studio.memory.plan_process import process_bytes, start_seconds
from studio.memory.planner import plan
from studio.pipeline import Params, Pipeline
from studio.plans import Budget, Footprint, Phase, Plan, Prefer, Row

OPERATIONS_PER_BYTE = 3.3
"""Of a text model on a processor, which hardly reads while it computes: two operations a weight of 4.85 bits."""

READ_BYTES_PER_S = 40e9
"""What a processor reads of two channels of DDR4-3200, 51e9, while a text model writes: reading alone is quicker than
copying. A Ryzen 5700G took 137 ms a token of a 7B model of 4.2e9 bytes with four threads and 100 ms with six
(github.com/ggml-org/llama.cpp/issues/39); foreseen are 174 and 151, against 237 and 214 at the rate of copying."""

TOKEN_S = 0.0033
"""What each token costs a card beside reading: starting some hundred kernels. With it seven GeForce cards, 448e9 to
1,008e9 bytes a second, are within 11 % of what llama-bench measured of Llama 3 8B in Q4_K_M (4.6e9 bytes a token, 71 to
128 tokens a second) and within 12 % of F16 (github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference)."""

Resolve = Callable[[Footprint], Footprint]
"""Replaces probes by what they measure."""


_SIZE = re.compile(r"[\d.,]+ [KMGT]?i?B\b")
RUN_ANYWAY = "To run it anyway: --run-anyway"


@dataclass(frozen=True)
class Known:
    """What was measured on this machine, and what it is called there. The default corrects nothing."""

    runs: Calibration = field(default_factory=Calibration)
    machines: Mapping[str, str] = field(default_factory=dict)


NOTHING = Known()


def known_of(folder: Path, hardware: Hardware) -> Known:
    """What was measured on this machine; ``folder`` is where a home keeps it."""
    machines = machines_of(hardware)
    return Known(read(folder, machines.values()), machines)


def make_plan(
    pipeline: Pipeline[Any],
    params: Params,
    budget: Budget,
    prefer: Prefer = "balanced",
    resolve: Resolve | None = None,
    known: Known = NOTHING,
    *,
    anyway: bool = False,
) -> Drawn:
    """How to run a request within ``budget``. Raises ``DoesNotFit``, and ``BadRequest`` from the family.

    A family that names its networks is planned here; any other plans itself, and its phases become the rows.
    ``resolve`` runs the footprint's probes; without it they count as nothing. ``anyway``: what does not fit is run by
    the nearest plan that would, with a ``warning``.
    """
    if budget.imagined:
        pipeline.uses_card = lambda: True
    make = _maker(pipeline, params, prefer, resolve)
    correct = _corrector(pipeline, budget, known)
    drawn = _drawn(make, budget, correct, anyway=anyway)
    return replace(drawn, tokens=_tokens(params, drawn.raw))


def _drawn(make: Make, budget: Budget, correct: Corrector, *, anyway: bool) -> Drawn:
    try:
        return _fitting(make, budget, correct)
    except DoesNotFit as error:
        found = _nearest(make, budget, correct)
        if found is None:
            raise
        if not anyway:
            raise DoesNotFit(error.what, f"{error.hint} {RUN_ANYWAY}".strip()) from error
        near, sentence = found
        return replace(near, warning=f"This does not fit, and runs anyway. {error.what} {sentence}")


def forecast(
    pipeline: Pipeline[Any],
    params: Params,
    budget: Budget,
    prefer: Prefer = "balanced",
    resolve: Resolve | None = None,
    known: Known = NOTHING,
) -> Plan:
    """``make_plan`` that answers where it does not fit: ``fits`` false, the figures of the nearest plan that would."""
    if budget.imagined:
        pipeline.uses_card = lambda: True
    make = _maker(pipeline, params, prefer, resolve)
    correct = _corrector(pipeline, budget, known)
    room = {"vram_room_bytes": budget.vram_bytes, "ram_room_bytes": budget.ram_bytes}
    try:
        return _fitting(make, budget, correct).plan.model_copy(update=room)
    except DoesNotFit as error:
        found = _nearest(make, budget, correct)
        if found is None:
            words = error.hint or "No machine would do."
            refused = Plan(model=pipeline.spec.id, prefer=prefer, fits=False, nearest=words)
            return refused.model_copy(update=room)
        near, sentence = found
        what = "" if _repeats(error.what, sentence) else error.what
        words = " ".join(part for part in (what, sentence, error.hint) if part)
        return near.plan.model_copy(update={**room, "fits": False, "nearest": words, "imagined": budget.imagined})


def _repeats(what: str, sentence: str) -> bool:
    """Whether a refusal says no other figures than the sentence on what would fit: then it need not be read twice."""
    return set(_SIZE.findall(sentence)) <= set(_SIZE.findall(what))


def _fitting(make: Make, budget: Budget, correct: Corrector) -> Drawn:
    """A plan that fits: by arithmetic and what was measured, or by what was measured alone."""
    try:
        return held(make, budget, correct)
    except DoesNotFit:
        measured = proven(make, budget, correct)
        if measured is None:
            raise
        return measured


def _nearest(make: Make, budget: Budget, correct: Corrector) -> tuple[Drawn, str] | None:
    drawn: list[Drawn] = []

    def measured(larger: Budget) -> Plan:
        drawn.append(held(make, larger, correct))
        return drawn[-1].plan

    found = nearest_plan(measured, budget)
    return None if found is None else (next(one for one in drawn if one.plan is found[0]), found[1])


def _corrector(pipeline: Pipeline[Any], budget: Budget, known: Known) -> Corrector:
    software = software_of(pipeline.libraries)
    return Corrector(known.runs, known.machines, software, pipeline.spec.pipeline, rates_of(budget))


def _tokens(params: Params, made: Plan) -> int | None:
    """How many tokens a model that writes may write: what is asked, within its context."""
    asked, room = getattr(params, "max_tokens", None), made.settings.get("n_ctx")
    return min(asked, room) if asked and room else asked


def _maker(pipeline: Pipeline[Any], params: Params, prefer: Prefer, resolve: Resolve | None) -> Make:
    footprint = pipeline.footprint(params)
    if footprint.networks:
        process = footprint.process_bytes or process_bytes(pipeline.libraries)
        start_s = footprint.start_s or start_seconds(pipeline.libraries)
        footprint = footprint.model_copy(update={"process_bytes": process, "start_s": start_s})
        resolved = footprint if resolve is None else resolve(footprint)
        return lambda budget: plan(resolved, budget, prefer, model=pipeline.spec.id)

    def own(budget: Budget) -> Plan:
        made = pipeline.plan(params, budget)
        if not made.disk_bytes and pipeline.spec.source is not None:
            made = made.model_copy(update={"disk_bytes": _weights(made)})
        made = explained(made, budget, _tokens(params, made))
        return made.model_copy(update={"prefer": prefer, "imagined": budget.imagined})

    return own


def explained(made: Plan, budget: Budget, tokens: int | None = None) -> Plan:
    """A plan that its family made, with rows and seconds where it brings none itself.

    Loading takes what the disk takes. A model that writes ``tokens`` reads its weights once for each; any other time
    that the family does not know stays unknown, and then so does the whole. Of a processor's reading of weights there
    are typical rates only.
    """
    if made.rows:
        return made
    phases = tuple(_timed(phase, made, budget, tokens) for phase in made.phases)
    known = [phase.seconds for phase in phases if phase.seconds is not None]
    whole = sum(known) if phases and len(known) == len(phases) else None
    return made.model_copy(
        update={
            "phases": phases,
            "rows": tuple(row for phase in phases for row in _rows(phase, tokens)),
            "seconds": made.seconds if made.seconds is not None else whole,
            "estimated": not rates_of(budget).measured or made.device == "cpu",
        }
    )


def _weights(made: Plan) -> int:
    """About the size of files whose size nobody knows: what loading them takes."""
    return sum(phase.vram_bytes + phase.ram_bytes for phase in made.phases if phase.name == "load")


def _timed(phase: Phase, made: Plan, budget: Budget, tokens: int | None) -> Phase:
    """The phase with its seconds, as far as they follow from bytes."""
    seconds, rates = phase.seconds, rates_of(budget)
    if seconds is None and phase.name == "load":
        seconds = made.disk_bytes / rates.disk_bytes_per_s
    elif seconds is None and tokens and len(made.phases) == 2:
        on_card, in_memory = phase.token_bytes or _every_weight(made)
        computing = in_memory * OPERATIONS_PER_BYTE / (CORE_FLOPS_PER_S * budget.threads)
        card_s = on_card / rates.device_bytes_per_s + TOKEN_S if on_card else 0.0
        seconds = tokens * (card_s + in_memory / READ_BYTES_PER_S + computing)
    return phase.model_copy(update={"seconds": seconds})


def _every_weight(made: Plan) -> tuple[int, int]:
    """The bytes of weights on the card and in memory, of a family that does not say what a token reads."""
    on_card = min(next((phase.vram_bytes for phase in made.phases if phase.name == "load"), 0), made.disk_bytes)
    return on_card, made.disk_bytes - on_card


def _rows(phase: Phase, tokens: int | None) -> list[Row]:
    why = "read from the disk" if phase.name == "load" else "the most that is held at once"
    if tokens and phase.name != "load":
        why = f"up to {tokens:,} tokens, and all weights are read for each"
    places = [("card", phase.vram_bytes), ("memory", phase.ram_bytes)]
    used = [(place, size) for place, size in places if size] or [("memory", 0)]
    return [
        Row(
            phase=phase.name,
            what="weights" if phase.name == "load" else "weights and working memory",
            where=place,
            size_bytes=size,
            seconds=phase.seconds if number == 0 else None,
            why=why if number == 0 else "",
        )
        for number, (place, size) in enumerate(used)
    ]
