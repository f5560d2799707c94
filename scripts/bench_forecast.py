"""Forecasts against measurements: what a plan says of a model's memory before it ever ran, and what it takes.

Every run is a process of its own, so that it is cold. It is watched from outside: the most memory that it ever had by
the kernel's count, and every 20 ms its children and what is no file's. For each model: forecasts of all requests before
anything ran, and of small models each request in a home of its own, where it is the first (which also measures the
machine); then in one home the first request, forecasts again, which now know what that one took, and all the other
requests, which nothing was learned from.
With a card, two models of full size are measured there within three caps (``_vram``): what torch reserved and what the
driver counts besides, against the plan's peak. **That part has not run on a card yet.**
The aim: a peak between 1.00 and 1.10 of what is measured. ``_ram`` caps what the plan may use, so that weights are kept
in fewer bits (balanced) or come from the disk (quality); what is read from mapped files is the system's to take back,
so there the memory of the process's own is what counts. Prints a table and writes ``benchmarks/forecast_cpu.json``.

    python scripts/bench_forecast.py --models DIR starter-text starter-image
    python scripts/bench_forecast.py --models DIR                # all, with two large random ones (6 GB of disk)
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil
import yaml

from forecast_models import MODELS, entry, write_model
from studio.hardware import probe
from studio.units import GIB, format_bytes, format_seconds
from watched import run_watched

ROOT = Path(__file__).resolve().parents[1]
TEXT = {"prompt": "The history of the lighthouse begins long before electric light. In the ancient world,"}
APPLE, SMALL = {"prompt": "a red apple"}, {"prompt": "a red apple", "width": 256, "height": 256, "preview_every": 0}
# Of each model the first request is the one that is learned from. ``_ram`` (GiB) and ``_prefer`` are of the plan.
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "starter-text": [
        {**TEXT, "completion": True, "context": 1024, "max_tokens": 60},
        {**TEXT, "completion": True, "context": 8192, "max_tokens": 60},
        {**TEXT, "context": 2048, "max_tokens": 20},
    ],
    "starter-image": [
        APPLE,
        {**APPLE, "steps": 4},
        {**APPLE, "width": 128, "height": 128, "steps": 4, "num_images": 2},
        {**APPLE, "width": 256, "height": 256, "steps": 2},
    ],
    "starter-upscale": [{"image": 64}, {"image": 256}, {"image": 192, "scale": 2}],
    "starter-video": [
        {"image": 64, "prompt": "slides right", "seconds": 1.2},
        {"image": 64, "prompt": "slides right", "seconds": 2.4},
        {"image": 64, "prompt": "slides right", "seconds": 4.8},
    ],
    "wide-unet": [
        {**SMALL, "steps": 2},
        {**SMALL, "width": 512, "steps": 1},
        {**SMALL, "steps": 1, "num_images": 2},
        {**SMALL, "steps": 1, "_ram": 3.0},
        {**SMALL, "steps": 1, "_ram": 3.0, "_prefer": "quality"},
    ],
    "joint-dit": [
        {**SMALL, "steps": 1},
        {**SMALL, "width": 384, "height": 384, "steps": 1},
        {**SMALL, "steps": 1, "_ram": 2.5},
        {**SMALL, "steps": 1, "_ram": 2.5, "_prefer": "quality"},
    ],
}

ON_A_CARD: dict[str, list[dict[str, Any]]] = {
    name: [{"prompt": "a red apple", "preview_every": 0, "steps": 4, "_vram": cap} for cap in (6.0, 12.0, 24.0)]
    for name in ("full-unet", "full-dit")
}


def call(home: Path, model: str, requests: list[dict[str, Any]], *, runs: bool) -> list[dict[str, Any]]:
    """Forecast requests, or run one, in a process of its own; what it says, and what it was seen to take."""
    command = [sys.executable, "-W", "ignore", __file__, "--child", json.dumps([str(home), model, requests, runs])]
    ended = run_watched(command)
    lines = ended.out.splitlines()
    if ended.returncode or not lines:
        sys.exit(f"{model} {requests}: the child ended with {ended.returncode}\n{ended.err[-2000:]}")
    told: list[dict[str, Any]] = json.loads(lines[-1])
    return [{**one, "rss_bytes": ended.most_bytes, "own_bytes": ended.own_bytes} for one in told] if runs else told


def child(home: str, model: str, requests: list[dict[str, Any]], runs: bool) -> None:
    """In the process that is watched."""
    told = [(ran if runs else foreseen)(Path(home), model, request) for request in requests]
    print(json.dumps(told))


def engine_of(home: Path, request: dict[str, Any]) -> Any:
    """The engine as a worker has it, within the request's limits."""
    from studio.jobs.execute import Engine
    from studio.store.home import Home

    engine = Engine(Home(home), alone=True)
    caps = {f"{name[1:]}_bytes": int(request[name] * GIB) for name in ("_ram", "_vram") if name in request}
    if caps:
        free, engine.memory._own = engine.memory._free, lambda: (None, None)
        engine.memory._free = lambda: free().model_copy(update=caps)
    return engine


def params_of(home: Path, request: dict[str, Any]) -> dict[str, Any]:
    params = {name: value for name, value in request.items() if not name.startswith("_")}
    if "image" in params:
        params["image"] = str(_picture(home, params["image"]))
    return {"seed": 1, **params} if "prompt" in params else params


def foreseen(home: Path, model: str, request: dict[str, Any]) -> dict[str, Any]:
    from studio.forms import validate
    from studio.memory.plan_request import make_plan

    engine = engine_of(home, request)
    spec = engine.catalogue.get(model)
    family = engine.registry.get(spec.pipeline)
    pipeline = engine._made(family, spec, engine.catalogue.files(spec, engine.models.require) or {})
    params, budget = validate(family.Params, params_of(home, request), model=model), engine.memory.budget()
    prefer = request.get("_prefer", "balanced")
    made = make_plan(pipeline, params, budget, prefer, resolve=engine._resolve, known=engine._known).plan
    held = {
        name: {key: one[key] for key in ("precision", "blocks", "resident", "disk_bytes")}
        for name, one in made.settings.get("networks", {}).items()
    }
    found = {"ram_bytes": made.peak_ram_bytes, "seconds": made.seconds, "networks": held}
    return {**found, "vram_bytes": made.peak_vram_bytes} if made.peak_vram_bytes else found


def ran(home: Path, model: str, request: dict[str, Any]) -> dict[str, Any]:
    """The engine's own way, as in a worker."""
    from studio.events import Artefact, Done, Failed
    from studio.jobs import execute
    from studio.jobs.model import Task
    from studio.memory.watching import Peaks

    execute.make_plan = partial(execute.make_plan, prefer=request.get("_prefer", "balanced"))  # type: ignore[assignment]
    told: dict[str, Any] = {}
    watched: list[Peaks] = []

    def watch(*, card: bool) -> Peaks:
        watched.append(Peaks(card=card))
        return watched[-1]

    execute.Peaks = watch  # type: ignore[assignment, misc]
    task = Task(job_id="job", model=model, params=params_of(home, request), attempt=1)
    for event in engine_of(home, request).run(task, lambda: False):
        if isinstance(event, Failed):
            sys.exit(f"{event.error} {event.hint}")
        if isinstance(event, Artefact):
            Path(event.path).unlink()
        if isinstance(event, Done):
            told = {"seconds": event.seconds}
    vram = watched[-1].vram if watched else None
    return told if vram is None else {**told, "vram_bytes": vram}


def _picture(home: Path, side: int) -> Path:
    from PIL import Image

    path = home / f"{side}.png"
    if not path.exists():
        Image.linear_gradient("L").resize((side, side)).convert("RGB").save(path)
    return path


def home_of(scratch: Path, name: str, options: argparse.Namespace) -> Path:
    """A home without any memory of its own; of a random model with the entry that names its files."""
    home = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=scratch))
    (home / "models").symlink_to(options.models.absolute())
    if name in MODELS:
        folder = write_model(name, (options.large or scratch) / name)
        (home / "models.yaml").write_text(yaml.safe_dump([entry(name, folder.absolute())]))
    return home


def compare(model: str, new_home: Callable[[], Path]) -> list[dict[str, Any]]:
    """Every request of a model: foreseen before anything ran, measured, and foreseen once the first one had run."""
    requests, home = {**REQUESTS, **ON_A_CARD}[model], new_home()
    before = call(home, model, requests, runs=False)
    first = [] if model in MODELS else [call(new_home(), model, [request], runs=True)[0] for request in requests]
    learned = call(home, model, requests[:1], runs=True)[0]
    after = call(home, model, requests, runs=False)
    again = {"seed": 2} if "prompt" in requests[0] else {}  # a film's sections are kept: the same one is not made twice
    rows = []
    for number, request in enumerate(requests):
        seen = learned if number == 0 and model in MODELS else call(home, model, [{**request, **again}], runs=True)[0]
        from_disk = any(one["disk_bytes"] for one in before[number]["networks"].values())
        what, counted, planned = "resident memory", "rss_bytes", "ram_bytes"
        if "vram_bytes" in before[number]:
            what, counted, planned = "the card", "vram_bytes", "vram_bytes"
        elif from_disk:
            what, counted = "memory of its own", "own_bytes"
        alone = first[number] if first else seen
        rows.append(
            {
                "model": model,
                "request": request,
                "learned_from": number == 0,
                "networks": before[number]["networks"],
                "counts": what,
                "forecast_before_bytes": before[number][planned],
                "measured_as_the_first_bytes": alone[counted],
                "ratio_before": round(before[number][planned] / alone[counted], 3),
                "forecast_after_bytes": after[number][planned],
                "measured_bytes": seen[counted],
                "ratio_after": round(after[number][planned] / seen[counted], 3),
                "measured": seen,
                "seconds_before": before[number]["seconds"],
                "seconds_after": after[number]["seconds"],
            }
        )
        show(rows[-1])
    return rows


def show(row: dict[str, Any]) -> None:
    request = {name: value for name, value in row["request"].items() if name not in ("prompt", "completion")}
    held = {one["precision"] + (" from the disk" if one["disk_bytes"] else "") for one in row["networks"].values()}
    took = row["measured"]["seconds"]["load"] + row["measured"]["seconds"]["generate"]
    print(
        f"{row['model']:16} measured {format_bytes(row['measured_bytes']):>9} {format_seconds(took):>7}  forecast "
        f"{row['ratio_before']:.2f} before, {row['ratio_after']:.2f} after  {', '.join(sorted(held))} {request}",
        flush=True,
    )


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "llama-cpp-python", "diffusers", "transformers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def result_of(rows: list[dict[str, Any]], named: list[str]) -> dict[str, Any]:
    machine = probe()
    return {
        "what": "forecasts of peak memory against measurement; each run is cold, in a process of its own",
        "command": " ".join(["python scripts/bench_forecast.py --models DIR", *named]),
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "memory": format_bytes(machine.ram_total_bytes),
            "system": machine.system,
            "cards": [gpu.name for gpu in machine.gpus],
        },
        "busy": f"load average {psutil.getloadavg()[0]:.1f}: the seconds say little",
        "when": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "rows": rows,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    named = f"default: {', '.join(REQUESTS)}; with a card {', '.join(ON_A_CARD)}"
    parser.add_argument("named", nargs="*", metavar="MODEL", help=named)
    parser.add_argument("--models", type=Path, help="the folder of a home's models, with the starters")
    parser.add_argument("--large", type=Path, help="where the random models are written; default: a folder for once")
    parser.add_argument("--out", type=Path, help="default: benchmarks/forecast_cpu.json, or forecast_card.json")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(*json.loads(options.child))
        return
    if options.models is None:
        parser.error("--models names the folder of the starters: that of a home in which they were pulled")
    options.out = options.out or ROOT / "benchmarks" / f"forecast_{'card' if probe().gpus else 'cpu'}.json"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for model in options.named or (ON_A_CARD if probe().gpus else REQUESTS):
            rows += compare(model, partial(home_of, Path(scratch), model, options))
            options.out.parent.mkdir(exist_ok=True)
            options.out.write_text(json.dumps(result_of(rows, options.named), indent=1) + "\n")
    for when in ("before", "after"):
        ratios = [row[f"ratio_{when}"] for row in rows]
        print(f"forecast / measured: {min(ratios):.2f} to {max(ratios):.2f} {when} the first run")


if __name__ == "__main__":
    main()
