"""A way for each network: what they take together, and which of them stay on the card.

A network that stays is not brought back for its next stage or the next request. Those stay that fit beside every stage
of the others: the ones first that take longest to bring back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from studio.errors import StudioError
from studio.memory import plan_search as search
from studio.memory.footprint import loss
from studio.memory.plan_search import Machine, Way
from studio.plans import Footprint, Stage, Variant


@dataclass(frozen=True)
class Found:
    """One way for each network: the whole of a plan. ``loss`` is weighted by the networks' sizes; ``host_bytes`` is
    what all networks take in memory together, ``extra_bytes`` the most that a stage adds to it."""

    ways: tuple[Way, ...] = ()
    seconds: float = 0.0
    loss: float = 0.0
    host_bytes: int = 0
    extra_bytes: int = 0

    @property
    def from_disk(self) -> int:
        """How many networks are read from the disk in each pass."""
        return sum(way.disk_bytes > 0 for way in self.ways)

    @property
    def cost(self) -> search.Cost:
        return search.even(self.seconds), self.loss, self.host_bytes, self.extra_bytes, self.from_disk

    @property
    def staying(self) -> frozenset[str]:
        """The networks that stay on the card."""
        return frozenset(way.network.name for way in self.ways if way.stays)

    def beside(self, way: Way) -> int:
        """The bytes on the card while ``way`` runs: its own and those of networks that stay."""
        return way.device_bytes + sum(other.device_bytes for other in self.ways if other.stays and other is not way)


def stages_of(footprint: Footprint) -> dict[str, list[Stage]]:
    """Stages by network, in order. A stage of an unknown network, or a network without one, is a family's bug."""
    names = [network.name for network in footprint.networks]
    stages: dict[str, list[Stage]] = {name: [] for name in names}
    for stage in footprint.stages:
        if stage.network not in stages:
            raise StudioError(f"The stage {stage.name} runs {stage.network!r}, which is no network of this model.")
        stages[stage.network].append(stage)
    idle = [name for name, runs in stages.items() if not runs]
    if idle or len(set(names)) != len(names):
        raise StudioError(f"Networks of one name, or never run: {', '.join(idle or names)}.")
    return stages


def join(one: Found, way: Way, stages: Sequence[Stage], share: float, machine: Machine) -> Found:
    """One more network; ``share`` is its part of all parameters."""
    bad = share * loss(way.network, way.precision) + sum(variant.loss for variant in way.variants)
    host = one.host_bytes + search.host_peak(way, machine.card)
    extra = max(one.extra_bytes, search.most_extra(way, stages, machine))
    return Found((*one.ways, way), one.seconds + way.seconds, one.loss + bad, host, extra)


def variants_of(chosen: Found, footprint: Footprint) -> list[Variant]:
    """The chosen variant of each stage, in the footprint's order."""
    left = {way.network.name: iter(way.variants) for way in chosen.ways}
    return [next(left[stage.network]) for stage in footprint.stages]


def turns(chosen: Found, machine: Machine) -> int:
    """The memory of all networks that come from the disk, once all of them have run and none was sent away."""
    return sum(search.turn_bytes(way, machine.card) for way in chosen.ways)


def all_stay(chosen: Found, footprint: Footprint, machine: Machine) -> bool:
    """Whether all networks may stay on the device for the next request, because they fit there together."""
    beside = max(
        stage.held_bytes + search.working_bytes(variant, machine.card)
        for stage, variant in zip(footprint.stages, variants_of(chosen, footprint), strict=True)
    )
    frames = max(stage.ram_bytes for stage in footprint.stages)
    together = machine.base_ram + chosen.host_bytes + turns(chosen, machine) + frames
    if not machine.card:
        return together + beside <= machine.ram_bytes
    whole = search.overhead(True) + sum(way.device_bytes for way in chosen.ways) + beside
    return whole <= machine.vram_bytes and together <= machine.ram_bytes


def whole_on_card(one: Found, footprint: Footprint, machine: Machine) -> Found | None:
    """The same precisions with every network whole on the card for good, if that holds."""
    stages, found = stages_of(footprint), Found()
    for way in one.ways:
        runs = stages[way.network.name]
        found = join(found, search.staying(search.whole(way), runs, machine), runs, 0.0, machine)
    return replace(found, loss=one.loss) if all_stay(found, footprint, machine) else None


def settled(one: Found, footprint: Footprint, machine: Machine) -> Found:
    """The same with those networks on the card for good that fit beside every stage. One that comes from the disk in
    each pass never stays alone: its buffers are in memory."""
    stages, variants = stages_of(footprint), variants_of(one, footprint)
    if len(one.staying) == len(one.ways):
        return one
    saved = {
        way.network.name: sum(search.brings_s(way, stage, machine) for stage in stages[way.network.name])
        for way in one.ways
        if not way.disk_bytes
    }
    for name in sorted(saved, key=lambda name: (-saved[name], name)):
        ways = tuple(
            search.staying(way, stages[name], machine) if way.network.name == name else way for way in one.ways
        )
        tried = replace(one, ways=ways, seconds=sum(way.seconds for way in ways))
        if _holds(tried, footprint, variants, machine):
            one = tried
    if len(one.staying) < len(one.ways) and all_stay(one, footprint, machine):
        ways = tuple(search.staying(way, stages[way.network.name], machine) for way in one.ways)
        one = replace(one, ways=ways, seconds=sum(way.seconds for way in ways))
    return one


def _holds(one: Found, footprint: Footprint, variants: Sequence[Variant], machine: Machine) -> bool:
    """Whether every stage holds on the card beside the networks that stay."""
    ways = {way.network.name: way for way in one.ways}
    peaks = (
        search.device_peak(ways[stage.network], stage, variant, True, one.beside(ways[stage.network]))
        for stage, variant in zip(footprint.stages, variants, strict=True)
    )
    return max(peaks) <= machine.vram_bytes
