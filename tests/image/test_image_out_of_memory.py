"""A whole job of a tiny model through the engine, with torch's out-of-memory error at the n-th allocation.

Wherever it comes, in loading, in any network, in what the pipeline does between them or in saving, the job ends with
its picture, and the next one is as if nothing had been.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import image_models
import pytest
import torch
import yaml
from image_harness import request_of
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from studio.events import Artefact, Done, Failed, Note
from studio.jobs.execute import Engine
from studio.jobs.model import Task
from studio.store.home import Home
from studio_pipelines.image_diffusion.run import Run

TinyImage = Callable[[str], Path]
SAMPLES = 10
"""Of some five thousand allocations; the first five and one of the last besides."""


class Exhausted:
    """Raises at the ``nth`` operation that makes new storage, in whichever thread; counts them all."""

    def __init__(self, nth: int, times: int = 1) -> None:
        self.count, self.nth, self.times = 0, nth, times
        self.lock = threading.Lock()

    def mode(self) -> Any:
        outer = self

        class Mode(TorchDispatchMode):
            def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
                result = func(*args, **(kwargs or {}))
                if isinstance(result, Tensor) and result._base is None:
                    with outer.lock:
                        outer.count += 1
                        hit = outer.nth <= outer.count < outer.nth + outer.times
                    if hit:
                        raise torch.OutOfMemoryError("CUDA out of memory. (raised by the test)")
                return result

        return Mode()


class House:
    """An engine in this process, and what a job in it makes."""

    def __init__(self, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.engine = Engine(Home(home))
        self.fault = Exhausted(0)
        self.number = 0
        result = Run.result

        def in_its_thread(run: Run) -> Any:
            with self.fault.mode():
                return result(run)

        monkeypatch.setattr(Run, "result", in_its_thread)

    def job(self, fault: Exhausted) -> tuple[str, list[str]]:
        """The picture's sha256, "" for a job that failed; and what was said."""
        self.fault, self.number, sha, said = fault, self.number + 1, "", list[str]()
        params = {**request_of("sd"), "steps": 1}
        task = Task(job_id=f"job-{self.number}", model="tiny-sd", params=params, attempt=1)
        with fault.mode():
            for event in self.engine.run(task, lambda: False):
                if isinstance(event, Artefact):
                    sha = hashlib.sha256(Path(event.path).read_bytes()).hexdigest()
                if isinstance(event, Note):
                    said.append(event.text)
        assert isinstance(event, Done | Failed)
        assert isinstance(event, Done) == bool(sha)
        return sha, said


@pytest.fixture
def house(tiny_image: TinyImage, home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[House]:
    (home / "models.yaml").write_text(yaml.safe_dump([image_models.catalogue_entry("sd", tiny_image("sd"))]))
    made = House(home, monkeypatch)
    yield made
    made.engine.memory.release()


def test_at_any_allocation_the_job_ends_with_its_picture(house: House) -> None:
    wanted, _ = house.job(Exhausted(0))  # the very first one also fits the preview's colours
    house.engine.memory.release()
    whole = Exhausted(0)
    assert house.job(whole) == (wanted, [])  # loading is among what is counted
    assert whole.count > 500
    rest = range(6, whole.count, whole.count // SAMPLES)
    # A job's count varies a little with what the preview knows already: the last one may find no fault.
    steps = sorted({*range(1, 6), *rest, whole.count})
    tiled = 0
    for nth in steps:
        house.engine.memory.release()
        fault = Exhausted(nth)
        made, said = house.job(fault)
        assert fault.count >= nth or nth == steps[-1], "the fault was not reached"
        assert made, f"at allocation {nth}"
        tiled += any("tiles" in sentence for sentence in said)
        assert made == wanted or any("tiles" in sentence for sentence in said), f"at allocation {nth}: {said}"
    assert tiled, "none of them was in the decoder"
    assert house.job(Exhausted(0)) == (wanted, [])


def test_memory_that_never_suffices_fails_the_job_and_not_the_next(house: House) -> None:
    wanted, _ = house.job(Exhausted(0))
    for nth in (1, 200):
        house.engine.memory.release()
        made, said = house.job(Exhausted(nth, times=10**9))
        assert (made, len(said) > 0) == ("", True)
        assert house.job(Exhausted(0)) == (wanted, [])
