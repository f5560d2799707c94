"""Thinking and answer are told apart however the text is cut, and nothing that was not a tag is lost."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studio_pipelines.text_llm.thinking import (
    FORMATS,
    Splitter,
    State,
    StopFilter,
    detect,
    state_after,
    without_thinking,
)

HARMONY = (
    "<|channel|>analysis<|message|>Let me see.<|end|><|start|>assistant<|channel|>final<|message|>Yes <b>.<|return|>"
)

APRIEL = "Here are my reasoning steps:\nhm\n[BEGIN FINAL RESPONSE]\nYes.\n[END FINAL RESPONSE]"

# format, where it starts, what the model writes, thinking, answer
CASES: list[tuple[str, State, str, str, str]] = [
    ("think", "start", "<think>\nhm\n</think>\n\nYes.", "hm\n", "Yes."),
    ("think", "start", " \n<think>hm</think>Yes.", "hm", "Yes."),
    ("think", "thinking", "\nhm</think>\n\nYes.", "hm", "Yes."),
    ("think", "after", "\n\nYes.", "", "Yes."),
    ("think", "start", "  The tag <think> opens.", "", "  The tag <think> opens."),
    ("think", "start", "<thing>", "", "<thing>"),
    ("think", "start", "<thi", "", "<thi"),
    ("think", "start", "<think>hm </thin k></think>a </think> b", "hm </thin k>", "a </think> b"),
    ("think", "start", "<think>never done </thi", "never done </thi", ""),
    ("gemma", "start", "<|channel>thought\nhm<channel|>Yes.", "hm", "Yes."),
    ("cohere", "start", "<|START_THINKING|>hm<|END_THINKING|><|START_RESPONSE|>Yes.<|END_RESPONSE|>", "hm", "Yes."),
    ("seed", "start", "<seed:think>hm</seed:think>Yes.", "hm", "Yes."),
    ("kimi", "start", "◁think▷hm◁/think▷Yes.", "hm", "Yes."),
    ("mistral", "start", "[THINK]hm[/THINK]Yes [1].", "hm", "Yes [1]."),
    ("granite", "start", "Here is my thought process: hm. Here is my response: Yes.", "hm. ", "Yes."),
    ("apriel", "start", APRIEL, "hm\n", "Yes.\n"),
    ("hunyuan", "start", "<think>hm</think>\n<answer>\nYes.\n</answer>", "hm", "Yes.\n"),
    ("thinking", "start", "<thinking>hm</thinking>Yes.", "hm", "Yes."),
    ("thought", "start", "<thought>hm</thought>Yes.", "hm", "Yes."),
    ("reasoning", "start", "<reasoning>hm</reasoning>Yes.", "hm", "Yes."),
    ("harmony", "header", HARMONY, "Let me see.", "Yes <b>."),
    ("harmony", "header", "<|channel|>final <|constrain|>json<|message|>{}", "", "{}"),
    ("harmony", "header", "<|channel|>commentary to=x<|message|>call", "call", ""),
    ("harmony", "header", "just text", "", "just text"),
    ("none", "start", "<think>hm</think>Yes.", "", "<think>hm</think>Yes."),
]  # fmt: skip


def split(name: str, start: State, pieces: list[str]) -> tuple[str, str]:
    splitter = Splitter(FORMATS.get(name), start)
    out = [part for piece in pieces for part in splitter.feed(piece)] + splitter.finish()
    return tuple("".join(text for channel, text in out if channel == one) for one in ("thinking", "answer"))  # type: ignore[return-value]


@pytest.mark.parametrize(("name", "start", "text", "thinking", "answer"), CASES)
def test_each_format_is_split(name: str, start: State, text: str, thinking: str, answer: str) -> None:
    assert split(name, start, [text]) == (thinking, answer)
    assert split(name, start, list(text)) == (thinking, answer)


def test_every_format_has_a_case() -> None:
    assert {case[0] for case in CASES} == {*FORMATS, "none"}


def test_no_marker_of_a_format_holds_another() -> None:
    """Else the cut of the text could decide which of them is seen."""
    for fmt in FORMATS.values():
        for one in fmt.markers:
            assert not [other for other in fmt.markers if other != one and one in other]


MARKS = sorted({mark for fmt in FORMATS.values() for mark in fmt.markers})
alphabet = [*MARKS, "final", "<", "|>", " ", "\n", "a", "é"]


@settings(max_examples=400, deadline=None)
@given(
    name=st.sampled_from([*FORMATS, "none"]),
    start=st.sampled_from(["start", "thinking", "after", "answer"]),
    parts=st.lists(st.sampled_from(alphabet), max_size=12),
    data=st.data(),
)
def test_the_cut_does_not_matter(name: str, start: State, parts: list[str], data: st.DataObject) -> None:
    text = "".join(parts)
    if name == "harmony":
        start = "header"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=10)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert split(name, start, pieces) == split(name, start, [text])


@settings(max_examples=200, deadline=None)
@given(text=st.text(alphabet="<think>/ \na", max_size=40), start=st.sampled_from(["start", "answer"]))
def test_what_is_no_tag_is_never_lost(text: str, start: State) -> None:
    if not text.lstrip().startswith("<think>"):
        assert split("think", start, list(text)) == ("", text)


TEMPLATES = {
    "think": "{%- if enable_thinking is false %}{{ '<think>\\n\\n</think>' }}{% endif %}",
    "harmony": "<|start|>assistant<|channel|>final<|message|>",
    "gemma": "{{ '<|channel>thought' }}",
    "mistral": "{{ '[THINK]' }}",
    "seed": "{{ '<seed:think>' }}",
    "cohere": "<|START_THINKING|>",
    "kimi": "◁think▷",
    "none": "{{ messages }} I think",
}


@pytest.mark.parametrize("name", TEMPLATES)
def test_the_format_is_found_in_the_template(name: str) -> None:
    assert detect(TEMPLATES[name]) == name


def test_where_the_model_starts_depends_on_the_prompt() -> None:
    think, harmony = FORMATS["think"], FORMATS["harmony"]
    assert state_after(think, "<|assistant|>\n<think>\n") == "thinking"
    assert state_after(think, "<|assistant|>\n<think>\n\n</think>\n\n") == "after"
    assert state_after(think, "<|assistant|>\n") == "start"
    assert state_after(harmony, "<|start|>assistant") == "header"
    assert state_after(None, "<think>") == "answer"


def test_earlier_thinking_is_taken_out_of_history() -> None:
    assert without_thinking(FORMATS["think"], "<think>hm</think>\n\nYes.") == "Yes."
    assert without_thinking(FORMATS["think"], "hm</think>\n\nYes.") == "Yes."
    assert without_thinking(FORMATS["think"], "Yes.") == "Yes."
    assert without_thinking(FORMATS["harmony"], HARMONY) == "Yes <b>."
    assert without_thinking(FORMATS["harmony"], "Yes.") == "Yes."
    assert without_thinking(None, "<think>hm</think>") == "<think>hm</think>"


def stopped(stops: list[str], pieces: list[str]) -> tuple[str, str]:
    stop = StopFilter(stops)
    return "".join(stop.feed(piece) for piece in pieces) + stop.finish(), stop.hit


def test_the_answer_ends_before_the_first_stop_text() -> None:
    assert stopped(["END"], ["One E", "N", "D two"]) == ("One ", "END")
    assert stopped(["END"], ["One EN"]) == ("One EN", "")
    assert stopped([], ["One"]) == ("One", "")
    assert stopped(["ab", "b"], ["xab"]) == ("x", "ab")


@settings(max_examples=300, deadline=None)
@given(
    text=st.text(alphabet="abc", max_size=20),
    stops=st.lists(st.text(alphabet="abc", min_size=1, max_size=4), max_size=3),
)
def test_stops_do_not_depend_on_the_cut(text: str, stops: list[str]) -> None:
    shown, hit = stopped(stops, list(text))
    assert (shown, hit) == stopped(stops, [text])
    assert not any(stop in shown for stop in stops)
    assert bool(hit) == any(stop in text for stop in stops)
