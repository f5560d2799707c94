"""The page's own ways to fill in a parameter: shapes, seeds, painted masks, adapters with their weights.

The value stays in a plain component beside the picker, which ``form.js`` reads and writes: so settings come back into
a form as everywhere, and a parameter is asked for in the same way whether its picker works or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from math import log
from pathlib import Path

from studio.forms import FieldSpec
from studio.ui.i18n import Words
from studio.ui.view import esc, push, sign

_RATIOS = ((1, 1), (5, 4), (4, 3), (3, 2), (5, 3), (16, 9), (2, 1), (21, 9))
_NEAR = 0.04
_DRAWN_PX = 26
_PAINT_WORDS = ("brush", "erase", "undo", "invert", "clear", "done", "drop")


def has_shapes(fields: Sequence[FieldSpec]) -> bool:
    """Whether a model offers pairs of ``width`` and ``height``."""
    by_name = {one.name: one for one in fields}
    return "height" in by_name and "width" in by_name and bool(_pairs(by_name["width"]))


def shapes(one: FieldSpec, say: Words) -> str:
    """The sizes that the model is best at, each as a small frame of its shape."""
    pairs = _pairs(one)
    if not pairs:
        return "<div></div>"
    auto = esc(say("form.auto"))
    first = push("shape", f"<i class='auto'></i><small>{auto}</small>", shape="")
    frames = "".join(_shape(width, height) for width, height in pairs)
    own = push("shape", f"<i class='own'>…</i><small>{esc(say('form.own_size'))}</small>", shape="own")
    return f'<div class="picker"><b>{esc(say("form.shape"))}</b><div class="shapes">{first}{frames}{own}</div></div>'


def _pairs(one: FieldSpec) -> list[tuple[int, int]]:
    return [(int(pair[0]), int(pair[1])) for pair in one.offers if isinstance(pair, tuple | list) and len(pair) == 2]


def _shape(width: int, height: int) -> str:
    scale = _DRAWN_PX / max(width, height)
    frame = f'<i style="width:{width * scale:.0f}px;height:{height * scale:.0f}px"></i>'
    return push(
        "shape", f"{frame}<small>{ratio(width, height)}</small>", shape=f"{width}x{height}", title=f"{width} × {height}"
    )


def ratio(width: int, height: int) -> str:
    """The usual name of a shape, ``16:9``; the size itself where it has none."""
    wide, high = max(width, height), min(width, height)
    across, down = min(_RATIOS, key=lambda one: abs(log(wide / high) - log(one[0] / one[1])))
    if abs(log(wide / high) - log(across / down)) > _NEAR:
        return f"{width}×{height}"
    return f"{across}:{down}" if width >= height else f"{down}:{across}"


def seed_buttons(one: FieldSpec, say: Words) -> str:
    """A dice for another one each time, and the seed of the result that is shown."""
    dice = push("b icon", sign("dice"), title=say("form.dice"), seed="dice", field=one.name)
    again = push("b icon", sign("again"), title=say("form.recycle"), seed="again", field=one.name)
    return f'<div class="seed-tools">{dice}{again}</div>'


def paint_button(one: FieldSpec, over: str, say: Words) -> str:
    """Opens the picture of the field ``over`` to be painted on."""
    words = {name: say(f"paint.{name}") for name in _PAINT_WORDS}
    label = f"✎ {esc(say('paint.open'))}"
    return push("b small", label, paint=one.name, over=over, words=json.dumps(words, ensure_ascii=False))


def adapters(one: FieldSpec, folder: Path, say: Words) -> str:
    """Files to choose from, several of them, each with a weight."""
    offers = [str(offer) for offer in one.offers]
    if not offers:
        hint = say("form.adapters_none", folder=folder)
        return f'<div class="picker"><b>{esc(one.label)}</b><p class="quiet">{esc(hint)}</p></div>'
    words = json.dumps({"add": say("form.adapters_add"), "drop": say("form.adapters_drop")}, ensure_ascii=False)
    data = f'data-adapters="{esc(one.name)}" data-offers="{esc(json.dumps(offers))}" data-words="{esc(words)}"'
    return f'<div class="picker"><b>{esc(one.label)}</b><div class="adapters" {data}></div></div>'
