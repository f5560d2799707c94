"""What a job left behind that it, or its retry, would go on from, such as the finished sections of a film."""

from __future__ import annotations

import time
from pathlib import Path

from studio.errors import NotFound
from studio.jobs.queue import JobQueue
from studio.pipeline import KEPT

KEPT_DAYS = 14


def needed(queue: JobQueue, folder: Path) -> bool:
    """Whether a job's working folder is still needed: the job goes on, or failed or was set aside with something
    that ``Context.keep`` marked.

    The job is read once: a retry may come at any moment, and neither of its states may be taken for an end.
    """
    try:
        job = queue.get(folder.name)
    except NotFound:
        return False
    if not job.ended:
        return True
    if job.state not in ("failed", "quarantined") or not (folder / KEPT).is_file():
        return False
    return time.time() - (job.finished or 0) < KEPT_DAYS * 24 * 3600
