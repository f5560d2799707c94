"""The starter model through the whole house: the worker has llama.cpp, the program that asks has not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from toolbox import Cli

CODE = """
import sys
from studio import Studio
with Studio() as studio:
    [made] = studio.run("starter-text", prompt="Name a colour.", max_tokens=4, seed=1)
print(sorted({"torch", "llama_cpp", "transformers", "diffusers"} & set(sys.modules)), bool(made.text.strip()))
"""


def test_the_asking_process_never_loads_what_computes(starter_home: Path) -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.splitlines()[-1] == "[] True", done.stderr


def test_like_makes_the_same_again(starter_home: Path, cli: Cli, tmp_path: Path) -> None:
    target = tmp_path / "answer.txt"
    cli("run", "starter-text", "--prompt", "Name a colour.", "--max-tokens", "6", "--seed", "3", "-o", target, code=0)
    done = cli("run", "--like", target, "--json", code=0)
    assert json.loads(done.stdout.splitlines()[-1])["same_content"] is True
    other = cli("run", "--like", target, "--seed", "4", "--json", code=0)
    assert '"event": "compared"' not in other.stdout, "another request has nothing to be compared with"


def test_a_model_that_is_not_here_names_the_command_that_gets_it(home: Path, cli: Cli) -> None:
    done = cli("run", "starter-text", "--prompt", "x", code=2)
    assert "studio models pull starter-text" in done.stderr and len(done.stderr.splitlines()) == 1


def test_a_file_by_its_path_from_any_folder(starter_home: Path, cli: Cli, tmp_path: Path) -> None:
    """The job is stored with the whole path, so that another process can run it and ``--like`` can make it again."""
    [model] = list((starter_home / "models" / "starter-text").rglob("*.gguf"))
    target, ask = tmp_path / "answer.txt", ("--prompt", "Name a colour.", "--max-tokens", "3", "--seed", "1")
    cli("run", model.name, *ask, "-o", target, code=0, cwd=model.parent)
    assert json.loads(Path(f"{target}.recipe.json").read_text())["model"] == str(model.resolve())
    like = cli("run", "--like", target, "--json", code=0, cwd=tmp_path)
    assert json.loads(like.stdout.splitlines()[-1])["same_content"] is True
    for name in ("x" * 5000 + ".gguf", "missing.gguf", "folder/.gguf"):
        assert "There is no model" in cli("run", name, code=2).stderr
