"""The worker process: what it is given, what it is kept from, what its output may hold."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import psutil
import pytest

from studio.core import Studio
from studio.errors import BadRequest, JobFailed
from toolbox import lines_of, processes_of, until


def test_what_a_family_prints_is_no_event(studio: Studio) -> None:
    [made] = studio.run("faulty", fault="noise", attempts=99)
    assert made.text == "x 1"
    assert "not an event" in (studio.home.logs / "worker.log").read_bytes().decode(errors="replace")


def test_it_reaches_nobody(studio: Studio) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        with pytest.raises(JobFailed, match="the worker has no network"):
            studio.run("faulty", fault="network", prompt=str(server.getsockname()[1]))
        with pytest.raises(BlockingIOError):
            server.accept()


def test_it_has_no_tokens(home: Path, plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.setenv(name, "hf_secret")
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    with Studio(home) as studio:
        job = studio.submit("faulty", journal=str(journal), wait_for=str(gate))
        [line] = until("the work to begin", lambda: lines_of(journal))
        environment = psutil.Process(int(line.split()[0])).environ()
        gate.touch()
        job.result()
    assert "hf_secret" not in environment.values()
    assert environment["HF_HUB_OFFLINE"] == "1"


def test_a_terminals_ctrl_c_is_left_to_the_program(studio: Studio, tmp_path: Path) -> None:
    """A terminal sends it to the worker as well: an answer that is stopped must not cost the loaded model."""
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    job = studio.submit("faulty", journal=str(journal), wait_for=str(gate))
    [line] = until("the work to begin", lambda: lines_of(journal))
    os.kill(int(line.split()[0]), signal.SIGINT)
    gate.touch()
    job.result()
    assert lines_of(journal) == [line], "begun once"


def test_one_worker_stays_warm_and_goes_with_its_engine(home: Path, plugins: Path, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    with Studio(home) as studio:
        assert processes_of(home) == [], "nothing is started before the first job"
        for number in range(3):
            studio.run("faulty", prompt=str(number), journal=str(journal))
        [worker] = processes_of(home)
        assert {int(line.split()[0]) for line in lines_of(journal)} == {worker.pid}
    assert processes_of(home) == []


def test_a_worker_that_cannot_start_fails_the_job_in_one_line(
    home: Path, plugins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("studio.jobs.executors.sys.executable", "/bin/false")
    with Studio(home) as studio:
        with pytest.raises(JobFailed, match="The worker process does not start") as caught:
            studio.run("toy")
        assert "worker.log" in caught.value.hint


def test_an_unknown_executor_is_refused(home: Path) -> None:
    with pytest.raises(BadRequest, match=r"There is no executor 'cloud'\. Choose one of: worker, inline"):
        Studio(home, executor="cloud")  # type: ignore[arg-type]
