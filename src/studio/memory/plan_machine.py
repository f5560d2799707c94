"""How fast and how large the planned machine is: this one, this one under a cap, or one that is imagined.

The rates are typical ones until they are measured on the machine itself (``measuring.py``), and a plan says so.
Sources: the makers' data sheets for dense 16-bit matrix products with 32-bit sums, of which about 0.7 is taken for
cards that compute slowly against their memory. On an H100 torch's eager kernels reach less: FramePack's step at 17,500
tokens is 4.8e14 operations as the probes count them and took 1.11 s, so 430e12 of 989e12 a second. The bus: by the
generation of each series, of which pinned copies reach about 0.85 (H100, PCIe 5 x16: 53 of 63 GB/s).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from studio.hardware import RAM_MARGIN_BYTES, VRAM_MARGIN_BYTES, Gpu, Hardware
from studio.plans import Budget, Rates
from studio.units import GIB

SYSTEM_RAM_BYTES = 5 * GIB
"""What a desktop and a browser hold of an imagined machine's memory; at most a quarter of it."""

IMAGINED_CAPABILITY = (8, 6)
"""An imagined card is taken for one of NVIDIA's RTX 30 series: the slowest that is still common."""

DISK_BYTES_PER_S = 1.5e9
"""An NVMe disk of the PCIe 3 generation, read in large pieces."""

CORE_FLOPS_PER_S = 50e9
"""One core with AVX2: 32 single-precision operations in each of 3e9 cycles, of which torch reaches about half."""

MEMORY_BYTES_PER_S = 25e9
"""Two channels of DDR4-3200, of which a processor reaches about half."""

# Operations a second for each GiB of a card of that series: within a series larger cards are faster alike (12 GB of
# RTX 3060: 25e12, 24 GB of RTX 3090: 50e12). By the first capability that is not above the card's.
_FLOPS_PER_GIB = (
    ((12, 0), 5.0e12), ((9, 0), 5.4e12), ((8, 9), 3.5e12), ((8, 6), 2.0e12), ((8, 0), 5.0e12), ((7, 5), 2.5e12),
    ((0, 0), 0.8e12),
)  # fmt: skip
# The same at 32 bits, of series without bf16 (RTX 2080 Ti, 11 GB: 13.4e12 by the data sheet; GTX 1660, 6 GB: 5.0e12).
_WIDE_FLOPS_PER_GIB = 0.7e12
# Bytes a second of pinned copies, for cards up to 8 GiB (eight lanes in most series) and for larger ones.
_BUS = (
    ((12, 0), (24e9, 48e9)), ((9, 0), (48e9, 53e9)), ((8, 0), (12e9, 23e9)), ((0, 0), (11e9, 11e9)),
)  # fmt: skip
_WITHOUT_TENSOR_CORES = re.compile(
    r"\bGTX 16|\bMX[45]50\b|\bT[4-6]00\b|\bT5[05]0\b|\bT1[02]00\b|\bT[12]000\b|\bCMP 30HX"
)
_DEVICE_BYTES_PER_S_AND_GIB = 36e9
"""RTX 3060 12 GB: 360e9 in all; RTX 4090: 1,008e9; H100 80 GB: 3,350e9."""


def half_of(name: str, capability: tuple[int, int]) -> Literal["bf16", "fp16", "none"]:
    """The 16 bits in which a card of this name and compute capability computes.

    bf16 came with 8.0: below it torch emulates it slower than 32 bits, and none of its attention kernels but the one
    that holds the matrix of all pairs takes it (CUTLASS: "bf16 on compute capability 80+"). fp16 is quick where there
    are tensor cores for it: from 7.0 on, but not on the small chips of 7.5 (the GTX 16 series and its relatives for
    notebooks and workstations), whose fp16 also gives black pictures (InvokeAI and ComfyUI name them one by one).
    """
    if capability >= (8, 0):
        return "bf16"
    return "fp16" if capability >= (7, 0) and _WITHOUT_TENSOR_CORES.search(name) is None else "none"


def card_rates(total_bytes: int, capability: tuple[int, int] = IMAGINED_CAPABILITY, name: str = "") -> Rates:
    """Typical rates of a card by its size, NVIDIA's compute capability and, where that says too little, its name."""
    gib, half = max(1.0, total_bytes / GIB), half_of(name, capability)
    flops = next(rate for lowest, rate in _FLOPS_PER_GIB if capability >= lowest)
    flops = _WIDE_FLOPS_PER_GIB if half == "none" else flops
    small, large = next(rate for lowest, rate in _BUS if capability >= lowest)
    return Rates(
        half=half,
        wide_flops_per_s=None if half == "bf16" else _WIDE_FLOPS_PER_GIB * gib,
        flops_per_s=flops * gib,
        bus_bytes_per_s=small if gib <= 8.5 else large,
        device_bytes_per_s=_DEVICE_BYTES_PER_S_AND_GIB * gib,
        disk_bytes_per_s=DISK_BYTES_PER_S,
        attention="flash" if capability >= (8, 0) else "efficient",
    )


def processor_rates(threads: int) -> Rates:
    """Typical rates of a machine without a card. There is no bus: the device is the memory itself."""
    return Rates(
        flops_per_s=CORE_FLOPS_PER_S * max(1, threads),
        bus_bytes_per_s=MEMORY_BYTES_PER_S,
        device_bytes_per_s=MEMORY_BYTES_PER_S,
        disk_bytes_per_s=DISK_BYTES_PER_S,
    )


def rates_of(budget: Budget) -> Rates:
    """The budget's rates, or typical ones where it brings none."""
    if budget.rates is not None:
        return budget.rates
    return card_rates(budget.vram_bytes) if budget.vram_bytes else processor_rates(budget.threads)


def machines_of(hardware: Hardware) -> dict[str, str]:
    """The names under which measurements of this machine are kept, by the device of a plan."""
    names = {"cpu": f"{hardware.processor}, {hardware.cores} cores"}
    return {"cuda": hardware.gpus[0].name, **names} if hardware.gpus else names


def threads_of(hardware: Hardware) -> int:
    """How many threads compute: one core is left to everything else."""
    return max(1, hardware.cores - 1)


def typical_rates(hardware: Hardware, device: str) -> Rates:
    """The rates that stand in where none were measured."""
    if device == "cuda" and hardware.gpus:
        card = hardware.gpus[0]
        return card_rates(card.total_bytes, card.compute_capability, card.name)
    return processor_rates(threads_of(hardware))


def budget_of(
    hardware: Hardware,
    *,
    vram_cap_bytes: int | None = None,
    ram_cap_bytes: int | None = None,
    measured: Mapping[str, Rates] | None = None,
) -> Budget:
    """What a plan may use: free now or the user's cap, whichever is less, minus a margin; with its rates.

    ``measured`` are rates by the machine's names. A card that is asked for on a machine without one is imagined, and
    with it the machine: the memory is then as large as asked. One of which the margin leaves nothing is none.
    """
    card: Gpu | None = hardware.gpus[0] if hardware.gpus else None
    threads = threads_of(hardware)
    if card is None and vram_cap_bytes and vram_cap_bytes > VRAM_MARGIN_BYTES:
        return _imagined(hardware, vram_cap_bytes, ram_cap_bytes, threads)
    ram = _less(hardware.ram_free_bytes, ram_cap_bytes) - RAM_MARGIN_BYTES
    vram = _less(card.free_bytes, vram_cap_bytes) - VRAM_MARGIN_BYTES if card else 0
    found = Budget(vram_bytes=max(0, vram), ram_bytes=max(0, ram), threads=threads)
    return rated(found, hardware, measured or {})


def rated(budget: Budget, hardware: Hardware, measured: Mapping[str, Rates]) -> Budget:
    """The budget with the rates of the device that it leads to: the card's if there is room on it."""
    device = "cuda" if hardware.gpus and budget.vram_bytes > 0 else "cpu"
    typical = typical_rates(hardware, device)
    rates = measured.get(machines_of(hardware)[device]) or typical
    if rates.half != typical.half:  # measured before anybody asked
        rates = rates.model_copy(update={"half": typical.half, "wide_flops_per_s": typical.wide_flops_per_s})
    return budget.model_copy(update={"rates": rates})


def _imagined(hardware: Hardware, vram: int, ram: int | None, threads: int) -> Budget:
    free = hardware.ram_free_bytes if ram is None else ram - min(SYSTEM_RAM_BYTES, ram // 4)
    return Budget(
        vram_bytes=max(0, vram - VRAM_MARGIN_BYTES),
        ram_bytes=max(0, free - RAM_MARGIN_BYTES),
        threads=threads,
        imagined=True,
        rates=card_rates(vram),
    )


def _less(free: int, cap: int | None) -> int:
    return free if cap is None else min(free, cap)
