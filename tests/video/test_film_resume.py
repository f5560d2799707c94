"""Sections are the unit: killed at any moment of any of them, the film is the one that nobody disturbed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from framepack_models import SECTION_S

from studio import Studio
from toolbox import files_in

KILLED = Path(__file__).with_name("killed.py")
SECTIONS = 6


def asked(picture: Path, sections: int = SECTIONS, **more: Any) -> dict[str, Any]:
    values = {"prompt": "a red star on the sea", "image": str(picture), "seconds": sections * SECTION_S, "seed": 5}
    return {**values, **more}


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
def test_killed_after_each_section(film_home: Path, picture: Path, tmp_path: Path, sampling: str) -> None:
    model = f"tiny-{sampling}"
    with Studio(film_home, executor="inline") as studio:
        [undisturbed] = studio.run(model, **asked(picture))
        assert undisturbed.info["sections"] == SECTIONS
        studio.queue.pause(True)  # the next one is left to the processes that are killed
        job = studio.submit(model, **asked(picture))
        studio.queue.pause(False)
    moments = [[number, ("state", "segment", "denoised", "step")[number % 4]] for number in range(SECTIONS)]
    done = subprocess.run(
        [sys.executable, str(KILLED), str(film_home), job.id, json.dumps(moments)],
        capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    attempts = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["ended"] for one in attempts] == [9] * SECTIONS + [0], done.stderr
    denoised = [section for one in attempts for section in one["denoised"]]
    assert sorted(set(denoised)) == list(range(SECTIONS))
    assert len(denoised) == SECTIONS, "what was denoised is never denoised twice"
    with Studio(film_home, executor="inline") as studio:
        [made] = studio.jobs.get(job.id).result()
        assert made.content_sha256 == undisturbed.content_sha256
        assert Path(made.path).stat().st_size == Path(undisturbed.path).stat().st_size
    assert files_in(film_home / "work") == []
