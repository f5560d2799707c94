"""The commands as a person types them, each in a process of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from studio.cli import models
from toolbox import Cli


def test_models_list_and_show(cli: Cli, starter_home: Path) -> None:
    rows = json.loads(cli("models", "list", "--json", code=0).stdout)
    starter = next(row for row in rows if row["id"] == "starter-text")
    assert {"id", "pipeline", "task", "proof", "licence", "installed"} <= set(starter)
    assert (starter["installed"], starter["proof"], starter["licence"]) == (True, "weights", "Apache-2.0")
    assert not next(row for row in rows if row["id"] == "qwen3-8b")["installed"]
    shown = json.loads(cli("models", "show", "starter-text", "--json", code=0).stdout)
    assert "prompt" in [field["name"] for field in shown["params"]]
    assert Path(shown["local"]["model"]).is_file()


def test_missing_weights_say_how_to_get_them_and_how_large_they_are(cli: Cli, home: Path) -> None:
    done = cli("run", "qwen3-8b", "--prompt", "hello", code=2)
    assert "studio models pull qwen3-8b" in done.stderr
    assert "GiB" in done.stderr
    assert json.loads(cli("jobs", "list", "--json", code=0).stdout) == []


def test_a_size_that_nobody_told_is_that_of_the_networks(cli: Cli, home: Path) -> None:
    rows = {row["id"]: row for row in json.loads(cli("models", "list", "--json", code=0).stdout)}
    assert rows["sdxl"]["bytes"] is None
    assert 6e9 < rows["sdxl"]["about_bytes"] < 8e9
    lines = cli("models", "list", code=0).stdout.splitlines()
    assert "~6.5 GiB" in next(line for line in lines if line.startswith("sdxl "))
    assert "about 6.5 GiB" in cli("models", "show", "sdxl", code=0).stdout
    assert "(about 6.5 GiB)" in cli("run", "sdxl", "--prompt", "a barn", code=2).stderr
    assert "None" not in cli("models", "show", "starter-image", code=0).stdout


def test_the_list_of_models_is_readable_in_a_hundred_columns(
    starter_home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    models.list_models(as_json=False)
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert max(map(len, said.splitlines())) <= 100
    by_model = {line.split()[0]: line for line in said.splitlines() if line.strip()}
    assert "Lightricks' own …" in by_model["ltx-video"]
    assert by_model["starter-text"].rstrip().endswith("yes")
    assert "weights: it ran with its own weights" in said, "what the column means is said below"
    models.show_model("ltx-video", as_json=False)
    said = capsys.readouterr().out
    assert "ltx-video-2b-v0.9.license.txt" in said, "the whole licence"
    assert max(map(len, said.splitlines())) <= 100


def test_where_a_licence_does_not_hold_is_said_before_the_download(cli: Cli, home: Path) -> None:
    said = "does not hold in the European Union, the United Kingdom and South Korea"
    shown = cli("models", "show", "framepack-i2v-hy", code=0).stdout
    assert said in shown
    assert "Parts from hunyuanvideo-community/HunyuanVideo: " in shown
    pulled = cli("models", "pull", "framepack-i2v-hy", "--offline", code=1).stderr
    assert 0 <= pulled.index(said) < pulled.index("Studio is offline")
    first = cli("models", "pull", "framepack-i2v-hy", "--offline", "--json", code=1).stdout.splitlines()[0]
    assert said in json.loads(first)["text"]


def test_doctor_says_which_llama_build_is_installed(cli: Cli, starter_home: Path) -> None:
    told = json.loads(cli("doctor", "--json", code=0).stdout)
    assert told["llama_cpp"]["version"] == version("llama-cpp-python")
    assert told["llama_cpp"]["build"]
    assert told["faults"] == []
    text = cli("doctor", code=0).stdout
    assert told["llama_cpp"]["build"] in text
    assert "All is well." in text


def test_doctor_finds_a_lost_file_and_has_it_made_again(cli: Cli, starter_home: Path, plugins: Path) -> None:
    events = [json.loads(line) for line in cli("run", "toy", "--seed", "3", "--json", code=0).stdout.splitlines()]
    path = Path(next(event["path"] for event in events if event["event"] == "artefact"))
    before = path.read_bytes()
    path.unlink()
    assert str(path) in cli("doctor", code=1).stdout
    assert "queued again" in cli("doctor", "--repair", code=0).stdout
    cli("jobs", "watch", code=0)
    assert path.read_bytes() == before


def test_chat_remembers_the_conversation(cli: Cli, starter_home: Path) -> None:
    said = "My name is Ada.\n/system Be brief.\nWhat is my name?\n/undo\n/quit\n"
    cli("chat", "starter-text", code=0, input=said)
    newest, first = json.loads(cli("jobs", "list", "--json", code=0).stdout)
    assert "messages" not in first["params"] or first["params"]["messages"] == []
    assert [turn["role"] for turn in newest["params"]["messages"]] == ["user", "assistant"]
    assert newest["params"]["system"] == "Be brief."


def test_chat_refuses_a_model_that_cannot(cli: Cli, home: Path, plugins: Path) -> None:
    assert "cannot chat" in cli("chat", "toy", code=2).stderr


def test_output_goes_where_it_is_wanted(cli: Cli, starter_home: Path, tmp_path: Path) -> None:
    target = tmp_path / "new" / "answer.txt"
    cli("run", "starter-text", "--prompt", "Say hello.", "--max-tokens", "8", "--seed", "1", "-o", target, code=0)
    recipe = json.loads((tmp_path / "new" / "answer.txt.recipe.json").read_text())
    assert recipe["params"]["prompt"] == "Say hello."
    assert target.read_text()
    refused = cli("run", "starter-text", "--prompt", "x", "-o", tmp_path, code=2)
    assert "folder" in refused.stderr


def test_a_prompt_longer_than_the_context_fails_its_job_with_both_numbers(cli: Cli, starter_home: Path) -> None:
    done = cli("run", "starter-text", "--prompt", "-", "--context", "512", code=1, input="word " * 600)
    assert "512" in done.stderr
    assert "tokens" in done.stderr
    assert [row["state"] for row in json.loads(cli("jobs", "list", "--json").stdout)] == ["failed"]


def test_a_bad_request_with_json_is_a_failed_object(cli: Cli, home: Path) -> None:
    done = cli("run", "starter-txt", "--prompt", "x", "--json", code=2)
    told = json.loads(done.stdout)
    assert told["event"] == "failed"
    assert "starter-text" in told["hint"]


def test_version_and_help_are_light(home: Path) -> None:
    code = (
        "import sys; sys.argv = ['studio', '--help']\n"
        "from studio.cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'llama_cpp', 'transformers', 'gradio') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"
