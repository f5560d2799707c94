"""Memory and disk over a long film: is a film of fifty sections as small to make as one of two?

    python scripts/bench_film_memory.py --sections 50 --out benchmarks/film_memory.json

A FramePack of the real classes with random weights, very small, in both orders of sections. Of each section: the most
that this process held while it was made, what it holds at its end (after freed memory was given back to the system),
the same of the card if there is one, and the bytes in the job's folder. Exit code 1 if the last section takes more than
1.05 of what the second took.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "image"), str(ROOT / "tests" / "video")]

import psutil  # noqa: E402
import torch  # noqa: E402
from framepack_models import catalogue_entry, write  # noqa: E402
from PIL import Image  # noqa: E402

from studio.memory.heap import steady_heap  # noqa: E402
from studio.plugin import Artefact, Context, ModelSpec, Plan  # noqa: E402
from studio_pipelines.video_framepack.family import VideoFramepack  # noqa: E402
from studio_pipelines.video_framepack.kept import Kept  # noqa: E402
from studio_pipelines.video_framepack.params import VideoParams  # noqa: E402

LIMIT = 1.05


def measure(folder: Path, sampling: str, sections: int, work: Path, device: str, window: int) -> dict[str, Any]:
    """One film: resident bytes and bytes on the disk after each section."""
    work.mkdir()
    entry = catalogue_entry(folder, sampling=sampling)
    entry["settings"]["window"] = window
    spec = ModelSpec.model_validate(entry)
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    family = VideoFramepack(spec, files)
    family.cache = work / "cache"
    family.load(Plan(model=spec.id, device=device))
    Image.new("RGB", (64, 64), (200, 60, 60)).save(work / "picture.png")
    params = VideoParams(prompt="a red star", image=work / "picture.png", seconds=sections * window * 4 / 30, seed=1)
    process, job = psutil.Process(), work / "job"
    job.mkdir()
    ram, peak, card, disk = list[int](), list[int](), list[int](), list[int]()
    write_state = Kept.write_state

    def measured(self: Kept, section: int, tensors: dict[str, torch.Tensor]) -> None:
        """In the thread that computes: nothing of the next section has begun."""
        write_state(self, section, tensors)
        peak.append(high_water())
        give_back()
        ram.append(process.memory_info().rss)
        card.append(torch.cuda.memory_reserved() if device == "cuda" else 0)
        disk.append(bytes_in(job))

    Kept.write_state = measured  # type: ignore[method-assign]
    begun = time.perf_counter()
    try:
        for event in family.generate(params, Context(job)):
            if isinstance(event, Artefact):
                film = Path(event.path).stat().st_size
    finally:
        Kept.write_state = write_state  # type: ignore[method-assign]
    kept = bytes_in(work / "cache")
    family.unload()
    return {
        "sampling": sampling,
        "sections": len(ram),
        "frames": event.info["frames"] if isinstance(event, Artefact) else 0,
        "ram_bytes": {str(number): ram[number - 1] for number in shown(len(ram))},
        "ram_ratio": round(ram[-1] / ram[1], 4),
        "ram_peak_bytes": {str(number): peak[number - 1] for number in shown(len(ram))},
        "ram_peak_ratio": round(peak[-1] / peak[1], 4),
        "vram_bytes": {str(number): card[number - 1] for number in shown(len(ram))} if device == "cuda" else None,
        "vram_ratio": round(card[-1] / card[1], 4) if device == "cuda" else None,
        "disk_bytes": {str(number): disk[number - 1] for number in shown(len(ram))},
        "disk_bytes_a_section": round((disk[-2] - disk[1]) / (len(disk) - 3)),
        "film_bytes": film,
        "kept_for_making_parts_again_bytes": kept,
        "seconds": round(time.perf_counter() - begun, 1),
    }


def high_water() -> int:
    """The most that was resident since the last call; on systems without such a count, what is resident now."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        Path("/proc/self/clear_refs").write_text("5")
        return found
    except (OSError, StopIteration):
        return int(psutil.Process().memory_info().rss)


def give_back() -> None:
    """What is freed goes back to the system; glibc would keep some of it, now more and now less."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)


def shown(count: int) -> list[int]:
    """The sections that are written down."""
    return sorted({1, 2, 5, 10, 20, 30, 40, count} & set(range(1, count + 1)))


def bytes_in(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", type=int, default=50)
    parser.add_argument("--model", type=Path, help="the folder of such a model; made when left out")
    parser.add_argument("--window", type=int, default=9, help="latents in a section; FramePack's own are 9")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, help="write the figures here")
    options = parser.parse_args()
    torch.set_num_threads(1)
    steady_heap()  # as in a worker, or peaks follow what glibc happens to keep
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.model or write(Path(scratch) / "model")
        films = [
            measure(folder, sampling, options.sections, Path(scratch) / sampling, options.device, options.window)
            for sampling in ("forward", "inverted")
        ]
    result = {
        "what": "a FramePack with random weights, 32 × 32 pixels, 2 steps a section",
        "device": torch.cuda.get_device_name() if options.device == "cuda" else platform.machine(),
        "torch": torch.__version__,
        "load": [round(number, 1) for number in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "limit": LIMIT,
        "films": films,
    }
    text = json.dumps(result, indent=2, ensure_ascii=False)
    print(text)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    ratios = [film[name] or 0 for film in films for name in ("ram_ratio", "ram_peak_ratio", "vram_ratio")]
    return 1 if max(ratios) > LIMIT else 0


if __name__ == "__main__":
    sys.exit(main())
