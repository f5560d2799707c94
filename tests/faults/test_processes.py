"""Programs that are killed: nothing is lost, nothing is done twice, nobody is left behind."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from studio.core import Studio
from toolbox import Cli, files_in, gone, lines_of, processes_of, until

Start = Callable[..., "subprocess.Popen[str]"]


def ids(home: Path, state: str) -> list[str]:
    with sqlite3.connect(home / "studio.db", timeout=30) as connection:
        found = [row[0] for row in connection.execute("SELECT id FROM jobs WHERE state = ? ORDER BY number", (state,))]
    connection.close()
    return found


@pytest.mark.parametrize("fault", ["none", "hang"])
def test_killing_the_program_takes_its_worker_along(
    home: Path, plugins: Path, start: Start, cli: Cli, tmp_path: Path, fault: str
) -> None:
    """Even a worker whose native code lets no other thread run; the job is taken up by the next start."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    waits = () if fault == "hang" else ("--wait-for", gate)
    program = start(
        "-m", "studio.cli.main", "run", "faulty", "--fault", fault, "--attempts", "1", "--journal", journal, *waits
    )
    [line] = until("the work to begin", lambda: lines_of(journal))
    worker = int(line.split()[0])
    program.kill()
    until("the end of the worker", lambda: gone(worker), limit_s=10)
    assert processes_of(home) == []
    assert ids(home, "running"), "the job is still there, in the middle of its work"
    gate.touch()
    cli("jobs", "watch", code=0)
    assert [line.split()[1] for line in lines_of(journal)] == ["1", "2"]
    [done] = ids(home, "done")
    assert sorted(path.name for path in files_in(home / "outputs")) == [f"{done}-1.txt", f"{done}-1.txt.recipe.json"]


def test_killed_over_and_over_a_job_lets_the_others_go_first(
    home: Path, plugins: Path, start: Start, tmp_path: Path
) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    with Studio(home, executor="inline") as studio:  # inline: nothing begins before somebody watches
        first = studio.request("faulty", {"prompt": "first", "wait_for": str(gate), "journal": str(journal)})
        second = studio.request("faulty", {"prompt": "second", "journal": str(journal)})
        rows = studio.queue.submit([first, second])
    for count in range(1, 4):
        program = start("-m", "studio.cli.main", "jobs", "watch")
        until("the work to begin", lambda: len(lines_of(journal)) >= count)  # noqa: B023 - asked at once
        program.kill()
        program.wait()
        until("the end of the worker", lambda: processes_of(home) == [])
    gate.touch()
    start("-m", "studio.cli.main", "jobs", "watch").wait(timeout=60)
    assert [line.split()[2] for line in lines_of(journal)] == ["first", "first", "first", "second", "first"]
    with Studio(home) as studio:
        assert [studio.queue.get(row.id).state for row in rows] == ["done", "done"]
        assert studio.queue.get(rows[0].id).interruptions == 3


def test_two_programs_share_one_home(home: Path, plugins: Path, start: Start, tmp_path: Path) -> None:
    """One works; the other's jobs are done too; when the first is killed the second goes on."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    run = ("-m", "studio.cli.main", "run", "faulty", "--journal", journal, "--json")
    one = start(*run, "--prompt", "one", "--wait-for", gate)
    until("the first to begin", lambda: lines_of(journal))
    two = start(*run, "--prompt", "two")
    until("the second to be accepted", lambda: ids(home, "queued"))
    assert len(processes_of(home)) == 1, "only one of them works"
    assert len(lines_of(journal)) == 1
    one.kill()
    one.wait()
    gate.touch()
    output, _ = two.communicate(timeout=60)
    assert two.returncode == 0 and '"event":"done"' in output
    until("both jobs", lambda: len(ids(home, "done")) == 2)
    prompts = [line.split()[2] for line in lines_of(journal)]
    assert sorted(prompts) == ["one", "one", "two"], "the first one again, because it was killed in the middle"


def test_the_second_program_waits_for_the_first_ones_work(
    home: Path, plugins: Path, start: Start, tmp_path: Path
) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    run = ("-m", "studio.cli.main", "run", "faulty", "--journal", journal, "--json", "--prompt")
    one = start(*run, "one", "--wait-for", gate)
    until("the first to begin", lambda: lines_of(journal))
    two = start(*run, "two", "--wait-for", gate)
    until("the second to be accepted", lambda: ids(home, "queued"))
    gate.touch()
    for program in (one, two):
        output, _ = program.communicate(timeout=60)
        assert program.returncode == 0, output
        assert output.count('"event":"artefact"') == 1
    assert [line.split()[2] for line in lines_of(journal)] == ["one", "two"]


def test_two_studios_in_one_process_take_turns(home: Path, plugins: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Studio(home) as one, Studio(home) as two:
        jobs = [
            (one, two)[number % 2].submit("faulty", prompt=str(number), journal=str(journal)) for number in range(8)
        ]
        for job in jobs:
            assert job.result()[0].text.startswith(job.row.params["prompt"])
        assert len({line.split()[0] for line in lines_of(journal)}) == 1, "one worker did it all"
        one.close()
        assert two.run("toy", words=1)
    assert processes_of(home) == []


def test_the_next_start_tidies_up_after_a_killed_program(home: Path, plugins: Path) -> None:
    with Studio(home) as studio:
        [made] = studio.run("toy")
    with Studio(home) as studio:  # in which nobody works
        waiting = studio.queue.submit([studio.request("toy", {"words": 1})])[0].id
        studio.home.workdir(waiting)
        assert studio.queue.claim()  # as a program leaves it that was killed while the job ran
    half = Path(made.path).with_name(".half.txt.4194304.1.part")  # above the largest process number of Linux
    half.write_text("ha")
    input_half = home / "inputs" / ".half.png.4194304.1.part"
    input_half.write_text("ha")
    (home / "work" / made.id.removesuffix("-1")).mkdir()
    (home / "work" / "nobody").mkdir()
    with Studio(home) as studio:
        assert studio.jobs.get(waiting).result()
    assert list((home / "work").iterdir()) == []
    assert not half.exists() and not input_half.exists() and Path(made.path).exists()


def test_a_half_copied_input_goes_although_no_job_was_interrupted(home: Path, plugins: Path) -> None:
    half = home / "inputs" / ".half.png.4194304.1.part"
    half.parent.mkdir()
    half.write_text("ha")
    with Studio(home) as studio:
        assert studio.run("toy", words=1)
    assert not half.exists()


def test_ctrl_c_in_a_run_cancels_its_job(home: Path, plugins: Path, start: Start, tmp_path: Path) -> None:
    """A terminal sends it to the worker too, which leaves the decision to the program."""
    journal, never = tmp_path / "journal", tmp_path / "never"
    program = start("-m", "studio.cli.main", "run", "faulty", "--wait-for", never, "--journal", journal)
    until("the work to begin", lambda: lines_of(journal))
    os.killpg(program.pid, signal.SIGINT)
    output, _ = program.communicate(timeout=30)
    assert program.returncode == 1
    assert "cancelled job" in output and "Traceback" not in output
    assert len(ids(home, "cancelled")) == 1
    assert processes_of(home) == []
    assert "Traceback" not in (home / "logs" / "worker.log").read_text()


def test_ctrl_c_in_a_batch_is_no_crash_of_its_job(home: Path, plugins: Path, start: Start, tmp_path: Path) -> None:
    """However often somebody stops a batch, its job is not set aside as poison."""
    gate, journal, file = tmp_path / "gate", tmp_path / "journal", tmp_path / "one.yaml"
    file.write_text(f"jobs: [{{id: a, model: faulty, params: {{wait_for: {gate}, journal: {journal}}}}}]")
    for count in range(1, 4):
        program = start("-m", "studio.cli.main", "batch", file)
        until("the work to begin", lambda: len(lines_of(journal)) >= count)  # noqa: B023 - asked at once
        os.killpg(program.pid, signal.SIGINT)
        output, _ = program.communicate(timeout=30)
        assert program.returncode in (1, 130) and "Traceback" not in output
    with Studio(home, executor="inline") as studio:
        [row] = studio.jobs.find()
        assert (row.state, row.attempt, row.crashes, row.interruptions) == ("queued", 3, 0, 0)
