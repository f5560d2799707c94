"""A conversation as HTML: turns with their branches, thoughts folded, and the answer that is being written."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from studio.errors import NotFound
from studio.ui.chats import Chat, Turn
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.prose import prose
from studio.ui.view import button, clock, empty, esc, push, sign

WRITING_MS = 150


def settle(house: House, chat: Chat) -> bool:
    """Take over what the jobs of the shown branch have written since; whether something ended."""
    ended = False
    for turn in chat.turns:
        if turn.settled or not turn.job:
            continue
        try:
            row = house.studio.queue.get(turn.job)
        except NotFound:
            turn.settled, turn.error = True, "The job is gone."
            continue
        story = house.stories.of(row)
        turn.text, turn.thinking = story.text, story.thinking
        if row.ended:
            turn.settled, turn.info, ended = True, dict(story.info), True
            turn.error = "" if row.state in ("done", "cancelled") else f"{row.error} {row.hint}".strip()
            if row.started and row.finished:
                turn.info["seconds"] = row.finished - row.started
            if row.state == "cancelled":
                turn.info["stopped"] = True
    return ended


def current(house: House, chat_id: str) -> Chat:
    """The conversation with what is known of its answers now; an end is written down."""
    chat = house.chats.get(chat_id)
    if settle(house, chat):
        with house.chats.change(chat_id) as kept:
            settle(house, kept)
    return chat


def render(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """The shown branch; asked again quickly while an answer is written."""
    chat_id = query.get("chat", "")
    if not chat_id:
        return _welcome(say), 60_000
    try:
        chat = current(house, chat_id)
    except NotFound:
        return _welcome(say), 60_000
    turns = chat.path()
    writing = any(not turn.settled for turn in turns)
    inside = "".join(_turn(house, say, chat, turn) for turn in turns)
    return f'<div class="thread" data-keyed data-chat="{chat.id}">{inside}</div>', WRITING_MS if writing else 1500


def _welcome(say: Words) -> str:
    words = [say(f"chat.idea{number}") for number in (1, 2, 3)]
    ideas = "".join(push("idea", esc(text), fill=text) for text in words)
    return empty(say("chat.empty"), say("chat.empty_text"), f'<div class="ideas">{ideas}</div>')


def _turn(house: House, say: Words, chat: Chat, turn: Turn) -> str:
    branches = _branches(say, chat, turn)
    if turn.role == "user":
        return _asked(say, chat, turn, branches)
    return _answered(house, say, chat, turn, branches)


def _asked(say: Words, chat: Chat, turn: Turn, branches: str) -> str:
    pictures = "".join(f'<img src="studio/input/{esc(Path(image).name)}" alt="">' for image in turn.images)
    pictures = f'<div class="pictures">{pictures}</div>' if pictures else ""
    tools = branches + button("edit", "✎", kind="icon", title=say("chat.edit"), turn=turn.id)
    words = {"save": say("chat.save"), "drop": say("chat.drop")}
    return (
        f'<article class="turn user" data-key="{turn.id}" data-chat="{chat.id}" data-turn="{turn.id}"'
        f' data-save="{esc(words["save"])}" data-drop="{esc(words["drop"])}">{pictures}'
        f'<div class="said">{esc(turn.text)}</div><div class="tools">{tools}</div></article>'
    )


def _answered(house: House, say: Words, chat: Chat, turn: Turn, branches: str) -> str:
    body = _thoughts(say, turn)
    if turn.text:
        body += f'<div class="prose">{_prose(turn.text, turn.settled)}</div>'
    if turn.error:
        body += f'<div class="trouble"><p>{esc(house.told(say, turn.error, model=turn.model))}</p></div>'
    if not turn.settled:
        waits = "" if turn.text or turn.thinking else f'<span class="dots">{esc(_waiting(house, say, turn))}</span>'
        tools = waits + button(
            "cancel", esc(say("chat.stop")), kind="small stop", id=turn.job, title=say("chat.stop_key")
        )
        return (
            f'<article class="turn model writing" data-key="{turn.id}">{body}<div class="tools">{tools}</div></article>'
        )
    tools = (
        branches
        + button("copy", sign("copy"), kind="icon", title=say("chat.copy"), turn=turn.id)
        + button("redo", "↻", kind="icon", title=say("chat.redo"), turn=turn.id, chat=chat.id, act="chat")
        + f'<span class="facts">{esc(_facts(say, turn))}</span>'
    )
    raw = f'<template class="raw">{esc(turn.text)}</template>'
    return f'<article class="turn model" data-key="{turn.id}">{body}<div class="tools">{tools}</div>{raw}</article>'


def _prose(text: str, settled: bool) -> str:
    return prose(text) if settled else prose.__wrapped__(text)  # what still grows would only fill the cache


def _waiting(house: House, say: Words, turn: Turn) -> str:
    row = house.studio.queue.get(turn.job)
    if house.studio.queue.paused:
        return say("jobs.paused")
    if row.state == "queued":
        return say("jobs.waits")
    step = house.stories.of(row).progress
    return say("chat.reading") if step is not None and step.phase != "load" else say("jobs.starts")


def _thoughts(say: Words, turn: Turn) -> str:
    """Folded; open while the model still thinks, so that something is seen to happen."""
    if not turn.thinking:
        return ""
    thinks = not turn.settled and not turn.text
    count, rate = turn.info.get("thinking_tokens"), turn.info.get("tokens_per_s")
    title = say("chat.thinking") if thinks else say("chat.thoughts")
    if count and rate:
        title = say("chat.thought", time=say.time(count / rate))
    return (
        f'<details class="thoughts{" now" if thinks else ""}" data-fold="{turn.id}"><summary>{esc(title)}</summary>'
        f"<div>{esc(turn.thinking)}</div></details>"
    )


def _facts(say: Words, turn: Turn) -> str:
    facts = [turn.model]
    if rate := turn.info.get("tokens_per_s"):
        facts.append(say("chat.rate", rate=say.number(rate, 1)))
    if count := turn.info.get("completion_tokens"):
        facts.append(say("chat.tokens", count=say.number(count)))
    if turn.info.get("seconds"):
        facts.append(say.time(turn.info["seconds"]))
    if turn.info.get("stopped"):
        facts.append(say("chat.stopped"))
    elif turn.info.get("finish_reason") == "length":
        facts.append(say("chat.cut"))
    return " · ".join(facts)


def _branches(say: Words, chat: Chat, turn: Turn) -> str:
    """``‹ 2/3 ›`` where there is more than one way the conversation went."""
    ways = [other.id for other in chat.siblings(turn)]
    if len(ways) < 2:
        return ""
    here = ways.index(turn.id)
    back = ways[max(0, here - 1)]
    on = ways[min(len(ways) - 1, here + 1)]
    left = button("branch", "‹", kind="icon", title=say("chat.before"), chat=chat.id, turn=back)
    right = button("branch", "›", kind="icon", title=say("chat.after"), chat=chat.id, turn=on)
    return f'<span class="ways">{left}{here + 1}/{len(ways)}{right}</span>'


def render_history(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """The conversations on the left, the last changed first."""
    chats = house.chats.newest(query.get("q", ""))
    if not chats:
        none = say("gallery.nothing" if query.get("q") else "chat.none")
        return f'<p class="quiet">{esc(none)}</p>', 2000
    rows = "".join(_past(say, chat, chat.id == query.get("chat")) for chat in chats)
    return f'<div class="history" data-keyed>{rows}</div>', 3000


def _past(say: Words, chat: Chat, on: bool) -> str:
    label = f"{esc(chat.title or '…')}<small>{esc(clock(chat.changed, say))}</small>"
    name = push("title", label, do="open", act="chat", chat=chat.id)
    drop = button("delete-chat", "×", kind="icon", title=say("chat.delete"), chat=chat.id, sure=say("chat.sure"))
    return f'<div class="past{" on" if on else ""}" data-key="{chat.id}">{name}{drop}</div>'


@lru_cache(maxsize=2)
def presets(language: str) -> tuple[tuple[str, str], ...]:
    """Ready-made system prompts: name and text."""
    from studio.ui.i18n import words_of

    say = words_of(language)
    names = ("none", "short", "teacher", "writer", "coder", "translator")
    return tuple((say(f"preset.{name}"), say(f"preset.{name}_text")) for name in names)
