"""Pieces of HTML that several tabs use. Every value from outside goes through ``esc``."""

from __future__ import annotations

import json
import re
import time
from functools import lru_cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.events import Artefact, Progress
from studio.jobs.model import JobRow
from studio.memory.plan_request import RUN_ANYWAY
from studio.pictures import shown_size
from studio.ui.fits import Forecast
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.story import Story

if TYPE_CHECKING:
    import gradio as gr

CUT = 4000
PARTS_DRAWN = 80


def esc(value: object) -> str:
    return escape(str(value), quote=True)


def button(do: str, label: str, *, kind: str = "", title: str = "", **data: object) -> str:
    """A button that ``keys.js`` obeys: it posts ``do`` and the data, or hands them to the tab."""
    return push(f"b {kind}".strip(), label, title=title, do=do, **data)


def push(kind: str, label: str, *, title: str = "", **data: object) -> str:
    """A plain button of class ``kind`` with data that ``keys.js`` reads: ``set``, ``toggle``, ``tab``, ``fill`` ..."""
    values = "".join(f' data-{name}="{esc(value)}"' for name, value in data.items())
    tip = f' title="{esc(title)}" aria-label="{_spoken(label, title)}"' if title else ""
    return f'<button type="button" class="{kind}"{values}{tip}>{label}</button>'


def _spoken(label: str, title: str) -> str:
    """What a button is called aloud: what it shows comes first, so that it is found by it.

    A comma between, which both languages write alike.
    """
    shown = " ".join(_TAG.sub(" ", label).split())
    words = shown if any(map(str.isalnum, shown)) and len(shown) < _SPOKEN_MAX else ""
    return f"{words}, {esc(title)}" if words and not esc(title).startswith(words) else esc(title)


_TAG = re.compile("<[^>]*>")
_FLAG = re.compile("--([a-z][a-z0-9-]*)")
_SPOKEN_MAX = 60
_SIGNS = {
    "copy": '<rect x="9" y="9" width="11" height="11" rx="2"/><path d="M5 15H4V4h11v1"/>',
    "dice": '<rect x="4" y="4" width="16" height="16" rx="3"/><path d="M9 9h0M15 9h0M12 12h0M9 15h0M15 15h0"/>',
    "again": '<path d="M4 12a8 8 0 0 1 14-5l2 2M20 4v5h-5M20 12a8 8 0 0 1-14 5l-2-2M4 20v-5h5"/>',
    "first": '<path d="M5 4h14M12 20V9M7 13l5-5 5 5"/>',
}  # fmt: skip


def sign(name: str) -> str:
    """A small drawing: fonts lack such letters more often than not."""
    return (
        '<svg viewBox="0 0 24 24" width="17" height="17" fill="none" stroke="currentColor" stroke-width="1.8"'
        f' stroke-linecap="round" stroke-linejoin="round" aria-hidden="true">{_SIGNS[name]}</svg>'
    )


def search(text: str) -> str:
    """A box that narrows the live piece of the same panel."""
    return f'<input type="search" data-search="q" placeholder="{esc(text)}" aria-label="{esc(text)}">'


def chips(name: str, labels: dict[str, str]) -> str:
    """Filters of the live piece of the same panel; the first is on."""
    first = next(iter(labels))
    inside = "".join(
        push("chip on" if value == first else "chip", esc(label), set=f"{name}={value}&page=0")
        for value, label in labels.items()
    )
    return f'<div class="chips">{inside}</div>'


def panel(head: str, body: str) -> str:
    return f'<div class="panel"><div class="head">{head}</div>{body}</div>'


def live(source: str, *, kind: str = "", **query: object) -> str:
    """A place that ``keys.js`` fills and keeps up to date from ``studio/live/SOURCE``."""
    values = "&".join(f"{name}={value}" for name, value in query.items())
    return f'<div class="live {kind}" data-src="studio/live/{esc(source)}{"?" + esc(values) if values else ""}"></div>'


def empty(title: str, text: str = "", more: str = "") -> str:
    return f'<div class="empty"><h3>{esc(title)}</h3><p>{esc(text)}</p>{more}</div>'


def badge(forecast: Forecast, say: Words, *, brief: bool = False) -> str:
    """Whether it fits, and whether it takes long; ``brief`` where the time stands beside it."""
    kind = forecast.verdict + (" slow" if forecast.slow else "")
    return f'<span class="badge {kind}">{esc(fits_words(forecast, say, brief=brief))}</span>'


def fits_words(forecast: Forecast, say: Words, *, brief: bool = False) -> str:
    words, rate = say("fits." + forecast.verdict), forecast.tokens_per_s
    if not forecast.slow:
        return words
    if brief:
        return say("fits.slowly", fits=words)
    if rate is not None:
        return say("fits.slow_text", fits=words, rate=say.number(rate, 1 if rate >= 0.1 else 2))
    return say("fits.slow", fits=words, time=say.about(forecast.plan.seconds if forecast.plan else None))


def bar(share: float | None, name: str) -> str:
    """A progress bar, called aloud ``name``; ``None``: the end is not known."""
    spoken = f'role="progressbar" aria-label="{esc(name)}"'
    if share is None:
        return f'<div class="bar busy" {spoken}><i></i></div>'
    percent = max(0.0, min(100.0, 100 * share))
    return f'<div class="bar" {spoken} aria-valuenow="{percent:.0f}"><i style="width:{percent:.1f}%"></i></div>'


def forecast_wait(say: Words) -> str:
    """Until a forecast is known: a large model's takes seconds."""
    return f'<div class="forecast wait">{esc(say("plan.wait"))}</div>'


def forecast_line(house: House, forecast: Forecast, say: Words, model: str) -> str:
    """What it would take, before anything is pressed."""
    plan = forecast.plan
    if plan is None:
        why = house.told(say, forecast.why, model=model)
        about = _about(house, forecast.error, model) if forecast.error else ""
        return f'<div class="forecast {forecast.verdict}"{about}>{badge(forecast, say)} {esc(why)}</div>'
    parts, seconds = [], plan.seconds
    if seconds is not None and house.is_loaded(model):
        seconds = max(0.0, seconds - sum(phase.seconds or 0 for phase in plan.phases if phase.name == "load"))
    if plan.peak_vram_bytes:
        parts.append((say("plan.vram"), say.size(plan.peak_vram_bytes)))
    parts += [
        (say("plan.ram"), say.size(plan.peak_ram_bytes)),
        (say("plan.disk"), say.size(plan.disk_bytes)),
        (say("plan.time"), _time(forecast, seconds, say)),
    ]
    facts = "".join(f"<span><small>{esc(name)}</small>{esc(value)}</span>" for name, value in parts)
    why = f'<p class="why">{esc(house.told(say, plan.nearest, model=model))}</p>' if not plan.fits else ""
    return f'<div class="forecast {forecast.verdict}">{badge(forecast, say, brief=True)}{facts}{why}</div>'


def _time(forecast: Forecast, seconds: float | None, say: Words) -> str:
    """Of a text the longest answer's, which most are not."""
    if seconds is not None and forecast.tokens_per_s:
        return say("plan.up_to", time=say.time(seconds))
    about = "≈ " if forecast.plan and forecast.plan.estimated and seconds is not None else ""
    return about + say.time(seconds)


def forecast_refused(house: House, error: StudioError, say: Words, model: str) -> str:
    """Why there is no forecast for what the form holds."""
    why = house.told(say, error.what, error.hint, model=model)
    mark = badge(Forecast("unknown"), say)
    return f'<div class="forecast unknown"{_about(house, error, model)}>{mark} {esc(why)}</div>'


def _about(house: House, error: StudioError, model: str) -> str:
    """Names the field that is refused, for ``form.js``: over a picture that does not open, no mask is painted."""
    name = _field_of(house, error, model)
    return f' data-refused="{esc(name)}"' if name else ""


def refused(house: House, error: StudioError, say: Words, model: str = "") -> gr.Error:
    """What a handler raises so that the page shows why it did nothing."""
    import gradio as gr

    text = house.told(say, error.what, error.hint, model=model)
    if name := _field_of(house, error, model):  # refusal.js marks it; Gradio lets a class through
        text += f'<i class="refused-{esc(name)}"></i>'
    return gr.Error(text, duration=12, title=say("said.refused"), print_exception=False)


def _field_of(house: House, error: StudioError, model: str) -> str:
    """The parameter that a refusal is about: a family names it as on the command line, or begins with it."""
    if error.field or model not in house.studio.catalogue.specs:
        return error.field
    names = {one.name for one in house.studio.fields(model)}
    words = [error.what.partition(" ")[0].rstrip(":"), *_FLAG.findall(f"{error.what} {error.hint}")]
    return next((name for word in words if (name := word.replace("-", "_")) in names), "")


def share_of(step: Progress | None) -> float | None:
    """How much of the whole is done, as far as it is known: of all parts, where the work is in parts."""
    if step is None or not step.total:
        return None
    share = min(1.0, step.done / step.total)
    if step.parts:
        return (step.part - 1 + share) / step.parts
    return share if share < 1 else None  # the phase is over and nobody said what comes next


def progress_of(house: House, story: Story, job: JobRow, say: Words, ahead: int = 0) -> str:
    """The bar of a job with its phase and the time left, of its part and in all; of a waiting one, its place."""
    step = story.progress
    if job.state == "queued":
        waits = say("jobs.waits_behind", count=ahead) if ahead > 0 else say("jobs.waits")
        return f'<div class="doing">{bar(0, waits)}<span>{esc(waits)}</span></div>'
    if step is None:
        starts = say("jobs.starts")
        return f'<div class="doing">{bar(None, starts)}<span>{esc(starts)}</span></div>'
    words = [phase_name(house, step.phase, say)]
    if step.total > 1 and step.done < step.total:
        words[0] += f" {step.done:g}/{step.total:g}"
    if step.parts:
        words.insert(0, say("jobs.part", part=_place(step), parts=step.parts))
        if step.part_eta_s is not None:
            words.append(say("jobs.part_left", time=say.time(step.part_eta_s)))
    if step.eta_s is not None:
        words.append(say("jobs.all_left" if step.parts else "jobs.left", time=say.time(step.eta_s)))
    line = f"<span>{esc(' · '.join(words))}</span>"
    return f'<div class="doing">{_parts(step)}{bar(share_of(step), words[0])}{line}</div>'


def _place(step: Progress) -> int:
    """Where in the result the part that is made stands."""
    return step.parts + 1 - step.part if step.backwards else step.part


def _parts(step: Progress) -> str:
    """The parts in the order of the result: done, at work, to come."""
    if not 1 < step.parts <= PARTS_DRAWN:
        return ""
    kinds = ["done" if n < step.part else "now" if n == step.part else "" for n in range(1, step.parts + 1)]
    if step.backwards:
        kinds.reverse()
    return f'<div class="parts">{"".join(f"<i class={kind!r}></i>" for kind in kinds)}</div>'


def phase_name(house: House, phase: str, say: Words) -> str:
    """The page's own word for a phase, else its name; a family says it in French in its ``messages_fr.yaml``."""
    if say.has(f"phase.{phase}"):
        return say(f"phase.{phase}")
    return house.told(say, phase.replace("_", " ").capitalize())


def what_of(job: JobRow, length: int = 90) -> str:
    """The request in a few words: its prompt, or its input file."""
    words = next((job.params[name] for name in ("prompt", "text", "lyrics") if job.params.get(name)), "")
    text = " ".join(str(words).split())
    return text if len(text) <= length else text[: length - 1] + "…"


def name_of(made: Artefact) -> str:
    """What a result is called where it cannot be seen: its prompt, else its model."""
    asked = " ".join(str(made.recipe.get("params", {}).get("prompt") or "").split())
    return asked[:80] or str(made.recipe.get("model") or made.id)


def figure(house: House, made: Artefact, say: Words) -> str:
    """An artefact as large as its place allows."""
    url, kind = f"studio/artefact/{made.id}", made.media_type.split("/")[0]
    if not Path(made.path).is_file():
        return f'<div class="gone">{esc(say("gallery.gone"))}</div>'
    size = f'<small class="pixels">{esc(pixels_of(made, say))}</small>' if kind == "image" else ""
    own = house.widgets.html(made.media_type, url, made.info, say.language)
    if own is not None:
        return f'<div class="own">{own}</div>{size}'
    if kind == "image":
        seen = f'<img src="{url}" alt="{esc(name_of(made))}" decoding="async">'
        return f'<a class="picture" href="{url}" target="_blank">{seen}</a>{size}'
    if kind == "video":
        return f'<video src="{url}" controls loop playsinline preload="metadata"></video>'
    if kind == "audio":
        return f'<audio src="{url}" controls preload="metadata"></audio>'
    if kind == "text" or made.media_type == "application/json":
        text = made.text
        return f'<pre class="words" tabindex="0">{esc(text[:CUT])}{"…" if len(text) > CUT else ""}</pre>'
    return f'<a class="b" href="{url}" download>{esc(say("gallery.download"))} · {esc(say.size(made.bytes))}</a>'


def pixels_of(made: Artefact, say: Words) -> str:
    """The size of a picture in pixels, as far as its file tells."""
    size = _pixels(made.path, made.bytes)
    return f"{size[0]} × {size[1]} {say('unit.px')}" if size else ""


@lru_cache(maxsize=500)
def _pixels(path: str, _bytes: int) -> tuple[int, int] | None:
    try:
        return shown_size(Path(path))
    except (OSError, ValueError):
        return None


def facts_of(job: JobRow, story: Story, say: Words) -> str:
    """How long it took, which seed, how much energy: one quiet line under a result."""
    facts = []
    if job.started and job.finished:
        facts.append(say.time(job.finished - job.started))
    rate = story.info.get("tokens_per_s")
    if isinstance(rate, int | float):
        facts.append(say("chat.rate", rate=say.number(rate, 1)))
    if job.params.get("seed") is not None:
        facts.append(f"{say('make.seed')} {job.params['seed']}")
    if story.done is not None and story.done.energy_j is not None:
        facts.append(f"{say.number(story.done.energy_j, 0)} J")
    return " · ".join(facts)


def trouble(house: House, job: JobRow, say: Words) -> str:
    """An end that is none: what happened, and the way out."""
    if job.state == "cancelled":
        return f'<div class="trouble quiet">{esc(say("jobs.was_cancelled"))}</div>'
    what = house.told(say, job.error, model=job.model)
    way_out = house.told(say, job.hint.replace(RUN_ANYWAY, "").strip(), model=job.model)  # there is a button for that
    hint = f"<p>{esc(way_out)}</p>" if way_out else ""
    return f'<div class="trouble"><b>{esc(say("state." + job.state))}</b><p>{esc(what)}</p>{hint}</div>'


def retry_tools(job: JobRow, say: Words) -> str:
    """Once more; where no plan fits, also in spite of it."""
    tools = button("retry", esc(say("jobs.retry")), kind="small", id=job.id)
    if RUN_ANYWAY in job.hint:
        tools += button("anyway", esc(say("jobs.anyway")), kind="small", id=job.id, sure=say("jobs.anyway_sure"))
    return tools


def clock(seconds: float, say: Words) -> str:
    """Today the hour, else the day."""
    then, now = time.localtime(seconds), time.localtime()
    if then[:3] == now[:3]:
        return time.strftime("%H:%M", then)
    return time.strftime("%d/%m/%Y" if say.language == "fr" else "%Y-%m-%d", then)


def as_json(value: Any) -> str:
    return f'<pre class="json">{esc(json.dumps(value, indent=2, ensure_ascii=False))}</pre>'
