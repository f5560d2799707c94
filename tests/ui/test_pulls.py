"""Downloads that every open page follows: they can be stopped, say why they ended, and go on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from studio.errors import StudioError
from studio.ui.pulls import Pulls
from toolbox import until


class Store:
    """Stands for a download that goes on until it is stopped, fails, or is let through."""

    def __init__(self) -> None:
        self.begun: list[int] = []
        self.ready = threading.Event()
        self.error = ""

    def get(self, model: str) -> Any:
        return SimpleNamespace(id=model)

    def pull(self, model: str, *, progress: Callable[[str, int, int], None]) -> None:
        done = sum(self.begun)
        self.begun.append(0)
        while not self.ready.wait(0.01):
            self.begun[-1] += 1
            progress("weights", done + self.begun[-1], 1_000_000)
            if self.error:
                raise StudioError(self.error)


def test_a_download_is_stopped_and_goes_on() -> None:
    store = Store()
    pulls = Pulls(SimpleNamespace(models=store))  # type: ignore[arg-type]
    pulls.start("m")
    until("some bytes", lambda: (pull := pulls.of("m")) is not None and pull.done > 2)
    pulls.start("m")  # nothing happens while one runs
    assert len(store.begun) == 1
    assert pulls.stop("m")
    until("its end", lambda: (pull := pulls.of("m")) is not None and not pull.running)
    stopped = pulls.of("m")
    assert stopped is not None
    assert stopped.stopped
    assert stopped.error == ""
    assert not pulls.stop("m")

    pulls.start("m")
    until("more bytes", lambda: (pull := pulls.of("m")) is not None and pull.done > stopped.done)
    store.error = "The line is cut."
    until("why it ended", lambda: (pull := pulls.of("m")) is not None and pull.error == "The line is cut.")
    store.error = ""
    pulls.start("m")
    store.ready.set()
    until("nothing left to show", lambda: pulls.of("m") is None)
