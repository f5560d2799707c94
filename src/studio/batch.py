"""Batches: a YAML file of jobs with defaults, matrices and chains, checked whole before anything is queued.

A job's idempotency key is made from the batch's name, the step and the request, so running the same file again in the
same home finds the jobs that are there and does only what is missing.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from studio.core import MAX_QUEUED, Studio, with_seed
from studio.errors import BadRequest, StudioError, nearest
from studio.jobs.model import JobRow, Request, request_sha256
from studio.jobs.queue import new_id
from studio.jobs.references import ATTRIBUTES, references, substitute
from studio.store.inputs import InputKeeper

MAX_FILE_BYTES = 1_000_000
_STEP = re.compile(r"^[A-Za-z0-9_-]+$")


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Entry(_Data):
    """One entry of ``jobs:`` as it stands in the file."""

    id: str | None = None
    model: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    matrix: dict[str, list[Any]] = Field(default_factory=dict)
    needs: list[str] = Field(default_factory=list)
    priority: int | None = None
    run_anyway: bool | None = None


class Defaults(_Data):
    """What every entry has unless it says otherwise."""

    model: str | None = None
    params: dict[str, Any] = Field(default_factory=dict)
    priority: int = 0
    run_anyway: bool = False


class File(_Data):
    """The whole file."""

    name: str | None = None
    defaults: Defaults = Field(default_factory=Defaults)
    jobs: list[Entry] = Field(min_length=1)


class Step(BaseModel):
    """One job to be: an entry, or one point of its matrix (``many.1``, ``many.2``, ...)."""

    name: str
    model: str
    params: dict[str, Any]
    needs: tuple[str, ...]
    priority: int
    run_anyway: bool = False


def read_batch(path: Path) -> tuple[str, list[Step]]:
    """The batch's name and its steps in an order in which each follows what it needs. ``BadRequest`` otherwise."""
    file = _parse(path)
    steps = list(itertools.islice(_expand(path, file), MAX_QUEUED + 1))  # a matrix can be of any size
    by_name = {step.name: step for step in steps}
    if len(by_name) != len(steps):
        twice = next(step.name for step in steps if sum(other.name == step.name for other in steps) > 1)
        raise BadRequest(f"{path.name}: two jobs have the id {twice!r}.", "Rename one.")
    if len(steps) > MAX_QUEUED:
        raise BadRequest(f"{path.name}: more than {MAX_QUEUED} jobs; that is the limit.", "Split the file.")
    graph: dict[str, set[str]] = {}
    for step in steps:
        graph[step.name] = set(_needed(path, step, by_name))
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise BadRequest(f"{path.name}: the jobs need each other in a circle: {' → '.join(error.args[1])}.") from None
    return file.name or path.stem, [by_name[name] for name in order]


def read_entries(path: Path) -> list[tuple[str, Entry]]:
    """The jobs as they stand in the file, each with its id. Raises ``BadRequest`` as ``read_batch`` does."""
    return [(entry.id or f"job-{number}", entry) for number, entry in enumerate(_parse(path).jobs, 1)]


def _parse(path: Path) -> File:
    if not os.path.isfile(path):  # noqa: PTH113 - false for any impossible name, too
        raise BadRequest(f"There is no file {str(path)!r}.", "Give a YAML file of jobs.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise BadRequest(f"{path.name} has {path.stat().st_size:,} bytes; the limit is {MAX_FILE_BYTES:,}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        if _size(content, {}) > MAX_FILE_BYTES:
            raise BadRequest(f"{path.name}: its aliases unfold to more than {MAX_FILE_BYTES:,} values.", "Use fewer.")
        return File.model_validate(content)
    except RecursionError:
        raise BadRequest(f"{path.name}: values are nested too deeply, or contain themselves.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"{path.name} is not valid YAML: {' '.join(str(error).split())}") from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part + 1) if isinstance(part, int) else part for part in first["loc"]) or "the file"
        raise BadRequest(f"{path.name}: {place}: {first['msg']}.", "See the batch section of the README.") from error


def _size(value: Any, known: dict[int, int]) -> int:
    """How many values there are once every alias is written out; each is visited once."""
    if not isinstance(value, dict | list):
        return 1
    if id(value) not in known:
        items = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_size(item, known) for item in items)
    return known[id(value)]


def _expand(path: Path, file: File) -> Iterator[Step]:
    for number, entry in enumerate(file.jobs, 1):
        name = entry.id or f"job-{number}"
        if not _STEP.match(name):
            raise BadRequest(f"{path.name}: the id {name!r} has other characters than letters, digits, - and _.")
        model = entry.model or file.defaults.model
        if model is None:
            raise BadRequest(f"{path.name}: {name} names no model, and neither do the defaults.", "Add: model: ...")
        params = {**file.defaults.params, **entry.params}
        priority = file.defaults.priority if entry.priority is None else entry.priority
        run_anyway = file.defaults.run_anyway if entry.run_anyway is None else entry.run_anyway
        for key in entry.matrix:
            if key in entry.params:
                raise BadRequest(f"{path.name}: {name} has {key!r} in params and in matrix.", "Keep one.")
        for index, point in enumerate(_points(entry.matrix), 1):
            yield Step(
                name=f"{name}.{index}" if entry.matrix else name,
                model=model,
                params={**params, **point},
                needs=tuple(entry.needs),
                priority=priority,
                run_anyway=run_anyway,
            )


def _points(matrix: Mapping[str, list[Any]]) -> Iterator[dict[str, Any]]:
    """Every combination; the last key changes fastest. No matrix: one empty point."""
    for values in itertools.product(*matrix.values()):
        yield dict(zip(matrix, values, strict=True))


def _needed(path: Path, step: Step, steps: Mapping[str, Step]) -> Iterator[str]:
    """All steps that ``step`` waits for: its ``needs`` (a matrix by its id) and what it refers to."""
    for name in step.needs:
        members = [other for other in steps if other == name or other.rpartition(".")[0] == name]
        if not members:
            raise BadRequest(f"{path.name}: {step.name} needs {name!r}, which is no job here.", nearest(name, steps))
        yield from members
    for written, name, attribute in references(step.params):
        if not name or attribute not in ATTRIBUTES:
            raise BadRequest(
                f"{path.name}: {step.name}: {written} cannot be read.",
                f"Write ${{step.{'|'.join(ATTRIBUTES)}}}, or $${{ for a plain ${{.",
            )
        if name not in steps:
            matrix = f"{name}.1" in steps
            hint = f"{name} is a matrix: write ${{{name}.1.{attribute}}}." if matrix else nearest(name, steps)
            raise BadRequest(f"{path.name}: {step.name} refers to {written}, but there is no job {name!r}.", hint)
        yield name


def submit_batch(studio: Studio, path: Path) -> list[JobRow]:
    """Queue what is missing of a file, all or nothing; the jobs in the order of ``read_batch``."""
    name, steps = read_batch(path)
    ids = {step.name: new_id() for step in steps}
    by_name = {step.name: step for step in steps}
    requests: list[Request] = []
    keys: dict[str, str] = {}
    keepers = []
    for step in steps:
        needs = sorted(set(_needed(path, step, by_name)))
        try:
            written, keeper = _checked(studio, step, bool(needs))
        except StudioError as error:
            raise BadRequest(f"{path.name}: {step.name}: {error.what}", error.hint) from error
        keepers.append(keeper)
        model = studio.catalogue.lasting_name(step.model)
        content = {"params": written, "needs": [keys[need] for need in needs]}
        digest = request_sha256(model, content, run_anyway=step.run_anyway)
        keys[step.name] = f"batch:{name}:{step.name}:{digest}"
        known = studio.queue.find_key(keys[step.name])
        ids[step.name] = known.id if known else ids[step.name]
        requests.append(
            Request(
                id=ids[step.name],
                model=model,
                params=with_seed(written),
                request_sha256=digest,
                priority=step.priority,
                idempotency_key=keys[step.name],
                batch=name,
                step=step.name,
                needs={need: ids[need] for need in needs},
                run_anyway=step.run_anyway,
            )
        )
    for keeper in keepers:
        keeper.keep()
    for key in keys.values():  # before the others: what needs a lost file must not start without it
        known = studio.queue.find_key(key)
        if known is not None and _lost(studio, known):
            studio.queue.retry(known.id)
    return studio.submit_all(requests, again=True)


def _lost(studio: Studio, row: JobRow) -> bool:
    """Whether a job is done but one of its files is gone."""
    return row.state == "done" and any(not Path(made.path).is_file() for made in studio.artefacts.of_job(row.id))


def _checked(studio: Studio, step: Step, waits: bool) -> tuple[dict[str, Any], InputKeeper]:
    """The parameters as they will be stored; a file that another step will make is checked when it exists."""
    params = step.params if waits else substitute(step.params, lambda _step, _attribute: "")
    checked = studio.check(step.model, params, references=waits)
    studio.preflight(checked)
    return checked.params.model_dump(mode="json", exclude_unset=True), checked.inputs
