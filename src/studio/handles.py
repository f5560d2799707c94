"""What the Python API hands out: ``Job``, ``studio.jobs`` and ``studio.models``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from studio.catalogue import Catalogue
from studio.download import ModelStore, PullResult
from studio.errors import JobFailed
from studio.events import Artefact, Event
from studio.jobs.model import JobRow
from studio.spec import ModelSpec

if TYPE_CHECKING:
    from studio.core import Studio


class Job:
    """A handle on a job. It stays valid in another process and after a restart: ``studio.jobs.get(id)``."""

    def __init__(self, studio: Studio, job_id: str) -> None:
        self._studio = studio
        self.id = job_id

    def __repr__(self) -> str:
        return f"Job({self.id!r}, state={self.state!r})"

    @property
    def row(self) -> JobRow:
        return self._studio.queue.get(self.id)

    @property
    def state(self) -> str:
        return self.row.state

    def events(self, after: int = 0) -> Iterator[Event]:
        """The whole story from its beginning, then what happens, until the job has ended."""
        return (event for _, event in self._studio.follow(self.id, after))

    def result(self) -> list[Artefact]:
        """Wait, then return what was made. Raises ``JobFailed`` if the job did not end as done."""
        for _ in self.events():
            pass
        row = self.row
        if row.state != "done":
            raise JobFailed(row.error, row.hint, job_id=row.id, state=row.state)
        return self._studio.artefacts.of_job(self.id)

    def cancel(self) -> bool:
        """Cancel; ``False`` if the job had ended already."""
        return self._studio.queue.cancel(self.id)


class Jobs:
    """``studio.jobs``: handles by id, and the list."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio

    def get(self, job_id: str) -> Job:
        return Job(self._studio, self._studio.queue.get(job_id).id)

    def find(self, *, states: Iterable[str] = (), batch: str | None = None, limit: int = 1000) -> list[JobRow]:
        """The newest first."""
        return self._studio.queue.find(states=list(states), batch=batch, limit=limit)

    def __iter__(self) -> Iterator[JobRow]:
        return iter(self.find())


class Models:
    """``studio.models``: the catalogue, and what of it is on this machine. Iterating gives every ``ModelSpec``."""

    def __init__(self, catalogue: Catalogue, store: ModelStore) -> None:
        self._catalogue = catalogue
        self._store = store

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self._catalogue.specs.values())

    def get(self, name: str) -> ModelSpec:
        """The entry of that id; ``NotFound`` offers the nearest ones."""
        return self._catalogue.get(name)

    def files(self, name: str) -> dict[str, Path] | None:
        """Role to local path if the model is on this machine and was checked, else ``None``."""
        return self._catalogue.files(self.get(name), self._store.installed)

    def size_bytes(self, name: str) -> int | None:
        """Bytes of all files; ``None`` where nobody knows before the download."""
        return self._store.size_bytes(self.get(name))

    def pull(self, name: str, *, progress: Callable[[str, int, int], None] | None = None) -> PullResult:
        """Download and check; goes on where an earlier pull stopped. ``progress(file, done_bytes, total_bytes)``."""
        return self._store.pull(self.get(name), progress=progress)

    def remove(self, name: str) -> int:
        """Delete what Studio downloaded; returns the bytes freed."""
        return self._store.remove(self.get(name))

    def verify(self, name: str) -> list[str]:
        """Compare every byte with its sha256; one line for each fault."""
        spec = self.get(name)
        self._store.require(spec)
        return self._store.verify(spec)
