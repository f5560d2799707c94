"""A process of its own for each measurement, with its memory watched from outside (Linux; proc(5))."""

from __future__ import annotations

import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

LOOK_S = 0.02


@dataclass(frozen=True)
class Watched:
    """How a process ended, what it said, and bytes: the most resident memory that it ever had by the kernel's own
    count, with its children's as they were seen, and the most that is no file's."""

    returncode: int
    out: str
    err: str
    most_bytes: int
    own_bytes: int


def run_watched(command: list[str]) -> Watched:
    """Run a command to its end."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, text=True)
        most = own = 0
        while process.poll() is None:
            try:
                head = psutil.Process(process.pid)
                others = head.children(recursive=True)
                most = max(most, _kernel(head.pid, "VmHWM:") + sum(one.memory_info().rss for one in others))
                own = max(own, sum(_kernel(one.pid, "RssAnon:") for one in (head, *others)))
            except (psutil.Error, OSError):
                pass  # it ended while it was looked at
            time.sleep(LOOK_S)
        out.seek(0)
        err.seek(0)
        return Watched(process.returncode, out.read(), err.read(), most, own)


def _kernel(pid: int, what: str) -> int:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), 0)
