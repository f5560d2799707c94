"""Where the work is done: in this process (``inline``) or in one spawned process that can be killed (``worker``)."""

from __future__ import annotations

import json
import logging
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Protocol

from studio.errors import StudioError
from studio.events import Event, is_last, parse_event
from studio.jobs.model import Task
from studio.memory.manager import Held
from studio.store.home import Home

log = logging.getLogger(__name__)

GRACE_S = 2.5  # a cancelled job that does not answer within this time loses its worker
START_LIMIT_S = 120.0
_POLL_S = 0.05
_LOG_LIMIT_BYTES = 5_000_000


LOADED = b"loaded "
"""Begins the worker's line about what it holds; all other lines are events."""


class WorkerDied(Exception):
    """The worker ended in the middle of a job; the text says how."""


class Executor(Protocol):
    """Runs one task at a time. ``emit`` takes each event; ``wanted`` turns false when the job was cancelled."""

    @property
    def loaded(self) -> Sequence[Held]: ...

    def run(self, task: Task, emit: Callable[[Event], None], wanted: Callable[[], bool]) -> None: ...

    def release(self) -> None:
        """Give all memory back; the next ``run`` starts anew."""

    def close(self) -> None: ...


class InlineExecutor:
    """The caller's process: for scripts and notebooks. Native code that hangs cannot be stopped here."""

    def __init__(self, home: Home) -> None:
        from studio.jobs.execute import Engine

        self._engine = Engine(home)

    def run(self, task: Task, emit: Callable[[Event], None], wanted: Callable[[], bool]) -> None:
        for event in self._engine.run(task, lambda: not wanted()):
            emit(event)

    @property
    def loaded(self) -> Sequence[Held]:
        return self._engine.memory.held()

    def release(self) -> None:
        self._engine.memory.release()

    def close(self) -> None:
        self._engine.memory.release()


class WorkerExecutor:
    """One child process, started with the first job and kept warm; JSON lines over its pipes, never pickle."""

    def __init__(self, home: Home) -> None:
        self._home = home
        self._process: subprocess.Popen[bytes] | None = None
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._closing = False
        self.loaded: Sequence[Held] = ()

    def run(self, task: Task, emit: Callable[[Event], None], wanted: Callable[[], bool]) -> None:
        """Raises ``WorkerDied`` if the process ends under the job without being told to."""
        try:
            self._run(task, emit, wanted)
        except Exception:
            self._kill()  # whatever it still sends belongs to no job
            raise

    def _run(self, task: Task, emit: Callable[[Event], None], wanted: Callable[[], bool]) -> None:
        process = self._ready()
        self._send(process, {"op": "run", "task": task.model_dump()})
        kill_at: float | None = None
        while True:
            if kill_at is None and not wanted():
                self._send(process, {"op": "cancel", "job": task.job_id})
                kill_at = time.monotonic() + GRACE_S
            if kill_at is not None and time.monotonic() > kill_at:
                self._kill()
                return
            try:
                line = self._lines.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if not line:
                if kill_at is not None:
                    self._kill()
                    return
                raise WorkerDied(self._how_it_ended())
            if line.startswith(LOADED):
                self.loaded = [Held.model_validate(held) for held in json.loads(line.removeprefix(LOADED))]
                continue
            event = parse_event(line)
            emit(event)
            if is_last(event):
                return

    def release(self) -> None:
        self._kill()

    def close(self) -> None:
        self._closing = True
        self._kill()

    def _ready(self) -> subprocess.Popen[bytes]:
        """The running worker, or a new one once it has said that it is ready."""
        if self._process is not None and self._process.poll() is None:
            return self._process
        if self._closing:
            raise WorkerDied("closing")
        with self._log().open("ab") as errors:
            process = subprocess.Popen(
                [sys.executable, "-m", "studio.jobs.worker", str(self._home.root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=_environment(),
            )
        self._process = process
        self._lines = queue.SimpleQueue()
        if process.stdout is None:
            raise RuntimeError("the worker has no pipe")
        threading.Thread(target=_read, args=(process.stdout, self._lines), daemon=True).start()
        try:
            first = self._lines.get(timeout=START_LIMIT_S)
        except queue.Empty:
            first = b""
        if first.strip() != b'{"op": "ready"}':
            self._kill()
            raise StudioError("The worker process does not start.", f"Its log says why: {self._log()}")
        return process

    def _send(self, process: subprocess.Popen[bytes], message: object) -> None:
        # A broken pipe means that the worker is dead: the empty line at the end of its output will say so.
        with suppress(OSError):
            if process.stdin is not None:
                process.stdin.write(json.dumps(message).encode() + b"\n")
                process.stdin.flush()

    def _kill(self) -> None:
        process, self._process = self._process, None
        self.loaded = ()
        if process is not None:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    with suppress(OSError):
                        pipe.close()

    def _how_it_ended(self) -> str:
        process = self._process
        code = process.wait() if process is not None else None
        self._kill()
        return f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"

    def _log(self) -> Path:
        path = self._home.logs / "worker.log"
        if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
            path.replace(path.with_suffix(".old.log"))
        return path


def _read(pipe: IO[bytes], lines: queue.SimpleQueue[bytes]) -> None:
    """Move the worker's lines to the queue; an empty one marks the end."""
    with suppress(OSError, ValueError):  # the pipe is closed by ``_kill``
        for line in pipe:
            lines.put(line)
    lines.put(b"")


def _environment() -> dict[str, str]:
    """The worker loads files that are on this machine: it needs no hub and no secrets."""
    secrets = {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"}
    kept = {name: value for name, value in os.environ.items() if name not in secrets}
    return {**kept, "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}
