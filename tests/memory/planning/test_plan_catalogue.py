"""Every model of the catalogue on every common card: within the limits and explained, or what would fit."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from studio.catalogue import Catalogue
from studio.core import Studio
from studio.errors import BadRequest, DoesNotFit
from studio.hardware import VRAM_MARGIN_BYTES, Gpu, Hardware
from studio.memory.activations import resolve
from studio.memory.plan_machine import budget_of, card_rates
from studio.memory.plan_request import TOKEN_S
from studio.pipeline import Plan
from studio.registry import Registry
from studio.units import GIB

ACTIVATIONS = Path(__file__).resolve().parents[3] / ".cache" / "activations"
CARDS = (6, 8, 12, 16, 24)
MODELS = sorted(Catalogue(Registry(), Path("/nonexistent")).specs)


def machine(ram_gib: int = 32, cards: tuple[int, ...] = ()) -> Hardware:
    gpus = tuple(
        Gpu(
            name="card", total_bytes=size * GIB, free_bytes=size * GIB - GIB // 4, compute_capability=(8, 9), driver="1"
        )
        for size in cards
    )
    return Hardware(
        system="x", processor="x", cores=8, ram_total_bytes=ram_gib * GIB, ram_free_bytes=(ram_gib - 4) * GIB,
        disk_free_bytes=GIB, gpus=gpus,
    )  # fmt: skip


@pytest.fixture
def planner(home: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """On a machine of a known size, whatever this one has."""
    monkeypatch.setattr("studio.hardware.probe", lambda folder: machine())
    # What a probe finds depends on the model and the libraries alone; together they take a minute.
    ACTIVATIONS.mkdir(parents=True, exist_ok=True)
    (home / "cache").mkdir()
    (home / "cache" / "activations").symlink_to(ACTIVATIONS, target_is_directory=True)
    monkeypatch.setattr("studio.core.resolve", partial(resolve, here=True))
    return Studio(home, executor="inline")


@pytest.mark.parametrize("model", MODELS)
def test_every_model_on_every_card(planner: Studio, model: str) -> None:
    fitted = False
    with planner as studio:
        for size in CARDS:
            made = studio.forecast(model, vram_bytes=size * GIB, ram_bytes=16 * GIB)
            assert made.imagined
            assert made.rows and all(row.phase and row.what and row.where for row in made.rows)
            assert made.disk_bytes > 0
            if made.fits:
                assert made.peak_vram_bytes <= size * GIB
                assert made.peak_ram_bytes <= 16 * GIB
                assert made.seconds is not None and made.seconds > 0
            else:
                assert "would fit" in made.nearest
                assert made.peak_vram_bytes + made.peak_ram_bytes > 0
            assert made.fits or not fitted, f"{model} fits a smaller card than {size} GB"
            fitted = fitted or made.fits
    assert fitted, f"{model} fits no card up to {CARDS[-1]} GB"


def generate_s(made: Plan) -> float:
    [phase] = [phase for phase in made.phases if phase.name == "generate"]
    assert phase.seconds is not None
    return phase.seconds


# Tokens a second of Llama 3 8B in Q4_K_M by llama-bench (github.com/XiongjieDai/GPU-Benchmarks-on-LLM-Inference).
PUBLISHED = {
    "3070": (8, 448e9, 70.9),
    "4070 Ti": (12, 504e9, 82.2),
    "4080": (16, 717e9, 106.2),
    "4090": (24, 1008e9, 127.7),
}


@pytest.mark.parametrize("card", PUBLISHED)
def test_a_text_model_writes_about_as_fast_as_published(planner: Studio, card: str) -> None:
    size, bandwidth, measured = PUBLISHED[card]
    with planner as studio:
        made = studio.forecast("llama-3.1-8b", vram_bytes=size * GIB, ram_bytes=32 * GIB, context=8192)
    typical = card_rates(size * GIB).device_bytes_per_s
    token_s = (generate_s(made) / 1024 - TOKEN_S) * typical / bandwidth + TOKEN_S  # as on this very card
    assert 1 / token_s == pytest.approx(measured, rel=0.05)


def test_a_tiny_model_waits_for_its_kernels(planner: Studio) -> None:
    with planner as studio:
        made = studio.forecast("starter-text", vram_bytes=24 * GIB, ram_bytes=32 * GIB)
    assert 100 < 1024 / generate_s(made) < 400, "not thousands of tokens a second"


def test_token_embeddings_are_not_read_for_each_token(planner: Studio) -> None:
    """Gemma's are a quarter of a million rows, of which a token reads one."""
    limits = {"vram_bytes": 24 * GIB, "ram_bytes": 32 * GIB}
    with planner as studio:
        few, many = (studio.forecast(model, **limits) for model in ("pixtral-12b", "gemma-3-12b"))
    assert generate_s(many) < 1.5 * generate_s(few)


def test_of_a_card_that_is_smaller_than_what_the_screen_takes_nothing_is_planned(planner: Studio) -> None:
    """It computes at the speed of the processor then, not at that of the card."""
    with planner as studio:
        small, none = (studio.forecast("flux.1-schnell", vram_bytes=size) for size in (GIB // 2, 0))
    assert small == none
    assert (small.device, small.imagined, small.vram_room_bytes) == ("cpu", False, 0)


def test_a_plan_says_what_there_was_and_its_settings_in_words(planner: Studio) -> None:
    with planner as studio:
        text = studio.forecast("qwen3-8b", vram_bytes=6 * GIB, ram_bytes=16 * GIB)
        part = studio.forecast("gemma-3-12b", vram_bytes=6 * GIB, ram_bytes=16 * GIB)
        picture = studio.forecast("sdxl", vram_bytes=6 * GIB, ram_bytes=16 * GIB)
    assert text.told == ("context 8,192 tokens", "KV cache q8_0", "all layers on the card")
    assert part.told[2:] == ("18 of 48 layers on the card", "7 processor threads")
    assert picture.told[0] == "flash attention"
    for made in (text, part, picture):
        assert made.peak_vram_bytes <= made.vram_room_bytes == 6 * GIB - VRAM_MARGIN_BYTES
        assert made.peak_ram_bytes <= made.ram_room_bytes < 16 * GIB


def test_a_refusal_says_what_is_missing_once(planner: Studio) -> None:
    with planner as studio:
        made = studio.forecast("llama-3.1-8b", vram_bytes=8 * GIB, ram_bytes=8 * GIB, context=131_072)
    assert made.nearest.count("would fit") == 1
    assert "What fits now: --context 16384 --kv-cache f16" in made.nearest
    assert "free memory" not in made.nearest, "there is enough of it"
    assert "The least that this needs" not in made.nearest, "it is the same, and said once"


def test_plan_raises_where_forecast_answers(planner: Studio) -> None:
    with planner as studio:
        with pytest.raises(DoesNotFit, match="would fit"):
            studio.plan("mistral-small-3.1-24b", vram_bytes=4 * GIB, ram_bytes=4 * GIB)
        assert studio.plan("starter-text").fits
        assert studio.plan("starter-text", prompt="hello").model == "starter-text"
        with pytest.raises(BadRequest, match="no parameter"):
            studio.plan("starter-text", colour=3)


def test_more_of_the_card_never_refuses(planner: Studio) -> None:
    with planner as studio:
        before: Plan | None = None
        for tenth in range(20, 240, 20):
            made = studio.forecast("qwen3-8b", vram_bytes=tenth * GIB // 10, ram_bytes=8 * GIB)
            assert before is None or made.fits or not before.fits
            before = made


def test_a_budget_is_the_less_of_the_cap_and_what_is_free_minus_a_margin() -> None:
    real = machine(32, (8,))
    free = budget_of(real)
    assert free.vram_bytes == 8 * GIB - GIB // 4 - GIB // 2
    assert free.ram_bytes == 27 * GIB
    assert budget_of(real, vram_cap_bytes=6 * GIB).vram_bytes == 6 * GIB - GIB // 2
    assert budget_of(real, vram_cap_bytes=80 * GIB, ram_cap_bytes=80 * GIB) == free
    assert not free.imagined
    assert free.rates is not None and free.rates.attention == "flash"
    none = budget_of(machine(32))
    assert (none.vram_bytes, none.imagined) == (0, False)


def test_a_card_is_imagined_only_where_there_is_none_and_the_memory_with_it() -> None:
    imagined = budget_of(machine(16), vram_cap_bytes=6 * GIB, ram_cap_bytes=32 * GIB)
    assert imagined.imagined
    assert imagined.vram_bytes == 6 * GIB - GIB // 2
    assert imagined.ram_bytes == (32 - 5 - 1) * GIB  # a desktop, and a margin
    assert budget_of(machine(16), vram_cap_bytes=6 * GIB).ram_bytes == 11 * GIB
    assert not budget_of(machine(16, (8,)), vram_cap_bytes=6 * GIB).imagined
