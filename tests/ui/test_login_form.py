"""The form that asks for the password, as a browser sends it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from browsing import WAIT_MS
from page_server import StartPage


def test_a_browser_comes_in_by_the_form(start_page: StartPage, browser: Any, tmp_path: Path) -> None:
    word = tmp_path / "password"
    word.write_text("correct horse")
    page = start_page("--password-file", str(word))
    context = browser.new_context(locale="en-GB")
    context.set_default_timeout(WAIT_MS)
    shown = context.new_page()
    shown.goto(page.url.split("?")[0])  # without the one-time token that is printed
    shown.fill("input[name=password]", "a guess")
    shown.press("input[name=password]", "Enter")
    assert shown.locator("p").inner_text() == "That is not the password."
    shown.fill("input[name=password]", "correct horse")
    shown.press("input[name=password]", "Enter")
    shown.wait_for_selector("#chat-box textarea")
    context.close()
