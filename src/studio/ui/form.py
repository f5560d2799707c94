"""The form of a family: where each of its fields is drawn, and what all of them hold. No family is known by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import gradio as gr

from studio.errors import BadRequest
from studio.forms import FieldSpec
from studio.spec import ModelSpec
from studio.ui.fields import component_of, kinds_of, named
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.pickers import adapters, has_shapes, paint_button, seed_buttons, shapes
from studio.ui.values import read_value, show_value

OPEN_GROUPS = frozenset({"main", "size"})
"""Groups that a form shows at once; the others wait behind the fold. Files are always shown."""


@dataclass
class Form:
    """The components of one family's parameters, in the order of ``fields``."""

    family: str
    fields: tuple[FieldSpec, ...]
    components: list[Any] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    """Fields drawn by a widget of the family: their values are taken as they are."""
    pickers: dict[Any, Callable[[Mapping[str, FieldSpec], ModelSpec], str]] = field(default_factory=dict)
    """Pieces that show what a model offers, and how to draw them for another model of the family."""
    picked: set[str] = field(default_factory=set)
    """Fields over which a widget of the family draws a picker: of their lines, empty ones count."""
    beside: dict[str, Any] = field(default_factory=dict)
    """What else is filled in beside the parameters, such as the sides of a grid."""
    reset: Any = None
    """The button that shows the defaults of all settings again."""

    def follow(self, house: House, model: str, language: str) -> dict[Any, Any]:
        """Show what another model of the family offers."""
        spec, by_name = house.studio.models.get(model), {one.name: one for one in house.studio.fields(model, language)}
        return {place: gr.update(value=draw(by_name, spec)) for place, draw in self.pickers.items()}

    def params(self, values: tuple[Any, ...] | list[Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
        """What differs from the defaults, as the engine wants it. ``BadRequest`` for what is no number or no JSON."""
        params: dict[str, Any] = {}
        for spec, raw in zip(self.fields, values, strict=True):
            value = raw if spec.name in self.own else read_value(spec, raw, whole=spec.name in self.picked)
            default = defaults.get(spec.name, spec.default)
            if value is not None and (spec.required or value != default):
                params[spec.name] = value
            elif value is None and default is not None and spec.kind != "file" and not spec.multiple:
                raise BadRequest(
                    f"{spec.label} is empty.", "Give a value, or choose the model again for its own.", field=spec.name
                )
        return params

    def updates(self, params: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[Any, Any]:
        """Show these parameters, and the default of every other."""
        return {
            component: gr.update(value=show_value(spec, params.get(spec.name, defaults.get(spec.name, spec.default))))
            for spec, component in zip(self.fields, self.components, strict=True)
        }

    def anew(self, defaults: Mapping[str, Any]) -> dict[Any, Any]:
        """Show the default of every setting; what was written and the files that were given stay."""
        shown = self.updates({}, defaults)
        for spec, component in zip(self.fields, self.components, strict=True):
            if spec.name in self.own:
                shown[component] = gr.update(value=component.value)
            elif spec.kind == "file" or "main-box" in (component.elem_classes or ()):
                del shown[component]
        return shown

    def at(self, name: str) -> Any:
        return self.components[[spec.name for spec in self.fields].index(name)]

    @property
    def planned(self) -> Iterator[Any]:
        """The components that a forecast may depend on: not the texts."""
        for spec, component in zip(self.fields, self.components, strict=True):
            if (spec.kind != "str" or spec.multiple) and spec.name not in ("seed", *self.own) and spec.kind != "json":
                yield component


def build_form(house: House, model: str, say: Words, *, leave: frozenset[str] = frozenset()) -> Form:
    """Draw the form of a family inside the current layout: what matters first, one fold for the rest.

    ``model`` is any model of the family; ``leave`` names fields that the tab draws in its own way.
    """
    spec = house.studio.models.get(model)
    fields = tuple(one for one in house.studio.fields(model, say.language) if one.name not in leave)
    form = Form(spec.pipeline, fields)
    made: dict[str, Any] = {}
    at = _sorted(house, spec, fields, say)
    _draw_files(house, form, at.early, say, made)
    for number, one in enumerate(at.texts):
        plain = one if number == 0 else _short(one)
        made[one.name] = _draw(house, form, plain, say, lines=4 if number == 0 else 1)
    _draw_row(house, form, at.leading, say, made)
    for one in at.picked:
        _picked(house, form, spec, one, say, made)
    small = _shapes(house, form, fields, at.small, say, made)
    _draw_files(house, form, [one for one in at.files if one not in at.early], say, made)
    _draw_row(house, form, small, say, made)
    for one in at.seeds:
        with gr.Row(elem_classes="seed-row"):
            made[one.name] = _draw(house, form, _short(one), say)
            gr.Markdown(seed_buttons(one, say), sanitize_html=False, elem_classes="seed-box")
    if at.rest:
        with gr.Accordion(say("form.more"), open=False, elem_classes="fold"):
            draw_groups(house, form, at.rest, say, made)
            form.reset = reset_button(say)
    if form.reset is None and (at.leading or at.small or at.seeds):
        form.reset = reset_button(say)
    if at.kept:
        with gr.Row(elem_classes="away"):
            for one in at.kept:
                made[one.name] = _draw(house, form, one, say)
    form.components = [made[one.name] for one in fields]
    return form


def reset_button(say: Words) -> Any:
    return gr.Button(say("form.defaults"), elem_classes="b small reset", min_width=0)


@dataclass(frozen=True)
class _Places:
    """Where the fields of a form are drawn, from top to bottom; ``kept`` are in the page but not shown.

    A picker shows what ``leading`` fields say (how long a film is), so these stand above it.
    """

    early: list[FieldSpec]
    texts: list[FieldSpec]
    leading: list[FieldSpec]
    picked: list[FieldSpec]
    small: list[FieldSpec]
    files: list[FieldSpec]
    seeds: list[FieldSpec]
    rest: list[FieldSpec]
    kept: list[FieldSpec]


def _sorted(house: House, spec: ModelSpec, fields: tuple[FieldSpec, ...], say: Words) -> _Places:
    picked = [one for one in fields if house.widgets.picker(one, spec, say.language) is not None]
    beside = [house.widgets.beside(one) for one in picked]
    follows = frozenset[str]().union(*(names for names, _ in beside))
    kept = [one for one in fields if any(one.name in names for _, names in beside)]
    left = [one for one in fields if one not in picked and one not in kept]
    texts = [one for one in left if _in_view(one) and _is_text(one)]
    files = [one for one in left if one.kind == "file" and not one.advanced]
    seeds = [one for one in left if one.widget == "seed"]
    leading = [one for one in left if one.name in follows and one not in (*texts, *files, *seeds)]
    left = [one for one in left if one not in (*texts, *leading, *files, *seeds)]
    small = [one for one in left if _in_view(one)]
    begins = {one.group for one in files if one.required}  # what cannot do without a file begins with it
    early = [one for one in files if one.group in begins]
    return _Places(early, texts, leading, picked, small, files, seeds, [one for one in left if one not in small], kept)


def _draw_row(house: House, form: Form, fields: list[FieldSpec], say: Words, made: dict[str, Any]) -> None:
    if fields:
        with gr.Row(elem_classes="fields"):
            for one in fields:
                made[one.name] = _draw(house, form, _short(one), say)


def _short(one: FieldSpec) -> FieldSpec:
    """Without the sentence below the label, which is for the fold."""
    return one.model_copy(update={"description": ""})


def _shapes(
    house: House, form: Form, fields: tuple[FieldSpec, ...], small: list[FieldSpec], say: Words, made: dict[str, Any]
) -> list[FieldSpec]:
    """Width and height as pictures, if the model offers some; returns the fields that are left to draw."""
    pair = [one for one in small if one.name in ("width", "height")]
    if len(pair) != 2 or not has_shapes(fields):
        return small
    width = next(one for one in pair if one.name == "width")
    shown = gr.Markdown(shapes(width, say), sanitize_html=False, elem_classes="picker-box")
    form.pickers[shown] = lambda known, _model: shapes(known["width"], say)
    with gr.Row(elem_classes="fields own-size"):
        for one in pair:
            made[one.name] = _draw(house, form, _short(one), say)
    return [one for one in small if one not in pair]


def _draw_files(house: House, form: Form, files: list[FieldSpec], say: Words, made: dict[str, Any]) -> None:
    if files:
        with gr.Row(elem_classes="fields files"):
            for number, one in enumerate(files):
                _draw_file(house, form, one, files[:number], say, made)


def _draw_file(
    house: House, form: Form, one: FieldSpec, before: list[FieldSpec], say: Words, made: dict[str, Any]
) -> None:
    """A file; a mask with the button that opens the picture before it to be painted on."""
    pictures = [other for other in before if not other.multiple and kinds_of(other) == {"image"}]
    if one.widget != "mask" or not pictures:
        made[one.name] = _draw(house, form, _short(one), say)
        return
    with gr.Column(min_width=200, elem_classes=["mask-box", f"over-{pictures[-1].name}"]):
        made[one.name] = _draw(house, form, _short(one), say)
        gr.Markdown(paint_button(one, pictures[-1].name, say), sanitize_html=False)


def draw_groups(house: House, form: Form, fields: list[FieldSpec], say: Words, made: dict[str, Any]) -> None:
    """Fields under the name of their group, in rows that wrap."""
    order = list(dict.fromkeys(one.group for one in fields))
    for group, members in groupby(sorted(fields, key=lambda one: order.index(one.group)), key=lambda one: one.group):
        title = say(f"group.{group}") if say.has(f"group.{group}") else group.capitalize()
        gr.Markdown(f"<h3>{title}</h3>", elem_classes="group")
        with gr.Row(elem_classes="fields"):
            for one in members:
                made[one.name] = _draw(house, form, one, say)
                if one.widget == "lora" and one.multiple:
                    _adapters(house, form, one, say)


def _adapters(house: House, form: Form, one: FieldSpec, say: Words) -> None:
    """What there is to choose from, drawn over the plain list of names, which stays hidden."""
    folder = house.studio.home.adapters
    shown = gr.Markdown(adapters(one, folder, say), sanitize_html=False, elem_classes="picker-box")
    form.pickers[shown] = lambda known, _model: adapters(known[one.name], folder, say)


def _picked(house: House, form: Form, model: ModelSpec, one: FieldSpec, say: Words, made: dict[str, Any]) -> None:
    """A picker of the family's own over the plain component, which keeps the value."""

    def draw(known: Mapping[str, FieldSpec], spec: ModelSpec) -> str:
        return house.widgets.picker(known[one.name], spec, say.language) or "<div></div>"

    shown = gr.Markdown(draw({one.name: one}, model), sanitize_html=False, elem_classes="picker-box")
    form.pickers[shown] = draw
    form.picked.add(one.name)
    with gr.Row(elem_classes="away"):
        made[one.name] = component_of(one, say)


def _in_view(one: FieldSpec) -> bool:
    return one.required or (one.group in OPEN_GROUPS and not one.advanced)


def _is_text(one: FieldSpec) -> bool:
    return one.kind == "str" and not one.multiple and (one.required or one.widget == "text" or one.name == "prompt")


def _draw(house: House, form: Form, one: FieldSpec, say: Words, lines: int = 1) -> Any:
    own = house.widgets.component(one, say.language)
    if own is not None:
        form.own.add(one.name)
        return named(own, one)
    return component_of(one, say, lines)
