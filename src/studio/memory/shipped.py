"""What the blocks of the shipped catalogue's models take at their own defaults, measured before Studio was shipped.

So a fresh home forecasts at once, and opening the list of models starts no process. ``scripts/ship_activations.py``
writes ``activations.json`` beside this file; a test holds it to the catalogue.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

from studio.version import installed

FILE = Path(__file__).with_name("activations.json")

LIBRARIES = ("torch", "diffusers", "transformers")
"""With another version of these a block may take other memory."""


def name_of(make: str, arguments: dict[str, Any]) -> str:
    """All that names a probe: its function and its arguments."""
    return json.dumps([make, arguments], sort_keys=True)


def versions() -> dict[str, str]:
    """The installed libraries, without the local part: ``2.13.0+cpu`` counts as ``2.13.0`` does, on a processor."""
    return {name: installed(name).partition("+")[0] for name in LIBRARIES}


def shipped(make: str, arguments: dict[str, Any], *, near: bool = False) -> dict[str, Any] | None:
    """A probe's result as the file has it: ``peak_bytes``, ``flops``, ``processor_bytes``; ``None`` if it has none.

    Only where the same versions of the libraries are installed, unless ``near``: then it stands for what this machine
    would measure, which is good enough to say whether a model fits, and a job measures for itself.
    """
    measured_with, results = _file()
    return results.get(name_of(make, arguments)) if near or measured_with == versions() else None


@cache
def _file() -> tuple[dict[str, str], dict[str, dict[str, Any]]]:
    content = json.loads(FILE.read_text("utf-8"))
    return content["versions"], {name_of(one["make"], one["arguments"]): one for one in content["probes"]}
