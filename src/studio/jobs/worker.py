"""The worker process: ``python -m studio.jobs.worker HOME``. Reads JSON lines, writes events as JSON lines.

A thread reads the commands, so that a cancel arrives while the main thread computes, and ends the process as soon as
the parent is gone: a worker never outlives the program that started it. What native code prints goes to the log.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import queue
import signal
import sys
import threading
from typing import IO, Any

from studio.events import is_last
from studio.jobs.execute import Engine
from studio.jobs.executors import LOADED
from studio.jobs.model import Task
from studio.store.home import Home

IDLE_S = 60 * float(os.environ.get("STUDIO_IDLE_MINUTES", "15"))
IDLE_POLL_S = 10.0


class Worker:
    """Runs the tasks it is sent, one after the other."""

    def __init__(self, home: Home, commands: IO[bytes], events: IO[bytes]) -> None:
        self._engine = Engine(home, alone=True)
        self._commands = commands
        self._events = events
        self._tasks: queue.SimpleQueue[Task] = queue.SimpleQueue()
        self._cancelled: set[str] = set()

    def serve(self) -> None:
        threading.Thread(target=self._listen, daemon=True).start()
        self._write(b'{"op": "ready"}')
        while True:
            task = self._next()
            for event in self._engine.run(task, lambda job=task.job_id: job in self._cancelled):  # type: ignore[misc]
                if is_last(event):
                    self._tell()
                self._write(event.model_dump_json().encode())

    def _next(self) -> Task:
        """Wait for a task; what has not been used for long is unloaded meanwhile."""
        while True:
            try:
                return self._tasks.get(timeout=IDLE_POLL_S)
            except queue.Empty:
                self._engine.memory.release_idle(IDLE_S)

    def _tell(self) -> None:
        held = [one.model_dump() for one in self._engine.memory.held()]
        self._write(LOADED + json.dumps(held).encode())

    def _listen(self) -> None:
        for line in self._commands:
            message = json.loads(line)
            if message["op"] == "run":
                task = Task.model_validate(message["task"])
                self._cancelled.discard(task.job_id)  # here, where a cancel in the next line cannot overtake it
                self._tasks.put(task)
            elif message["op"] == "cancel":
                self._cancelled.add(message["job"])
        os._exit(0)  # the parent is gone; nothing here needs saving

    def _write(self, line: bytes) -> None:
        try:
            self._events.write(line + b"\n")
            self._events.flush()
        except OSError:
            os._exit(0)


def _die_with_parent() -> None:
    """Linux ends this process with its parent even while native code lets no other thread run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _block_network() -> None:
    """Refuse outgoing connections made by Python code: models are read from disk, and nothing leaves unasked."""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "socket.connect" and not isinstance(args[1], str | bytes):  # a path is a local socket
            raise PermissionError("the worker has no network")

    sys.addaudithook(hook)


def main() -> None:
    """Keep the protocol's pipe for ourselves and send everything that is printed to the log."""
    # Ctrl-C in a terminal reaches every process of it; what happens to the job is the parent's decision.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(name)s %(levelname)s %(message)s")
    events = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C comes here too; the parent decides
    _die_with_parent()
    _block_network()
    Worker(Home(sys.argv[1]), sys.stdin.buffer, events).serve()


if __name__ == "__main__":
    main()
