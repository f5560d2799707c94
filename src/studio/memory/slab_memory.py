"""Host memory for blocks: anonymous mappings of exactly the bytes needed, which CUDA locks in place.

``pin_memory()`` would round every allocation up to a power of two; ``cudaHostRegister`` locks what is there.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Mapping
from contextlib import suppress

import torch
from torch import Tensor

from studio.errors import DoesNotFit
from studio.memory.storage import Layout
from studio.units import format_bytes

SLAB_BYTES = 256 * 1024**2
"""Blocks share slabs of up to this size: few calls to lock them, and small enough to lock one while another is read."""

_LESS = "Use 8-bit storage, or leave the weights on disk."
_PORTABLE = 1  # cudaHostRegisterPortable: locked for every device


class Slab:
    """An anonymous mapping of ``size_bytes``, as a uint8 tensor; given back to the system when its last view goes."""

    def __init__(self, size_bytes: int) -> None:
        self.size_bytes = size_bytes
        self._locked_at: int | None = None
        try:
            if sys.platform == "win32":
                memory = mmap.mmap(-1, max(1, size_bytes))
            else:
                memory = mmap.mmap(-1, max(1, size_bytes), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        except (OSError, ValueError, OverflowError):
            raise DoesNotFit(f"{format_bytes(size_bytes)} of RAM cannot be had.", _LESS) from None
        self.data: Tensor = torch.frombuffer(memory, dtype=torch.uint8)[:size_bytes]

    def pin(self) -> None:
        """Lock the pages, so that CUDA copies from them at the full speed of the bus and without waiting.

        Raises ``DoesNotFit`` if the system does not lock as much.
        """
        if not self.size_bytes:
            return
        code = torch.cuda.cudart().cudaHostRegister(self.data.data_ptr(), self.size_bytes, _PORTABLE)  # type: ignore[no-untyped-call]
        if int(code) != 0:
            _forget_error()
            raise DoesNotFit(f"The system does not lock {format_bytes(self.size_bytes)} of RAM (CUDA {code}).", _LESS)
        self._locked_at = self.data.data_ptr()

    def close(self) -> None:
        """Unlock and let go. May be called twice; no copy out of it may be under way."""
        if self._locked_at is not None:
            torch.cuda.cudart().cudaHostUnregister(self._locked_at)  # type: ignore[no-untyped-call]
            self._locked_at = None
        self.data = torch.empty(0, dtype=torch.uint8)


def _forget_error() -> None:
    """CUDA keeps a failed call's code for whoever asks next in this thread, and torch asks after each kernel: without
    this an innocent one would be blamed."""
    with suppress(RuntimeError):
        torch.zeros(1, device="cuda")


def packed(layouts: Mapping[str, Layout]) -> list[list[str]]:
    """Which groups share a slab: neighbours, up to ``SLAB_BYTES`` together; a larger one has a slab of its own."""
    slabs: list[list[str]] = []
    held = SLAB_BYTES
    for name, layout in layouts.items():
        if not slabs or held + layout.stored_bytes > SLAB_BYTES:
            slabs.append([])
            held = 0
        slabs[-1].append(name)
        held += layout.stored_bytes
    return slabs
