"""A refused request: the field that it names is marked and in view until it is changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, choose, settle, unfold
from PIL import Image

from studio import Studio
from studio.errors import BadRequest
from studio.ui.house import House
from studio.ui.i18n import words_of
from studio.ui.view import refused
from toolbox import until

IN_VIEW = """(field) => {
  const [box, bar] = [field, document.querySelector("#tab-image .go-box")].map((one) => one.getBoundingClientRect());
  return box.top >= 0 && box.bottom <= bar.top;
}"""


def form_of(tab: Tab, modality: str, model: str, own: str) -> Any:
    tab.go(modality)
    tab.page.wait_for_selector(f"#{modality}-model")
    choose(tab.page, modality, model)
    form = tab.page.locator(f"#tab-{modality} .family:visible").filter(has=tab.page.locator(own))
    form.wait_for()
    return form


def test_a_number_in_a_closed_fold_is_marked_until_it_is_changed(tab: Tab) -> None:
    shown = tab.open()
    shown.set_viewport_size({"width": 390, "height": 844})
    form = form_of(tab, "image", "starter-image", ".shape[data-shape='96x48']")
    form.locator(".p-prompt textarea").fill("an apple")
    fold = form.get_by_role("button", name="More settings")
    unfold(fold)
    steps = form.locator(".p-steps input")
    steps.fill("0")
    unfold(fold)
    assert not steps.is_visible()
    form.locator(".go").click()
    form.locator(".p-steps[data-marked]").wait_for()
    assert steps.get_attribute("aria-invalid") == "true"
    told = shown.locator(f"#{steps.get_attribute('aria-describedby')}")
    assert told.inner_text().startswith("“Steps” is 0; the limit is at least 1.")
    assert steps.evaluate("box => box === document.activeElement")
    shown.locator(".toast-body").wait_for(state="detached")  # what is said at the field does not lie over the page
    until("it is in view", lambda: form.locator(".p-steps").evaluate(IN_VIEW))
    steps.fill("3")
    told.wait_for(state="detached")
    assert steps.get_attribute("aria-invalid") is None
    assert form.locator("[data-marked]").count() == 0


def test_a_number_beyond_its_slider_stays_and_says_the_limits(tab: Tab) -> None:
    shown = tab.open()
    form = form_of(tab, "image", "starter-image", ".shape[data-shape='96x48']")
    field = form.locator(".p-num_images")
    number = field.locator("input[type=number]")
    number.fill("99")
    assert field.locator(".beyond").count() == 0  # it is still being written
    number.press("Tab")
    field.locator(".beyond").wait_for()
    assert field.locator(".beyond").inner_text() == "The limits are 1 and 8."
    assert number.get_attribute("aria-invalid") == "true"
    kept = shown.locator("#act-kept-image :is(textarea, input)")
    until("it is kept", lambda: '"num_images": 99' in kept.input_value())
    shown.reload()
    field.locator(".beyond").wait_for()
    assert number.input_value() == "99"
    form.locator(".p-prompt textarea").fill("an apple")
    form.locator(".go").click()
    field.locator("#refusal").wait_for()
    assert "99" in field.locator("#refusal").inner_text()
    field.locator(".beyond").wait_for(state="detached")
    number.fill("2")
    number.press("Tab")
    field.locator(".refusal").wait_for(state="detached")
    assert number.input_value() == "2"
    assert number.get_attribute("aria-invalid") is None


def test_a_missing_picture_and_one_side_of_a_size_are_marked(tab: Tab, tmp_path: Path) -> None:
    tab.open()
    form = form_of(tab, "video", "film", ".shape[data-shape='64x96']")
    form.locator(".go").click()
    form.locator(".p-image[data-marked] .refusal").wait_for()
    Image.new("RGB", (64, 64), "orange").save(tmp_path / "first.png")
    form.locator(".p-image input[type=file]").set_input_files(tmp_path / "first.png")
    form.locator(".refusal").wait_for(state="detached")
    form.locator(".shape[data-shape=own]").click()
    form.locator(".p-width input").fill("7")
    form.locator(".shape[data-shape='64x96']").click()
    form.locator(".shape[data-shape=own]").click()
    form.locator(".p-height input").fill("9999")
    settle(tab.page)
    form.locator(".go").click()
    form.locator(".p-height[data-marked] .refusal").wait_for()


@pytest.mark.parametrize(
    ("error", "field"),
    [
        (BadRequest("Anything.", field="copies"), "copies"),
        (BadRequest("There is no picture.", "Give one: --image FILE."), "image"),
        (BadRequest("--wait-for is nothing.", "Leave out --image."), "wait_for"),
        (BadRequest("side is 3; it must be even."), "side"),
        (BadRequest("The machine is on fire.", "See --nothing."), ""),
    ],
)
@pytest.mark.usefixtures("foreign")
def test_which_field_a_refusal_is_about(studio: Studio, error: BadRequest, field: str) -> None:
    message = refused(House(studio), error, words_of("en"), "paint").message
    assert message.endswith(f'<i class="refused-{field}"></i>') if field else "refused" not in message


def test_a_broken_picture_is_told_in_words(tab: Tab, tmp_path: Path) -> None:
    shown = tab.open()
    form = form_of(tab, "image", "starter-image", ".shape[data-shape='96x48']")
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n")
    form.locator(".p-image input[type=file]").set_input_files(broken)
    told = "“Starting image”: 'broken.png' is a broken picture. Give a picture that opens."
    line = shown.locator("#tab-image .forecast:visible")
    until("the forecast says it", lambda: told in line.inner_text())
    form.locator(".p-prompt textarea").fill("an apple")
    form.locator(".go").click()
    mark = form.locator(".p-image[data-marked] .refusal")
    mark.wait_for()
    assert told in mark.inner_text()
    assert "preprocess" not in shown.locator("body").inner_text()


def test_no_mask_is_painted_over_a_picture_that_does_not_open(tab: Tab, tmp_path: Path) -> None:
    """Nothing of it is drawn, or half of it is drawn by the browser but the engine refuses it."""
    shown = tab.open()
    form = form_of(tab, "image", "starter-image", ".shape[data-shape='96x48']")
    whole, cut, empty = tmp_path / "whole.png", tmp_path / "cut.png", tmp_path / "empty.png"
    Image.effect_noise((256, 256), 90).save(whole)
    cut.write_bytes(whole.read_bytes()[:40_000])
    empty.write_bytes(whole.read_bytes()[:8])
    paint = form.locator("[data-paint]")
    for file in (empty, cut):
        form.locator(".p-image input[type=file]").set_input_files(file)
        until("the forecast", lambda file=file: file.name in shown.locator("#tab-image .forecast:visible").inner_text())
        settle(shown)
        paint.wait_for(state="hidden")
        form.locator(".p-image .icon-button").click()
        form.locator(".p-image img").wait_for(state="detached")
    form.locator(".p-image input[type=file]").set_input_files(whole)
    paint.wait_for()


DROPPED = """([place, name, type]) => {
  const dataTransfer = new DataTransfer();
  dataTransfer.items.add(new File(["words"], name, { type }));
  const target = [...document.querySelectorAll(place)].find((one) => one.getClientRects().length);
  target.dispatchEvent(new DragEvent("drop", { bubbles: true, cancelable: true, dataTransfer }));
}"""


@pytest.mark.parametrize("place", [".brand", "#tab-image [aria-dropeffect]"])
def test_a_file_that_nothing_takes_is_named(tab: Tab, place: str) -> None:
    shown = tab.open()
    form_of(tab, "image", "starter-image", ".shape[data-shape='96x48']")
    shown.evaluate(DROPPED, [place, "letter.pdf", "application/pdf"])
    said = shown.get_by_role("alert")
    said.wait_for()
    assert said.inner_text() == "Nothing here takes “letter.pdf”."
