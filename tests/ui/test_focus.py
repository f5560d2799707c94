"""Where the keyboard is after what it stood on has gone: at the neighbour, else at the filter; never at the top."""

from __future__ import annotations

import json
from typing import Any

import pytest
from browsing import Tab, settle
from gradio_client import Client
from page_server import Page

from toolbox import until

HERE = """() => { const one = document.activeElement;
  return one.closest("[data-key]")?.dataset.key ?? one.className; }"""


@pytest.fixture
def agreeing(tab: Tab) -> Any:
    """The page, with whoever sits before it sure of everything."""
    shown = tab.open()
    shown.on("dialog", lambda dialog: dialog.accept())
    return shown


def stands_at(shown: Any, key: str) -> None:
    until(f"the keyboard is at {key}, not {shown.evaluate(HERE)}", lambda: shown.evaluate(HERE) == key)


def press(shown: Any, button: Any) -> None:
    button.focus()
    shown.keyboard.press("Enter")


def test_after_a_deletion_in_the_gallery_it_is_at_the_neighbour(agreeing: Any, tab: Tab, page: Page) -> None:
    client = Client(page.url, verbose=False, analytics_enabled=False)
    for words in ("one", "two", "three"):
        client.predict("paint", {"prompt": f"focus {words}"}, api_name="/run")
    tab.go("gallery")
    agreeing.locator("#tab-gallery input[type=search]").fill("focus")
    tiles = agreeing.locator("#tab-gallery .tile")
    until("three tiles", lambda: tiles.count() == 3)
    three, two, one = [tile.get_attribute("data-key") for tile in tiles.all()]
    opened = agreeing.locator("#tab-gallery .opened")
    for key, neighbour in ((two, one), (one, three), (three, "chip on")):
        press(agreeing, agreeing.locator(f"#tab-gallery .tile[data-key='{key}']"))
        press(agreeing, opened.get_by_role("button", name="Delete"))
        agreeing.locator(f"#tab-gallery .tile[data-key='{key}']").wait_for(state="detached")
        stands_at(agreeing, neighbour)


def test_closing_what_was_opened_goes_back_to_its_tile(agreeing: Any, tab: Tab, page: Page) -> None:
    client = Client(page.url, verbose=False, analytics_enabled=False)
    client.predict("paint", {"prompt": "closed again"}, api_name="/run")
    tab.go("gallery")
    tile = agreeing.locator("#tab-gallery .tile.image").first
    key = tile.get_attribute("data-key")
    press(agreeing, tile)
    press(agreeing, agreeing.locator("#tab-gallery .opened .close"))
    agreeing.locator("#tab-gallery .opened").wait_for(state="detached")
    stands_at(agreeing, key)


def test_after_a_deletion_of_a_conversation_it_is_at_the_neighbour(agreeing: Any, page: Page) -> None:
    turns = [{"id": "aa", "parent": "", "role": "user", "text": "focus"}]
    ids = [f"{number}123456789ab" for number in (3, 2, 1)]
    for number, name in enumerate(ids):
        chat = {"id": name, "title": f"focus {name}", "leaf": "aa", "turns": turns, "changed": 8e9 - number}
        (page.home / "chats" / f"{name}.json").write_text(json.dumps(chat))
    agreeing.locator("#tab-text .side input[type=search]").fill("focus")
    until("three", lambda: agreeing.locator(".past .title").count() == 3)
    for name, neighbour in ((ids[1], ids[2]), (ids[2], ids[0])):
        press(agreeing, agreeing.locator(f"[data-do=delete-chat][data-chat='{name}']"))
        agreeing.locator(f".past[data-key='{name}']").wait_for(state="detached")
        stands_at(agreeing, neighbour)
    press(agreeing, agreeing.locator(f"[data-do=delete-chat][data-chat='{ids[0]}']"))
    agreeing.locator(".past").first.wait_for(state="detached")
    until("the search has it", lambda: agreeing.evaluate("document.activeElement.type") == "search")


def test_a_cancelled_job_keeps_the_keyboard_and_the_next_one_gets_it(agreeing: Any, tab: Tab, page: Page) -> None:
    client = Client(page.url, verbose=False, analytics_enabled=False)
    never = str(page.home / "never")
    jobs = [
        client.predict("paint", {"prompt": f"wait {number}", "wait_for": never}, api_name="/submit")["job"]
        for number in range(3)
    ]
    tab.go("jobs")
    cancel = "#tab-jobs [data-key='{}'] [data-do=cancel]"
    press(agreeing, agreeing.locator(cancel.format(jobs[1])))
    agreeing.locator(f"[data-key='{jobs[1]}'].cancelled").wait_for()
    stands_at(agreeing, jobs[1])
    agreeing.locator("#tab-jobs [data-set='show=active&page=0']").click()
    agreeing.locator(f"[data-key='{jobs[1]}']").wait_for(state="detached")
    settle(agreeing)
    press(agreeing, agreeing.locator(cancel.format(jobs[0])))
    agreeing.locator(f"[data-key='{jobs[0]}']").wait_for(state="detached")
    stands_at(agreeing, jobs[2])
    press(agreeing, agreeing.locator(cancel.format(jobs[2])))
    agreeing.locator(f"[data-key='{jobs[2]}']").wait_for(state="detached")
    stands_at(agreeing, "chip on")


def test_arrows_go_from_tab_to_tab(agreeing: Any) -> None:
    agreeing.locator("#tab-text-button").focus()
    for key, tab in (("ArrowRight", "image"), ("ArrowLeft", "text"), ("ArrowLeft", "machine"), ("Home", "text")):
        agreeing.keyboard.press(key)
        agreeing.locator(f"#tab-{tab}").wait_for()
        assert agreeing.evaluate("document.activeElement.id") == f"tab-{tab}-button"
    assert agreeing.locator("#tab-text-button").get_attribute("aria-selected") == "true"
