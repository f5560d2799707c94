"""What an ended job left behind that its retry would go on from, such as the finished sections of a film."""

from __future__ import annotations

import time
from pathlib import Path

from studio.errors import NotFound
from studio.jobs.queue import JobQueue
from studio.pipeline import KEPT

KEPT_DAYS = 14


def worth_keeping(queue: JobQueue, folder: Path) -> bool:
    """Whether this job's folder outlives its end: it failed or was set aside, and ``Context.keep`` marked it."""
    try:
        job = queue.get(folder.name)
    except NotFound:
        return False
    if job.state not in ("failed", "quarantined") or not (folder / KEPT).is_file():
        return False
    return time.time() - (job.finished or 0) < KEPT_DAYS * 24 * 3600
