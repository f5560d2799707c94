"""Gradio's own variables in our colours; ``style.css`` does the rest. System fonts: nothing is fetched."""

from __future__ import annotations

from typing import Any


def theme() -> Any:
    import gradio as gr

    sans = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Noto Sans", "sans-serif")
    mono = ("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace")
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo, neutral_hue=gr.themes.colors.slate, font=sans, font_mono=mono,
        radius_size=gr.themes.sizes.radius_lg, text_size=gr.themes.sizes.text_md,
    ).set(
        body_background_fill="var(--ground)", body_background_fill_dark="var(--ground)",
        body_text_color="var(--ink)", body_text_color_dark="var(--ink)",
        block_background_fill="var(--sheet)", block_background_fill_dark="var(--sheet)",
        block_border_color="var(--line)", block_border_color_dark="var(--line)",
        block_border_width="0px", block_shadow="none", block_label_background_fill="transparent",
        input_background_fill="var(--well)", input_background_fill_dark="var(--well)",
        input_border_color="var(--line)", input_border_color_dark="var(--line)",
        button_primary_background_fill="var(--fill)", button_primary_background_fill_dark="var(--fill)",
        button_primary_background_fill_hover="var(--fill-2)",
        button_primary_background_fill_hover_dark="var(--fill-2)",
        button_primary_text_color="#fff", button_primary_text_color_dark="#fff",
        color_accent="var(--accent)", slider_color="var(--accent)", slider_color_dark="var(--accent)",
        border_color_primary="var(--line)", border_color_primary_dark="var(--line)",
    )  # fmt: skip
