"""The page in one language: its tabs, and what connects them. Nothing here knows a family by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import BadRequest, StudioError
from studio.events import Artefact
from studio.spec import ModelSpec
from studio.ui import api
from studio.ui.choosing import follow_choosers
from studio.ui.form import Form
from studio.ui.house import MODALITIES, House, modality_of, modality_of_media
from studio.ui.i18n import Words
from studio.ui.staying import keep_forms
from studio.ui.tabs import gallery, jobs, machine, models, text
from studio.ui.tabs.make import EACH, QUIET, Maker, act_box, first_model, follow_loaded, model_note
from studio.ui.tabs.make import build as build_maker
from studio.ui.view import empty, esc, live, push, refused


def build_page(house: House, say: Words) -> gr.Blocks:
    """All tabs. The components and handlers are the same in both languages; only the words differ."""
    demo: gr.Blocks = gr.Blocks(title="Studio", fill_width=True, analytics_enabled=False)
    with demo:
        gr.Markdown(_header(say), sanitize_html=False, elem_id="top")
        act = act_box("page")
        makers: dict[str, Maker] = {}
        shown: dict[str, Any] = {}
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            for modality in MODALITIES:
                with gr.Tab(
                    say(f"tab.{modality}"), id=modality, elem_id=f"tab-{modality}", render_children=True
                ) as tab:
                    _heading(modality, say)
                    makers[modality], shown[modality] = _maker_tab(house, say, demo, tab, modality), tab
            with gr.Tab(say("tab.jobs"), id="jobs", elem_id="tab-jobs"):
                _heading("jobs", say)
                jobs.build(say)
            with gr.Tab(say("tab.gallery"), id="gallery", elem_id="tab-gallery"):
                _heading("gallery", say)
                dropped = gallery.build(say)
            with gr.Tab(say("tab.models"), id="models", elem_id="tab-models"):
                _heading("models", say)
                models.build(say)
            with gr.Tab(say("tab.machine"), id="machine", elem_id="tab-machine"):
                _heading("machine", say)
                machine.build(say)
        opened = act_box("opened")
        followers = follow_choosers(house, say, demo, [(makers[name], tab) for name, tab in shown.items()], opened)
        keep_forms(house, followers, opened)
        follow_loaded(makers.values())
        _connect_results(house, say, act, dropped, tabs, makers)
        api.expose(house)
    demo.queue(default_concurrency_limit=None, max_size=None)
    return demo


def _heading(tab: str, say: Words) -> None:
    """What the tab is called, for who goes from heading to heading; seen, it stands on the tab itself."""
    gr.Markdown(f"<h2>{esc(say(f'tab.{tab}'))}</h2>", sanitize_html=False, elem_classes="heard")


def _header(say: Words) -> str:
    other = "fr" if say.language == "en" else "en"
    switch = f'<a class="b small" href="/studio/language/{other}" lang="{other}">{esc(say("page.other"))}</a>'
    theme = push("b icon", "◐", title=say("page.theme"), theme="")
    status = live("status", kind="status")
    brand = '<b class="brand" role="heading" aria-level="1">Studio</b>'
    gone = (("lost", say("page.lost")), ("locked", say("page.locked")))  # why nothing new comes: keys.js shows one
    told = "".join(f'<p class="no-server {name}" role="status">{esc(words)}</p>' for name, words in gone)
    brand += f'<span hidden data-no-place="{esc(say("drop.no_place", name="{name}"))}"'  # for drop.js, and spoken.js
    brand += f' data-limits="{esc(say("form.limits", low="{low}", high="{high}"))}"'
    brand += f' data-spoken="{esc(json.dumps(_spoken(say), ensure_ascii=False))}"></span>'
    return f'<div class="top">{brand}{status}<span class="spring"></span>{switch}{theme}{told}{_refusal(say)}</div>'


def _spoken(say: Words) -> dict[str, str]:
    """Our words for what Gradio calls its pieces aloud."""
    attach = say("drop.attach")
    return {
        "Submit": say("chat.save"), "Upload a file": attach, "Upload file": attach, "Record audio": say("drop.record"),
        "Paste from clipboard": say("drop.paste"), "Multimedia input field": say("chat.message"),
        "choose": say("drop.choose"), "uploading": say("drop.uploading"), "Remove Image": say("drop.remove"),
    }  # fmt: skip


def _refusal(say: Words) -> str:
    """The heading of what a handler refuses: Gradio writes "Error" there, whatever title and language it is given."""
    word = f'content:"{say("said.refused")}";font-size:16px'
    return f"<style>.toast-title.error{{font-size:0}}.toast-title.error::before{{{word}}}</style>"


def _maker_tab(house: House, say: Words, demo: gr.Blocks, tab: Any, modality: str) -> Maker:
    found = house.models(modality)
    if not found:
        gr.Markdown(empty(say(f"soon.{modality}"), say(f"soon.{modality}_text")), sanitize_html=False)
        return Maker(modality, None, None)
    if modality == "text":
        return text.build(house, say, demo)
    chosen = first_model(house, modality)
    with gr.Row(elem_classes="chooser-row"):
        chooser = gr.Dropdown(
            [(spec.id, spec.id) for spec in found], value=chosen, label=say("make.model"), show_label=False,
            container=False, elem_classes="chooser", elem_id=f"{modality}-model",
        )  # fmt: skip
    note = gr.Markdown(model_note(house, chosen, say), sanitize_html=False, elem_classes="model-note")
    return build_maker(house, modality, say, demo, found, chooser, note, tab)


def _connect_results(house: House, say: Words, act: Any, dropped: Any, tabs: Any, makers: dict[str, Maker]) -> None:
    """Settings of a result back into its form, and a result as an input: from the gallery or a dropped file."""
    formed = [maker for maker in makers.values() if maker.chooser is not None]
    components = [one for maker in formed for form in maker.forms.values() for one in (*form.components, *form.pickers)]
    groups = [group for maker in formed for group in maker.groups.values()]
    outputs = [tabs, *(maker.chooser for maker in formed), *(maker.note for maker in formed), *groups, *components]
    boxes = [maker.box for maker in formed if maker.box is not None]
    outputs += boxes

    def acted(message: str, *chosen: str) -> dict[Any, Any]:
        asked = json.loads(message or "{}")
        try:
            if asked.get("do") == "restore":
                made = house.studio.artefacts.get(asked["artefact"])
                return restored(made.recipe, json.loads(asked.get("change") or "{}"))
            if asked.get("do") == "use":
                return used(house.studio.artefacts.get(asked["artefact"]), asked.get("to", ""), chosen)
        except StudioError as error:
            raise refused(house, error, say) from None
        return {tabs: gr.skip()}

    def from_file(path: str | None) -> dict[Any, Any]:
        if not path:
            return {tabs: gr.skip()}
        try:
            return restored(house.studio.artefacts.recipe_of(Path(path)), {})
        except StudioError as error:
            why = house.told(say, error.what, error.hint)
            raise refused(house, BadRequest(say("gallery.no_recipe", why=why)), say) from None

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

    def used(made: Artefact, to: str, chosen: tuple[str, ...]) -> dict[Any, Any]:
        wanted = to or modality_of_media(made.media_type)
        for maker in sorted(formed, key=lambda one: one.modality != wanted):
            for spec in sorted(house.models(maker.modality), key=lambda one: one.id not in chosen):
                found = _as_input(house, maker, spec, made)
                if found:
                    return {tabs: gr.update(selected=maker.modality), **found}
        raise refused(house, BadRequest(say("gallery.no_use")), say)

    act.submit(acted, [act, *(maker.chooser for maker in formed)], outputs, **EACH, **QUIET)
    dropped.upload(from_file, dropped, outputs, **QUIET)


def _as_input(house: House, maker: Maker, spec: ModelSpec, made: Artefact) -> dict[Any, Any]:
    """Put a file where this model takes such a file; nothing if it takes none."""
    form = maker.forms.get(spec.pipeline)
    chosen = {maker.chooser: gr.update(value=spec.id), **_groups(house, maker, spec)}
    asked_for = {one.name for one in house.files_asked_for(spec)}
    for one, component in zip(form.fields, form.components, strict=True) if form else ():
        if one.name in asked_for and (not one.accept or made.media_type in one.accept):
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
