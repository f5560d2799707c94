"""Every way to hold one network, with its bytes and seconds, and the choice among all networks.

What a way costs does not depend on the budget; the budget only strikes ways out. So a larger one can never give a
slower plan, and what fits a budget fits a larger one.

The time of one pass is ``max(computing, copying)`` and a little of the other: the next block is copied while one is
computed. Computing takes
the operations at the device's rate, or the reading of all weights if that is longer, and the unpacking of quantised
ones (read, write and read again).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

from studio.memory.footprint import Stored, as_filed, loss, network_bytes, pinned, precisions, work_bytes
from studio.memory.plan_process import UNKNOWN_BYTES
from studio.plans import Network, Precision, Rates, Stage, Variant
from studio.units import GIB, MIB

CONTEXT_BYTES = 450 * MIB
"""CUDA's context and torch's kernels on the card, before the first tensor."""
WORKSPACE_BYTES = 128 * MIB
"""What cuBLAS and cuDNN keep for themselves."""
MARGIN_BYTES = 192 * MIB
"""What torch's allocator reserves beyond what is used: rounding and gaps."""
PROCESS_BYTES = 2 * GIB
"""Python, torch and its CUDA libraries in memory."""
ALLOCATOR_BYTES = 16 * MIB
"""What the C library keeps of what was freed in smaller pieces, at most: what the heaps of the engine's thread and of
the one that computes may keep (``heap.py``), and the gaps between."""
PART_BYTES = 4 * MIB
"""What a network takes in a processor's memory besides its weights: modules, configuration, a tokenizer."""
GAPS = 0.02, 0.04
"""What a processor takes more than weights and activations are: gaps between pieces, and pages begun."""
MEASURING_BYTES = 64 * MIB
"""What measuring this machine's rates takes before the first model."""
STAGING_BYTES = 256 * MIB
"""One pinned slab through which files are read."""

COMPILED = 0.77
"""A compiled block against an eager one: 0.85 s against 1.11 s for FramePack on an H100, resident."""
COMPILE_S = 60.0
"""Compiling a network's blocks, one graph for each kind: estimated from such runs."""

T = TypeVar("T")
Cost = tuple[float, float, int, int, int]
"""Seconds, loss, the memory that is shared with the other networks, the most that a stage adds to it, and networks
that stay on the disk."""

PINNED_SHARE = 0.8
"""How much of the memory may be pinned: what is pinned can neither be swapped nor hold files that are read."""

OVERLAP = 0.02
"""The share of the shorter of computing and copying that is not hidden: 1.13 s against 1.11 s a step for FramePack on
an H100, where copying took 0.47 s."""

WIDE_SHARE = 0.25
"""Of operations at 16 bits, those at 32 where nobody measured them: between an RTX 2060's data sheet (0.12 with tensor
cores) and cards without such (0.5)."""

_MOST_COUNTS = 48
_MOST_COUNTS_WITHOUT_CARD = 4
"""There, what is not resident comes from the disk, and each count is another trade of memory for time."""


@dataclass(frozen=True)
class Machine:
    """What the search needs to know of the budget: the limits, the rates, and whether there is a card.

    ``process_bytes`` is the memory of the executing process without any network, where there is no card.
    """

    vram_bytes: int
    ram_bytes: int
    rates: Rates
    process_bytes: int = UNKNOWN_BYTES

    @property
    def card(self) -> bool:
        return self.vram_bytes > 0

    @property
    def measuring_bytes(self) -> int:
        """The bytes of memory that measuring the rates takes on a processor, before anything is loaded."""
        return 0 if self.rates.measured else MEASURING_BYTES

    @property
    def base_ram(self) -> int:
        """The bytes of memory without any network."""
        return PROCESS_BYTES + STAGING_BYTES if self.card else self.process_bytes


@dataclass(frozen=True)
class Way:
    """One way to hold a network: ``resident`` of its blocks on the device; the others, ``moving_bytes``, streamed:
    ``disk_bytes`` of them from the disk in each pass, the rest from pinned memory. ``host_bytes`` are pinned;
    ``unpacked_bytes`` is what its quantised blocks are in 16 bits, ``file_bytes`` what the files hold of it. ``stays``:
    once on the card it never leaves, so that nothing is brought back for a later stage."""

    network: Network
    precision: Precision
    resident: int
    streamed: int
    resident_bytes: int
    slot_bytes: int
    work_bytes: int
    moving_bytes: int
    host_bytes: int
    disk_bytes: int
    unpacked_bytes: int
    file_bytes: int
    variants: tuple[Variant, ...] = ()
    compiled: bool = False
    stays: bool = False
    load_s: float = 0.0
    run_s: float = 0.0

    @property
    def device_bytes(self) -> int:
        return self.resident_bytes + self.slot_bytes + self.work_bytes

    @property
    def seconds(self) -> float:
        return self.load_s + self.run_s


def counts(blocks: int, most: int = _MOST_COUNTS) -> list[int]:
    """How many blocks may be resident, most first: every number up to ``most`` blocks, else evenly spaced ones."""
    steps = min(blocks, most)
    return [round(blocks * step / steps) for step in range(steps, -1, -1)] if steps else [0]


def overhead(card: bool) -> int:
    """What a stage takes on the device besides its network and its activations."""
    return CONTEXT_BYTES + WORKSPACE_BYTES + MARGIN_BYTES if card else 0


def device_peak(way: Way, stage: Stage, variant: Variant, card: bool, every: int = 0) -> int:
    """The most bytes on the device in a stage: context, network, slots, activations, workspace and margin. ``every``:
    the bytes of all networks, where none leaves the device."""
    return overhead(card) + max(way.device_bytes, every) + stage.held_bytes + variant.activation_bytes


def host_peak(way: Way, card: bool) -> int:
    """The bytes of memory that a network takes from its loading on: pinned slabs, or on a processor all of it. One that
    comes from the disk takes nothing until it runs."""
    if card:
        return pinned(way.host_bytes)
    return PART_BYTES + (0 if way.disk_bytes else round((1 + GAPS[0]) * way.device_bytes))


def turn_bytes(way: Way, card: bool) -> int:
    """The bytes of memory that a network takes besides while it runs, if it comes from the disk: on a card the pinned
    memory through which blocks pass, on a processor what is read of it."""
    if not way.disk_bytes:
        return 0
    return way.slot_bytes if card else way.device_bytes


def host_extra(stage: Stage, variant: Variant, card: bool) -> int:
    """The bytes of memory that a stage takes besides networks."""
    return stage.ram_bytes + (0 if card else stage.held_bytes + working_bytes(variant, card))


def working_bytes(variant: Variant, card: bool) -> int:
    """The bytes that computing takes on the device: activations, and on a processor what its allocator keeps."""
    if card:
        return variant.activation_bytes
    most = max(variant.activation_bytes, variant.processor_bytes)
    return round((1 + GAPS[1]) * most) + min(most, ALLOCATOR_BYTES)


@lru_cache(maxsize=64)
def placements(network: Network, card: bool, turns: bool) -> tuple[Way, ...]:
    """All ways to hold a network. From the disk only as its files are; a network that takes turns keeps all of it
    in pinned memory, or comes from the disk each time."""
    found = []
    files = network_bytes(as_filed(network), as_filed(network).stored)
    for precision in precisions(network, card):
        stored = Stored(network, precision)
        unpacked = sum(work_bytes(kind, precision, network.stored) * kind.count for kind in network.blocks)
        for count in counts(len(stored.blocks), _MOST_COUNTS if card else _MOST_COUNTS_WITHOUT_CARD):
            resident, streamed = stored.resident(count), len(stored.blocks) - count
            moving = stored.total - resident
            for share in _shares(card, precision in (network.stored, network.filed), streamed, turns):
                disk = moving - round(moving * share)
                host = stored.total if turns and card and share == 1 else moving - disk
                slots = stored.slots(count)
                way = Way(
                    network,
                    precision,
                    count,
                    streamed,
                    resident,
                    slots,
                    stored.work,
                    moving,
                    host,
                    disk,
                    unpacked,
                    files,
                )
                found.append(way)
    return tuple(found)


def _shares(card: bool, as_stored: bool, streamed: int, turns: bool) -> tuple[float, ...]:
    """Which shares of the streamed blocks may be in pinned memory: all, or none of them. There is no bus without a
    card."""
    if not card:
        return (0.0,) if as_stored or not streamed else ()
    return (1.0, 0.0) if as_stored and (streamed or turns) else (1.0,)


def ways_of(network: Network, stages: Sequence[Stage], machine: Machine) -> list[Way]:
    """The ways that hold within the machine's limits, timed, without those that another one beats in everything."""
    turns = any(stage.rounds > 1 for stage in stages)
    found: list[tuple[Cost, Way]] = []
    for way in placements(network, machine.card, turns):
        fitting = [[one for one in stage.variants if fits(way, stage, one, machine)] for stage in stages]
        if not all(fitting):
            continue
        for seconds, held in _timed(way, stages, fitting, machine):
            bad = loss(network, way.precision) + sum(variant.loss for variant in held.variants)
            host = host_peak(held, machine.card)
            found.append(
                ((even(seconds), bad, host, most_extra(held, stages, machine), int(held.disk_bytes > 0)), held)
            )
    return [way for _, way in frontier(found)]


def _timed(
    way: Way, stages: Sequence[Stage], fitting: Sequence[Sequence[Variant]], machine: Machine
) -> Iterator[tuple[float, Way]]:
    """The way with its seconds, loading and all stages, for each choice of variants; compiled where that pays."""
    load = load_s(way, machine)
    forms = [(way, 0.0)]
    if way.network.compiles and machine.card:
        forms.append((replace(way, compiled=True), COMPILE_S))
    # Seconds of each stage in each variant, for each form, so that every combination is a sum.
    tables = [
        [
            [stage_s(form, stage, one, machine) for one in variants]
            for stage, variants in zip(stages, fitting, strict=True)
        ]
        for form, _ in forms
    ]
    for picks in product(*(range(len(variants)) for variants in fitting)):
        runs = [sum(table[stage][pick] for stage, pick in enumerate(picks)) for table in tables]
        best = min(range(len(forms)), key=lambda form: runs[form] + forms[form][1])
        form, extra = forms[best]
        variants = tuple(fitting[stage][pick] for stage, pick in enumerate(picks))
        held = replace(form, variants=variants, load_s=load + extra, run_s=runs[best])
        yield held.seconds, held


def fits(way: Way, stage: Stage, variant: Variant, machine: Machine) -> bool:
    """Whether a stage holds within the card and the memory, with no other network there."""
    extra = turn_bytes(way, machine.card) + host_extra(stage, variant, machine.card)
    ram = ram_needed(host_peak(way, machine.card), extra, machine)
    return ram <= machine.ram_bytes and (
        not machine.card or device_peak(way, stage, variant, True) <= machine.vram_bytes
    )


def ram_needed(held: int, extra: int, machine: Machine) -> int:
    """The free memory in which ``held`` bytes of networks, pinned if there is a card, and ``extra`` can be."""
    if not machine.card:
        return machine.base_ram + max(held + extra, machine.measuring_bytes)
    return max(machine.base_ram + held + extra, round(held / PINNED_SHARE))


def most_extra(way: Way, stages: Sequence[Stage], machine: Machine) -> int:
    """The most that a network's own stages add to the memory while all networks lie in it."""
    return turn_bytes(way, machine.card) + max(
        host_extra(*pair, machine.card) for pair in zip(stages, way.variants, strict=True)
    )


def whole(way: Way) -> Way:
    """The same network at the same precision, all of it on the card."""
    found = next(
        one
        for one in placements(way.network, True, False)
        if one.precision == way.precision and not one.streamed and not one.disk_bytes
    )
    return replace(found, variants=way.variants, compiled=way.compiled)


def staying(way: Way, stages: Sequence[Stage], machine: Machine) -> Way:
    """The way with its network on the card for good: it is brought there once, which counts as loading."""
    held = replace(way, stays=True)
    runs = sum(stage_s(held, stage, variant, machine) for stage, variant in zip(stages, held.variants, strict=True))
    load = load_s(held, machine) + bring_s(held, machine) + (COMPILE_S if held.compiled else 0.0)
    return replace(held, load_s=load, run_s=runs)


def stage_s(way: Way, stage: Stage, variant: Variant, machine: Machine) -> float:
    """Seconds of all rounds of a stage, for each of which a network that does not stay is brought to the card."""
    return passes_s(way, stage, variant, machine) + brings_s(way, stage, machine)


def passes_s(way: Way, stage: Stage, variant: Variant, machine: Machine) -> float:
    """Seconds of all passes of a stage."""
    return stage.rounds * stage.calls * pass_s(way, variant, machine)


def brings_s(way: Way, stage: Stage, machine: Machine) -> float:
    """Seconds of bringing a network to the card in a stage."""
    return 0.0 if way.stays else stage.rounds * bring_s(way, machine)


def pass_s(way: Way, variant: Variant, machine: Machine) -> float:
    """Seconds of one pass: computing or copying, whichever takes longer, and what the other does not hide."""
    short, long = sorted((compute_s(way, variant, machine), copy_s(way, machine)))
    return long + OVERLAP * short


def compute_s(way: Way, variant: Variant, machine: Machine) -> float:
    """Seconds that the device computes for one pass."""
    rates = machine.rates
    reading = (way.resident_bytes + way.moving_bytes) / rates.device_bytes_per_s
    factor = COMPILED if way.compiled else 1.0
    return (
        factor * max(variant.flops / flops_per_s(way.network, rates), reading)
        + 2 * way.unpacked_bytes / rates.device_bytes_per_s
    )


def flops_per_s(network: Network, rates: Rates) -> float:
    """Operations a second with this network: fewer where a card without bf16 computes it in 32 bits."""
    if network.stored != "fp32" or rates.half == "bf16":
        return rates.flops_per_s
    return rates.wide_flops_per_s or WIDE_SHARE * rates.flops_per_s


def copy_s(way: Way, machine: Machine) -> float:
    """Seconds that the bus and the disk take to bring the streamed blocks of one pass."""
    disk = way.disk_bytes / machine.rates.disk_bytes_per_s
    return max(way.moving_bytes / machine.rates.bus_bytes_per_s, disk) if machine.card else disk


def bring_s(way: Way, machine: Machine) -> float:
    """Seconds until what lies on the card while a network runs is there: copied from memory, or while its files are
    read. Fewer bits than the files have are read whole in loading, and then are in memory or the page cache."""
    if not machine.card:
        return 0.0
    copying = way.resident_bytes / machine.rates.bus_bytes_per_s
    as_filed = way.precision in (way.network.stored, way.network.filed)
    if in_memory(way) or not as_filed:
        return copying
    read = way.file_bytes * way.resident_bytes / (way.resident_bytes + way.moving_bytes)
    return max(copying, read / machine.rates.disk_bytes_per_s)


def in_memory(way: Way) -> bool:
    """Whether all of a network is in pinned memory, also what lies on the card while it runs."""
    return way.host_bytes >= way.resident_bytes + way.moving_bytes


def load_s(way: Way, machine: Machine) -> float:
    """Seconds to read a network's files, but for what goes straight to the card when the network runs, and to quantise
    it. What is read anew in each pass counts here too: reading a disk again and again must not look better than
    keeping what was read."""
    as_filed = way.precision in (way.network.stored, way.network.filed)
    weights = way.resident_bytes + way.moving_bytes
    later = machine.card and as_filed and not in_memory(way)
    share = way.moving_bytes / weights if later else 1.0
    reading = share * way.file_bytes / machine.rates.disk_bytes_per_s
    quantised = way.file_bytes + (weights if in_memory(way) else way.moving_bytes)
    return reading if as_filed else reading + quantised / machine.rates.bus_bytes_per_s


def even(seconds: float) -> float:
    """Sums of the same parts in another order are the same time."""
    return round(seconds, 9)


def frontier(items: Iterable[tuple[Cost, T]]) -> list[tuple[Cost, T]]:
    """The items that no other one beats or equals in all costs, quickest first."""
    kept: list[tuple[Cost, T]] = []
    for cost, item in sorted(items, key=lambda one: one[0]):
        _, loss, host, extra, disk = cost
        if not any(a <= loss and b <= host and c <= extra and d <= disk for (_, a, b, c, d), _ in kept):
            kept.append((cost, item))
    return kept
