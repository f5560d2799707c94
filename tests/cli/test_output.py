"""``-o FILE``: the name must say what is in it, and chooses the format where there is a choice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from studio.cli.output import fitted
from studio.errors import BadRequest
from studio.forms import FieldSpec
from toolbox import Cli

FORMAT = FieldSpec(
    name="format", kind="choice", label="Format", description="", default="mp4", choices=("mp4", "webm", "gif")
)


def fit(name: str, makes: tuple[str, ...] = (), **params: Any) -> dict[str, Any]:
    return fitted(Path(name), "model", makes, () if makes else (FORMAT,), params)


@pytest.mark.parametrize(
    ("name", "given", "params"),
    [
        ("x.webm", {}, {"format": "webm"}),
        ("x.GIF", {"seed": 1}, {"seed": 1, "format": "gif"}),
        ("x.mp4", {}, {}),
        ("x.webm", {"format": "webm"}, {"format": "webm"}),
        ("x", {"format": "gif"}, {"format": "gif"}),
        ("x.part", {}, {}),
        ("x.mp4", {"format": "nothing"}, {"format": "nothing"}),  # the engine says what there is
    ],
)
def test_the_name_chooses_the_format(name: str, given: dict[str, Any], params: dict[str, Any]) -> None:
    assert fit(name, **given) == params


@pytest.mark.parametrize(
    ("name", "makes", "given", "words"),
    [
        ("x.mp4", (), {"format": "webm"}, "x.mp4 ends in .mp4, but --format is webm. Name it x.webm, or give --format"),
        ("x.avi", (), {}, "x.avi ends in .avi; model makes .mp4, .webm, .gif. Name it x.mp4."),
        ("x.png", (), {"format": "gif"}, "x.png ends in .png; model makes .mp4, .webm, .gif. Name it x.gif."),
        ("x.txt", (), {}, "makes .mp4"),
        ("x.jpeg", ("image/png",), {}, "x.jpeg ends in .jpeg; model makes .png. Name it x.png."),
        ("x.txt", ("image/png",), {}, "makes .png"),
        ("x.flac", ("audio/wav",), {}, "makes .wav"),
        ("x.png", ("text/plain", "application/json"), {}, "makes .txt or .json"),
    ],
)
def test_a_name_that_says_something_else_is_refused(
    name: str, makes: tuple[str, ...], given: dict[str, Any], words: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        fit(name, makes, **given)
    assert words in f"{refused.value.what} {refused.value.hint}"


@pytest.mark.parametrize("name", ["x.txt", "x.json", "x.md", "x.py", "x"])
def test_text_may_have_any_name_of_text(name: str) -> None:
    assert fit(name, ("text/plain", "application/json")) == {}


def test_nothing_is_queued_under_a_wrong_name(cli: Cli, starter_home: Path, tmp_path: Path) -> None:
    target = tmp_path / "answer.mp4"
    refused = cli("run", "starter-text", "--prompt", "x", "-o", target, code=2)
    assert "answer.mp4 ends in .mp4; starter-text makes .txt or .json." in refused.stderr
    assert json.loads(cli("jobs", "list", "--json", code=0).stdout) == []
    assert not target.exists()
