"""What the executing process takes of the memory before it holds a network: by what it imports.

Resident bytes of fresh processes after each import (Linux x86-64, Python 3.11, torch 2.13 without CUDA, diffusers 0.42,
transformers 5.23): 36 MiB the engine, 233 with torch, 339 with transformers, 385 with diffusers too (whose pipelines
import transformers), the same for six pipelines of diffusers, whichever it was. 391 with a tokenizer; and a network's
first call brings 22 to 35 MiB in that stay: the code of torch's kernels and of those that oneDNN writes. A pipeline of
five networks had taken 32 MiB more once it was built. Rounded up to whole fives; a system on which it is otherwise is
corrected by its own runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.units import MIB

ENGINE_BYTES = 40 * MIB
"""Python and the engine, with its worker's pipes and threads."""

LIBRARY_BYTES = {"torch": 235 * MIB, "transformers": 115 * MIB, "diffusers": 80 * MIB}
"""What each adds to the ones before it, its first call included."""

NEEDS = {"diffusers": ("torch", "transformers"), "transformers": ("torch",)}

UNKNOWN_BYTES = 1024 * MIB
"""A family that does not say what it imports."""


def process_bytes(libraries: Iterable[str]) -> int:
    """Memory of a process with these distributions imported, on a machine without a card."""
    named = [name for name in libraries if name in LIBRARY_BYTES]
    loaded = {name for library in named for name in (library, *NEEDS.get(library, ()))}
    return ENGINE_BYTES + sum(LIBRARY_BYTES[name] for name in loaded) if loaded else UNKNOWN_BYTES
