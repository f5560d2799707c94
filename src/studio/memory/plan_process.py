"""What the executing process takes of memory and time before it holds a network: by what it imports.

Resident bytes of fresh processes after each import (Linux x86-64, Python 3.11, torch 2.13 without CUDA, diffusers 0.42,
transformers 5.24): 40 MiB the engine with its worker's pipes and threads, 233 with torch, 339 with transformers, 385
with diffusers too (whose pipelines import transformers), the same for six pipelines of diffusers, whichever it was. A
network's first call brings 20 to 35 MiB in that stay: the code of torch's kernels and of those that oneDNN writes. A
system on which it is otherwise is corrected by its own runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.units import MIB

ENGINE_BYTES = 40 * MIB
"""Python and the engine, with its worker's pipes and threads."""

LIBRARY_BYTES = {"torch": 220 * MIB, "transformers": 110 * MIB, "diffusers": 75 * MIB}
"""What each adds to the ones before it, its first call included."""

NEEDS = {"diffusers": ("torch", "transformers"), "transformers": ("torch",)}

UNKNOWN_BYTES = 1024 * MIB
"""A family that does not say what it imports."""


LIBRARY_S = {"torch": 1.3, "transformers": 2.5, "diffusers": 0.2}
"""Seconds of importing each after the ones before it, its first classes included, so that the whole is what loading a
starter took (4.1 to 4.3 s of an otherwise idle machine, the files in the system's cache). Fresh processes took 1.3, 4.2
and 4.5 s of processor time. A first start after the machine's own takes longer."""


def start_seconds(libraries: Iterable[str]) -> float:
    """Seconds until a process has imported these distributions."""
    return sum(LIBRARY_S[name] for name in _loaded(libraries))


def process_bytes(libraries: Iterable[str]) -> int:
    """Memory of a process with these distributions imported, on a machine without a card."""
    loaded = _loaded(libraries)
    return ENGINE_BYTES + sum(LIBRARY_BYTES[name] for name in loaded) if loaded else UNKNOWN_BYTES


def _loaded(libraries: Iterable[str]) -> set[str]:
    named = [name for name in libraries if name in LIBRARY_BYTES]
    return {name for library in named for name in (library, *NEEDS.get(library, ()))}
