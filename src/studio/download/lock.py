"""The lock: what was pulled for a model, and the proof that it was checked.

One JSON file a model. It is written before a download begins (with the commit, ``complete: false``), so that a
pull that is interrupted goes on with the same commit, and again when every file has been checked.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.files import write_whole
from studio.spec import ModelSpec, Source


class LockedFile(BaseModel):
    """One checked file. ``local`` is its absolute path; ``owned`` says that Studio downloaded it; ``repo`` is where it
    came from if not from the source's own repository."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    role: str
    path: str
    local: str
    bytes: int
    sha256: str
    owned: bool = True
    repo: str | None = None


class Lock(BaseModel):
    """All that is known of a pulled model. ``roles`` maps a role to the path that the family is given; ``revisions``
    are the commits of repositories beside the source's own."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    source: str
    revision: str | None = None
    revisions: dict[str, str] = Field(default_factory=dict)
    licence: str
    time: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    complete: bool = False
    roles: dict[str, str] = Field(default_factory=dict)
    patterns: dict[str, str] = Field(default_factory=dict)
    files: list[LockedFile] = Field(default_factory=list)


def place_of(source: Source) -> str:
    """The source in one string: what must stay the same for a lock to hold."""
    if source.repo is not None:
        return f"repo:{source.repo}"
    if source.package is not None:
        return f"package:{source.package}"
    return f"pypi:{source.pypi}" if source.pypi is not None else f"folder:{source.folder}"


def new_lock(spec: ModelSpec, source: Source, revision: str | None, revisions: dict[str, str] | None = None) -> Lock:
    """A lock that names the commits but no files yet."""
    return Lock(
        model=spec.id,
        source=place_of(source),
        revision=revision,
        revisions=revisions or {},
        licence=source.licence,
        patterns=_patterns(source),
    )


def _patterns(source: Source) -> dict[str, str]:
    """What the catalogue asks for, by role."""
    return {role: f"{file.repo}:{file.path}" if file.repo else file.path for role, file in source.files.items()}


def same_place(lock: Lock, source: Source) -> bool:
    """Whether the lock speaks of this source at these revisions (an open revision accepts the locked one)."""
    own = lock.source == place_of(source) and source.revision in (None, lock.revision)
    asked = {file.repo: file.revision for file in source.files.values() if file.repo is not None}
    return own and all(commit in (None, lock.revisions.get(repo, commit)) for repo, commit in asked.items())


def holds(lock: Lock, source: Source) -> bool:
    """Whether the lock still answers the catalogue: the same place, files, sizes and hashes, all complete."""
    if not (lock.complete and same_place(lock, source)):
        return False
    if lock.patterns != _patterns(source):
        return False
    pins = {(file.repo, file.path): file for file in source.files.values()}
    return all(
        (pin := pins.get((file.repo, file.path))) is None
        or (pin.bytes in (None, file.bytes) and pin.sha256 in (None, file.sha256))
        for file in lock.files
    )


def revision_of(lock: Lock) -> str | None:
    """The commit that was pulled; for files of several repositories, all of them in one string."""
    others = (f"{repo}@{commit}" for repo, commit in sorted(lock.revisions.items()))
    return ", ".join([lock.revision, *others]) if lock.revision is not None else None


def read_lock(path: Path) -> Lock | None:
    """The lock in ``path``; ``None`` when there is none or it cannot be read (then the model is pulled again)."""
    try:
        return Lock.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def write_lock(path: Path, lock: Lock) -> None:
    """Write the lock so that a reader sees the old one or the new one, whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, lock.model_dump_json(indent=1).encode() + b"\n")
