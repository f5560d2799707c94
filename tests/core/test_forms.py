"""A parameter is declared once; forms come from it, and every bad value is one line that says the way out."""

from __future__ import annotations

import math
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from studio.core import Studio
from studio.errors import BadRequest
from studio.forms import FieldSpec, field_specs, validate
from studio.plugin import Params, input_file


class Kind(Enum):
    LOUD = "loud"
    QUIET = "quiet"


class Point(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    x: int = Field(description="How far.")


class Everything(Params):
    count: int = Field(default=1, ge=1, le=8, description="How many.", json_schema_extra={"unit": "pictures"})
    size: int = Field(default=512, gt=0, lt=4096, description="How large.")
    strength: float = Field(default=0.5, ge=0, le=1, description="How much.", json_schema_extra={"widget": "slider"})
    free: float = Field(default=1.0, description="Any number.")
    prompt: str = Field(min_length=1, max_length=20, description="What.", json_schema_extra={"widget": "text"})
    tiled: bool = Field(default=False, description="In pieces.", json_schema_extra={"advanced": True})
    mode: Literal["fast", "good"] = Field(default="fast", description="Which.", json_schema_extra={"group": "how"})
    kind: Kind = Field(default=Kind.LOUD, description="Which kind.", strict=False)
    maybe: int | None = Field(default=None, ge=0, le=9, description="Perhaps.")
    image: Annotated[Path, input_file("image/png")] | None = Field(default=None, description="A picture.")
    images: list[Annotated[Path, input_file("image/png", "image/jpeg")]] = Field(default=[], description="Several.")
    words: list[str] = Field(default=[], max_length=2, description="Some words.")
    points: list[Point] = Field(default=[], description="Objects.")
    table: dict[str, int] = Field(default={}, description="An object.")


FIELDS = {field.name: field for field in field_specs(Everything)}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("count", {"kind": "int", "minimum": 1, "maximum": 8, "default": 1, "unit": "pictures", "required": False}),
        ("size", {"kind": "int", "minimum": 0, "maximum": 4096}),
        ("strength", {"kind": "float", "minimum": 0, "maximum": 1, "widget": "slider"}),
        ("free", {"kind": "float", "minimum": None, "maximum": None}),
        ("prompt", {"kind": "str", "required": True, "widget": "text", "label": "Prompt", "description": "What."}),
        ("tiled", {"kind": "bool", "advanced": True}),
        ("mode", {"kind": "choice", "choices": ("fast", "good"), "group": "how"}),
        ("kind", {"kind": "choice", "choices": ("loud", "quiet")}),
        ("maybe", {"kind": "int", "minimum": 0, "maximum": 9, "default": None, "required": False}),
        ("image", {"kind": "file", "multiple": False, "accept": ("image/png",), "widget": "file"}),
        ("images", {"kind": "file", "multiple": True, "accept": ("image/png", "image/jpeg")}),
        ("words", {"kind": "str", "multiple": True}),
        ("points", {"kind": "json", "multiple": False}),
        ("table", {"kind": "json", "multiple": False}),
        ("seed", {"kind": "int", "minimum": 0, "maximum": 2**32 - 1, "group": "seed"}),
    ],
)
def test_every_kind_of_field(name: str, expected: dict[str, Any]) -> None:
    field = FIELDS[name]
    assert {key: getattr(field, key) for key in expected} == expected


def test_the_order_is_that_of_the_declaration_and_seed_is_last() -> None:
    assert list(FIELDS)[:3] == ["count", "size", "strength"]
    assert list(FIELDS)[-1] == "seed"


NUMBERS: list[tuple[str, Any, str]] = [
    ("count", -1, "count is -1; the limit is at least 1. Give a whole number from 1 to 8."),
    ("count", 0, "count is 0; the limit is at least 1. Give a whole number from 1 to 8."),
    ("count", 10**9, "count is 1000000000; the limit is at most 8. Give a whole number from 1 to 8."),
    ("count", 1e308, "count is 1e+308"),
    ("count", 1.5, "count is 1.5"),
    ("count", True, "count is true"),
    ("count", "7", 'count is "7"'),
    ("count", None, "count is null"),
    ("count", [1], "count is [1]"),
    ("size", 0, "size is 0; the limit is above 0."),
    ("size", 4096, "size is 4096; the limit is below 4,096."),
    ("strength", math.nan, "strength is NaN; it must be a finite number. Give a number from 0 to 1."),
    ("strength", math.inf, "strength is Infinity; it must be a finite number."),
    ("strength", -math.inf, "strength is -Infinity"),
    ("strength", 1e308, "strength is 1e+308; the limit is at most 1"),
    ("strength", -1, "strength is -1; the limit is at least 0."),
    ("strength", True, "strength is true"),
    ("strength", "0.5", 'strength is "0.5"'),
    ("free", math.nan, "free is NaN; it must be a finite number."),
    ("prompt", "", "prompt has 0 characters; the limit is at least 1."),
    ("prompt", "x" * 21, "prompt has 21 characters; the limit is at most 20."),
    ("prompt", 7, "prompt is 7"),
    ("tiled", 1, "tiled is 1"),
    ("tiled", "yes", 'tiled is "yes"'),
    ("mode", "best", "Choose one of: fast, good."),
    ("words", ["a", "b", "c"], "words has 3 items; the limit is at most 2."),
    ("words", "a", 'words is "a"'),
    ("words", ["a", 2], "words.1 is 2"),
    ("points", [{"x": "1"}], "points.0.x is "),
    ("image", 5, "image is 5"),
    ("seed", -1, "seed is -1; the limit is at least 0."),
    ("seed", 2**32, "seed is 4294967296; the limit is at most 4,294,967,295."),
    ("seed", 1.0, "seed is 1.0"),
]


@pytest.mark.parametrize(("name", "value", "line"), NUMBERS)
def test_a_bad_value_is_one_line(name: str, value: Any, line: str) -> None:
    with pytest.raises(BadRequest) as caught:
        validate(Everything, {"prompt": "x", name: value}, model="thing")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_points_take_json_as_strictly_as_the_rest() -> None:
    checked = validate(Everything, {"prompt": "x", "points": [{"x": 1}], "table": {"a": 1}, "kind": "quiet"})
    assert checked.points == [Point(x=1)] and checked.kind is Kind.QUIET


def test_missing_and_misspelt() -> None:
    with pytest.raises(BadRequest, match=r"^thing needs the parameter 'prompt'\."):
        validate(Everything, {}, model="thing")
    with pytest.raises(BadRequest, match=r"^thing has no parameter 'promt'\. Did you mean prompt"):
        validate(Everything, {"promt": "x"}, model="thing")


@pytest.mark.parametrize("value", [object(), {1, 2}, b"bytes", 10**5000], ids=["object", "set", "bytes", "huge"])
def test_what_is_no_plain_data_is_refused(value: object) -> None:
    with pytest.raises(BadRequest, match="not plain data"):
        validate(Everything, {"prompt": "x", "table": value})


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def test_too_deep_too_long_and_not_text() -> None:
    with pytest.raises(BadRequest, match="nested too deeply"):
        validate(Everything, {"prompt": "x", "points": nested(100_000)})
    with pytest.raises(BadRequest, match="recursion limit"):
        validate(Everything, {"prompt": "x", "points": nested(500)})
    with pytest.raises(BadRequest, match="the limit is 4,000,000"):
        validate(Everything, {"prompt": "x" * 5_000_000})
    with pytest.raises(BadRequest, match="cannot be read"):
        validate(Everything, {"prompt": "\udcff"})


def test_french_labels_stand_beside_the_family(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "speaking.py").write_text(
        "from pydantic import Field\nfrom studio.plugin import Params\n"
        "class P(Params):\n"
        "    prompt: str = Field(description='What to say.')\n"
        "    words: int = Field(default=1, description='How many.')\n"
    )
    (tmp_path / "fr.yaml").write_text("prompt: {label: Consigne, description: Que dire.}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    import speaking  # type: ignore[import-not-found]

    french = {field.name: field for field in field_specs(speaking.P, "fr")}
    assert (french["prompt"].label, french["prompt"].description) == ("Consigne", "Que dire.")
    assert (french["words"].label, french["words"].description) == ("Words", "How many."), "else English"
    assert field_specs(speaking.P, "de")[0].label == "Prompt"


def test_every_built_in_field_has_french_words(inline: Studio) -> None:
    for name in sorted({spec.pipeline for spec in inline.catalogue.specs.values()} - {"toy", "faulty"}):
        english = field_specs(inline.registry.get(name).Params)
        french = {field.name: field for field in field_specs(inline.registry.get(name).Params, "fr")}
        same: list[FieldSpec] = [field for field in english if french[field.name].description == field.description]
        assert same == [], f"{name}: no French for these"
