"""Who holds memory now. One pipeline at a time: another model, or other settings, means unload first."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from studio.pipeline import Budget, Pipeline, Plan


class MemoryManager:
    """Hands out loaded pipelines; the last one stays warm for the next request."""

    def __init__(self) -> None:
        self._loaded: Pipeline[Any] | None = None
        self._plan: Plan | None = None

    def widen(self, budget: Budget) -> Budget:
        """Add what the warm pipeline holds: it would be given back if the next plan asks for the memory."""
        if self._plan is None:
            return budget
        return budget.model_copy(
            update={
                "vram_bytes": budget.vram_bytes + self._plan.peak_vram_bytes,
                "ram_bytes": budget.ram_bytes + self._plan.peak_ram_bytes,
            }
        )

    @contextmanager
    def acquire(self, plan: Plan, make: Callable[[], Pipeline[Any]]) -> Iterator[tuple[Pipeline[Any], float]]:
        """The pipeline, loaded as ``plan`` says, and the seconds that loading took (0 if it was warm)."""
        started = time.perf_counter()
        if self._plan is None or (self._plan.model, self._plan.settings) != (plan.model, plan.settings):
            self.release()
            pipeline = make()
            try:
                pipeline.load(plan)
            except BaseException:
                pipeline.unload()
                raise
            self._loaded, self._plan = pipeline, plan
        if self._loaded is None:
            raise RuntimeError("a plan is kept without its pipeline")
        try:
            yield self._loaded, time.perf_counter() - started
        except MemoryError:
            self.release()
            raise

    def release(self) -> None:
        """Unload whatever is loaded."""
        loaded, self._loaded, self._plan = self._loaded, None, None
        if loaded is not None:
            loaded.unload()
            del loaded
            gc.collect()
