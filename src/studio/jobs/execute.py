"""One attempt of one job: catalogue, registry, plan, memory, pipeline, recipe. The same code in every executor."""

from __future__ import annotations

import errno
import logging
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from studio import hardware
from studio.catalogue import Catalogue
from studio.download import ModelStore
from studio.errors import Cancelled, StudioError
from studio.events import Artefact, Done, Event, Failed, Progress
from studio.forms import validate
from studio.jobs.model import Task
from studio.memory.activations import resolve
from studio.memory.manager import MemoryManager
from studio.memory.plan_machine import budget_of
from studio.memory.plan_request import make_plan
from studio.pipeline import Context, Footprint, Pipeline, Plan
from studio.registry import Registry
from studio.spec import ModelSpec
from studio.store.home import Home
from studio.store.inputs import hashes_in
from studio.units import format_bytes
from studio.version import __version__

log = logging.getLogger(__name__)


class Engine:
    """What an executing process keeps between jobs: the catalogue and the loaded model. Holds no database."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.registry = Registry()
        self.catalogue = Catalogue(self.registry, home.root)
        self.models = ModelStore(home.models, offline=True)
        self.memory = MemoryManager(lambda: budget_of(hardware.probe(home.root)))

    def _resolve(self, footprint: Footprint) -> Footprint:
        return resolve(footprint, self.home.activations)

    def run(self, task: Task, cancelled: Callable[[], bool]) -> Iterator[Event]:
        """All events of one attempt; the last is ``Done`` or ``Failed``, whatever happens in the family."""
        try:
            yield from self._attempt(task, cancelled)
        except Cancelled:
            yield Failed(error="Cancelled.", state="cancelled")
        except StudioError as error:
            yield Failed(error=error.what, hint=error.hint)
        except MemoryError:
            self.memory.release()
            log.exception("job %s: out of memory", task.job_id)
            yield Failed(error=f"{task.model} ran out of memory.", hint="Try smaller values, or a smaller model.")
        except (Exception, SystemExit) as error:
            self.memory.release()
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                yield self._no_space(task)
                return
            log.exception("job %s: a bug in %s", task.job_id, task.model)
            hint = f"This is a bug; its traceback is in {self.home.logs}."
            yield Failed(error=f"{task.model} failed: {type(error).__name__}: {_one_line(error)}", hint=hint)

    def _attempt(self, task: Task, cancelled: Callable[[], bool]) -> Iterator[Event]:
        started, energy_before = time.perf_counter(), hardware.card_energy_j()
        spec = self.catalogue.get(task.model)
        family = self.registry.get(spec.pipeline)
        params = validate(family.Params, task.params, model=spec.id)
        files = self.models.require(spec)
        budget = self.memory.budget()
        plan = make_plan(family(spec, files), params, budget, resolve=self._resolve)
        ctx = Context(self.home.workdir(task.job_id), cancelled=cancelled, attempt=task.attempt)
        ctx.check()
        yield Progress(phase="load", done=0, total=1)
        with self.memory.acquire(plan, lambda: family(spec, files)) as (pipeline, load_s):
            yield Progress(phase="load", done=1, total=1)
            begun = time.perf_counter()
            for event in pipeline.generate(params, ctx):
                if isinstance(event, Artefact):
                    event = event.model_copy(update={"recipe": self._recipe(spec, task, plan, family)})
                yield event
                ctx.check()
            generate_s = time.perf_counter() - begun
        total_s = time.perf_counter() - started
        energy_after = hardware.card_energy_j()
        used = energy_after - energy_before if energy_before is not None and energy_after is not None else None
        yield Done(seconds={"load": load_s, "generate": generate_s, "total": total_s}, energy_j=used)

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


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]
