"""What a film takes, by arithmetic and probes: shapes of the published models, plans, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import framepack_models
import pytest
from shape_numbers import counted

from studio.catalogue import builtin_file, read_models
from studio.memory.activations import made_by, measure, resolve
from studio.memory.footprint import network_bytes
from studio.memory.plan_machine import card_rates
from studio.memory.plan_search import CONTEXT_BYTES
from studio.memory.planner import plan
from studio.plugin import GIB, BadRequest, Budget, Footprint, ModelSpec, Stage
from studio_pipelines.video_framepack.catalogued import (
    BUCKETS_640,
    TEACACHE,
    settings_of,
    shape_names,
    shape_of,
    size_for,
)
from studio_pipelines.video_framepack.footprint import NETWORKS, footprint, tokens_of
from studio_pipelines.video_framepack.request import FilmRequest, StepCache
from studio_pipelines.video_framepack.sections import Sampling, Schedule

SPECS = {spec.id: spec for spec in read_models(builtin_file()) if spec.id.startswith("framepack")}
NAMES = ("framepack-i2v-hy", "framepack-f1-i2v-hy")


def asked(
    sections: int = 50, width: int = 640, height: int = 608, *, sampling: Sampling = "forward", **more: Any
) -> FilmRequest:
    return FilmRequest(
        Schedule(sections, sampling),
        width,
        height,
        ("a cat",) * sections,
        seed=1,
        guidance_scale=10.0,
        **{"steps": 25, **more},
    )


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where what probes found is kept, for all tests here."""
    return tmp_path_factory.mktemp("probes")


@pytest.fixture(scope="module")
def minute(known: Path) -> Footprint:
    return resolve(footprint(SPECS["framepack-f1-i2v-hy"], None, asked()), known, here=True)


def stages(found: Footprint) -> Mapping[str, Stage]:
    return {stage.name: stage for stage in found.stages}


@pytest.mark.parametrize("name", shape_names())
def test_a_shape_is_that_of_its_class(name: str) -> None:
    shape = shape_of(name)
    params, blocks = counted(shape.class_name, shape.config, streams=shape.streams)
    assert (shape.params, shape.blocks) == (params, blocks)


def test_published_sizes() -> None:
    """Parameters that the makers name, in billions."""
    known = {"framepack": 12.87, "llava-llama-3-8b": 7.5, "clip-l": 0.123, "siglip-so400m": 0.428}
    for name, billions in known.items():
        assert shape_of(name).params / 1e9 == pytest.approx(billions, rel=0.005), name


def test_a_minute_is_planned_as_sections_of_which_each_takes_the_same() -> None:
    long, short = (footprint(SPECS["framepack-f1-i2v-hy"], None, asked(count)) for count in (50, 2))
    assert stages(long)["denoise"].rounds == stages(long)["decode"].rounds == 50
    for name, stage in stages(long).items():
        other = stages(short)[name]
        assert stage.model_copy(update={"rounds": 1}) == other.model_copy(update={"rounds": 1})


def test_tokens_are_those_of_the_transformer() -> None:
    """18,400 at 640 × 640, and as many as the packed history of the class itself gives at a small size."""
    import torch
    from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoHistoryPatchEmbed

    assert tokens_of(asked(width=640, height=640)) == 18_400
    embed = HunyuanVideoHistoryPatchEmbed(4, 8)
    for width, height in ((96, 160), (80, 112), (32, 32)):
        latents = [torch.zeros(1, 4, count, height // 8, width // 8) for count in (2, 2, 16)]
        packed = sum(part.shape[1] for part in embed(*latents))
        assert tokens_of(asked(width=width, height=height)) == packed + 9 * (height // 16) * (width // 16)


def test_the_peak_of_denoising_is_what_was_measured_on_a_card(known: Path) -> None:
    """All resident at 88 × 68 latents: 27.8 GiB reserved on an H100 for the transformer alone, torch's part of it."""
    found = resolve(footprint(SPECS["framepack-f1-i2v-hy"], None, asked(1, 704, 544)), known, here=True)
    made = plan(found, Budget(vram_bytes=78 * GIB, ram_bytes=200 * GIB, rates=card_rates(80 * GIB, (9, 0))), "quality")
    held = made.settings["networks"]["transformer"]
    assert (held["precision"], held["resident"]) == ("bf16", 62)
    denoise = {phase.name: phase for phase in made.phases}["denoise"]
    assert not made.settings["free_after_use"]
    others = sum(network_bytes(network, "bf16") for network in found.networks if network.name != "transformer")
    assert (denoise.vram_bytes - CONTEXT_BYTES - others) / GIB == pytest.approx(27.8, rel=0.15)


def test_decoding_takes_what_it_took_on_a_card(known: Path) -> None:
    """15.2 GiB whole, 2.6 in tiles of 256 pixels and 0.8 in tiles of 128 at 640 × 640, all that is held included."""
    found = stages(resolve(footprint(SPECS["framepack-f1-i2v-hy"], None, asked(2, 640, 640)), known, here=True))[
        "decode"
    ]
    sizes = {variant.name: (variant.activation_bytes + found.held_bytes) / GIB for variant in found.variants}
    assert sizes["whole"] == pytest.approx(15.2, rel=0.05)
    assert 2.6 <= sizes["tiles of 256"] <= 2.6 * 1.2
    assert 0.8 <= sizes["tiles of 128"] <= 0.8 * 1.5


@pytest.mark.parametrize(("vram", "ram"), [(6, 16), (6, 32), (8, 16), (12, 32), (16, 32), (24, 64)])
def test_a_minute_fits_small_machines(minute: Footprint, vram: int, ram: int) -> None:
    """A machine keeps half a GiB of the card for the display, and of its memory a quarter or 5 GiB and 1 for itself."""
    budget = Budget(
        vram_bytes=vram * GIB - GIB // 2, ram_bytes=(ram - min(5, ram // 4) - 1) * GIB, rates=card_rates(vram * GIB)
    )
    made = plan(minute, budget, "balanced")
    assert made.peak_vram_bytes <= budget.vram_bytes
    assert made.peak_ram_bytes <= budget.ram_bytes
    assert made.settings["networks"]["transformer"]["blocks"] == 62
    precise = {16: ("nf4",), 32: ("int8", "fp8"), 64: ("bf16",)}[ram]
    assert made.settings["networks"]["transformer"]["precision"] in precise


def test_a_step_cache_is_counted(known: Path) -> None:
    """What a cache holds lies on the card, for each prompt that a step is computed for."""
    sizes = {}
    choices: tuple[tuple[StepCache, float], ...] = (("off", 1), ("balanced", 1), ("balanced", 2))
    for cache, guidance in choices:
        request = asked(2, step_cache=cache, true_cfg_scale=guidance)
        sizes[cache, guidance] = stages(footprint(SPECS["framepack-f1-i2v-hy"], None, request))["denoise"]
    one = 2 * 2 * tokens_of(asked()) * 3072
    assert sizes["balanced", 1].held_bytes - sizes["off", 1].held_bytes == one
    assert sizes["balanced", 2].held_bytes - sizes["off", 1].held_bytes >= 2 * one
    assert (sizes["off", 1].calls, sizes["balanced", 1].calls, sizes["balanced", 2].calls) == (25, 18, 36)
    few = [
        footprint(SPECS["framepack-f1-i2v-hy"], None, asked(2, steps=steps, step_cache="fast")) for steps in (1, 2, 3)
    ]
    assert [stages(one)["denoise"].calls for one in few] == [1, 2, 2], "the first and the last are always computed"


def test_a_step_cache_makes_the_forecast_shorter(known: Path) -> None:
    """By a third and more of the denoising: FramePack's README has 1.5 s instead of 2.5 s a frame."""
    budget = Budget(vram_bytes=23 * GIB, ram_bytes=58 * GIB, rates=card_rates(24 * GIB, (8, 9)))
    found = {}
    for cache in ("off", "balanced", "fast"):
        whole = footprint(SPECS["framepack-f1-i2v-hy"], None, asked(2, step_cache=cache))
        made = plan(resolve(whole, known, here=True), budget, "quality")
        found[cache] = next(
            row.seconds or 0.0 for row in made.rows if row.phase == "denoise" and row.what == "the whole stage"
        )
    assert found["fast"] == pytest.approx(0.6 * found["off"], rel=0.05)
    assert found["fast"] < found["balanced"] < 0.75 * found["off"]


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_sound(name: str) -> None:
    spec = SPECS[name]
    made = settings_of(spec)
    assert set(made.networks) == set(NETWORKS) == set(spec.components)
    for role, component in spec.components.items():
        shape = shape_of(made.networks[role])
        assert (component.class_name, component.params) == (shape.class_name, shape.params)
    assert made.buckets == BUCKETS_640
    assert made.cache_rescale == TEACACHE
    assert (made.steps, made.guidance, made.sampler, made.fps) == (25, 10, "unipc", 30)
    assert made.sampling == ("inverted" if name == "framepack-i2v-hy" else "forward")
    assert spec.source is not None
    assert {*NETWORKS, "tokenizer", "tokenizer_2", "feature_extractor", "scheduler"} <= set(spec.source.files)


def test_the_size_is_the_bucket_of_the_same_shape() -> None:
    made = settings_of(SPECS["framepack-f1-i2v-hy"])
    assert size_for(1920, 1080, made) == (832, 480)
    assert size_for(1080, 1920, made) == (480, 832)
    assert size_for(500, 500, made) in ((640, 608), (608, 640))


def test_a_model_without_shapes_is_planned_by_its_files(tiny_framepack: Path) -> None:
    spec = ModelSpec.model_validate(framepack_models.catalogue_entry(tiny_framepack))
    request = asked(2, framepack_models.SIZE, framepack_models.SIZE)
    files = {path.name: path for path in tiny_framepack.iterdir() if path.is_dir()}
    found = footprint(spec, files, request)
    assert [network.name for network in found.networks] == list(NETWORKS)
    with pytest.raises(BadRequest, match="is not known before it is here"):
        footprint(spec, None, request)


def test_probes_build(tiny_framepack: Path) -> None:
    """Every probe of a tiny model can be made and run without content, and gives something."""
    spec = ModelSpec.model_validate(framepack_models.catalogue_entry(tiny_framepack))
    files = {path.name: path for path in tiny_framepack.iterdir() if path.is_dir()}
    found = footprint(spec, files, asked(2, 160, 96))
    probes = [probe for stage in found.stages for variant in stage.variants for probe in variant.probes]
    assert {probe.make.rpartition(":")[2] for probe in probes} == {"block", "decode", "encode"}
    assert all(measure(made_by(probe)).peak_bytes > 0 for probe in probes)
