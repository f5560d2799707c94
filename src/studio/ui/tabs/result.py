"""What runs or was made last in a tab, large; under it a strip of what came before."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote

from studio.events import Artefact, Preview
from studio.jobs.model import JobRow
from studio.ui.house import House, modality_of
from studio.ui.i18n import Words
from studio.ui.story import Story
from studio.ui.tabs import grid
from studio.ui.view import (
    button,
    empty,
    esc,
    facts_of,
    figure,
    progress_of,
    push,
    retry_tools,
    trouble,
    what_of,
)

STRIP = 24
_LOOKED_AT = 400
WAYS_AS_BUTTONS = 4


def render(house: House, say: Words, query: Mapping[str, str]) -> tuple[str, int]:
    """The chosen job, else the one that runs, else the last one; a grid counts as one."""
    groups = [rows for rows in newest_of(house, query.get("tab", "")) if not _deleted(house, rows)]
    if not groups:
        return empty(say("make.empty"), say("make.empty_text")), 1000
    active = [rows for rows in groups if any(not row.ended for row in rows)]
    chosen = next((rows for rows in groups if query.get("job") in [row.id for row in rows]), None)
    running = next((rows for rows in active if any(row.state == "running" for row in rows)), None)
    shown = chosen or running or (active[-1] if active else groups[0])
    strip = "".join(_tile(house, rows, rows is shown, say) for rows in groups)
    if grid.is_grid(shown[0]):
        large = _picked(house, shown, query.get("item", ""), say) + grid.shown(house, say, shown)
    else:
        large = _shown(house, shown[0], say)
    html = f'<div data-keyed>{large}<section data-key="strip" class="strip">{strip}</section></div>'
    return html, 350 if active else 1200


def _deleted(house: House, rows: list[JobRow]) -> bool:
    """Made, and taken out of the gallery since."""
    return all(row.state == "done" and not house.studio.artefacts.of_job(row.id) for row in rows)


def _picked(house: House, rows: list[JobRow], item: str, say: Words) -> str:
    """One picture of a grid, large, with what can be done with it."""
    made = next((one for row in rows for one in house.studio.artefacts.of_job(row.id) if one.id == item), None)
    if made is None:
        return ""
    close = push("b icon close", "×", title=say("gallery.close"), set="item=")
    picture = f"<figure>{figure(house, made, say)}{tools_of(house, made, say)}</figure>"
    return f'<section data-key="{item}-cell" class="shown opened">{close}<div class="figures">{picture}</div></section>'


def newest_of(house: House, modality: str, limit: int = STRIP) -> list[list[JobRow]]:
    """The last jobs of a tab, the newest first, those of a grid together; chats have a place of their own."""
    found: dict[str, list[JobRow]] = {}
    for row in house.studio.jobs.find(limit=_LOOKED_AT):
        spec = house.studio.catalogue.specs.get(row.model)
        task = house.task(spec) if spec else "text->text"
        if task and modality_of(task) == modality and not (spec and house.chats_with(spec)):
            key = row.batch if row.batch and grid.is_grid(row) else row.id
            if key not in found and len(found) == limit:
                break
            found.setdefault(key, []).append(row)
    return list(found.values())


def _shown(house: House, row: JobRow, say: Words) -> str:
    """One job in parts, so that what plays or is looked at stays while the progress moves on."""
    story = house.stories.of(row)
    parts = [_seen(house, row, story, say), _doing(house, row, story, say)]
    parts += [f'<p class="note">{esc(house.told(say, text, model=row.model))}</p>' for text in story.notes]
    facts = " · ".join(part for part in (row.model, facts_of(row, story, say)) if part)
    seed = esc(row.params.get("seed", ""))
    parts.append(f'<p class="facts" data-seed-made="{seed}"><b>{esc(what_of(row))}</b><br>{esc(facts)}</p>')
    keyed = (f'<section data-key="{row.id}-{n}" class="shown">{part}</section>' for n, part in enumerate(parts) if part)
    film = _film(row, story, say) if not row.ended else ""
    return film + "".join(keyed)


def _film(row: JobRow, story: Story, say: Words) -> str:
    """Finished pieces of a film one after the other, in the order of their names, while the next one is made."""
    if not story.clips:
        return ""
    names = sorted(story.clips)
    urls = [f"studio/preview/{row.id}?n={story.clips[name][0]}&file={quote(name)}" for name in names]
    words = [_piece(name, story.clips[name][1], say) for name in names]
    data = f'data-clips="{esc(json.dumps(urls))}" data-words="{esc(json.dumps(words, ensure_ascii=False))}"'
    return f'<section data-key="{row.id}-film" class="shown film" {data}></section>'


def _piece(name: str, piece: Preview, say: Words) -> tuple[str, str]:
    """What a piece of a film is called, in short and in words: its place in the film, else the number of its file."""
    if not piece.parts:
        found = re.search(r"(\d+)\D*$", Path(name).stem)
        number = str(int(found[1])) if found else Path(name).stem
        return number, f"{say('make.piece')} {number}"
    number = str(piece.part) if piece.last_part <= piece.part else f"{piece.part}–{piece.last_part}"
    return number, say("jobs.part", part=number, parts=piece.parts)


def _kept(story: Story, say: Words) -> str:
    """Which sections of a film that waits to go on are there."""
    sections, count = story.parts
    if not sections:
        return ""
    runs: list[list[int]] = []
    for number in sections:
        if runs and number == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], number]
        else:
            runs.append([number])
    shown = ", ".join("–".join(map(str, run)) for run in runs)
    return f'<p class="facts">{esc(say("jobs.kept_parts", parts=shown, count=count))}</p>'


def _seen(house: House, row: JobRow, story: Story, say: Words) -> str:
    """What there is to look at."""
    if row.ended:
        made = house.studio.artefacts.of_job(row.id)
        if row.state == "done" and not made:
            return f'<div class="gone">{esc(say("gallery.gone"))}</div>'
        figures = [f"<figure>{figure(house, one, say)}{tools_of(house, one, say)}</figure>" for one in made]
        return f'<div class="figures">{"".join(figures)}</div>' if figures else ""
    seen = "".join(figure(house, made, say) for made in story.artefacts)
    if story.preview is not None and not story.preview.media_type.startswith("video/"):
        seen += f'<img class="preview" src="studio/preview/{row.id}?n={story.previews}" alt="">'
    elif row.state == "running" and not (story.artefacts or story.answer or story.clips):
        seen += '<div class="waiting"></div>'
    return seen + (f'<pre class="words">{esc(story.answer)}</pre>' if story.answer else "")


def _doing(house: House, row: JobRow, story: Story, say: Words) -> str:
    """How far it is and how to stop it, or why it ended as it did."""
    if row.ended:
        if row.state == "done":
            return ""
        return f'{trouble(house, row, say)}<div class="tools">{retry_tools(row, say)}</div>'
    cancel = button("cancel", esc(say("jobs.cancel")), kind="small stop", id=row.id)
    kept = _kept(story, say) if row.state == "queued" else ""
    if house.studio.queue.paused:
        resume = button("resume", esc(say("machine.resume")), kind="small primary")
        return f'<p class="note">{esc(say("jobs.paused"))}</p>{kept}<div class="tools">{resume}{cancel}</div>'
    pause = button("pause", esc(say("machine.pause")), kind="small", title=say("make.pause_text"))
    return f'{progress_of(house, story, row, say)}{kept}<div class="tools">{pause}{cancel}</div>'


def tools_of(house: House, made: Artefact, say: Words) -> str:
    """What one can do with a result."""
    name = Path(made.path).name
    url, label = f"studio/artefact/{made.id}/{esc(name)}", esc(say("gallery.download"))
    tools = [f'<a class="b small" href="{url}" download="{esc(name)}">{label}</a>']
    if (direct := house.targets.direct(made.media_type)) is not None:
        word = say("make.enlarge") if direct.enlarges else direct.model
        tools.append(button("send", esc(word), kind="small", artefact=made.id, title=direct.model))
    for tab in house.targets.tabs(made.media_type):
        word = say("make.to", tab=say(f"tab.{tab}"))
        tools.append(button("use", esc(word), kind="small", artefact=made.id, to=tab, act="page"))
    tools += [
        button("again", esc(say("jobs.again")), kind="small", artefact=made.id, title=say("jobs.again_text")),
        button("restore", esc(say("gallery.restore")), kind="small", artefact=made.id, act="page"),
    ]
    if house.targets.of(made.media_type) or made.media_type == "text/plain":
        tools.append(button("use", esc(say("gallery.use")), kind="small", artefact=made.id, act="page"))
    return f'<div class="tools">{"".join(tools)}</div>{_ways(house, made, say)}'


def _ways(house: House, made: Artefact, say: Words) -> str:
    """What the family offers to change in a result: each opens its settings, so that more can be changed."""
    ways = house.widgets.again(made, say.language)
    if len(ways) > WAYS_AS_BUTTONS:
        options = "".join(f'<option value="{esc(json.dumps(params))}">{esc(label)}</option>' for label, params in ways)
        first = f'<option value="">{esc(say("make.ways"))}</option>'
        inside = f'<select class="b small" data-ways="{made.id}">{first}{options}</select>'
    else:
        inside = "".join(
            button("restore", esc(label), kind="small", artefact=made.id, change=json.dumps(params), act="page")
            for label, params in ways
        )
    return f'<div class="tools ways-again">{inside}</div>' if ways else ""


def _tile(house: House, rows: list[JobRow], on: bool, say: Words) -> str:
    """One earlier job in the strip, or a whole grid."""
    row = next((one for one in rows if one.state == "done"), rows[0])
    made = house.studio.artefacts.of_job(row.id) if row.state == "done" else []
    inside = f'<span class="state {row.state}">{esc(say("state." + row.state))}</span>'
    if made and made[0].media_type.startswith(("image/", "video/")):
        inside = f'<img src="studio/thumb/{made[0].id}" alt="" loading="lazy">'
    elif row.state == "done":
        inside = f"<span>{esc(what_of(row, 40))}</span>"
    if len(rows) > 1:
        inside += f'<b class="count">{len(rows)}</b>'
    return push("tile on" if on else "tile", inside, title=what_of(row), set=f"job={row.id}")
