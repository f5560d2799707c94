"""Models share one budget: they stay while there is room, the least recently used goes first, nothing leaks."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from text_models import CHATML, random_model

from studio.memory.manager import MemoryManager
from studio.plugin import MIB, Budget, Context, ModelSpec, Plan, StudioError
from studio_pipelines.text_llm.family import TextLLM
from studio_pipelines.text_llm.params import TextParams

ROOM = Budget(ram_bytes=64 * 1024 * MIB, threads=1)


class House:
    """Real text models of tiny size under one manager; ``ram_bytes`` is what the house may hold."""

    def __init__(self, folder: Path, ram_bytes: int, models: int = 3) -> None:
        self.folder = folder
        self.ram_bytes = ram_bytes
        self.manager = MemoryManager(self.free)
        self.loads: list[str] = []
        self.families: dict[str, TextLLM] = {}
        for name in "abc"[:models]:
            # One kind with a template, whose process comes and goes with the model, and one without.
            path = random_model(folder / f"{name}.gguf", template=None if name == "b" else CHATML)
            self.families[name] = TextLLM(ModelSpec(id=name, pipeline="text-llm"), {"model": path})

    def free(self) -> Budget:
        used = sum(held.ram_bytes for held in self.manager.held())
        return Budget(ram_bytes=max(0, self.ram_bytes - used), threads=1)

    def make(self, name: str) -> Callable[[], TextLLM]:
        def load() -> TextLLM:
            self.loads.append(name)
            return TextLLM(self.families[name].spec, self.families[name].files)

        return load

    def plan(self, name: str, context: int = 256) -> Plan:
        return self.families[name].plan(TextParams(prompt="x", context=context), ROOM)

    def ask(self, name: str, context: int = 256) -> str:
        params = TextParams(prompt="Say something.", seed=1, max_tokens=8, context=context)
        with self.manager.acquire(self.plan(name, context), self.make(name)) as (pipeline, _):
            *_, made = pipeline.generate(params, Context(self.folder))
        return Path(made.path).read_bytes().decode(errors="replace")  # type: ignore[union-attr]

    def held(self) -> list[str]:
        return [held.model for held in self.manager.held()]


Build = Callable[..., House]


@pytest.fixture
def build(tmp_path: Path) -> Iterator[Build]:
    """Builds a house; what is still loaded at the end of the test is given back."""
    built: list[House] = []

    def make(ram_bytes: int, models: int = 3) -> House:
        built.append(House(tmp_path, ram_bytes, models))
        return built[-1]

    yield make
    for house in built:
        house.manager.release()


@pytest.fixture
def one_bytes(tmp_path: Path) -> int:
    """What one of the models needs by its plan."""
    return House(tmp_path, 0, models=1).plan("a").peak_ram_bytes


def test_models_stay_while_there_is_room_and_the_oldest_goes_first(build: Build, one_bytes: int) -> None:
    house = build(int(2.5 * one_bytes))
    for name in "ab":
        house.ask(name)
    assert (house.held(), house.loads) == (["b", "a"], ["a", "b"])
    house.ask("a")
    assert (house.held(), house.loads) == (["a", "b"], ["a", "b"]), "warm: not loaded again"
    house.ask("c")
    assert house.held() == ["c", "a"]
    house.manager.release()
    assert house.held() == []


def test_other_settings_replace_the_model(build: Build, one_bytes: int) -> None:
    house = build(10 * one_bytes)
    house.ask("a", context=256)
    house.ask("a", context=512)
    assert (house.held(), house.loads) == (["a"], ["a", "a"])


def test_what_is_loaded_counts_as_available_for_the_next_plan(build: Build, one_bytes: int) -> None:
    house = build(2 * one_bytes)
    before = house.manager.budget()
    house.ask("a")
    assert house.manager.budget() == before


def test_idle_models_are_given_back(build: Build, one_bytes: int) -> None:
    house = build(10 * one_bytes)
    house.ask("a")
    house.manager.release_idle(3600)
    assert house.held() == ["a"]
    house.manager.release_idle(0)
    assert house.held() == []


def test_a_model_that_cannot_be_loaded_leaves_nothing(build: Build, one_bytes: int) -> None:
    house = build(10 * one_bytes)
    plan = house.plan("a")
    house.families["a"].files["model"].write_bytes(b"GGUF")
    with pytest.raises(StudioError), house.manager.acquire(plan, house.make("a")):
        pass
    assert house.held() == []
    assert house.ask("b")


def test_running_out_of_memory_gives_everything_back(build: Build, one_bytes: int) -> None:
    house = build(10 * one_bytes)
    house.ask("b")
    with pytest.raises(MemoryError), house.manager.acquire(house.plan("a"), house.make("a")):
        raise MemoryError
    assert house.held() == []
    assert house.ask("a")


@pytest.fixture
def quick_gc() -> Iterator[None]:
    """What other tests left in this process need not be looked through at each unloading."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.mark.usefixtures("quick_gc")
def test_200_switches_leak_nothing(build: Build, one_bytes: int) -> None:
    """Room for one: each request unloads the other model. After a warm-up the process no longer grows."""
    house = build(int(1.5 * one_bytes), models=2)
    process = psutil.Process()
    said = {name: house.ask(name) for name in "ab"}
    for _ in range(20):
        assert {name: house.ask(name) for name in "ab"} == said
    gc.collect()
    before, files = process.memory_info().rss, process.num_fds()
    for _ in range(100):
        assert {name: house.ask(name) for name in "ab"} == said
    gc.collect()
    grown = process.memory_info().rss - before
    assert len(house.loads) == 2 + 40 + 200
    assert grown < 8 * MIB, f"{grown / MIB:.1f} MiB more after 200 switches"
    assert process.num_fds() <= files


def test_what_the_process_takes_counts_as_available_as_it_is_measured() -> None:
    """Plans count what a model takes while it works, which is more than it gives back."""
    free = Budget(vram_bytes=100, ram_bytes=1000, threads=1)
    manager = MemoryManager(lambda: free, lambda: (7, 11))
    assert manager.budget() == free.model_copy(update={"vram_bytes": 107, "ram_bytes": 1011})
    assert MemoryManager(lambda: free, lambda: (None, None)).budget() == free


OWN = """
import mmap, sys
from studio.memory.watching import own_memory
before = own_memory()[1] or 0
with open(sys.argv[1], "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
    assert view[:: 4 * 1024].count(b"x") == 16 * 1024  # every page was touched
    mapped = (own_memory()[1] or 0) - before
held = bytearray(b"y") * (64 * 1024**2)
print(mapped, (own_memory()[1] or 0) - before)
"""


def test_own_memory_counts_what_is_held_and_not_what_files_show(tmp_path: Path) -> None:
    """In a process that holds nothing else: what others left in this one may go in any moment."""
    path = tmp_path / "large"
    path.write_bytes(b"x" * 64 * MIB)
    done = subprocess.run([sys.executable, "-c", OWN, str(path)], capture_output=True, text=True, check=True)
    mapped, grown = map(int, done.stdout.split())
    assert mapped < 8 * MIB
    assert 60 * MIB < grown < 80 * MIB
