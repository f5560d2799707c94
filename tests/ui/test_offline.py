"""The whole page without any network: neither the server nor the browser asks for anything from outside."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, choose
from page_server import StartPage

WATCH = Path(__file__).parent / "plugins" / "watch"
TABS = ("text", "image", "video", "audio", "mesh", "jobs", "gallery", "models", "machine")


def test_the_watch_sees_and_stops_a_connection(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    environment = {**os.environ, "PYTHONPATH": str(WATCH), "STUDIO_TEST_OUTGOING": str(seen)}
    for code in ("s.create_connection(('192.0.2.1', 80), 1)", "s.getaddrinfo('example.org', 80)"):
        done = subprocess.run(
            [sys.executable, "-c", f"import socket as s; {code}"], env=environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert "a test forbids the network" in done.stderr
    assert "192.0.2.1" in seen.read_text()
    assert "example.org" in seen.read_text()


def test_every_tab_without_a_network(
    browser: Any, start_page: StartPage, page_plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = tmp_path / "outgoing"
    seen.touch()
    monkeypatch.setenv("STUDIO_TEST_OUTGOING", str(seen))
    page = start_page(more=[WATCH])
    blocked: list[str] = []
    faults: list[str] = []

    def stop(route: Any) -> None:
        if route.request.url.startswith((page.url, "data:", "blob:")):
            route.continue_()
        else:
            blocked.append(route.request.url)
            route.abort()

    for language in ("en", "fr"):
        tab = Tab(browser, page, locale=language)
        tab.context.route("**/*", stop)
        tab.page.on("console", lambda message: faults.append(_place(message)) if message.type == "error" else None)
        shown = tab.open()
        if language == "en":
            _make(tab, shown)
        _walk(tab, shown)
        used = tab.page.evaluate("performance.getEntriesByType('resource').map((one) => new URL(one.name).origin)")
        assert set(used) == {page.url.rstrip("/")}
        tab.context.close()
        assert tab.outside == []
        assert tab.complaints == []
    assert blocked == []
    assert faults == []
    assert seen.read_text() == ""


def _place(message: Any) -> str:
    """What the console says, and the address that it says it of."""
    return f"{message.text} {message.location.get('url', '')}"


def _make(tab: Tab, shown: Any) -> None:
    """A text that is stopped in the middle, and a picture that its family's own widget shows."""
    shown.fill("#chat-box textarea", "A colour?")
    shown.press("#chat-box textarea", "Enter")
    shown.wait_for_selector(".turn.model .prose")
    shown.keyboard.press("Escape")
    shown.wait_for_selector(".turn.model .facts")
    tab.go("image")
    choose(shown, "image", "paint")
    shown.locator("#tab-image").get_by_text("Colour", exact=True).locator("visible=true").first.wait_for()
    shown.locator("#tab-image textarea:visible").first.fill("a red door")
    shown.locator("#tab-image .go:visible").first.click()
    shown.wait_for_selector("#tab-image paint-frame[data-drawn=yes] img")


def _walk(tab: Tab, shown: Any) -> None:
    """Look into every tab and open what can be opened."""
    for name in TABS:
        tab.go(name)
        shown.wait_for_selector(f"#tab-{name}", state="visible")
        for piece in shown.locator(f"#tab-{name} .live:visible").all():
            piece.locator("xpath=./*").first.wait_for(state="attached")
    tab.go("gallery")
    shown.locator("#tab-gallery .tile.image").first.click()
    shown.wait_for_selector("#tab-gallery .opened img")
