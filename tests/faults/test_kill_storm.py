"""An accepted job survives kill -9, whenever it comes; see ``scripts/kill_storm.py``."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def kill_storm() -> ModuleType:
    file = Path(__file__).resolve().parents[2] / "scripts" / "kill_storm.py"
    spec = importlib.util.spec_from_file_location("kill_storm", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_storm"] = module
    spec.loader.exec_module(module)
    return module


def test_twenty_jobs_and_ten_kills(kill_storm: ModuleType, home: Path, plugins: Path, tmp_path: Path) -> None:
    hit, faults = kill_storm.storm(tmp_path / "storm", "toy", {"words": 4_000}, jobs=20, kills=10, seed=8)
    assert faults == []
    assert hit.kills.total() >= 8, "most kills found the batch at work"
    assert len([moment for moment in kill_storm.MOMENTS if hit.kills[moment]]) >= 3
