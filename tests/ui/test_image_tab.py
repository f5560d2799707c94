"""The Image tab as a person uses it, with the real starter models."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, choose, jobs_of, unfold
from page_server import Page
from PIL import Image

from toolbox import until

FORM = "#tab-image .family:visible"


@pytest.fixture
def form(tab: Tab) -> Iterator[Any]:
    """The tab with ``starter-image`` chosen and few steps."""
    shown = tab.open()
    tab.go("image")
    shown.wait_for_selector("#image-model")
    choose(shown, "image", "starter-image")
    form = shown.locator(FORM).filter(has=shown.locator(".shape[data-shape='96x48']"))
    form.wait_for()
    unfold(form.get_by_role("button", name="More settings"))
    form.locator(".p-steps input, .p-steps textarea").first.fill("3")
    yield form


def picture_of(page: Page, at: int = 0) -> Image.Image:
    """What the last job made."""
    [path] = (page.home / "outputs").rglob(f"{jobs_of(page)[at]['id']}*.png")
    with Image.open(path) as image:
        return image.convert("RGB")


def done(form: Any, page: Page, count: int) -> dict[str, Any]:
    """The newest job, once there are ``count`` and it has ended well."""
    until("a new job", lambda: len(jobs_of(page)) == count, 60)
    until("its end", lambda: jobs_of(page)[0]["state"] not in ("queued", "running"), 120)
    [job, *_] = jobs_of(page)
    assert job["state"] == "done"
    form.page.locator(f"[data-key='{job['id']}-0'] .figures img").wait_for()
    return job


def box(form: Any, name: str) -> Any:
    return form.locator(f".p-{name} textarea, .p-{name} input").first


def drawn_file(place: Path, colour: str) -> Path:
    Image.new("RGB", (64, 64), colour).save(place)
    return place


def test_a_shape_a_key_and_the_same_seed_again(form: Any, page: Page) -> None:
    count = len(jobs_of(page))
    form.locator(".shape[data-shape='96x48']").click()
    assert [box(form, name).input_value() for name in ("width", "height")] == ["96", "48"]
    box(form, "prompt").fill("an apple")
    box(form, "prompt").press("Control+Enter")
    job = done(form, page, count + 1)
    assert (job["params"]["width"], job["params"]["height"]) == (96, 48)
    assert picture_of(page).size == (96, 48)

    form.locator("[data-seed=again]").click()
    assert box(form, "seed").input_value() == str(job["params"]["seed"])
    form.locator(".shape[data-shape='']").click()
    form.locator(".go").click()
    again = done(form, page, count + 2)
    assert again["params"]["seed"] == job["params"]["seed"]
    assert "width" not in again["params"]
    form.locator("[data-seed=dice]").click()
    assert box(form, "seed").input_value() == ""


def test_a_painted_mask_reaches_the_model(form: Any, page: Page, tmp_path: Path) -> None:
    count = len(jobs_of(page))
    assert not form.locator("[data-paint]").is_visible()  # there is nothing to paint on
    form.locator(".p-image input[type=file]").set_input_files(drawn_file(tmp_path / "blue.png", "#2040c0"))
    form.locator("[data-paint]").click()
    dialog = form.page.locator("dialog.painter")
    area = dialog.locator("canvas").bounding_box()
    mouse = form.page.mouse
    for height in (0.5, 0.2):
        mouse.move(area["x"] + area["width"] * 0.2, area["y"] + area["height"] * height)
        mouse.down()
        mouse.move(area["x"] + area["width"] * 0.8, area["y"] + area["height"] * height, steps=4)
        mouse.up()
    dialog.get_by_role("button", name="Undo").click()
    dialog.get_by_role("button", name="Use this mask").click()
    form.locator(".p-mask_image img").wait_for()
    box(form, "prompt").fill("a red apple")
    form.locator(".go").click()
    job = done(form, page, count + 1)
    with Image.open(job["params"]["mask_image"]) as image:
        mask = image.convert("L")
    assert mask.size == (64, 64)
    assert [mask.getpixel(at) for at in ((32, 32), (32, 13), (2, 60))] == [255, 0, 0]
    made = picture_of(page)
    assert made.getpixel((2, 60)) == (0x20, 0x40, 0xC0)  # what was not painted stays
    assert made.getpixel((32, 32)) != (0x20, 0x40, 0xC0)


def test_a_file_dropped_anywhere_is_used(form: Any) -> None:
    form.page.evaluate(
        """async () => {
          const canvas = Object.assign(document.createElement("canvas"), { width: 64, height: 64 });
          const blob = await new Promise((got) => canvas.toBlob(got, "image/png"));
          const dataTransfer = new DataTransfer();
          dataTransfer.items.add(new File([blob], "dropped.png", { type: "image/png" }));
          document.querySelector(".brand").dispatchEvent(new DragEvent("drop", { bubbles: true, dataTransfer }));
        }"""
    )
    form.locator(".p-image img").wait_for()
    assert not form.locator(".p-mask_image img").is_visible()


def test_styles_are_pressed_and_come_back(form: Any, page: Page) -> None:
    (page.home / "styles").mkdir(exist_ok=True)
    (page.home / "styles" / "mine.yaml").write_text(
        "in red: {prompt: 'a red {prompt}'}\nbig: {prompt: '{prompt}, big'}\n"
    )
    shown = form.page
    choose(shown, "image", "paint")  # and back: what there is to choose from is read anew
    choose(shown, "image", "starter-image")
    buttons = form.locator("picture-styles")
    buttons.locator("summary").click()
    buttons.get_by_role("button", name="big").click()
    buttons.get_by_role("button", name="in red").click()
    buttons.get_by_role("button", name="big").click()
    assert box(form, "style").input_value() == "in red"
    assert buttons.locator("summary span").inner_text() == "in red"
    form.locator(".p-prompt textarea").fill("apple")
    count = len(jobs_of(page))
    form.locator(".go").click()
    job = done(form, page, count + 1)
    assert job["params"]["style"] == ["in red"]
    form.locator(".reset").click()
    until("no style", lambda: buttons.locator("[aria-pressed=true]").count() == 0)


def test_adapters_are_chosen_with_their_weights(form: Any, page: Page) -> None:
    picker = form.locator(".adapters, .picker .quiet").last
    assert "loras" in picker.inner_text()  # none yet: it says where they belong
    (page.home / "loras" / "old").mkdir(parents=True, exist_ok=True)
    for name in ("water", "old/film"):
        (page.home / "loras" / f"{name}.safetensors").write_bytes(b"")
    choose(form.page, "image", "paint")
    choose(form.page, "image", "starter-image")
    select = form.locator(".adapters select")
    select.select_option("old/film")
    select.select_option("water")
    form.locator(".adapter input[type=number]").first.fill("0.6")
    until("the lines", lambda: box(form, "lora").input_value() == "old/film:0.6\nwater:1")
    form.locator(".adapter button").last.click()
    assert box(form, "lora").input_value() == "old/film:0.6"


def test_a_grid_of_two_settings(form: Any, page: Page) -> None:
    count = len(jobs_of(page))
    box(form, "prompt").fill("an apple")
    form.get_by_role("button", name="Grid of two settings").click()
    for axis, name, values in ((0, "Steps", "2, 3"), (1, "Prompt", "a cat\na dog")):
        row = form.locator(".grid-axis").nth(axis)
        row.locator("input").first.click()
        form.page.locator(f"[role=option]:has-text('{name}')").first.click()
        row.locator("textarea").fill(values)
    form.locator(".grid-go").click()
    sheet = form.page.locator("#tab-image .shown a[href*=sheet]")
    sheet.wait_for()
    jobs = jobs_of(page)[: len(jobs_of(page)) - count]
    asked = [(job["params"]["prompt"], job["params"]["steps"]) for job in reversed(jobs)]
    assert asked == [("a cat", 2), ("a cat", 3), ("a dog", 2), ("a dog", 3)]
    assert len({job["params"]["seed"] for job in jobs}) == 1
    table = form.page.locator("#tab-image .grid-table")
    assert table.locator("img").count() == 4
    assert [cell.inner_text() for cell in table.locator("tr").nth(1).locator("th").all()] == ["a cat"]
    table.locator(".cell").nth(2).click()  # one of them large, with what can be done with it
    opened = form.page.locator("#tab-image .opened")
    opened.locator(f"[data-do=again][data-artefact='{jobs[1]['id']}-1']").wait_for()
    form.page.keyboard.press("Escape")
    opened.wait_for(state="detached")
    answer = form.page.request.get(page.url + sheet.get_attribute("href"))
    assert Image.open(io.BytesIO(answer.body())).width > 600
    assert form.page.locator("#tab-image .strip .tile").first.locator(".count").inner_text() == "4"


def test_a_result_is_enlarged(form: Any, page: Page) -> None:
    count = len(jobs_of(page))
    box(form, "prompt").fill("an apple")
    form.locator(".go").click()
    job = done(form, page, count + 1)
    form.page.locator(f"[data-key='{job['id']}-0'] [data-do=send]").click()
    larger = done(form, page, count + 2)
    assert larger["model"] == "starter-upscale"
    assert picture_of(page).size == tuple(4 * side for side in picture_of(page, 1).size)
    width, height = picture_of(page).size
    pixels = form.page.locator(f"[data-key='{larger['id']}-0'] .pixels")
    assert pixels.inner_text() == f"{width} × {height} px"


def test_an_adapter_put_into_the_folder_meanwhile_is_offered(form: Any, page: Page, tab: Tab) -> None:
    file = page.home / "loras" / "late.safetensors"
    file.parent.mkdir(exist_ok=True)
    assert form.locator(".adapters option[value=late]").count() == 0
    file.write_bytes(b"")
    tab.go("video")
    tab.go("image")
    form.locator(".adapters option[value=late]").wait_for(state="attached")
    file.unlink()


def test_the_model_chosen_last_is_kept(form: Any, tab: Tab) -> None:
    shown = form.page
    for chosen, own in (("paint", ".p-colour"), ("starter-image", ".shape[data-shape='96x48']")):
        mine = shown.locator(FORM).filter(has=shown.locator(own))
        choose(shown, "image", chosen)
        mine.wait_for()
        shown.reload()
        mine.wait_for()
        shown.wait_for_function(f"() => document.querySelector('#image-model input').value.includes('{chosen}')")
