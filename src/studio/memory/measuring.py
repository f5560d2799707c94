"""How fast this machine really is: its disk, its memory, its arithmetic, and a card's bus. Half a second, once.

Runs in the executing process before the first job of a family that the engine plans, since such a job needs torch in
any case; a text model never waits for it. What is measured is kept in the home (``calibration.keep_rates``).
**The lines for a card have not run on one yet.**
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.hardware import Hardware
from studio.memory.calibration import KeptRates
from studio.memory.plan_machine import machines_of, threads_of, typical_rates
from studio.units import MIB

log = logging.getLogger(__name__)

MATMUL_SHARE = 0.65
"""What a network reaches of a large matrix product alone: attention and the operations between cost time as well. An
assumption between FramePack's 430e12 operations a second on an H100 and what such a card multiplies; each model's own
runs correct it."""

READ_BYTES = 256 * MIB
PIECE_BYTES = 8 * MIB
LEAST_FILE_BYTES = 32 * MIB
DISK_S = 0.12
COPY_BYTES = 64 * MIB
COPY_S = 0.06
PRODUCT_S = 0.08
BELIEVED = (0.01, 100.0)
"""A rate beyond these times the typical one was not measured but disturbed."""


def measure_rates(device: str, hardware: Hardware, models: Path) -> KeptRates | None:
    """The rates of ``device``, or ``None`` where torch or the card cannot be used now.

    ``models``: the folder whose largest file is read from the disk. Takes about half a second on a processor, and as
    much on a card besides beginning CUDA.
    """
    typical = typical_rates(hardware, device)
    try:
        figures = _card_figures(typical.half) if device == "cuda" else _processor_figures(threads_of(hardware))
    except (ImportError, RuntimeError, OSError) as error:  # torch raises RuntimeError for all that a card can do
        log.warning("the rates of this machine were not measured: %s", " ".join(str(error).split())[:200])
        return None
    read = read_rate(models)
    if read is not None:
        figures["disk_bytes_per_s"] = read
    low, high = BELIEVED
    found: dict[str, Any] = {
        name: figures[name]
        for name in ("flops_per_s", "wide_flops_per_s", "bus_bytes_per_s", "device_bytes_per_s", "disk_bytes_per_s")
        if name in figures and low <= figures[name] / (getattr(typical, name) or figures[name]) <= high
    }
    return KeptRates(
        machine=machines_of(hardware)[device],
        rates=typical.model_copy(update={**found, "measured": "flops_per_s" in found}),
        disk="disk_bytes_per_s" in found,
        figures=figures,
    )


def read_rate(models: Path) -> float | None:
    """Bytes a second of reading the largest file below ``models`` in large pieces, past the page cache where the
    system allows it; ``None`` without a file that is large enough."""
    path = largest_file(models)
    if path is None:
        return None
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        begin = max(0, (size - READ_BYTES) // 2)
        forget(file.fileno(), begin, READ_BYTES)
        file.seek(begin)
        piece, done, begun = bytearray(PIECE_BYTES), 0, time.perf_counter()
        while done < READ_BYTES and time.perf_counter() - begun < DISK_S and (count := file.readinto(piece)):
            done += count
        return done / max(1e-9, time.perf_counter() - begun)


def largest_file(folder: Path) -> Path | None:
    """The largest file below ``folder``, if it is large enough to tell a disk's speed."""
    sizes = []
    for path in folder.rglob("*"):
        try:
            if path.is_file():
                sizes.append((path.stat().st_size, path))
        except OSError:
            continue
    size, path = max(sizes, default=(0, folder))
    return path if size >= LEAST_FILE_BYTES else None


def forget(file: int, begin: int, size: int) -> None:
    """Ask the system to drop these bytes of a file from the page cache. Elsewhere than on Linux nothing happens."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(file, begin, size, os.POSIX_FADV_DONTNEED)


def _per_second(work: Callable[[], object], amount: float, limit_s: float, sync: Callable[[], object]) -> float:
    """``amount`` of ``work``, a second: the best of what runs within ``limit_s``, because others disturb."""
    work()
    sync()
    best, end = 0.0, time.perf_counter() + limit_s
    while best == 0.0 or time.perf_counter() < end:
        begun = time.perf_counter()
        work()
        sync()
        best = max(best, amount / max(1e-9, time.perf_counter() - begun))
    return best


@contextmanager
def _threads(torch: Any, count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _nothing() -> None:
    """A processor has computed when a call returns."""


def _processor_figures(threads: int) -> dict[str, float]:
    """Products of 768² matrices in 32 and 16 bits, and copying within memory, by as many threads as a job has.

    ``flops_per_s`` is the slower of the two: a family may compute in either, and some processors have no 16 bits.
    """
    import torch

    with torch.no_grad(), _threads(torch, threads):
        found = {}
        for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
            square = torch.ones(768, 768, dtype=dtype)
            target = torch.empty_like(square)
            work = _product(torch, square, target)
            found[f"{name}_flops_per_s"] = _per_second(work, 2 * 768**3, PRODUCT_S, _nothing)
        source, copy = torch.ones(COPY_BYTES, dtype=torch.uint8).chunk(2)  # not more than a small model takes anyway
        memory = _per_second(lambda: copy.copy_(source), COPY_BYTES, COPY_S, _nothing)
    slower = min(found["fp32_flops_per_s"], found["bf16_flops_per_s"])
    return {
        **found,
        "flops_per_s": MATMUL_SHARE * slower,
        "device_bytes_per_s": memory,
        "bus_bytes_per_s": memory,
    }


def _card_figures(half: str) -> dict[str, float]:
    """Products of 4,096² matrices in the 16 bits that the card computes in (``half``, of ``Rates``) and, where that is
    not bf16, in 32, copying within the card, and pinned memory to the card."""
    import torch

    if not torch.cuda.is_available():
        raise RuntimeError("torch has no CUDA device")
    device, sync = torch.device("cuda", 0), torch.cuda.synchronize
    dtypes = {"bf16": (torch.bfloat16,), "fp16": (torch.float16, torch.float32), "none": (torch.float32,)}[half]
    products = []
    try:
        with torch.no_grad():
            for dtype in dtypes:
                square = torch.ones(4096, 4096, dtype=dtype, device=device)  # 32 MiB in 16 bits
                work = _product(torch, square, torch.empty_like(square))
                products.append(_per_second(work, 2 * 4096**3, PRODUCT_S, sync))
            source = torch.ones(COPY_BYTES, dtype=torch.uint8, device=device)
            copy = torch.empty_like(source)
            memory = _per_second(_several(lambda: copy.copy_(source), 8), 16 * COPY_BYTES, COPY_S, sync)
            host = torch.ones(COPY_BYTES, dtype=torch.uint8).pin_memory()
            bus = _per_second(lambda: copy.copy_(host, non_blocking=True), COPY_BYTES, COPY_S, sync)
    finally:
        torch.cuda.empty_cache()
    return {
        "matmul_flops_per_s": products[0],
        "flops_per_s": MATMUL_SHARE * products[0],
        **({} if half == "bf16" else {"wide_flops_per_s": MATMUL_SHARE * products[-1]}),
        "device_bytes_per_s": memory,
        "bus_bytes_per_s": bus,
    }


def _product(torch: Any, square: Any, target: Any) -> Callable[[], object]:
    return lambda: torch.mm(square, square, out=target)


def _several(work: Callable[[], object], count: int) -> Callable[[], object]:
    """The same several times without waiting in between."""

    def run() -> None:
        for _ in range(count):
            work()

    return run
