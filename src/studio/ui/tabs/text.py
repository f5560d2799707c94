"""The Text tab: conversations on the left, the talk in the middle, one box below it, settings behind one fold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gradio as gr

from studio.errors import BadRequest, StudioError
from studio.ui.chats import Chat, Turn
from studio.ui.fields import component_of
from studio.ui.form import Form, draw_groups, reset_button
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.tabs.make import EACH, PERSON_WAITS, QUIET, Maker, act_box, connect_reset, first_model, model_note
from studio.ui.tabs.make import build as build_makers
from studio.ui.tabs.thread import presets, settle
from studio.ui.view import button, esc, forecast_line, forecast_refused, forecast_wait, live, push, refused, search

TAKEN = frozenset({"prompt", "messages", "images", "completion", "json_schema"})
"""Parameters that a conversation fills in by itself, or that make no conversation."""

_SECRET = "studio"  # noqa: S105 - BrowserState encrypts; which conversation is open is no secret


@dataclass
class Talk:
    """The parts of the tab that handlers need."""

    maker: Maker
    box: Any
    thread: Any
    history: Any
    open_chat: Any
    form: Form | None = None
    line: Any = None


def build(house: House, say: Words, demo: gr.Blocks) -> Maker:
    """Draw the tab and connect it."""
    models = house.models("text")
    talkers = [spec for spec in models if house.chats_with(spec)]
    others = [spec for spec in models if not house.chats_with(spec)]
    chosen = first_model(house, "text")
    talks = chosen is not None and any(spec.id == chosen for spec in talkers)
    with gr.Row(elem_classes="text-tab"):
        with gr.Column(elem_classes="side", min_width=0, visible=talks) as side:
            history = gr.Markdown(showing(say, "")[2], sanitize_html=False)
        with gr.Column(elem_classes="talk", min_width=0):
            with gr.Row(elem_classes="chooser-row"):
                toggle = push("b icon side-toggle", "☰", title=say("chat.history"))
                gr.Markdown(toggle, sanitize_html=False, elem_classes="side-button")
                chooser = gr.Dropdown(
                    [(name, name) for name in (spec.id for spec in models)], value=chosen, show_label=False,
                    label=say("make.model"), container=False, elem_classes="chooser", elem_id="text-model",
                )  # fmt: skip
            note = gr.Markdown(model_note(house, chosen, say), sanitize_html=False, elem_classes="model-note")
            with gr.Column(visible=talks, elem_classes="talking") as talking:
                line = gr.Markdown(forecast_wait(say), sanitize_html=False, elem_classes="forecast-box")
                talk = _talk(house, say, talkers[0].id if talkers else None, chooser, note, history)
                talk.line = line
            with gr.Column(visible=not talks) as making:
                talk.maker = build_makers(house, "text", say, demo, others, chooser, note)
    talk.maker.box = talk.box
    talk.maker.groups["talk"], talk.maker.groups["side"], talk.maker.groups["make"] = talking, side, making
    if talk.form is not None:
        talk.maker.forms[talk.form.family] = talk.form
        _connect(house, say, demo, talk)
    return talk.maker


def _talk(house: House, say: Words, model: str | None, chooser: Any, note: Any, history: Any) -> Talk:
    thread = gr.Markdown(live("thread", kind="scroll"), sanitize_html=False, elem_classes="thread-box")
    box = gr.MultimodalTextbox(
        placeholder=say("chat.placeholder"), show_label=False, label=say("chat.placeholder"), lines=1, max_lines=12,
        file_types=["image"], file_count="multiple", autofocus=True, elem_classes="box", elem_id="chat-box",
        max_plain_text_length=100_000,
    )  # fmt: skip
    open_chat = gr.BrowserState("", storage_key="studio-chat", secret=_SECRET)
    talk = Talk(Maker("text", chooser, note), box, thread, history, open_chat)
    if model is None:
        return talk
    fields = tuple(one for one in house.studio.fields(model, say.language) if one.name not in TAKEN)
    talk.form = Form(house.studio.models.get(model).pipeline, fields)
    made: dict[str, Any] = {}
    with gr.Accordion(say("form.settings"), open=False, elem_classes=["fold", f"form-of-{talk.form.family}"]):
        with gr.Row(elem_classes="fields"):
            preset = gr.Dropdown(list(presets(say.language)), value="", label=say("chat.preset"), min_width=200)
            for one in fields:
                if one.name == "system":
                    made[one.name] = component_of(one, say, lines=1)
                    preset.change(lambda text: text, preset, made[one.name], **QUIET)
        draw_groups(house, talk.form, [one for one in fields if one.name not in made], say, made)
        talk.form.reset = reset_button(say)
        talk.form.reset.click(lambda: "", None, preset, **QUIET)
    talk.form.components = [made[one.name] for one in fields]
    connect_reset(house, talk.form, chooser)
    return talk


def _connect(house: House, say: Words, demo: gr.Blocks, talk: Talk) -> None:
    """Sending, another answer, an edited turn, opening and beginning a conversation, and the forecast."""
    form = talk.form
    assert form is not None  # noqa: S101 - the caller looked
    chooser, inputs = talk.maker.chooser, [talk.maker.chooser, *form.components]
    shown = [talk.open_chat, talk.thread, talk.history]
    act = act_box("chat")

    def params(model: str, values: tuple[Any, ...]) -> dict[str, Any]:
        return form.params(values, house.studio.models.get(model).defaults)

    def send(box: dict[str, Any], chat_id: str, model: str, *values: Any) -> tuple[Any, ...]:
        text, files = (box.get("text") or "").strip(), [str(file) for file in box.get("files") or ()]
        if not text and not files:
            return gr.skip(), gr.skip(), gr.skip(), gr.skip()
        try:
            chat_id = say_it(house, chat_id, model, text or "…", files, params(model, values))
        except StudioError as error:
            raise refused(house, error, say, model) from None
        return {"text": "", "files": []}, *showing(say, chat_id)

    def acted(message: str, chat_id: str, model: str, *values: Any) -> tuple[Any, ...]:
        import json

        asked: dict[str, str] = json.loads(message or "{}")
        try:
            do = asked.get("do")
            if do == "open":
                return showing(say, house.chats.get(asked.get("chat", "")).id)
            if do == "new":
                return showing(say, "")
            if do == "redo":
                answer_again(house, asked["chat"], asked["turn"], model, params(model, values))
                return showing(say, asked["chat"])
            if do == "edit":
                say_otherwise(house, asked["chat"], asked["turn"], asked["text"], model, params(model, values))
                return showing(say, asked["chat"])
        except StudioError as error:
            raise refused(house, error, say, model) from None
        return gr.skip(), gr.skip(), gr.skip()

    def forecast(model: str, *values: Any) -> str:
        if not model or house.studio.models.get(model).pipeline != form.family:
            return "<div></div>"
        try:
            return forecast_line(house, house.fits.ask(model, params(model, values)), say, model)
        except BadRequest as error:
            return forecast_refused(house, error, say, model)

    talk.box.submit(send, [talk.box, talk.open_chat, *inputs], [talk.box, *shown], **QUIET)
    act.submit(acted, [act, talk.open_chat, *inputs], shown, **EACH, **QUIET)
    changes = [component.change for component in form.planned]
    line = talk.line
    gr.on([chooser.change, *changes], forecast, inputs, line, trigger_mode="always_last", **QUIET)
    demo.load(forecast, inputs, line, **QUIET)
    talk.maker.forecasts.append((forecast, inputs, line))
    demo.load(lambda chat_id: showing(say, chat_id)[1:], talk.open_chat, shown[1:], **QUIET)


def showing(say: Words, chat_id: str) -> tuple[Any, ...]:
    """The values of the state, the thread and the history for an open conversation; "" is a new one."""
    begin = button("new", f"+ {esc(say('chat.new'))}", kind="wide", act="chat")
    head = f'<div class="side-head">{begin}{search(say("chat.search"))}</div>'
    thread = live("thread", kind="scroll", chat=chat_id) if chat_id else live("thread", kind="scroll")
    history = live("history", chat=chat_id) if chat_id else live("history")
    return chat_id, thread, f'<div class="panel">{head}{history}</div>'


def say_it(house: House, chat_id: str, model: str, text: str, files: list[str], params: dict[str, Any]) -> str:
    """Add what was said and the job of its answer; returns the conversation's id. ``StudioError``: nothing was kept."""
    known = chat_id if chat_id and _known(house, chat_id) else None
    with house.chats.change(known) as chat:
        _not_writing(house, chat)
        asked = Turn(parent=chat.leaf, role="user", text=text, images=files)
        _answer(house, chat, asked, model, params, new=True)
        return chat.id


def answer_again(house: House, chat_id: str, turn_id: str, model: str, params: dict[str, Any]) -> None:
    """Another answer to the same words: a branch beside the one that is there."""
    with house.chats.change(chat_id) as chat:
        _stop_writing(house, chat)
        asked = chat.turn(chat.turn(turn_id).parent)
        _answer(house, chat, asked, model, {key: value for key, value in params.items() if key != "seed"}, new=False)


def say_otherwise(house: House, chat_id: str, turn_id: str, text: str, model: str, params: dict[str, Any]) -> None:
    """The same place in the conversation with other words: a branch beside the one that is there."""
    if not text.strip():
        raise BadRequest("The message is empty.", "Write something.")
    with house.chats.change(chat_id) as chat:
        _stop_writing(house, chat)
        before = chat.turn(turn_id)
        asked = Turn(parent=before.parent, role="user", text=text.strip(), images=before.images)
        _answer(house, chat, asked, model, params, new=True)


def _answer(house: House, chat: Chat, asked: Turn, model: str, params: dict[str, Any], *, new: bool) -> None:
    request = {**params, "prompt": asked.text, "messages": chat.messages(asked.parent)}
    if asked.images:
        request["images"] = asked.images
    if not request["messages"]:
        del request["messages"]
    job = house.studio.submit(model, priority=PERSON_WAITS, **request)
    asked.images = job.row.params.get("images", [])  # where the store keeps them
    if new:
        chat.add(asked)
    chat.model, chat.settings = model, params
    chat.add(Turn(parent=asked.id, role="assistant", model=model, job=job.id, settled=False))


def _known(house: House, chat_id: str) -> bool:
    try:
        return bool(house.chats.get(chat_id))
    except StudioError:
        return False


def _stop_writing(house: House, chat: Chat) -> None:
    """What is asked anew is not waited for; what came of the answer stays in its branch."""
    for turn in chat.path():
        if not turn.settled:
            house.studio.queue.cancel(turn.job)
    settle(house, chat)


def _not_writing(house: House, chat: Chat) -> None:
    settle(house, chat)
    if any(not turn.settled for turn in chat.path()):
        raise BadRequest("An answer is still being written.", "Stop it, or wait for its end.")
