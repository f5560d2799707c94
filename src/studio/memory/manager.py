"""Who holds memory now. Pipelines stay loaded while there is room; the least recently used one goes first.

Where only the card is short, it goes no farther than into memory: it is parked, and comes back without its files.
"""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio.memory.heap import trim_heap
from studio.pipeline import Pipeline
from studio.plans import Budget, Plan

log = logging.getLogger(__name__)


class Held(BaseModel):
    """One loaded pipeline, as ``studio status`` shows it: where it is and what its plan counted for it there.

    A parked one holds nothing on the card.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    device: str
    vram_bytes: int
    ram_bytes: int
    parked: bool = False


class _Entry:
    def __init__(self, pipeline: Pipeline[Any], plan: Plan) -> None:
        self.pipeline = pipeline
        self.plan = plan
        self.parked = False
        self.used_at = time.monotonic()

    @property
    def vram_bytes(self) -> int:
        return 0 if self.parked else self.plan.peak_vram_bytes


class MemoryManager:
    """Hands out loaded pipelines of all families under one budget. ``free`` measures what is free now; ``own``, what
    this process takes of the card and of memory, ``None`` where that cannot be told (then plans' figures stand in,
    which count what a model takes while it works, so more than it gives back).

    One pipeline works at a time; the others wait, loaded, for as long as the plan of the next one leaves room.
    """

    def __init__(
        self, free: Callable[[], Budget], own: Callable[[], tuple[int | None, int | None]] = lambda: (None, None)
    ) -> None:
        self._free = free
        self._own = own
        self._entries: list[_Entry] = []  # the least recently used first

    def held(self) -> list[Held]:
        """What is loaded, the most recently used first."""
        return [
            Held(
                model=entry.plan.model,
                device=entry.plan.device,
                vram_bytes=entry.vram_bytes,
                ram_bytes=entry.plan.peak_ram_bytes,
                parked=entry.parked,
            )
            for entry in reversed(self._entries)
        ]

    def budget(self) -> Budget:
        """What a plan may use: free now, and what this process takes, because it would be given back for it or is
        part of what every plan counts (the libraries, CUDA's context)."""
        free = self._free()
        vram, ram = self._own()
        if vram is None:
            vram = sum(entry.vram_bytes for entry in self._entries)
        if ram is None:
            ram = sum(entry.plan.peak_ram_bytes for entry in self._entries)
        return free.model_copy(update={"vram_bytes": free.vram_bytes + vram, "ram_bytes": free.ram_bytes + ram})

    @contextmanager
    def acquire(self, plan: Plan, make: Callable[[], Pipeline[Any]]) -> Iterator[tuple[Pipeline[Any], float]]:
        """The pipeline, loaded as ``plan`` says, and the seconds that loading took (0 if it was warm)."""
        started = time.perf_counter()
        entry = next((one for one in self._entries if _same(one.plan, plan)), None) or self._adapted(plan)
        if entry is None:
            self._make_room(plan)
            entry = self._load(plan, make)
        else:
            self._entries.remove(entry)
            if entry.parked:  # it has its memory already and brings itself back to the card
                try:
                    self._clear(plan.peak_vram_bytes, 0)
                except BaseException:
                    self._entries.insert(0, entry)
                    raise
                entry.parked = False
        self._entries.append(entry)
        try:
            yield entry.pipeline, time.perf_counter() - started
        except MemoryError:
            self.release()
            raise
        finally:
            entry.used_at = time.monotonic()

    def _adapted(self, plan: Plan) -> _Entry | None:
        """The same model under another plan (another size, say), if it can follow without being loaded again."""
        for entry in self._entries:
            if (entry.plan.model, entry.plan.device) == (plan.model, plan.device) and entry.pipeline.adapt(plan):
                held, entry.plan = entry.plan, plan
                self._entries.remove(entry)
                self._clear(0 if entry.parked else plan.peak_vram_bytes, plan.peak_ram_bytes - held.peak_ram_bytes)
                self._entries.append(entry)
                return entry
        return None

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
        self._clear(plan.peak_vram_bytes, plan.peak_ram_bytes)

    def _clear(self, vram_bytes: int, ram_bytes: int) -> None:
        """Have that much free: unload the least recently used while memory is short, then park them while the card is.

        What cannot be parked is unloaded. Ends when there is room or nothing left to give.
        """
        while self._entries:
            free = self._free()
            if ram_bytes > free.ram_bytes:
                self._drop(self._entries[0])
            elif vram_bytes > free.vram_bytes:
                on_card = [entry for entry in self._entries if not entry.parked]
                if not on_card:
                    self._drop(self._entries[0])
                else:
                    self._park(on_card[0])
            else:
                return

    def _park(self, entry: _Entry) -> None:
        """Take a pipeline off the card, keeping it in memory if it can be kept there."""
        if entry.parked:
            return
        try:
            entry.parked = bool(entry.plan.peak_vram_bytes) and entry.pipeline.park()
        except Exception:
            log.exception("%s cannot be parked and is unloaded", entry.plan.model)
        if not entry.parked:
            self._drop(entry)
        gc.collect()

    def _drop(self, entry: _Entry) -> None:
        self._entries.remove(entry)
        entry.pipeline.unload()
        gc.collect()
        trim_heap()

    def release_idle(self, seconds: float) -> None:
        """Take off the card what was not used for so long, and unload what was not for twice as long, or what has
        nothing on the card that memory could keep."""
        for entry in list(self._entries):
            idle = time.monotonic() - entry.used_at
            if idle > 2 * seconds or (idle > seconds and not entry.plan.peak_vram_bytes):
                self._drop(entry)
            elif idle > seconds:
                self._park(entry)

    def park(self) -> None:
        """Give the card back: park what can be kept in memory, unload what else is on the card."""
        for entry in [one for one in self._entries if one.plan.peak_vram_bytes]:
            self._park(entry)

    def release(self) -> None:
        """Unload everything."""
        for entry in list(self._entries):
            self._drop(entry)


def _same(one: Plan, other: Plan) -> bool:
    return (one.model, one.device, one.settings) == (other.model, other.device, other.settings)
