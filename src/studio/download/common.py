"""What every kind of source shares: the result of a pull, progress over all files, free space, atomic writes."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from studio.errors import StudioError
from studio.units import format_bytes

ProgressCallback = Callable[[str, int, int], None]

_REPORT_EVERY_S = 0.1
_WAIT_S = 0.5
# Room left for logs, thumbnails and the file system itself.
_SPARE_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class PullResult:
    """What a pull did. ``revision`` is the commit or the package version; bytes are of model files.

    ``locked_now``: this pull wrote the commit or the hashes down for the first time; show them to the user.
    """

    model: str
    files: dict[str, Path]
    revision: str | None = None
    locked_now: bool = False
    downloaded_bytes: int = 0
    reused_bytes: int = 0


@dataclass
class Meter:
    """Adds the bytes of all files of a pull up, and tells the caller at most ten times a second.

    It speaks whenever bytes arrive or are hashed. What the callback raises ends the pull; what was downloaded
    until then is kept for the next one, so raising is the way to cancel.
    """

    callback: ProgressCallback | None = None
    total: int = 0
    finished: int = 0
    current: int = 0
    name: str = ""
    downloaded: int = 0
    _last: float = field(default=0.0, repr=False)

    def start(self, name: str, done: int = 0) -> None:
        """Begin with a file of which ``done`` bytes are here already."""
        self.name, self.current = name, done
        self.report(force=True)

    def advance(self, count: int) -> None:
        """``count`` more bytes came over the network."""
        self.current += count
        self.downloaded += count
        self.report()

    def finish(self, size: int) -> None:
        """The file is here, whole and checked."""
        self.finished += size
        self.current = 0
        self.report(force=True)

    def tick(self) -> None:
        """Something is happening that moves no bytes."""
        self.report()

    def report(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self.callback is not None and (force or now - self._last >= _REPORT_EVERY_S):
            self._last = now
            done = self.finished + self.current
            self.callback(self.name, done, max(self.total, done))


@contextmanager
def alone(path: Path, waiting: Callable[[], None]) -> Iterator[None]:
    """Hold the lock file ``path``; while another process holds it, ``waiting`` is called twice a second."""
    from filelock import FileLock, Timeout

    path.parent.mkdir(parents=True, exist_ok=True)
    guard = FileLock(path)
    while not guard.is_locked:
        try:
            guard.acquire(timeout=_WAIT_S)
        except Timeout:
            waiting()
    try:
        yield
    finally:
        guard.release()


def free_bytes(folder: Path) -> int:
    """Free bytes of the file system that ``folder`` is or will be on."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def check_space(folder: Path, needed_bytes: int, model: str) -> None:
    """Raises ``StudioError`` naming both figures when ``needed_bytes`` do not fit into ``folder``."""
    free = free_bytes(folder)
    if needed_bytes and needed_bytes + _SPARE_BYTES > free:
        raise StudioError(
            f"Not enough disk space for {model!r}: needed {needed_bytes} bytes ({format_bytes(needed_bytes)}), "
            f"free {free} bytes ({format_bytes(free)}) in {folder}.",
            "Free some space (studio models rm ID), or point STUDIO_HOME or HF_HOME at a larger disk.",
        )
