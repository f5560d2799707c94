"""What this machine has now. Read from the driver and the system: no torch, no CUDA context, a few milliseconds."""

from __future__ import annotations

import os
import platform
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from studio.units import GIB, MIB

# Kept free beside what a plan may use: the desktop and the driver on the card, other programs in RAM.
VRAM_MARGIN_BYTES = 512 * MIB
RAM_MARGIN_BYTES = 1 * GIB


class Gpu(BaseModel):
    """One card. ``compute_capability`` is NVIDIA's, such as ``(8, 6)``."""

    model_config = ConfigDict(frozen=True)

    name: str
    total_bytes: int
    free_bytes: int
    compute_capability: tuple[int, int]
    driver: str


class Hardware(BaseModel):
    """A snapshot; ``free`` figures change by the second."""

    model_config = ConfigDict(frozen=True)

    system: str
    processor: str
    cores: int
    ram_total_bytes: int
    ram_free_bytes: int
    disk_free_bytes: int
    gpus: tuple[Gpu, ...] = ()


def probe(folder: Path | None = None) -> Hardware:
    """Measure. ``folder`` is where disk space matters (the home)."""
    import psutil

    memory = psutil.virtual_memory()
    where = folder or Path.home()
    while not where.exists():
        where = where.parent
    return Hardware(
        system=f"{platform.system()} {platform.release()}",
        processor=_processor(),
        cores=_usable_cores(),
        ram_total_bytes=memory.total,
        ram_free_bytes=memory.available,
        disk_free_bytes=shutil.disk_usage(where).free,
        gpus=_gpus(),
    )


def _usable_cores() -> int:
    """Physical cores, or fewer where the process is confined: hyper-threads do not speed up matrix products."""
    import psutil

    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(psutil.cpu_count(logical=False) or allowed, allowed))


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@contextmanager
def _driver() -> Iterator[Any]:
    """NVIDIA's management library while it is open, or ``None`` where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        yield None
        return
    try:
        yield pynvml
    finally:
        pynvml.nvmlShutdown()


def _gpus() -> tuple[Gpu, ...]:
    """NVIDIA cards through the driver's own library: no CUDA context."""
    with _driver() as nvml:
        if nvml is None:
            return ()
        try:
            version = _text(nvml.nvmlSystemGetDriverVersion())
            return tuple(_gpu(nvml, index, version) for index in range(nvml.nvmlDeviceGetCount()))
        except nvml.NVMLError:
            return ()


def _gpu(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(
        name=_text(nvml.nvmlDeviceGetName(handle)),
        total_bytes=int(memory.total),
        free_bytes=int(memory.free),
        compute_capability=nvml.nvmlDeviceGetCudaComputeCapability(handle),
        driver=driver,
    )


def card_energy_j() -> float | None:
    """Joules that the first card has used since its driver was loaded; ``None`` where it cannot tell."""
    with _driver() as nvml:
        if nvml is None:
            return None
        try:
            return float(nvml.nvmlDeviceGetTotalEnergyConsumption(nvml.nvmlDeviceGetHandleByIndex(0))) / 1000
        except nvml.NVMLError:  # cards before Volta, and some laptops
            return None


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
