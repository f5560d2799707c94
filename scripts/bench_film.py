"""One whole section of a film: encode words and picture, denoise, decode; seconds and peak of each phase.

    nice -n 10 python scripts/bench_film.py                                 # the starter's shapes, on a processor
    python scripts/bench_film.py --size full --weights DIR --vram 6         # framepack-f1-i2v-hy's shapes, on a card

The family's own classes, with random weights, in three processes one after the other: ``plan`` asks the planner,
``studio`` makes a section as planned, and ``dynamic-swap`` denoises the same section by FramePack's DynamicSwap rule
(each access to a weight copies it), from the conditions and the state that ``studio`` saved. On a card both run under
the cap (`torch.cuda.set_per_process_memory_fraction`), and peaks are the allocator's reserved bytes; the forecast also
counts CUDA's context, which the allocator does not see. On a processor peaks are resident memory, no weight is copied
in either way, and the ratio of their seconds says nothing of a card. **The lines for a card have not run on one yet.**

Full size needs 42 GB on the disk, and memory for the whole transformer (26 GB), which DynamicSwap keeps there. Weights
are written once, one bf16 file for each network, 64 MB at a time, so no network is ever held; they are used again.
Tokenizers, scheduler and image processor are the starter's, the last with the image encoder's own size.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # in the processes that this one starts, too

import diffusers
import psutil
import torch
import transformers
import yaml
from PIL import Image

from bench_film_memory import high_water
from bench_memory import GIB, compared, load_resident, machine, swap_dynamically, write_weights
from studio.hardware import probe
from studio.memory.activations import resolve
from studio.memory.plan_machine import budget_of
from studio.memory.plan_request import make_plan
from studio.memory.stream_blocks import empty_module
from studio.plugin import ModelSpec, Plan
from studio_pipelines.video_framepack.asked import asked, pictured
from studio_pipelines.video_framepack.assemble import OTHERS, Assembled, _other, dtype_of
from studio_pipelines.video_framepack.catalogued import settings_of, shape_of
from studio_pipelines.video_framepack.family import VideoFramepack
from studio_pipelines.video_framepack.params import VideoParams
from studio_pipelines.video_framepack.sampling import Loop, State
from studio_pipelines.video_framepack.stepcache import CachingTransformer

ROOT = Path(__file__).resolve().parents[1]
FAMILY = ROOT / "pipelines" / "studio_pipelines" / "video_framepack"
MODELS = {"full": "framepack-f1-i2v-hy", "tiny": "starter-video"}
PROMPT = "A red star slides to the right and then spins in front of a dark blue sky. " * 40


def spec_of(size: str, folder: Path) -> Any:
    """The catalogue's entry, with the folder of random weights as its source."""
    entries = yaml.safe_load((ROOT / "models.yaml").read_text(encoding="utf-8"))
    entry = next(one for one in entries if one["id"] == MODELS[size])
    files = {path.name: {"path": f"{path.name}/*"} for path in sorted(folder.iterdir()) if path.is_dir()}
    source = {"folder": str(folder), "files": files, "licence": "Apache-2.0"}
    return ModelSpec.model_validate({**entry, "source": source, "components": {}})


def write_model(size: str, folder: Path) -> dict[str, int]:
    """Write all networks with random weights, unless they are there; their bytes by name."""
    for part in ("tokenizer", "tokenizer_2", "scheduler", "feature_extractor"):
        shutil.copytree(FAMILY / "starter" / part, folder / part, dirs_exist_ok=True)
    written = {}
    for name, shape in spec_of(size, folder).settings["networks"].items():
        found, path = shape_of(shape), folder / name
        kind = getattr(diffusers, found.class_name, None) or getattr(transformers, found.class_name)
        config = dict(found.config)
        if hasattr(diffusers, found.class_name):
            module = empty_module(lambda kind=kind, config=config: kind.from_config(config), torch.bfloat16)
            module.save_config(path)
        else:
            made = kind.config_class(**config)
            module = empty_module(lambda kind=kind, made=made: kind(made), torch.bfloat16)
            made.save_pretrained(path)
        written[name] = write_weights(module, path)
        if name == "image_encoder":
            processor = folder / "feature_extractor" / "preprocessor_config.json"
            side = config["image_size"]
            text = {**json.loads(processor.read_text()), "size": {"height": side, "width": side}}
            processor.write_text(json.dumps(text))
    return written


@dataclass
class Task:
    """What a process is told. ``vram`` in GiB, 0 on a processor."""

    size: str
    folder: str
    work: str
    steps: int
    vram: float
    plan: dict[str, Any] = field(default_factory=dict)

    def opened(self) -> tuple[Any, Any, Any]:
        """The family for the folder, and parameters and request of one section of the model's own size."""
        folder, picture = Path(self.folder), Path(self.work) / "picture.png"
        if not picture.exists():
            Image.radial_gradient("L").convert("RGB").save(picture)
        spec = spec_of(self.size, folder)
        files = {path.name: path for path in folder.iterdir() if path.is_dir()}
        settings = settings_of(spec)
        width, height = settings.size
        seconds = settings.window * 4 / settings.fps
        params = VideoParams(
            prompt=PROMPT, image=picture, seconds=seconds, width=width, height=height, steps=self.steps, seed=1
        )
        return VideoFramepack(spec, files), params, pictured(params, asked(params, settings, spec.id))

    def device(self) -> Any:
        """The card, capped, or the processor with one thread."""
        if not self.vram:
            torch.set_num_threads(1)
            return torch.device("cpu")
        whole = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, self.vram * GIB / whole))
        return torch.device("cuda", 0)


class Clock:
    """Seconds and peak of each phase. At a phase's end the card's work is awaited and its unused memory given back."""

    def __init__(self, device: Any) -> None:
        self.card = device.type == "cuda"
        self.rows: dict[str, dict[str, Any]] = {}
        self._peak()
        self._begun = time.perf_counter()

    def end(self, phase: str) -> None:
        if self.card:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - self._begun
        self.rows[phase] = {"seconds": round(seconds, 4), "peak_bytes": self._peak()}
        self._begun = time.perf_counter()

    def _peak(self) -> int:
        """The most since the last call."""
        if not self.card:
            return high_water()
        peak = torch.cuda.max_memory_reserved()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        return int(peak)


def plan(task: Task) -> dict[str, Any]:
    """What the planner says of the request, before anything was measured here."""
    family, params, _ = task.opened()
    budget = budget_of(probe(), vram_cap_bytes=int(task.vram * GIB) or None)
    folder = Path(task.work) / "activations"
    made = make_plan(family, params, budget, resolve=lambda footprint: resolve(footprint, folder, here=True)).plan
    return dict(made.model_dump(mode="json"))


def studio(task: Task) -> dict[str, Any]:
    """One section by the family, as planned."""
    device, (family, _, request) = task.device(), task.opened()
    clock = Clock(device)
    family.load(Plan.model_validate(task.plan))
    model = family._model
    clock.end("load")
    loop = Loop(model, request, keep=lambda section, latents: clock.end("denoise"))
    conditions, state = loop.encode(), loop.begin()
    clock.end("encode")
    made = loop.section(state)
    clock.end("decode")
    notes = list(model.notes)
    torch.save({"conditions": conditions, "tensors": state.tensors}, Path(task.work) / "held.pt")
    told = compared(made.latents, Path(task.work) / "latents.pt")
    family.unload()
    return {"phases": clock.rows, "frames": len(made.settled), **told, "notes": notes}


def dynamic_swap(task: Task) -> dict[str, Any]:
    """The same section's denoising, with every weight copied when it is looked at."""

    class Alone(dict[str, Any]):
        """In place of the engine's networks: the transformer, which needs none."""

        device = torch.device("cpu")

    device, (family, _, request) = task.device(), task.opened()
    path, dtype = Path(task.folder) / "transformer", dtype_of("transformer", device)
    clock = Clock(device)
    config = CachingTransformer.load_config(str(path))
    module = empty_module(lambda: CachingTransformer.from_config(config), dtype)
    load_resident(module, path, torch.device("cpu"))
    module.to(dtype)
    swap_dynamically(module, device)
    clock.end("load")
    networks = Alone(transformer=module)
    networks.device = device
    others = {role: _other(role, Path(task.folder) / role) for role in OTHERS}
    model = Assembled(settings_of(family.spec), networks, others)  # type: ignore[arg-type]
    held = torch.load(Path(task.work) / "held.pt", weights_only=False)  # written by the process before this one
    loop = Loop(model, request)
    loop._conditions = held["conditions"]
    clock.end("handover")
    latents, _ = loop._denoised(State(0, held["tensors"]), loop.request.seed)
    clock.end("denoise")
    return {"phases": clock.rows, **compared(latents.cpu(), Path(task.work) / "latents.pt")}


CHILDREN = {"plan": plan, "studio": studio, "dynamic-swap": dynamic_swap}


def call(what: str, task: Task) -> dict[str, Any]:
    """Run it in a process of its own."""
    told = json.dumps([what, vars(task)])
    command = [sys.executable, "-W", "ignore", str(Path(__file__).resolve()), "--child", told]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{what}: {done.stderr.strip()[-2000:] or done.returncode}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def against(phases: dict[str, Any], made: dict[str, Any], key: str) -> None:
    """Add the planner's figures; ``encode`` is the most of its stages, and the sum of their seconds."""
    for name, row in phases.items():
        stages = [
            one for one in made["phases"] if one["name"] == name or (name == "encode" and one["name"] not in phases)
        ]
        row["planned_stages"] = [one["name"] for one in stages]
        row["forecast_bytes"] = max(one[key] for one in stages)
        row["forecast_seconds"] = sum(one["seconds"] or 0.0 for one in stages)
        row["forecast_ratio"] = round(row["forecast_bytes"] / max(1, row["peak_bytes"]), 3)


def measure(options: argparse.Namespace, folder: Path, work: Path, vram: float) -> dict[str, Any]:
    written = write_model(options.size, folder)
    task = Task(options.size, str(folder), str(work), options.steps, vram)
    before = psutil.getloadavg()
    task.plan = call("plan", task)
    one, other = call("studio", task), call("dynamic-swap", task)
    against(one["phases"], task.plan, "vram_bytes" if vram else "ram_bytes")
    own, swapped = (said["phases"]["denoise"]["seconds"] for said in (one, other))
    return {
        "what": "one section of a film by phases against the forecast, and its denoising against DynamicSwap",
        "command": " ".join(["python scripts/bench_film.py", *sys.argv[1:]]),
        "weights": "random",
        "when": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        "load_average": {"before": before, "after": psutil.getloadavg()},
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers", "safetensors")},
        "model": {"shapes_of": MODELS[options.size], "weight_bytes": written, "steps": options.steps, "cap_gib": vram},
        "peaks_are": "reserved memory of the card" if vram else "resident memory of the process",
        "plan": task.plan["settings"],
        "studio": one,
        "dynamic_swap": other,
        "dynamic_swap_by_studio_denoise_seconds": round(swapped / own, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    card = torch.cuda.is_available()
    parser.add_argument("--size", choices=MODELS, default="full" if card else "tiny")
    parser.add_argument("--steps", type=int, help="default: 25 at full size, 4 at tiny size")
    parser.add_argument("--vram", type=float, default=6.0, help="the cap in GiB, on a card")
    parser.add_argument("--weights", type=Path, help="folder for the random weights; kept and used again")
    parser.add_argument("--out", type=Path, help="default: benchmarks/film_section_<cpu or cuda>.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        what, told = json.loads(options.child)
        print(json.dumps(CHILDREN[what](Task(**told))))
        return
    if options.size == "full" and not card:
        parser.error("full size needs a card, and there is none: --size tiny")
    options.steps = options.steps or (25 if options.size == "full" else 4)
    with tempfile.TemporaryDirectory() as scratch:
        folder = (options.weights or Path(scratch) / "weights").absolute() / options.size
        folder.mkdir(parents=True, exist_ok=True)
        result = measure(options, folder, Path(scratch), options.vram if card else 0.0)
    out = options.out or ROOT / "benchmarks" / f"film_section_{'cuda' if card else 'cpu'}.json"
    out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    for name, row in result["studio"]["phases"].items():
        peak, foreseen = row["peak_bytes"] / GIB, row["forecast_bytes"] / GIB
        print(f"{name:8}{row['seconds']:9.2f} s  peak {peak:6.2f} GiB, forecast {foreseen:6.2f} GiB")
    print(f"denoising by DynamicSwap / by Studio: {result['dynamic_swap_by_studio_denoise_seconds']:.2f}")


if __name__ == "__main__":
    main()
