"""How to run a model that does not fit: a pure function from what it needs and what there is to an explained plan.

Each network runs in stages of its own (encode, denoise, decode) and leaves the card between them, so networks are
placed on it one by one; those that then fit beside all the others' stages stay, count in each of those, and are not
brought back. In memory they lie together, because all of them are read when a model is loaded. Among all
combinations that hold, ``prefer`` takes the fastest (speed), the most precise (quality), or the most precise within
15 % of the fastest that does not read the disk in every pass where another one need not (balanced).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from studio.errors import DoesNotFit
from studio.memory import plan_search as search
from studio.memory.plan_computing import computed, computing, told
from studio.memory.plan_found import Found, all_stay, join, settled, stages_of, turns, variants_of, whole_on_card
from studio.memory.plan_machine import rates_of
from studio.memory.plan_process import UNKNOWN_BYTES
from studio.memory.plan_rows import rows_of, starting
from studio.memory.plan_search import Machine
from studio.plans import Budget, Footprint, Network, Phase, Plan, Prefer, Stage
from studio.units import MIB, format_bytes

MOST_SETTLED = 100
"""Of how many combinations it is tried which networks stay, where that changes their time."""

BALANCED = 1.15
"""How much slower than the fastest plan a more precise one may be."""


def plan(footprint: Footprint, budget: Budget, prefer: Prefer = "balanced", *, model: str = "") -> Plan:
    """The plan for ``footprint`` within ``budget``. Raises ``DoesNotFit`` with what stands in the way.

    Pure: the same arguments give the same plan. Without a card everything lies in memory and is computed there.
    """
    process = footprint.process_bytes or UNKNOWN_BYTES
    machine = Machine(budget.vram_bytes, budget.ram_bytes, rates_of(budget), process)
    footprint = computed(footprint, machine)
    chosen = choose(footprint, machine, prefer)
    stages = stages_of(footprint)
    kept = len(chosen.staying) == len(chosen.ways) if machine.card else all_stay(chosen, footprint, machine)
    phases = _phases(chosen, footprint, machine, kept=kept)
    return Plan(
        model=model,
        device="cuda" if machine.card else "cpu",
        peak_vram_bytes=max(phase.vram_bytes for phase in phases),
        peak_ram_bytes=max(phase.ram_bytes for phase in phases),
        disk_bytes=footprint.disk_bytes,
        seconds=chosen.seconds + footprint.start_s,
        phases=phases,
        settings=_settings(chosen, footprint, machine, kept=kept),
        told=(*_told(chosen, machine, kept=kept), *told(footprint.networks, machine)),
        prefer=prefer,
        estimated=not machine.rates.measured,
        imagined=budget.imagined,
        rows=(*starting(footprint, machine), *rows_of(chosen, stages, machine, kept=kept)),
    )


def choose(footprint: Footprint, machine: Machine, prefer: Prefer) -> Found:
    """The best combination of ways. Raises ``DoesNotFit``."""
    stages = stages_of(footprint)
    whole = sum(network.params for network in footprint.networks)
    found = [Found()]
    ways = {network.name: search.ways_of(network, stages[network.name], machine) for network in footprint.networks}
    if lacking := [network for network in footprint.networks if not ways[network.name]]:
        raise _refusal(lacking, stages, machine)
    for network in footprint.networks:
        runs, share = stages[network.name], network.params / whole
        joined = [join(one, way, runs, share, machine) for one in found for way in ways[network.name]]
        found = [one for _, one in search.frontier((one.cost, one) for one in joined)]
    needed = [search.ram_needed(one.host_bytes, one.extra_bytes, machine) for one in found]
    holding = [one for one, ram in zip(found, needed, strict=True) if ram <= machine.ram_bytes]
    if not holding:
        left = f"{format_bytes(machine.ram_bytes)} are left"
        what = f"All networks together need {format_bytes(min(needed))} of memory; {left}."
        raise DoesNotFit(what, "Ask for something smaller, or free some memory.")
    if machine.card:
        whole_ones = (whole_on_card(one, footprint, machine) for one in holding)
        stay = [one for one in whole_ones if one is not None]
        if any(stage.rounds > 1 for stage in footprint.stages) or len(footprint.stages) > len(footprint.networks):
            quickest = sorted(holding, key=lambda one: one.seconds)[:MOST_SETTLED]  # what stays comes back in less time
            stay += [settled(one, footprint, machine) for one in quickest]
        return settled(_preferred(holding + stay, prefer), footprint, machine)
    return _preferred(holding, prefer)


def _takes_turns(stages: Sequence[Stage]) -> bool:
    return any(stage.rounds > 1 for stage in stages)


def _preferred(found: Sequence[Found], prefer: Prefer) -> Found:
    """The combination to take. A disk's speed is the least certain of all: ``balanced`` goes down in precision
    before it reads one in every pass."""
    if prefer == "speed":
        return min(found, key=lambda one: (one.seconds, one.loss))
    if prefer == "quality":
        return min(found, key=lambda one: (one.loss, one.seconds))
    limit = BALANCED * min(one.seconds for one in found)
    near = [one for one in found if one.seconds <= limit]
    return min(near, key=lambda one: (one.from_disk, one.loss, one.seconds))


def _phases(chosen: Found, footprint: Footprint, machine: Machine, *, kept: bool) -> tuple[Phase, ...]:
    """Loading, then the stages in the family's order. All networks are in memory from the loading on; what is ``kept``
    stays where it ran."""
    ways = {way.network.name: way for way in chosen.ways}
    variants = variants_of(chosen, footprint)
    held, all_turns = machine.base_ram + chosen.host_bytes, turns(chosen, machine)
    phases = []
    for number, stage in enumerate(footprint.stages):
        way, variant = ways[stage.network], variants[number]
        turn = all_turns if kept else search.turn_bytes(way, machine.card)
        phases.append(
            Phase(
                name=stage.name,
                vram_bytes=search.device_peak(way, stage, variant, True, chosen.beside(way)) if machine.card else 0,
                ram_bytes=held + turn + search.host_extra(stage, variant, machine.card),
                seconds=search.stage_s(way, stage, variant, machine),
            )
        )
    load = Phase(
        name="load",
        vram_bytes=search.overhead(True) + max(way.device_bytes for way in chosen.ways) if machine.card else 0,
        ram_bytes=held if machine.card else max(held, machine.base_ram + machine.measuring_bytes),
        seconds=footprint.start_s + sum(way.load_s for way in chosen.ways),
    )
    return (load, *phases)


def _settings(chosen: Found, footprint: Footprint, machine: Machine, *, kept: bool) -> dict[str, Any]:
    """What the executing side needs: how each network lies, which variant each stage takes, what is freed."""
    networks = {
        way.network.name: {
            "precision": way.precision,
            "blocks": way.resident + way.streamed,
            "resident": way.resident,
            "pinned_bytes": way.host_bytes,
            "all_in_memory": machine.card and search.in_memory(way),
            "disk_bytes": way.disk_bytes,
            "compiled": way.compiled,
            **({"stays": True} if way.stays and not kept else {}),
            **({"computing": kind} if (kind := computing(way.network, machine)) is not None else {}),
        }
        for way in chosen.ways
    }
    tiling = {
        stage.name: variant.name
        for stage, variant in zip(footprint.stages, variants_of(chosen, footprint), strict=True)
        if variant.name
    }
    return {
        "networks": networks,
        "variants": tiling,
        "attention": machine.rates.attention,
        "free_after_use": not kept,
    }


def _told(chosen: Found, machine: Machine, *, kept: bool) -> tuple[str, ...]:
    """The settings that the rows do not tell, in words."""
    where = "on the card" if machine.card else "in memory"
    stay = f"all networks stay {where} for the next request" if kept else "each network gives way when its turn is over"
    if not kept and (names := [way.network.name for way in chosen.ways if way.stays]):
        verb = "stay" if len(names) > 1 else "stays"
        stay = f"{', '.join(names)} {verb} on the card for the next request, the others give way after their turn"
    return (f"{machine.rates.attention} attention", stay) if machine.card else (stay,)


def _refusal(networks: Sequence[Network], stages: Mapping[str, Sequence[Stage]], machine: Machine) -> DoesNotFit:
    """Which network stands in the way, and the least that it needs: of several the one that needs most."""
    needs = [(*_least(network, stages[network.name], machine), network.name) for network in networks]
    card, _, name = max(needs)
    if machine.card and card > machine.vram_bytes:
        size, left = _told_apart(card, machine.vram_bytes)
        what = f"{name} needs at least {size} on the card; {left} are left."
        return DoesNotFit(what, "Ask for something smaller, or free the card.")
    ram, name = max((ram, name) for _, ram, name in needs)
    size, left = _told_apart(ram, machine.ram_bytes)
    what = f"{name} needs at least {size} of memory; {left} are left."
    return DoesNotFit(what, "Ask for something smaller, or free some memory.")


def _told_apart(needed: int, left: int) -> tuple[str, str]:
    """Both sizes in words, in MiB where they would read alike."""
    words = format_bytes(needed), format_bytes(left)
    return words if words[0] != words[1] else (f"{needed / MIB:,.0f} MiB", f"{left / MIB:,.0f} MiB")


def _least(network: Network, stages: Sequence[Stage], machine: Machine) -> tuple[int, int]:
    """The least bytes on the card and, of the ways that hold there, in memory."""
    pairs = [
        (
            max(min(search.device_peak(way, stage, one, True) for one in stage.variants) for stage in stages)
            if machine.card
            else 0,
            search.ram_needed(
                search.host_peak(way, machine.card),
                search.turn_bytes(way, machine.card)
                + max(min(search.host_extra(stage, one, machine.card) for one in stage.variants) for stage in stages),
                machine,
            ),
        )
        for way in search.placements(network, machine.card, _takes_turns(stages))
    ]
    least = min(vram for vram, _ in pairs)
    return least, min(ram for vram, ram in pairs if vram <= max(least, machine.vram_bytes))
