"""Forecasts against measurements: what a plan says before a model ever ran, what it takes, and what it says then.

Every model of a home that is installed (or those that are named) runs a few times, each time in a new worker process
of a fresh home, so that every run is cold. Measured here, apart from the engine: the most memory of the worker by
looking at it from outside, every 20 ms, and the seconds that the job tells. The aim: a peak between 1.00 and 1.10 of
what is measured. Prints a table and writes `benchmarks/forecast_cpu.json`.

    python scripts/bench_forecast.py                       # what is installed in STUDIO_HOME
    python scripts/bench_forecast.py --models DIR starter-text --runs 5
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from studio import Studio
from studio.events import Done
from studio.hardware import probe
from studio.units import format_bytes, format_seconds

ROOT = Path(__file__).resolve().parents[1]
TEXT = {"prompt": "The history of the lighthouse begins long before electric light. In the ancient world,"}
REQUESTS: dict[str, list[dict[str, Any]]] = {
    "text-llm": [
        {**TEXT, "completion": True, "context": 1024, "max_tokens": 100},
        {**TEXT, "completion": True, "context": 8192, "max_tokens": 100},
    ],
    "image-diffusion": [{"prompt": "a lighthouse on a cliff"}],
}


class Outside(threading.Thread):
    """The most resident memory that any child of this process has had, seen from here."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0
        self._ended = threading.Event()

    def run(self) -> None:
        me = psutil.Process()
        while not self._ended.wait(0.02):
            for child in me.children():
                try:
                    self.most = max(self.most, child.memory_info().rss)
                except psutil.Error:
                    continue

    def stop(self) -> int:
        self._ended.set()
        self.join()
        return self.most


def forecast(home: Path, model: str, request: dict[str, Any]) -> dict[str, Any]:
    with Studio(home, executor="inline") as studio:
        plan = studio.forecast(model, **request)
    return {
        "peak_ram_bytes": plan.peak_ram_bytes,
        "peak_vram_bytes": plan.peak_vram_bytes,
        "seconds": plan.seconds,
        "phases": {phase.name: phase.seconds for phase in plan.phases},
        "basis": plan.basis,
    }


def measured(home: Path, model: str, request: dict[str, Any], seed: int) -> dict[str, Any]:
    """One job in a worker of its own."""
    outside = Outside()
    outside.start()
    with Studio(home) as studio:
        job = studio.submit(model, **request, seed=seed)
        made = job.result()
        [done] = [event for event in job.events() if isinstance(event, Done)]
    whole = done.seconds["load"] + done.seconds["generate"]
    return {
        "peak_ram_bytes": outside.stop(),
        "seconds": whole,
        "phases": done.seconds,
        "info": {name: made[0].info[name] for name in ("completion_tokens", "tokens_per_s") if name in made[0].info},
    }


def compare(models: Path, model: str, request: dict[str, Any], runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        (home / "models").symlink_to(models.absolute())
        before = forecast(home, model, request)
        rows = [measured(home, model, request, seed) for seed in range(1, runs + 1)]
        after = forecast(home, model, request)
        later = measured(home, model, request, runs + 1)
    peak = max(row["peak_ram_bytes"] for row in [*rows, later])
    took = statistics.median(row["seconds"] for row in rows)
    return {
        "model": model,
        "request": request,
        "forecast_before": before,
        "measured": rows,
        "forecast_after": after,
        "measured_after": later,
        "peak_ratio_before": round(before["peak_ram_bytes"] / peak, 3),
        "peak_ratio_after": round(after["peak_ram_bytes"] / peak, 3),
        "seconds_ratio_before": round(before["seconds"] / took, 3) if before["seconds"] else None,
        "seconds_ratio_after": round(after["seconds"] / took, 3) if after["seconds"] else None,
        "seconds_ratio_of_the_next_run": round(after["seconds"] / later["seconds"], 3) if after["seconds"] else None,
    }


def installed(models: Path, named: list[str]) -> list[tuple[str, str]]:
    """Models and their families, as far as this script has a request for them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "models").symlink_to(models.absolute())
        with Studio(Path(folder), executor="inline") as studio:
            found = [(spec.id, spec.pipeline) for spec in studio.models if studio.weights.installed(spec) is not None]
    return [one for one in found if one[1] in REQUESTS and (not named or one[0] in named)]


def show(row: dict[str, Any]) -> None:
    took = statistics.median(one["seconds"] for one in row["measured"])
    peak = max(one["peak_ram_bytes"] for one in row["measured"])
    request = {name: value for name, value in row["request"].items() if name != "prompt"}
    print(f"{row['model']} {request}")
    for label, figures in (("before", row["forecast_before"]), ("after", row["forecast_after"])):
        print(
            f"  forecast {label:7} {format_bytes(figures['peak_ram_bytes']):>10}  {format_seconds(figures['seconds'])}"
        )
    print(f"  measured         {format_bytes(peak):>10}  {format_seconds(took)}")
    print(f"  peak forecast / measured: {row['peak_ratio_before']} before, {row['peak_ratio_after']} after")
    print(f"  time forecast / measured: {row['seconds_ratio_before']} before, {row['seconds_ratio_after']} after")


def versions() -> dict[str, str]:
    found = {"python": sys.version.split()[0]}
    for name in ("torch", "llama-cpp-python", "diffusers"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("named", nargs="*", metavar="MODEL", help="default: all that are installed and known here")
    parser.add_argument("--models", type=Path, help="the folder of models; default: that of STUDIO_HOME")
    parser.add_argument("--runs", type=int, default=4)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "forecast_cpu.json")
    options = parser.parse_args()
    if options.models is None:
        with Studio(executor="inline") as studio:
            options.models = studio.home.models
    machine = probe()
    found = installed(options.models, options.named)
    if not found:
        sys.exit(f"None of these models is installed in {options.models}.")
    rows = []
    for model, pipeline in found:
        for request in REQUESTS[pipeline]:
            rows.append(compare(options.models, model, request, options.runs))
            show(rows[-1])
    result = {
        "what": "forecasts of peak memory and seconds against measurement; each run is cold, in a worker of its own",
        "command": "python " + " ".join(["scripts/bench_forecast.py", *options.named, "--runs", str(options.runs)]),
        "machine": {
            "processor": machine.processor,
            "cores": machine.cores,
            "memory": format_bytes(machine.ram_total_bytes),
            "system": machine.system,
            "cards": [gpu.name for gpu in machine.gpus],
        },
        "busy": f"load average {psutil.getloadavg()[0]:.1f}",
        "when": time.strftime("%Y-%m-%d"),
        "versions": versions(),
        "rows": rows,
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
