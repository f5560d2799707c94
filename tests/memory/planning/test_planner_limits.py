"""What holds for every model and budget: within the limits, never worse with more, explained."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planning_models import MODELS, budget

from studio.errors import DoesNotFit
from studio.memory.plan_machine import card_rates
from studio.memory.plan_nearest import nearest_plan
from studio.memory.planner import plan
from studio.pipeline import Block, Budget, Footprint, Network, Plan, Prefer, Stage, Variant
from studio.units import GIB, MIB

PREFER: tuple[Prefer, ...] = ("balanced", "speed", "quality")


@st.composite
def footprints(draw: st.DrawFn) -> Footprint:
    """Any model: up to three networks of all kinds, stages of all lengths."""
    networks, stages = [], []
    for number in range(draw(st.integers(1, 3))):
        sizes = st.integers(MIB, 400 * MIB)
        blocks = tuple(
            Block(kind=str(kind), params=draw(sizes), count=draw(st.integers(1, 70)))
            for kind in range(draw(st.integers(0, 2)))
        )
        rest = draw(st.integers(MIB, 2 * GIB))
        networks.append(
            Network(
                name=str(number), params=rest + sum(block.params * block.count for block in blocks), blocks=blocks,
                stored=draw(st.sampled_from(["fp32", "bf16", "int8", "fp8"])), streams=draw(st.booleans()),
                quantises=draw(st.booleans()), compiles=draw(st.booleans()),
            )
        )  # fmt: skip
        for run in range(draw(st.integers(1, 2))):
            variants = tuple(
                Variant(
                    name=str(each), flops=draw(st.floats(0, 1e15)), activation_bytes=draw(st.integers(0, 4 * GIB)),
                    loss=each / 20,
                )
                for each in range(draw(st.integers(1, 2)))
            )  # fmt: skip
            rounds = draw(st.sampled_from([1, 1, 5]))
            stages.append(
                Stage(
                    name=f"{number}.{run}", network=str(number), calls=draw(st.integers(1, 60)), rounds=rounds,
                    variants=variants, held_bytes=draw(st.integers(0, GIB)), ram_bytes=draw(st.integers(0, GIB)),
                )
            )  # fmt: skip
    return Footprint(networks=tuple(networks), stages=tuple(stages))


def tried(footprint: Footprint, given: Budget, prefer: Prefer) -> Plan | None:
    try:
        return plan(footprint, given, prefer)
    except DoesNotFit as error:
        assert error.what.endswith(".")
        assert error.hint
        return None


@settings(max_examples=150, deadline=None, database=None)
@given(
    footprint=footprints() | st.sampled_from(list(MODELS.values())),
    vram=st.sampled_from([0, 0, 2, 4, 6, 8, 12, 16, 24, 48]), ram=st.integers(2, 80),
    more_vram=st.integers(0, 30), more_ram=st.integers(0, 60), prefer=st.sampled_from(PREFER),
)  # fmt: skip
def test_more_memory_is_never_worse(
    footprint: Footprint, vram: int, ram: int, more_vram: int, more_ram: int, prefer: Prefer
) -> None:
    rates = card_rates(8 * GIB) if vram else None
    small = budget(vram, ram, rates)
    large = budget(vram + more_vram if vram else 0, ram + more_ram, rates)
    fitting, roomier = tried(footprint, small, prefer), tried(footprint, large, prefer)
    for made, given_budget in ((fitting, small), (roomier, large)):
        if made is not None:
            assert made.peak_vram_bytes <= given_budget.vram_bytes
            assert made.peak_ram_bytes <= given_budget.ram_bytes
            assert made.rows and all(row.why for row in made.rows)
    if fitting is not None:
        assert roomier is not None
        if prefer == "speed":
            assert (roomier.seconds or 0) <= (fitting.seconds or 0) * (1 + 1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_real_models_fit_the_cards_that_people_have_or_say_what_would(name: str) -> None:
    fitted = False
    for vram in (6, 8, 12, 16, 24):
        for prefer in PREFER:
            made = tried(MODELS[name], budget(vram - 0.5, 48), prefer)
            assert made is not None or not fitted, f"{name} fits less than {vram} GB but not {vram}"
            fitted = fitted or made is not None
            if made is None:
                near = nearest_plan(lambda larger: plan(MODELS[name], larger), budget(vram - 0.5, 48))
                assert near is not None
                assert near[0].peak_vram_bytes > (vram - 0.5) * GIB
    assert fitted


def test_the_nearest_budget_is_one_that_fits_and_little_less_does_not() -> None:
    def make(wanted: Budget) -> Plan:
        return plan(MODELS["framepack-16k"], wanted)

    for small in (budget(1, 64), budget(6, 2), budget(1, 2), budget(0, 1)):
        with pytest.raises(DoesNotFit):
            make(small)
        found = nearest_plan(make, small)
        assert found is not None
        near, sentence = found
        enough = Budget(
            vram_bytes=max(small.vram_bytes, near.peak_vram_bytes), ram_bytes=max(small.ram_bytes, near.peak_ram_bytes)
        )
        make(enough)
        assert sentence.startswith("It would fit with ")
        grown = {"vram_bytes", "ram_bytes"} - {
            name for name in ("vram_bytes", "ram_bytes") if getattr(enough, name) == getattr(small, name)
        }
        for name in grown:
            with pytest.raises(DoesNotFit):
                make(enough.model_copy(update={name: getattr(enough, name) - GIB}))
