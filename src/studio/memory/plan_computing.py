"""In which arithmetic a network is computed: on a processor, on a card, and on a card without bf16.

How it is kept is another question: on a card, weights whose files have 16 bits may stay in those, or in fewer, and are
unpacked block by block into what is computed with.
"""

from __future__ import annotations

from collections.abc import Sequence

from studio.memory.plan_search import Machine
from studio.plans import Footprint, Network, Stage


def computed(footprint: Footprint, machine: Machine) -> Footprint:
    """The footprint as this machine computes it. Processors are quick at 32 bits only. A card without bf16 computes in
    fp16 what is known to be right in it, and all else in 32 bits, which have the range of bf16."""
    if not machine.card:
        return _in_32_bits(footprint, footprint.networks)
    if machine.rates.half == "bf16":
        return footprint
    wide = [one for one in footprint.networks if machine.rates.half == "none" or not one.fp16]
    return _in_32_bits(footprint, wide)


def _in_32_bits(footprint: Footprint, which: Sequence[Network]) -> Footprint:
    """With these networks computed in 32 bits: weights, activations and what is held are twice as large. The files are
    not."""
    names = {network.name for network in which if network.stored == "bf16"}
    networks = tuple(
        network.model_copy(update={"stored": "fp32", "filed": "bf16"}) if network.name in names else network
        for network in footprint.networks
    )

    def widened(stage: Stage) -> Stage:
        variants = tuple(
            one.model_copy(
                update={"activation_bytes": 2 * one.activation_bytes, "processor_bytes": 2 * one.processor_bytes}
            )
            for one in stage.variants
        )
        return stage.model_copy(update={"variants": variants, "held_bytes": 2 * stage.held_bytes})

    stages = tuple(widened(stage) if stage.network in names else stage for stage in footprint.stages)
    return footprint.model_copy(update={"networks": networks, "stages": stages})


def computing(network: Network, machine: Machine) -> str | None:
    """The arithmetic that a plan must name because a card has no bf16; ``None``: the family's own."""
    own = network.stored == "fp32" and network.filed is None  # in 32 bits on any card
    if not machine.card or machine.rates.half == "bf16" or own:
        return None
    return "fp32" if network.stored == "fp32" else "fp16"


def told(networks: Sequence[Network], machine: Machine) -> tuple[str, ...]:
    """The same of all networks in words."""
    kinds = [(network.name, computing(network, machine)) for network in networks]
    parts = [
        f"{', '.join(name for name, kind in kinds if kind == one)} in {one}"
        for one in ("fp16", "fp32")
        if any(kind == one for _, kind in kinds)
    ]
    return (f"this card has no bf16: computed are {' and '.join(parts)}",) if parts else ()
