"""A plan in words: what lies where, how large, how long, and why it was chosen so."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from studio.memory import plan_search as search
from studio.memory.footprint import as_filed, network_bytes
from studio.memory.plan_computing import computing
from studio.memory.plan_found import Found
from studio.memory.plan_search import Machine, Way
from studio.plans import Footprint, Row, Stage, Variant
from studio.units import format_bytes, format_seconds


def starting(footprint: Footprint, machine: Machine) -> tuple[Row, ...]:
    """The line of what is imported first, where that takes time."""
    if not footprint.start_s:
        return ()
    return (
        Row(
            phase="load",
            what="libraries",
            where="memory",
            size_bytes=machine.base_ram,
            seconds=footprint.start_s,
            why="imported once, when the first model is loaded",
        ),
    )


def rows_of(
    chosen: Found, stages: Mapping[str, list[Stage]], machine: Machine, *, kept: bool = False
) -> tuple[Row, ...]:
    """The table of a plan: for each network its loading and where it lies, for each stage what it adds and takes."""
    found: list[Row] = []
    ways = chosen.ways
    held = machine.base_ram + sum(search.host_peak(way, machine.card) for way in ways)
    for way in ways:
        runs = stages[way.network.name]
        found.append(_load(way, machine))
        found += _places(way, runs, machine)
        turns = sum(search.turn_bytes(one, machine.card) for one in (ways if kept else (way,)))
        for number, (stage, variant) in enumerate(zip(runs, way.variants, strict=True)):
            if number and (seconds := search.brings_s(way, stage, machine)):
                found.append(_again(way, stage, seconds))
            found += _stage(way, stage, variant, machine, held + turns, chosen.beside(way), kept)
    return tuple(found)


def _load(way: Way, machine: Machine) -> Row:
    filed = as_filed(way.network)
    size = network_bytes(filed, filed.stored)
    why = "read from the disk"
    if way.precision != filed.stored:
        why += f", {filed.stored} to {way.precision}"
    if way.compiled:
        why += ", compiled"
    return Row(
        phase="load", what=way.network.name, where="disk", precision=filed.stored, size_bytes=size,
        seconds=way.load_s, why=why,
    )  # fmt: skip


def _places(way: Way, stages: Sequence[Stage], machine: Machine) -> Iterator[Row]:
    name, phase = way.network.name, stages[0].name
    device = "card" if machine.card else "memory"
    blocks = way.resident + way.streamed
    what = name if not way.streamed else f"{name}, {way.resident} of {blocks} blocks"
    why = _why_precision(way, stages, machine)
    if (kind := computing(way.network, machine)) is not None:
        why += f"; computed in {kind}, for this card has no bf16"
    seconds = search.brings_s(way, stages[0], machine) or None
    if seconds:
        why += f"; {_brought(way)}"
    yield Row(
        phase=phase, what=what, where=device, precision=way.precision, size_bytes=way.resident_bytes, seconds=seconds,
        why=why,
    )  # fmt: skip
    for where, size in (("memory", way.moving_bytes - way.disk_bytes), ("disk", way.disk_bytes)):
        if size and way.streamed:
            why = _why_streamed(way, stages, machine)
            if where == "disk":
                why = f"the memory is too small for them; {why}"
            yield Row(
                phase=phase, what=f"{name}, the others", where=where, precision=way.precision, size_bytes=size, why=why
            )
    if way.slot_bytes + way.work_bytes:
        parts = ["two slots for the copies"] * bool(way.slot_bytes) + ["one block unpacked"] * bool(way.work_bytes)
        yield Row(
            phase=phase, what=f"{name}, buffers", where=device, size_bytes=way.slot_bytes + way.work_bytes,
            why=" and ".join(parts),
        )  # fmt: skip


def _brought(way: Way) -> str:
    as_filed = way.precision in (way.network.stored, way.network.filed)
    from_disk = as_filed and not search.in_memory(way)
    return "brought there from the disk" if from_disk else "brought there from memory"


def _again(way: Way, stage: Stage, seconds: float) -> Row:
    """A network that left comes back for another stage."""
    return Row(
        phase=stage.name, what=f"{way.network.name}, once more", where="card", precision=way.precision,
        size_bytes=way.resident_bytes, seconds=seconds, why=_brought(way),
    )  # fmt: skip


def _why_precision(way: Way, stages: Sequence[Stage], machine: Machine) -> str:
    """As in the files, or what the best precision would cost under the same limits: time, and memory."""
    filed = as_filed(way.network).stored
    if way.precision in (way.network.stored, filed):
        exact = "as in its files"
        if way.precision != filed:
            exact = "as it is computed" if machine.card else "in 32 bits, which a processor computes quickest"
        return f"evenly spread; {exact}" if way.streamed else exact
    top = filed if machine.card else way.network.stored
    best = [other for other in search.ways_of(way.network, stages, machine) if other.precision == top]
    if not best:
        return f"{top} would not fit"
    quickest = min(best, key=lambda other: other.seconds)
    more = search.host_peak(quickest, machine.card) - search.host_peak(way, machine.card)
    price = f" and {format_bytes(more)} more of memory" if more > 0 else ""
    if quickest.disk_bytes and machine.card:
        price = ", the disk read in every pass"
    times = f"{format_seconds(way.seconds)} with loading; {top} would take"
    return f"{times} {format_seconds(quickest.seconds)}{price}"


def _why_streamed(way: Way, stages: Sequence[Stage], machine: Machine) -> str:
    """Whether copying hides behind computing, in the stage that runs most often."""
    pairs = zip(stages, way.variants, strict=True)
    _, variant = max(pairs, key=lambda pair: pair[0].rounds * pair[0].calls)
    compute, copy = search.compute_s(way, variant, machine), search.copy_s(way, machine)
    floor = "disk" if way.disk_bytes else "bus"
    times = f"copied in {format_seconds(copy)} a pass, computed in {format_seconds(compute)}"
    return f"{times}: {'the copying is hidden' if copy <= compute else f'the {floor} is the floor'}"


def _stage(
    way: Way, stage: Stage, variant: Variant, machine: Machine, together: int, beside: int, kept: bool
) -> Iterator[Row]:
    """What a stage adds and takes; ``together``: the memory of the process and of all networks in it; ``beside``: the
    bytes on the device of this network and of those that stay there, which are all if ``kept``."""
    device = "card" if machine.card else "memory"
    passes = stage.calls * stage.rounds
    held = f", {format_bytes(stage.held_bytes)} of them kept" if stage.held_bytes else ""
    yield Row(
        phase=stage.name, what=f"activations{f' ({variant.name})' if variant.name else ''}", where=device,
        size_bytes=stage.held_bytes + search.working_bytes(variant, machine.card), why=f"the most at once{held}",
    )  # fmt: skip
    why = f"{passes} passes of {format_seconds(search.pass_s(way, variant, machine))}" if passes > 1 else "one pass"
    peak = together + search.host_extra(stage, variant, False)
    if machine.card:
        peak = search.device_peak(way, stage, variant, True, beside)
        why += "; all networks stay" if kept else ""
        if not kept and beside > way.device_bytes:
            why += f"; {format_bytes(beside - way.device_bytes)} are networks that stay"
        why += f"; {format_bytes(search.overhead(True))} are the driver's and the libraries'"
    yield Row(
        phase=stage.name, what="the whole stage", where=device, size_bytes=peak,
        seconds=search.passes_s(way, stage, variant, machine), why=why,
    )  # fmt: skip
