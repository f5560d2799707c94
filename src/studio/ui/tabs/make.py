"""A tab in which something is made: a model, a box, a fold, what it would take, the result. One for all families."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gradio as gr

from studio import hardware
from studio.errors import BadRequest, StudioError
from studio.spec import ModelSpec
from studio.ui.form import Form, build_form
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.tabs import grid
from studio.ui.view import (
    bar,
    button,
    esc,
    fits_words,
    forecast_line,
    forecast_refused,
    forecast_wait,
    live,
    push,
    refused,
)

PERSON_WAITS = 10
"""The priority of what is asked for on the page: somebody looks at it, so it goes before batches."""

QUIET: dict[str, Any] = {"show_progress": "hidden", "show_progress_on": [], "api_visibility": "private"}
"""Of every handler of the page: no overlay over what works by itself, and no endpoint for programs."""

EACH: dict[str, Any] = {"trigger_mode": "multiple", "concurrency_limit": 1}
"""Of what a person does by pressing: Gradio drops a second press while the first is answered, unless it is told not to.

One after the other, in the order of the presses. ``keys.js`` takes care that a double click is one press.
"""

SHARE = 0.7
"""Of the memory, what the files of the model that a tab begins with may take."""


@dataclass
class Maker:
    """What a tab consists of, for the handlers that other tabs need (settings, inputs)."""

    modality: str
    chooser: Any
    note: Any
    tab: Any = None
    """The tab itself: a forecast waits until somebody looks."""
    box: Any = None
    """The box of a conversation, where the tab has one."""
    forms: dict[str, Form] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    forecasts: list[tuple[Callable[..., str], list[Any], Any]] = field(default_factory=list)
    """How each form's forecast is made, of what, and where it stands."""


def connect_reset(house: House, form: Form, chooser: Any) -> None:
    """The chosen model's own defaults, when the button for it is pressed."""
    if form.reset is not None:
        outputs = list(form.anew({}))
        form.reset.click(lambda model: form.anew(house.studio.models.get(model).defaults), chooser, outputs, **QUIET)


def follow_loaded(makers: Iterable[Maker]) -> None:
    """Forecasts anew when models were loaded or unloaded meanwhile, which ``form.js`` sees in the pill of the page."""
    for maker in makers:
        box = act_box(f"plan-{maker.modality}")
        for forecast, inputs, line in maker.forecasts:
            box.submit(forecast, inputs, line, trigger_mode="always_last", **QUIET)


def act_box(name: str) -> Any:
    """A hidden box through which ``keys.js`` hands over what was pressed in a live piece (``data-act="NAME"``).

    One box, one handler: Gradio calls several in turn, and the later ones would read what was pressed since.
    """
    return gr.Textbox(elem_id=f"act-{name}", visible="hidden", interactive=True, label="act", buttons=[])


def model_choices(house: House, modality: str, say: Words) -> list[tuple[str, str]]:
    """Each model with its size and whether it fits; those that are here come first."""
    choices = []
    for spec in house.models(modality):
        here = house.studio.models.files(spec.id) is not None
        size = house.size(spec, say)
        mark = "●" if here else "○"
        forecast = house.fits.of(spec.id)
        words = [spec.id, fits_words(forecast, say) if forecast else "", size]
        choices.append((f"{mark} " + " · ".join(word for word in words if word), spec.id))
    return choices


def first_model(house: House, modality: str) -> str | None:
    """What a tab begins with: the largest model here that should fit, by its files alone; else any that is here."""
    machine = hardware.probe(house.studio.home.root)
    room = SHARE * max([machine.ram_total_bytes, *(card.total_bytes for card in machine.gpus)])
    models = house.models(modality)
    models.sort(key=lambda spec: not (house.task(spec) or "").startswith("text"))  # what begins with words first
    here = [spec for spec in models if house.studio.models.files(spec.id) is not None]
    words = [spec for spec in here if (house.task(spec) or "").startswith("text")]
    fitting = [spec for spec in words if (spec.about_bytes or 0) <= room]
    return fitting[-1].id if fitting else (here or models)[0].id if models else None


def model_note(house: House, model: str | None, say: Words) -> str:
    """The chosen model in a line: what it is good at, words to begin with, and the way to get it if it is not here."""
    if not model:
        return "<div></div>"
    spec = house.studio.models.get(model)
    words = spec.words(say.language)
    good = f"<span>{esc(words.good_at)}</span>" if words else ""
    examples = " ".join(push("example", esc(text), fill=text) for text in words.examples) if words else ""
    begin = f'<span class="examples">{esc(say("make.examples"))} {examples}</span>' if examples else ""
    return f'<div class="note-line">{live("need", model=model)}{good}{begin}</div>'


def render_need(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """Where the model is here, whether it is loaded; else the download, its progress, and why it stopped."""
    spec = house.studio.models.get(query.get("model", ""))
    if house.studio.models.files(spec.id) is not None:
        loaded = f'<small class="loaded-now">● {esc(say("models.loaded_now"))}</small>'
        return loaded if house.is_loaded(spec.id) else "", 3000
    return pull_box(house, spec, say), 500 if _pulling(house, spec) else 3000


def _pulling(house: House, spec: ModelSpec) -> bool:
    pull = house.pulls.of(spec.id)
    return pull is not None and pull.running


def pull_box(house: House, spec: ModelSpec, say: Words) -> str:
    """The button that downloads a model, or how far it is."""
    pull, size = house.pulls.of(spec.id), house.size(spec, say)
    if pull is not None and pull.running:
        left = f" · {say('jobs.left', time=say.time(pull.left_s))}" if pull.left_s is not None else ""
        text = f"{say.size(pull.done)} / {say.size(pull.total) if pull.total else size}{left}"
        stop = button("stop-pull", esc(say("models.stop")), kind="small stop", id=spec.id)
        share = pull.done / pull.total if pull.total else None
        return f'<div class="doing">{bar(share, text)}<span>{esc(text)}</span>{stop}</div>'
    word = say("models.go_on" if pull is not None else "models.pull")
    why = house.told(say, pull.error) if pull is not None else ""
    fault = f'<div class="trouble"><p>{esc(why)}</p></div>' if why else ""
    gated = f"<small>{esc(say('models.gated'))}</small>" if spec.source and spec.source.gated else ""
    label = f"{word} · {size}" if size else word
    words, notice = spec.words(say.language), spec.source.notice if spec.source else ""
    notice = words.notice or notice if words else notice
    told = f'<p class="notice">{esc(notice)}</p>' if notice else ""
    sure = {"sure": f"{notice}\n\n{say('models.notice_sure')}"} if notice else {}
    return f"{fault}{told}{button('pull', esc(label), kind='small primary', id=spec.id, **sure)}{gated}"


def build(
    house: House,
    modality: str,
    say: Words,
    demo: gr.Blocks,
    models: list[ModelSpec],
    chooser: Any,
    note: Any,
    tab: Any = None,
) -> Maker:
    """The forms of all families of ``models`` (which do not chat), one of them visible, and the result beside them."""
    maker = Maker(modality, chooser, note, tab=tab)
    chosen = chooser.value
    with gr.Row(elem_classes="make"):
        with gr.Column(scale=2, min_width=320, elem_classes="ask"):
            for spec in models:
                if spec.pipeline in maker.forms:
                    continue
                mine = chosen is not None and house.studio.models.get(chosen).pipeline == spec.pipeline
                with gr.Column(visible=mine, elem_classes=["family", f"form-of-{spec.pipeline}"]) as group:
                    form = build_form(house, spec.id, say)
                    _buttons(house, demo, maker, form, say)
                maker.forms[spec.pipeline], maker.groups[spec.pipeline] = form, group
        with gr.Column(scale=3, min_width=320, elem_classes="result"):
            gr.Markdown(live("result", tab=modality), sanitize_html=False)
    return maker


def _buttons(house: House, demo: gr.Blocks, maker: Maker, form: Form, say: Words) -> None:
    """What it would take, and the button. Nothing else is wired: the result follows the queue by itself."""
    sides, grid_go = grid.build(form, say) if maker.modality == "image" else ([], None)
    form.beside = {f"grid-{number}": side for number, side in enumerate(sides)}
    with gr.Column(elem_classes="go-box"):
        line = gr.Markdown(forecast_wait(say), sanitize_html=False, elem_classes="forecast-box")
        go = gr.Button(say("make.go"), variant="primary", elem_classes="go")
    inputs = [maker.chooser, *form.components]

    def forecast(model: str, *values: Any) -> str:
        if not model or house.studio.models.get(model).pipeline != form.family:
            return "<div></div>"
        try:
            params = form.params(values, house.studio.models.get(model).defaults)
        except BadRequest as error:
            return forecast_refused(house, error, say, model)
        return forecast_line(house, house.fits.ask(model, params), say, model)

    def ask_for(model: str, *values: Any) -> None:
        try:
            params = form.params(values, house.studio.models.get(model).defaults)
            house.studio.submit(model, priority=PERSON_WAITS, **params)
        except StudioError as error:
            raise refused(house, error, say, model) from None

    go.click(ask_for, inputs, None, **EACH, **QUIET)
    connect_reset(house, form, maker.chooser)
    if grid_go is not None:
        asked = [maker.chooser, *sides, *form.components]
        grid_go.click(grid.handler(house, form, say, PERSON_WAITS), asked, None, **EACH, **QUIET)
    changes = [component.change for component in form.planned if hasattr(component, "change")]
    maker.chooser.change(lambda: forecast_wait(say), None, line, queue=False, **QUIET)
    gr.on([maker.chooser.change, *changes], forecast, inputs, line, trigger_mode="always_last", **QUIET)
    seen = demo.load if maker.tab is None else maker.tab.select
    seen(forecast, inputs, line, **QUIET)
    maker.forecasts.append((forecast, inputs, line))
