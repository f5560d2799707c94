"""Cancel answers at once, from any state, and frees the machine even from code that is deaf."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from studio.core import Studio
from studio.errors import JobFailed
from studio.events import Event, Failed
from studio.jobs.executors import GRACE_S, WorkerExecutor
from studio.jobs.model import Task
from toolbox import Cli, gone, lines_of, until


def test_deaf_native_code_is_killed(studio: Studio, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    job = studio.submit("faulty", fault="hang", journal=str(journal))
    after = studio.submit("toy", words=3)
    [line] = until("the work to begin", lambda: lines_of(journal))
    assert job.cancel()
    assert job.state == "cancelled", "acknowledged when cancel() returns, long before the worker is dead"
    until("the worker's end", lambda: gone(int(line.split()[0])), limit_s=2 * 3)
    assert after.result()[0].text
    assert lines_of(journal) == [line], "it is not tried again"
    with pytest.raises(JobFailed) as caught:
        job.result()
    assert caught.value.state == "cancelled"


def test_the_promise_of_three_seconds_holds_by_construction() -> None:
    assert GRACE_S < 3


def test_code_that_listens_keeps_its_worker(studio: Studio, tmp_path: Path) -> None:
    journal, never = tmp_path / "journal", tmp_path / "never"
    job = studio.submit("faulty", wait_for=str(never), journal=str(journal))
    until("the work to begin", lambda: lines_of(journal))
    assert job.cancel()
    assert not job.cancel(), "it has ended already"
    studio.run("faulty", journal=str(journal))
    pids = {line.split()[0] for line in lines_of(journal)}
    assert len(pids) == 1


def test_a_waiting_job_is_cancelled_without_being_begun(studio: Studio, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    first = studio.submit("faulty", prompt="first", wait_for=str(gate), journal=str(journal))
    second = studio.submit("faulty", prompt="second", journal=str(journal))
    until("the work to begin", lambda: lines_of(journal))
    assert second.cancel()
    gate.touch()
    first.result()
    studio.run("toy", words=1)
    assert [line.split()[2] for line in lines_of(journal)] == ["first"]
    assert [event.event for event in second.events()] == ["queued", "failed"]


def test_cancelling_a_job_from_another_process(studio: Studio, cli: Cli, tmp_path: Path) -> None:
    journal, never = tmp_path / "journal", tmp_path / "never"
    job = studio.submit("faulty", wait_for=str(never), journal=str(journal))
    until("the work to begin", lambda: lines_of(journal))
    [line] = cli("jobs", "cancel", job.id[:6], "--json", code=0).stdout.splitlines()
    assert json.loads(line) == {"id": job.id, "cancelled": True, "state": "cancelled"}
    assert studio.run("toy", words=2)
    assert job.state == "cancelled"


def test_a_cancel_that_follows_at_once_is_heard(studio: Studio, tmp_path: Path) -> None:
    """Both lines may be in the worker's pipe before it looks at the first."""
    executor = WorkerExecutor(studio.home)
    never = str(tmp_path / "never")
    try:
        for number in range(20):
            events: list[Event] = []
            params = {"wait_for": never, "seed": 1}
            task = Task(job_id=f"job-{number}", model="faulty", params=params, attempt=1)
            executor.run(task, events.append, lambda: False)
            assert isinstance(events[-1], Failed) and events[-1].state == "cancelled"
    finally:
        executor.close()


def test_closing_puts_the_running_job_back(home: Path, plugins: Path, tmp_path: Path) -> None:
    journal, gate = tmp_path / "journal", tmp_path / "gate"
    with Studio(home) as studio:
        job = studio.submit("faulty", wait_for=str(gate), journal=str(journal))
        until("the work to begin", lambda: lines_of(journal))
    gate.touch()
    with Studio(home) as studio:
        assert studio.jobs.get(job.id).result()
        row = studio.jobs.get(job.id).row
    assert (row.attempt, row.crashes, row.interruptions) == (2, 0, 0), "closing is nobody's fault"


def test_cancel_is_one_transaction_while_another_thread_writes(studio: Studio) -> None:
    jobs = [studio.submit("toy", words=2000, seed=number) for number in range(10)]
    answers: list[bool] = []
    threads = [threading.Thread(target=lambda job=job: answers.append(job.cancel())) for job in jobs for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for job in jobs:
        last = [event for event in job.events() if event.event in ("done", "failed")]
        assert len(last) == 1, "every job has one end"
    assert answers.count(True) == sum(job.state == "cancelled" for job in jobs)
