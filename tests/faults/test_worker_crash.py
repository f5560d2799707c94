"""A crash costs one job: the worker may die in any way, the job is tried twice, the next one runs."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from studio.core import Studio
from studio.errors import JobFailed
from toolbox import Cli, files_in, lines_of, until


def whole(studio: Studio, job_id: str, count: int) -> None:
    """Exactly ``count`` outputs of the job: rows, files and recipes, and nothing beside them."""
    made = studio.artefacts.of_job(job_id)
    assert [artefact.id for artefact in made] == [f"{job_id}-{number}" for number in range(1, count + 1)]
    files = [path.name for path in files_in(studio.home.outputs) if job_id in path.name]
    wanted = [Path(artefact.path).name for artefact in made]
    assert sorted(files) == sorted([*wanted, *(name + ".recipe.json" for name in wanted)])


@pytest.mark.parametrize(("fault", "how"), [("segfault", "signal 11"), ("exit", "exit code 7")])
def test_poison_is_quarantined_after_two_attempts(studio: Studio, tmp_path: Path, fault: str, how: str) -> None:
    journal = tmp_path / "journal"
    poison = studio.submit("faulty", fault=fault, journal=str(journal))
    after = studio.submit("toy")
    with pytest.raises(JobFailed) as caught:
        poison.result()
    assert caught.value.state == poison.state == "quarantined"
    assert how in caught.value.what and "2 times" in caught.value.what
    assert len(lines_of(journal)) == 2, "tried once more, and not a third time"
    assert after.result()[0].text
    assert studio.artefacts.of_job(poison.id) == []
    assert not (studio.home.work / poison.id).exists()


def test_a_crash_once_is_repaired_by_the_second_attempt(studio: Studio, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    job = studio.submit("faulty", fault="segfault", attempts=1, outputs=2, journal=str(journal))
    job.result()
    assert [line.split()[1] for line in lines_of(journal)] == ["1", "2"]
    assert (job.row.attempt, job.row.crashes) == (2, 1)
    whole(studio, job.id, 2)


def test_worker_killed_between_two_outputs_makes_each_output_once(studio: Studio, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    job = studio.submit("faulty", outputs=3, wait_after=2, wait_for=str(gate), journal=str(journal))
    until("two outputs", lambda: len(studio.artefacts.of_job(job.id)) == 2)
    os.kill(int(lines_of(journal)[0].split()[0]), signal.SIGKILL)
    until("the second attempt", lambda: len(lines_of(journal)) == 2)
    gate.touch()
    job.result()
    whole(studio, job.id, 3)
    assert [event.attempt for event in job.events() if event.event == "queued"] == [1, 2]


def test_killed_before_the_first_output(studio: Studio, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    job = studio.submit("faulty", wait_for=str(gate), journal=str(journal))
    [line] = until("the work to begin", lambda: lines_of(journal))
    os.kill(int(line.split()[0]), signal.SIGKILL)
    gate.touch()
    job.result()
    whole(studio, job.id, 1)


def test_a_bug_gives_one_line_and_leaves_its_traceback_in_the_log(studio: Studio, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with pytest.raises(JobFailed) as caught:
        studio.run("faulty", fault="raise", journal=str(journal))
    assert caught.value.what == "faulty failed: ValueError: a bug in two lines"
    assert str(studio.home.logs) in caught.value.hint
    logged = (studio.home.logs / "worker.log").read_text()
    assert "Traceback" in logged and "in go_wrong" in logged
    studio.run("faulty", journal=str(journal))
    pids = {line.split()[0] for line in lines_of(journal)}
    assert len(pids) == 1, "a bug in Python needs no new worker"


@pytest.mark.parametrize("executor", ["worker", "inline"])
@pytest.mark.parametrize(
    ("fault", "words"), [("memory", "out of memory"), ("plain", "The moon is not in the sky."), ("sysexit", "3")]
)
def test_a_failing_family_fails_its_job_only(
    request: pytest.FixtureRequest, executor: str, fault: str, words: str
) -> None:
    studio = request.getfixturevalue("studio" if executor == "worker" else "inline")
    with pytest.raises(JobFailed) as caught:
        studio.run("faulty", fault=fault)
    assert words in caught.value.what and "\n" not in caught.value.what
    assert caught.value.state == "failed"
    assert studio.run("toy", seed=1)[0].text


@pytest.mark.parametrize("fault", ["outside", "quiet"])
def test_an_output_outside_the_working_folder_is_refused(studio: Studio, tmp_path: Path, fault: str) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("keep out")
    with pytest.raises(JobFailed, match="not in its working folder"):
        studio.run("faulty", fault=fault, wait_for=str(secret))
    assert secret.read_text() == "keep out"
    assert files_in(studio.home.outputs) == []


def test_the_command_line_says_it_in_one_line(cli: Cli, plugins: Path) -> None:
    done = cli("run", "faulty", "--fault", "segfault", code=1)
    assert done.stdout == ""
    assert "set aside" in done.stderr and "Traceback" not in done.stderr
    assert len([line for line in done.stderr.splitlines() if "set aside" in line]) == 1
