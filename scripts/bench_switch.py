"""Switching between a text model and an image model under one budget: does memory come back, and what does it cost?

The budget holds one of the two at a time, so every request unloads what the one before it loaded. Writes
``benchmarks/switch_cpu.json``: the process's memory after every tenth switch, and seconds for loading each.

Run: ``python scripts/bench_switch.py [--switches 200] [--models .cache/test-home/models]``
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import statistics
import tempfile
import time
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import psutil

from studio import hardware
from studio.events import Artefact, Done, Failed
from studio.jobs.execute import Engine
from studio.jobs.model import Task
from studio.pipeline import Budget
from studio.store.home import Home
from studio.units import GIB, MIB, format_bytes

ROOT = Path(__file__).resolve().parents[1]
RESULT = ROOT / "benchmarks" / "switch_cpu.json"
REQUESTS = (
    ("starter-text", {"prompt": "Name one colour.", "max_tokens": 4, "seed": 1}),
    ("starter-image", {"prompt": "a red apple", "steps": 2, "seed": 1, "preview_every": 0}),
)


def run(engine: Engine, number: int, model: str, params: dict[str, object]) -> tuple[str, float]:
    """One request: the content it made, as a path's bytes would tell, and the seconds that loading took."""
    made, load_s = b"", 0.0
    for event in engine.run(Task(job_id=f"switch-{number}", model=model, params=params, attempt=1), lambda: False):
        if isinstance(event, Failed):
            raise SystemExit(f"{model}: {event.error} {event.hint}")
        if isinstance(event, Artefact):
            made = Path(event.path).read_bytes()
            Path(event.path).unlink()
        if isinstance(event, Done):
            load_s = event.seconds["load"]
    return made.hex(), load_s


def switches(engine: Engine, count: int) -> tuple[list[int], dict[str, list[float]]]:
    """Memory in bytes after every tenth switch, and seconds of loading by model. The results never change."""
    process, sizes = psutil.Process(), list[int]()
    loads: dict[str, list[float]] = {model: [] for model, _ in REQUESTS}
    first: dict[str, str] = {}
    for number in range(count):
        model, params = REQUESTS[number % len(REQUESTS)]
        made, load_s = run(engine, number, model, params)
        assert first.setdefault(model, made) == made, f"{model} made something else at switch {number}"
        assert load_s > 0 and [held.model for held in engine.memory.held()] == [model], "the other one is still loaded"
        loads[model].append(load_s)
        if number % 10 == 9:
            gc.collect()
            sizes.append(process.memory_info().rss)
            print(f"{number + 1:4} switches: {format_bytes(sizes[-1])}", flush=True)
    return sizes, loads


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--switches", type=int, default=200)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "test-home" / "models")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Home(folder)
        home.models.rmdir()
        home.models.symlink_to(options.models.resolve(), target_is_directory=True)
        engine = Engine(home)
        # Room for either, and never for both: whatever is loaded leaves too little for the other.
        free = engine.memory._free

        def either() -> Budget:
            return free().model_copy(update={"ram_bytes": 300 * MIB if engine.memory.held() else 3 * GIB})

        engine.memory._free = either
        begun = time.perf_counter()
        sizes, loads = switches(engine, options.switches)
    settled = sizes[len(sizes) // 10 :]
    result = {
        "what": "a text model and an image model in turns, in one process whose budget holds one of them",
        "command": f"python scripts/bench_switch.py --switches {options.switches}",
        "machine": hardware.probe().processor + f", {os.cpu_count()} cores, no card",
        "versions": {"python": platform.python_version(), "torch": version("torch"), "diffusers": version("diffusers")},
        "when": datetime.now(UTC).strftime("%Y-%m-%d"),
        "busy": f"load average {psutil.getloadavg()[0]:.1f}",
        "rss_bytes": sizes,
        "growth_bytes": settled[-1] - settled[0],
        "load_s_median": {model: statistics.median(values) for model, values in loads.items()},
        "seconds": time.perf_counter() - begun,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    print(f"from switch {10 * (len(sizes) // 10 + 1)} on it grew by {format_bytes(max(0, result['growth_bytes']))}")


if __name__ == "__main__":
    main()
