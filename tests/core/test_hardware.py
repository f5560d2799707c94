"""What the machine has, and what of it a plan may use."""

from __future__ import annotations

from pathlib import Path

import psutil

from studio import hardware
from studio.hardware import RAM_MARGIN_BYTES, VRAM_MARGIN_BYTES, Gpu, Hardware
from studio.memory.plan_machine import budget_of
from studio.units import GIB

CARD = Gpu(name="card", total_bytes=8 * GIB, free_bytes=6 * GIB, compute_capability=(8, 6), driver="1")
MACHINE = Hardware(
    system="x", processor="x", cores=8, gpus=(CARD,),
    ram_total_bytes=32 * GIB, ram_free_bytes=20 * GIB, disk_free_bytes=GIB,
)  # fmt: skip


def test_a_plan_may_use_what_is_free_or_the_users_cap_less_a_margin() -> None:
    assert budget_of(MACHINE).vram_bytes == 6 * GIB - VRAM_MARGIN_BYTES
    assert budget_of(MACHINE).ram_bytes == 20 * GIB - RAM_MARGIN_BYTES
    assert budget_of(MACHINE, vram_cap_bytes=2 * GIB).vram_bytes == 2 * GIB - VRAM_MARGIN_BYTES
    assert budget_of(MACHINE, vram_cap_bytes=100 * GIB) == budget_of(MACHINE), "a cap cannot add memory"
    assert budget_of(MACHINE).threads == 7, "one core is left to the rest"


def test_without_a_card_and_with_one_core() -> None:
    small = budget_of(MACHINE.model_copy(update={"gpus": (), "cores": 1, "ram_free_bytes": 0}))
    assert (small.vram_bytes, small.ram_bytes, small.threads) == (0, 0, 1)


def test_probe_measures_this_machine(tmp_path: Path) -> None:
    found = hardware.probe(tmp_path / "not" / "there")
    assert found.ram_total_bytes == psutil.virtual_memory().total
    assert 0 < found.ram_free_bytes <= found.ram_total_bytes
    assert 1 <= found.cores <= (psutil.cpu_count() or 1)
    assert found.disk_free_bytes > 0


def test_energy_is_unknown_or_grows() -> None:
    before, after = hardware.card_energy_j(), hardware.card_energy_j()
    assert (before is None and after is None) if not hardware.probe().gpus else (before or 0) <= (after or 0)
