"""What is called aloud: progress, and Gradio's own pieces in the language of the page."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from browsing import Tab, choose, hold_a_picture, unfold
from page_server import Page
from PIL import Image

from studio.events import Artefact
from studio.ui.i18n import words_of
from studio.ui.view import figure
from toolbox import until

NAMES = """() => [...document.querySelectorAll("#tabs [aria-label]")]
  .filter((one) => one.getClientRects().length).map((one) => one.getAttribute("aria-label"))"""
HEADINGS = """() => [...document.querySelectorAll("h1, h2, h3, h4, h5, h6, [role=heading]")]
  .filter((one) => one.getClientRects().length)
  .map((one) => [Number(one.getAttribute("aria-level") ?? one.tagName[1]), one.textContent.trim()])"""
TABS = ("text", "image", "video", "audio", "mesh", "jobs", "gallery", "models", "machine")
UNSPACED = re.compile(r"\w[:;!?](?!\S)")
ENGLISH = re.compile(r"\b(input|slider|upload|submit|paste|record|drop|click)\b", re.IGNORECASE)


def test_gradios_own_pieces_speak_french_and_files_are_chosen(browser: Any, page: Page) -> None:
    tab = Tab(browser, page, locale="fr-FR")
    shown = tab.open()
    shown.locator("#chat-box [aria-label=Envoyer]").wait_for()
    tab.go("image")
    choose(shown, "image", "starter-image")
    place = shown.locator("#tab-image .p-image [aria-dropeffect]:visible")
    until("its text", lambda: "cliquez pour choisir un fichier" in place.inner_text())
    assert place.get_attribute("aria-label").startswith("Image de départ (facultatif). ")
    assert " ".join(place.inner_text().split()) in place.get_attribute("aria-label")
    for name in ("text", "image", "video", "gallery"):
        tab.go(name)
        until(f"no English in {name}", lambda: not any(map(ENGLISH.search, shown.evaluate(NAMES))))
        assert not [one for one in shown.evaluate(NAMES) if UNSPACED.search(one)]
    tab.context.close()


def test_a_picture_is_called_by_its_prompt_else_by_its_model(tmp_path: Path) -> None:
    file = tmp_path / "made.png"
    Image.new("RGB", (8, 8)).save(file)
    house: Any = SimpleNamespace(widgets=SimpleNamespace(html=lambda *_: None))
    for recipe, name in (
        ({"model": "m", "params": {"prompt": "an <b>apple</b>"}}, "an &lt;b&gt;apple&lt;/b&gt;"),
        ({"model": "starter-upscale", "params": {}}, "starter-upscale"),
    ):
        made = Artefact(path=str(file), media_type="image/png", id="a-1", recipe=recipe)
        assert f' alt="{name}"' in figure(house, made, words_of("en"))


def test_progress_has_a_name(tab: Tab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    shown = hold_a_picture(tab, "anything", gate)
    bar = shown.locator("#tab-image [role=progressbar]")
    assert bar.get_attribute("aria-label").strip()
    gate.touch()
    bar.wait_for(state="detached")


def test_the_keyboard_stays_where_it_was_when_a_piece_is_drawn_anew(tab: Tab) -> None:
    shown = tab.open()
    say = shown.locator("#chat-box textarea")
    say.fill("Say hello.")
    say.press("Enter")
    shown.wait_for_selector(".turn.model:not(.writing) .facts")
    tab.go("gallery")
    tile = shown.locator("#tab-gallery .tile.text").first
    tile.focus()
    shown.keyboard.press("Enter")
    words = shown.locator("#tab-gallery .opened .words")
    words.wait_for()
    assert words.get_attribute("tabindex") == "0"  # what is longer than its place is scrolled by keys
    assert tile.get_attribute("aria-label") is None  # its own words are its name
    assert tile.evaluate("one => one === document.activeElement")
    shown.keyboard.press("Enter")
    words.wait_for(state="detached")
    assert tile.evaluate("one => one === document.activeElement")


def test_headings_go_down_step_by_step_on_every_tab(tab: Tab) -> None:
    shown = tab.open()
    shown.locator("[data-do=new]").click()
    for name in TABS:
        tab.go(name)
        for fold in shown.locator(f"#tab-{name} .fold > button:visible").all():
            unfold(fold)
        until("its pieces", lambda: shown.locator(".live:visible:empty").count() == 0)
        found = shown.evaluate(HEADINGS)
        levels = [level for level, _ in found]
        assert found[:2] == [[1, "Studio"], [2, shown.locator(f"#tab-{name}-button").inner_text()]]
        assert levels.count(1) == levels.count(2) == 1
        assert all(next_one <= one + 1 for one, next_one in pairwise(levels)), found
