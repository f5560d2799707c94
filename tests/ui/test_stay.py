"""What stays where it was: the tab, what is being written, the end of a conversation; and lists that close."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from browsing import Tab, choose, hold_a_picture, jobs_of, settle, unfold
from page_server import Page
from PIL import Image

from toolbox import until

AT_END = """() => {
  const box = document.querySelector(".thread-box");
  return box.scrollHeight > box.clientHeight && box.scrollHeight - box.scrollTop - box.clientHeight < 5;
}"""


def drawn(shown: Any, modality: str) -> Any:
    shown.wait_for_selector(f"#{modality}-model")
    return shown.locator(f"#tab-{modality} .main-box textarea").locator("visible=true").first


def test_the_tab_and_what_is_written_stay_when_the_page_is_opened_anew(tab: Tab) -> None:
    shown = tab.open()
    shown.locator("#chat-box textarea").fill("half a thought")
    tab.go("image")
    drawn(shown, "image").fill("a green hat")
    green = "(box) => box.value === 'a green hat'"
    for again in (lambda: shown.reload(), lambda: shown.get_by_role("link", name="Français").click()):
        again()
        shown.wait_for_selector("#tab-image-button.selected")
        drawn(shown, "image").wait_for()
        shown.wait_for_function(f"() => [...document.querySelectorAll('#tab-image .main-box textarea')].some({green})")
    shown.locator("#tab-text-button").click()
    shown.wait_for_function("() => document.querySelector('#chat-box textarea').value === 'half a thought'")


SIZED = ".shape[data-shape='96x48']"
TAMPER = """(harm) => {
  const kept = JSON.parse(sessionStorage.getItem("studio-here"));
  const { model, forms } = kept.forms.image;
  kept.forms.image = { model: harm ? "gone" : model, forms: { ...forms, gone: { steps: 1 } } };
  Object.assign(kept.forms.image.forms["image-diffusion"], {
    scheduler: "gone", steps: "many", strength: "much", image: { path: "/etc/passwd" }, gone: 1, prompt_weighting: 3 });
  addEventListener("pagehide", () => sessionStorage.setItem("studio-here", JSON.stringify(kept)));
}"""


def box(form: Any, name: str) -> Any:
    return form.locator(f".p-{name} textarea, .p-{name} input:not([type=range], [type=file])").first


def settings_of_a_picture(tab: Tab) -> Any:
    """The form of ``starter-image``."""
    tab.go("image")
    tab.page.wait_for_selector("#image-model")
    choose(tab.page, "image", "starter-image")
    form = tab.page.locator("#tab-image .family:visible").filter(has=tab.page.locator(SIZED))
    form.wait_for()
    return form


def holds(form: Any, **values: str) -> None:
    for name, value in values.items():
        until(f"{name} is {value}", lambda name=name, value=value: box(form, name).input_value() == value)


def test_all_that_a_form_holds_stays_and_goes_back_to_the_defaults(tab: Tab, tmp_path: Path) -> None:
    shown = tab.open()
    unfold(shown.locator("#tab-text").get_by_role("button", name="Settings"))
    shown.locator("#tab-text .p-max_tokens input").fill("9")
    form = settings_of_a_picture(tab)
    Image.new("RGB", (64, 64), "#2040c0").save(tmp_path / "blue.png")
    form.locator(".p-image input[type=file]").set_input_files(tmp_path / "blue.png")
    form.locator(".p-image img").wait_for()
    form.locator(SIZED).click()
    box(form, "seed").fill("77")
    unfold(form.get_by_role("button", name="More settings"))
    as_it_was = box(form, "steps").input_value()
    box(form, "steps").fill("3")
    form.locator(".p-safety").get_by_label("blur").check()
    with shown.expect_response("**/gradio_api/**"):
        box(form, "strength").fill("0.4")
    settle(shown)
    for again, choice in (
        (lambda: shown.reload(), "blur"),
        (lambda: shown.get_by_role("link", name="Français").click(), "flouter"),
    ):
        again()
        form.locator(".p-image img").wait_for()
        holds(form, width="96", height="48", seed="77")
        holds(form, steps="3", strength="0.4")  # in the fold, which is open as it was
        assert form.locator(".p-safety").get_by_label(choice).is_checked()
    box(form, "prompt").fill("une pomme")
    form.locator(".reset").click()
    holds(form, width="", height="", seed="", steps=as_it_was, prompt="une pomme")
    assert form.locator(".p-image img").is_visible()
    assert form.locator(f"{SIZED}.on").count() == 0
    tab.go("text")
    assert shown.locator("#tab-text .p-max_tokens input").first.input_value() == "9"


def test_folds_are_open_that_were_and_no_others(tab: Tab) -> None:
    shown = tab.open()
    form = settings_of_a_picture(tab)
    fold = form.locator(".fold > button")
    unfold(fold.nth(1))
    unfold(fold.nth(0))
    unfold(fold.nth(1))
    opened = shown.locator("#tab-image .fold > button.open")
    for again in (lambda: shown.reload(), lambda: shown.get_by_role("link", name="Français").click()):
        again()
        box(form, "steps").wait_for()
        settle(shown)
        until("one is open", lambda: opened.count() == 1)
    unfold(fold.nth(0))
    shown.reload()
    fold.nth(0).wait_for()
    tab.go("text")  # nothing is opened there either
    assert shown.locator("#tab-text .fold > button.open").count() == 0
    tab.go("image")
    assert opened.count() == 0


def test_what_was_chosen_or_dropped_in_the_last_moment_stays(tab: Tab, tmp_path: Path) -> None:
    """The server hears nothing of it before the page is left."""
    shown = tab.open()
    form = settings_of_a_picture(tab)
    for fold in form.locator(".fold > button").all():
        unfold(fold)
    deaf, unheard = [True], []
    asked = re.compile(r"/gradio_api/(queue/join|run)")
    shown.route(asked, lambda route: unheard.append(route) if deaf[0] else route.continue_())
    picture = tmp_path / "50% off #1.png"
    Image.new("RGB", (64, 64), "#2040c0").save(picture)
    form.locator(".p-image input[type=file]").set_input_files(picture)
    form.locator(".p-image img").wait_for()
    for name, words in (("scheduler", "euler"), ("grid-0", "Steps")):
        form.locator(f".p-{name} input").click()
        shown.locator(f"[role=option][aria-label='{words}']").click()
    form.locator(".p-grid-1 textarea").fill("2, 3")
    form.locator(".p-safety").get_by_label("blur").check()
    chosen = form.locator(".p-scheduler input").input_value()
    deaf[0] = False
    assert unheard
    for again, steps in (
        (lambda: shown.reload(), "Steps"),
        (lambda: shown.get_by_role("link", name="Français").click(), "Étapes"),
    ):
        again()
        form.locator(".p-image img").wait_for()
        until("the list", lambda: form.locator(".p-scheduler input").input_value() == chosen)
        until("the grid", lambda steps=steps: form.locator(".p-grid-0 input").input_value() == steps)
        assert form.locator(".p-grid-1 textarea").input_value() == "2, 3"
        assert form.locator(".p-safety [value=blur]").is_checked()


def test_whoever_leaves_while_a_file_is_on_its_way_is_asked(tab: Tab, tmp_path: Path) -> None:
    shown = tab.open()
    form = settings_of_a_picture(tab)
    waiting: list[Any] = []
    shown.route("**/gradio_api/upload*", lambda route: waiting.append(route))
    Image.new("RGB", (64, 64), "#2040c0").save(tmp_path / "slow.png")
    form.locator(".p-image input[type=file]").set_input_files(tmp_path / "slow.png")
    form.locator(".uploading").wait_for()
    asked: list[str] = []
    shown.on("dialog", lambda dialog: (asked.append(dialog.type), dialog.dismiss()))
    shown.evaluate("() => { setTimeout(() => location.reload(), 0); }")
    until("it asks", lambda: (shown.evaluate("1"), asked)[1])
    assert asked == ["beforeunload"]
    for route in waiting:
        route.continue_()
    form.locator(".p-image img").wait_for()


def test_what_a_form_does_not_know_any_more_is_left_out(tab: Tab) -> None:
    shown = tab.open()
    form = settings_of_a_picture(tab)
    box(form, "seed").fill("77")
    unfold(form.get_by_role("button", name="More settings"))
    as_it_was = {name: box(form, name).input_value() for name in ("scheduler", "steps", "strength")}
    settle(shown)
    for harm in (False, True):
        shown.reload()
        holds(form, seed="77")
        shown.evaluate(TAMPER, harm)
        shown.reload()
        holds(form, seed="77")
        holds(form, **as_it_was)
        assert form.locator(".p-image img").count() == 0
    assert "starter-image" in shown.locator("#image-model input").input_value()


def test_a_conversation_is_opened_at_its_end(tab: Tab) -> None:
    shown = tab.open()
    shown.locator("[data-do=new]").click()
    shown.wait_for_selector(".ideas")
    unfold(shown.locator("#tab-text").get_by_role("button", name="Settings"))
    shown.locator("#tab-text .p-max_tokens input").fill("8")
    box = shown.locator("#chat-box textarea")
    box.fill("\n".join(f"Line {number}." for number in range(60)))
    box.press("Enter")
    shown.wait_for_selector(".turn.model .facts")
    shown.reload()
    shown.wait_for_selector(".turn.model .facts")
    shown.wait_for_function(AT_END)
    tab.go("jobs")
    tab.go("text")
    shown.wait_for_function(AT_END)


def test_a_list_closes_when_the_keyboard_goes_on(tab: Tab) -> None:
    shown = tab.open()
    chooser = shown.locator("#text-model input")
    with shown.expect_response(lambda answer: "gradio_api/queue/join" in answer.url):  # what keeps the list up to date
        chooser.focus()
        chooser.press("Tab")
    shown.wait_for_function("() => !document.querySelector('#text-model [role=option]')")
    chooser.click()
    shown.locator("#text-model [role=option]").first.wait_for()  # and opens when it is asked to


def test_escape_closes_an_open_list_and_stops_nothing(tab: Tab, page: Page, tmp_path: Path) -> None:
    shown = hold_a_picture(tab, "not stopped by a list", tmp_path / "x")
    shown.locator("#image-model input").click()
    shown.locator("#image-model [role=option]").first.wait_for()
    shown.keyboard.press("Escape")
    shown.wait_for_function("() => !document.querySelector('#image-model [role=option]')")
    assert jobs_of(page)[0]["state"] == "running"
    shown.keyboard.press("Escape")
    shown.locator("#tab-image .shown [data-do=retry]").wait_for()
    assert jobs_of(page)[0]["state"] == "cancelled"


def test_a_forecast_follows_what_is_loaded_and_unloaded_meanwhile(tab: Tab, page: Page) -> None:
    from gradio_client import Client

    shown = tab.open()
    client = Client(page.url, verbose=False, analytics_enabled=False)
    post = """() => fetch("studio/do", {method: "POST", headers: {"Content-Type": "application/json"},
      body: JSON.stringify({do: "unload"})}).then((answer) => answer.status)"""
    until("it is unloaded", lambda: shown.evaluate(post) == 200)  # another test's job may just end
    shown.locator(".pill.idle[data-held='']").wait_for()
    shown.locator("#tab-text .talking .forecast-box .forecast:not(.wait)").wait_for()
    settle(shown)
    # Nobody touches the page: what it asks for now are forecasts.
    with shown.expect_request("**/gradio_api/queue/join*"):
        client.predict("starter-text", {"prompt": "Hello.", "max_tokens": 4}, api_name="/run")
    shown.locator(".pill.idle[data-held='starter-text']").wait_for()
    settle(shown)
    with shown.expect_request("**/gradio_api/queue/join*"):
        assert shown.evaluate(post) == 200
