"""What a failed job marked as worth keeping is there for its retry, and for nothing else."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from studio.cli.doctor import doctor_command
from studio.core import Studio
from studio.errors import JobFailed
from studio.jobs.model import JobRow
from toolbox import files_in, until


@pytest.mark.parametrize("fault", ["plain", "raise", "memory"])
def test_a_retry_goes_on_from_what_was_kept(home: Path, plugins: Path, fault: str) -> None:
    with Studio(home, executor="inline") as studio:
        job = studio.submit("faulty", fault=fault, attempts=1, keep=True)
        with pytest.raises(JobFailed):
            job.result()
    doctor_command(repair=True, as_json=True)
    with Studio(home, executor="inline") as studio:  # what is left of others is swept at every start
        assert studio.run("toy", seed=1)
        assert (home / "work" / job.id / "attempts").is_file()
        studio.queue.retry(job.id)
        studio.work()
        [made] = studio.jobs.get(job.id).result()
        assert made.text.startswith("x 1 attempts 1") and made.text.endswith("2")
        studio.run("toy", seed=2)  # the folder goes after the end of its job is told
        assert not (home / "work" / job.id).exists()


def test_a_worker_that_dies_twice_leaves_what_was_kept(studio: Studio) -> None:
    job = studio.submit("faulty", fault="segfault", attempts=2, keep=True)
    with pytest.raises(JobFailed, match="died 2 times"):
        job.result()
    studio.queue.retry(job.id)
    [made] = studio.jobs.get(job.id).result()
    assert made.text == "x 1 attempts 123"


def test_what_nobody_comes_back_for_goes(home: Path, plugins: Path) -> None:
    with Studio(home, executor="inline") as studio:
        unmarked = studio.submit("faulty", fault="plain")
        old, cancelled = (studio.submit("faulty", fault="plain", keep=True) for _ in range(2))
        for job in (unmarked, old, cancelled):
            with pytest.raises(JobFailed):
                job.result()
        studio.run("toy", seed=1)
        assert not (home / "work" / unmarked.id).exists()
        with studio.database.write() as connection:
            long_ago = time.time() - 15 * 24 * 3600
            connection.execute("UPDATE jobs SET finished = ? WHERE id = ?", (long_ago, old.id))
            connection.execute("UPDATE jobs SET state = 'cancelled' WHERE id = ?", (cancelled.id,))
    with Studio(home, executor="inline") as studio:
        studio.run("toy", seed=2)
    assert files_in(home / "work") == [] and list((home / "work").iterdir()) == []


def test_a_retry_in_the_very_moment_of_the_failure(home: Path, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between any two looks at the job's state: its folder stays."""
    with Studio(home, executor="inline") as studio:
        job = studio.submit("faulty", fault="plain", attempts=1, keep=True)
        get, retried = studio.queue.get, list[str]()

        def then_retried(job_id: str) -> JobRow:
            row = get(job_id)
            if row.state == "failed" and not retried and threading.current_thread().name == "studio-runner":
                retried.append(job_id)
                studio.queue.retry(job_id)
            return row

        monkeypatch.setattr(studio.queue, "get", then_retried)
        for _ in job.events():  # of the first attempt; or of both, if the retry is there already
            pass
        until("the retry", lambda: retried)
        [made] = job.result()
        assert retried == [job.id] and made.text.startswith("x 1 attempts 1") and made.text.endswith("2")


def test_what_an_earlier_version_kept_is_cleared(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing reads ``cache/films`` any more; what belongs to results lies elsewhere and stays."""
    with Studio(home, executor="inline"):
        pass
    old, results = home / "cache" / "films" / "abc", home / "cache" / "results" / "abc"
    for folder in (old, results):
        folder.mkdir(parents=True)
        (folder / "latents.safetensors").write_bytes(bytes(2048))
    doctor_command(repair=False, as_json=True)
    assert old.is_dir()
    doctor_command(repair=True, as_json=True)
    assert "2.0 KiB that an earlier version kept of films" in capsys.readouterr().out
    assert not old.parent.exists() and (results / "latents.safetensors").is_file()
