"""Running a model that is larger than the card: blocks stream through slots while others compute.

The rule: everything outside the blocks is resident; so are some blocks, evenly spread among the others; the others run
through a few device slots of the largest streamed block. On leaving a block its slot is free and takes the next block
that is not there yet, also across the end of one step and the beginning of the next. At video sizes the card computes
longer than the bus needs, so this costs next to nothing.

Blocks come from RAM or from files, as the slabs hold each of them. What comes from a file is brought by a thread of its
own (the feeder), what is in RAM by the copy stream, so neither waits for the other.

The order of execution is learned from each pass and only ever used to guess: a block that is not there is brought
before it runs. On CPU the same code runs synchronously; tests compare it with the resident model bit for bit.

Parameters of a streamed block point at NaN while it does not run, so that any use outside of its ``forward`` shows.
LoRA adapters may be attached before or after entering: their weights stay resident; fusing them is not possible.
Compile a block's ``forward`` before entering: ``block.forward = torch.compile(block.forward)``. Attach step caches
after entering: blocks that a cache skips are then not brought.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from studio.memory.slabs import REST, Slabs
from studio.memory.storage import DeviceBytes, device_bytes, spread
from studio.memory.stream_blocks import Block, split
from studio.memory.stream_codecs import Decoder
from studio.memory.stream_homes import Homes
from studio.memory.stream_lanes import Lane, Slot
from studio.memory.stream_module import Binding, Pointer, bind, is_wrapped, wrap, zip_views


@contextmanager
def streamed(
    module: nn.Module,
    *,
    slabs: Slabs,
    device: torch.device | str,
    resident: int | Sequence[str] = 0,
    slots: int = 2,
) -> Iterator[Stream]:
    """Within this context ``module`` runs on ``device`` with its weights streamed from ``slabs``.

    ``resident`` says how many blocks stay on the device, or which. Leaving restores the module as it was (parameters
    on ``meta`` are there again) and frees everything on the device; the slabs stay, for the next time. Gradients are
    not computed. Raises ``BadRequest`` or ``ValueError`` if the module and the slabs do not belong together.
    """
    stream = Stream(module, slabs, torch.device(device), resident, slots)
    try:
        stream._open()
        yield stream
    finally:
        stream._close()


class _Unit:
    """A block at work: its parameters, where its bytes are, and how often it is being run right now."""

    def __init__(self, number: int, block: Block, slabs: Slabs, pointers: list[Pointer]) -> None:
        self.number = number
        self.module = block.module
        self.name = block.name
        self.entries = slabs.layouts[block.name].entries
        self.stored_bytes = slabs.layouts[block.name].stored_bytes
        self.work_bytes = slabs.layouts[block.name].work_bytes
        self.in_memory = slabs.in_memory(block.name)
        self.pointers = pointers
        self.home: Tensor | None = None
        self.slot: Slot | None = None
        self.work: Tensor | None = None
        self.active = 0

    def point(self, tensors: Sequence[Tensor]) -> None:
        for pointer, tensor in zip(self.pointers, tensors, strict=True):
            pointer.parameter.data = tensor


class Stream:
    """A module being streamed.

    ``hits`` and ``misses`` count runs of streamed blocks that were and were not there or on their way;
    ``copied_bytes`` what went through the slots; ``device_bytes`` is what is held on the device, exactly.
    """

    def __init__(
        self, module: nn.Module, slabs: Slabs, device: torch.device, resident: int | Sequence[str], slots: int
    ) -> None:
        if slots < 1:
            raise ValueError("streaming needs at least one slot")
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        names = slabs.blocks
        kept = [names[i] for i in spread(len(names), resident)] if isinstance(resident, int) else list(resident)
        if unknown := set(kept) - set(names):
            raise ValueError(f"no such blocks: {', '.join(sorted(unknown))}")
        self.device = device
        self.resident = tuple(number for number, name in enumerate(names) if name in kept)
        layouts = [slabs.layouts[name] for name in names]
        self.device_bytes: DeviceBytes = device_bytes(layouts, slabs.layouts[REST], self.resident, slots)
        self.hits = self.misses = self.copied_bytes = 0
        self._slabs = slabs
        self._parts = split(module, names)
        self._slot_count = min(slots, len(names) - len(self.resident))
        self._units: list[_Unit] = []
        self._slots: list[Slot] = []
        self._undo: list[Callable[[], None]] = []
        self._next = {number: (number + 1) % len(names) for number in range(len(names))}
        self._last: int | None = None
        self._views: dict[tuple[int, int], list[Tensor]] = {}
        self._lane: Lane | None = None
        self._feeder: ThreadPoolExecutor | None = None
        self._binding: Binding | None = None
        self._work = self._empty(0)
        self._work_taken = False

    def _open(self) -> None:
        """Bring what is resident, make the slots, and start to fill them."""
        for block in self._parts.blocks:
            if is_wrapped(block.module):
                raise ValueError(f"{block.name} is being streamed already")
        self._lane = Lane(self.device)
        self._decoder = Decoder(self.device)
        self._work = self._empty(self.device_bytes.workspace)
        homes = Homes(self._slabs, self.device)
        try:
            self._binding = bind(self._parts, self._slabs, self.device, homes.bring(REST))
            for number, block in enumerate(self._parts.blocks):
                unit = _Unit(number, block, self._slabs, self._binding.pointers[block.name])
                self._units.append(unit)
                if number in self.resident:
                    unit.home = homes.bring(unit.name)
                    if not unit.work_bytes:
                        unit.point([view for _, view in zip_views(unit.entries, unit.home)])
        finally:
            self._lane.finish()
            homes.close()
        size = self.device_bytes.slots // max(1, self._slot_count)
        staging = max(
            (unit.stored_bytes for unit in self._units if unit.home is None and not unit.in_memory), default=0
        )
        self._feeder = ThreadPoolExecutor(1, "feeder") if staging else None
        for _ in range(self._slot_count):
            self._slots.append(slot := Slot(size, self.device, staging_bytes=staging))
            self._lane.after_use(slot)
        for number, unit in enumerate(self._units):
            enter, leave = functools.partial(self._enter, number), functools.partial(self._leave, number)
            self._undo.append(wrap(unit.module, enter, leave))
        self._prefetch(len(self._units) - 1)

    def _close(self) -> None:
        """Put the module back as it was and free the device's memory. May be called twice."""
        if self._feeder is not None:
            self._feeder.shutdown(wait=True, cancel_futures=True)
        try:
            if self._lane is not None:
                self._lane.finish()  # raises what went wrong on the card meanwhile
        finally:
            for undo in self._undo:
                undo()
            if self._binding is not None:
                self._binding.restore()
            slots, self._slots = self._slots, []
            self._binding = self._feeder = None
            self._units, self._undo = [], []
            self._views.clear()
            for slot in slots:
                slot.close()
            self._work = self._empty(0)

    def _empty(self, size_bytes: int) -> Tensor:
        with torch.inference_mode(False):
            return torch.empty(size_bytes, dtype=torch.uint8, device=self.device)

    def _enter(self, number: int) -> None:
        """Have the block's weights on the device and its parameters point at them."""
        unit = self._units[number]
        unit.active += 1
        if unit.active > 1:
            return  # it runs within itself
        try:
            if self._last is not None:
                self._next[self._last] = number
            self._last = number
            if unit.home is None:
                unit.slot = self._slot_for(number)
            if unit.home is None or unit.work_bytes:
                self._load(unit)
            self._prefetch(number)
        except BaseException:
            self._leave(number)
            raise

    def _load(self, unit: _Unit) -> None:
        """Point the unit's parameters at its bytes, which are read back from their storage first."""
        slot = unit.slot
        if slot is not None:
            self._require_lane().before_use(slot)
        stored = slot.data if slot is not None else unit.home
        if stored is None:
            raise RuntimeError(f"{unit.name} is neither resident nor in a slot")
        if unit.work_bytes:
            unit.work = self._empty(unit.work_bytes) if self._work_taken else self._work
            self._work_taken = True
            for entry, view in zip_views(unit.entries, stored, unit.work):
                if entry.work_offset is not None:
                    part = stored[entry.offset : entry.offset + entry.size_bytes]
                    self._decoder.decode(part, entry.storage, view)
        place = -1 if slot is None else self._slots.index(slot) if slot in self._slots else None
        if place is None or (unit.work is not None and unit.work is not self._work):
            unit.point([view for _, view in zip_views(unit.entries, stored, unit.work)])
            return
        if (unit.number, place) not in self._views:
            views = [view for _, view in zip_views(unit.entries, stored, unit.work)]
            self._views[unit.number, place] = views
        unit.point(self._views[unit.number, place])

    def _leave(self, number: int) -> None:
        """Take the weights away again, and bring those of a block to come."""
        unit = self._units[number]
        unit.active -= 1
        if unit.active:
            return
        if unit.home is None or unit.work_bytes:
            unit.point([pointer.placeholder for pointer in unit.pointers])
        if unit.work is self._work:
            self._work_taken = False
        unit.work = None
        if unit.slot is not None:
            self._require_lane().after_use(unit.slot)
            unit.slot.active = False
            if unit.slot not in self._slots:
                unit.slot.close()
            unit.slot = None
        self._prefetch(number)

    def _slot_for(self, number: int) -> Slot:
        """The slot that holds the block, waiting for its way there; a miss brings it now."""
        slot = next((slot for slot in self._slots if slot.block == number), None)
        if slot is None:
            self.misses += 1
            coming = self._coming(number, len(self._slots))
            idle = sorted((s for s in self._slots if not s.active), key=lambda s: s.block in coming)
            if idle:
                slot = idle[0]
            else:  # more blocks run within one another than there are slots
                unit = self._units[number]
                staging = 0 if unit.in_memory else unit.stored_bytes
                slot = Slot(unit.stored_bytes, self.device, staging_bytes=staging)
                self._require_lane().after_use(slot)
            self._start(slot, number)
        else:
            self.hits += 1
        slot.active = True
        pending, slot.pending = slot.pending, None
        try:
            if pending is not None:
                pending.result()
        except BaseException:
            slot.block, slot.active = None, False
            raise
        return slot

    def _coming(self, number: int, count: int) -> list[int]:
        """The next ``count`` streamed blocks after this one, by the order of the last pass."""
        found: list[int] = []
        for _ in self._units:
            number = self._next[number]
            if self._units[number].home is None and number not in found:
                found.append(number)
            if len(found) == count:
                break
        return found

    def _prefetch(self, number: int) -> None:
        """Fill idle slots with the blocks that come after this one."""
        idle = [slot for slot in self._slots if not slot.active]
        coming = self._coming(number, len(idle)) if idle else []
        held = {slot.block for slot in self._slots}
        spare = [slot for slot in idle if slot.block not in coming]
        for slot, block in zip(spare, (block for block in coming if block not in held), strict=False):
            self._start(slot, block)

    def _start(self, slot: Slot, number: int) -> None:
        """Begin to bring a block into an idle slot."""
        unit = self._units[number]
        slot.block = None
        # Out of a file in the feeder's thread; out of RAM at once, but never before what is on its way into this slot.
        if self._feeder is not None and (slot.busy or not unit.in_memory):
            slot.pending = self._feeder.submit(self._bring, slot, unit)
        else:
            slot.pending = None
            self._bring(slot, unit)
        self.copied_bytes += unit.stored_bytes
        slot.block = number

    def _bring(self, slot: Slot, unit: _Unit) -> None:
        """Copy a block's bytes into a slot."""
        lane = self._require_lane()
        if unit.in_memory:
            lane.copy(slot, self._slabs.stored(unit.name))
        elif slot.staging is None:
            self._slabs.read_into(unit.name, slot.data[: unit.stored_bytes])
        else:
            lane.await_staging(slot)
            part = slot.staging.data[: unit.stored_bytes]
            self._slabs.read_into(unit.name, part)
            lane.copy(slot, part)

    def _require_lane(self) -> Lane:
        if self._lane is None:
            raise RuntimeError("this stream is not open")
        return self._lane
