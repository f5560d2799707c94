"""The list of all jobs, whatever face asked for them."""

from __future__ import annotations

from collections.abc import Mapping

import gradio as gr

from studio.jobs.model import ENDED, JobRow
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.view import (
    as_json,
    button,
    chips,
    clock,
    empty,
    esc,
    facts_of,
    figure,
    live,
    panel,
    progress_of,
    push,
    retry_tools,
    share_of,
    sign,
    trouble,
    what_of,
)

SHOWN = 50
_FILTERS: dict[str, tuple[str, ...]] = {
    "all": (), "active": ("queued", "running"), "done": ("done",), "trouble": ("failed", "quarantined"),
}  # fmt: skip


def build(say: Words) -> None:
    head = chips("show", {name: say(f"jobs.show_{name}") for name in _FILTERS})
    gr.Markdown(panel(head, live("jobs", show="all")), sanitize_html=False)


def render(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """The list as HTML, and after how many milliseconds to ask again."""
    show = query.get("show", "all")
    states = _FILTERS.get(show, ())
    count = min(1000, int(query.get("count", "") or SHOWN))
    rows = house.studio.jobs.find(states=states, limit=count + 1)
    more, rows = len(rows) > count, rows[:count]
    if not rows:
        if states:
            return empty(say(f"jobs.none_{show}"), say("jobs.none_shown")), 2000
        return empty(say("jobs.none"), say("jobs.none_text")), 2000
    waiting = [row for row in rows if row.state == "queued"]
    running = [row for row in rows if row.state == "running"]
    waiting.sort(key=lambda row: (-row.priority, row.position))
    ended = [row for row in rows if row.ended]
    parts = []
    if house.studio.queue.paused and (waiting or running):
        parts.append(f'<p class="note" data-key="paused">{esc(say("jobs.paused"))} '
                     f'{button("resume", esc(say("machine.resume")), kind="small")}</p>')  # fmt: skip
    elif running:
        pause = button("pause", esc(say("machine.pause")), kind="small", title=say("make.pause_text"))
        parts.append(f'<p class="above" data-key="above">{esc(say("jobs.above", count=len(waiting)))} {pause}</p>')
    for place, row in enumerate([*running, *waiting, *ended]):
        opened = query.get("open") == row.id
        position = place - len(running) if row.state == "queued" else -1
        parts.append(_row(house, say, row, position, len(waiting), opened))
    if more:
        further = push("b", esc(say("jobs.more")), set=f"count={count + SHOWN}")
        parts.append(f'<p data-key="more" class="more">{further}</p>')
    return f'<div class="jobs" data-keyed>{"".join(parts)}</div>', 400 if running or waiting else 2000


def _row(house: House, say: Words, row: JobRow, position: int, waiting: int, opened: bool) -> str:
    story = house.stories.of(row)
    state = f'<span class="state {row.state}">{esc(say("state." + row.state))}</span>'
    title = what_of(row) or row.step or row.model
    batch = f' <span class="tag">{esc(row.batch)} · {esc(row.step or "")}</span>' if row.batch else ""
    name = push("title", f"<b>{esc(title)}</b><small>{esc(row.model)}{batch}</small>", toggle=f"open={row.id}")
    tools = f'<div class="tools">{_tools(row, position, waiting, say)}</div>'
    line = f'<div class="line">{state}{name}<time>{esc(clock(row.created, say))}</time>{tools}</div>'
    facts = f'<span class="facts">{esc(facts_of(row, story, say))}</span>'
    middle = facts if row.ended else progress_of(house, story, row, say, position)
    fault = trouble(house, row, say) if row.state in ("failed", "quarantined") else ""
    detail = _detail(house, say, row) if opened else ""
    return f'<article class="job {row.state}" data-key="{row.id}">{line}{middle}{fault}{detail}</article>'


def _tools(row: JobRow, position: int, waiting: int, say: Words) -> str:
    tools = []
    if row.state == "queued" and waiting > 1:
        if position > 0:
            tools.append(button("first", sign("first"), kind="icon", title=say("jobs.first"), id=row.id))
            tools.append(button("up", "↑", kind="icon", title=say("jobs.up"), id=row.id))
        if position < waiting - 1:
            tools.append(button("down", "↓", kind="icon", title=say("jobs.down"), id=row.id))
    if row.state not in ENDED:
        tools.append(button("cancel", esc(say("jobs.cancel")), kind="small stop", id=row.id))
    elif row.state == "done":
        tools.append(button("again", esc(say("jobs.again")), kind="small", id=row.id))
    else:
        tools.append(retry_tools(row, say))
    return "".join(tools)


def _detail(house: House, say: Words, row: JobRow) -> str:
    made = "".join(figure(house, one, say) for one in house.studio.artefacts.of_job(row.id))
    facts = f"{esc(row.id)} · {esc(say('jobs.attempt', number=row.attempt))}"
    return f'<div class="detail"><div class="made">{made}</div><small>{facts}</small>{as_json(row.params)}</div>'


def render_status(house: House, say: Words, _query: Mapping[str, str]) -> tuple[str, int]:
    """The pill at the top of the page: what runs, and how far it is. It carries what is loaded, for forecasts."""
    held = ",".join(f"{one['model']}{'-' * bool(one.get('parked'))}" for one in house.studio.queue.note("loaded") or [])
    if house.studio.queue.paused:
        return push("pill paused", esc(say("status.paused")), tab="machine", held=held), 2000
    running = house.studio.jobs.find(states=["running"], limit=1)
    queued = house.studio.queue.counts().get("queued", 0)
    if not running and not queued:
        return push("pill idle", esc(say("status.idle")), tab="jobs", held=held), 2000
    text = esc(say("status.waiting", count=queued))
    if running:
        done = share_of(house.stories.of(running[0]).progress)
        share = f" {100 * done:.0f} %" if done else ""
        text = f"<b>{esc(running[0].model)}</b>{share}" + (f'<span class="of"> +{queued}</span>' if queued else "")
    return push("pill busy", f"<i></i>{text}", tab="jobs", held=held), 700
