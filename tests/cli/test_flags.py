"""Flags are made of field specs; what cannot be converted is left for the validation to refuse."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from studio.cli.flags import Parser, add_fields, parse
from studio.errors import BadRequest
from studio.forms import field_specs
from studio.pipeline import Params, input_file


class Everything(Params):
    prompt: str = Field(description="100 % text")
    num_frames: int = Field(default=3, ge=1, le=10, description="How many.")
    guidance_scale: float = Field(
        default=1.5, ge=0, le=20, description="How strict.", json_schema_extra={"advanced": True}
    )
    tiled: bool = Field(default=False, description="In tiles.")
    mode: Literal["fast", "good"] = Field(default="fast", description="Which.")
    images: list[Annotated[Path, input_file("image/png")]] = Field(default=[], description="Pictures.")
    stop: list[str] = Field(default=[], description="Ends.")
    json_schema: dict[str, Any] | None = Field(default=None, description="A schema.")


FIELDS = field_specs(Everything)


def parser() -> Parser:
    made = Parser("studio run model", "test")
    add_fields(made, FIELDS)
    return made


def given(*args: str) -> dict[str, Any]:
    return parse(parser(), list(args), FIELDS)[1]


def test_every_kind_of_flag() -> None:
    assert given() == {}
    assert given("--num-frames", "7", "--guidance-scale", "2", "--tiled", "--mode", "good") == {
        "num_frames": 7, "guidance_scale": 2.0, "tiled": True, "mode": "good",
    }  # fmt: skip
    assert given("--no-tiled") == {"tiled": False}
    assert given("--images", "a.png", "b.png", "--images", "c.png")["images"] == ["a.png", "b.png", "c.png"]
    assert given("--json-schema", '{"type": "object"}')["json_schema"] == {"type": "object"}
    assert given("--seed", "-1") == {"seed": -1}


def test_json_from_a_file_and_text_from_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "schema.json").write_text('{"type": "array"}')
    assert given("--json-schema", str(tmp_path / "schema.json"))["json_schema"] == {"type": "array"}
    monkeypatch.setattr("sys.stdin", io.StringIO("from a pipe"))
    assert given("--prompt", "-") == {"prompt": "from a pipe"}


def test_what_does_not_convert_stays_text() -> None:
    assert given("--num-frames", "many") == {"num_frames": "many"}


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--num-frame", "3"], "--num-frames"),
        (["--promt", "x"], "--prompt"),
        (["--prompt"], "expected one argument"),
        (["--json-schema", "{"], "is not JSON"),
        (["stray"], "stray"),
    ],
)
def test_bad_flags_are_one_line(args: list[str], words: str) -> None:
    with pytest.raises(BadRequest) as refused:
        given(*args)
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)


def test_help_names_bounds_defaults_and_groups() -> None:
    text = parser().format_help()
    assert "1 to 10; default 3" in " ".join(text.split())
    assert text.index("--guidance-scale", text.index("advanced parameters")) > 0
    assert "100 % text (required)" in " ".join(text.split())
    assert "In tiles. (default off)" in " ".join(text.split()), "in words, not as Python writes it"
    assert "--images FILE" in text


def test_words_without_a_flag_are_offered_as_the_prompt() -> None:
    with pytest.raises(BadRequest, match="No flag stands before 'a red apple'") as caught:
        given("a", "red", "apple", "--num-frames", "3")
    assert caught.value.hint == 'Did you mean --prompt "a red apple"?'
    with pytest.raises(BadRequest, match="has no flag '--promt'"):
        given("--promt", "a red apple")
