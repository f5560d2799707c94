"""What the forms hold stays with the browser tab, across a reload and the other language.

Each change is written as JSON into a hidden box of its tab, which ``stay.js`` keeps. When the page is opened anew it
hands all of them over, and they are shown again as far as the forms still know them. Pictures are uploads, which lie in
the home: only their places are kept.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import gradio as gr

from studio.ui.choosing import Follower
from studio.ui.form import Form
from studio.ui.house import House
from studio.ui.tabs.make import QUIET, Maker, act_box
from studio.ui.view import esc

log = logging.getLogger(__name__)

DONE = "back"
"""What the box of what was opened says when everything is shown again; before, that it may be handed over."""


def keep_forms(house: House, followers: Iterable[Follower], opened: Any) -> None:
    """Keep what the forms hold. ``opened``: the box that says that the page shows what it begins with."""
    followers = list(followers)
    for one in followers:
        _keep(one.maker)
    back = act_box("back")
    _tell_choices(followers)

    def again(text: str, *models: str) -> dict[Any, Any]:
        kept = _read(text)
        updates: dict[Any, Any] = {opened: DONE}
        for one, model in zip(followers, models, strict=True):
            updates.update(_shown_again(house, one, model, _dict(kept.get(one.maker.modality))))
        return updates

    outputs = [place for one in followers for place in (*one.places, *_pieces(one.maker).values(), *_boxes(one.maker))]
    choosers = [one.maker.chooser for one in followers]
    back.submit(again, [back, *choosers], [opened, *dict.fromkeys(outputs)], **QUIET)


def _tell_choices(followers: Iterable[Follower]) -> None:
    """What the lists show, with its values: ``held.js`` reads what was chosen from what is shown."""
    known: dict[str, dict[str, Any]] = {}
    for one in followers:
        for (family, name), piece in _pieces(one.maker).items():
            if isinstance(piece, gr.Dropdown | gr.Radio):
                known.setdefault(family, {})[name] = piece.choices
    told = esc(json.dumps(known, ensure_ascii=False))
    gr.Markdown(f'<span hidden data-choices="{told}"></span>', sanitize_html=False, elem_id="act-choices")


def _keep(maker: Maker) -> None:
    """Write down what the tab holds at each change; texts when they are left, since ``stay.js`` reads them itself."""
    box, pieces = act_box(f"kept-{maker.modality}"), _pieces(maker)

    def written(model: str, *values: Any) -> str:
        forms: dict[str, dict[str, Any]] = {}
        for (family, name), value in zip(pieces, values, strict=True):
            forms.setdefault(family, {})[name] = value
        return json.dumps({"model": model, "forms": forms})

    changes = [piece.blur if _is_main(piece) else piece.change for piece in pieces.values() if hasattr(piece, "change")]
    gr.on(
        [maker.chooser.change, *changes], written, [maker.chooser, *pieces.values()], box,
        trigger_mode="always_last", queue=False, preprocess=False, **QUIET,
    )  # fmt: skip


def _pieces(maker: Maker) -> dict[tuple[str, str], Any]:
    """Everything that is filled in on a tab, by family and name."""
    return {(family, name): piece for family, form in maker.forms.items() for name, piece in _named(form)}


def _named(form: Form) -> Iterator[tuple[str, Any]]:
    yield from zip((one.name for one in form.fields), form.components, strict=True)
    yield from form.beside.items()


def _boxes(maker: Maker) -> list[Any]:
    return [] if maker.box is None else [maker.box]


def _is_main(piece: Any) -> bool:
    return "main-box" in (piece.elem_classes or ())


def _shown_again(house: House, one: Follower, model: str, kept: Mapping[str, Any]) -> dict[Any, Any]:
    """The model, and the values of every form of its tab that is still there."""
    wanted = str(kept.get("model") or "")
    updates = one.moved(model, wanted) if wanted != model and one.is_here(wanted) else {}
    now = house.studio.models.get(wanted if updates else model).pipeline if model else ""
    forms = _dict(kept.get("forms"))
    for (family, name), piece in _pieces(one.maker).items():
        values = _dict(forms.get(family))
        if name in values and not (family == now and _is_main(piece)):  # that one, stay.js writes
            updates.update(_value(house, piece, values[name]))
    files = _files(house, kept.get("files"))
    if files and one.maker.box is not None:
        updates[one.maker.box] = gr.update(value={"text": str(kept.get("text") or ""), "files": files})
    return updates


def _value(house: House, piece: Any, value: Any) -> dict[Any, Any]:
    """Show a value, if its place takes it: a choice may have gone, a file deleted."""
    if isinstance(piece, gr.Image | gr.Audio | gr.File):
        found = _files(house, value if isinstance(value, list) else [value])
        many = isinstance(piece, gr.File) and piece.file_count == "multiple"
        return {piece: gr.update(value=found if many else found[0])} if found else {}
    return {piece: gr.update(value=value)} if _takes(piece, value) else {}


def _takes(piece: Any, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if isinstance(piece, gr.Dropdown | gr.Radio):
        return value in [choice for _, choice in piece.choices]
    if isinstance(piece, gr.Slider | gr.Number):  # beyond its limits, the field says so
        return number
    if isinstance(piece, gr.Checkbox):
        return isinstance(value, bool)
    if isinstance(piece, gr.Textbox):
        return isinstance(value, str)
    try:  # a widget of a family
        piece.postprocess(value)
    except Exception:  # of whatever kind: the page is opened all the same
        log.debug("a widget does not take what it held", exc_info=True)
        return False
    return True


def _files(house: House, values: Any) -> list[str]:
    """The uploads among these that are there still: the browser could name any file."""
    home = house.studio.home
    places = (home.root / "cache" / "page", home.inputs, home.outputs)
    found = []
    for value in values if isinstance(values, list) else ():
        path = Path(str(value.get("path") if isinstance(value, dict) else value)).resolve()
        if path.is_file() and any(path.is_relative_to(place.resolve()) for place in places):
            found.append(str(path))
    return found


def _read(text: str) -> dict[str, Any]:
    try:
        return _dict(json.loads(text or "{}"))
    except ValueError:
        return {}


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
