"""What this machine has now. Read from the driver and the system: no torch, no CUDA context, a few milliseconds."""

from __future__ import annotations

import os
import platform
import shutil
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from studio.pipeline import Budget
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

    def budget(self, *, vram_cap_bytes: int | None = None, ram_cap_bytes: int | None = None) -> Budget:
        """What a plan may use on the first card: free now less a margin, or the user's cap if that is less.

        One core is left to the page and the system: with as many threads as cores, llama.cpp collapses as soon
        as anything else runs.
        """
        vram = max(0, self.gpus[0].free_bytes - VRAM_MARGIN_BYTES) if self.gpus else 0
        ram = max(0, self.ram_free_bytes - RAM_MARGIN_BYTES)
        return Budget(
            vram_bytes=vram if vram_cap_bytes is None else min(vram, vram_cap_bytes),
            ram_bytes=ram if ram_cap_bytes is None else min(ram, ram_cap_bytes),
            threads=max(1, self.cores - 1),
        )


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


def _gpus() -> tuple[Gpu, ...]:
    """NVIDIA cards through the driver's own library; none where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        driver = _text(pynvml.nvmlSystemGetDriverVersion())
        found = []
        for index in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(index)
            memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
            found.append(
                Gpu(
                    name=_text(pynvml.nvmlDeviceGetName(handle)),
                    total_bytes=int(memory.total),
                    free_bytes=int(memory.free),
                    compute_capability=pynvml.nvmlDeviceGetCudaComputeCapability(handle),
                    driver=driver,
                )
            )
        return tuple(found)
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
