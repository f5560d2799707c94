"""How large things are and where they stand, where that was wrong once."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

from browsing import Tab, choose, hold_a_picture, unfold
from page_server import StartPage
from PIL import Image

from toolbox import until

LOW = """(tab) => [...document.querySelectorAll(`#tab-${tab} :is(button,input,textarea,select,a.b,summary,label)`)]
  .filter((one) => one.getClientRects().length && !one.matches("[type=file], [type=radio], [type=checkbox]"))
  .filter((one) => one.tagName !== "LABEL" || one.querySelector("[type=radio], [type=checkbox]"))
  .filter((one) => !one.closest(".away") && one.getBoundingClientRect().height < 40).map((one) => one.outerHTML)"""
LOOK = """() => {
  const boxes = [...document.querySelectorAll("#tab-image .main-box textarea")];
  const box = boxes.find((one) => one.getClientRects().length);
  const { backgroundColor, resize, padding, fontSize } = getComputedStyle(box);
  return [document.querySelector("#tabs").getBoundingClientRect().top, backgroundColor, resize, padding, fontSize];
}"""
CARDS = '<div class="cards" data-keyed data-steady>{}</div>'
CARD = '<article class="card" data-key="{0}"><b>{0}</b>{1}</article>'


def test_what_was_cancelled_takes_a_line_or_two(tab: Tab, tmp_path: Path) -> None:
    shown = hold_a_picture(tab, "soon cancelled", tmp_path / "never")
    shown.locator("#tab-image .shown .stop").first.click()
    part = shown.locator("#tab-image .shown:has(.trouble)")
    part.wait_for()
    assert part.bounding_box()["height"] < 110


def test_what_was_asked_for_is_at_the_top_of_a_small_screen(tab: Tab, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    tab.page.set_viewport_size({"width": 390, "height": 844})
    shown = hold_a_picture(tab, "at the top", gate)
    result = shown.locator("#tab-image .result .live")
    until("it is scrolled to", lambda: abs(result.bounding_box()["y"]) < 90)
    gate.touch()
    shown.locator("#tab-image .shown figure").wait_for()
    assert abs(result.bounding_box()["y"]) < 90


def test_the_conversations_of_a_small_screen_close_by_a_tap_beside_or_by_escape(tab: Tab) -> None:
    tab.page.set_viewport_size({"width": 390, "height": 844})
    shown = tab.open()
    side = shown.locator("#tab-text .side")
    side.wait_for(state="hidden")  # nor does the keyboard go there
    for close in (lambda: shown.keyboard.press("Escape"), lambda: shown.mouse.click(375, 500)):
        shown.locator(".side-toggle").click()
        side.wait_for()
        close()
        side.wait_for(state="hidden")


def test_a_finished_download_keeps_its_place_until_the_next_visit(tab: Tab) -> None:
    shown = tab.open()
    lists = [[("small", ""), ("large", "42 %")], [("large", "here"), ("small", ""), ("new", "")]]

    def answer(route: object) -> None:
        cards = "".join(CARD.format(*one) for one in lists[0])
        headers = {"X-Next-Ms": "100", "X-Tag": str(len(lists)), "Content-Type": "text/html"}
        route.fulfill(body=CARDS.format(cards), headers=headers)  # type: ignore[attr-defined]

    shown.route("**/studio/live/models*", answer)
    tab.go("models")
    names = shown.locator("#tab-models .card b")
    until("two models", lambda: names.all_inner_texts() == ["small", "large"])
    lists.pop(0)
    until("another one", lambda: names.count() == 3)
    assert names.all_inner_texts() == ["small", "large", "new"]
    assert shown.locator("#tab-models .card").nth(1).inner_text().split() == ["large", "here"]
    tab.go("jobs")
    tab.go("models")
    until("the order of the server", lambda: names.all_inner_texts() == ["large", "small", "new"])


def test_an_empty_section_names_the_box_that_counts_instead(tab: Tab) -> None:
    shown = tab.open()
    for language in ("en", "fr"):
        tab.go("video")
        choose(shown, "video", "starter-video")
        form = shown.locator("#tab-video .family:visible").filter(has=shown.locator("section-line"))
        label = form.locator(".p-prompt").locator("visible=true").first.locator("span").first.inner_text()
        assert label.lower() in form.locator("section-line input").first.get_attribute("placeholder")
        if language == "en":
            shown.get_by_role("link", name="Français").click()
            shown.wait_for_selector("#tab-video-button.selected")


def test_no_control_of_a_form_is_too_low_for_a_finger(tab: Tab) -> None:
    shown = tab.open()
    shown.set_viewport_size({"width": 390, "height": 844})
    unfold(shown.locator("#tab-text .fold > button").first)
    assert shown.evaluate(LOW, "text") == []
    for modality, model in (("image", "starter-image"), ("image", "paint"), ("video", "starter-video")):
        tab.go(modality)
        shown.wait_for_selector(f"#{modality}-model")
        choose(shown, modality, model)
        for fold in shown.locator(f"#tab-{modality} .family:visible .fold > button").all():
            unfold(fold)
        assert shown.evaluate(LOW, modality) == []


def test_the_head_of_a_small_screen_holds_what_runs(tab: Tab, tmp_path: Path) -> None:
    tab.page.set_viewport_size({"width": 390, "height": 844})
    gate = tmp_path / "gate"
    shown = hold_a_picture(tab, "a long name", gate)
    shown.wait_for_selector(".pill.busy")
    shown.evaluate("document.querySelector('.pill.busy b').textContent = 'a-model-of-a-very-long-name'")
    box = shown.locator(".top > .icon").bounding_box()
    assert box["x"] + box["width"] <= 390
    gate.touch()
    shown.locator("#tab-image .shown figure").wait_for()


def test_what_has_nothing_to_choose_from_takes_no_room(tab: Tab) -> None:
    """Styles are offered where there are some; the boxes stand as close without them."""
    shown = tab.open()
    tab.go("image")
    choose(shown, "image", "starter-image")
    form = shown.locator("#tab-image .family:visible")
    empty = form.locator(".picker-box.block").filter(has_not=shown.locator(".picker"))
    until("no styles", lambda: empty.count() == 1)
    assert empty.evaluate("(one) => getComputedStyle(one).display") == "none"


def test_the_thumb_of_a_slider_is_seen_on_white(tab: Tab) -> None:
    shown = tab.open()
    tab.go("image")
    choose(shown, "image", "starter-image")
    slider = shown.locator("#tab-image .p-num_images input[type=range]:visible")
    assert slider.input_value() == "1"  # nothing of the line before it is filled

    def coloured() -> bool:
        slider.evaluate("one => one.scrollIntoView({block: 'center'})")  # else what is sticky may lie over it
        with Image.open(BytesIO(slider.screenshot())) as picture:
            colours = picture.convert("RGB").getcolors(1 << 16) or []
        return any(max(colour) - min(colour) > 100 for _, colour in colours)

    until("the thumb is seen", coloured)


def test_a_page_that_was_asked_for_early_looks_like_any_other(browser: Any, start_page: StartPage) -> None:
    """It is read with Gradio's scripts there already, which order their styles otherwise and take it for a part of
    another page."""
    early = Tab(browser, start_page(ready=False))
    shown, looks = early.page, []
    late = shown.locator("body > link[rel=stylesheet]")
    for _ in range(2):
        shown.goto(early.base)
        shown.wait_for_selector("#tab-image-button")
        early.go("image")
        shown.wait_for_selector("#tab-image .main-box textarea:visible")
        until("the styles are in their place", lambda: late.count() == 0)
        looks.append(shown.evaluate(LOOK))
    early.context.close()
    assert looks[0] == looks[1]
    assert looks[0][0] == 0
