"""Making a film again from one of its sections: the latents of finished films, kept beside the converted weights.

A film is known by its content (the sha256 of its packets), so it may have been copied and renamed, and its sections may
be let go like anything in a cache: with the film when it is deleted, and the oldest films once there are
``LIMIT_BYTES`` of them.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from studio.film_plugin import cut, packets_sha256, write_whole
from studio.plugin import GIB, BadRequest, beside_result

from .kept import Kept
from .params import VideoParams
from .request import FilmRequest
from .sections import Sampling, Schedule

LIMIT_BYTES = 4 * GIB
ABOUT = "about.json"
"""Written last: a folder without it is not complete."""


@dataclass(frozen=True)
class About:
    """A finished film: which model made it, (width, height), its number of sections and their order."""

    model: str
    width: int
    height: int
    sections: int
    sampling: Sampling


@dataclass(frozen=True)
class Beginning:
    """What of an earlier film stays: the ``sections`` that were made first; their latents are in ``folder``."""

    folder: Path
    sections: int


def beginning(params: VideoParams, request: FilmRequest, cache: Path | None, model: str) -> Beginning | None:
    """What stays of ``params.film``; ``None`` for a film that is new. Raises ``BadRequest`` with the way out."""
    if params.film is None or params.from_section is None or cache is None or not params.film.is_file():
        return None
    try:
        folder = beside_result(cache, packets_sha256(params.film))
    except (OSError, ValueError, ArithmeticError, LookupError) as error:
        raise BadRequest(f"--film: {params.film.name} cannot be read.", "Give a film that plays.") from error
    about = read_about(folder)
    if about is None:
        raise BadRequest(
            f"The sections of {params.film.name} are not here: it was made in another home, or long ago.",
            "Make it once more from its recipe (studio run --like FILE), then again from a section.",
        )
    _check_same(about, request, model, params.film.name)
    schedule = request.schedule
    number = params.from_section
    if schedule.sampling == "forward":
        stay, allowed = number - 1, (2, min(about.sections + 1, schedule.sections))
    else:
        stay, allowed = schedule.sections - number, (1, schedule.sections - 1)
    if not allowed[0] <= number <= allowed[1]:
        raise BadRequest(
            f"from_section is {number}; something stays and something is new from {allowed[0]} to {allowed[1]}."
            if allowed[0] <= allowed[1]
            else f"{params.film.name} is one section, of which nothing would stay.",
            "Choose another section, or leave out --film and --from-section.",
        )
    return Beginning(folder, stay)


def _check_same(about: About, request: FilmRequest, model: str, name: str) -> None:
    wanted = About(model, request.width, request.height, about.sections, request.schedule.sampling)
    if about != wanted:
        raise BadRequest(
            f"{name} was made by {about.model} at {about.width}×{about.height}, this would be by {model} at "
            f"{request.width}×{request.height}.",
            f"Use that model, and --width {about.width} --height {about.height}.",
        )
    if about.sampling == "inverted" and about.sections != request.schedule.sections:
        raise BadRequest(
            f"{name} has {about.sections} sections, this would have {request.schedule.sections}.",
            "A film whose end is made first keeps its length: give the same seconds and fps.",
        )


def lay_out(start: Beginning, film: Path, kept: Kept, schedule: Schedule, fps: int) -> int:
    """Put what stays where a resumed film looks for it: latents, and segments cut from the film.

    Returns how many sections are then whole: all that stay, but for one that was the film's last and is not any more,
    whose frames at the seam must be decoded anew. Raises ``BadRequest`` if the film was let go meanwhile.
    """
    for section in (None, *range(start.sections)):
        target = kept.latents_path(section)
        if target.is_file():
            continue
        try:
            content = (start.folder / target.name).read_bytes()
        except OSError as error:
            raise BadRequest(
                "The sections of the film were let go while this job waited.", "Make the film once more."
            ) from error
        write_whole(target, content)
    about = read_about(start.folder)
    whole = min(start.sections, about.sections - 1 if about is not None else 0)
    settled = [(schedule.settled(section), kept.segment_path(section)) for section in range(whole)]
    cut(film, [(frames, path) for frames, path in settled if frames and not path.is_file()], fps)
    return whole


def put_away(film: Path, kept: Kept, about: About, cache: Path | None) -> None:
    """Move the latents of a finished film to where ``beginning`` finds them. What is there already stays."""
    if cache is None:
        return
    folder = beside_result(cache, packets_sha256(film))
    if read_about(folder) is None:
        latents = [kept.latents_path(section) for section in (None, *range(about.sections))]
        if not all(path.is_file() for path in latents):
            return
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in latents:
            path.replace(folder / path.name)
        write_whole(folder / ABOUT, json.dumps(asdict(about)).encode())
    os.utime(folder / ABOUT)
    _prune(folder)


def read_about(folder: Path) -> About | None:
    """What a finished film is; ``None`` where there is none, or not all of it."""
    try:
        return About(**json.loads((folder / ABOUT).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def _prune(keep: Path) -> None:
    """Let the oldest films beside ``keep`` go until the rest is small enough."""

    def age(folder: Path) -> float:
        try:
            return (folder / ABOUT).stat().st_mtime
        except OSError:
            return 0.0

    films = [folder for folder in keep.parent.iterdir() if any(folder.glob("latents-*"))]
    total = 0
    for folder in sorted(films, key=age, reverse=True):
        total += sum(path.stat().st_size for path in folder.iterdir())
        if total > LIMIT_BYTES and folder != keep:
            shutil.rmtree(folder, ignore_errors=True)
