"""``Studio``: everything put together, and the Python API. The faces are thin layers over this.

from studio import Studio

with Studio() as studio:
    [artefact] = studio.run("starter-text", prompt="Name three colours.", seed=7)
    print(artefact.text)
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Any, Literal

from studio import hardware
from studio.catalogue import Catalogue
from studio.download import ModelStore
from studio.errors import BadRequest, DoesNotFit
from studio.events import Artefact, Event, is_last
from studio.forms import FieldSpec, field_specs, validate
from studio.handles import Job, Jobs, Models
from studio.jobs.executors import Executor, InlineExecutor, WorkerExecutor
from studio.jobs.model import JobRow, Request, request_sha256
from studio.jobs.queue import JobQueue
from studio.jobs.references import attribute_of, substitute
from studio.jobs.runner import Runner
from studio.made import Made
from studio.memory.activations import Run, resolve
from studio.memory.plan_machine import budget_of
from studio.memory.plan_request import forecast, known_of
from studio.pipeline import MAX_SEED, Footprint, Params, Pipeline, Plan, Prefer
from studio.registry import Registry
from studio.spec import ModelSpec
from studio.store.artefacts import ArtefactStore
from studio.store.database import Database
from studio.store.home import Home
from studio.store.inputs import InputKeeper

log = logging.getLogger(__name__)

ExecutorName = Literal["worker", "inline"]
EXECUTORS: dict[str, type[WorkerExecutor] | type[InlineExecutor]] = {
    "worker": WorkerExecutor,
    "inline": InlineExecutor,
}
MAX_QUEUED = 1000
_POLL_S = 0.05  # how soon what another process wrote is seen


@dataclass(frozen=True)
class Checked:
    """A request that may be queued: its parameters are valid and its input files were looked at.

    ``params`` name the files by where they will be kept, ``given`` by where they are now.
    """

    spec: ModelSpec
    params: Params
    given: Params
    inputs: InputKeeper


class Studio:
    """One home, its queue, and the process that works it off. A context manager; closing it loses no job.

    ``executor``: ``"worker"`` computes in one spawned process that can be killed; ``"inline"`` in this process.
    ``offline``: never ask the network, not even when ``models.pull`` is called.
    """

    def __init__(
        self, home: Path | str | None = None, executor: ExecutorName = "worker", *, offline: bool = False
    ) -> None:
        if executor not in EXECUTORS:
            raise BadRequest(f"There is no executor {executor!r}.", f"Choose one of: {', '.join(EXECUTORS)}.")
        self.home = Home(home)
        self.registry = Registry()
        self.catalogue = Catalogue(self.registry, self.home.root)
        self.weights = ModelStore(self.home.models, offline=offline)
        self.models = Models(self.catalogue, self.weights)
        self.database = Database(self.home.database)
        self.artefacts = ArtefactStore(self.home, self.database)
        self.queue = JobQueue(self.database, self.artefacts)
        self.jobs = Jobs(self)
        self.made = Made(self.home, self.database)
        self._log = _log_to(self.home.logs)
        self._runner = Runner(
            self.home, self.database, self.queue, self.artefacts, lambda: self._make_executor(executor), self._prepare
        )

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop working here. A job that was running goes back to the queue; the next ``Studio`` goes on."""
        self._runner.stop()
        self.database.close()
        logging.getLogger("studio").removeHandler(self._log)
        self._log.close()

    # -- asking ------------------------------------------------------------------------------------------------

    def run(
        self,
        model: str,
        /,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        run_anyway: bool = False,
        **params: Any,
    ) -> list[Artefact]:
        """Do it and return what was made. ``BadRequest`` before it is queued, ``JobFailed`` after.

        ``run_anyway``: where no plan fits, try the nearest one that would, with a warning (``Note``).
        """
        keep: dict[str, Any] = {"priority": priority, "idempotency_key": idempotency_key, "run_anyway": run_anyway}
        return self.submit(model, **keep, **params).result()

    def stream(
        self,
        model: str,
        /,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        run_anyway: bool = False,
        **params: Any,
    ) -> Iterator[Event]:
        """The same as events while it happens. The job is queued at once and outlives the iterator."""
        keep: dict[str, Any] = {"priority": priority, "idempotency_key": idempotency_key, "run_anyway": run_anyway}
        return self.submit(model, **keep, **params).events()

    def submit(
        self,
        model: str,
        /,
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        run_anyway: bool = False,
        **params: Any,
    ) -> Job:
        """Queue it and return a handle at once. When this returns the job is on disk."""
        request = self.request(model, params, priority=priority, idempotency_key=idempotency_key, run_anyway=run_anyway)
        [row] = self.submit_all([request])
        return Job(self, row.id)

    def plan(
        self,
        model: str,
        /,
        *,
        vram_bytes: int | None = None,
        ram_bytes: int | None = None,
        prefer: Prefer = "balanced",
        **params: Any,
    ) -> Plan:
        """How a request would run on this machine now; nothing is loaded. Works before the model is downloaded.

        ``vram_bytes`` and ``ram_bytes`` cap what it may use; on a machine without a card the former imagines one.
        Texts and files that the model needs may be left out. Raises ``DoesNotFit``.
        """
        plan = self.forecast(model, vram_bytes=vram_bytes, ram_bytes=ram_bytes, prefer=prefer, **params)
        if not plan.fits:
            raise DoesNotFit(f"{model} does not fit.", plan.nearest)
        return plan

    def forecast(
        self,
        model: str,
        /,
        *,
        vram_bytes: int | None = None,
        ram_bytes: int | None = None,
        prefer: Prefer = "balanced",
        **params: Any,
    ) -> Plan:
        """``plan`` that answers also where it does not fit: ``fits`` is false and ``nearest`` says what would."""
        return self.foresee(model, params, vram_bytes=vram_bytes, ram_bytes=ram_bytes, prefer=prefer)

    def foresee(
        self,
        model: str,
        params: Mapping[str, Any],
        *,
        vram_bytes: int | None = None,
        ram_bytes: int | None = None,
        prefer: Prefer = "balanced",
        run: Run | None = None,
        near: bool = False,
    ) -> Plan:
        """``forecast`` for a face that says how what was never measured is measured (``run``, ``near``: as
        ``studio.memory.activations.resolve``)."""
        values = {**stand_ins(self.fields(model)), **params}
        checked = self.check(model, values, references=True)
        files = self.catalogue.files(checked.spec, self.weights.installed) or {}
        family = self.pipeline(checked.spec, files)
        machine = hardware.probe(self.home.root)
        known = known_of(self.home.calibration, machine)
        budget = budget_of(machine, vram_cap_bytes=vram_bytes, ram_cap_bytes=ram_bytes, measured=known.runs.rates)

        def resolved(found: Footprint) -> Footprint:
            return resolve(found, self.home.activations, run=run, near=near)

        return forecast(family, checked.given, budget, prefer, resolved, known)

    def fields(self, model: str, language: str = "en") -> tuple[FieldSpec, ...]:
        """The parameters of a model with its own defaults: what every form is made of."""
        spec = self.catalogue.get(model)
        offers = self._offers(spec)
        fields = []
        for field in field_specs(self.family(spec).Params, language):
            own: dict[str, Any] = {"offers": tuple(offers[field.name])} if field.name in offers else {}
            if field.name in spec.defaults:
                own |= {"default": spec.defaults[field.name], "required": False}
            fields.append(field.model_copy(update=own) if own else field)
        return tuple(fields)

    def _offers(self, spec: ModelSpec) -> Mapping[str, Sequence[Any]]:
        """What the family offers to choose from; a bug in it must not take the form away."""
        try:
            return self.pipeline(spec, {}).offers()
        except Exception:
            log.exception("offers of %s: a bug", spec.id)
            return {}

    # -- the way of a request ----------------------------------------------------------------------------------

    def family(self, spec: ModelSpec) -> type[Pipeline[Any]]:
        return self.registry.get(spec.pipeline)

    def pipeline(self, spec: ModelSpec, files: Mapping[str, Path]) -> Pipeline[Any]:
        """The family's object for a model, which nothing is loaded into: for plans and checks."""
        made = self.family(spec)(spec, files)
        made.adapters, made.cache = self.home.adapters, self.home.root / "cache"
        made.beside = lambda model: self.weights.installed(self.catalogue.get(model))
        return made

    def check(self, model: str, params: Mapping[str, Any], *, references: bool = False) -> Checked:
        """Validate without keeping anything. ``BadRequest`` with one line.

        With ``references`` a file may be ``${step.path}``: it will exist when the job starts.
        """
        spec = self.catalogue.get(model)
        inputs = InputKeeper(self.home.inputs, references=references)
        values = {**spec.defaults, **params}
        checked = validate(self.family(spec).Params, values, model=spec.id, adopt=inputs.adopt)
        given = validate(self.family(spec).Params, values, model=spec.id, adopt=lambda path, *_: path.expanduser())
        return Checked(spec, checked, given, inputs)

    def preflight(self, checked: Checked) -> None:
        """The files are here, whole at their heads, and can do what is asked."""
        files = self.catalogue.files(checked.spec, self.weights.require) or {}
        self.pipeline(checked.spec, files).preflight(checked.given)

    def request(
        self,
        model: str,
        params: Mapping[str, Any],
        *,
        priority: int = 0,
        idempotency_key: str | None = None,
        run_anyway: bool = False,
    ) -> Request:
        """A request ready for ``submit_all``: valid, weights present, input files kept, seed drawn."""
        checked = self.check(model, params)
        self.preflight(checked)
        checked.inputs.keep()
        written = checked.params.model_dump(mode="json", exclude_unset=True)
        model = self.catalogue.lasting_name(model)
        return Request(
            model=model,
            params=with_seed(written),
            request_sha256=request_sha256(model, written, run_anyway=run_anyway),
            priority=priority,
            idempotency_key=idempotency_key,
            run_anyway=run_anyway,
        )

    def submit_all(self, requests: list[Request], *, again: bool = False) -> list[JobRow]:
        """Queue all or none, and see to it that somebody works."""
        waiting = self.queue.counts().get("queued", 0)
        new = sum(self._adds(request, again) for request in requests)
        if new and waiting + new > MAX_QUEUED:
            raise BadRequest(
                f"The queue holds {waiting} jobs and this would add {new}; the limit is {MAX_QUEUED}.",
                "Let some finish, or cancel some: studio jobs list",
            )
        rows = self.queue.submit(requests, again=again)
        self.work()
        return rows

    def _adds(self, request: Request, again: bool) -> bool:
        """Whether the queue would grow: a request that is known already is answered, not added."""
        known = self.queue.find_key(request.idempotency_key)
        return known is None or (again and known.ended and known.state != "done")

    def work(self) -> None:
        """Begin working off the queue in this process, unless another one does."""
        self._runner.start()

    def follow(self, job_id: str, after: int = 0) -> Iterator[tuple[int, Event]]:
        """Numbered events of a job above ``after``, until it has ended. Waits, and works if nobody else does."""
        self.work()
        while True:
            ended = self.queue.get(job_id).ended  # asked first: the end and its event are one transaction
            fresh = self.queue.events(job_id, after)
            for number, event in fresh:
                after = number
                yield number, event
            if ended and (not fresh or is_last(fresh[-1][1])):
                return
            if not fresh:
                self.database.wait(_POLL_S)

    def _prepare(self, job: JobRow) -> dict[str, Any]:
        """A job's parameters as the family will see them: references replaced, and checked once more if so."""
        needs = self.queue.needs(job.id)
        if not needs:
            return job.params

        def resolve(step: str, attribute: str) -> str:
            return attribute_of(self.artefacts.of_job(needs[step]), step, attribute)

        checked = self.check(job.model, substitute(job.params, resolve))
        checked.inputs.keep()
        return checked.params.model_dump(mode="json", exclude_unset=True)

    def _make_executor(self, name: ExecutorName) -> Executor:
        return EXECUTORS[name](self.home)


def with_seed(params: dict[str, Any]) -> dict[str, Any]:
    """The seed is drawn when the request is accepted, so that a retry and a recipe use the same one."""
    return params if params.get("seed") is not None else {**params, "seed": secrets.randbelow(MAX_SEED + 1)}


def stand_ins(fields: tuple[FieldSpec, ...]) -> dict[str, Any]:
    """Texts and files for a plan, where a request would have to bring them: a plan does not depend on their content."""
    values = {"str": "What would it be?", "file": "${file.path}"}
    needed = [field for field in fields if field.required and field.kind in values]
    return {field.name: [values[field.kind]] if field.multiple else values[field.kind] for field in needed}


def _log_to(folder: Path) -> logging.Handler:
    """Bugs leave their traceback in ``logs/studio.log``; the file is made with the first line."""
    handler = RotatingFileHandler(
        folder / "studio.log", maxBytes=2_000_000, backupCount=1, delay=True, encoding="utf-8"
    )
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s %(levelname)s %(message)s"))
    logger = logging.getLogger("studio")
    logger.addHandler(handler)
    logger.propagate = False
    return handler
