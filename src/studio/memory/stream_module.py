"""Where a streamed module's parameters point, and how its blocks tell the engine that they run."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from studio.memory.slabs import REST, Slabs
from studio.memory.storage import Entry
from studio.memory.stream_blocks import Split, Tensors

_MARK = "studio_stream"


@dataclass(frozen=True)
class Pointer:
    """A parameter of a block that is re-pointed, and what it points at meanwhile: NaN of its shape, without memory."""

    parameter: nn.Parameter
    placeholder: Tensor


@dataclass
class Binding:
    """The stand-ins of a module's parameters, and what to put back."""

    device: torch.device
    pointers: dict[str, list[Pointer]] = field(default_factory=dict)
    rest: list[Tensors] = field(default_factory=list)
    _undo: list[tuple[dict[str, Any], str, Any, Any]] = field(default_factory=list)

    def replace(self, table: str, tensors: Tensors, value: Tensor) -> None:
        """Put ``value`` in every place of a parameter or buffer, and remember what was there."""
        for owner, attribute in tensors.places:
            places = getattr(owner, table)
            self._undo.append((places, attribute, value, places[attribute]))
            places[attribute] = value

    def restore(self) -> None:
        """Put back what was there, except where somebody else has put something of their own meanwhile."""
        for places, attribute, ours, before in reversed(self._undo):
            if places.get(attribute) is ours:
                places[attribute] = before
        self._undo.clear()
        self.pointers.clear()


def bind(parts: Split, slabs: Slabs, device: torch.device, rest: Tensor) -> Binding:
    """Give every parameter a stand-in on ``device``. ``rest``: the bytes there of what belongs to no block.

    What the slabs do not hold (adapters, computed buffers) is moved to the device. Raises ``ValueError`` if it has no
    values to move.
    """
    binding = Binding(device)
    held = {entry.name: view for entry, view in zip_views(slabs.layouts[REST].entries, rest)}
    try:
        for block in parts.blocks:
            entries = {entry.name: entry for entry in slabs.layouts[block.name].entries}
            by_name = {tensors.names[0]: tensors for tensors in block.parameters}
            pairs = _matched(entries, by_name, block.name)
            binding.pointers[block.name] = [_pointer(binding, tensors, entry) for entry, tensors in pairs]
            taken = {tensors.names[0] for _, tensors in pairs}
            _keep(binding, "_parameters", [t for t in block.parameters if t.names[0] not in taken], {})
        _keep(binding, "_parameters", parts.rest, held)
        _keep(binding, "_buffers", parts.buffers, held)
    except BaseException:
        binding.restore()
        raise
    return binding


def _matched(entries: dict[str, Entry], tensors: dict[str, Tensors], block: str) -> list[tuple[Entry, Tensors]]:
    """Each entry of a block with its parameter, also where peft has wrapped the layer since the slabs were read."""
    plain = {name.replace(".base_layer.", "."): value for name, value in tensors.items()}
    found = []
    for name, entry in entries.items():
        match = tensors.get(name) or plain.get(name.replace(".base_layer.", "."))
        if match is None or tuple(match.value.shape) != entry.shape:
            raise ValueError(f"these slabs are of another model: {block} has no {name} of shape {list(entry.shape)}")
        found.append((entry, match))
    return found


def _pointer(binding: Binding, tensors: Tensors, entry: Entry) -> Pointer:
    dtype = getattr(torch, entry.dtype)
    with torch.inference_mode(False):
        blank = torch.full((1,), float("nan") if dtype.is_floating_point else 0, device=binding.device).to(dtype)
        placeholder = blank.expand(entry.shape) if entry.shape else blank.reshape(())
        parameter = nn.Parameter(placeholder, requires_grad=False)
    binding.replace("_parameters", tensors, parameter)
    return Pointer(parameter, placeholder)


def _keep(binding: Binding, table: str, tensors: Sequence[Tensors], held: dict[str, Tensor]) -> None:
    """What stays on the device: from ``held``, or the module's own value moved there (in place for parameters)."""
    plain = {name.replace(".base_layer.", "."): value for name, value in held.items()}
    for item in tensors:
        value = next((plain[n] for n in (x.replace(".base_layer.", ".") for x in item.names) if n in plain), None)
        if value is None and item.value.is_meta:
            raise ValueError(f"{item.names[0]} has no value: neither the slabs nor the module hold one")
        if table == "_buffers":
            binding.replace(table, item, item.value.to(binding.device) if value is None else value)
        elif value is not None:
            binding.replace(table, item, nn.Parameter(value, requires_grad=False))
        else:
            item.value.data = item.value.data.to(binding.device)


def zip_views(entries: Sequence[Entry], stored: Tensor, work: Tensor | None = None) -> list[tuple[Entry, Tensor]]:
    """Each parameter as a tensor of its shape and compute type: in ``stored``, or in ``work`` where it is quantised."""
    found = []
    for entry in entries:
        dtype = getattr(torch, entry.dtype)
        if entry.work_offset is None or work is None:
            data = stored[entry.offset : entry.offset + entry.size_bytes]
        else:
            data = work[entry.work_offset : entry.work_offset + entry.work_bytes]
        view = data.view(dtype).view(entry.shape) if prod(entry.shape) else data.new_empty(entry.shape, dtype=dtype)
        found.append((entry, view))
    return found


def wrap(module: nn.Module, enter: Callable[[], None], leave: Callable[[], None]) -> Callable[[], None]:
    """Call ``enter`` before and ``leave`` after every ``module.forward``, also when it raises. Returns the undoing.

    On ``forward`` rather than through hooks: a step cache that is attached later then decides outside of it, and a
    compiled ``forward`` lies inside of it.
    """
    own = module.__dict__.get("forward")
    inner = module.forward
    running = [True]

    @functools.wraps(inner)
    def forward(*args: Any, **kwargs: Any) -> Any:
        if not running[0]:
            return inner(*args, **kwargs)
        enter()
        try:
            with torch.no_grad():
                return inner(*args, **kwargs)
        finally:
            leave()

    def undo() -> None:
        running[0] = False
        if module.__dict__.get("forward") is not forward:
            return  # somebody has put a wrapper of their own around it, which stays and passes through
        if own is None:
            del module.forward
        else:
            module.forward = own

    setattr(forward, _MARK, running)
    module.forward = forward
    return undo


def is_wrapped(module: nn.Module) -> bool:
    """Whether a stream listens to this module."""
    return any(getattr(module.__dict__.get("forward"), _MARK, ()))
