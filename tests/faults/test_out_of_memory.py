"""A job that runs out of memory is tried once more with all else unloaded, and never takes the next one along."""

from __future__ import annotations

from pathlib import Path

import pytest

from studio import Studio
from studio.errors import JobFailed
from toolbox import lines_of


@pytest.mark.parametrize("executor", ["inline", "worker"])
def test_once_more_and_then_a_plain_error(plugins: Path, home: Path, tmp_path: Path, executor: str) -> None:
    journal = tmp_path / "journal"
    with Studio(home, executor=executor) as studio:  # type: ignore[arg-type]
        job = studio.submit("faulty", fault="memory", journal=str(journal))
        with pytest.raises(JobFailed, match="ran out of memory"):
            job.result()
        notes = [event.text for event in job.events() if event.event == "note"]
        assert len(lines_of(journal)) == 2
        assert notes == ["faulty ran out of memory; everything was unloaded and it is tried once more."]
        assert len(studio.run("faulty", prompt="next")) == 1


def test_not_once_more_when_something_was_made_already(plugins: Path, home: Path, tmp_path: Path) -> None:
    """The first output would be made twice."""
    journal = tmp_path / "journal"
    with Studio(home, executor="inline") as studio:
        with pytest.raises(JobFailed, match="ran out of memory"):
            studio.run("faulty", fault="memory", fault_after=1, outputs=2, journal=str(journal))
        assert len(lines_of(journal)) == 1
