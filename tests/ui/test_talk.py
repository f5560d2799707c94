"""A conversation while an answer is being written: it is followed, and what is asked anew is not waited for."""

from __future__ import annotations

from typing import Any

from browsing import Tab, jobs_of
from page_server import Page

from toolbox import until

LONG = "Write a very long story about a ship that crosses the ocean and meets a storm."
FROM_END = "box => box.scrollHeight - box.scrollTop - box.clientHeight"


def say(tab: Tab, words: str) -> Any:
    """In the conversation that is open; a browser that was never here begins with a new one."""
    box = tab.page.locator("#chat-box textarea")
    box.fill(words)
    box.press("Enter")
    tab.page.wait_for_selector(".turn.writing .prose")
    return tab.page


def test_an_edit_stops_the_answer_and_a_refused_one_keeps_its_words(tab: Tab, page: Page) -> None:
    tab.open()
    shown = say(tab, LONG)
    shown.locator(".turn.user [data-do=edit]").click(force=True)
    edited = shown.locator(".turn.user textarea")
    edited.fill("  ")
    edited.press("Enter")
    shown.get_by_text("The message is empty.").wait_for()
    assert edited.input_value() == "  "
    edited.fill("Say hello.")
    until("it can be sent again", lambda: shown.locator(".turn.user .b.primary").is_enabled())
    edited.press("Enter")
    shown.locator(".turn.user .said", has_text="Say hello.").wait_for()
    assert [job["params"]["prompt"] for job in jobs_of(page)[:2]] == ["Say hello.", LONG]
    assert jobs_of(page)[1]["state"] == "cancelled"
    shown.keyboard.press("Escape")
    shown.locator(".turn.user .ways [data-do=branch]").first.click()
    shown.locator(".turn.user .said", has_text=LONG).wait_for()
    assert shown.locator(".turn.model .prose").inner_text().strip()
    assert "stopped" in shown.locator(".turn.model .facts").inner_text()


def test_what_is_being_written_is_in_view(tab: Tab) -> None:
    tab.open()
    tab.page.set_viewport_size({"width": 390, "height": 560})
    shown = say(tab, LONG)
    box = shown.locator("#tab-text .block.thread-box")
    until("it is longer than its place", lambda: box.evaluate("box => box.scrollHeight > box.clientHeight + 200"))
    assert box.evaluate(FROM_END) < 120
    gap = "() => getComputedStyle(document.querySelector('.turn.writing .tools')).columnGap === '10px'"
    shown.wait_for_function(gap)  # it is drawn anew all the time
    shown.locator(".turn.writing .stop").click()
    shown.wait_for_selector(".turn.model:not(.writing) .facts")
    box.evaluate("box => { box.scrollTop = 0; }")
    say(tab, LONG)
    assert box.evaluate(FROM_END) < 120
    shown.locator(".turn.writing .stop").click()
    shown.wait_for_selector(".turn.writing", state="detached")
