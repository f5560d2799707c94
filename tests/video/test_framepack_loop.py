"""The loop beyond the bare pipeline: sections, states, prompts, seeds, step caches, cancelling, tiles."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from framepack_loop import SEED, SIZE, Undecoded, asked, film, frames_of, latents_of, loaded, moving, picture
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.plugin import BadRequest, BadWeights, Cancelled
from studio_pipelines.video_framepack.assemble import Assembled
from studio_pipelines.video_framepack.encoding import stream
from studio_pipelines.video_framepack.request import fitted
from studio_pipelines.video_framepack.sampling import Loop, Section, State
from studio_pipelines.video_framepack.sections import Sampling, Schedule
from studio_pipelines.video_framepack.stepcache import StepCache

both = pytest.mark.parametrize("sampling", ["forward", "inverted"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return moving(tmp_path_factory.mktemp("framepack"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Assembled]:
    made = loaded(folder, {})
    yield made
    made.close()


# -- sections ----------------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None, database=None)
@given(sections=st.integers(1, 60), sampling=st.sampled_from(["forward", "inverted"]), window=st.integers(2, 12))
def test_sections_settle_each_frame_once_and_in_order(sections: int, sampling: Sampling, window: int) -> None:
    schedule = Schedule(sections, sampling, window)
    assert [frame for section in schedule.in_time() for frame in schedule.settled(section)] == list(
        range(schedule.frames)
    )
    for section in range(sections):
        waiting, settled = schedule.waiting(section), schedule.settled(section)
        assert len(waiting) == (0 if schedule.is_last(section) else schedule.overlap)
        latents = schedule.decoded(section)
        frames = (latents - 1) * schedule.factor + 1
        assert len(settled) + len(waiting) == (frames if section else len(settled) + len(waiting))


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2, 3, 4, 7])
def test_the_pieces_of_a_film_show_the_sections_that_are_made(sections: int, sampling: Sampling) -> None:
    schedule = Schedule(sections, sampling)
    pieces: dict[int, tuple[int, int]] = {}
    for section in range(sections):
        for number, frames in ((section, schedule.settled(section)), (section + 1, schedule.waiting(section))):
            if frames:
                pieces[schedule.place(number)] = schedule.shown(frames)
        seen = {number for first, last in pieces.values() for number in range(first, last + 1)}
        assert seen == {schedule.place(number) + 1 for number in range(section + 1)}


def test_a_minute_is_fifty_sections() -> None:
    minute = Schedule.of(60, 30, "inverted")
    assert (minute.sections, minute.frames) == (50, 1801)
    assert minute.paddings() == [3] + [2] * 47 + [1, 0]
    assert [Schedule.of(seconds, 30, "forward").sections for seconds in (0.1, 1.7, 1.9, 6, 120)] == [1, 1, 2, 5, 100]
    assert Schedule(4, "inverted").paddings() == [3, 2, 1, 0]


# -- states ------------------------------------------------------------------------------------------------------


def size_of(state: State) -> int:
    """Bytes that the tensors of a state hold, with all that lies behind a view."""
    return sum(tensor.untyped_storage().nbytes() for tensor in state.tensors.values())


@both
def test_the_state_does_not_grow(model: Assembled, sampling: Sampling) -> None:
    made = film(Undecoded(model, asked(sampling, 7, steps=1)))
    sizes = [size_of(section.state) for section in made]
    assert len(set(sizes[:6])) == 1, "after each section but the last as much as after the first"
    assert sizes[6] < sizes[5]
    # The first frame, 19 latents of 4 channels, and 33 frames, all in fp32.
    assert sizes[5] == 4 * (20 * 4 * (SIZE // 8) ** 2 + 33 * 3 * SIZE**2)


@both
def test_a_film_goes_on_from_any_state(model: Assembled, sampling: Sampling, tmp_path: Path) -> None:
    """Written to a file and read by another loop, which has encoded anew."""
    from safetensors.torch import load_file, save_file

    request = asked(sampling, 4, steps=1, schedule=Schedule(4, sampling, window=4))
    whole = film(Loop(model, request))
    for section in (1, 3):
        path = tmp_path / f"{section}.safetensors"
        save_file(whole[section - 1].state.tensors, path)
        rest = film(Loop(model, request), State(section, load_file(path)))
        assert np.array_equal(
            frames_of([*whole[:section], *rest], request.schedule), frames_of(whole, request.schedule)
        )


@both
def test_a_state_is_found_again_from_latents(model: Assembled, sampling: Sampling) -> None:
    request = asked(sampling, 5, steps=1)
    whole = film(Loop(model, request))
    latents = [section.latents for section in whole]
    for section in (1, 4, 5):
        for known in (latents[:section], latents[max(0, section - 3) : section]):
            found = Loop(model, request).resume(section, known)
            wanted = whole[section - 1].state
            assert found.section == section
            assert found.tensors.keys() == wanted.tensors.keys()
            assert all(torch.equal(found.tensors[name], wanted.tensors[name]) for name in wanted.tensors)


def test_latents_that_were_kept_are_only_decoded(model: Assembled) -> None:
    kept: list[torch.Tensor] = []
    loop = Loop(model, asked("forward", 2), keep=lambda section, latents: kept.append(latents))
    state = loop.begin()
    first = loop.section(state)
    steps: list[int] = []
    again = Loop(model, loop.request, step=lambda section, done, total: steps.append(done)).section(
        state, latents=kept[0].cpu()
    )
    assert steps == []
    assert np.array_equal(again.settled, first.settled)
    assert all(torch.equal(again.state.tensors[name], tensor) for name, tensor in first.state.tensors.items())


# -- what is asked -----------------------------------------------------------------------------------------------


@both
def test_each_section_has_its_own_prompt(model: Assembled, sampling: Sampling) -> None:
    """Prompts are in the order of the film: another one for its second part leaves what was made before it alone."""
    one, other = asked(sampling, 3), asked(sampling, 3, prompts=("a red cat", "a dog", "a red cat"))
    same, changed = film(Undecoded(model, one)), film(Undecoded(model, other))
    assert torch.equal(same[0].latents, changed[0].latents)
    assert not torch.equal(same[1].latents, changed[1].latents)


def test_each_distinct_prompt_is_encoded_once(model: Assembled, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    encoder: Any = model.networks["text_encoder"]
    inner = encoder.forward
    monkeypatch.setattr(encoder, "forward", lambda *args, **kwargs: (calls.append(1), inner(*args, **kwargs))[1])
    loop = Undecoded(
        model, asked("forward", 4, prompts=("a", "b", "a", "b"), negative_prompt="c", true_cfg_scale=2.0, steps=1)
    )
    film(loop)
    assert len(calls) == 3


def test_what_an_earlier_film_said_is_not_encoded_again(folder: Path) -> None:
    """With another seed and one new prompt: the film is the one that a fresh model makes."""
    first = asked("forward", 2, prompts=("a red cat", "a dog"), steps=1)
    second = replace(asked("forward", 2, prompts=("a dog", "a boat"), steps=1), seed=SEED + 1)
    made, fresh, calls = loaded(folder, {}), loaded(folder, {}), list[str]()
    for name in ("text_encoder", "text_encoder_2"):
        made.networks[name].register_forward_pre_hook(lambda *_, name=name: calls.append(name))
    film(Undecoded(made, first))
    assert (calls.count("text_encoder"), calls.count("text_encoder_2")) == (2, 2)
    loop = Undecoded(made, second)
    again = film(loop)
    assert loop.encode().remembered and not Undecoded(fresh, second).encode().remembered
    assert (calls.count("text_encoder"), calls.count("text_encoder_2")) == (3, 3)
    for one, other in zip(again, film(Undecoded(fresh, second)), strict=True):
        assert torch.equal(one.latents, other.latents)
    made.close()
    fresh.close()


def test_the_random_numbers_of_a_section_are_its_own(model: Assembled) -> None:
    drawn = {
        tuple(torch.randn(4, generator=stream(seed, part)).tolist()) for seed in (1, 2) for part in (0, 1, "image")
    }
    assert len(drawn) == 6
    loop = Undecoded(model, asked("forward", 3))
    state = loop.begin()
    first, other = loop.section(state), loop.section(state, seed=5)
    assert not torch.equal(first.latents, other.latents)
    assert torch.equal(loop.section(state).latents, first.latents)


def test_pictures_are_cut_at_their_middle() -> None:
    wide = picture(size=64).resize((128, 64))
    assert fitted(wide, 32, 32).size == (32, 32)
    assert fitted(picture(), SIZE, SIZE).tobytes() == picture().tobytes()


def test_bad_requests_are_one_line() -> None:
    for more, why in (
        ({"prompts": ("a", "b")}, "2 prompts for 3 sections"),
        ({"width": 40}, "multiples of 16"),
        ({"last_image": picture()}, "A last picture needs a model that makes the end first"),
    ):
        with pytest.raises(BadRequest, match=why) as caught:
            asked("forward", 3, **more)
        assert "\n" not in str(caught.value) and caught.value.hint


def test_cancelling_stops_between_two_steps(model: Assembled) -> None:
    done: list[tuple[int, int, int]] = []

    def check() -> None:
        if len(done) == 3:
            raise Cancelled

    loop = Loop(model, asked("forward", 2, steps=5), check=check, step=lambda *told: done.append(told))
    with pytest.raises(Cancelled):
        film(loop)
    assert done == [(0, 0, 5), (0, 1, 5), (0, 2, 5)]


def test_files_of_another_model_are_refused(folder: Path) -> None:
    with pytest.raises(BadWeights, match="4 × 4 pixels"):
        loaded(folder, {}, factor=4)


# -- the step cache ----------------------------------------------------------------------------------------------


def cached(model: Assembled, folder: Path, threshold: float, **more: Any) -> list[Section]:
    """A film with a cache of this threshold."""
    made = loaded(folder, {}, step_cache={"balanced": threshold, "fast": 2 * threshold})
    try:
        return film(Undecoded(made, asked("forward", 2, steps=6, step_cache="balanced", **more)))
    finally:
        made.close()


def test_a_cache_that_passes_nothing_over_changes_nothing(model: Assembled, folder: Path) -> None:
    plain = film(Undecoded(model, asked("forward", 2, steps=6)))
    found = cached(model, folder, 1e-9)
    assert [section.skipped for section in found] == [(), ()]
    assert all(torch.equal(one.latents, other.latents) for one, other in zip(plain, found, strict=True))


def test_a_cache_never_passes_over_the_first_and_last_step(model: Assembled, folder: Path) -> None:
    plain, found = film(Undecoded(model, asked("forward", 2, steps=6))), cached(model, folder, 1e9)
    assert [section.skipped for section in found] == [(1, 2, 3, 4)] * 2, "each section begins anew"
    for one, other in zip(plain, found, strict=True):
        assert not torch.equal(one.latents, other.latents)
        assert torch.corrcoef(torch.stack([one.latents.flatten(), other.latents.flatten()]))[0, 1] > 0.9


def test_steps_that_are_passed_over_call_one_block(model: Assembled, folder: Path) -> None:
    made = loaded(folder, {}, step_cache={"balanced": 1e9, "fast": 1e9})
    calls: dict[str, int] = {}
    for name, module in made.transformer.named_modules():
        if name.rpartition(".")[0] in ("transformer_blocks", "single_transformer_blocks"):
            module.register_forward_hook(lambda *_, name=name: calls.update({name: calls.get(name, 0) + 1}))
    film(Undecoded(made, asked("forward", 1, steps=6, step_cache="fast")))
    made.close()
    assert calls == {
        "transformer_blocks.0": 6, "transformer_blocks.1": 2, "single_transformer_blocks.0": 2,
        "single_transformer_blocks.1": 2,
    }  # fmt: skip


def test_a_cache_streams_and_guides(model: Assembled, folder: Path) -> None:
    """With blocks from the disk the same steps are passed over, and the film is the same; each prompt has a cache."""
    plan = {
        "networks": {"transformer": {"precision": "fp32", "blocks": 4, "resident": 1, "disk_bytes": 1}},
        "free_after_use": True,
    }
    request = asked("forward", 2, steps=6, step_cache="fast", negative_prompt="a dog", true_cfg_scale=2.0)
    limits = {"step_cache": {"balanced": 0.1, "fast": 1.0}}
    streamed, resident = loaded(folder, plan, **limits), loaded(folder, {}, **limits)
    try:
        one, other = film(Undecoded(streamed, request)), film(Undecoded(resident, request))
    finally:
        streamed.close()
        resident.close()
    assert [section.skipped for section in one] == [section.skipped for section in other]
    assert all(0 < len(section.skipped) < 4 for section in one), "some, but not all that may be"
    assert torch.equal(latents_of(one, request.schedule), latents_of(other, request.schedule))


def test_change_adds_up_until_a_step_is_computed() -> None:
    cache = StepCache(steps=6, threshold=0.25)
    found = []
    for number in range(6):
        read = torch.full((1, 2, 2), 1.1**number)  # a tenth more each time
        skips, change = cache.decide(read)
        cache.note(read, torch.zeros(1), change, skipped=skips)
        found.append(skips)
    assert found == [False, True, True, False, True, False]
    assert cache.skipped == [1, 2, 4]


# -- prompts without padding, as on a card --------------------------------------------------------------------------


@both
def test_prompts_cut_to_their_length_say_the_same_as_padded_ones(
    model: Assembled, folder: Path, sampling: Sampling
) -> None:
    """Attention that sees no padding computes the same; other kernels round otherwise."""
    request = asked(sampling, 2, negative_prompt="a dog on the sea", true_cfg_scale=2.0)
    made = loaded(folder, {})
    made.crops_words = True
    masks: list[Any] = []
    for block in (*made.transformer.transformer_blocks, *made.transformer.single_transformer_blocks):
        block.register_forward_pre_hook(lambda _, given: masks.append(given[3]))
    loop = Undecoded(made, request)
    conditions = loop.encode()
    assert conditions.negative is not None
    lengths = {words.embeds.shape[1] for words in (*conditions.words.values(), conditions.negative)}
    assert max(lengths) < 64 and len(lengths) == 2
    cropped, padded = film(loop), film(Undecoded(model, request))
    made.close()
    assert masks and all(mask is None for mask in masks)
    for one, other in zip(cropped, padded, strict=True):
        torch.testing.assert_close(one.latents, other.latents, rtol=1e-3, atol=1e-3)


# -- decoding ----------------------------------------------------------------------------------------------------


def test_decoding_in_tiles_and_out_of_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A decoder that runs out of memory works in tiles; the latents are not made again."""
    made = loaded(folder, {})
    steps: list[int] = []
    loop = Loop(
        made, asked("forward", 1, width=160, height=160, image=picture(size=160), schedule=Schedule(1, "forward", 3)),
        step=lambda section, done, total: steps.append(done),
    )  # fmt: skip
    inner, failed = made.vae.decoder.forward, []

    def forward(latents: torch.Tensor) -> torch.Tensor:
        if latents.shape[-1] > 16:
            failed.append(latents.shape[-1])
            raise torch.OutOfMemoryError("CUDA out of memory. (raised by the test)")
        result: torch.Tensor = inner(latents)
        return result

    monkeypatch.setattr(made.vae.decoder, "forward", forward)
    section = loop.section(loop.begin())
    made.close()
    assert failed and steps == [0, 1, 2]
    assert section.settled.shape == (13, 160, 160, 3)
    assert "vae ran out of memory" in " ".join(made.notes)


def test_a_plan_names_the_tiles(folder: Path) -> None:
    made = loaded(folder, {"variants": {"encode-frame": "whole", "decode": "tiles of 256"}})
    assert made.vae.use_tiling and made.vae.tile_sample_min_height == 256
    assert made.adapt({"variants": {"decode": "whole"}})
    assert not made.vae.use_tiling
    made.close()


def test_on_a_card_without_bf16_the_transformer_is_computed_in_32_bits_and_the_rest_in_fp16(folder: Path) -> None:
    """As a plan for such a card names it; frames stay the same, but for rounding."""
    half = {"precision": "bf16", "blocks": 0, "computing": "fp16"}
    wide = {"precision": "bf16", "blocks": 4, "resident": 1, "computing": "fp32"}
    names = ("text_encoder", "text_encoder_2", "image_encoder", "vae")
    plan = {"networks": {**dict.fromkeys(names, half), "transformer": wide}, "free_after_use": True}
    request, frames = asked("inverted", 2), []
    for held in ({}, plan):
        made = loaded(folder, held)
        try:
            frames.append(frames_of(film(Loop(made, request)), request.schedule).astype(int))
            dtypes = {name: module.dtype for name, module in made.networks.items()}
        finally:
            made.close()
    assert dtypes == {**dict.fromkeys(names, torch.float16), "transformer": torch.float32}
    assert np.abs(frames[0] - frames[1]).max() <= 4
