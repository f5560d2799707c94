"""Sections are the unit: killed at any moment of any of them, the film is the one that nobody disturbed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from framepack_models import SECTION_S

from studio import Studio
from studio.film.joined import facts
from toolbox import Cli, files_in

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


def test_killed_with_its_worker_on_the_command_line(film_home: Path, picture: Path, start: Any, cli: Cli) -> None:
    """The program and its worker process die while the second section is made; another program goes on."""
    with Studio(film_home, executor="inline") as studio:
        [undisturbed] = studio.run("tiny-forward", **asked(picture, 4))
    values = asked(picture, 4)
    flags = [part for name, value in values.items() for part in (f"--{name}", str(value))]
    program = start("-m", "studio.cli.main", "run", "tiny-forward", *flags, "--json")
    events = map(json.loads, program.stdout)
    job = next(event["job"] for event in events if event["event"] == "queued")
    seen = next(Path(event["path"]) for event in events if event["event"] == "preview")
    assert facts(seen).frames > 0, "the first section can be played while the second one is made"
    os.killpg(program.pid, signal.SIGKILL)
    program.wait()
    watched = cli("jobs", "watch", job, "--json", code=0)
    told = [json.loads(line) for line in watched.stdout.splitlines()]
    notes = [event["text"] for event in told if event.get("event") == "note"]
    assert any("Goes on with section" in text for text in notes)
    [made] = [event for event in told if event.get("event") == "artefact"]
    assert made["content_sha256"] == undisturbed.content_sha256


def test_memory_does_not_grow_with_the_film(tiny_framepack: Path, tmp_path: Path) -> None:
    """A shorter run of what the benchmark does with fifty sections."""
    program = Path(__file__).parents[2] / "scripts" / "bench_film_memory.py"
    out = tmp_path / "memory.json"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", program, "--sections", "10", "--window", "3", "--model", tiny_framepack,
         "--out", out],
        capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for film in json.loads(out.read_text())["films"]:
        assert film["frames"] == 121 and film["ram_peak_ratio"] <= 1.05
        assert film["disk_bytes"]["5"] < 1.5 * film["disk_bytes"]["2"], "segments and latents, and one state"
