"""``--run-anyway``: what the planner refuses is tried by the nearest plan, with a warning; the job keeps the wish."""

from __future__ import annotations

import json
from pathlib import Path

import psutil
import pytest

from studio.batch import submit_batch
from studio.core import Studio
from studio.errors import Conflict, JobFailed
from studio.events import Note, Queued
from studio.jobs.queue import JobQueue
from studio.units import GIB
from toolbox import Cli, install_family

FAMILY = '''
"""A family that says it needs a hundred thousand gigabytes, and then does its work in a few bytes."""

from pathlib import Path

from pydantic import Field

from studio.plugin import GIB, DoesNotFit, Params, Pipeline, Phase, Plan


class GreedyParams(Params):
    prompt: str = Field(default="x", max_length=100, description="Stands in the output.")
    size_gib: int = Field(default=100_000, ge=0, le=10**9, description="What it says that it needs.")
    dies: str = Field(default="", description="A file; the first attempt writes it and ends the process.")


class Greedy(Pipeline[GreedyParams]):
    task = "text->text"
    Params = GreedyParams

    def plan(self, params, budget):
        needed = params.size_gib * GIB
        if needed > budget.ram_bytes:
            raise DoesNotFit(f"It needs {params.size_gib} GiB.", "Ask for less.")
        phases = (Phase(name="load", ram_bytes=needed),)
        return Plan(model=self.spec.id, peak_ram_bytes=needed, phases=phases, settings={"gib": params.size_gib})

    def load(self, plan):
        self.gib = plan.settings["gib"]

    def generate(self, params, ctx):
        if params.dies and not Path(params.dies).exists():
            Path(params.dies).write_text("once")
            import os

            os._exit(3)
        yield ctx.save(f"{params.prompt} {self.gib}", "text/plain")
'''
RIGHT = 1_000
"""Gigabytes that no machine of the tests has, below what is looked for."""


@pytest.fixture
def greedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    (folder / "greedyfamily").mkdir(parents=True)
    (folder / "greedyfamily" / "__init__.py").write_text('"""A family."""\n')
    (folder / "greedyfamily" / "family.py").write_text(FAMILY)
    install_family(folder, "greedyfamily", {"greedy": "greedyfamily.family:Greedy"})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


@pytest.fixture
def house(home: Path, greedy: None) -> Studio:
    with Studio(home, executor="inline") as studio:
        yield studio  # type: ignore[misc]


def test_a_refusal_names_the_way_and_the_way_works(house: Studio) -> None:
    with pytest.raises(JobFailed, match=f"It needs {RIGHT} GiB.") as caught:
        house.run("greedy", size_gib=RIGHT)
    assert caught.value.hint == "Ask for less. To run it anyway: --run-anyway"
    job = house.submit("greedy", size_gib=RIGHT, run_anyway=True)
    [note] = [event for event in job.events() if isinstance(event, Note)]
    assert "does not fit, and runs anyway" in note.text and f"It needs {RIGHT} GiB." in note.text
    assert "would fit with" in note.text
    assert job.result()[0].text == f"x {RIGHT}"


def test_what_fits_runs_without_a_warning(house: Studio) -> None:
    job = house.submit("greedy", size_gib=0, run_anyway=True)
    assert job.result()[0].text == "x 0"
    assert not [event for event in job.events() if isinstance(event, Note)]


def test_what_no_machine_could_do_is_refused_all_the_same(house: Studio) -> None:
    with pytest.raises(JobFailed) as caught:
        house.run("greedy", size_gib=10**8, run_anyway=True)
    assert "--run-anyway" not in caught.value.hint


def test_a_forecast_that_proved_too_high_refuses_no_more(home: Path, greedy: None) -> None:
    """Its process stayed small, with memory to spare, so the next request of its kind needs no insisting."""
    size = 2 * psutil.virtual_memory().total // GIB
    with Studio(home) as studio:
        assert not studio.forecast("greedy", size_gib=size).fits
        studio.run("greedy", size_gib=size, run_anyway=True)
        found = studio.forecast("greedy", size_gib=size)
        assert found.fits and found.peak_ram_bytes < size * GIB / 5
        assert studio.run("greedy", size_gib=size)[0].text == f"x {size}"
        assert not studio.forecast("greedy", size_gib=100 * size).fits, "of another size nothing is known"


def test_it_travels_with_the_job_through_a_crash(home: Path, greedy: None, tmp_path: Path) -> None:
    with Studio(home) as studio:
        job = studio.submit("greedy", size_gib=RIGHT, run_anyway=True, dies=str(tmp_path / "died"))
        assert job.result()[0].text == f"x {RIGHT}"
        events = list(job.events())
        assert [event.attempt for event in events if isinstance(event, Queued)] == [1, 2]
        assert len([event for event in events if isinstance(event, Note)]) == 2
        assert job.row.run_anyway and job.row.crashes == 1


def test_it_travels_with_the_job_to_another_process(home: Path, greedy: None) -> None:
    with Studio(home, executor="inline") as studio:
        request = studio.request("greedy", {"size_gib": RIGHT}, run_anyway=True)
        [row] = studio.queue.submit([request])  # nobody works here
    with Studio(home, executor="inline") as other:
        assert JobQueue(other.database, other.artefacts).get(row.id).run_anyway
        assert other.jobs.get(row.id).result()[0].text == f"x {RIGHT}"


def test_the_same_key_without_it_is_another_request(house: Studio) -> None:
    first = house.submit("greedy", size_gib=RIGHT, run_anyway=True, idempotency_key="one")
    assert house.submit("greedy", size_gib=RIGHT, run_anyway=True, idempotency_key="one").id == first.id
    with pytest.raises(Conflict):
        house.submit("greedy", size_gib=RIGHT, idempotency_key="one")


def test_a_batch_may_insist_for_all_or_for_one(house: Studio, tmp_path: Path) -> None:
    file = tmp_path / "many.yaml"
    text = (
        f"defaults: {{model: greedy, params: {{size_gib: {RIGHT}}}%s}}\n"
        "jobs:\n"
        "  - {id: one, params: {prompt: a}, run_anyway: true}\n"
        "  - {id: two, params: {prompt: b}}\n"
    )
    file.write_text(text % "")
    assert [row.run_anyway for row in submit_batch(house, file)] == [True, False]
    file.write_text(text % ", run_anyway: true")
    rows = submit_batch(house, file)
    assert [row.run_anyway for row in rows] == [True, True]
    assert [house.jobs.get(row.id).result()[0].text for row in rows] == [f"a {RIGHT}", f"b {RIGHT}"]


def test_the_command_line_warns_and_says_how(home: Path, greedy: None, cli: Cli) -> None:
    refused = cli("run", "greedy", "--size-gib", str(RIGHT), "--executor", "inline", code=1)
    assert "--run-anyway" in refused.stderr
    asked = ("run", "greedy", "--size-gib", str(RIGHT), "--run-anyway", "--executor", "inline")
    done = cli(*asked, code=0)
    assert "does not fit, and runs anyway" in done.stderr
    lines = [json.loads(line) for line in cli(*asked, "--json", code=0).stdout.splitlines()]
    assert "note" in [line["event"] for line in lines] and lines[-1]["event"] == "done"
    planned = cli("plan", "greedy", "--size-gib", str(RIGHT), code=1)
    assert "studio run greedy --run-anyway" in planned.stdout
    assert "--run-anyway" in cli("run", "greedy", "--help", code=0).stdout
