"""The runner: works off the queue of a home, one job at a time. Any process may be it; the home's lock says who is.

A process that waits for a job starts a runner. If another process is working already, this one waits; if that one
dies, the lock is free at once (the system releases it) and this one goes on.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable
from typing import Any

from filelock import FileLock, Timeout

from studio.errors import StudioError
from studio.events import Artefact, Event, Failed, Preview, Progress, Token, is_last
from studio.files import sweep
from studio.jobs.executors import Executor, WorkerDied
from studio.jobs.kept import needed
from studio.jobs.model import JobRow, Task
from studio.jobs.queue import JobQueue
from studio.store.artefacts import ArtefactStore
from studio.store.database import Database
from studio.store.home import Home

log = logging.getLogger(__name__)

_COMMIT_EVERY_S = 0.05  # a commit costs a flush of the disk: tokens and progress are written in groups
_IDLE_POLL_S = 0.2


class Recorder:
    """Writes the events of one attempt. Previews, artefacts and ends are on disk when ``emit`` returns."""

    def __init__(self, job: JobRow, queue: JobQueue, artefacts: ArtefactStore) -> None:
        self._job = job
        self._queue = queue
        self._artefacts = artefacts
        self._waiting: list[Event] = []
        self._written_at = 0.0
        self._made = 0
        self.wanted = True

    def emit(self, event: Event) -> None:
        if isinstance(event, Artefact):
            self._made += 1
            if not self._queue.is_running(self._job):  # do not replace files of a job that is no longer ours
                self.wanted = False
                return
            event = self._artefacts.take(event, job_id=self._job.id, number=self._made, created=self._job.created)
            self._write([event], [(self._made, event)])
            if not self.wanted:  # cancelled meanwhile: no row will ever name these files
                self._artefacts.discard(event)
            return
        self._waiting = _merged(self._waiting, event)
        if is_last(event) or isinstance(event, Preview) or time.monotonic() - self._written_at > _COMMIT_EVERY_S:
            self._write([])

    def _write(self, events: list[Event], artefacts: list[tuple[int, Artefact]] | None = None) -> None:
        group, self._waiting = [*self._waiting, *events], []
        self.wanted = self._queue.append(self._job, group, artefacts or [])
        self._written_at = time.monotonic()

    def check(self) -> bool:
        """Whether the job is still wanted; also writes what has waited long enough."""
        if self._waiting and time.monotonic() - self._written_at > _COMMIT_EVERY_S:
            self._write([])
        self.wanted = self.wanted and self._queue.is_running(self._job)
        return self.wanted


def _merged(events: list[Event], event: Event) -> list[Event]:
    """Append, joining tokens of one channel and keeping only the latest progress of a phase."""
    last = events[-1] if events else None
    if isinstance(event, Token) and isinstance(last, Token) and last.channel == event.channel:
        return [*events[:-1], Token(text=last.text + event.text, channel=event.channel)]
    if isinstance(event, Progress) and isinstance(last, Progress) and last.phase == event.phase:
        return [*events[:-1], event]
    return [*events, event]


class Runner:
    """A thread that holds the home's lock while it lives and hands jobs to the executor."""

    def __init__(
        self,
        home: Home,
        database: Database,
        queue: JobQueue,
        artefacts: ArtefactStore,
        make_executor: Callable[[], Executor],
        prepare: Callable[[JobRow], dict[str, Any]],
    ) -> None:
        self._home = home
        self._database = database
        self._queue = queue
        self._artefacts = artefacts
        self._make_executor = make_executor
        self._prepare = prepare
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin if not begun. Returns at once."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._live, name="studio-runner", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Put the running job back in the queue and end the worker."""
        self._stopping.set()
        if self._thread is not None:
            with self._database.changed:
                self._database.changed.notify_all()
            self._thread.join()

    def _live(self) -> None:
        lock = FileLock(self._home.runner_lock, thread_local=False)
        while not self._stopping.is_set():
            try:
                lock.acquire(timeout=0)
            except Timeout:
                self._stopping.wait(_IDLE_POLL_S)
                continue
            try:
                self._work()
            except Exception:
                log.exception("the runner failed and begins anew")
                self._stopping.wait(1)
            finally:
                lock.release()

    def _work(self) -> None:
        interrupted = self._queue.recover()
        self._sweep(outputs=bool(interrupted))
        executor = self._make_executor()
        self._tell(executor)  # what a killed program had loaded is gone
        try:
            while not self._stopping.is_set():
                if self._queue.paused:
                    executor.release()
                    self._tell(executor)
                job = None if self._queue.paused else self._queue.claim()
                if job is None:
                    self._database.wait(_IDLE_POLL_S)
                else:
                    self._run(executor, job)
                    self._tell(executor)
        finally:
            executor.close()
            self._tell(executor)

    def _tell(self, executor: Executor) -> None:
        """Write down what is loaded, for ``studio status`` in any process."""
        loaded = [held.model_dump() for held in executor.loaded]
        if loaded != (self._queue.note("loaded") or []):
            self._queue.write_note("loaded", loaded)

    def _sweep(self, *, outputs: bool) -> None:
        """Remove what a killed program had no time to remove: temporary files, and the folders of ended jobs.

        An output is half written only while a job runs, so the many old ones are looked through only after an
        interruption; an input may be half copied whenever a request is made.
        """
        sweep(self._home.inputs)
        if outputs:
            sweep(self._home.outputs)
        for folder in list(self._home.work.iterdir()):
            if not needed(self._queue, folder):
                shutil.rmtree(folder, ignore_errors=True)

    def _run(self, executor: Executor, job: JobRow) -> None:
        recorder = Recorder(job, self._queue, self._artefacts)
        try:
            params = self._prepare(job)
            task = Task(job_id=job.id, model=job.model, params=params, attempt=job.attempt, run_anyway=job.run_anyway)
            executor.run(task, self._unless_closing(recorder), lambda: recorder.check() and not self._leaving)
        except WorkerDied as death:
            if not self._leaving:
                log.warning("job %s: the worker died (%s)", job.id, death)
                self._queue.crashed(job, str(death))
        except StudioError as error:
            recorder.emit(Failed(error=error.what, hint=error.hint))
        except Exception as error:
            log.exception("job %s: a bug", job.id)
            text = f"{type(error).__name__}: {' '.join(str(error).split())}"
            recorder.emit(Failed(error=text, hint=f"This is a bug; its traceback is in {self._home.logs}."))
        self._queue.release(job)  # only if it neither ended nor was cancelled: the program closes or pauses
        folder = self._home.work / job.id
        if not needed(self._queue, folder):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _leaving(self) -> bool:
        return self._stopping.is_set() or self._queue.paused

    def _unless_closing(self, recorder: Recorder) -> Callable[[Event], None]:
        """A job that stops because the program closes or pauses was not cancelled by anybody."""

        def emit(event: Event) -> None:
            leaving = self._leaving and isinstance(event, Failed) and event.state == "cancelled"
            if not leaving:
                recorder.emit(event)

        return emit
