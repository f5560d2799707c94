"""A family from a package that Studio has never heard of: found by name, with flags, recipe and catalogue entry."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from studio.core import Studio
from studio.errors import BadRequest, NotFound, StudioError
from toolbox import Cli, install_family

FAMILY = Path(__file__).parent / "plugins" / "toyfamily" / "family.py"


def test_the_example_stays_small_enough_to_quote() -> None:
    assert len(FAMILY.read_text().splitlines()) <= 40


def test_from_python_by_its_entry_point_name(studio: Studio) -> None:
    [made] = studio.run("toy", prompt="the sea", words=20, seed=3)
    assert len(made.text.split()) == 20
    [again] = studio.run("toy", prompt="the sea", words=20, seed=3)
    [other] = studio.run("toy", prompt="the sea", words=20, seed=4)
    assert made.content_sha256 == again.content_sha256 != other.content_sha256
    assert made.recipe["model"] == "toy" and made.recipe["params"] == {"prompt": "the sea", "words": 20, "seed": 3}


def test_inline_and_worker_make_the_same(studio: Studio, tmp_path: Path) -> None:
    [by_worker] = studio.run("toy", seed=9)
    with Studio(tmp_path / "other", executor="inline") as inline:
        [here] = inline.run("toy", seed=9)
    assert here.content_sha256 == by_worker.content_sha256


def test_the_events_of_a_run(inline: Studio) -> None:
    events = list(inline.stream("toy", words=4, seed=1))
    kinds = [event.event for event in events]
    assert kinds[0] == "queued" and kinds[-1] == "done" and kinds[-2] == "artefact"
    words = "".join(event.text for event in events if event.event == "token")
    [made] = [event for event in events if event.event == "artefact"]
    assert words.split() == made.text.split()


def test_from_the_command_line(cli: Cli, plugins: Path, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "poem.txt"
    done = cli("run", "toy", "--prompt", "the moon", "--words", "7", "--seed", "5", "--json", "-o", target, code=0)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert {"queued", "token", "artefact", "done"} <= {line["event"] for line in lines}
    [made] = [line for line in lines if line["event"] == "artefact"]
    assert {"id", "path", "media_type", "recipe", "content_sha256"} <= made.keys()
    assert len(target.read_text().split()) == 7
    recipe = json.loads(Path(str(target) + ".recipe.json").read_text())
    assert recipe["seed"] == 5 and recipe["content_sha256"] == made["content_sha256"]
    like = cli("run", "--like", target, "--json", code=0)
    compared = json.loads(like.stdout.splitlines()[-1])
    assert compared == {"event": "compared", "same_content": True, "content_sha256": made["content_sha256"]}


def test_its_flags_and_its_row(cli: Cli, plugins: Path) -> None:
    shown = cli("run", "toy", "--help", code=0).stdout
    assert "--prompt" in shown and "--words" in shown and "1 to 100,000" in shown
    rows = json.loads(cli("models", "list", "--json", code=0).stdout)
    [row] = [row for row in rows if row["id"] == "toy"]
    assert {"id", "pipeline", "task", "proof", "licence", "installed"} <= row.keys()
    assert (row["pipeline"], row["task"], row["proof"], row["installed"]) == ("toy", "text->text", "none", True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("run", "toi"), "Did you mean toy"),
        (("run", "toy", "--wrods", "3"), "Did you mean --words"),
        (("run", "toy", "--words", "-1"), "the limit is at least 1"),
        (("run", "toy", "--words", "1000000000"), "the limit is at most 100,000"),
        (("run", "toy", "--words", "many"), "words is"),
    ],
)
def test_a_bad_request_is_one_line_and_exit_code_2(cli: Cli, plugins: Path, args: tuple[str, ...], words: str) -> None:
    done = cli(*args, code=2)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1 and words in done.stderr


def test_a_failed_job_is_exit_code_1_and_a_json_line(cli: Cli, plugins: Path) -> None:
    done = cli("run", "faulty", "--fault", "plain", "--json", code=1)
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["event"] == "failed"
    assert (last["error"], last["hint"]) == ("The moon is not in the sky.", "Wait for the night.")


def package(folder: Path, name: str, models: str | None = None, points: dict[str, str] | None = None) -> None:
    shutil.copytree(FAMILY.parent, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    if models is not None:
        (folder / name / "models.yaml").write_text(models)
    install_family(folder, name, points or {name: f"{name}.family:Toy"})


def test_a_package_brings_its_own_catalogue(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    package(folder, "poems", "- {id: short-poem, pipeline: poems, defaults: {words: 3}, proof: tiny}\n")
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))
    with Studio(home) as studio:
        [made] = studio.run("short-poem", seed=1)
        assert len(made.text.split()) == 3
        assert "poems" not in studio.catalogue.specs, "an entry names the family: no implicit one"
        [words] = [field for field in studio.fields("short-poem") if field.name == "words"]
        assert (words.default, words.required) == (3, False)


def test_the_user_adds_an_entry_in_the_home(home: Path, plugins: Path) -> None:
    (home / "models.yaml").write_text("- {id: my-toy, pipeline: toy, defaults: {words: 2}}\n")
    with Studio(home) as studio:
        assert len(studio.run("my-toy")[0].text.split()) == 2


def test_an_id_is_taken_once(home: Path, plugins: Path) -> None:
    (home / "models.yaml").write_text("- {id: starter-text, pipeline: toy}\n")
    with Studio(home) as studio:
        assert studio.models.get("starter-text").pipeline == "text-llm", "the first entry stays"
        [fault] = studio.catalogue.faults
        assert re.search(r"'starter-text' stands in .*models.yaml and in .*models.yaml", fault)
        with pytest.raises(NotFound, match="Left out: The model id 'starter-text'"):
            studio.models.get("something-else")


def test_a_package_that_cannot_be_imported_harms_only_itself(
    home: Path, plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    folder = tmp_path / "site"
    package(folder, "broken")
    (folder / "broken" / "family.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{plugins}")
    rows = json.loads(cli("models", "list", "--json", code=0).stdout)
    tasks = {row["id"]: row["task"] for row in rows}
    assert tasks["toy"] == "text->text" and tasks["broken"].startswith("broken: ")
    done = cli("run", "broken", code=1)
    assert "cannot be imported: ModuleNotFoundError" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize("name", ["Toy_Two", "toy two", "../toy"])
def test_a_name_that_cannot_be_an_id_is_refused(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    folder = tmp_path / "site"
    package(folder, "oddly", points={name: "oddly.family:Toy"})
    monkeypatch.syspath_prepend(str(folder))
    with pytest.raises(BadRequest, match="small letters"):
        Studio(home)


def test_two_packages_with_one_name_are_refused(
    home: Path, plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    folder = tmp_path / "site"
    package(folder, "rival", points={"toy": "rival.family:Toy"})
    monkeypatch.setenv("PYTHONPATH", f"{folder}:{plugins}")
    done = cli("models", "list")
    assert done.returncode != 0
    assert "Two installed packages offer a pipeline 'toy'" in done.stderr and "Uninstall one" in done.stderr


def test_what_is_no_pipeline_is_refused(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    package(folder, "nothing", points={"nothing": "nothing.family:TEXT"})
    monkeypatch.syspath_prepend(str(folder))
    with Studio(home) as studio:
        with pytest.raises(StudioError, match="is not a subclass of"):
            studio.run("nothing")
        with pytest.raises(NotFound, match="Did you mean nothing"):
            studio.registry.get("nothin")


HEAVY = {"torch", "diffusers", "transformers", "llama_cpp", "gradio", "PIL", "huggingface_hub"}


@pytest.mark.parametrize(
    "code",
    [
        "import studio, studio.plugin",
        "import studio.core",
        "from studio.cli.main import app\ntry: app(['--help'])\nexcept SystemExit: pass",
        "from studio.cli.main import app\ntry: app(['models', 'list'])\nexcept SystemExit: pass",
        "from studio.cli.main import app\ntry: app(['run', 'starter-text', '--help'])\nexcept SystemExit: pass",
        "from studio import Studio\nwith Studio() as s: assert s.run('toy', words=2)",
    ],
)
def test_a_fresh_interpreter_loads_nothing_heavy(home: Path, plugins: Path, code: str) -> None:
    """The last one computes in a worker: this process stays light all the same."""
    tail = f"\nimport sys; print('heavy:', sorted({HEAVY!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code + tail], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "heavy: []"
