"""The declared parameters: complete, bounded, translated, and light to import."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

import studio_pipelines.text_llm.params as params_module
from studio.plugin import BadRequest
from studio_pipelines.text_llm.json_schema import check_schema, grammar_of
from studio_pipelines.text_llm.params import TextParams


def checked(**values: Any) -> TextParams:
    return TextParams.model_validate_json(json.dumps({"prompt": "Hi", **values}))


def test_importing_the_family_loads_nothing_heavy() -> None:
    heavy = ["llama_cpp", "numpy", "jinja2", "PIL", "gguf", "torch"]
    code = f"import sys, studio_pipelines.text_llm.family; print([m for m in {heavy} if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_field_is_described_and_bounded() -> None:
    schema = TextParams.model_json_schema()
    for name, node in schema["properties"].items():
        assert len(node.get("description", "")) > 10, name
        options = [node, *node.get("anyOf", [])]
        kind = next(one["type"] for one in options if one.get("type", "null") != "null")
        limits = {key for one in options for key in one}
        if kind in ("integer", "number"):
            assert {"minimum", "maximum"} <= limits, name
        if kind == "string":
            assert limits & {"maxLength", "enum"}, name
        if kind == "array":
            assert "maxItems" in limits, name


def test_every_field_has_its_french_words() -> None:
    words = yaml.safe_load(Path(params_module.__file__).with_name("fr.yaml").read_text(encoding="utf-8"))
    assert set(words) == set(TextParams.model_fields)
    for name, word in words.items():
        assert set(word) == {"label", "description"}, name
        assert all(word.values()), name


@pytest.mark.parametrize(
    "values",
    [
        {"prompt": ""}, {"prompt": "x" * 1_000_001}, {"temperature": -1}, {"temperature": 1e308}, {"temperature": True},
        {"max_tokens": 0}, {"max_tokens": 10**9}, {"top_k": 1.5}, {"context": 1}, {"kv_cache": "f32"}, {"stop": [""]},
        {"stop": ["x"] * 9}, {"thinking": "maybe"}, {"threads": 0}, {"prompt": 7}, {"nonsense": 1}, {"seed": -1},
        {"messages": [{"role": "robot", "content": "x"}]}, {"images": ["a.png"] * 17}, {"repeat_penalty": 0},
        {"date": "2024-02-30"}, {"date": "today"},
        {"completion": True, "system": "x"}, {"completion": True, "images": ["a.png"]},
    ],
)  # fmt: skip
def test_absurd_requests_are_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        checked(**values)


def test_usual_requests_are_taken() -> None:
    turn = {"role": "user", "content": "Hi", "images": ["a.png"]}
    request = checked(messages=[turn], images=["b.png"], json_schema={"type": "object"}, temperature=1, stop=["\n"])
    assert request.images == [Path("b.png")]
    assert request.messages[0].images == [Path("a.png")]
    assert checked(completion=True, seed=2**32 - 1).seed == 2**32 - 1


REFUSED = {
    "minimum": {"type": "integer", "minimum": 1},
    "pattern": {"type": "string", "pattern": "^a+$"},
    "remote": {"$ref": "https://example.com/schema.json"},
    "unknown reference": {"$ref": "#/$defs/a"},
    "unknown type": {"type": "text"},
    "required": {"type": "object", "properties": {}, "required": ["a"]},
    "repeat": {"type": "string", "maxLength": 10**9},
    "union": {"anyOf": []},
    "deep": {"type": "array", "items": None},
    "mixed": {"anyOf": [{"type": "null"}], "type": "string"},
    "no type": {"properties": {"a": {}}},
    "list of types": {"type": ["string", "null"], "maxLength": 3},
    "not a schema": {"type": "object", "properties": {"a": True}},
    "a reference that is no text": {"anyOf": [{"$ref": []}]},
    "a reference within a value": {"$defs": {}, "enum": [{"a": [{"$ref": False}]}]},
    "a property called as references are": {"type": "object", "properties": {"$ref": {"type": "string"}}},
    "a required name that is no text": {"type": "object", "properties": {}, "required": [[]]},
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_schema_that_no_grammar_holds_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="json_schema"):
        checked(json_schema=REFUSED[name])


def test_a_schema_too_deep_or_too_long_is_refused() -> None:
    deep: dict[str, Any] = {}
    for _ in range(40):
        deep = {"type": "array", "items": deep}
    for schema in (deep, {"enum": ["x" * 70_000]}):
        with pytest.raises(ValueError, match=r"levels deep|longer than"):
            check_schema(schema)


TAKEN = [
    {}, {"type": "object"}, {"type": ["string", "null"]}, {"enum": [1, "a", None, {"b": 1}]}, {"const": "a\nb\""},
    {"type": "array", "items": {"type": "string", "format": "date"}, "minItems": 1, "maxItems": 3},
    {"type": "array", "prefixItems": [{"type": "null"}, {"type": "number"}]},
    {"type": "object", "properties": {"a b": {"type": "integer"}}, "additionalProperties": False},
    {"$ref": "#/$defs/tree", "$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}},
    {"type": "string", "default": {"$ref": "#"}, "examples": [{"$ref": []}]},
    {"type": "array", "items": {"title": "anything", "$defs": {"a": {"$ref": "#/$defs/b"}}}, "$defs": {"b": {}}},
    {"type": "object", "properties": {"title": {"type": "string"}, "default": {"enum": [{"items": 1}]}}},
]  # fmt: skip


@pytest.mark.parametrize("schema", TAKEN, ids=str)
def test_a_usual_schema_becomes_a_grammar(schema: dict[str, Any]) -> None:
    check_schema(schema)
    assert "root ::=" in grammar_of(schema)


junk = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5)
    | st.sampled_from(["object", "array", "string", "null", "uuid", "#/$defs/a", "a"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from([
            "type", "properties", "items", "anyOf", "$ref", "$defs", "enum", "required", "a", "minItems", "const",
            "oneOf", "prefixItems", "additionalProperties", "definitions", "default", "format", "title",
        ]),
        inner, max_size=4,
    ),
    max_leaves=12,
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(
    schema=st.dictionaries(st.sampled_from(["type", "properties", "items", "anyOf", "$defs", "enum", "required"]), junk)
)
def test_any_schema_is_taken_or_refused_in_words(schema: dict[str, Any]) -> None:
    try:
        check_schema(schema)
    except ValueError:
        return
    assert "::=" in grammar_of(schema)


def test_the_error_type_for_requests_is_a_bad_request() -> None:
    assert BadRequest.exit_code == 2
