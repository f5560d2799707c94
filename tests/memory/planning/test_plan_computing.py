"""Cards without bf16: what is computed in which arithmetic, what that costs, and that the plan says it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from planning_models import AT_1K, MODELS, budget

from studio.catalogue import Catalogue
from studio.hardware import Gpu, Hardware
from studio.memory.calibration import rates_id
from studio.memory.plan_machine import budget_of, card_rates, half_of, machines_of
from studio.memory.plan_search import WIDE_SHARE, Machine, compute_s, placements
from studio.memory.planner import plan
from studio.plans import Footprint, Network, Plan, Rates, Variant
from studio.registry import Registry
from studio.units import GIB, MIB
from studio_pipelines.image_diffusion.catalogued import settings_of

TURING = card_rates(8 * GIB, (7, 5), "NVIDIA GeForce RTX 2070")
SMALL_TURING = card_rates(8 * GIB, (7, 5), "NVIDIA GeForce GTX 1660")
AMPERE = card_rates(8 * GIB, (8, 6))
SDXL = MODELS["sdxl"]


def safe(footprint: Footprint, *names: str) -> Footprint:
    """The same with these networks known to be right in fp16."""
    networks = tuple(one.model_copy(update={"fp16": one.name in names}) for one in footprint.networks)
    return footprint.model_copy(update={"networks": networks})


def arithmetic(made: Plan) -> dict[str, str | None]:
    return {name: held.get("computing") for name, held in made.settings["networks"].items()}


@pytest.mark.parametrize(
    ("name", "capability", "half"),
    [
        ("NVIDIA GeForce RTX 3060", (8, 6), "bf16"),
        ("NVIDIA A100-SXM4-40GB", (8, 0), "bf16"),
        ("NVIDIA GeForce RTX 2080 Ti", (7, 5), "fp16"),
        ("Tesla T4", (7, 5), "fp16"),
        ("Tesla V100-SXM2-16GB", (7, 0), "fp16"),
        ("Quadro RTX 4000", (7, 5), "fp16"),
        ("NVIDIA GeForce GTX 1650 SUPER", (7, 5), "none"),
        ("NVIDIA GeForce MX450", (7, 5), "none"),
        ("NVIDIA T1000 8GB", (7, 5), "none"),
        ("NVIDIA GeForce GTX 1080", (6, 1), "none"),
    ],
)
def test_which_16_bits_a_card_has(name: str, capability: tuple[int, int], half: str) -> None:
    assert half_of(name, capability) == half
    rates = card_rates(8 * GIB, capability, name)
    assert rates.half == half
    assert (rates.wide_flops_per_s is None) == (half == "bf16")
    assert rates.wide_flops_per_s is None or rates.wide_flops_per_s <= rates.flops_per_s


def test_each_network_is_computed_in_what_it_is_right_in() -> None:
    footprint = safe(SDXL, "unet", "text_encoder_2")
    made = plan(footprint, budget(8, rates=TURING))
    assert arithmetic(made) == {"unet": "fp16", "text_encoder_2": "fp16", "vae": "fp32"}
    small = plan(footprint, budget(8, rates=SMALL_TURING))
    assert set(arithmetic(small).values()) == {"fp32"}
    assert set(arithmetic(plan(footprint, budget(8, rates=AMPERE))).values()) == {None}
    assert set(arithmetic(plan(footprint, budget(0))).values()) == {None}, "a processor's arithmetic is another matter"


def test_weights_keep_the_16_bits_of_their_files_where_32_do_not_fit() -> None:
    made = plan(AT_1K, budget(12, 32, rates=TURING))
    held = made.settings["networks"]["transformer"]
    assert held["computing"] == "fp32" and held["precision"] in ("bf16", "int8")
    roomy = plan(AT_1K, budget(72, 128, rates=TURING), "speed")
    assert roomy.settings["networks"]["transformer"]["precision"] == "fp32"
    bf16 = next(one for one in placements(wide(), True, False) if one.precision == "bf16" and not one.streamed)
    fp32 = next(one for one in placements(wide(), True, False) if one.precision == "fp32" and not one.streamed)
    assert bf16.resident_bytes < 0.6 * fp32.resident_bytes
    assert bf16.work_bytes > 0 == fp32.work_bytes, "a block is unpacked before it is computed with"
    disk = [one for one in placements(wide(), True, False) if one.disk_bytes]
    assert "bf16" in {one.precision for one in disk}, "what is read in every pass is as the files are"


def wide() -> Network:
    [transformer] = [one for one in AT_1K.networks if one.name == "transformer"]
    return transformer.model_copy(update={"stored": "fp32", "filed": "bf16"})


def test_32_bits_cost_their_time_and_their_activations() -> None:
    variant = Variant(flops=1e13, activation_bytes=256 * MIB)
    way = next(one for one in placements(wide(), True, False) if one.precision == "fp32" and not one.streamed)
    half = next(one for one in placements(AT_1K.networks[1], True, False) if not one.streamed)
    machine = Machine(80 * GIB, 80 * GIB, TURING)
    slow, quick = compute_s(way, variant, machine), compute_s(half, variant, machine)
    assert slow == pytest.approx(1e13 / (TURING.wide_flops_per_s or 0)) and slow > 2 * quick
    unmeasured = replace(machine, rates=TURING.model_copy(update={"wide_flops_per_s": None}))
    assert compute_s(way, variant, unmeasured) == pytest.approx(1e13 / (WIDE_SHARE * TURING.flops_per_s))
    assert compute_s(way, variant, replace(machine, rates=AMPERE)) == pytest.approx(1e13 / AMPERE.flops_per_s)

    def activations(made: Plan) -> int:
        return next(row.size_bytes for row in made.rows if row.phase == "denoise" and row.what == "activations")

    turing, ampere = (plan(AT_1K, budget(24, 64, rates=rates)) for rates in (TURING, AMPERE))
    assert activations(turing) == 2 * activations(ampere)
    assert (turing.seconds or 0) > (ampere.seconds or 0)


def test_a_plan_says_it() -> None:
    made = plan(safe(SDXL, "unet", "text_encoder_2"), budget(8, rates=TURING))
    assert "this card has no bf16: computed are text_encoder_2, unet in fp16 and vae in fp32" in made.told
    words = {row.what: row.why for row in made.rows if row.where == "card" and row.precision}
    assert words["unet"] == "as in its files; computed in fp16, for this card has no bf16"
    assert words["vae"] == "as it is computed; computed in fp32, for this card has no bf16"
    [load] = [row for row in made.rows if row.phase == "load" and row.what == "vae"]
    assert (load.precision, load.why) == ("bf16", "read from the disk, bf16 to fp32")
    wide = SDXL.model_copy(update={"networks": tuple(n.model_copy(update={"stored": "fp32"}) for n in SDXL.networks)})
    assert not any("bf16" in sentence for sentence in plan(wide, budget(24, rates=TURING)).told), "so on any card"
    assert not any("bf16" in sentence for sentence in plan(SDXL, budget(8, rates=AMPERE)).told)


def test_this_machines_card_decides_also_where_its_rates_were_measured_before() -> None:
    card = {"total_bytes": 6 * GIB, "free_bytes": 5 * GIB, "compute_capability": (7, 5), "driver": "1"}
    gpu = Gpu(name="NVIDIA GeForce RTX 2060", **card)
    hardware = Hardware(
        system="x", processor="x", cores=8, ram_total_bytes=32 * GIB, ram_free_bytes=28 * GIB, disk_free_bytes=GIB,
        gpus=(gpu,),
    )  # fmt: skip
    old = Rates(flops_per_s=2e13, bus_bytes_per_s=1e10, device_bytes_per_s=3e11, disk_bytes_per_s=1e9, measured=True)
    for measured in ({}, {machines_of(hardware)["cuda"]: old}):
        rates = budget_of(hardware, measured=measured).rates
        assert rates is not None and rates.half == "fp16" and rates.wide_flops_per_s
        made = plan(safe(SDXL, "unet"), budget_of(hardware, measured=measured))
        assert arithmetic(made)["unet"] == "fp16" and arithmetic(made)["vae"] == "fp32"


def test_measurements_of_cards_with_bf16_keep_their_name() -> None:
    assert rates_id(AMPERE) == rates_id(AMPERE.model_copy(update={"wide_flops_per_s": 1e12}))
    assert rates_id(TURING) != rates_id(TURING.model_copy(update={"wide_flops_per_s": 1e12}))


def test_the_catalogue_says_what_is_right_in_fp16() -> None:
    specs = Catalogue(Registry(), Path("/nonexistent")).specs
    for name in ("sdxl", "stable-diffusion-1.5"):
        settings = settings_of(specs[name])
        assert "unet" in settings.fp16 and "vae" not in settings.fp16
    assert settings_of(specs["flux.1-schnell"]).fp16 == ()
