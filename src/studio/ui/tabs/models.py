"""The catalogue: what each model is good at, under which licence, how large, and whether it fits this machine."""

from __future__ import annotations

import sys
from collections.abc import Mapping

import gradio as gr

from studio.spec import ModelSpec
from studio.ui.house import MODALITIES, House, modality_of
from studio.ui.i18n import Words
from studio.ui.tabs.make import pull_box
from studio.ui.view import badge, button, chips, empty, esc, live, panel, search


def build(say: Words) -> None:
    names = {kind: say(f"models.{kind}") for kind in ("all", "here")}
    names |= {kind: say(f"tab.{kind}") for kind in MODALITIES}
    head = chips("kind", names) + search(say("models.search"))
    gr.Markdown(panel(head, live("models", kind="all")), sanitize_html=False)


def render(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """The cards that match, and sooner again while something is downloaded."""
    kind, words = query.get("kind", "all"), query.get("q", "").casefold().split()
    cards = []
    busy = False
    for spec in house.studio.models:
        task, here = house.task(spec), house.studio.models.files(spec.id) is not None
        if task is None or (kind in MODALITIES and modality_of(task) != kind) or (kind == "here" and not here):
            continue
        card = spec.words(say.language)
        text = " ".join([spec.id, task, spec.licence, card.good_at if card else ""]).casefold()
        if all(word in text for word in words):
            pull = house.pulls.of(spec.id)
            busy = busy or (pull is not None and pull.running)
            cards.append((not here, _large(house, spec), _card(house, say, spec, task, here)))
    cards.sort(key=lambda card: card[:2])
    told = (house.told(say, text) for text in house.faults)
    faults = "".join(f'<p class="trouble" data-key="fault{n}">{esc(text)}</p>' for n, text in enumerate(told))
    if not cards:
        return faults + empty(say("models.none"), say("models.none_text")), 4000
    inside = "".join(card for _, _, card in cards)
    return f'<div class="cards" data-keyed data-steady>{faults}{inside}</div>', 500 if busy else 4000


def _large(house: House, spec: ModelSpec) -> int:
    """How large a model is, as well as it is known: small ones come first."""
    forecast = house.fits.of(spec.id)
    return spec.about_bytes or (forecast.plan.disk_bytes if forecast and forecast.plan else sys.maxsize)


def _card(house: House, say: Words, spec: ModelSpec, task: str, here: bool) -> str:
    forecast = house.fits.of(spec.id)
    words = spec.words(say.language)
    about = f"<p>{esc(words.good_at)}</p><p class='limits'>{esc(words.limits)}</p>" if words else ""
    spoken = [tongue for tongue in spec.card.languages if tongue != "zxx"] if spec.card else []  # zxx: none at all
    tongues = f" · {esc(', '.join(spoken))}" if spoken else ""
    size = house.size(spec, say)
    size = f" · {esc(size)}" if size else ""
    mark = badge(forecast, say) if forecast else '<span class="badge wait">…</span>'
    no = house.told(say, forecast.why, model=spec.id) if forecast and forecast.verdict == "no" else ""
    why = f'<p class="why">{esc(no)}</p>' if no else ""
    need = ""
    if forecast and forecast.plan is not None and forecast.plan.fits:
        plan = forecast.plan
        needs = [say("plan.of_vram", size=say.size(plan.peak_vram_bytes))] if plan.peak_vram_bytes else []
        needs += [say("plan.of_ram", size=say.size(plan.peak_ram_bytes))] if plan.peak_ram_bytes else []
        need = f"<small>{esc(' · '.join(needs))}</small>"
    makes = _makes(task, say)
    proof = say(f"models.proof_{spec.proof}")
    facts = f"<small>{esc(makes)}{size} · {esc(spec.licence)}{tongues} · {esc(proof)}</small>"
    head = f"<header><h3>{esc(spec.id)}</h3>{mark}</header>"
    foot = f'<div class="foot">{_foot(house, say, spec, here)}</div>'
    return f'<article class="card" data-key="{esc(spec.id)}">{head}{facts}{about}{why}{need}{foot}</article>'


def _makes(task: str, say: Words) -> str:
    """``text+image->text`` in words: what the model takes and gives."""
    sides = (side.split("+") for side in task.split("->"))
    named = ([say(f"medium.{kind}") if say.has(f"medium.{kind}") else kind for kind in side] for side in sides)
    return " → ".join(" + ".join(side) for side in named)


def _foot(house: House, say: Words, spec: ModelSpec, here: bool) -> str:
    if not here:
        return pull_box(house, spec, say)
    ready = f'<span class="ready">{esc(say("models.ready"))}</span>'
    if spec.source is None:
        return ready
    sure = say("models.sure", model=spec.id)
    return ready + button("remove", esc(say("models.remove")), kind="small quiet", id=spec.id, sure=sure)
