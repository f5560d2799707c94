"""Who holds memory now. Pipelines stay loaded while there is room; the least recently used one goes first."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio.pipeline import Budget, Pipeline, Plan


class Held(BaseModel):
    """One loaded pipeline, as ``studio status`` shows it: where it is and what its plan counted for it."""

    model_config = ConfigDict(frozen=True)

    model: str
    device: str
    vram_bytes: int
    ram_bytes: int


class _Entry:
    def __init__(self, pipeline: Pipeline[Any], plan: Plan) -> None:
        self.pipeline = pipeline
        self.plan = plan
        self.used_at = time.monotonic()


class MemoryManager:
    """Hands out loaded pipelines of all families under one budget. ``free`` measures what is free now.

    One pipeline works at a time; the others wait, loaded, for as long as the plan of the next one leaves room.
    """

    def __init__(self, free: Callable[[], Budget]) -> None:
        self._free = free
        self._entries: list[_Entry] = []  # the least recently used first

    def held(self) -> list[Held]:
        """What is loaded, the most recently used first."""
        return [
            Held(
                model=entry.plan.model,
                device=entry.plan.device,
                vram_bytes=entry.plan.peak_vram_bytes,
                ram_bytes=entry.plan.peak_ram_bytes,
            )
            for entry in reversed(self._entries)
        ]

    def budget(self) -> Budget:
        """What a plan may use: free now, and all that is loaded, because it would be given back for it."""
        free = self._free()
        return free.model_copy(
            update={
                "vram_bytes": free.vram_bytes + sum(entry.plan.peak_vram_bytes for entry in self._entries),
                "ram_bytes": free.ram_bytes + sum(entry.plan.peak_ram_bytes for entry in self._entries),
            }
        )

    @contextmanager
    def acquire(self, plan: Plan, make: Callable[[], Pipeline[Any]]) -> Iterator[tuple[Pipeline[Any], float]]:
        """The pipeline, loaded as ``plan`` says, and the seconds that loading took (0 if it was warm)."""
        started = time.perf_counter()
        entry = next((one for one in self._entries if _same(one.plan, plan)), None)
        if entry is None:
            self._make_room(plan)
            entry = self._load(plan, make)
        else:
            self._entries.remove(entry)
        self._entries.append(entry)
        try:
            yield entry.pipeline, time.perf_counter() - started
        except MemoryError:
            self.release()
            raise
        finally:
            entry.used_at = time.monotonic()

    def _load(self, plan: Plan, make: Callable[[], Pipeline[Any]]) -> _Entry:
        pipeline = make()
        try:
            pipeline.load(plan)
        except BaseException:
            pipeline.unload()
            raise
        return _Entry(pipeline, plan)

    def _make_room(self, plan: Plan) -> None:
        """The same model with other settings goes first, then the least recently used, until the plan fits."""
        for entry in [one for one in self._entries if one.plan.model == plan.model]:
            self._drop(entry)
        while self._entries:
            free = self._free()
            if plan.peak_vram_bytes <= free.vram_bytes and plan.peak_ram_bytes <= free.ram_bytes:
                return
            self._drop(self._entries[0])

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        entry.pipeline.unload()
        gc.collect()

    def release_idle(self, seconds: float) -> None:
        """Unload what was not used for so long."""
        for entry in [one for one in self._entries if time.monotonic() - one.used_at > seconds]:
            self._drop(entry)

    def release(self) -> None:
        """Unload everything."""
        for entry in list(self._entries):
            self._drop(entry)


def _same(one: Plan, other: Plan) -> bool:
    return (one.model, one.device, one.settings) == (other.model, other.device, other.settings)
