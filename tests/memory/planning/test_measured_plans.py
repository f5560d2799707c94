"""What a job took, as it is watched, and what the next plan makes of it; rates; a real model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from planning_models import AT_4K, CARD, H100, RATES, SUBJECT, budget, flux, known, run

from studio.core import Studio
from studio.errors import DoesNotFit
from studio.events import Artefact, Note, Progress
from studio.hardware import Gpu, Hardware
from studio.memory.calibration import (
    SPARE,
    Calibration,
    KeptRates,
    Run,
    keep_rates,
    read,
    read_rates,
)
from studio.memory.measuring import LEAST_FILE_BYTES, largest_file, measure_rates, read_rate
from studio.memory.plan_machine import budget_of, card_rates, machines_of
from studio.memory.plan_measured import Corrector, Drawn, held, proven
from studio.memory.planner import plan
from studio.memory.watching import Clock, run_of, stages_of
from studio.pipeline import Budget, Footprint, Phase, Plan, Rates
from studio.units import GIB, MIB
from toolbox import Cli

# -- what a job took ---------------------------------------------------------------------------------------------


def told(*events: tuple[float, str, float, float], end: float) -> dict[str, float]:
    clock = Clock()
    start = clock._mark
    for at, phase, done, total in events:
        clock.take(Progress(phase=phase, done=done, total=total), start + at)
    clock.finish(start + end)
    return {name: pytest.approx(spent) for name, spent in clock.seconds.items()}


def test_seconds_are_sorted_by_phase() -> None:
    steps = [(2.0 + n, "step", n, 3) for n in range(1, 4)]
    found = told((1, "encode", 1, 1), (2, "step", 0, 3), *steps, (9, "decode", 1, 1), end=10)
    assert found == {"encode": 1, "denoise": 3, "decode": 4}, "2 s to 5 s are steps; the end is nobody's"
    assert told((1, "decode", 0, 2), (3, "decode", 1, 2), end=7) == {"decode": 6}, "one that is not over lasts on"
    assert told(end=7) == {}


PLANNED = Plan(
    model="one",
    seconds=16,
    peak_ram_bytes=2 * GIB,
    phases=tuple(
        Phase(name=name, seconds=size) for name, size in (("load", 1), ("encode", 3), ("denoise", 10), ("decode", 2))
    ),
)
DRAWN = Drawn(PLANNED, PLANNED, SUBJECT, H100)


def test_phases_of_which_nobody_tells_share_what_is_left() -> None:
    clock = Clock()
    clock.seconds = {"denoise": 20.0}
    found, other = stages_of(DRAWN, clock, 25.0, 2.0)
    assert found == {"load": (1, 2), "denoise": (10, 20), "encode": (3, 3), "decode": (2, 2)}
    assert other == 0
    clock.seconds = {"denoise": 20.0, "encode": 1.0, "decode": 1.0}
    found, other = stages_of(DRAWN, clock, 25.0, None)
    assert "load" not in found and other == 3
    assert stages_of(DRAWN, Clock(), 30.0, None)[0] == {"encode": (3, 6), "denoise": (10, 20), "decode": (2, 4)}


def test_numbered_phases_share_what_is_told_and_what_was_remembered_tells_nothing() -> None:
    phases = {"load": 1, "encode": 1, "encode-2": 3, "encode-image": 2, "denoise": 10, "decode": 2}
    raw = Plan(model="one", phases=tuple(Phase(name=name, seconds=seconds) for name, seconds in phases.items()))
    drawn, clock = Drawn(raw, raw, SUBJECT, H100), Clock()
    clock.take(Progress(phase="encode", done=0, total=1))
    clock.take(Progress(phase="encode", done=1, total=1))
    assert not clock.remembered and set(clock.seconds) == {"encode"}
    clock.seconds = {"encode": 8.0, "denoise": 20.0, "decode": 2.0}
    found, other = stages_of(drawn, clock, 31.0, None)
    assert found == {
        "encode": (1, 2), "encode-2": (3, 6), "encode-image": (2, 1), "denoise": (10, 20), "decode": (2, 2)
    }  # fmt: skip
    clock.take(Progress(phase="encode", done=1, total=1, remembered=True))
    assert clock.remembered == {"encode"}
    clock.seconds = {"encode": 0.5, "denoise": 20.0, "decode": 2.0}
    found, other = stages_of(drawn, clock, 23.5, None)
    assert found == {"encode-image": (2, 1), "denoise": (10, 20), "decode": (2, 2)} and other == 0


def test_an_answer_is_compared_with_its_part_of_the_forecast() -> None:
    raw = Plan(model="one", phases=(Phase(name="load", seconds=1), Phase(name="generate", seconds=50)))
    drawn = Drawn(raw, raw, SUBJECT, H100, tokens=1000)
    for count, expected_stages, rest in ((20, {"generate": (1, 2)}, 1.5), (3, {}, 0)):
        clock = Clock()
        clock.take(Artefact(path="x", media_type="text/plain", info={"completion_tokens": count, "tokens_per_s": 10}))
        found, other = stages_of(drawn, clock, 3.5, None)
        assert (found, other) == (expected_stages, rest)
    clock = Clock()
    clock.take(Artefact(path="x", media_type="text/plain", info={"completion_tokens": 1, "tokens_per_s": None}))
    clock.take(Note(text="So it is each time.", usual=True))
    assert clock.tokens == 0 and not clock.noted
    clock.take(Note(text="Something was otherwise."))
    assert clock.noted


def test_pinned_memory_and_mapped_files_are_no_honest_size() -> None:
    sizes_of = {"generate_s": 1.0, "load_s": 1.0, "ram": GIB, "vram": 5}
    assert run_of(DRAWN, Clock(), **sizes_of).ram == (2 * GIB, GIB)
    assert run_of(DRAWN, Clock(), **sizes_of).vram is None, "the plan had nothing on a card"
    for name in ("pinned_bytes", "disk_bytes"):
        streamed = PLANNED.model_copy(update={"settings": {"networks": {"unet": {name: 1}}}})
        assert run_of(Drawn(streamed, PLANNED, SUBJECT, H100), Clock(), **sizes_of).ram is None


PEAKS = """
from studio.memory.watching import Peaks
size = 256 * 1024**2
with Peaks(card=False) as before:
    pass
with Peaks(card=False) as within:
    held_bytes = bytearray(b"x" * 1024**2) * 256
    assert len(held_bytes) == size
    del held_bytes
with Peaks(card=False) as after:
    pass
assert before.vram is None
print(before.ram, within.ram, after.ram)
"""


def test_the_peak_of_a_process_is_seen_and_begins_anew() -> None:
    """In a process that holds nothing else: what others left in this one may go in any moment."""
    done = subprocess.run([sys.executable, "-c", PEAKS], capture_output=True, text=True, check=True)
    before, within, after = map(int, done.stdout.split())
    assert within >= before + 0.9 * 256 * MIB
    if sys.platform == "linux":
        assert after <= within - 0.5 * 256 * MIB


# -- plans -------------------------------------------------------------------------------------------------------


def corrector(kept: Calibration) -> Corrector:
    return Corrector(kept, {"cuda": CARD, "cpu": "A processor"}, {"torch": "2"}, "film", H100)


def arithmetic(footprint: Footprint, given_budget: Budget) -> Plan:
    return plan(footprint, given_budget, model="one")


def measured_as(raw: Plan, ratio: float, peak: float) -> Calibration:
    """One run that took ``ratio`` of the seconds and ``peak`` of the bytes."""
    one = Run(
        cold=True,
        rates=RATES,
        stages={phase.name: (phase.seconds or 0, ratio * (phase.seconds or 0)) for phase in raw.phases},
        other_s=2.0,
        vram=(raw.peak_vram_bytes, round(peak * raw.peak_vram_bytes)),
    )
    return known(one, subject=corrector(Calibration()).subject(raw))


def test_a_measured_plan_says_so_and_adds_up() -> None:
    typical = budget(12, rates=card_rates(12 * GIB))
    raw = arithmetic(AT_4K, budget(12, rates=H100))
    assert corrector(Calibration())(raw).basis.startswith("computed from rates")
    assert corrector(Calibration())(arithmetic(AT_4K, typical)).basis.startswith("estimated from typical rates")
    found = corrector(measured_as(raw, 3, 0.9))(raw)
    assert raw.seconds is not None
    assert found.seconds == pytest.approx(3 * raw.seconds + 2)
    assert found.seconds == pytest.approx(sum(phase.seconds or 0 for phase in found.phases))
    assert sum(row.seconds or 0 for row in found.rows) == pytest.approx(found.seconds)
    assert found.peak_vram_bytes == round(SPARE * round(0.9 * raw.peak_vram_bytes))
    assert max(phase.vram_bytes for phase in found.phases) == pytest.approx(found.peak_vram_bytes, abs=2)
    assert (found.estimated, found.basis) == (False, "measured on this machine, 1 run")
    assert found.settings == raw.settings, "measured seconds change no choice"
    imagined = raw.model_copy(update={"imagined": True})
    assert corrector(measured_as(raw, 3, 0.9))(imagined) == imagined


def test_other_models_of_the_family_help_but_do_not_count_as_measured() -> None:
    raw = arithmetic(AT_4K, budget(12, rates=H100))
    kept = measured_as(raw.model_copy(update={"model": "another"}), 3, 0.5)
    found = corrector(kept)(raw)
    assert found.estimated and "other models" in found.basis and "1 run" in found.basis
    assert raw.seconds is not None and found.seconds is not None and 1.5 * raw.seconds < found.seconds
    assert found.peak_vram_bytes == raw.peak_vram_bytes


def test_where_runs_took_more_a_smaller_plan_is_taken() -> None:
    given_budget = budget(12, rates=H100)

    def make(room: Budget) -> Plan:
        return arithmetic(flux(), room)

    raw = make(given_budget)
    found = held(make, given_budget, corrector(measured_as(raw, 1, 1.3)))
    assert raw.peak_vram_bytes * 1.3 * SPARE > given_budget.vram_bytes
    assert found.plan.peak_vram_bytes <= given_budget.vram_bytes
    assert found.raw.peak_vram_bytes < raw.peak_vram_bytes
    tight = budget(3, rates=H100)
    with pytest.raises(DoesNotFit, match="By what earlier runs took"):
        held(make, tight, corrector(measured_as(make(tight), 1, 15)))


def test_a_forecast_that_was_too_high_no_longer_refuses() -> None:
    def make(room: Budget) -> Plan:
        if room.ram_bytes < 8 * GIB:
            raise DoesNotFit("It needs 8 GiB.")
        return Plan(model="one", peak_ram_bytes=8 * GIB, phases=(Phase(name="load", ram_bytes=8 * GIB),))

    small = Budget(ram_bytes=6 * GIB, rates=H100)
    subject = corrector(Calibration()).subject(make(Budget(ram_bytes=9 * GIB)))
    right = corrector(known(run(load=1, ram=(8 * GIB, 5 * GIB)), subject=subject))
    found = proven(make, small, right)
    assert found is not None and found.plan.peak_ram_bytes == round(SPARE * 5 * GIB)
    assert proven(make, small, corrector(Calibration())) is None
    assert proven(make, small, corrector(known(run(load=1, ram=(8 * GIB, 7 * GIB)), subject=subject))) is None


# -- rates -------------------------------------------------------------------------------------------------------

MACHINE = Hardware(
    system="Linux", processor="Some CPU", cores=2, ram_total_bytes=16 * GIB, ram_free_bytes=12 * GIB,
    disk_free_bytes=GIB,
    gpus=(
        Gpu(name=CARD, total_bytes=8 * GIB, free_bytes=7 * GIB, compute_capability=(8, 9), driver="1"),
    ),
)  # fmt: skip


def test_measured_rates_are_kept_by_the_machines_name_and_used(tmp_path: Path) -> None:
    assert machines_of(MACHINE) == {"cuda": CARD, "cpu": "Some CPU, 2 cores"}
    keep_rates(tmp_path, KeptRates(machine=CARD, rates=H100, disk=True))
    assert read_rates(tmp_path, CARD) == KeptRates(machine=CARD, rates=H100, disk=True)
    assert read_rates(tmp_path, "Another") is None
    measured = read(tmp_path, machines_of(MACHINE).values()).rates
    assert budget_of(MACHINE, measured=measured).rates == H100
    assert not (budget_of(MACHINE).rates or H100).measured
    bare = MACHINE.model_copy(update={"gpus": ()})
    assert budget_of(bare, measured=measured).rates != H100, "a card's rates are not a processor's"


def test_a_processor_is_measured(tmp_path: Path) -> None:
    (tmp_path / "small.bin").write_bytes(b"x" * 1000)
    assert largest_file(tmp_path) is None and read_rate(tmp_path) is None
    bare = MACHINE.model_copy(update={"gpus": ()})
    without = measure_rates("cpu", bare, tmp_path)
    assert without is not None and not without.disk and without.rates.measured
    large = tmp_path / "folder" / "large.bin"
    large.parent.mkdir()
    large.write_bytes(b"x" * (LEAST_FILE_BYTES + 5))
    assert largest_file(tmp_path) == large
    found = read_rate(tmp_path)
    assert found is not None and found > 0
    assert without.rates.flops_per_s == pytest.approx(
        0.65 * min(without.figures["fp32_flops_per_s"], without.figures["bf16_flops_per_s"])
    )
    assert Rates.model_validate(without.rates.model_dump()) == without.rates


# -- a real model ------------------------------------------------------------------------------------------------

ASK = {"prompt": "The history of the lighthouse begins long ago, when", "completion": True, "context": 512}


def test_a_job_leaves_a_record_and_the_next_plan_says_measured(starter_home: Path, cli: Cli) -> None:
    folder = starter_home / "cache" / "calibration"
    with Studio(starter_home) as studio:
        before = studio.forecast("starter-text", **ASK, max_tokens=24)
        assert before.estimated and not list(folder.glob("*.json"))
        for seed in (1, 2):
            studio.run("starter-text", **ASK, max_tokens=24, seed=seed)
        after = studio.forecast("starter-text", **ASK, max_tokens=24)
        longer = studio.forecast("starter-text", **ASK, max_tokens=240)
    [kept] = read(folder, machines_of(hardware_here()).values()).kept
    assert [one.cold for one in kept.runs] == [True, False], "the second found it loaded"
    assert set(kept.runs[0].stages) == {"load", "generate"} and set(kept.runs[1].stages) == {"generate"}
    assert not after.estimated and after.basis == "measured on this machine, 1 run"
    peaks = [one.ram[1] for one in kept.runs if one.ram is not None]
    assert len(peaks) == 2, "the worker never held another model"
    assert max(peaks) <= after.peak_ram_bytes <= 1.10 * max(peaks)
    assert after.settings == before.settings
    assert longer.seconds is not None and after.seconds is not None and longer.seconds > after.seconds
    ask = ("plan", "starter-text", "--context", "512", "--max-tokens", "24")
    assert "Times are measured on this machine, 1 run." in cli(*ask, code=0).stdout
    told_json = json.loads(cli(*ask, "--json", code=0).stdout)
    assert told_json["estimated"] is False and told_json["phases"][-1]["name"] == "other"


def hardware_here() -> Hardware:
    from studio.hardware import probe

    return probe()


def test_in_the_callers_process_seconds_are_kept_and_its_size_is_not(starter_home: Path) -> None:
    with Studio(starter_home, executor="inline") as studio:
        studio.run("starter-text", **ASK, max_tokens=16, seed=1)
    [kept] = read(starter_home / "cache" / "calibration", machines_of(hardware_here()).values()).kept
    assert kept.runs[0].stages and kept.runs[0].ram is None


def test_two_models_in_one_worker_keep_no_size_for_the_second(starter_home: Path) -> None:
    with Studio(starter_home) as studio:
        for context in (512, 1024):
            studio.run("starter-text", **{**ASK, "context": context}, max_tokens=16, seed=1)
    kept = read(starter_home / "cache" / "calibration", machines_of(hardware_here()).values()).kept
    sizes_kept = {("n_ctx=512" in one.subject.choice): one.runs[0].ram is not None for one in kept}
    assert sizes_kept == {True: True, False: False}
