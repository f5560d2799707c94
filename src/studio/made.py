"""``studio.made``: looking through what was made, deleting it, and what it cost in energy."""

from __future__ import annotations

import shutil
import time
from contextlib import suppress
from pathlib import Path

from studio.errors import NotFound
from studio.events import Artefact
from studio.files import sha256_of
from studio.pipeline import beside_result
from studio.store.artefacts import recipe_path
from studio.store.database import Database
from studio.store.home import Home

ENERGY_KEPT_S = 20.0


class Made:
    """The artefacts of a home as a person looks through them."""

    def __init__(self, home: Home, database: Database) -> None:
        self._home = home
        self._database = database
        self._energy: tuple[float, float, bool] = (-ENERGY_KEPT_S, 0.0, False)

    def find(self, media: str = "%", words: str = "", limit: int = 60, offset: int = 0) -> tuple[int, list[Artefact]]:
        """How many there are, and one page of them, the newest first.

        ``media`` is a pattern of SQL's LIKE over the media type (``"image/%"``); all ``words`` must stand in the
        request or in the model's name.
        """
        where = "FROM artefacts JOIN jobs ON jobs.id = artefacts.job_id WHERE artefacts.media_type LIKE ?"
        values: list[str] = [media]
        for word in words.split():
            where += r" AND (jobs.params LIKE ? ESCAPE '\' OR jobs.model LIKE ? ESCAPE '\')"
            values += [f"%{_literal(word)}%"] * 2
        count = self._database.row(f"SELECT COUNT(*) AS count {where}", *values)
        rows = self._database.rows(
            f"SELECT artefacts.line {where} ORDER BY artefacts.created DESC, artefacts.id DESC LIMIT ? OFFSET ?",
            *values,
            limit,
            offset,
        )
        return (count["count"] if count else 0), [Artefact.model_validate_json(row["line"]) for row in rows]

    def delete(self, artefact_id: str) -> None:
        """Forget an artefact and remove its file, its recipe, its thumbnail, and what its family kept for it alone.

        The job stays in the list.
        """
        row = self._database.row("SELECT line FROM artefacts WHERE id = ?", artefact_id)
        if row is None:
            raise NotFound(f"There is no artefact {artefact_id!r}.", "It may have been deleted already.")
        made = Artefact.model_validate_json(row["line"])
        place = Path(made.path)
        beside = beside_result(self._home.root / "cache", made.content_sha256 or made.id)
        wanted = beside.is_dir() and self._is_input(place)
        with self._database.write() as connection:
            connection.execute("DELETE FROM artefacts WHERE id = ?", (artefact_id,))
        if place.resolve().is_relative_to(self._home.outputs):
            place.unlink(missing_ok=True)
            recipe_path(place).unlink(missing_ok=True)
        if not wanted and not self._database.row(
            "SELECT 1 FROM artefacts WHERE content_sha256 = ?", made.content_sha256
        ):
            shutil.rmtree(beside, ignore_errors=True)
        with suppress(OSError):
            self.thumbnail(artefact_id).unlink(missing_ok=True)

    def _is_input(self, file: Path) -> bool:
        """Whether a job that has not ended was given this file: its content names the copy in the store."""
        try:
            copy = sha256_of(file)
        except OSError:
            return False
        given = "SELECT 1 FROM jobs WHERE state IN ('queued', 'running') AND params LIKE ?"
        return self._database.row(given, f"%{copy}%") is not None

    def thumbnail(self, artefact_id: str) -> Path:
        """Where the small picture of an artefact lies, whether it was made yet or not."""
        return self._home.root / "cache" / "thumbs" / f"{artefact_id}.webp"

    def energy_since(self, then: float) -> tuple[float, bool]:
        """Joules that the cards told for jobs that ended after ``then`` (seconds since 1970), and whether any told."""
        if time.monotonic() - self._energy[0] > ENERGY_KEPT_S:
            row = self._database.row(
                "SELECT SUM(json_extract(line, '$.energy_j')) AS joules FROM events WHERE (job_id, number) IN (SELECT"
                " job_id, MAX(number) FROM events WHERE job_id IN (SELECT id FROM jobs WHERE finished > ?)"
                " GROUP BY job_id)",
                then,
            )
            joules = row["joules"] if row else None
            self._energy = (time.monotonic(), float(joules or 0), joules is not None)
        return self._energy[1], self._energy[2]

    def disk_total_bytes(self) -> int:
        """The size of the disk that holds the home."""
        return shutil.disk_usage(self._home.root).total


def _literal(word: str) -> str:
    return word.replace("\\", "\\\\").replace("%", r"\%").replace("_", r"\_")
