"""Random words, wildcards, weights and long prompts, on tiny models of the classes that they are for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_models
import pytest
import torch
from image_harness import Loaded

from studio.errors import BadRequest
from studio.plugin import Note
from studio_pipelines.image_diffusion import prompts
from studio_pipelines.image_diffusion.params import ImageParams
from studio_pipelines.image_diffusion.prompt_cut import unread
from studio_pipelines.image_diffusion.prompts import Words, check_prompts, chosen, parsed, weighted

TinyImage = Callable[[str], Path]
CLIP_KINDS = ("sd", "sdxl")


@pytest.fixture
def wildcards(tmp_path: Path) -> Path:
    folder = tmp_path / "wildcards"
    (folder / "animals").mkdir(parents=True)
    (folder / "colours.txt").write_text("# what the sea may be\nred\n\ngreen\nblue\n")
    (folder / "animals" / "small.txt").write_text("{cat|dog} in __colours__\n")
    (folder / "round.txt").write_text("__round__ and __round__\n")
    (folder / "nothing.txt").write_text("# only words about it\n")
    return folder


def test_the_seed_draws_and_every_choice_comes(wildcards: Path) -> None:
    text = "a {red|{green|blue}} __animals/small__"
    drawn = {chosen(text, seed, wildcards) for seed in range(200)}
    assert chosen(text, 5, wildcards) == chosen(text, 5, wildcards)
    assert drawn == {
        f"a {own} {animal} in {colour}"
        for own in ("red", "green", "blue")
        for animal in ("cat", "dog")
        for colour in ("red", "green", "blue")
    }


def test_text_that_only_looks_like_random_words_stays(wildcards: Path) -> None:
    for text in ("a {b} c", "snake_case_words", "____", "a | b", "def __", "x__y__z"):
        assert chosen(text, 1, wildcards) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a __colour__ cat", "Did you mean colours"),
        ("a __nothing__ cat", "no line to draw from"),
        ("__round__", "do not come to an end"),
        ("__../secret__ {a|__nowhere__}", "nowhere"),
    ],
)
def test_a_wildcard_that_cannot_be_drawn_is_refused(text: str, says: str, wildcards: Path) -> None:
    with pytest.raises(BadRequest, match=says) as caught:
        for seed in range(20):
            chosen(text, seed, wildcards)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("a red cat", [("a red cat", 1)]),
        ("a (red) cat", [("a ", 1), ("red", 1.1), (" cat", 1)]),
        ("a ((red)) cat", [("a ", 1), ("red", 1.21), (" cat", 1)]),
        ("a (red:1.3) cat", [("a ", 1), ("red", 1.3), (" cat", 1)]),
        ("a (red : .5 ) cat", [("a ", 1), ("red ", 0.5), (" cat", 1)]),
        ("a [red] cat", [("a ", 1), ("red", 1 / 1.1), (" cat", 1)]),
        ("(a (red:1.5) cat:0.8)", [("a ", 0.8), ("red", 1.2), (" cat", 0.8)]),
        (r"a \(red\) cat \\", [(r"a (red) cat \ "[:-1], 1)]),
        ("happy :) cat", [("happy :) cat", 1)]),
        ("open (red and: 1.3", [("open (red and: 1.3", 1)]),
        ("(((red) cat", [("((", 1), ("red", 1.1), (" cat", 1)]),
        ("ratio 16:9", [("ratio 16:9", 1)]),
        ("", []),
    ],
)
def test_weights_are_read(text: str, pieces: list[tuple[str, float]]) -> None:
    found = parsed(text)
    assert [words.text for words in found] == [words for words, _ in pieces]
    assert [words.weight for words in found] == pytest.approx([weight for _, weight in pieces])


def test_brackets_without_number_or_end_take_no_time() -> None:
    assert parsed("(" * 10_000) == [Words("(" * 10_000)]
    assert len(parsed("(a:0.5)" * 2_000)) == 1


@pytest.mark.parametrize(
    ("text", "weights", "says"),
    [
        ("a (red:9) cat", True, "the limit is 3"),
        ("a [red:blue:0.5] cat", True, "change from step to step"),
        ("a cat <lora:style:0.7>", True, "--lora style:0.7"),
        ("a cat <lora:style:0.7>", False, "--lora style:0.7"),
        ("a (red:1.3) cat", False, "--no-prompt-weighting"),
    ],
)
def test_what_cannot_be_weighed_is_refused_in_one_line(text: str, weights: bool, says: str) -> None:
    for params in (ImageParams(prompt=text), ImageParams(prompt="a cat", negative_prompt=text)):
        with pytest.raises(BadRequest, match=says) as caught:
            check_prompts(
                (params.prompt, params.negative_prompt), params, weights=weights, wildcards=None, model="tiny"
            )
        assert "\n" not in str(caught.value)


def test_sentences_may_have_brackets() -> None:
    params = ImageParams(prompt="a cat (red) [not blue]")
    check_prompts((params.prompt, params.negative_prompt), params, weights=False, wildcards=None, model="tiny")
    literal = ImageParams(prompt="a (red:9) cat", prompt_weighting=False)
    check_prompts((literal.prompt, ""), literal, weights=True, wildcards=None, model="tiny")


def arguments(prompt: str | list[str], negative: str | list[str] | None = None) -> dict[str, Any]:
    given: dict[str, Any] = {"prompt": prompt, "width": 64}
    return given if negative is None else {**given, "negative_prompt": negative}


LONG = "a red cat on the blue sea with the green boat, " * 12


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_a_plain_prompt_goes_its_usual_way(kind: str, tiny_image: TinyImage) -> None:
    pipe = image_models.load(tiny_image(kind))
    for given in (arguments("a red cat"), arguments(["a cat", "a dog"], ["", "x"]), arguments("a cat", "")):
        assert weighted(pipe, given) == given
    assert weighted(pipe, arguments(r"a \(red\) cat")) == arguments("a (red) cat")
    assert weighted(pipe, arguments("a (red:9) cat"), weights=False) == arguments("a (red:9) cat")
    other = image_models.load(tiny_image("flux"))
    assert weighted(other, arguments(LONG)) == arguments(LONG)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_without_weights_the_states_are_those_of_diffusers(kind: str, tiny_image: TinyImage) -> None:
    """Cut at two characters and put together again, all weights 1: the same numbers as ``encode_prompt``."""
    from studio_pipelines.image_diffusion import prompt_clip

    pipe = image_models.load(tiny_image(kind))
    encoders = prompt_clip._encoders(pipe)
    with torch.no_grad():
        found, pooled = prompt_clip._encoded([[Words("a red "), Words("cat")]], encoders, 1, "cpu")
        wanted = pipe.encode_prompt("a red cat", "cpu", 1, False) if kind == "sd" else pipe.encode_prompt("a red cat")
    assert torch.equal(found, wanted[0])
    if kind == "sdxl":
        assert pooled is not None
        assert torch.equal(pooled, wanted[2])


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_weights_move_the_states_of_their_words_and_keep_the_mean(kind: str, tiny_image: TinyImage) -> None:
    pipe = image_models.load(tiny_image(kind))

    def states(prompt: str) -> torch.Tensor:
        embeds: torch.Tensor = weighted(pipe, arguments(prompt))["prompt_embeds"]
        return embeds[0]

    plain = states(f"a red cat {LONG}")  # long, so that it comes as states at all
    heavy = states(f"a (red:1.5) cat {LONG}")
    widths = plain.shape[-1] // (2 if kind == "sdxl" else 1)
    assert heavy.shape == plain.shape
    for own in range(0, plain.shape[-1], widths):
        before, after = plain[:, own : own + widths], heavy[:, own : own + widths]
        ratio = after / before
        rest = ratio[torch.arange(len(ratio)) != 2]
        assert torch.allclose(rest, rest[0, 0].expand_as(rest), rtol=1e-3)
        assert torch.allclose(ratio[2], 1.5 * rest[0, 0].expand_as(ratio[2]), rtol=1e-3)
        assert torch.allclose(after.mean(), before.mean(), rtol=1e-3)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_prompts_of_different_lengths_have_states_of_one_length(kind: str, tiny_image: TinyImage) -> None:
    pipe = image_models.load(tiny_image(kind))
    found = weighted(pipe, arguments([LONG, "a cat"], "a dog"))
    assert "prompt" not in found
    assert found["width"] == 64
    states, against = found["prompt_embeds"], found["negative_prompt_embeds"]
    assert states.shape == against.shape
    assert states.shape[:2] == (2, 77 * (-(-len(pipe.tokenizer(LONG).input_ids[1:-1]) // 75)))
    assert not torch.equal(states[0, 77:154], states[1, 77:154])


def test_a_missing_negative_prompt_is_what_the_pipeline_makes_of_it(tiny_image: TinyImage) -> None:
    sdxl, sd = (image_models.load(tiny_image(kind)) for kind in ("sdxl", "sd"))
    found = weighted(sdxl, arguments("a (red:1.3) cat"))
    assert found["negative_prompt_embeds"].abs().max() == 0
    assert found["negative_pooled_prompt_embeds"].abs().max() == 0
    with torch.no_grad():
        empty = sd.encode_prompt("", "cpu", 1, False)[0]
    assert torch.equal(weighted(sd, arguments("a (red:1.3) cat"))["negative_prompt_embeds"], empty)


@pytest.mark.parametrize("kind", CLIP_KINDS)
def test_through_the_family(kind: str, tiny_image: TinyImage, tmp_path: Path, wildcards: Path) -> None:
    """A weight, the words beyond the 77th token and a drawn word each change the picture; the drawn prompt is told."""
    (tmp_path / "loras").mkdir()
    loaded = Loaded(kind, tiny_image(kind), tmp_path, {}, adapters=tmp_path / "loras")
    try:
        asked = ("a red cat", "a (red:1.6) cat", LONG, LONG + "tree", "a [red] cat", "a __colours__ cat")
        made = [loaded.make(prompt=prompt, guidance_scale=4.0) for prompt in asked]
        assert len({one.pictures[0].tobytes() for one in made}) >= 5
        told = [one.artefacts[0].info.get("prompt") for one in made]
        assert told[:-1] == [None] * 5
        assert told[-1] in {f"a {colour} cat" for colour in ("red", "green", "blue")}
        again = loaded.make(prompt=told[-1], guidance_scale=4.0)
        assert again.pictures[0].tobytes() == made[-1].pictures[0].tobytes()
        with pytest.raises(BadRequest, match="Did you mean colours"):
            loaded.make(prompt="a __color__ cat")
    finally:
        loaded.pipeline.unload()


def test_the_longest_prompt_is_read(tiny_image: TinyImage) -> None:
    pipe = image_models.load(tiny_image("sd"))
    words = ("red " * (prompts.PROMPT_MAX // 4))[: prompts.PROMPT_MAX]
    states = weighted(pipe, arguments(words))["prompt_embeds"]
    assert states.shape[1] == 77 * (-(-5000 // 75))


@pytest.mark.parametrize("kind", ["flux", "sd3", "chroma", "z-image", "flux2-klein", "sana-sprint"])
def test_what_is_not_read_of_a_long_prompt_is_said(kind: str, tiny_image: TinyImage, tmp_path: Path) -> None:
    """Without the words that are named it is the same picture; without one word more it is another."""
    words = ["red", "cat", "blue", "dog", "green", "tree", "star", "sea"] * 10
    loaded = Loaded(kind, tiny_image(kind), tmp_path, {})

    def make(prompt: str) -> tuple[bytes, list[str]]:
        made = loaded.make(prompt=prompt, max_sequence_length=32)
        notes = [event.text for event in made.events if isinstance(event, Note)]
        assert made.artefacts[0].info.get("notes", []) == notes
        assert all(event.usual for event in made.events if isinstance(event, Note)), "forecasts learn from it"
        if kind in ("flux", "sd3"):  # what T5 reads: CLIP beside it reads more
            states = loaded.pipeline._model.pipeline("text")._get_t5_prompt_embeds(prompt, max_sequence_length=32)
            return states.numpy().tobytes(), notes
        return made.pictures[0].tobytes(), notes

    try:
        whole, [note] = make(" ".join(words))
        reads, _, lost = note.partition(" Not read: ")
        assert reads == "The prompt is longer than the 32 tokens that are read."
        kept = len(words) - len(unread(loaded.pipeline._model.pipeline("text"), " ".join(words), 32).split())
        assert lost.strip("'…").startswith(" ".join(words[kept : kept + 5]))
        assert 20 <= kept <= 32
        assert make(" ".join(words[:kept])) == (whole, [])
        assert make(" ".join(words[: kept - 1]))[0] != whole
    finally:
        loaded.pipeline.unload()


def test_a_long_prompt_of_clip_is_read_to_its_end(tiny_image: TinyImage, tmp_path: Path) -> None:
    loaded = Loaded("sd", tiny_image("sd"), tmp_path, {})
    made = loaded.make(prompt="red cat " * 60)
    loaded.pipeline.unload()
    assert not [event for event in made.events if isinstance(event, Note)]
