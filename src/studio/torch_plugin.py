"""What a torch family uses of the engine, inside ``load`` and ``generate``. Imports torch: never at a family's top.

``Networks`` and ``Part`` bring weights to the device as a plan says, ``Loaded`` is a model of them; ``part_of`` and
``read_components`` read a folder in diffusers' layout, ``pipeline_over`` makes a pipeline of it and ``DiffusersRun``
runs a request over that; ``live`` turns a blocking call that reports by callbacks into events; ``Previewer`` shows what
is unfinished.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

from studio.diffusers_layout import component_class, part_of, pipeline_over, read_components, read_index
from studio.diffusers_run import LATENTS, DiffusersRun
from studio.errors import Cancelled
from studio.events import Event
from studio.latent_preview import Previewer
from studio.loaded import Loaded, computing_dtype, planned_dtype, planned_tiles
from studio.memory.networks import Networks, Part, is_out_of_memory
from studio.memory.slab_files import read_headers

__all__ = [
    "LATENTS", "DiffusersRun", "Loaded", "Networks", "Part", "Previewer", "component_class", "computing_dtype",
    "is_out_of_memory", "live", "part_of", "pipeline_over", "planned_dtype", "planned_tiles", "read_components",
    "read_headers", "read_index",
]  # fmt: skip


def live(work: Callable[[Callable[[Event], None]], None]) -> Iterator[Event]:
    """The events that ``work(emit)`` emits, while it runs in a thread of its own; its error is raised here.

    Where nobody listens any more (the iterator is closed), the next ``emit`` raises ``Cancelled`` in ``work``.
    """
    events: queue.SimpleQueue[Event | None] = queue.SimpleQueue()
    stopped, errors = threading.Event(), list[BaseException]()

    def emit(event: Event) -> None:
        if stopped.is_set():
            raise Cancelled
        events.put(event)

    def run() -> None:
        try:
            work(emit)
        except BaseException as error:  # noqa: BLE001 - raised again in the caller's thread
            errors.append(error)
        finally:
            events.put(None)

    thread = threading.Thread(target=run, name="torch", daemon=True)
    thread.start()
    try:
        while (event := events.get()) is not None:
            yield event
    finally:
        stopped.set()
        thread.join()
    if errors:
        raise errors[0]
