"""Downloads that were begun on the page: each in a thread of its own, followed by every open page."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from studio.core import Studio
from studio.errors import Cancelled, StudioError

log = logging.getLogger(__name__)


@dataclass
class Pull:
    """How far a download is. ``error`` once it has stopped; what came so far is kept and the next one goes on."""

    file: str = ""
    done: int = 0
    total: int = 0
    begun: float = 0.0
    first: int = 0
    error: str = ""
    running: bool = True
    stopped: bool = False

    @property
    def left_s(self) -> float | None:
        """Seconds left at the mean rate so far; ``None`` before anything came."""
        came, passed = self.done - self.first, time.monotonic() - self.begun
        return None if came <= 0 or not self.total else (self.total - self.done) * passed / came


class Pulls:
    """At most one download of a model at a time."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._known: dict[str, Pull] = {}
        self._lock = threading.Lock()

    def of(self, model: str) -> Pull | None:
        return self._known.get(model)

    def start(self, model: str) -> None:
        """Begin, or go on where an earlier one stopped; nothing happens while one runs."""
        spec = self._studio.models.get(model)
        with self._lock:
            known = self._known.get(spec.id)
            if known is not None and known.running:
                return
            pull = self._known[spec.id] = Pull(begun=time.monotonic())
        threading.Thread(target=self._run, args=(spec.id, pull), name=f"pull-{spec.id}", daemon=True).start()

    def stop(self, model: str) -> bool:
        """End a download; what came stays. Whether one was running."""
        pull = self._known.get(model)
        if pull is None or not pull.running:
            return False
        pull.stopped = True
        return True

    def _run(self, model: str, pull: Pull) -> None:
        def progress(file: str, done: int, total: int) -> None:
            if pull.stopped:
                raise Cancelled  # what came is kept
            if file != pull.file:
                pull.file, pull.first, pull.begun = file, done, time.monotonic()
            pull.done, pull.total = done, total

        try:
            self._studio.models.pull(model, progress=progress)
        except Cancelled:
            pull.stopped = True
        except StudioError as error:
            pull.error = str(error)
        except Exception as error:
            log.exception("pulling %s: a bug", model)
            pull.error = f"{type(error).__name__}: {error}"
        finally:
            pull.running = False
        if not pull.error and not pull.stopped:
            self._known.pop(model, None)
