"""Everything that was made, page by page, with its recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.errors import NotFound
from studio.events import Artefact
from studio.ui.house import House, modality_of_media
from studio.ui.i18n import Words
from studio.ui.tabs.result import tools_of
from studio.ui.view import (
    as_json,
    button,
    chips,
    clock,
    empty,
    esc,
    figure,
    live,
    name_of,
    panel,
    push,
    search,
    what_of,
)

PAGE = 60
KINDS = ("all", "image", "video", "audio", "mesh", "text")
_MEDIA = {"image": "image/%", "video": "video/%", "audio": "audio/%", "mesh": "model/%", "text": "text/%"}


def build(say: Words) -> Any:
    """Returns the place where a file is dropped to restore its settings."""
    names = {kind: say("gallery.all") if kind == "all" else say(f"tab.{kind}") for kind in KINDS}
    head = chips("kind", names) + search(say("gallery.search"))
    gr.Markdown(panel(head, live("gallery", kind="all", page=0)), sanitize_html=False)
    with gr.Row(elem_classes="ask restore"):
        return gr.File(label=say("gallery.drop_text"), type="filepath", height=104, elem_classes="drop")


def render(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """One page of the gallery; ``item`` opens one of them."""
    kind, words = _MEDIA.get(query.get("kind", ""), "%"), query.get("q", "")
    page = max(0, int(query.get("page") or 0))
    count, made = house.studio.made.find(kind, words, PAGE, page * PAGE)
    if not made and page and count:  # what stood on the last page was deleted
        page = (count - 1) // PAGE
        count, made = house.studio.made.find(kind, words, PAGE, page * PAGE)
    opened = _opened(house, say, query.get("item", "")) if query.get("item") else ""
    if not made:
        known = words or kind != "%"
        text = empty(say("gallery.nothing"), say("models.none_text"))
        if not known:
            text = empty(say("gallery.none"), say("gallery.none_text"))
        return f"<div>{opened}{text}</div>", 4000
    tiles = "".join(_tile(one, query.get("item", ""), say) for one in made)
    return f'<div>{opened}<div class="tiles" data-keyed>{tiles}</div>{_pager(page, count, say)}</div>', 4000


def _pager(page: int, count: int, say: Words) -> str:
    last = (count - 1) // PAGE
    where = say("gallery.page", first=page * PAGE + 1, last=min(count, (page + 1) * PAGE), count=count)
    back = push("b small", "←", set=f"page={page - 1}") if page else ""
    on = push("b small", "→", set=f"page={page + 1}") if page < last else ""
    return f'<div class="pager">{back}<span>{esc(where)}</span>{on}</div>'


def _tile(made: Artefact, opened: str, say: Words) -> str:
    kind = made.media_type.split("/")[0]
    if kind in ("image", "video"):
        inside = f'<img src="studio/thumb/{made.id}" alt="" loading="lazy" decoding="async">'
    elif kind == "text" or made.media_type == "application/json":
        inside = f"<p>{esc(_beginning(Path(made.path)))}</p>"
    else:
        inside = f'<span class="kind">{esc(say("tab." + modality_of_media(made.media_type)))}</span>'
    read = inside.startswith("<p>") and inside != "<p></p>"  # words are called by themselves
    style = f"tile {kind} on" if made.id == opened else f"tile {kind}"
    return push(style, inside, title="" if read else name_of(made), key=made.id, toggle=f"item={made.id}")


def _beginning(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(160)
    except OSError:
        return "—"


def _opened(house: House, say: Words, artefact_id: str) -> str:
    try:
        made = house.studio.artefacts.get(artefact_id)
    except NotFound:
        return ""
    recipe, job = made.recipe, house.studio.queue.get(made.id.rsplit("-", 1)[0])
    facts = [str(recipe.get("model", "")), clock(job.created, say), say.size(made.bytes)]
    if recipe.get("seed") is not None:
        facts.append(f"{say('make.seed')} {recipe['seed']}")
    asked = what_of(job, 400)
    asked = f'<p class="asked">{esc(asked)}</p>' if asked else ""
    delete = button("delete", esc(say("gallery.delete")), kind="small stop", artefact=made.id, sure=say("gallery.sure"))
    close = push("b icon close", "×", title=say("gallery.close"), set="item=")
    return (
        f'<section class="opened">{close}<div class="made">{figure(house, made, say)}</div>'
        f'<div class="about">{asked}<p class="facts">{esc(" · ".join(facts))}</p><p class="where">{esc(made.path)}</p>'
        f"{tools_of(house, made, say)}{delete}"
        f"<details><summary>{esc(say('gallery.recipe'))}</summary>{as_json(recipe)}</details></div></section>"
    )
