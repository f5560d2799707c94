"""The Gradio component that suits a field. No family is known here by name."""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.forms import FieldSpec
from studio.ui.components import Picture, Slider
from studio.ui.i18n import Words
from studio.ui.values import show_value

_STEPS = 100
_FEW_CHOICES = 4
_FEW_LETTERS = 28


def named(component: Any, one: FieldSpec) -> Any:
    """With the class by which scripts find a parameter's component."""
    known = component.elem_classes or []
    component.elem_classes = [*([known] if isinstance(known, str) else known), f"p-{one.name}"]
    return component


def component_of(one: FieldSpec, say: Words, lines: int = 1) -> Any:
    """The component that suits a field. Numbers that may be left out are text boxes: Gradio's show 0 for nothing."""
    return named(_component_of(one, say, lines), one)


def _component_of(one: FieldSpec, say: Words, lines: int) -> Any:
    label = f"{one.label} ({_unit(one.unit, say)})" if one.unit else one.label
    common: dict[str, Any] = {"label": label, "info": one.description or None, "min_width": 200}
    value = show_value(one, one.default)
    if one.kind == "file":
        return _file(one, common, say)
    if one.multiple or one.kind == "json":
        holder = say("form.json") if one.kind == "json" else say("form.lines")
        return gr.Textbox(value, lines=2, max_lines=8, placeholder=holder, buttons=[], **common)
    if one.kind == "bool":
        return gr.Checkbox(bool(one.default), label=label, info=one.description or None, min_width=200)
    if one.kind == "choice":
        choices = [(say(f"choice.{choice}") if say.has(f"choice.{choice}") else str(choice), choice)
                   for choice in one.choices]  # fmt: skip
        short = len(choices) <= _FEW_CHOICES and sum(len(text) for text, _ in choices) <= _FEW_LETTERS
        if one.default is None:
            choices.insert(0, (say("form.auto"), ""))
        return gr.Radio(choices, value=value, elem_classes="choice", **common) if short else gr.Dropdown(
            choices, value=value, **common
        )  # fmt: skip
    if one.kind in ("int", "float"):
        return _number(one, value, common, say)
    tall = one.widget == "text"
    placeholder = one.description if lines > 1 else ""
    if lines > 1:
        common = {"label": label, "min_width": 200}
    return gr.Textbox(
        value, lines=lines, max_lines=20 if tall else 1, placeholder=placeholder, buttons=[],
        elem_classes="main-box" if lines > 1 else None, **common,
    )  # fmt: skip


def _unit(unit: str, say: Words) -> str:
    return say(f"unit.{unit}") if say.has(f"unit.{unit}") else unit


def _number(one: FieldSpec, value: Any, common: dict[str, Any], say: Words) -> Any:
    if one.default is None:
        holder = say("form.random") if one.widget == "seed" else say("form.auto")
        return gr.Textbox(value, placeholder=holder, max_lines=1, buttons=[], **common)
    if (
        one.minimum is not None
        and one.maximum is not None
        and one.maximum - one.minimum <= (1000 if one.widget == "slider" else 60 if one.kind == "int" else 20)
    ):
        step = 1.0 if one.kind == "int" else max(0.01, round((one.maximum - one.minimum) / _STEPS, 2))
        return Slider(one.minimum, one.maximum, value=value, step=step, buttons=[], **common)
    return gr.Number(value, precision=0 if one.kind == "int" else None, **common)


def kinds_of(one: FieldSpec) -> set[str]:
    return {accepted.split("/")[0] for accepted in one.accept}


def _file(one: FieldSpec, common: dict[str, Any], say: Words) -> Any:
    kinds = kinds_of(one)
    common.pop("info")
    hint = f"{one.label}" + ("" if one.required else f" ({say('form.optional')})")
    common |= {"label": hint, "elem_classes": "drop"}
    if not one.multiple and kinds == {"image"}:
        return Picture(
            type="filepath", image_mode=None, sources=["upload", "clipboard"], height=120, buttons=[], **common
        )
    if not one.multiple and kinds == {"audio"}:
        return gr.Audio(type="filepath", sources=["upload", "microphone"], buttons=[], **common)
    common.pop("min_width")
    return gr.File(type="filepath", file_count="multiple" if one.multiple else "single", height=120, **common)
