"""What several tests use: waiting for something that must come, processes of a home, a family's metadata."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol, TypeVar

import psutil

T = TypeVar("T")


class Cli(Protocol):
    def __call__(
        self, *args: str | Path, code: int | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]: ...


def until(what: str, look: Callable[[], T], limit_s: float = 30) -> T:
    """The first true answer of ``look``; the test fails with ``what`` if none comes."""
    end = time.monotonic() + limit_s
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        time.sleep(0.01)


def lines_of(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def gone(pid: int) -> bool:
    """Whether a process has ended; one that its parent has not waited for counts as ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def processes_of(home: Path) -> list[psutil.Process]:
    """The living worker processes of a home, by their command line."""
    found = []
    for process in psutil.process_iter():
        try:
            line = process.cmdline()
            if "studio.jobs.worker" in line and str(home) in line and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def install_family(folder: Path, package: str, points: Mapping[str, str]) -> None:
    """Write the metadata that pip would write for a package with these entry points."""
    info = folder / f"{package}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    lines = "\n".join(f"{name} = {value}" for name, value in points.items())
    (info / "entry_points.txt").write_text(f"[studio.pipelines]\n{lines}\n")


def files_in(folder: Path) -> list[Path]:
    """All files below a folder, hidden ones too."""
    return sorted(path for path in folder.rglob("*") if path.is_file())
