"""The nearest budget in which a request would fit, for those in which it does not."""

from __future__ import annotations

from collections.abc import Callable

from studio.errors import DoesNotFit
from studio.plans import Budget, Plan
from studio.units import MIB, format_bytes

MOST_BYTES = 2 * 1024**4
STEP_BYTES = 16 * MIB


def nearest_plan(make: Callable[[Budget], Plan], budget: Budget) -> tuple[Plan, str] | None:
    """The plan that needs the least more than ``budget``, and a sentence on what it needs.

    Tried are a larger card, more memory, and both; the one that adds the fewest bytes is taken. ``None``: no size
    of machine would do.
    """
    ways = [("vram",), ("ram",), ("vram", "ram")] if budget.vram_bytes else [("ram",)]
    found = [hit for way in ways if (hit := _least(make, budget, way)) is not None]
    if len(found) == 1 and len(ways) == 3:  # both are too small, and one of them perhaps by less than the other
        added, _ = found[0]
        wide = budget.model_copy(update={"vram_bytes": budget.vram_bytes + added // 2})
        found = [less for less in [_least(make, wide, ("ram",))] if less is not None] or found
    if not found:
        return None
    _, plan = min(found, key=lambda one: one[0])
    return plan, _sentence(plan, budget)


def _least(make: Callable[[Budget], Plan], budget: Budget, way: tuple[str, ...]) -> tuple[int, Plan] | None:
    """Bisect on the bytes that are added to every memory of ``way``."""
    low, high = 0, STEP_BYTES
    while (plan := _try(make, budget, way, high)) is None:
        low, high = high, high * 2
        if high > MOST_BYTES:
            return None
    best = plan
    while high - low > STEP_BYTES:
        middle = (low + high) // 2
        plan = _try(make, budget, way, middle)
        if plan is None:
            low = middle
        else:
            high, best = middle, plan
    return high * len(way), best


def _try(make: Callable[[Budget], Plan], budget: Budget, way: tuple[str, ...], added: int) -> Plan | None:
    sizes = {"vram": budget.vram_bytes, "ram": budget.ram_bytes}
    larger = budget.model_copy(update={f"{name}_bytes": sizes[name] + added for name in way})
    try:
        return make(larger)
    except DoesNotFit:
        return None


def _sentence(plan: Plan, budget: Budget) -> str:
    """Only what is missing: what there is enough of is no news."""
    needs = []
    if plan.peak_vram_bytes > budget.vram_bytes:
        needs.append(f"{format_bytes(plan.peak_vram_bytes)} free on the card (there are {_have(budget.vram_bytes)})")
    if plan.peak_ram_bytes > budget.ram_bytes or not needs:
        needs.append(f"{format_bytes(plan.peak_ram_bytes)} of free memory (there are {_have(budget.ram_bytes)})")
    return f"It would fit with {' and '.join(needs)}."


def _have(count: int) -> str:
    return format_bytes(count) if count else "none"
