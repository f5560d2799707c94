"""The Video tab: with a foreign family that makes films in sections, and with the real starter model."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, choose, jobs_of, unfold
from page_server import Page, StartPage
from PIL import Image, ImageDraw

from studio import Studio
from toolbox import processes_of, until

PLAYS = "film => film.duration > 0 && film.readyState >= 2"


def box(form: Any, name: str) -> Any:
    return form.locator(f".p-{name} textarea, .p-{name} input:not([type=range])").first


def film_form(tab: Tab) -> Any:
    """The form of the foreign family that makes films, in the tab that is opened for it."""
    shown = tab.open()
    tab.go("video")
    shown.wait_for_selector("#video-model")
    choose(shown, "video", "film")
    return shown.locator("#tab-video .family:visible").filter(has=shown.locator(".shape[data-shape='64x96']"))


def orange(path: Path) -> Path:
    Image.new("RGB", (64, 64), "orange").save(path)
    return path


def test_a_film_section_by_section_and_a_part_of_it_again(tab: Tab, page: Page, tmp_path: Path) -> None:
    form = film_form(tab)
    shown, gate = tab.page, tmp_path / "go"
    picture = orange(tmp_path / "first.png")
    box(form, "prompt").fill("a dog runs")
    form.locator(".p-image input[type=file]").set_input_files(picture)
    unfold(form.get_by_role("button", name="More settings"))
    assert not form.locator(".p-film").is_visible()  # the time line shows what is made again
    box(form, "wait_for").fill(str(gate))
    blocks, words = form.locator(".section-blocks button"), form.locator("section-line input")
    assert blocks.count() == 3
    line, length = form.locator("section-line").bounding_box(), box(form, "seconds").bounding_box()
    assert length["y"] + length["height"] <= line["y"]  # what says how many sections there are comes first
    box(form, "seconds").fill("4.8")
    until("a fourth section", lambda: blocks.count() == 4)
    blocks.nth(2).click()
    assert "2.4–3.6 s" in form.locator("section-line label").inner_text()
    words.fill("it jumps")
    form.locator(".p-image img").wait_for()
    form.locator(".go").click()

    film = shown.locator("#tab-video .film")
    film.locator(".chip").first.wait_for()  # the first section plays while the second is made
    doing = shown.locator("#tab-video .doing")
    until("the second section", lambda: "Section 2 of 4" in doing.inner_text())
    assert "4.0 s for this one · 12 s left in all" in doing.inner_text()
    assert doing.locator(".parts i").count() == 4
    assert doing.locator(".parts i.done").count() == 1
    until(
        "a film that plays",
        lambda: film.locator("video").evaluate("film => film.currentTime > 0 || film.readyState >= 2"),
    )
    Path(f"{gate}1").touch()
    until("the second piece", lambda: film.locator(".chip").count() == 2)
    for number in (2, 3):
        Path(f"{gate}{number}").touch()
    made = shown.locator("#tab-video .figures video")
    made.wait_for()
    until("the film's length", lambda: made.evaluate("film => film.duration > 4.7"))
    [job, *_] = jobs_of(page)
    assert job["state"] == "done"
    assert job["params"]["section_prompts"] == ["", "", "it jumps", ""]

    shown.locator(".ways-again").get_by_role("button", name="Again from section 3").click()
    note = form.locator(".section-again")
    note.wait_for()
    assert box(form, "from_section").input_value() == "3"
    form.locator(".p-film a").first.wait_for(state="attached")
    note.get_by_role("button").click()  # or a new film after all
    until("no film", lambda: form.locator(".p-film a").count() == 0)
    assert box(form, "from_section").input_value() == ""


def test_a_film_whose_end_is_made_first_counts_in_the_order_of_the_film(tab: Tab, page: Page, tmp_path: Path) -> None:
    form = film_form(tab)
    shown, gate = tab.page, tmp_path / "go"
    picture = orange(tmp_path / "first.png")
    form.locator(".p-image input[type=file]").set_input_files(picture)
    form.locator(".p-image img").wait_for()
    unfold(form.get_by_role("button", name="More settings"))
    box(form, "wait_for").fill(str(gate))
    form.locator(".p-backwards input").check()
    box(form, "seconds").fill("4.8")
    form.locator(".go").click()
    film, doing = shown.locator("#tab-video .film"), shown.locator("#tab-video .doing")
    chips, told = film.locator(".chip"), film.locator(".piece-told")
    until("the last section", lambda: chips.all_inner_texts() == ["4"])
    assert told.inner_text() == "Section 4 of 4"
    until("the one before it", lambda: "Section 3 of 4" in doing.inner_text())
    kinds = doing.locator(".parts i").evaluate_all("all => all.map((one) => one.className)")
    assert kinds == ["", "", "now", "done"]
    Path(f"{gate}1").touch()
    until("the one before that", lambda: chips.all_inner_texts() == ["3", "4"])
    shown.locator("#tab-video .shown [data-do=pause]").click()
    shown.get_by_text("Sections that are kept: 3–4 of 4").wait_for()
    assert chips.all_inner_texts() == ["3", "4"]
    for number in (2, 3):
        Path(f"{gate}{number}").touch()
    shown.locator("#tab-video .shown [data-do=resume]").click()
    shown.locator("#tab-video .figures video").wait_for()
    assert jobs_of(page)[0]["state"] == "done"


def test_a_picture_goes_to_the_video_tab(tab: Tab, page: Page) -> None:
    from gradio_client import Client

    client = Client(page.url, verbose=False, analytics_enabled=False)
    client.predict("paint", {"prompt": "a first frame"}, api_name="/run")
    shown = tab.open()
    tab.go("gallery")
    shown.locator("#tab-gallery .tile.image").first.click()
    shown.locator("#tab-gallery .opened").get_by_role("button", name="To Video").click()
    shown.locator("#tab-video .p-image img:visible").wait_for()


def sprite(path: Path) -> Path:
    """What the starter model was trained on: one thing on a plain ground."""
    picture = Image.new("RGB", (64, 64), (240, 240, 235))
    ImageDraw.Draw(picture).ellipse((8, 20, 30, 42), fill=(215, 40, 40))
    picture.save(path)
    return path


def ask_for_a_film(shown: Any, picture: Path) -> None:
    """Three sections by ``starter-video``, in few steps."""
    choose(shown, "video", "starter-video")
    form = shown.locator("#tab-video .family:visible").filter(
        has=shown.locator("section-line"), has_not=shown.locator(".shape[data-shape='64x96']")
    )
    box(form, "prompt").fill("slides right")
    form.locator(".p-image input[type=file]").set_input_files(picture)
    form.locator(".p-image img").wait_for()
    box(form, "seconds").fill("3.6")
    until("three sections", lambda: form.locator(".section-blocks button").count() == 3)
    unfold(form.get_by_role("button", name="More settings"))
    box(form, "steps").fill("3")
    unfold(form.get_by_role("button", name="More settings"))
    form.locator(".go").click()


@pytest.mark.timeout(420)  # a film twice over, with two starts of the server
def test_a_film_survives_a_reload_and_kill_9(browser: Any, start_page: StartPage, tmp_path: Path) -> None:
    """The worker is held still while the page is looked at, so that no machine is too quick; then everything dies."""
    page = start_page()
    tab = Tab(browser, page)
    shown = tab.open()
    tab.go("video")
    ask_for_a_film(shown, sprite(tmp_path / "sprite.png"))
    film, doing = shown.locator("#tab-video .film video"), shown.locator("#tab-video .doing")
    doing.locator("text=Section 2 of 3").wait_for()
    [worker] = processes_of(page.home)
    worker.suspend()
    try:
        until("the first section plays", lambda: film.evaluate(PLAYS))
        shown.reload()
        doing.locator("text=Section 2 of 3").wait_for()
        until("the first section plays again", lambda: film.evaluate(PLAYS))
        [job] = jobs_of(page)
        assert job["state"] == "running"
    finally:
        page.process.kill()
        worker.kill()
    tab.context.close()
    page.process.wait(15)
    look_at_the_finished_film(browser, start_page(home=page.home))
    with sqlite3.connect(page.home / "studio.db") as database:
        assert database.execute("SELECT id, state, attempt FROM jobs").fetchall() == [(job["id"], "done", 2)]
        [(content,)] = database.execute("SELECT content_sha256 FROM artefacts").fetchall()

    with Studio(tmp_path / "undisturbed", executor="inline") as studio:
        [undisturbed] = studio.run("starter-video", **job["params"])
    assert content == undisturbed.content_sha256


def look_at_the_finished_film(browser: Any, page: Page) -> None:
    """The server that was started again goes on by itself, from the section that was finished."""
    tab = Tab(browser, page)
    shown = tab.open()
    tab.go("video")
    made = shown.locator("#tab-video .figures video")
    made.wait_for()
    until("the film plays", lambda: made.evaluate("film => film.duration > 3.5 && film.readyState >= 2"))
    assert "Goes on with section 2 of 3." in shown.locator("#tab-video .shown .note").all_inner_texts()
    tab.context.close()
    assert tab.outside == tab.complaints == []
