"""What the executing process takes of the memory before it holds a network: by what it imports.

Resident bytes of fresh processes after each import, and after a first call of a small network, which brings the code
of torch's kernels in (Linux x86-64, Python 3.11, torch 2.13 without CUDA, diffusers 0.42, transformers 5.23): 36 MiB
the engine, 233 with torch, 339 with transformers, 385 with diffusers too (whose pipelines import transformers), 391
with a tokenizer, 449 once a text encoder and a UNet were built and had run, of which 32 MiB were their weights. The
same for six pipelines of diffusers, whichever it was. Rounded up to whole tens; a system on which it is otherwise is
corrected by its own runs.
"""

from __future__ import annotations

from collections.abc import Iterable

from studio.units import MIB

ENGINE_BYTES = 40 * MIB
"""Python and the engine, with its worker's pipes and threads."""

LIBRARY_BYTES = {"torch": 210 * MIB, "transformers": 110 * MIB, "diffusers": 60 * MIB}
"""What each adds to the ones before it."""

NEEDS = {"diffusers": ("torch", "transformers"), "transformers": ("torch",)}

UNKNOWN_BYTES = 1024 * MIB
"""A family that does not say what it imports."""


def process_bytes(libraries: Iterable[str]) -> int:
    """Memory of a process with these distributions imported, on a machine without a card."""
    named = [name for name in libraries if name in LIBRARY_BYTES]
    loaded = {name for library in named for name in (library, *NEEDS.get(library, ()))}
    return ENGINE_BYTES + sum(LIBRARY_BYTES[name] for name in loaded) if loaded else UNKNOWN_BYTES
