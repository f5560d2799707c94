"""Pressing twice: a double click is one press, every other press counts, and nothing that was written is lost."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from browsing import Tab, choose, jobs_of
from page_server import Page

from toolbox import until

ASKED = "**/gradio_api/queue/join*"


@contextmanager
def held(shown: Any) -> Iterator[list[Any]]:
    """What is asked of the page's handlers waits until the end of the block; the list grows as it is asked."""
    waiting: list[Any] = []
    shown.route(ASKED, lambda route: waiting.append(route))
    yield waiting
    shown.unroute(ASKED)  # and what waits goes on


def asked(waiting: list[Any], shown: Any, words: str, count: int = 1) -> None:
    """Wait until a handler was asked with ``words``."""

    def seen() -> bool:
        shown.evaluate("1")  # lets what waits arrive here
        return sum(words in (route.request.post_data or "") for route in waiting) >= count

    until(f"the page asks with {words}", seen)


def painting(tab: Tab, words: str) -> tuple[Any, Any, Any]:
    """The form of a foreign family, with its prompt and its button."""
    shown = tab.open()
    tab.go("image")
    shown.wait_for_selector("#image-model")
    choose(shown, "image", "paint")
    form = shown.locator("#tab-image .family:visible").filter(has=shown.locator(".p-colour"))
    prompt = form.get_by_label("Prompt")
    prompt.fill(words)
    return shown, prompt, form.locator(".go")


def prompts_of(page: Page, words: str) -> list[str]:
    found = [str(job["params"].get("prompt", "")) for job in reversed(jobs_of(page))]
    return [prompt for prompt in found if words in prompt]


def test_a_double_click_makes_one_job(tab: Tab, page: Page) -> None:
    _shown, prompt, go = painting(tab, "double one")
    go.dblclick()
    until("the job", lambda: prompts_of(page, "double"))
    prompt.fill("double two")
    prompt.click()  # no double click: something else was pressed between
    go.click()
    until("the other job", lambda: "double two" in prompts_of(page, "double"))
    assert prompts_of(page, "double") == ["double one", "double two"]


def test_a_second_press_counts_while_the_first_is_answered(tab: Tab, page: Page) -> None:
    shown, prompt, go = painting(tab, "press one")
    shown.wait_for_selector("#tab-image .forecast .badge")
    with held(shown) as waiting:
        go.click()
        asked(waiting, shown, "press one")
        prompt.fill("press two")
        prompt.click()
        go.click()
        asked(waiting, shown, "press two")
    until("both jobs", lambda: len(prompts_of(page, "press")) == 2)
    assert sorted(prompts_of(page, "press")) == ["press one", "press two"]  # let go at once: either may come first


def test_two_actions_of_the_gallery_are_both_done(tab: Tab, page: Page) -> None:
    from gradio_client import Client

    client = Client(page.url, verbose=False, analytics_enabled=False)
    client.predict("paint", {"prompt": "taken twice"}, api_name="/run")
    shown = tab.open()
    tab.go("gallery")
    shown.locator("#tab-gallery .tile.image").first.click()
    tools = shown.locator("#tab-gallery .opened")
    with held(shown) as waiting:
        tools.get_by_role("button", name="To Video").click()
        asked(waiting, shown, '\\"do\\":\\"use\\"')
        tools.get_by_role("button", name="Open its settings").click()
        asked(waiting, shown, '\\"do\\":\\"restore\\"')
    # Let go at once: either may be answered first, and the last one chooses the tab.
    until("the settings", lambda: prompt_shown(tab) == "taken twice")
    tab.go("video")
    shown.locator("#tab-video .p-image img:visible").wait_for()


def prompt_shown(tab: Tab) -> str:
    tab.go("image")
    box = tab.page.locator("#tab-image .family:visible .p-prompt textarea")
    return str(box.input_value()) if box.count() == 1 else ""


def test_what_is_written_while_a_message_goes_stays(tab: Tab, page: Page) -> None:
    shown = tab.open()
    shown.locator("[data-do=new]").click()
    shown.wait_for_selector(".ideas")
    box = shown.locator("#chat-box textarea")
    box.fill("Say hello.")
    with held(shown) as waiting:
        box.press("Enter")
        asked(waiting, shown, "Say hello.")
        box.press_sequentially("And then")
    shown.wait_for_selector(".turn.user .said")
    until("the rest", lambda: box.input_value() == "And then")
    assert shown.locator(".turn.user .said").all_inner_texts() == ["Say hello."]
    shown.wait_for_selector(".turn.model .facts")
    count = len(jobs_of(page))
    shown.locator(".turn.model [data-do=redo]").dblclick()
    shown.wait_for_selector(".turn.model .ways")
    shown.wait_for_selector(".turn.model:not(.writing) .facts")
    assert len(jobs_of(page)) == count + 1
    assert shown.locator(".toast-body").count() == 0
