"""Words to begin with, as a model's card has them: one press writes them into the box of their own tab."""

from __future__ import annotations

from browsing import Tab, choose, settle


def test_an_example_is_written_into_the_prompt_of_its_tab(tab: Tab) -> None:
    shown = tab.open()
    shown.locator("#chat-box textarea").fill("stays")
    tab.go("image")
    shown.wait_for_selector("#image-model")
    choose(shown, "image", "starter-image")
    shown.locator("#tab-image .example", has_text="a rocket").click()
    prompt = shown.locator("#tab-image .main-box textarea").locator("visible=true").first
    shown.wait_for_function("(box) => box.value === 'a rocket'", arg=prompt.element_handle())
    assert shown.locator("#chat-box textarea").input_value() == "stays"
    shown.get_by_role("link", name="Français").click()
    shown.wait_for_selector("html[lang=fr] #tab-image-button.selected")
    settle(shown)
    choose(shown, "image", "starter-image")
    assert shown.locator("#tab-image .example").all_inner_texts() == ["une pomme rouge", "une fusée", "un cœur bleu"]
