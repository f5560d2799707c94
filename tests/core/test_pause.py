"""Pausing gives the card back and loses nothing; what is loaded is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.core import Studio
from toolbox import Cli, lines_of, processes_of, until


def test_pause_puts_the_running_job_back_and_ends_the_worker(studio: Studio, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    job = studio.submit("faulty", prompt="held", journal=str(journal), wait_for=str(gate))
    until("the job to begin", lambda: lines_of(journal))
    studio.queue.pause(True)
    until("the worker to be gone", lambda: not processes_of(studio.home.root))
    assert job.state == "queued"
    gate.touch()
    studio.queue.pause(False)
    [made] = job.result()
    assert made.text.startswith("held")
    assert len(lines_of(journal)) == 2
    assert (job.row.crashes, job.row.interruptions) == (0, 0), "a pause is nobody's fault"


def test_pause_inline(inline: Studio, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    job = inline.submit("faulty", journal=str(journal), wait_for=str(gate))
    until("the job to begin", lambda: lines_of(journal))
    inline.queue.pause(True)
    until("the job to be back", lambda: job.state == "queued")
    gate.touch()
    inline.queue.pause(False)
    assert job.result()


def test_a_job_can_be_cancelled_while_paused(studio: Studio) -> None:
    studio.queue.pause(True)
    job = studio.submit("toy", words=1)
    assert job.cancel()
    assert [event.event for event in job.events()] == ["queued", "failed"]


def test_status_from_another_process(studio: Studio, cli: Cli) -> None:
    studio.run("toy", words=1)
    told = json.loads(cli("status", "--json", code=0).stdout)
    assert (told["paused"], told["working"], told["jobs"]) == (False, True, {"done": 1})
    assert [held["model"] for held in told["loaded"]] == ["toy"]
    assert "Paused" in cli("pause", code=0).stdout
    until("the model to be given back", lambda: studio.queue.note("loaded") == [])
    assert json.loads(cli("status", "--json", code=0).stdout)["paused"]
    assert "Going on" in cli("resume", code=0).stdout
    assert studio.run("toy", words=1)


def test_status_when_nobody_works(home: Path, cli: Cli, capsys: pytest.CaptureFixture[str]) -> None:
    told = json.loads(cli("status", "--json", code=0).stdout)
    assert (told["working"], told["loaded"], told["running"]) == (False, [], [])
    assert "Nobody is working" in cli("status", code=0).stdout


def test_what_a_killed_program_had_loaded_is_not_told(inline: Studio) -> None:
    inline.queue.write_note("loaded", [{"model": "gone", "vram_bytes": 0, "ram_bytes": 1, "parked": False}])
    inline.work()
    until("the truth", lambda: inline.queue.note("loaded") == [])
