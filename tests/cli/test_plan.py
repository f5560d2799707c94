"""``studio plan`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.units import GIB
from toolbox import Cli

NEEDED = {"model", "fits", "peak_vram_bytes", "peak_ram_bytes", "disk_bytes", "seconds", "phases"}


def test_a_plan_needs_no_download_and_no_prompt(cli: Cli, home: Path) -> None:
    told = json.loads(cli("plan", "starter-text", "--json", code=0).stdout)
    assert set(told) >= NEEDED
    assert (told["model"], told["fits"], told["peak_vram_bytes"]) == ("starter-text", True, 0)
    assert "nearest" not in told
    assert {"name", "vram_bytes", "ram_bytes", "seconds"} <= set(told["phases"][0])
    text = cli("plan", "starter-text", code=0).stdout
    assert "starter-text fits." in text
    assert "generate" in text
    assert "estimated" in text
    assert json.loads(cli("jobs", "list", "--json", code=0).stdout) == []


def test_a_card_is_imagined_and_the_output_says_so(cli: Cli, home: Path) -> None:
    done = cli("plan", "qwen3-8b", "--vram", "6", "--json", code=0)
    told = json.loads(done.stdout)
    if told["imagined"]:  # this machine has no card
        assert 0 < told["peak_vram_bytes"] <= 6 * GIB
        assert "imagined" in cli("plan", "qwen3-8b", "--vram", "6", code=0).stdout


def test_parameters_change_the_plan(cli: Cli, home: Path) -> None:
    small, large = (
        json.loads(cli("plan", "starter-text", "--context", size, "--json", code=0).stdout) for size in ("512", "8192")
    )
    assert small["peak_ram_bytes"] < large["peak_ram_bytes"]
    assert json.loads(cli("plan", "starter-text", "--prefer", "speed", "--json", code=0).stdout)["prefer"] == "speed"


def test_what_does_not_fit_ends_with_1_and_the_nearest_that_would(cli: Cli, home: Path) -> None:
    done = cli("plan", "mistral-small-3.1-24b", "--vram", "1", "--ram", "4", "--json", code=1)
    told = json.loads(done.stdout)
    assert set(told) >= NEEDED | {"nearest"}
    assert not told["fits"]
    assert "would fit" in told["nearest"]
    assert told["peak_vram_bytes"] + told["peak_ram_bytes"] > 5 * GIB
    text = cli("plan", "mistral-small-3.1-24b", "--vram", "1", "--ram", "4", code=1)
    assert "does not fit" in text.stdout
    assert "would fit" in text.stdout


@pytest.mark.parametrize(
    ("args", "said"),
    [
        ([], "needs a model"),
        (["starter-text", "--batch", "x.yaml"], "not both"),
        (["no-such-model"], "no-such-model"),
        (["starter-text", "--vram", "much"], "number of gigabytes"),
        (["starter-text", "--ram", "-1"], "number of gigabytes"),
        (["starter-text", "--prefer", "luck"], "luck"),
        (["starter-text", "--colour", "red"], "--colour"),
        (["starter-text", "--temperature", "99"], "temperature"),
        (["starter-text", "--context", "999999"], "8,192"),
        (["--batch", "nowhere.yaml"], "nowhere.yaml"),
    ],
)
def test_bad_input_ends_with_2_and_one_line(cli: Cli, home: Path, args: list[str], said: str) -> None:
    done = cli("plan", *args, code=2)
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_lists_the_limits_and_the_models_parameters(cli: Cli, home: Path) -> None:
    assert "--vram" in cli("plan", "--help", code=0).stdout
    text = cli("plan", "starter-text", "--help", code=0).stdout
    assert "--prefer" in text
    assert "--max-tokens" in text


def test_a_batch_is_the_sum_of_its_times_and_its_largest_peaks(cli: Cli, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "three.yaml"
    file.write_text(
        "defaults: {model: starter-text}\n"
        "jobs:\n"
        "  - {id: idea, params: {prompt: An animal., max_tokens: 100}}\n"
        '  - {id: tale, needs: [idea], params: {prompt: "About ${idea.text}", max_tokens: 200}}\n'
        "  - {id: large, model: qwen3-4b, params: {prompt: Again., max_tokens: 10}}\n"
    )
    told = json.loads(cli("plan", "--batch", file, "--ram", "16", "--json").stdout)
    assert [job["id"] for job in told["jobs"]] == ["idea", "large", "tale"] or len(told["jobs"]) == 3
    assert told["peak_ram_bytes"] == max(job["peak_ram_bytes"] for job in told["jobs"])
    assert told["disk_bytes"] == sum({job["model"]: job["disk_bytes"] for job in told["jobs"]}.values())
    alone = sum(job["seconds"] for job in told["jobs"])
    loading = min(job["phases"][0]["seconds"] for job in told["jobs"])
    assert alone - 1.01 * loading <= told["seconds"] <= alone  # the starter may load once for both
    text = cli("plan", "--batch", file, "--ram", "16").stdout
    assert "3 jobs" in text
    assert "tale" in text


def test_a_batch_that_does_not_fit_ends_with_1(cli: Cli, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "much.yaml"
    file.write_text("jobs:\n  - {id: much, model: mistral-small-3.1-24b, params: {prompt: Hello.}}\n")
    done = cli("plan", "--batch", file, "--vram", "1", "--ram", "4", code=1)
    assert "much does not fit." in done.stdout
    file.write_text("jobs:\n  - {id: bad, model: starter-text, params: {prompt: x, temperature: 99}}\n")
    assert "bad: temperature" in cli("plan", "--batch", file, code=2).stderr
