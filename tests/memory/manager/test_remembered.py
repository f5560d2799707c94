"""What was made of a prompt is kept as it was, up to a limit, and only where it depends on plain arguments alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from studio.remembered import Remembered

CPU = torch.device("cpu")


class Encoder:
    """Has what ``over`` needs of a pipeline: a prompt is its length, and each call is counted."""

    def __init__(self) -> None:
        self.calls = 0

    def encode_prompt(self, prompt: Any, device: Any = None, image: Any = None, scale: float = 1.0) -> Any:
        self.calls += 1
        return torch.full((2, 8), len(prompt) * scale), [torch.ones(3, dtype=torch.bool), None]


def test_the_same_words_are_asked_once_and_what_is_kept_cannot_be_written_into() -> None:
    encoder, remembered, told = Encoder(), Remembered(), list[bool]()
    for carried in ((), (), ("adapter", 0.5)):
        with remembered.over(encoder, carried, CPU, told.append):
            embeds, (mask, nothing) = encoder.encode_prompt("cat", scale=2.0)
            assert embeds[0, 0] == 6 and mask.all() and nothing is None
            embeds.zero_()
            mask.zero_()
    assert told == [False, True, False] and encoder.calls == 2, "other adapters are another question"
    assert encoder.encode_prompt.__func__ is Encoder.encode_prompt  # type: ignore[attr-defined]
    remembered.clear()
    with remembered.over(encoder, (), CPU, told.append):
        encoder.encode_prompt("cat", scale=2.0)
    assert told[-1] is False


@pytest.mark.parametrize(
    ("one", "other"),
    [({"prompt": "a"}, {"prompt": ["a"]}), ({"scale": 1.0}, {"scale": True}), ({"prompt": "a"}, {"prompt": "b"})],
)
def test_other_arguments_are_another_question(one: dict[str, Any], other: dict[str, Any]) -> None:
    encoder, remembered = Encoder(), Remembered()
    with remembered.over(encoder, (), CPU, lambda known: None):
        for asked in (one, other, one, other):
            encoder.encode_prompt(**{"prompt": "x", **asked})
    assert encoder.calls == 2


def test_a_pipeline_that_encodes_otherwise_is_left_alone() -> None:
    pipeline, told = object(), list[bool]()
    with Remembered().over(pipeline, (), CPU, told.append):
        assert not hasattr(pipeline, "encode_prompt")
    assert told == []


@pytest.mark.parametrize("image", [torch.zeros(2), [torch.zeros(2)], object()])
def test_of_pictures_nothing_is_kept(image: Any) -> None:
    encoder, remembered, told = Encoder(), Remembered(), list[bool]()
    with remembered.over(encoder, (), CPU, told.append):
        encoder.encode_prompt("cat", image=image)
        encoder.encode_prompt("cat", image=image)
    assert told == [False, False]


def test_what_was_not_asked_for_longest_goes_first() -> None:
    remembered = Remembered(limit_bytes=3 * 400)
    for name in "abc":
        remembered.keep(name, (torch.zeros(100), name))
    assert remembered.get("a", CPU) is not None
    remembered.keep("d", torch.zeros(100))
    assert [name for name in "abcd" if remembered.get(name, CPU) is not None] == ["a", "c", "d"]
    remembered.keep("e", torch.zeros(301))
    remembered.keep("f", {"what": object()})
    assert remembered.get("e", CPU) is None and remembered.get("f", CPU) is None
