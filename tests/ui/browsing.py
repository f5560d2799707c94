"""A browser tab of a test, and what a person does in it."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

from page_server import Page

WAIT_MS = 120_000

_FRAMES = """async () => {
  for (let frame = 0; frame < 6; frame += 1)
    await new Promise((next) => requestAnimationFrame(() => setTimeout(next, 20)));
}"""


class Tab:
    """A browser tab that notes what it asks for outside and what its console complains of."""

    def __init__(self, browser: Any, page: Page, **options: Any) -> None:
        self.context = browser.new_context(**{"locale": "en-GB", "viewport": {"width": 1280, "height": 860}, **options})
        self.context.set_default_timeout(WAIT_MS)
        self.page = self.context.new_page()
        self.base = page.url
        self.outside: list[str] = []
        self.complaints: list[str] = []
        self.page.on("request", self._request)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._console)

    def _request(self, request: Any) -> None:
        if not request.url.startswith((self.base, "data:", "blob:")):
            self.outside.append(request.url)

    def _console(self, message: Any) -> None:
        if message.type == "error" and "Content Security Policy" in message.text:
            self.complaints.append(message.text)

    def open(self) -> Any:
        self.page.goto(self.base)
        self.page.wait_for_selector("#chat-box textarea")
        return self.page

    def go(self, tab: str) -> None:
        self.page.locator(f"#tab-{tab}-button").click()
        settle(self.page)


def settle(shown: Any) -> None:
    """Some frames after a tab or a fold was opened: Gradio writes the first values of its pieces once more then.

    No person types that soon; a test does, and would find its words gone.
    """
    shown.evaluate(_FRAMES)


def unfold(fold: Any) -> None:
    fold.click()
    settle(fold.page)


def hold_a_picture(tab: Tab, words: str, gate: Path) -> Any:
    """Begin a picture of the foreign family that is not done before the file ``gate`` is there; its preview is seen."""
    shown = tab.open()
    tab.go("image")
    shown.wait_for_selector("#image-model")
    choose(shown, "image", "paint")
    form = shown.locator("#tab-image .family:visible").filter(has=shown.locator(".p-colour"))
    form.get_by_label("Prompt").fill(words)
    unfold(form.get_by_role("button", name="More settings"))
    form.get_by_label("Wait for").fill(str(gate))
    form.locator(".go").click()
    shown.wait_for_selector("#tab-image .preview")
    return shown


def jobs_of(page: Page) -> list[dict[str, Any]]:
    with sqlite3.connect(page.home / "studio.db") as database:
        rows = database.execute("SELECT id, model, state, params FROM jobs ORDER BY number DESC").fetchall()
    return [{"id": row[0], "model": row[1], "state": row[2], "params": json.loads(row[3])} for row in rows]


def choose(shown: Any, modality: str, model: str) -> None:
    """Choose a model in the list at the top of a tab."""
    shown.locator(f"#{modality}-model input").click()
    shown.locator(f"[role=option]:has-text('{model}')").first.click()
    settle(shown)
