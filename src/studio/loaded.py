"""A model that is loaded: its networks under the engine, and what needs no engine. Imports torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Generic, TypeVar

import torch

from studio.memory.networks import Networks
from studio.remembered import Remembered
from studio.stages import tile_px

S = TypeVar("S")


class Loaded(Generic[S]):
    """What a family loads. ``components``: tokenizers, schedulers and whatever else lies in a model's folder."""

    def __init__(self, settings: S, networks: Networks, components: Mapping[str, Any]) -> None:
        self.settings = settings
        self.networks = networks
        self.components = dict(components)
        self.remembered = Remembered()

    def adapt(self, plan: Mapping[str, Any]) -> bool:
        """Follow another plan without reading weights again, if that is possible."""
        return self.networks.adapt(plan, planned_tiles(plan))

    def park(self) -> None:
        """Give the device back; the weights stay in memory."""
        self.networks.release()

    def settle(self) -> None:
        """After a request, ended well or not: what the plan does not keep on the device goes."""
        self.networks.settle()

    def close(self) -> None:
        """Free all networks."""
        self.components.clear()
        self.remembered.clear()
        self.networks.close()


def planned_tiles(plan: Mapping[str, Any]) -> dict[str, int | None]:
    """The tiles that the plan's variants mean; the smallest, where reading and making pictures differ."""
    sizes = [tile_px(str(variant)) for variant in plan.get("variants", {}).values()]
    return {"vae": min((size for size in sizes if size is not None), default=None)}


def planned_dtype(name: str, plan: Mapping[str, Any]) -> torch.dtype | None:
    """The type that a plan's settings name for a network; ``None``: the family's own."""
    kind = plan.get("networks", {}).get(name, {}).get("computing")
    return {"fp16": torch.float16, "fp32": torch.float32}.get(kind)


def computing_dtype(name: str, plan: Mapping[str, Any], fp32: Collection[str], device: torch.device) -> torch.dtype:
    """As the plan's settings say for a card without bf16. Else 16 bits on a card, except where the network wants 32,
    and 32 on a processor, whose 16-bit arithmetic is slow."""
    if (planned := planned_dtype(name, plan)) is not None:
        return planned
    return torch.float32 if device.type != "cuda" or name in fp32 else torch.bfloat16
