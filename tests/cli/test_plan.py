"""``studio plan`` as a person types it."""

from __future__ import annotations

import json
from pathlib import Path
from unittest.mock import patch

import pytest

from studio.cli.plan import missing
from studio.cli.run import foretold
from studio.cli.show import table
from studio.core import Studio
from studio.pipeline import Plan
from studio.units import GIB, format_seconds
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


def test_what_was_planned_with_and_the_settings_are_said_in_words(cli: Cli, home: Path) -> None:
    said = cli("plan", "qwen3-8b", "--vram", "6", code=0).stdout
    assert "Settings: context 8,192 tokens · KV cache q8_0 · all layers on the card." in said
    assert "n_ctx" not in said and "True" not in said
    assert "Planned within 5.5 GiB of the card and " in said
    assert "too little beside the screen" in cli("plan", "starter-text", "--vram", "0.4", code=0).stdout


def test_a_model_that_is_not_here_says_how_to_get_it_and_whether_the_disk_has_room(cli: Cli, home: Path) -> None:
    assert "The model is not on this machine yet: studio models pull qwen3-8b" in cli("plan", "qwen3-8b", code=0).stdout
    assert "not on this machine" not in cli("plan", "starter-image", code=0).stdout, "that comes with Studio"
    told = missing(Plan(model="large", disk_bytes=40 * GIB), 10 * GIB)
    assert "need 40.0 GiB; the disk has 10.0 GiB free" in told


def test_what_does_not_fit_is_said_before_the_table_of_what_would(cli: Cli, home: Path) -> None:
    said = cli("plan", "mistral-small-3.1-24b", "--vram", "1", "--ram", "4", code=1).stdout
    assert said.startswith("mistral-small-3.1-24b does not fit. ")
    assert said.index("does not fit") < said.index("What would fit:") < said.index("Phase")


def test_a_narrow_terminal_leaves_the_reasons_out_and_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    headers, rows = ("What", "Why"), [("x" * 60, "because it is so")]
    with patch("sys.stdout.isatty", return_value=True), patch.dict("os.environ", {"COLUMNS": "90"}):
        table(headers, rows, wraps="Why", least=36)
        narrow = capsys.readouterr().out
        table(headers, rows, wraps="Why", least=20)
        wide = capsys.readouterr().out
    assert "because" not in narrow and "(Why: in a wider terminal" in narrow
    assert "because it is so" in wide and "wider" not in wide


def test_what_the_next_request_takes_is_said_where_loading_is_long(cli: Cli, home: Path) -> None:
    asked = ("plan", "flux.1-schnell", "--vram", "24")
    told = json.loads(cli(*asked, "--json", code=0).stdout)
    loading = sum(phase["seconds"] for phase in told["phases"] if phase["name"] == "load")
    assert loading > 0.05 * told["seconds"]
    once = format_seconds(told["seconds"] - loading)
    said = f"about {format_seconds(told['seconds'])} with loading, {once} once it is loaded."
    assert said in cli(*asked, code=0).stdout
    long = cli("plan", "framepack-f1-i2v-hy", "--vram", "6", "--ram", "32", "--seconds", "60", code=0).stdout
    assert "once it is loaded" not in long, "a minute of loading before hours"


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
        (["starter-text", "--temperature", "99"], "--temperature is 99.0; the limit is at most 5."),
        (["starter-image", "--num-images", "99"], "--num-images is 99; the limit is at most 8."),
        (["gemma-3-12b", "--images", "nowhere.png"], "--images: there is no file 'nowhere.png'."),
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
    assert "(required)" not in text and "none is required" in text
    assert "--batch" not in text, "that is instead of a model"
    assert 'Did you mean --prompt "hello there"?' in cli("plan", "starter-text", "hello there", code=2).stderr


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
    assert sorted(job["id"] for job in told["jobs"]) == ["idea", "large", "tale"]
    assert told["peak_ram_bytes"] == max(job["peak_ram_bytes"] for job in told["jobs"])
    assert told["disk_bytes"] == sum({job["model"]: job["disk_bytes"] for job in told["jobs"]}.values())
    alone = sum(job["seconds"] for job in told["jobs"])
    loading = min(job["phases"][0]["seconds"] for job in told["jobs"])
    assert alone - 1.01 * loading <= told["seconds"] <= alone  # the starter may load once for both
    text = cli("plan", "--batch", file, "--ram", "16").stdout
    assert "3 jobs" in text
    assert "tale" in text


def test_jobs_of_a_matrix_that_take_the_same_are_one_line(cli: Cli, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(
        "defaults: {model: starter-text, params: {max_tokens: 10}}\n"
        "jobs:\n"
        "  - {id: many, matrix: {prompt: [a, b, c], seed: [1, 2]}}\n"
        "  - {id: one, params: {prompt: d}}\n  - {id: two, params: {prompt: e}}\n"
    )
    lines = cli("plan", "--batch", file, "--ram", "4", code=0).stdout.splitlines()
    [many] = [line for line in lines if line.startswith("many")]
    assert many.startswith("many (6 jobs) ") and many.endswith(" each")
    assert {"one", "two"} <= {line.split()[0] for line in lines if line}
    assert "on the card" not in lines[-1] and "8 jobs" in lines[-1]
    assert len(json.loads(cli("plan", "--batch", file, "--json", code=0).stdout)["jobs"]) == 8


def test_a_batch_that_does_not_fit_ends_with_1(cli: Cli, home: Path, tmp_path: Path) -> None:
    file = tmp_path / "much.yaml"
    file.write_text("jobs:\n  - {id: much, model: mistral-small-3.1-24b, params: {prompt: Hello.}}\n")
    done = cli("plan", "--batch", file, "--vram", "1", "--ram", "4", code=1)
    assert "much does not fit." in done.stdout
    file.write_text("jobs:\n  - {id: bad, model: starter-text, params: {prompt: x, temperature: 99}}\n")
    assert "bad: temperature" in cli("plan", "--batch", file, code=2).stderr


def test_a_long_job_says_how_long_it_will_take_and_a_short_one_nothing(starter_home: Path) -> None:
    with Studio(starter_home, executor="inline") as studio:
        long = foretold(studio, "starter-text", {"prompt": "x", "max_tokens": 8000})
        assert long.startswith("this takes about ") and long.endswith("studio plan starter-text")
        assert foretold(studio, "starter-text", {"prompt": "x", "max_tokens": 8}) == ""
        assert foretold(studio, "starter-text", {"prompt": "x", "context": 999_999}) == "", "the job says what is wrong"
