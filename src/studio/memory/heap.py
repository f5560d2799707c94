"""Freed memory goes back to the system: the C library keeps some of what was freed, in a heap for each thread."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

from studio.units import MIB

LARGEST_IN_HEAP_BYTES = 4 * MIB
"""What is larger has pages of its own, which go back at once. glibc begins with 128 KiB and goes up to 32 MiB as a
program frees such pieces, and then keeps some hundred MiB: more than many a model's activations. Fixed here, so that
what a job takes follows from what it holds. With 1 MiB a small picture model
faulted in more than six times as many pages."""
KEPT_BYTES = 8 * MIB
"""The most that stays at the end of a heap."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # mallopt(3)


def steady_heap() -> None:
    """For a process that only executes: large pieces are never kept. Does nothing without glibc."""
    library = _glibc()
    if library is not None:
        library.mallopt(_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
        library.mallopt(_TRIM_THRESHOLD, KEPT_BYTES)


def trim_heap() -> None:
    """Give back what no object uses any more (malloc_trim(3)); does nothing where the C library has no such call."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    library = _glibc()
    if library is None:
        return lambda pad: None
    found = library.malloc_trim
    found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
    return found  # type: ignore[no-any-return]


@cache
def _glibc() -> Any:
    """The C library of this process if it is glibc, else ``None``: musl and other systems have no such calls."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "malloc_trim") and hasattr(library, "mallopt") else None
