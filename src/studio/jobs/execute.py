"""One attempt of one job: catalogue, registry, plan, memory, pipeline, recipe. The same code in every executor."""

from __future__ import annotations

import errno
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from studio import hardware
from studio.catalogue import Catalogue
from studio.download import ModelStore
from studio.errors import Cancelled, StudioError
from studio.events import Artefact, Done, Event, Failed, Note, Progress
from studio.forms import validate
from studio.jobs.model import Task
from studio.memory.activations import resolve
from studio.memory.calibration import keep_rates, read_rates, record
from studio.memory.heap import steady_heap
from studio.memory.manager import MemoryManager
from studio.memory.measuring import largest_file, measure_rates
from studio.memory.plan_machine import budget_of, machines_of, rated
from studio.memory.plan_measured import Drawn
from studio.memory.plan_request import known_of, make_plan
from studio.memory.watching import Clock, Peaks, own_memory, run_of
from studio.pipeline import Budget, Context, Footprint, Params, Pipeline, Plan
from studio.registry import Registry
from studio.spec import ModelSpec
from studio.store.home import Home
from studio.store.inputs import hashes_in
from studio.units import format_bytes
from studio.version import __version__

log = logging.getLogger(__name__)


class Engine:
    """What an executing process keeps between jobs: the catalogue and the loaded model. Holds no database."""

    def __init__(self, home: Home, *, alone: bool = False) -> None:
        """``alone``: nothing else is in this process, so that its size tells what a job takes."""
        self.home = home
        self._alone = alone
        self._sized = alone
        if alone:
            steady_heap()
        self._had: set[str] = set()
        self._timed: set[str] = set()
        self.registry = Registry()
        self.catalogue = Catalogue(self.registry, home.root)
        self.models = ModelStore(home.models, offline=True)
        self.memory = MemoryManager(self._budget, own_memory)

    def _budget(self) -> Budget:
        self._machine = hardware.probe(self.home.root)
        self._known = known_of(self.home.calibration, self._machine)
        return budget_of(self._machine, measured=self._known.runs.rates)

    def _resolve(self, footprint: Footprint) -> Footprint:
        return resolve(footprint, self.home.activations, here=True)

    def run(self, task: Task, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """All events of one attempt; the last is ``Done`` or ``Failed``, whatever happens in the family."""
        try:
            yield from self._attempts(task, cancelled)
        except Cancelled:
            yield Failed(error="Cancelled.", state="cancelled")
        except StudioError as error:
            yield Failed(error=error.what, hint=error.hint)
        except (Exception, SystemExit) as error:
            self.memory.release()
            if out_of_memory(error):
                log.exception("job %s: out of memory", task.job_id)
                yield Failed(error=f"{task.model} ran out of memory.", hint="Try smaller values, or a smaller model.")
                return
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                yield self._no_space(task)
                return
            log.exception("job %s: a bug in %s", task.job_id, task.model)
            hint = f"This is a bug; its traceback is in {self.home.logs}."
            yield Failed(error=f"{task.model} failed: {type(error).__name__}: {_one_line(error)}", hint=hint)

    def _attempts(self, task: Task, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """One attempt, and a second one with everything else unloaded if memory ran out before anything was made."""
        made = False
        try:
            for event in self._attempt(task, cancelled):
                made = made or isinstance(event, Artefact)
                yield event
            return
        except Exception as error:
            if made or not out_of_memory(error):
                raise
            log.warning("job %s: out of memory, once more: %s", task.job_id, _one_line(error))
        self.memory.release()
        yield Note(text=f"{task.model} ran out of memory; everything was unloaded and it is tried once more.")
        yield from self._attempt(task, cancelled)

    def _made(self, family: type[Pipeline[Any]], spec: ModelSpec, files: dict[str, Path]) -> Pipeline[Any]:
        pipeline = family(spec, files)
        pipeline.adapters, pipeline.cache = self.home.adapters, self.home.root / "cache"
        pipeline.beside = lambda model: self.models.installed(self.catalogue.get(model))
        return pipeline

    def _attempt(self, task: Task, cancelled: Callable[[], bool]) -> Iterator[Event]:
        started, energy_before = time.perf_counter(), hardware.card_energy_j()
        spec = self.catalogue.get(task.model)
        family = self.registry.get(spec.pipeline)
        params = validate(family.Params, task.params, model=spec.id)
        files = self.catalogue.files(spec, self.models.require) or {}
        drawn, budget = self._draw(task, self._made(family, spec, files), params)
        plan, cold = drawn.plan, list[bool]()

        def make() -> Pipeline[Any]:
            cold.append(True)
            return self._made(family, spec, files)

        ctx = Context(self.home.workdir(task.job_id), cancelled=cancelled, attempt=task.attempt)
        ctx.check()
        if drawn.warning:
            yield Note(text=drawn.warning)
        self._had.add(f"{plan.model} {plan.settings}")
        yield Progress(phase="load", done=0, total=1)
        with Peaks(card=plan.device == "cuda") as peaks, self.memory.acquire(plan, make) as (pipeline, load_s):
            yield Progress(phase="load", done=1, total=1)
            begun, clock = time.perf_counter(), Clock()
            for event in pipeline.generate(params, ctx):
                clock.take(event)
                if isinstance(event, Artefact):
                    recipe = {**self._recipe(spec, task, plan, family), **event.recipe}
                    event = event.model_copy(update={"recipe": recipe})
                yield event
                ctx.check()
            generate_s = time.perf_counter() - begun
            clock.finish()
        self._remember(drawn, budget, clock, peaks, generate_s, load_s if cold else None)
        total_s = time.perf_counter() - started
        energy_after = hardware.card_energy_j()
        used = energy_after - energy_before if energy_before is not None and energy_after is not None else None
        yield Done(seconds={"load": load_s, "generate": generate_s, "total": total_s}, energy_j=used)

    def _draw(self, task: Task, pipeline: Pipeline[Any], params: Params) -> tuple[Drawn, Budget]:
        """The plan of a job. Before the first one of networks that the engine plans, this machine is measured."""
        while True:
            # A card that is full of what this process would give back is a card; and this finds what is known now.
            budget = rated(self.memory.budget(), self._machine, self._known.runs.rates)
            drawn = make_plan(
                pipeline, params, budget, resolve=self._resolve, known=self._known, anyway=task.run_anyway
            )
            if "networks" not in drawn.raw.settings or not self._measure(drawn.raw.device, self._machine):
                return drawn, budget

    def _measure(self, device: str, machine: hardware.Hardware) -> bool:
        """Measure the rates of a device, once; whether there are new ones."""
        if device in self._timed:
            return False
        self._timed.add(device)
        kept = read_rates(self.home.calibration, machines_of(machine)[device])
        if kept is not None and (kept.disk or largest_file(self.home.models) is None):
            return False
        found = measure_rates(device, machine, self.home.models)
        self._sized = False
        if found is not None:
            keep_rates(self.home.calibration, found)
        return found is not None

    def _remember(
        self, drawn: Drawn, budget: Budget, clock: Clock, peaks: Peaks, generate_s: float, load_s: float | None
    ) -> None:
        """Keep what a job took, for the next forecast. One that was short of memory, or ran otherwise than planned,
        tells nothing; the process's size tells nothing once it has held another model, and its memory nothing once it
        has measured the machine, since those kernels stay."""
        vram, ram = peaks.vram, peaks.ram
        enough = (vram or 0) <= budget.vram_bytes and ram is not None and ram <= budget.ram_bytes
        if clock.noted or (drawn.warning and not enough):
            return
        if not self._alone or len(self._had) > 1:
            vram = ram = None
        ram = ram if self._sized else None
        run = run_of(drawn, clock, generate_s=generate_s, load_s=load_s, vram=vram, ram=ram)
        if run.stages or run.vram or run.ram:
            record(self.home.calibration, drawn.subject, run)

    def _no_space(self, task: Task) -> Failed:
        folder = self.home.workdir(task.job_id)
        written = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        free = format_bytes(shutil.disk_usage(folder).free)
        error = f"No space for the output of {task.model}: {format_bytes(written)} were written, {free} are free."
        return Failed(error=error, hint=f"Free some space on the disk of {self.home.root}, then run it again.")

    def _recipe(self, spec: ModelSpec, task: Task, plan: Plan, family: type[Pipeline[Any]]) -> dict[str, Any]:
        """All that is needed to make it again, and to see why it may differ."""
        return {
            "studio": __version__,
            "model": task.model,
            "revision": self.models.revision(spec),
            "params": task.params,
            "seed": task.params.get("seed"),
            "plan": {"device": plan.device, "settings": plan.settings},
            "versions": {"python": platform.python_version(), **_versions(family.libraries)},
            "inputs": hashes_in(task.params, self.home.inputs),
        }


def _versions(distributions: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in distributions:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether memory could not be had; torch's own error is known by its name, because torch may not be loaded."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"})


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
