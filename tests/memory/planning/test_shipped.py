"""What is shipped of the catalogue's models is what would be measured, and nothing is measured again for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import ship_activations
from studio import Studio
from studio.memory import shipped as shipping
from studio.memory.activations import made_by, measure
from studio.pipeline import Probe


def test_every_probe_of_the_catalogue_is_shipped_and_none_is_left_over() -> None:
    assert ship_activations.differences() == (set(), set()), "run: python scripts/ship_activations.py"


def test_what_is_shipped_is_what_is_measured() -> None:
    """The quick ones: those of the starter models."""
    rows = json.loads(shipping.FILE.read_text("utf-8"))["probes"]
    small = [row for row in rows if row["flops"] < 2e9]
    assert len(small) >= 3
    for row in small:
        found = measure(made_by(Probe(make=row["make"], arguments=row["arguments"])))
        assert found.peak_bytes == pytest.approx(row["peak_bytes"], rel=0.02), row["make"]
        assert found.processor_bytes == pytest.approx(row["processor_bytes"], rel=0.02), row["make"]
        assert found.flops == pytest.approx(row["flops"], rel=0.02), row["make"]


def test_other_libraries_stand_for_these_only_where_that_is_good_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(probes: list[Probe]) -> list[object]:
        raise AssertionError(f"{len(probes)} probes were to be measured")

    with Studio(tmp_path / "home", executor="inline") as studio:
        monkeypatch.setattr(shipping, "versions", lambda: json.loads(shipping.FILE.read_text("utf-8"))["versions"])
        exact = studio.foresee("sdxl", {}, run=refuse)
        monkeypatch.setattr(shipping, "versions", lambda: {"torch": "99"})
        assert studio.foresee("sdxl", {}, run=refuse, near=True).rows == exact.rows
        with pytest.raises(AssertionError, match="probes were to be measured"):
            studio.foresee("sdxl", {}, run=refuse)
