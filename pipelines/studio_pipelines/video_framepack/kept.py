"""The sections of a film on the disk: what of it is finished, and where to go on after whatever happened.

In the job's folder, each file whole or absent, written in this order for each section:

- ``latents-0003.safetensors``: what was denoised, before it is decoded; numbered in the order of making, 0 for the
  first frame.
- ``segment-0005.mp4``: the frames that the section settled; numbered as the film is played. Frames that still wait to
  be blended with the next section lie under that one's name until it is made, so that they can be looked at.
- ``state.safetensors``: what the next section needs, and its number. This is the resume point: it is written last, so
  whatever it counts is there, and at most one section is made twice.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.film_plugin import write_whole

from .sections import Schedule

if TYPE_CHECKING:
    import torch

STATE = "state.safetensors"


class Kept:
    """The files of one film in ``folder``. ``identity`` names the request: a state of another one is passed over."""

    def __init__(self, folder: Path, schedule: Schedule, identity: str) -> None:
        self.folder = folder
        self._schedule = schedule
        self._identity = identity

    def latents_path(self, section: int | None) -> Path:
        """``None``: the first frame's, which all sections see."""
        return self.folder / f"latents-{0 if section is None else section + 1:04d}.safetensors"

    def segment_path(self, section: int) -> Path:
        """Where the frames go that a section settles: the first one of an inverted film settles none."""
        return self.folder / f"segment-{self._schedule.place(section) + 1:04d}.mp4"

    def segments(self) -> list[Path]:
        """The segments in the order of the film."""
        return [self.segment_path(section) for section in self._schedule.in_time() if self._schedule.settled(section)]

    def write_latents(self, section: int | None, latents: torch.Tensor) -> None:
        from safetensors.torch import save

        write_whole(self.latents_path(section), save({"latents": latents.detach().to("cpu").contiguous()}))

    def latents(self, section: int | None) -> torch.Tensor | None:
        """What was denoised for a section; ``None`` where that is not kept."""
        found = read_tensors(self.latents_path(section))
        return found["latents"] if found is not None and "latents" in found else None

    def write_state(self, section: int, tensors: dict[str, torch.Tensor]) -> None:
        """``section`` is the next one to make; what the sections before it made is on the disk already."""
        from safetensors.torch import save

        about = {"section": str(section), "identity": self._identity}
        write_whole(self.folder / STATE, save({name: held.contiguous() for name, held in tensors.items()}, about))

    def state(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The section to go on with and its tensors; ``None`` to begin from the beginning."""
        path = self.folder / STATE
        about = read_about(path)
        if about is None or about.get("identity") != self._identity:
            return None
        tensors, section = read_tensors(path), int(about["section"])
        made = [self.segment_path(number) for number in range(section) if self._schedule.settled(number)]
        if tensors is None or not all(segment.is_file() for segment in made):
            return None
        return section, tensors


def read_tensors(path: Path) -> dict[str, torch.Tensor] | None:
    """The tensors of a file; ``None`` for one that is missing or damaged."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, ValueError):
        return None


def read_about(path: Path) -> dict[str, str] | None:
    """The notes in the header of a safetensors file, without reading the rest."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            found: dict[str, Any] = json.loads(file.read(min(length, 10_000_000)))
        about = found["__metadata__"]
        return about if isinstance(about, dict) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
