"""Where only the card is short, a model goes into memory and comes back; where memory is short, it goes for good."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from filelock import FileLock

from studio.core import Studio
from studio.memory.manager import Held, MemoryManager
from studio.plugin import GIB, Budget, Context, Event, ModelSpec, Params, Pipeline, Plan, Progress
from toolbox import Cli


class Place:
    """A card and memory of so many GiB; what pipelines hold there is counted as they take and give it."""

    def __init__(self, vram: int, ram: int) -> None:
        self.vram, self.ram = vram, ram
        self.log: list[str] = []
        self.on_card: dict[str, int] = {}
        self.in_memory: dict[str, int] = {}
        self.manager = MemoryManager(self.free)

    def free(self) -> Budget:
        return Budget(
            vram_bytes=max(0, (self.vram - sum(self.on_card.values())) * GIB),
            ram_bytes=max(0, (self.ram - sum(self.in_memory.values())) * GIB),
        )

    def use(self, name: str, vram: int, ram: int = 1, kind: type[Model] | None = None, size: int = 0) -> None:
        plan = Plan(model=name, peak_vram_bytes=vram * GIB, peak_ram_bytes=ram * GIB, settings={"size": size})
        with self.manager.acquire(plan, lambda: (kind or Parks)(ModelSpec(id=name, pipeline="x"), self)) as (model, _):
            list(model.generate(Params(), Context(Path())))

    @property
    def held(self) -> dict[str, str]:
        """Most recently used first."""
        return {held.model: "parked" if held.parked else "card" for held in self.manager.held()}


class Model(Pipeline[Params]):
    """Holds what its plan says, from ``load`` on; cannot be parked."""

    task = "text->text"
    Params = Params

    def __init__(self, spec: ModelSpec, place: Place) -> None:
        super().__init__(spec)
        self.place = place

    def load(self, plan: Plan) -> None:
        self.place.log.append(f"load {self.spec.id}")
        self.plan_made = plan
        self.bring()

    def bring(self) -> None:
        self.place.on_card[self.spec.id] = self.plan_made.peak_vram_bytes // GIB
        self.place.in_memory[self.spec.id] = self.plan_made.peak_ram_bytes // GIB
        assert self.place.vram >= sum(self.place.on_card.values()), "more on the card than there is room"
        assert self.place.ram >= sum(self.place.in_memory.values()), "more in memory than there is room"

    def generate(self, params: Params, ctx: Context) -> Iterator[Event]:
        self.place.log.append(f"run {self.spec.id}")
        self.bring()
        yield Progress(phase="x", done=1, total=1)

    def unload(self) -> None:
        self.place.log.append(f"unload {self.spec.id}")
        self.place.on_card.pop(self.spec.id, None)
        self.place.in_memory.pop(self.spec.id, None)


class Parks(Model):
    """Can."""

    def park(self) -> bool:
        self.place.log.append(f"park {self.spec.id}")
        self.place.on_card.pop(self.spec.id)
        return True


class Fails(Model):
    def park(self) -> bool:
        raise RuntimeError("the card is gone")


def test_parked_while_the_card_is_short_and_back_without_loading() -> None:
    place = Place(vram=10, ram=10)
    for name in "aba":
        place.use(name, vram=8)
    assert place.log == ["load a", "run a", "park a", "load b", "run b", "park b", "run a"]
    assert place.held == {"a": "card", "b": "parked"}
    assert (place.on_card, place.in_memory) == ({"a": 8}, {"a": 1, "b": 1})
    parked = place.manager.held()[1]
    assert (parked.vram_bytes, parked.ram_bytes) == (0, GIB)


def test_only_as_many_as_needed_the_least_recently_used_first() -> None:
    place = Place(vram=10, ram=10)
    for name in "abc":
        place.use(name, vram=3)
    place.use("a", vram=3)
    place.use("d", vram=5)
    assert place.held == {"d": "card", "a": "card", "c": "parked", "b": "parked"}
    place.use("b", vram=3)
    assert place.held == {"b": "card", "d": "card", "a": "parked", "c": "parked"}
    assert not any(line.startswith("unload") for line in place.log)


def test_memory_that_is_short_unloads() -> None:
    """The least recently used, parked or not, before anything is parked in its stead."""
    place = Place(vram=10, ram=10)
    place.use("a", vram=8, ram=4)
    place.use("b", vram=8, ram=4)
    assert place.held == {"b": "card", "a": "parked"}
    place.use("c", vram=8, ram=4)
    assert place.held == {"c": "card", "b": "parked"}
    place.use("d", vram=2, ram=9)
    assert place.held == {"d": "card"}
    assert place.log.count("unload a") == place.log.count("unload b") == place.log.count("unload c") == 1


def test_what_cannot_be_parked_is_unloaded(caplog: pytest.LogCaptureFixture) -> None:
    place = Place(vram=10, ram=10)
    place.use("a", vram=8, kind=Model)
    with caplog.at_level(logging.ERROR):
        place.use("b", vram=8, kind=Fails)
        assert not caplog.records
        place.use("c", vram=8)
    assert place.held == {"c": "card"}
    assert place.log == ["load a", "run a", "unload a", "load b", "run b", "unload b", "load c", "run c"]
    assert "b cannot be parked" in caplog.text


def test_other_settings_are_another_model_parked_or_not() -> None:
    place = Place(vram=10, ram=10)
    place.use("a", vram=8)
    place.use("b", vram=8)
    place.use("a", vram=8, size=1)
    assert place.log[-4:] == ["unload a", "park b", "load a", "run a"]
    assert place.held == {"a": "card", "b": "parked"}


def test_what_is_parked_still_counts_as_available() -> None:
    place = Place(vram=10, ram=10)
    before = place.manager.budget()
    place.use("a", vram=8, ram=3)
    place.use("b", vram=8, ram=3)
    assert place.manager.budget() == before
    place.manager.park()
    assert place.manager.budget() == before
    assert place.free().vram_bytes == 10 * GIB


def test_parking_gives_the_card_back() -> None:
    """What has nothing there is left alone; what cannot be parked goes; twice does nothing more."""
    place = Place(vram=10, ram=10)
    place.use("a", vram=3)
    place.use("b", vram=3, kind=Model)
    place.use("c", vram=0, kind=Model)
    for _ in range(2):
        place.manager.park()
        assert place.manager.held() == [
            Held(model="c", device="cpu", vram_bytes=0, ram_bytes=GIB),
            Held(model="a", device="cpu", vram_bytes=0, ram_bytes=GIB, parked=True),
        ]
    assert place.log.count("park a") == 1
    place.use("a", vram=3)
    assert place.held == {"a": "card", "c": "card"}


def test_what_is_parked_goes_after_a_time_and_with_the_rest() -> None:
    place = Place(vram=10, ram=10)
    place.use("a", vram=8)
    place.use("b", vram=8)
    place.manager.release_idle(3600)
    assert place.held == {"b": "card", "a": "parked"}
    place.manager.release_idle(-1)
    assert (place.held, place.in_memory) == ({}, {})
    place.use("a", vram=8)
    place.use("b", vram=8)
    place.manager.release()
    assert (place.held, place.in_memory) == ({}, {})


def test_what_is_idle_is_parked_first_and_unloaded_after_twice_the_time() -> None:
    place = Place(vram=10, ram=10)
    place.use("a", vram=3)
    place.use("b", vram=3, kind=Model)
    [a, b] = place.manager._entries
    a.used_at -= 150
    place.manager.release_idle(100)
    assert place.held == {"b": "card", "a": "parked"}
    b.used_at -= 150
    place.manager.release_idle(100)
    assert place.held == {"a": "parked"}, "what cannot be parked goes at once"
    a.used_at -= 100
    place.manager.release_idle(100)
    assert (place.held, place.on_card, place.in_memory) == ({}, {}, {})


def test_running_out_of_memory_gives_back_what_is_parked_too() -> None:
    place = Place(vram=10, ram=10)
    place.use("a", vram=8)
    plan = Plan(model="b", peak_vram_bytes=8 * GIB)
    with (
        pytest.raises(MemoryError),
        place.manager.acquire(plan, lambda: Parks(ModelSpec(id="b", pipeline="x"), place)),
    ):
        raise MemoryError
    assert (place.held, place.on_card, place.in_memory) == ({}, {}, {})


def test_the_contract_parks_nothing_by_itself() -> None:
    assert Model(ModelSpec(id="a", pipeline="x"), Place(1, 1)).park() is False


def test_status_says_what_is_parked(home: Path, cli: Cli) -> None:
    """Read from the note that a working process leaves, also one of a version that knew of no parking."""
    place = Place(vram=10, ram=10)
    place.use("big", vram=8, ram=3)
    place.use("next", vram=8)
    loaded = [held.model_dump() for held in place.manager.held()]
    loaded.append({"model": "old", "device": "cpu", "vram_bytes": 0, "ram_bytes": GIB})
    assert "Nobody is working" in cli("status", code=0).stdout
    with Studio(home) as studio, FileLock(studio.home.runner_lock):
        studio.queue.write_note("loaded", loaded)
        lines = cli("status", code=0).stdout.splitlines()
        told = json.loads(cli("status", "--json", code=0).stdout)["loaded"]
    assert [line.strip() for line in lines if line.startswith("  loaded")] == [
        "loaded   next: planned for 8.0 GiB on the card and 1.0 GiB of memory",
        "loaded   big: parked in memory, planned for 3.0 GiB of memory",
        "loaded   old: planned for 1.0 GiB of memory",
    ]
    assert told == loaded
