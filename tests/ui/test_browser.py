"""The page as a person uses it, in Chromium, with the real starter model and a foreign family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, choose, hold_a_picture, jobs_of, unfold
from page_server import Page

from toolbox import until


def test_a_conversation_with_the_starter_model(tab: Tab, page: Page) -> None:
    shown = tab.open()
    unfold(shown.locator("#tab-text").get_by_role("button", name="Settings"))
    shown.locator("#tab-text").get_by_label("Longest answer").fill("24")
    box = shown.locator("#chat-box textarea")
    box.fill("Say hello")
    box.press("Shift+Enter")
    box.type("in one word.")
    box.press("Enter")
    shown.wait_for_selector(".turn.model .tools .facts")
    assert shown.locator(".turn.user .said").inner_text() == "Say hello\nin one word."
    assert "tokens/s" in shown.locator(".turn.model .facts").inner_text()
    answer = shown.locator(".turn.model .prose").inner_text()
    assert answer.strip()
    assert box.input_value() == ""

    shown.reload()  # the conversation is there again
    shown.wait_for_selector(".turn.model .facts")
    assert shown.locator(".turn.model .prose").inner_text() == answer

    shown.locator(".turn.model [data-do=redo]").click()  # another answer is a branch
    shown.wait_for_selector(".turn.model .ways")
    shown.wait_for_selector(".turn.model .facts")
    assert "2/2" in shown.locator(".turn.model .ways").inner_text()
    shown.locator(".turn.model .ways [data-do=branch]").first.click()
    shown.locator(".turn.model .ways", has_text="1/2").wait_for()
    assert shown.locator(".turn.model .prose").inner_text() == answer

    shown.locator(".turn.user [data-do=edit]").click(force=True)
    shown.locator(".turn.user textarea").fill("Say goodbye.")
    shown.locator(".turn.user textarea").press("Enter")
    shown.wait_for_selector(".turn.user .ways")
    assert shown.locator(".turn.user .said").inner_text() == "Say goodbye."
    shown.wait_for_selector(".turn.model .facts")
    [chat] = [json.loads(file.read_text()) for file in (page.home / "chats").glob("*.json")]
    assert [turn["role"] for turn in chat["turns"]] == ["user", "assistant", "assistant", "user", "assistant"]


def test_escape_stops_an_answer_and_keeps_what_came(tab: Tab, page: Page) -> None:
    shown = tab.open()
    shown.locator("[data-do=new]").click()
    shown.wait_for_selector(".ideas")
    box = shown.locator("#chat-box textarea")
    box.fill("Write a very long story about a ship that crosses the ocean and meets a storm.")
    box.press("Enter")
    shown.wait_for_selector(".turn.writing .prose")
    shown.keyboard.press("Escape")
    shown.wait_for_selector(".turn.model:not(.writing) .facts")
    assert "stopped" in shown.locator(".turn.model .facts").inner_text()
    assert shown.locator(".turn.model .prose").inner_text().strip()
    assert jobs_of(page)[0]["state"] == "cancelled"


def test_a_reload_in_the_middle_comes_back_to_the_running_job(tab: Tab, page: Page, tmp_path: Path) -> None:
    shown = tab.open()
    tab.go("image")
    shown.wait_for_selector("#image-model")
    choose(shown, "image", "paint")
    form = shown.locator("#tab-image .family:visible").filter(has=shown.locator(".p-colour"))
    form.get_by_label("Prompt").fill("a lighthouse")
    unfold(form.get_by_role("button", name="More settings").locator("visible=true"))
    gate = tmp_path / "go"
    form.get_by_label("Wait for").fill(str(gate))
    assert form.locator("text=Knob Tilt en").is_visible()
    shown.wait_for_selector("#tab-image .forecast .badge")
    form.get_by_role("button", name="Make it").locator("visible=true").click()
    shown.wait_for_selector("#tab-image .preview")
    shown.reload()
    shown.wait_for_selector("#tab-image .preview")
    tab.go("jobs")
    assert shown.locator(".job.running .title b").inner_text() == "a lighthouse"
    gate.touch()
    shown.wait_for_selector(".job.done")
    tab.go("image")
    shown.wait_for_selector("#tab-image paint-frame[data-drawn=yes] img")
    assert jobs_of(page)[0]["state"] == "done"


def test_a_running_job_is_cancelled_in_the_list(tab: Tab, page: Page, tmp_path: Path) -> None:
    from gradio_client import Client

    client = Client(page.url, verbose=False, analytics_enabled=False)
    job = client.predict("paint", {"prompt": "never", "wait_for": str(tmp_path / "x")}, api_name="/submit")["job"]
    shown = tab.open()
    tab.go("jobs")
    shown.locator(f"[data-key='{job}'] [data-do=cancel]").click()
    shown.wait_for_selector(f"[data-key='{job}'].cancelled [data-do=retry]")
    until("the state", lambda: jobs_of(page)[0]["state"] == "cancelled")


def test_escape_stops_a_picture(tab: Tab, page: Page, tmp_path: Path) -> None:
    shown = hold_a_picture(tab, "never done", tmp_path / "x")
    shown.keyboard.press("Escape")
    shown.locator("#tab-image .shown [data-do=retry]").wait_for()
    assert jobs_of(page)[0]["state"] == "cancelled"


def test_the_gallery_gives_settings_back(tab: Tab, page: Page) -> None:
    shown = tab.open()
    tab.go("gallery")
    shown.locator("#tab-gallery .tile.image").first.click()
    shown.locator("#tab-gallery [data-do=restore]").click()
    shown.wait_for_selector("#tab-image .go:visible")
    prompt = shown.locator("#tab-image").get_by_label("Prompt").locator("visible=true").first
    until("the settings", lambda: prompt.input_value() == "a lighthouse")


def test_french_light_and_dark(tab: Tab) -> None:
    shown = tab.open()
    shown.locator(".top a[lang=fr]").click()
    shown.wait_for_url("**/fr/")
    shown.wait_for_selector("#chat-box textarea")
    assert shown.locator("#tab-gallery-button").inner_text() == "Galerie"
    assert shown.locator("html").get_attribute("lang") == "fr"
    before = shown.evaluate("getComputedStyle(document.body).backgroundColor")
    shown.locator(".top [data-theme]").click()
    ground = "getComputedStyle(document.body).backgroundColor"
    until("another background", lambda: shown.evaluate(ground) != before)
    shown.goto(tab.base)  # the choice is remembered
    shown.wait_for_url("**/fr/")
    assert shown.evaluate("document.body.classList.contains('dark')")


@pytest.mark.parametrize("width", [390, 1920])
def test_nothing_is_wider_than_the_screen(browser: Any, page: Page, width: int) -> None:
    tab = Tab(browser, page, viewport={"width": width, "height": 844})
    shown = tab.open()
    for name in ("text", "image", "video", "jobs", "gallery", "models", "machine"):
        shown.evaluate(f"document.getElementById('tab-{name}-button').click()")
        shown.wait_for_selector(f"#tab-{name}", state="visible")
        wide = shown.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, name
    tab.context.close()
    assert tab.outside == []


def test_what_a_model_writes_runs_nothing(tab: Tab, page: Page) -> None:
    """A stored conversation full of attacks is shown: no script runs and nothing is asked for outside."""
    text = (
        "<script>window.hit = 1</script> <img src=x onerror='window.hit = 1'> ![x](http://evil.example/?q=1) "
        r"\(\text{<img src=http://evil.example/a onerror=window.hit=1>}\) <svg onload='window.hit = 1'></svg>"
    )
    turns = [
        {"id": "aa", "parent": "", "role": "user", "text": text},
        {"id": "bb", "parent": "aa", "role": "assistant", "text": text, "thinking": text, "model": text},
    ]
    chat = {"id": "0123456789ab", "title": text, "leaf": "bb", "turns": turns, "changed": 9e9}
    (page.home / "chats" / "0123456789ab.json").write_text(json.dumps(chat))
    shown = tab.open()
    shown.locator(".past .title[data-chat='0123456789ab']").click()
    shown.wait_for_selector(".turn.model .prose a")
    shown.locator(".thoughts summary").click()
    assert shown.evaluate("window.hit") is None
    assert "window.hit" in shown.locator(".turn.model .prose").inner_text()
    assert tab.outside == []


def test_a_job_that_was_set_aside_speaks_with_one_voice(tab: Tab) -> None:
    shown = tab.open()
    colours = shown.evaluate(
        """() => ["state quarantined", "state failed", "trouble"].map((kind) => {
          const one = Object.assign(document.createElement("div"), { className: kind });
          document.querySelector(".thread-box").append(one);
          const { color, backgroundColor } = getComputedStyle(one);
          return `${color} ${backgroundColor}`;
        })"""
    )
    assert len(set(colours)) == 1
