"""Every kind of template gets the conversation in a form that it takes, and none drops what was said."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import text_models

from studio.plugin import BadWeights, StudioError
from studio_pipelines.text_llm.conversation import DEFAULT_TEMPLATE, Prompt, Words, build_prompt, thinking_format
from studio_pipelines.text_llm.params import Message, TextParams
from studio_pipelines.text_llm.template import TemplateProcess

WORDS = Words(bos="<s>", eos="</s>", chatml=True)
Build = Callable[..., Prompt]

TWO_ROLES = (
    "{{ bos_token }}{% for m in messages %}"
    "{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
)
PARTS = "{% for m in messages %}<{{ m.role }}>{% for part in m.content %}{{ part.text }}{% endfor %}{% endfor %}"
SWITCH = (
    "{{ messages[-1].content }}"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}"
)
OPENS = "{{ messages[-1].content }}<think>\n{% if false %}{% endif %}"


@pytest.fixture
def build() -> Iterator[Build]:
    processes: list[TemplateProcess] = []

    def do(template: str, marker: str = "", **params: Any) -> Prompt:
        templates = {DEFAULT_TEMPLATE: template}
        processes.append(TemplateProcess(templates, "m.gguf"))
        request = TextParams(**{"prompt": "Hello there", **params})
        return build_prompt(request, processes[-1], WORDS, thinking_format("auto", templates), marker)

    yield do
    for process in processes:
        process.close()


def test_a_template_without_a_system_role_gets_it_in_the_first_turn(build: Build) -> None:
    assert build(TWO_ROLES, system="Be kind.").text == "<s><user>Be kind.\n\nHello there<assistant>"
    assert build(TWO_ROLES).text == "<s><user>Hello there<assistant>"


def test_a_template_that_wants_parts_gets_parts(build: Build) -> None:
    history = [Message(role="user", content="One"), Message(role="assistant", content="Two")]
    assert build(PARTS, messages=history).text == "<user>One<assistant>Two<user>Hello there"


def test_the_switch_of_a_template_is_used_before_our_own(build: Build) -> None:
    off = build(SWITCH, thinking="off")
    assert off.text.count("</think>") == 1
    assert off.state == "after"
    assert build(SWITCH, thinking="on").state == build(SWITCH).state == "start"


def test_a_template_without_a_switch_is_closed_by_us(build: Build) -> None:
    assert build(OPENS).state == "thinking"
    off = build(OPENS, thinking="off")
    assert (off.state, off.text.count("<think>"), off.text.count("</think>")) == ("after", 1, 1)


def test_a_refusal_is_told_in_the_templates_words(build: Build) -> None:
    with pytest.raises(StudioError, match=r"failed: Roles must alternate\. "):
        build("{{ raise_exception('Roles must alternate.') }}")


def test_a_template_without_a_place_for_pictures_is_refused(build: Build) -> None:
    turn = Message(role="user", content="<M> look")
    with pytest.raises(StudioError, match="no place for pictures"):
        build("{{ messages[-1].content }}", marker="<M>", messages=[turn])


def test_an_unknown_format_in_the_catalogue_is_named() -> None:
    with pytest.raises(BadWeights, match="'aloud'"):
        thinking_format("aloud", {})
    assert thinking_format("none", {DEFAULT_TEMPLATE: "<think>"}) is None


def test_no_process_is_needed_for_a_completion() -> None:
    prompt = build_prompt(TextParams(prompt="Once", completion=True), None, WORDS, None)
    assert prompt == Prompt("Once", "answer")
    assert text_models.END in build_prompt(TextParams(prompt="Hi"), None, WORDS, None).text
    plain = build_prompt(TextParams(prompt="Hi"), None, Words("", "", False), None)
    assert plain.stops == ("\nUser:",)
