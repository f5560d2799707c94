"""Which networks stay on the card, what those that leave cost each time, and that every stage holds beside them."""

from __future__ import annotations

from dataclasses import replace

import pytest
from planning_models import AT_16K, H100, MODELS, budget, llm, model

from studio.memory import plan_search as search
from studio.memory.plan_machine import card_rates
from studio.memory.plan_search import Machine
from studio.memory.planner import plan
from studio.plans import Block, Network, Plan
from studio.units import GIB, MIB

UNET = Network(
    name="unet", params=2_567_000_000, blocks=(Block(kind="BasicTransformerBlock", params=34_800_000, count=60),)
)
SMALL, LARGE = llm("text_encoder", 123_000_000, 12), llm("text_encoder", 4_762_000_000, 24)
RATES = card_rates(8 * GIB)


def staying(made: Plan) -> set[str]:
    return {name for name, held in made.settings["networks"].items() if held.get("stays")}


def seconds(made: Plan, name: str) -> float:
    return next(phase.seconds or 0.0 for phase in made.phases if phase.name == name)


def pictures(encoder: Network, whole: int = 4 * GIB) -> Plan:
    return plan(model(UNET, encoder, 6e12, 900 * MIB, calls=60, whole=whole), budget(8, 48, RATES), "quality")


def test_a_text_encoder_stays_that_fits_beside_the_denoiser_and_one_that_does_not_leaves() -> None:
    small, large = pictures(SMALL), pictures(LARGE)
    assert small.settings["free_after_use"] and large.settings["free_after_use"], "the decoder needs the room"
    assert "text_encoder" in staying(small) and "unet" not in staying(small)
    assert "text_encoder" not in staying(large)
    assert any(one.startswith("text_encoder, vae stay on the card for the next request") for one in small.told)
    # What stays is brought once, in loading; what leaves, for each request anew.
    files = 2 * UNET.params / RATES.disk_bytes_per_s
    assert seconds(small, "denoise") > files > seconds(small, "load")
    assert seconds(small, "encode") < 0.1 < seconds(large, "encode")


def test_every_stage_counts_what_stays_beside_it() -> None:
    made = pictures(SMALL)
    bytes_ = {row.what: row.size_bytes for row in made.rows if row.where == "card" and row.precision}
    [denoise] = [row for row in made.rows if row.phase == "denoise" and row.what == "the whole stage"]
    [activations] = [row for row in made.rows if row.phase == "denoise" and row.what == "activations"]
    assert staying(made) == {"text_encoder", "vae"}
    together = sum(bytes_[name] for name in ("text_encoder", "vae", "unet"))
    assert denoise.size_bytes == together + activations.size_bytes + search.overhead(True)
    assert "are networks that stay" in denoise.why
    assert made.peak_vram_bytes <= 8 * GIB


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("prefer", ["speed", "balanced", "quality"])
def test_nothing_that_stays_takes_the_room_of_a_stage(name: str, prefer: str) -> None:
    for vram in (6, 8, 12, 16, 24):
        made = plan(MODELS[name], budget(vram - 0.5, 64, RATES), prefer)  # type: ignore[arg-type]
        assert made.peak_vram_bytes <= (vram - 0.5) * GIB
        assert made.seconds == pytest.approx(sum(row.seconds or 0 for row in made.rows))
        assert not staying(made) or made.settings["free_after_use"]


def test_where_all_stay_a_warm_request_brings_nothing() -> None:
    made = plan(AT_16K, budget(80, rates=H100), "quality")
    assert not made.settings["free_after_use"] and staying(made) == set()
    files = sum(2 * one.params for one in AT_16K.networks) / H100.disk_bytes_per_s
    assert seconds(made, "load") == pytest.approx(files)
    [denoise] = [row for row in made.rows if row.phase == "denoise" and row.what == "the whole stage"]
    assert seconds(made, "denoise") == denoise.seconds


def test_the_first_copy_out_of_memory_counts() -> None:
    """Networks that take turns are wholly in memory: what is resident is copied for each turn, the first one too."""
    [stage] = [one for one in MODELS["framepack-sections"].stages if one.name == "denoise"]
    machine = Machine(80 * GIB, 200 * GIB, H100)
    ways = search.placements(MODELS["framepack-sections"].networks[1], True, True)
    way = next(one for one in ways if one.precision == "bf16" and one.resident == 60 and search.in_memory(one))
    copying = way.resident_bytes / H100.bus_bytes_per_s
    assert search.brings_s(way, stage, machine) == pytest.approx(stage.rounds * copying)
    stays = search.staying(replace(way, variants=stage.variants), [stage], machine)
    assert search.brings_s(stays, stage, machine) == 0
    assert stays.load_s == pytest.approx(search.load_s(way, machine) + copying)
