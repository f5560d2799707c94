"""What this family brings to the page: its styles, to be pressed on and off.

Found through the entry point ``studio.widgets``; nothing else imports it. ``assets/styles.js`` reads and writes the
parameter's own box.
"""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any

from studio.plugin import ModelSpec

from .styles import ours


class Styles:
    """The widget ``styles``: a button for each style; pressed ones are put around the prompt in that order."""

    widget = "styles"
    folder = Path(__file__).parent / "assets"

    def picker(self, field: Any, model: ModelSpec, language: str) -> str:
        """The buttons; nothing where a model has no styles to offer."""
        if not field.offers:
            return ""
        buttons = "".join(_button(str(name), language) for name in field.offers)
        label, told = escape(field.label), escape(field.description)
        return (
            f'<div class="picker"><picture-styles data-field="{escape(field.name)}"><details>'
            f'<summary title="{told}"><b>{label}</b><span></span></summary>'
            f'<div role="group" aria-label="{label}">{buttons}</div></details></picture-styles></div>'
        )


def _button(name: str, language: str) -> str:
    style = ours().get(name)
    label = name if style is None else style.label.get(language) or style.label.get("en") or name
    words = f' title="{escape(style.prompt)}"' if style is not None else ""
    return f'<button type="button" data-style="{escape(name)}" aria-pressed="false"{words}>{escape(label)}</button>'
