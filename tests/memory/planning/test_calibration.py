"""What runs took improves the next forecast: ratios of measured and foreseen, and files that survive anything."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from planning_models import CARD, H100, RATES, SUBJECT, known, run

from studio.memory import calibration
from studio.memory.calibration import (
    KEPT,
    SPARE,
    Calibration,
    KeptRates,
    expected,
    expected_peak,
    keep_rates,
    read,
    record,
)
from studio.units import GIB, MIB

seconds = st.floats(0.01, 1e4)
sizes = st.integers(MIB, 100 * GIB)


# -- ratios ------------------------------------------------------------------------------------------------------


def test_the_median_counts_and_one_strange_run_does_not() -> None:
    assert expected(10, [(1, 2), (2, 4), (1, 50)]) == pytest.approx(20)
    assert expected(10, [(1, 2), (1, 50)]) == pytest.approx(20), "a disturbed run is longer, never shorter"
    assert expected(10, []) == 10
    assert expected(10, [(1, 1000)]) == 10 * calibration.HIGHEST
    assert expected(10, [(1000, 1)]) == 10 * calibration.LOWEST
    assert expected(10, [(0, 5)]) == 10, "nothing was predicted, so nothing follows"


def test_what_a_small_model_needs_more_is_not_multiplied_for_a_large_one() -> None:
    assert expected(10, [(0.1, 1.1)], near=1.0) == pytest.approx(11)
    assert expected(10, [(1, 0.5)], near=1.0) == pytest.approx(5), "a quicker disk is quicker for all"
    assert expected(10, [(1, 3)], near=16.0) == pytest.approx(30), "of jobs of like size the ratio counts"


def test_a_small_model_that_waits_for_its_card_does_not_make_a_large_one_slow() -> None:
    """Twenty steps of a starter are foreseen in 20 ms on a card and take 0.6 s, all of it between the kernels."""
    small = SUBJECT.model_copy(update={"model": "starter"})
    kept = known(run(stages={"denoise": (0.02, 0.6)}), subject=small)
    guess = kept.seconds(SUBJECT, RATES, "denoise", 60.0)
    assert guess is not None and guess.level == "family"
    assert guess.seconds == pytest.approx(60.58)
    text = known(run(stages={"generate": (0.4, 0.6)}), subject=small).seconds(SUBJECT, RATES, "generate", 60.0)
    assert text is not None and text.seconds == pytest.approx(90), "a slow memory is slow for all"
    like = known(run(stages={"denoise": (30, 60)}), subject=small).seconds(SUBJECT, RATES, "denoise", 60.0)
    assert like is not None and like.seconds == pytest.approx(120), "a large one that took twice as long says so"


@given(seconds, st.lists(st.tuples(seconds, seconds), max_size=5), st.sampled_from([None, 1.0, 16.0]))
def test_an_expectation_stays_within_the_clamps(
    predicted: float, pairs: list[tuple[float, float]], near: float | None
) -> None:
    found = expected(predicted, pairs, near=near)
    assert calibration.LOWEST * predicted * 0.999 <= found <= calibration.HIGHEST * predicted * 1.001


@given(sizes, st.floats(0.06, 15))
def test_the_same_request_stands_if_it_held_or_is_forecast_a_twentieth_above(size: int, ratio: float) -> None:
    measured = round(size * ratio)
    found = expected_peak(size, [(size, measured), (size, measured // 2)])
    held = (1 - calibration.HELD) * size <= measured <= size
    wanted = size if held else min(SPARE * measured, calibration.HIGHEST * size)
    assert found == pytest.approx(wanted, abs=1), "a forecast that held stands"
    assert found >= measured


@given(sizes, sizes, sizes)
def test_a_peak_is_never_lowered_more_than_either_reading(predicted: int, foreseen: int, measured: int) -> None:
    found = expected_peak(predicted, [(foreseen, measured)])
    if measured >= foreseen:
        assert found >= predicted, "what was exceeded is never forecast lower"
    clamped = min(max(measured, 0.05 * foreseen), 20 * foreseen)
    assert found >= 0.999 * predicted * clamped / foreseen
    assert found >= 0.999 * min(predicted + measured - foreseen, calibration.HIGHEST * predicted)


def test_a_small_run_does_not_shrink_a_large_request() -> None:
    half = [(1 * GIB, GIB // 2)]
    assert expected_peak(1 * GIB, half) == round(SPARE * GIB / 2)
    assert expected_peak(11 * GIB, half) == 11 * GIB, "half a GiB less is what it may be"
    assert expected_peak(11 * GIB, [*half, (10 * GIB, 8 * GIB)]) == round(SPARE * 9 * GIB), "those of like size count"


def test_cold_runs_and_warm_ones_are_never_mixed() -> None:
    cold, warm = run(load=3, denoise=4), run(denoise=2)
    both = known(cold, warm, warm, warm)
    load, step = (both.seconds(SUBJECT, RATES, name, 1.0) for name in ("load", "denoise"))
    assert load is not None and (load.seconds, load.runs) == (3, 1)
    assert step is not None and (step.seconds, step.runs) == (4, 1), "a plan counts loading, so cold runs speak first"
    only = known(warm)
    assert only.seconds(SUBJECT, RATES, "load", 1.0) is None
    step = only.seconds(SUBJECT, RATES, "denoise", 1.0)
    assert step is not None and step.seconds == 2


def test_the_nearest_runs_speak_and_other_machines_and_versions_do_not() -> None:
    levels = {
        "choice": {},
        "model": {"choice": "cuda a:int8"},
        "family": {"model": "two", "choice": "x"},
        None: {"machine": "B"},
    }
    for level, change in levels.items():
        guess = known(run(denoise=2)).seconds(SUBJECT.model_copy(update=change), RATES, "denoise", 1.0)
        assert (guess.level if guess else None) == level
    for change in ({"software": {"torch": "3"}}, {"pipeline": "song", "model": "two"}):
        assert known(run(denoise=2)).seconds(SUBJECT.model_copy(update=change), RATES, "denoise", 1.0) is None
    assert known(run(denoise=2)).seconds(SUBJECT, "other rates", "denoise", 1.0) is None


def test_peaks_of_another_choice_raise_but_never_lower() -> None:
    other = SUBJECT.model_copy(update={"choice": "cuda a:int8"})
    less, more = known(run(vram=(4 * GIB, 2 * GIB))), known(run(vram=(4 * GIB, 5 * GIB)))
    assert less.peak(SUBJECT, "vram", 4 * GIB) == (round(SPARE * 2 * GIB), 1)
    assert less.peak(other, "vram", 4 * GIB) == (4 * GIB, 0)
    assert more.peak(other, "vram", 4 * GIB) == (round(SPARE * 5 * GIB), 1)
    assert more.peak(SUBJECT, "ram", 4 * GIB) == (4 * GIB, 0), "nothing is known of the memory"


# -- files -------------------------------------------------------------------------------------------------------


def test_the_last_sixteen_of_each_kind_are_kept(tmp_path: Path) -> None:
    for number in range(KEPT + 4):
        record(tmp_path, SUBJECT, run(load=number + 1, denoise=1))
        record(tmp_path, SUBJECT, run(denoise=number + 1))
    [kept] = read(tmp_path, [CARD]).kept
    assert [one.stages["load"][1] for one in kept.runs if one.cold] == [float(n) for n in range(5, KEPT + 5)]
    assert [one.stages["denoise"][1] for one in kept.runs if not one.cold] == [float(n) for n in range(5, KEPT + 5)]
    assert read(tmp_path, ["Another"]).kept == ()


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\x00", b"[]", b'{"format": 2}', b'{"format": 1, "subject": {}, "runs": 3}']
)
def test_a_damaged_file_counts_as_absent_and_is_replaced(tmp_path: Path, damage: bytes) -> None:
    record(tmp_path, SUBJECT, run(denoise=2))
    [file] = tmp_path.glob("*.json")
    (tmp_path / "rates-x.json").write_bytes(damage)
    file.write_bytes(damage)
    assert read(tmp_path, [CARD]) == Calibration()
    record(tmp_path, SUBJECT, run(denoise=3))
    [kept] = read(tmp_path, [CARD]).kept
    assert [one.stages["denoise"][1] for one in kept.runs] == [3]


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    record(tmp_path, SUBJECT, run(denoise=2))
    [file] = tmp_path.glob("*.json")
    file.write_text(file.read_text().replace("2.0", "NaN"))
    assert read(tmp_path, [CARD]).kept == ()


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_record(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    record(tmp_path / "file" / "below", SUBJECT, run(denoise=2))
    keep_rates(tmp_path / "file" / "below", KeptRates(machine=CARD, rates=H100, disk=True))
    assert read(tmp_path / "file" / "below", [CARD]) == Calibration()


WRITER = """
import sys
from pathlib import Path
from studio.memory.calibration import Run, Subject, record
subject = Subject.model_validate_json(sys.argv[2])
for number in range(4):
    record(Path(sys.argv[1]), subject, Run(cold=True, rates="r", stages={"load": (1, int(sys.argv[3]) + number)}))
"""


def test_processes_that_write_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    text = SUBJECT.model_dump_json()
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), text, str(10 * number)]) for number in range(4)
    ]
    assert [writer.wait(60) for writer in writers] == [0] * 4
    [kept] = read(tmp_path, [CARD]).kept
    expected_numbers = {10 * writer + number for writer in range(4) for number in range(4)}
    assert {int(one.stages["load"][1]) for one in kept.runs} == expected_numbers
    assert not list(tmp_path.glob("*.part"))
