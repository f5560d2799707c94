"""A grid: two settings against each other, as a batch of jobs whose pictures stand in a table."""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import yaml

from studio.batch import read_entries, submit_batch
from studio.errors import BadRequest, StudioError
from studio.files import write_whole
from studio.forms import FieldSpec
from studio.jobs.model import JobRow
from studio.pipeline import MAX_SEED
from studio.ui.form import Form
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.values import read_value
from studio.ui.view import button, esc, progress_of, push, refused, what_of

MARK = "grid-"
CELLS_MAX = 100
_NAME = re.compile(r"^grid-[0-9a-z-]+$")


def is_grid(row: JobRow) -> bool:
    return bool(row.batch and row.batch.startswith(MARK))


def place_of(house: House, name: str) -> Path | None:
    """The batch file of a grid; ``None`` if there is none of this name."""
    path = house.studio.home.root / "grids" / f"{name}.yaml"
    return path if _NAME.match(name) and path.is_file() else None


def axes_of(form: Form) -> list[FieldSpec]:
    """What can be varied: everything that is written in a line."""
    return [one for one in form.fields if one.kind in ("int", "float", "choice", "bool", "str")]


def build(form: Form, say: Words) -> tuple[list[Any], Any]:
    """The fold with two settings and their values, and its button."""
    choices = [("—", ""), *((one.label, one.name) for one in axes_of(form))]
    places: list[Any] = []
    with gr.Accordion(say("grid.title"), open=False, elem_classes="fold grid-fold"):
        gr.Markdown(f'<p class="quiet">{esc(say("grid.text"))}</p>', sanitize_html=False)
        for number, side in enumerate((say("grid.across"), say("grid.down"))):
            name = f"p-grid-{2 * number}", f"p-grid-{2 * number + 1}"  # as in ``Form.beside``
            with gr.Row(elem_classes="grid-axis"):
                places.append(gr.Dropdown(choices, value="", label=side, min_width=120, elem_classes=name[0]))
                places.append(
                    gr.Textbox(label=say("grid.values"), placeholder=say("grid.holder"), lines=1, max_lines=8,
                               buttons=[], min_width=120, elem_classes=name[1])
                )  # fmt: skip
        go = gr.Button(say("grid.go"), elem_classes="grid-go")
    return places, go


def values_of(one: FieldSpec, text: str) -> list[Any]:
    """The values of a side: one a line; numbers and choices also in one line, between commas or semicolons."""
    lines = [part.strip() for part in text.splitlines() if part.strip()]
    if one.kind != "str" and len(lines) == 1:
        lines = [part.strip() for part in re.split(";" if ";" in text else ",", lines[0]) if part.strip()]
    if one.multiple:
        return [[part.strip() for part in line.split(",") if part.strip()] for line in lines]
    return [_value(one, line) for line in lines]


def _value(one: FieldSpec, text: str) -> Any:
    if one.kind == "bool":
        if text.casefold() not in _BOOLS:
            raise BadRequest(f"{one.label} is {text!r}; it must be yes or no.", "Write: yes, no")
        return _BOOLS[text.casefold()]
    return next((choice for choice in one.choices if str(choice) == text), None) or read_value(one, text)


_BOOLS = {"yes": True, "true": True, "on": True, "oui": True, "no": False, "false": False, "off": False, "non": False}


def start(
    house: House, model: str, params: Mapping[str, Any], axes: Sequence[tuple[FieldSpec, str]], priority: int
) -> str:
    """Queue every combination, all or nothing, under one seed; returns the batch's name."""
    matrix = {one.name: values_of(one, text) for one, text in reversed(axes) if text.strip()}
    if not matrix:
        raise BadRequest("The grid has no values.", "Choose a setting and give some values, such as: 4, 10, 20")
    count = 1
    for values in matrix.values():
        count *= len(values)
    if count > CELLS_MAX:
        raise BadRequest(f"The grid has {count} cells; the limit is {CELLS_MAX}.", "Give fewer values.")
    fixed = {name: value for name, value in params.items() if name not in matrix}
    if "seed" not in matrix:
        fixed.setdefault("seed", secrets.randbelow(min(MAX_SEED, 2**32)))
    name = MARK + time.strftime("%Y%m%d-%H%M%S-") + secrets.token_hex(2)
    job = {"id": "grid", "model": model, "params": _plain(fixed), "matrix": _plain(matrix), "priority": priority}
    path = house.studio.home.root / "grids" / f"{name}.yaml"
    path.parent.mkdir(exist_ok=True)
    write_whole(path, yaml.safe_dump({"name": name, "jobs": [job]}, allow_unicode=True, sort_keys=False).encode())
    try:
        submit_batch(house.studio, path)
    except StudioError:
        path.unlink(missing_ok=True)
        raise
    house.studio.work()
    return name


def _plain(value: Any) -> Any:
    """As a batch file wants it: what looks like a reference to another job is meant as it stands."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value.replace("${", "$${") if isinstance(value, str) else str(value) if isinstance(value, Path) else value


def handler(house: House, form: Form, say: Words, priority: int) -> Callable[..., None]:
    """What the button does with the model, the two sides, and the form's values."""
    by_name = {one.name: one for one in form.fields}

    def ask_for(model: str, x: str, xs: str, y: str, ys: str, *values: Any) -> None:
        try:
            if x and x == y:
                raise BadRequest(f"Both sides of the grid are {by_name[x].label}.", "Choose another one.")
            axes = [(by_name[name], text) for name, text in ((x, xs), (y, ys)) if name]
            params = form.params(values, house.studio.models.get(model).defaults)
            start(house, model, params, axes, priority)
        except StudioError as error:
            raise refused(house, error, say, model) from None

    return ask_for


def shown(house: House, say: Words, rows: list[JobRow]) -> str:
    """The table, filled as its pictures come."""
    name = rows[0].batch or ""
    path, by_step = place_of(house, name), {row.step: row for row in rows}
    if path is None:
        return f'<section data-key="{name}" class="shown"><div class="gone">{esc(say("gallery.gone"))}</div></section>'
    [(_, entry), *_rest] = read_entries(path)
    labels = {one.name: one.label for one in house.studio.fields(rows[0].model, say.language)}
    sides = [(labels.get(key, key), values) for key, values in entry.matrix.items()]
    (across, columns), (down, lines) = sides[-1], sides[0] if len(sides) > 1 else ("", [None])
    head = "".join(f"<th>{esc(_label(value))}</th>" for value in columns)
    body, number = "", 0
    for line in lines:
        cells = ""
        for _ in columns:
            number += 1
            cells += f"<td>{_cell(house, say, by_step.get(f'grid.{number}'))}</td>"
        body += f"<tr>{f'<th>{esc(_label(line))}</th>' if down else ''}{cells}</tr>"
    corner = f"<th><small>{esc(down)} ↓<br>{esc(across)} →</small></th>" if down else ""
    title = "" if down else f"<caption>{esc(across)} →</caption>"
    table = f'<div class="grid-table"><table>{title}<tr>{corner}{head}</tr>{body}</table></div>'
    running = next((row for row in rows if row.state == "running"), None)
    busy = progress_of(house, house.stories.of(running), running, say) if running else ""
    prompt, seed = esc(_label(entry.params.get("prompt", ""))), esc(rows[0].params.get("seed", ""))
    facts = f'<p class="facts" data-seed-made="{seed}"><b>{prompt}</b><br>{esc(rows[0].model)}</p>'
    parts = [table, busy + _tools(name, rows, say), facts]
    return "".join(f'<section data-key="{name}-{n}" class="shown">{part}</section>' for n, part in enumerate(parts))


def _tools(name: str, rows: list[JobRow], say: Words) -> str:
    done = sum(row.ended for row in rows)
    count = f'<span class="facts">{esc(say("grid.count", done=done, count=len(rows)))}</span>'
    if done < len(rows):
        stop = button("cancel-batch", esc(say("jobs.cancel")), kind="small stop", batch=name)
    else:
        url, label = f"studio/sheet/{esc(name)}", esc(say("grid.sheet"))
        stop = f'<a class="b small" href="{url}" download="{esc(name)}.png">{label}</a>'
    return f'<div class="tools">{count}{stop}</div>'


def _cell(house: House, say: Words, row: JobRow | None) -> str:
    if row is None:
        return ""
    made = house.studio.artefacts.of_job(row.id) if row.state == "done" else []
    pictures = [one for one in made if one.media_type.startswith("image/")]
    if pictures:
        inside = f'<img src="studio/thumb/{pictures[0].id}" alt="" loading="lazy">'
        return push("cell", inside, title=what_of(row) or row.model, toggle=f"item={pictures[0].id}")
    hint = f' title="{esc(house.told(say, row.error, model=row.model))}"' if row.error else ""
    return f'<span class="state {row.state}"{hint}>{esc(say("state." + row.state))}</span>'


def _label(value: Any) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 60 else text[:59] + "…"
