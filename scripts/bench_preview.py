"""What live previews cost: the processor time of one picture's previews over that of its denoising steps.

Processor time of the thread that draws (`time.thread_time`), with torch on one thread, so that neighbours on the
machine do not count. With and without previews in turns, in one run. Two models: the starter at its own size, whose
steps are the shortest that anybody will see, and a U-Net of a few layers at the latents of a real model, 128 × 128.
Aim: 2 % at the most. Prints a table and writes `benchmarks/preview.json`.

    python scripts/bench_preview.py --pictures 10
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "image"))  # the tiny models of the tests

import image_models  # noqa: E402

from studio.plugin import Context, ModelSpec, Plan  # noqa: E402
from studio_pipelines.image_diffusion import run as running  # noqa: E402
from studio_pipelines.image_diffusion.family import ImageDiffusion  # noqa: E402
from studio_pipelines.image_diffusion.params import ImageParams  # noqa: E402

PIPELINES = ROOT / "pipelines" / "studio_pipelines" / "image_diffusion"
LARGE_PX, EVERY = 1024, 5


class Clock:
    """Processor seconds between a run's steps, and within the callback that shows previews."""

    def __init__(self) -> None:
        self.ends: list[float] = []
        self.shown = 0.0
        self.count = 0

    def watch(self) -> Any:
        step, show = running.Run._step, running.Run._show
        clock = self

        def timed_step(run: running.Run, *args: Any) -> Any:
            answer = step(run, *args)
            clock.ends.append(time.thread_time())
            return answer

        def timed_show(run: running.Run, *args: Any) -> None:
            start = time.thread_time()
            show(run, *args)
            clock.shown += time.thread_time() - start
            clock.count += 1

        running.Run._step, running.Run._show = timed_step, timed_show  # type: ignore[method-assign]

        def restore() -> None:
            running.Run._step, running.Run._show = step, show  # type: ignore[method-assign]

        return restore


def one(pipeline: ImageDiffusion, folder: Path, **params: Any) -> dict[str, float]:
    """A picture: processor seconds of the steps after the first, and of the previews among them."""
    clock = Clock()
    restore = clock.watch()
    try:
        context = Context(Path(tempfile.mkdtemp(dir=folder)))
        for _ in pipeline.generate(ImageParams(prompt="a red apple", **params), context):
            pass
    finally:
        restore()
    whole = clock.ends[-1] - clock.ends[0]
    return {"whole": whole, "shown": clock.shown, "previews": clock.count, "steps": len(clock.ends) - 1}


def starter() -> tuple[ImageDiffusion, dict[str, Any]]:
    folder = PIPELINES / "starter"
    spec = ModelSpec.model_validate(entry_of_starter(folder))
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    return ImageDiffusion(spec, {**files, "config": folder / "model_index.json"}), {}


def entry_of_starter(folder: Path) -> dict[str, Any]:
    settings = {"class": "StableDiffusionPipeline", "size": [64, 64], "multiple": 8, "steps": 20, "guidance": 4.0}
    return {
        "id": "starter", "pipeline": "image-diffusion", "settings": settings,
        "source": {"folder": str(folder), "files": {"config": {"path": "model_index.json"}}, "licence": "Apache-2.0"},
    }  # fmt: skip


def large(folder: Path) -> tuple[ImageDiffusion, dict[str, Any]]:
    """The tests' tiny SDXL at 1024 pixels: a step of far less work than any real model's."""
    image_models.write("sdxl", folder)
    spec = ModelSpec.model_validate(image_models.catalogue_entry("sdxl", folder))
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    pipeline = ImageDiffusion(spec, {**files, "config": folder / "model_index.json"})
    return pipeline, {"width": LARGE_PX, "height": LARGE_PX, "steps": 11}


def rows(pictures: int, folder: Path) -> Iterator[dict[str, Any]]:
    for name, (pipeline, params) in {"starter-image": starter(), "tiny SDXL, 1024 px": large(folder / "sdxl")}.items():
        pipeline.cache = folder / "cache"
        pipeline.load(Plan(model=name))
        for seed in range(2):  # warm, and the factors are learned from the first
            one(pipeline, folder, seed=seed, **params)
        shares, ratios, steps, costs = [], [], [], []
        for seed in range(pictures):
            without = one(pipeline, folder, seed=seed, preview_every=0, **params)
            shown = one(pipeline, folder, seed=seed, preview_every=EVERY, **params)
            drawn = shown["whole"] - shown["shown"]
            shares.append(shown["shown"] / drawn)
            ratios.append(shown["whole"] / without["whole"])
            steps.append(without["whole"] / without["steps"])
            costs.append(shown["shown"] / max(1, shown["previews"]))
        pipeline.unload()
        yield {
            "model": name,
            "previews_a_picture": shown["previews"],
            "step_cpu_ms": round(statistics.median(steps) * 1e3, 2),
            "one_preview_cpu_ms": round(statistics.median(costs) * 1e3, 2),
            "share_of_steps": round(statistics.median(shares), 4),
            "with_over_without": round(statistics.median(ratios), 4),
            "with_over_without_all": [round(ratio, 4) for ratio in ratios],
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=10, help="pictures with and as many without, of each model")
    parser.add_argument("--result", type=Path, default=ROOT / "benchmarks" / "preview.json")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        found = list(rows(options.pictures, Path(folder)))
    result = {
        "what": f"previews every {EVERY} steps: processor time of the drawing thread",
        "command": f"python scripts/bench_preview.py --pictures {options.pictures}",
        "versions": {name: version(name) for name in ("torch", "diffusers")},
        "rows": found,
    }
    options.result.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    for row in found:
        print(f"{row['model']:20} step {row['step_cpu_ms']:8.2f} ms  preview {row['one_preview_cpu_ms']:6.2f} ms  "
              f"share {row['share_of_steps']:.2%}  with/without {row['with_over_without']:.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
