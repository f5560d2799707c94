"""Values of a form become the parameters that the engine checks, and back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from studio.errors import BadRequest
from studio.forms import FieldSpec
from studio.ui.form import Form
from studio.ui.values import read_value, show_value


def spec(**values: Any) -> FieldSpec:
    return FieldSpec(**{"name": "x", "kind": "str", "label": "X", "description": "", **values})


@pytest.mark.parametrize(
    ("field", "raw", "value"),
    [
        (spec(kind="int", default=3), 5.0, 5),
        (spec(kind="int", default=None), "7", 7),
        (spec(kind="int", default=None), "", None),
        (spec(kind="int", default=3), 2.5, 2.5),
        (spec(kind="float", default=None), "0,5", 0.5),
        (spec(kind="bool", default=False), True, True),
        (spec(kind="choice", choices=("a", "b"), default=None), "", None),
        (spec(kind="str", multiple=True), " a \n\n b", ["a", "b"]),
        (spec(kind="int", multiple=True), "1\n2", [1, 2]),
        (spec(kind="json", default=None), '{"a": 1}', {"a": 1}),
        (spec(kind="json", default=None), "", None),
        (spec(kind="file"), None, None),
        (spec(kind="file", multiple=True), None, []),
        (spec(kind="str", default=""), "", ""),
    ],
)
def test_raw_values(field: FieldSpec, raw: Any, value: Any) -> None:
    assert read_value(field, raw) == value
    assert isinstance(read_value(field, raw), type(value))


@pytest.mark.parametrize("field", [spec(kind="int", default=None), spec(kind="float", default=None), spec(kind="json")])
def test_nonsense_is_said_in_one_line(field: FieldSpec) -> None:
    with pytest.raises(BadRequest, match="X is 'three'; it must be"):
        read_value(field, "three")


def test_only_what_differs_is_asked_for() -> None:
    fields = (
        spec(name="prompt", required=True), spec(name="steps", kind="int", default=20),
        spec(name="scale", kind="float", default=7.0), spec(name="words", multiple=True, default=[]),
    )  # fmt: skip
    form = Form("f", fields)
    assert form.params(["hi", 20, 7, ""], {}) == {"prompt": "hi"}
    assert form.params(["hi", 20, 7, ""], {"steps": 4}) == {"prompt": "hi", "steps": 20}
    assert form.params(["hi", 4, 3.5, "a"], {"steps": 4}) == {"prompt": "hi", "scale": 3.5, "words": ["a"]}
    with pytest.raises(BadRequest, match="X is empty"):
        form.params(["hi", None, 7, ""], {})


@pytest.mark.parametrize("value", [None, 5, "text", ["a", "b"], {"a": [1]}, True])
def test_shown_values_can_be_read_again(value: Any) -> None:
    kinds = {type(None): "int", int: "int", str: "str", list: "str", dict: "json", bool: "bool"}
    field = spec(kind=kinds[type(value)], multiple=isinstance(value, list), default=None)
    assert read_value(field, show_value(field, value)) == value


def test_our_own_components_leave_no_stub_files() -> None:
    import studio.ui.components

    assert not Path(studio.ui.components.__file__).with_suffix(".pyi").exists()


def test_what_gradio_imports_for_others_comes_when_it_is_used() -> None:
    program = """
import sys
from studio.ui.lean import lean_gradio
with lean_gradio():
    import gradio
    import studio.ui.components
    kept = [name for name in ("pandas", "gradio.cli", "gradio.external", "gradio.workflow") if name in sys.modules]
    assert len(kept) == 4, kept
assert not any(name in sys.modules for name in kept)
assert not any(name.startswith(("pandas.", "gradio.external_", "gradio.cli.")) for name in sys.modules)
import gradio.caching
table = gradio.caching.pd.DataFrame
import pandas
assert table is pandas.DataFrame
try:
    gradio.load("no/such/thing", src="nowhere")
except ValueError as error:
    assert "src" in str(error)
from jinja2 import Template
assert Template("{{ a }}").render(a=1) == "1"
"""
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
