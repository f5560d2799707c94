"""What a film takes on the disk while it is made: its segments, the film joined of them, latents, and two states."""

from __future__ import annotations

import shutil
from pathlib import Path

from studio.film_plugin import expected_bytes
from studio.plugin import MIB, BadRequest, NoSpace, format_bytes

from .request import FilmRequest
from .sections import KEPT

RESERVE_BYTES = 16 * MIB
"""For the database and the logs, which must be able to say what happened."""
_FACTOR, _CHANNELS = 8, 16
"""Of HunyuanVideo's latents, in 32 bits; smaller models have fewer."""


def needed_bytes(request: FilmRequest, made: int = 0) -> int:
    """Bytes that the sections behind the first ``made`` ones will take, and the finished film."""
    schedule, left = request.schedule, request.schedule.sections - made
    latent = _CHANNELS * (request.width // _FACTOR) * (request.height // _FACTOR) * 4
    state = schedule.overlap * request.width * request.height * 3 * 4 + (KEPT + 2) * latent
    segments = expected_bytes(left * schedule.new_frames, request.width, request.height)
    film = expected_bytes(schedule.frames, request.width, request.height)
    latents = left * (schedule.window + 1) * latent
    return segments + film + latents + (2 * state if left else 0) + RESERVE_BYTES


def free_bytes(folder: Path) -> int:
    """Free bytes on the disk of ``folder``, which may not exist yet."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(request: FilmRequest, folder: Path) -> None:
    """Raises ``BadRequest`` with the bytes that are needed and those that are free, before anything is made."""
    needed, free = needed_bytes(request), free_bytes(folder)
    if free < needed:
        raise BadRequest(
            f"No space for a film of {request.schedule.sections} sections: {format_bytes(needed)} are needed, "
            f"{format_bytes(free)} are free.",
            f"Free some space on the disk of {folder}, or ask for fewer seconds or a smaller size.",
        )


def no_space(request: FilmRequest, section: int, folder: Path) -> NoSpace:
    """The disk is full at a section, the ``section``-th to be made and told by its place in the film: what the rest
    needs, and that what is finished stays."""
    needed, free = needed_bytes(request, section), free_bytes(folder)
    kept = {0: "None is", 1: "The finished one is"}.get(section, f"The {section} finished ones are")
    count = request.schedule.sections
    where = "joining the sections"
    if section < count:
        where = f"section {request.schedule.place(section) + 1} of {count}"
    return NoSpace(
        f"No space for {where}: {format_bytes(needed)} are needed for the rest, {format_bytes(free)} are free. "
        f"{kept} kept.",
        f"Free some space on the disk of {folder}, then go on: studio jobs retry {folder.name}",
    )
