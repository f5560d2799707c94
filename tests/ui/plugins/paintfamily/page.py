"""A widget for one parameter and a viewer for one kind of file, through the page's hook."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Any


class Knob:
    widget = "knob"
    media_type = "image/png"
    folder = Path(__file__).parent / "assets"

    def component(self, field: Any, language: str) -> Any:
        import gradio as gr

        return gr.Slider(field.minimum, field.maximum, value=0, label=f"Knob {field.label} {language}")

    def html(self, url: str, info: dict[str, Any], language: str) -> str:
        return f'<paint-frame src="{escape(url)}"><img src="{escape(url)}" alt="painted"></paint-frame>'
