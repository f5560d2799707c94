"""What the documents tell people to type is typed here."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document: str, language: str) -> list[tuple[str, str]]:
    """``(words after the language, content)`` of every fenced block of a language."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [(rest.strip(), body) for kind, rest, body in FENCE.findall(text) if kind == language]


def environment(**more: str) -> dict[str, str]:
    bin_folder = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": bin_folder + os.pathsep + os.environ["PATH"], **more}


def commands() -> list[str]:
    lines = [
        line.split("  #")[0].strip()
        for rest, body in blocks("README.md", "bash")
        if not rest
        for line in body.splitlines()
        if line.strip()
    ]
    assert all(line.startswith("studio ") for line in lines)
    return lines


@pytest.mark.timeout(420)  # every command, one after the other
def test_readme_commands(starter_home: Path, tmp_path: Path) -> None:
    """In one home and one folder, in order, as a reader would."""
    (tmp_path / "scripts").symlink_to(ROOT / "scripts")
    for command in commands():
        done = subprocess.run(
            shlex.split(command),
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        assert done.stdout.strip(), command
    assert (tmp_path / "hello.txt").read_text()
    assert (tmp_path / "hello.txt.recipe.json").is_file()


def test_every_command_of_the_readme_is_run_or_says_why_not() -> None:
    reasons = [rest for rest, _ in blocks("README.md", "bash") if rest]
    assert len(commands()) >= 9
    assert all(re.match(r"not-run: \w+|the-page-runs$", reason) for reason in reasons)


ALONE = [code for rest, code in blocks("README.md", "python") if not rest]
"""Those that need no page: tests/ui runs the others."""


@pytest.mark.parametrize("number", range(len(ALONE)))
def test_readme_python(number: int, starter_home: Path, tmp_path: Path) -> None:
    code = ALONE[number]
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()


def test_readme_batch_is_valid(starter_home: Path, tmp_path: Path) -> None:
    from studio import Studio
    from studio.batch import read_batch

    [(_, body)] = blocks("README.md", "yaml")
    (tmp_path / "fable.yaml").write_text(body, encoding="utf-8")
    name, steps = read_batch(tmp_path / "fable.yaml")
    assert (name, [step.name for step in steps]) == ("fable", ["animal", "fable"])
    with Studio(starter_home) as studio:
        for step in steps:
            studio.check(step.model, step.params)


def test_the_family_of_contributing_runs_by_name(home: Path, tmp_path: Path) -> None:
    """The example is installed as a package of its own and used from the command line and from Python."""
    written = {
        rest.removeprefix("file="): body
        for kind in ("python", "toml")
        for rest, body in blocks("CONTRIBUTING.md", kind)
    }
    project = tomllib.loads(written["pyproject.toml"])
    family = tmp_path / "studio_shout" / "family.py"
    family.parent.mkdir()
    (family.parent / "__init__.py").touch()
    family.write_text(written["studio_shout/family.py"], encoding="utf-8")
    info = tmp_path / "studio_shout-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: studio-shout\nVersion: 1.0\n", encoding="utf-8")
    [(name, value)] = project["project"]["entry-points"]["studio.pipelines"].items()
    (info / "entry_points.txt").write_text(f"[studio.pipelines]\n{name} = {value}\n", encoding="utf-8")

    def ask(*command: str) -> str:
        env = environment(PYTHONPATH=str(tmp_path))
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    made = ask("studio", "run", "shout", "--prompt", "hello there", "--marks", "3")
    assert Path(made.strip()).read_text(encoding="utf-8") == "HELLO THERE!!!"
    code = "from studio import Studio\nwith Studio() as s: print(s.run('shout', prompt='again')[0].text)"
    assert ask(sys.executable, "-c", code).strip() == "AGAIN!"


def test_the_model_of_contributing_is_valid(home: Path) -> None:
    from studio.catalogue import Catalogue
    from studio.registry import Registry

    [(_, body)] = blocks("CONTRIBUTING.md", "yaml")
    (home / "models.yaml").write_text(body, encoding="utf-8")
    spec = Catalogue(Registry(), home).get("my-model")
    assert (spec.source and spec.source.repo) == "someone/My-Model-GGUF"


@pytest.mark.timeout(900)  # the first time, every image model's blocks are run without weights
def test_the_table_of_cards_is_what_the_planner_says() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "card_table.py"), "--check"]
    done = subprocess.run(command, check=False, timeout=840)
    assert done.returncode == 0, "run: python scripts/card_table.py"


def test_all_weights_that_are_shipped_are_named_with_their_hash() -> None:
    folder = ROOT / "pipelines" / "studio_pipelines"
    told = dict(
        re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", (ROOT / "THIRD_PARTY.md").read_text(), re.MULTILINE)
    )
    shipped = [file for ending in ("*.safetensors", "tokenizer.json") for file in folder.rglob(ending)]
    assert told == {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest() for file in shipped
    }
