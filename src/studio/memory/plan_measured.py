"""A plan corrected by what earlier runs took on this machine: its seconds, its peaks, and the words for them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from studio.errors import DoesNotFit
from studio.memory.calibration import Calibration, Guess, Subject, choice_of, rates_id
from studio.memory.plan_nearest import nearest_plan
from studio.plans import Budget, Phase, Plan, Rates, Row
from studio.units import format_bytes

TYPICAL = "estimated from typical rates, not measured on this machine"
MEASURED_RATES = "computed from rates that were measured on this machine"
ATTEMPTS = 4
"""How often a plan is made smaller because measured peaks exceed the budget."""

Make = Callable[[Budget], Plan]
"""A plan by arithmetic alone; raises ``DoesNotFit``."""


@dataclass(frozen=True)
class Drawn:
    """A plan to follow, and the same by arithmetic alone. ``warning`` says why it does not fit, if it does not.
    ``subject`` and ``rates`` are what its run is kept under; ``tokens`` is how many a model that writes is planned for.
    """

    plan: Plan
    raw: Plan
    subject: Subject
    rates: Rates
    warning: str = ""
    tokens: int | None = None


@dataclass(frozen=True)
class Corrector:
    """What is known of runs, and whose runs they must be: ``subject`` up to its machine and its choice, which follow
    from a plan. ``machines`` names this machine by the plan's device."""

    known: Calibration
    machines: Mapping[str, str]
    software: Mapping[str, str]
    pipeline: str
    rates: Rates

    def subject(self, raw: Plan) -> Subject:
        """What a run of this plan is compared with."""
        return Subject(
            machine=self.machines.get(raw.device, ""),
            software=dict(self.software),
            pipeline=self.pipeline,
            model=raw.model,
            choice=choice_of(raw),
        )

    def drawn(self, raw: Plan, plan: Plan) -> Drawn:
        return Drawn(plan, raw, self.subject(raw), self.rates)

    def __call__(self, raw: Plan) -> Plan:
        """The plan with the seconds and peaks that measurements give it; one of an imagined machine stays."""
        if raw.imagined:
            return raw
        subject = self.subject(raw)
        timed, guesses, other = self._timed(raw, subject)
        vram, vram_runs = self.known.peak(subject, "vram", raw.peak_vram_bytes)
        ram, ram_runs = self.known.peak(subject, "ram", raw.peak_ram_bytes)
        peaks = [("card", raw.peak_vram_bytes, vram, vram_runs), ("memory", raw.peak_ram_bytes, ram, ram_runs)]
        phases = tuple(_sized(phase, raw, vram, ram) for phase in timed)
        if other:
            phases = (*phases, Phase(name="other", seconds=other))
        estimated, basis = _basis(raw, guesses)
        return raw.model_copy(
            update={
                "phases": phases,
                "peak_vram_bytes": vram,
                "peak_ram_bytes": ram,
                "seconds": _whole(raw, phases, guesses),
                "rows": (*_rows(raw, guesses), *_other_row(other), *_peak_rows(peaks)),
                "estimated": estimated,
                "basis": basis,
            }
        )

    def _timed(self, raw: Plan, subject: Subject) -> tuple[list[Phase], dict[str, Guess], float]:
        """The phases with corrected seconds, the guesses behind them by phase, and the seconds beside all phases."""
        rates = rates_id(self.rates)
        guesses: dict[str, Guess] = {}
        phases = []
        for phase in raw.phases:
            guess = self.known.seconds(subject, rates, phase.name, phase.seconds) if phase.seconds else None
            if guess is not None:
                guesses[phase.name] = guess
                phase = phase.model_copy(update={"seconds": guess.seconds})
            phases.append(phase)
        return phases, guesses, self.known.other(subject, rates) if guesses else 0.0


def _sized(phase: Phase, raw: Plan, vram: int, ram: int) -> Phase:
    """The phase's bytes in the proportion in which the peaks changed."""

    def scaled(size: int, before: int, after: int) -> int:
        return round(size * after / before) if before else size

    return phase.model_copy(
        update={
            "vram_bytes": scaled(phase.vram_bytes, raw.peak_vram_bytes, vram),
            "ram_bytes": scaled(phase.ram_bytes, raw.peak_ram_bytes, ram),
        }
    )


def _whole(raw: Plan, phases: tuple[Phase, ...], guesses: Mapping[str, Guess]) -> float | None:
    """The sum of the phases where one was corrected, unless a phase's time is not known."""
    if not guesses:
        return raw.seconds
    return None if any(phase.seconds is None for phase in phases) else sum(phase.seconds or 0 for phase in phases)


def _basis(raw: Plan, guesses: Mapping[str, Guess]) -> tuple[bool, str]:
    """Whether the seconds are estimates, and in words where they come from. Only runs of the model itself, in every
    phase that takes time, count as measured."""
    timed = {phase.name for phase in raw.phases if phase.seconds}
    if timed and all(name in guesses and guesses[name].level != "family" for name in timed):
        return False, f"measured on this machine, {_runs(max(guess.runs for guess in guesses.values()))}"
    if guesses:
        others = any(guess.level == "family" for guess in guesses.values())
        whose = "other models" if others else "a part of it"
        runs = _runs(max(guess.runs for guess in guesses.values()))
        return True, f"estimated from what {whose} took on this machine, {runs}"
    return (True, TYPICAL) if raw.estimated else (False, MEASURED_RATES)


def _runs(count: int) -> str:
    return f"{count} run{'s' * (count > 1)}"


def _rows(raw: Plan, guesses: Mapping[str, Guess]) -> list[Row]:
    """The table with corrected seconds. What the planner said of the time is kept as what it is: arithmetic."""
    predicted = {phase.name: phase.seconds for phase in raw.phases}
    rows = []
    for row in raw.rows:
        before, guess = predicted.get(row.phase), guesses.get(row.phase)
        if row.seconds is None or guess is None or not before:
            rows.append(row)
            continue
        why = f"as measured{' of other models' * (guess.level == 'family')}, {_runs(guess.runs)}"
        why = f"{why}; by arithmetic {row.why}" if " passes of " in row.why else f"{row.why}; {why}"
        rows.append(row.model_copy(update={"seconds": row.seconds * guess.seconds / before, "why": why}))
    return rows


def _other_row(other: float) -> list[Row]:
    if not other:
        return []
    why = "preparing, reading the request and saving, as measured"
    return [Row(phase="other", what="what lies between", seconds=other, why=why)]


def _peak_rows(peaks: list[tuple[str, int, int, int]]) -> list[Row]:
    return [
        Row(
            phase="all",
            what="the most at once",
            where=place,
            size_bytes=after,
            why=f"as measured, {_runs(runs)}; by arithmetic {format_bytes(before)}",
        )
        for place, before, after, runs in peaks
        if runs
    ]


def held(make: Make, budget: Budget, correct: Corrector) -> Drawn:
    """The plan whose corrected peaks hold: where runs took more than was predicted, a smaller one is looked for."""
    raw, room = make(budget), budget
    for _ in range(ATTEMPTS):
        plan = correct(raw)
        if _fits(plan, raw, budget):
            return correct.drawn(raw, plan)
        room = room.model_copy(
            update={
                "vram_bytes": _less(room.vram_bytes, raw.peak_vram_bytes, plan.peak_vram_bytes, budget.vram_bytes),
                "ram_bytes": _less(room.ram_bytes, raw.peak_ram_bytes, plan.peak_ram_bytes, budget.ram_bytes),
            }
        )
        try:
            raw = make(room)
        except DoesNotFit:
            break
    raise _measured_refusal(plan, budget)


def _fits(plan: Plan, raw: Plan, budget: Budget) -> bool:
    """A correction that lowers is no reason to refuse, whatever the family counted."""
    return plan.peak_vram_bytes <= max(budget.vram_bytes, raw.peak_vram_bytes) and plan.peak_ram_bytes <= max(
        budget.ram_bytes, raw.peak_ram_bytes
    )


def _less(room: int, raw: int, corrected: int, budget: int) -> int:
    """What arithmetic may use so that the corrected peak is within the budget. One byte is still a card."""
    if corrected <= max(budget, raw):
        return room
    return max(1, min(room, raw) - (corrected - budget))


def _measured_refusal(plan: Plan, budget: Budget) -> DoesNotFit:
    needs, have = [f"{format_bytes(plan.peak_ram_bytes)} of memory"], [f"{format_bytes(budget.ram_bytes)} of memory"]
    if plan.peak_vram_bytes:
        needs.insert(0, f"{format_bytes(plan.peak_vram_bytes)} on the card")
        have.insert(0, f"{format_bytes(budget.vram_bytes)} on the card")
    what = f"By what earlier runs took, this needs {' and '.join(needs)}; {' and '.join(have)} are left."
    return DoesNotFit(what, "Ask for something smaller, or free some memory.")


def proven(make: Make, budget: Budget, correct: Corrector) -> Drawn | None:
    """A plan that arithmetic refuses but whose earlier runs took no more than the budget."""
    if not any(run.vram or run.ram for kept in correct.known.kept for run in kept.runs):
        return None
    found = nearest_plan(make, budget)
    if found is None:
        return None
    raw = found[0]
    plan = correct(raw)
    within = plan.peak_vram_bytes <= budget.vram_bytes and plan.peak_ram_bytes <= budget.ram_bytes
    return correct.drawn(raw, plan) if within else None
