"""The page in one language: its tabs, and what connects them. Nothing here knows a family by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import StudioError
from studio.events import Artefact
from studio.spec import ModelSpec
from studio.ui import api
from studio.ui.form import Form
from studio.ui.house import MODALITIES, House, modality_of, modality_of_media
from studio.ui.i18n import Words
from studio.ui.tabs import gallery, jobs, machine, models, text
from studio.ui.tabs.make import QUIET, Maker, first_model, model_choices, model_note
from studio.ui.tabs.make import build as build_maker
from studio.ui.view import empty, esc, live, push


def build_page(house: House, say: Words) -> gr.Blocks:
    """All tabs. The components and handlers are the same in both languages; only the words differ."""
    demo: gr.Blocks = gr.Blocks(title="Studio", fill_width=True, analytics_enabled=False)
    with demo:
        gr.Markdown(_header(say), sanitize_html=False, elem_id="top")
        act = gr.Textbox(elem_id="act", visible="hidden", interactive=True, label="act", buttons=[])
        makers: dict[str, Maker] = {}
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            for modality in MODALITIES:
                with gr.Tab(
                    say(f"tab.{modality}"), id=modality, elem_id=f"tab-{modality}", render_children=True
                ) as tab:
                    makers[modality] = _maker_tab(house, say, demo, act, tab, modality)
            with gr.Tab(say("tab.jobs"), id="jobs", elem_id="tab-jobs"):
                jobs.build(say)
            with gr.Tab(say("tab.gallery"), id="gallery", elem_id="tab-gallery"):
                dropped = gallery.build(say)
            with gr.Tab(say("tab.models"), id="models", elem_id="tab-models"):
                models.build(say)
            with gr.Tab(say("tab.machine"), id="machine", elem_id="tab-machine"):
                machine.build(say)
        for maker in makers.values():
            if maker.chooser is not None:
                _follow_chooser(house, say, demo, maker)
        _connect_results(house, say, act, dropped, tabs, makers)
        api.expose(house)
    demo.queue(default_concurrency_limit=None, max_size=None)
    return demo


def _header(say: Words) -> str:
    other = "fr" if say.language == "en" else "en"
    switch = f'<a class="b small" href="/studio/language/{other}" lang="{other}">{esc(say("page.other"))}</a>'
    theme = push("b icon", "◐", title=say("page.theme"), theme="")
    status = live("status", kind="status")
    return f'<div class="top"><b class="brand">Studio</b>{status}<span class="spring"></span>{switch}{theme}</div>'


def _maker_tab(house: House, say: Words, demo: gr.Blocks, act: Any, tab: Any, modality: str) -> Maker:
    found = house.models(modality)
    if not found:
        gr.Markdown(empty(say(f"soon.{modality}"), say(f"soon.{modality}_text")), sanitize_html=False)
        return Maker(modality, None, None)
    if modality == "text":
        return text.build(house, say, demo, act)
    chosen = first_model(house, modality)
    with gr.Row(elem_classes="chooser-row"):
        chooser = gr.Dropdown(
            [(spec.id, spec.id) for spec in found], value=chosen, label=say("make.model"), show_label=False,
            container=False, elem_classes="chooser", elem_id=f"{modality}-model",
        )  # fmt: skip
    note = gr.Markdown(model_note(house, chosen, say), sanitize_html=False, elem_classes="model-note")
    return build_maker(house, modality, say, demo, found, chooser, note, tab)


def _follow_chooser(house: House, say: Words, demo: gr.Blocks, maker: Maker) -> None:
    """Show the form of the chosen model's family, its note, and its own defaults."""
    mine = {name: group for name, group in maker.groups.items() if name in maker.forms and name not in ("talk", "make")}

    def chosen(model: str) -> dict[Any, Any]:
        spec = house.studio.models.get(model)
        updates: dict[Any, Any] = {maker.note: model_note(house, model, say)}
        for name, group in mine.items():
            updates[group] = gr.update(visible=name == spec.pipeline)
        if "talk" in maker.groups:
            talks = house.chats_with(spec)
            updates[maker.groups["talk"]] = gr.update(visible=talks)
            updates[maker.groups["side"]] = gr.update(visible=talks)
            updates[maker.groups["make"]] = gr.update(visible=not talks)
        form = maker.forms[spec.pipeline]
        own = _own_defaults(house, spec)
        moved = {form.at(one.name) for one in form.fields if one.name in own}
        updates.update((place, new) for place, new in form.updates({}, spec.defaults).items() if place in moved)
        updates.update(form.follow(house, spec.id, say.language))
        return updates

    places = [maker.groups[name] for name in ("talk", "side", "make") if name in maker.groups]
    outputs = [maker.note, *mine.values(), *places]
    outputs += [one for form in maker.forms.values() for one in (*form.components, *form.pickers)]
    # Chosen twice in quick succession: the last choice counts, whether or not the first one has been answered.
    maker.chooser.input(chosen, maker.chooser, outputs, trigger_mode="always_last", **QUIET)

    def choices() -> Any:
        return gr.update(choices=model_choices(house, maker.modality, say))

    seen = maker.tab.select if maker.tab else demo.load
    gr.on([seen, maker.chooser.focus], choices, None, maker.chooser, **QUIET)


def _own_defaults(house: House, spec: ModelSpec) -> set[str]:
    """The parameters for which some model of the family brings a default of its own."""
    return {name for other in house.studio.models if other.pipeline == spec.pipeline for name in other.defaults}


def _connect_results(house: House, say: Words, act: Any, dropped: Any, tabs: Any, makers: dict[str, Maker]) -> None:
    """Settings of a result back into its form, and a result as an input: from the gallery or a dropped file."""
    formed = [maker for maker in makers.values() if maker.chooser is not None]
    components = [one for maker in formed for form in maker.forms.values() for one in (*form.components, *form.pickers)]
    groups = [group for maker in formed for group in maker.groups.values()]
    outputs = [tabs, *(maker.chooser for maker in formed), *(maker.note for maker in formed), *groups, *components]
    boxes = [maker.box for maker in formed if maker.box is not None]
    outputs += boxes

    def acted(message: str) -> dict[Any, Any]:
        asked = json.loads(message or "{}")
        try:
            if asked.get("do") == "restore":
                made = house.studio.artefacts.get(asked["artefact"])
                return restored(made.recipe, json.loads(asked.get("change") or "{}"))
            if asked.get("do") == "use":
                return used(house.studio.artefacts.get(asked["artefact"]), asked.get("to", ""))
        except StudioError as error:
            raise gr.Error(str(error), duration=12, print_exception=False) from None
        return {tabs: gr.skip()}

    def from_file(path: str | None) -> dict[Any, Any]:
        if not path:
            return {tabs: gr.skip()}
        try:
            return restored(house.studio.artefacts.recipe_of(Path(path)), {})
        except StudioError as error:
            raise gr.Error(say("gallery.no_recipe", why=str(error)), duration=12, print_exception=False) from None

    def restored(recipe: dict[str, Any], change: dict[str, Any]) -> dict[Any, Any]:
        spec = house.studio.models.get(str(recipe["model"]))
        maker = makers[modality_of(house.task(spec) or "")]
        form = maker.forms[spec.pipeline]
        params = {**recipe["params"], **change}
        updates = {tabs: gr.update(selected=maker.modality), maker.chooser: gr.update(value=spec.id)}
        updates[maker.note] = gr.update(value=model_note(house, spec.id, say))
        updates.update(form.updates(_here(house, form, params), spec.defaults))
        updates.update(form.follow(house, spec.id, say.language))
        updates.update(_groups(house, maker, spec))
        if maker.box is not None and house.chats_with(spec):
            updates[maker.box] = gr.update(value={"text": params.get("prompt", ""), "files": []})
        return updates

    def used(made: Artefact, to: str) -> dict[Any, Any]:
        wanted = to or modality_of_media(made.media_type)
        for maker in sorted(formed, key=lambda one: one.modality != wanted):
            for spec in house.models(maker.modality):
                found = _as_input(house, maker, spec, made)
                if found:
                    return {tabs: gr.update(selected=maker.modality), **found}
        raise gr.Error(say("gallery.no_use"), duration=8, print_exception=False)

    act.submit(acted, act, outputs, **QUIET)
    dropped.upload(from_file, dropped, outputs, **QUIET)


def _as_input(house: House, maker: Maker, spec: ModelSpec, made: Artefact) -> dict[Any, Any]:
    """Put a file where this model takes such a file; nothing if it takes none."""
    form = maker.forms.get(spec.pipeline)
    chosen = {maker.chooser: gr.update(value=spec.id), **_groups(house, maker, spec)}
    for one, component in zip(form.fields, form.components, strict=True) if form else ():
        if one.kind == "file" and (not one.accept or made.media_type in one.accept):
            return {**chosen, component: gr.update(value=[made.path] if one.multiple else made.path)}
    if maker.box is None or not house.chats_with(spec):
        return {}
    if made.media_type.startswith("image/"):
        return {**chosen, maker.box: gr.update(value={"text": "", "files": [made.path]})}
    return {**chosen, maker.box: gr.update(value={"text": made.text, "files": []})} if _is_text(made) else {}


def _is_text(made: Artefact) -> bool:
    return made.media_type == "text/plain"


def _groups(house: House, maker: Maker, spec: ModelSpec) -> dict[Any, Any]:
    talks = house.chats_with(spec)
    shown = {"talk": talks, "side": talks, "make": not talks}
    return {group: gr.update(visible=shown.get(name, name == spec.pipeline)) for name, group in maker.groups.items()}


def _here(house: House, form: Form, params: dict[str, Any]) -> dict[str, Any]:
    """Input files only where the store keeps such files: a recipe may come from anywhere and name any path."""
    home = house.studio.home

    def kept(value: Any) -> bool:
        path = Path(str(value)).resolve()
        return any(path.is_relative_to(folder) for folder in (home.inputs, home.outputs)) and path.is_file()

    shown = dict(params)
    for one in form.fields:
        value = shown.get(one.name)
        if one.kind == "file" and value:
            shown[one.name] = [item for item in value if kept(item)] if one.multiple else value if kept(value) else None
    return shown
