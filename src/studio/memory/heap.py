"""Freed memory goes back to the system: the C library keeps some of what was freed, in a heap for each thread."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from functools import cache


def trim_heap() -> None:
    """Give back what no object uses any more (malloc_trim(3)); does nothing where the C library has no such call."""
    _trim()(0)


@cache
def _trim() -> Callable[[int], object]:
    if sys.platform == "linux":
        found = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if found is not None:
            found.argtypes, found.restype = [ctypes.c_size_t], ctypes.c_int
            return found  # type: ignore[no-any-return]
    return lambda pad: None
