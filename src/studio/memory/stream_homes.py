"""Bringing what stays on the device there: out of slabs at once, out of files through a small pinned buffer.

The buffer has two halves, so that one is filled from the disk while the other is copied to the card.
"""

from __future__ import annotations

import torch
from torch import Tensor

from studio.memory.slab_memory import Slab
from studio.memory.slabs import Slabs

PORTION_BYTES = 32 * 1024**2


class Homes:
    """Groups of ``slabs`` on ``device``, one after the other. ``close`` gives the buffer back, not the groups."""

    def __init__(self, slabs: Slabs, device: torch.device) -> None:
        self._slabs = slabs
        self._device = device
        self._halves: list[_Half] = []
        self._turn = 0

    def bring(self, name: str) -> Tensor:
        """A group's bytes on the device: uint8 of (``stored_bytes``,). On CPU, what is in RAM is used where it lies.

        On CUDA they may still be on their way; what is next on the current stream finds them there.
        """
        if self._device.type == "cpu" and self._slabs.in_memory(name):
            return self._slabs.stored(name)
        with torch.inference_mode(False):
            home = torch.empty(self._slabs.layouts[name].stored_bytes, dtype=torch.uint8, device=self._device)
        if self._slabs.in_memory(name):
            return home.copy_(self._slabs.stored(name), non_blocking=True)
        if self._device.type == "cpu":
            self._slabs.read_into(name, home)
            return home
        for begin, end in self._slabs.portions(name, PORTION_BYTES):
            half = self._half(end - begin)
            part = half.slab.data[: end - begin]
            self._slabs.read_into(name, part, begin)
            home[begin:end].copy_(part, non_blocking=True)
            half.copied.record(torch.cuda.current_stream(self._device))
        return home

    def close(self) -> None:
        """Wait for the last copies and free the buffer. May be called twice."""
        for half in self._halves:
            half.close()
        self._halves.clear()

    def _half(self, size_bytes: int) -> _Half:
        """The half whose turn it is, once it has been copied from; a new one if it is too small."""
        self._turn = 1 - self._turn
        if len(self._halves) < 2:
            self._halves.append(half := _Half(max(size_bytes, PORTION_BYTES)))
            self._turn = len(self._halves) - 1
            return half
        half = self._halves[self._turn]
        if half.slab.size_bytes < size_bytes:  # a quantised matrix that cannot be cut
            half.close()
            half = self._halves[self._turn] = _Half(size_bytes)
        half.copied.synchronize()
        return half


class _Half:
    def __init__(self, size_bytes: int) -> None:
        self.slab = Slab(size_bytes)
        self.slab.pin()
        self.copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        self.copied.synchronize()
        self.slab.close()
