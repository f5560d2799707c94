"""Artefacts: a file, its recipe beside it, a row in the database. A row exists only for a whole file."""

from __future__ import annotations

import json
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from studio.errors import BadRequest, NotFound, StudioError
from studio.events import Artefact
from studio.files import copy_whole, move_whole, write_whole
from studio.media import extension
from studio.store.content import content_of, content_sha256
from studio.store.database import Database
from studio.store.embed import embed, embedded
from studio.store.home import Home

RECIPE_SUFFIX = ".recipe.json"


def recipe_path(path: Path) -> Path:
    """The sidecar of a file: ``picture.png`` -> ``picture.png.recipe.json``."""
    return path.with_name(path.name + RECIPE_SUFFIX)


class ArtefactStore:
    """All artefacts of a home."""

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database

    def take(self, made: Artefact, *, job_id: str, number: int, created: float) -> Artefact:
        """Move an output out of its job's folder into the store, with its recipe. No row yet: see ``record``.

        The place follows from the job and the number alone, so a second attempt replaces the first one's file.
        """
        source = Path(made.path).resolve()
        if not source.is_relative_to(self._home.work / job_id) or not source.is_file():
            raise StudioError(f"The pipeline named an output that is not in its working folder: {made.path}.")
        day = datetime.fromtimestamp(created, UTC).strftime("%Y-%m-%d")
        folder = self._home.outputs / day
        folder.mkdir(parents=True, exist_ok=True)
        place = folder / f"{job_id}-{number}{extension(made.media_type)}"
        digest = content_sha256(source, made.media_type)
        recipe = {**made.recipe, "content_sha256": digest}
        embed(source, made.media_type, recipe)
        write_whole(recipe_path(place), json.dumps(recipe, indent=2, ensure_ascii=False).encode())
        move_whole(source, place)
        return made.model_copy(
            update={
                "id": f"{job_id}-{number}",
                "path": str(place),
                "recipe": recipe,
                "content_sha256": digest,
                "bytes": place.stat().st_size,
            }
        )

    def discard(self, artefact: Artefact) -> None:
        """Remove the files of an artefact that was taken but will not be recorded."""
        place = Path(artefact.path)
        place.unlink(missing_ok=True)
        recipe_path(place).unlink(missing_ok=True)

    def record(self, artefact: Artefact, *, job_id: str, number: int) -> None:
        """Make an artefact visible. Call it in the transaction that records the event."""
        with self._database.write() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO artefacts (id, job_id, number, line, media_type, content_sha256, created)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (
                    artefact.id,
                    job_id,
                    number,
                    artefact.model_dump_json(),
                    artefact.media_type,
                    artefact.content_sha256,
                    time.time(),
                ),
            )

    def get(self, artefact_id: str) -> Artefact:
        row = self._database.row("SELECT line FROM artefacts WHERE id = ?", artefact_id)
        if row is None:
            raise NotFound(f"There is no artefact {artefact_id!r}.", "See: studio jobs list")
        return Artefact.model_validate_json(row["line"])

    def of_job(self, job_id: str) -> list[Artefact]:
        rows = self._database.rows("SELECT line FROM artefacts WHERE job_id = ? ORDER BY number", job_id)
        return [Artefact.model_validate_json(row["line"]) for row in rows]

    def newest(self, limit: int = 100, offset: int = 0) -> list[Artefact]:
        """The newest first."""
        rows = self._database.rows(
            "SELECT line FROM artefacts ORDER BY created DESC, id DESC LIMIT ? OFFSET ?", limit, offset
        )
        return [Artefact.model_validate_json(row["line"]) for row in rows]

    def recipe_of(self, path: Path) -> dict[str, Any]:
        """The recipe of a file: from its sidecar, from within it, or by its content if the store made it."""
        if not os.path.isfile(path):  # noqa: PTH113 - false for any impossible name, too
            raise NotFound(f"There is no file {str(path)!r}.", "Give a file that Studio made.")
        beside = path if path.name.endswith(RECIPE_SUFFIX) else recipe_path(path)
        if beside.is_file():
            return read_recipe(beside)
        if (inside := embedded(path)) is not None:
            return checked_recipe(inside, path)
        row = self._database.row("SELECT line FROM artefacts WHERE content_sha256 = ?", content_of(path))
        if row is not None:
            return Artefact.model_validate_json(row["line"]).recipe
        raise BadRequest(
            f"{path} has no recipe: there is no {beside.name} beside it and this home did not make it.",
            "Give a file that Studio made, with its recipe beside it.",
        )


def read_recipe(path: Path) -> dict[str, Any]:
    """Parse a recipe file; only what a request needs is checked here."""
    try:
        recipe = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise BadRequest(f"{path} is not a recipe: {error}.", "Give a file that Studio made.") from error
    return checked_recipe(recipe, path)


def checked_recipe(recipe: Any, path: Path) -> dict[str, Any]:
    """A recipe that names a model and its parameters; ``BadRequest`` for anything else."""
    if not isinstance(recipe, dict) or not isinstance(recipe.get("model"), str) or "params" not in recipe:
        raise BadRequest(f"{path} is not a recipe: it names no model or no params.", "Give a file that Studio made.")
    return recipe


def export(artefact: Artefact, target: Path) -> None:
    """Copy an artefact and its recipe to the user's own place (``-o FILE``)."""
    target.parent.mkdir(parents=True, exist_ok=True)
    copy_whole(Path(artefact.path), target)
    write_whole(recipe_path(target), json.dumps(artefact.recipe, indent=2, ensure_ascii=False).encode())
