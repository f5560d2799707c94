"""Which parts of a model are streamed: the blocks that it runs one after another and that hold most of its bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from studio.errors import BadRequest, nearest
from studio.shapes import FEW, MOST, SPLIT_ABOVE


@dataclass(frozen=True)
class Tensors:
    """One parameter (or buffer) and every place of the module that it is: ``(owner, attribute)`` and full names."""

    names: tuple[str, ...]
    places: tuple[tuple[nn.Module, str], ...]
    value: torch.Tensor


@dataclass(frozen=True)
class Block:
    """One streamed unit: a submodule whose ``forward`` runs as a whole, with the parameters that only it uses."""

    name: str
    module: nn.Module
    parameters: tuple[Tensors, ...]


@dataclass(frozen=True)
class Split:
    """A module taken apart: its blocks in order, and what is not in exactly one of them (tied weights, buffers)."""

    blocks: tuple[Block, ...]
    rest: tuple[Tensors, ...]
    buffers: tuple[Tensors, ...]


def empty_module(build: Callable[[], nn.Module], dtype: torch.dtype | None = None) -> nn.Module:
    """``build()`` with its parameters on ``meta``, in eval mode: no memory for weights, no time to initialise them.

    Buffers that a class computes itself (rotary tables, position ids) are real, and ties hold. ``dtype`` is torch's
    default type while it builds, as in diffusers' and transformers' ``from_pretrained``. Not while another thread
    builds a module. The idea is accelerate's ``init_empty_weights``, which unties weights.
    """
    before, register = torch.get_default_dtype(), nn.Module.register_parameter

    def register_on_meta(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and not parameter.is_meta:
            parameter = nn.Parameter(parameter.detach().to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    torch.set_default_dtype(dtype or before)
    nn.Module.register_parameter = register_on_meta  # type: ignore[method-assign, assignment]
    try:
        module = build()
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
        torch.set_default_dtype(before)
    tie = getattr(module, "tie_weights", None)
    if callable(tie):
        tie()
    return module.eval().requires_grad_(False)


def find_blocks(module: nn.Module, *, split_above: int = SPLIT_ABOVE) -> list[str]:
    """The names of the blocks of ``module``: the members of its ``nn.ModuleList``s that hold its weight.

    In order of definition, which need not be that of execution: the engine learns the latter. A list with under 1 %
    of the weights stays resident; a member with more than ``split_above`` weights that itself consists of lists
    (a UNet's stages) is taken apart. A list whose members are not called by ``forward`` needs explicit names.
    """
    total = _weights(module)
    return [name for name, _ in _inner("", module, max(1, total * FEW), split_above)]


def split(module: nn.Module, names: Sequence[str] | None = None) -> Split:
    """Take ``module`` apart into the blocks of these names, or those that ``find_blocks`` finds.

    Raises ``BadRequest`` for a name that does not exist, and for a block within another.
    """
    chosen = find_blocks(module) if names is None else list(names)
    modules = dict(module.named_modules())
    for name in chosen:
        if name not in modules or not name:
            raise BadRequest(f"There is no block {name!r}.", nearest(name, modules))
        inside = next((other for other in chosen if name.startswith(f"{other}.")), None)
        if inside is not None or chosen.count(name) > 1:
            raise BadRequest(f"The block {name} is named twice or lies within {inside}.", "Name one of the two.")
    owned: dict[str, list[Tensors]] = {name: [] for name in chosen}
    rest: list[Tensors] = []
    for tensors in _grouped(module, "_parameters"):
        owners = {_owner(name, chosen) for name in tensors.names}
        owner = owners.pop() if len(owners) == 1 else None
        (rest if owner is None else owned[owner]).append(tensors)
    blocks = tuple(Block(name, modules[name], tuple(owned[name])) for name in chosen)
    return Split(blocks, tuple(rest), tuple(_grouped(module, "_buffers")))


def never_quantised(block: Block) -> list[str]:
    """The parameters of a block that are no linear layer's or convolution's weight, whatever their name and size."""
    matrices = (nn.Linear, nn.modules.conv._ConvNd)
    return [
        tensors.names[0]
        for tensors in block.parameters
        if not all(isinstance(owner, matrices) or _is_projection(owner) for owner, _ in tensors.places)
    ]


def kept_in_fp32(module: nn.Module, dtype: torch.dtype) -> list[str]:
    """Parts of names that the model's own class wants in fp32 when the rest is computed in ``dtype``.

    diffusers keeps ``_keep_in_fp32_modules`` whenever a type is asked for; transformers keeps those for fp16 only and
    ``_keep_in_fp32_modules_strict`` for bf16 too (``modeling_utils.py`` of both).
    """
    if dtype not in (torch.float16, torch.bfloat16):
        return []
    loose: Any = getattr(module, "_keep_in_fp32_modules", None) or ()
    strict: Any = getattr(module, "_keep_in_fp32_modules_strict", None) or ()
    loose = (loose,) if isinstance(loose, str) else loose
    transformers = hasattr(module, "_keep_in_fp32_modules_strict")
    return sorted({*strict, *(loose if dtype == torch.float16 or not transformers else ())})


def _is_projection(owner: nn.Module) -> bool:
    """transformers' GPT-2 style linear layer, which is not an ``nn.Linear``."""
    return type(owner).__name__ == "Conv1D"


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _inner(prefix: str, module: nn.Module, few: float, split_above: int) -> Iterator[tuple[str, nn.Module]]:
    """The members of the lists within ``module``, with their full names."""
    for name, child in module.named_children():
        full = f"{prefix}.{name}" if prefix else name
        if not isinstance(child, nn.ModuleList):
            yield from _inner(full, child, few, split_above)
        elif _weights(child) >= few:
            for index, member in child.named_children():
                yield from _member(f"{full}.{index}", member, few, split_above)


def _member(name: str, member: nn.Module, few: float, split_above: int) -> Iterator[tuple[str, nn.Module]]:
    """A member of a list: itself, or what it consists of."""
    weights = _weights(member)
    if isinstance(member, nn.ModuleList | nn.ModuleDict):  # has no forward of its own
        for index, inner in member.named_children():
            yield from _member(f"{name}.{index}", inner, few, split_above)
    elif weights > split_above:
        inside = list(_inner(name, member, 1, split_above))
        holds = len(inside) > 1 and sum(_weights(inner) for _, inner in inside) >= MOST * weights
        yield from inside if holds else [(name, member)]
    elif weights:
        yield name, member


def _owner(name: str, blocks: Sequence[str]) -> str | None:
    return next((block for block in blocks if name.startswith(f"{block}.")), None)


def _grouped(module: nn.Module, table: str) -> Iterator[Tensors]:
    """Each parameter or buffer once, with every place that shares it."""
    found: dict[int, tuple[torch.Tensor, list[str], list[tuple[nn.Module, str]]]] = {}
    for prefix, owner in module.named_modules(remove_duplicate=False):
        for attribute, value in getattr(owner, table).items():
            if value is None:
                continue
            _, names, places = found.setdefault(id(value), (value, [], []))
            names.append(f"{prefix}.{attribute}" if prefix else attribute)
            if not any(known is owner and other == attribute for known, other in places):
                places.append((owner, attribute))
    for value, names, places in found.values():
        yield Tensors(tuple(names), tuple(places), value)
