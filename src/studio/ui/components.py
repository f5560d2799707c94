"""Gradio's components where it judges a value itself, in English and without saying which field is meant.

The engine judges it better, in words and with the field. Classes, since Gradio makes a component anew from its class
for each browser once it was updated: what was set on the component alone is gone then.
"""

from __future__ import annotations

from typing import Any

import gradio as gr

from studio.ui.lean import lean_gradio

with lean_gradio():

    class Picture(gr.Image):
        """A picture as a path, broken or not."""

        is_template = True  # Gradio's own script draws it

        def preprocess(self, payload: Any) -> Any:
            return payload.path if payload else None

    class Slider(gr.Slider):
        """A number, also one that was typed beyond the ends."""

        is_template = True

        def preprocess(self, payload: Any) -> Any:
            return payload
