"""What the house costs: the same model through Studio's worker and through bare llama-cpp-python, side by side.

Both sides hold the model warm in a process of their own, with equal settings, and take turns (A B A B ...), so that a
machine whose speed drifts slows both. Writes ``benchmarks/core.json``. Run: ``make bench``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from studio import Studio
from studio.events import Artefact
from studio.hardware import probe

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "The history of the lighthouse begins long before electric light. In the ancient world,"
COUNTING = "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve,"
HEAVY = ("torch", "diffusers", "transformers", "llama_cpp", "gradio")


def bare(model: str, settings: dict[str, Any]) -> None:
    """The other side: answers JSON lines with JSON lines, using llama-cpp-python as its README does."""
    from llama_cpp import Llama

    llama = Llama(
        model,
        n_ctx=settings["n_ctx"],
        n_threads=settings["n_threads"],
        n_threads_batch=settings["n_threads"],
        n_batch=settings["n_batch"],
        n_ubatch=settings["n_ubatch"],
        flash_attn=True,
        verbose=False,
    )
    print("ready", flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        llama.reset()
        begun = time.perf_counter()
        stamps = [
            time.perf_counter()
            for _ in llama.create_completion(
                request["prompt"],
                max_tokens=request["max_tokens"],
                temperature=request["temperature"],
                top_p=request["top_p"],
                top_k=request["top_k"],
                min_p=request["min_p"],
                repeat_penalty=1.0,
                seed=request["seed"],
                stream=True,
            )
        ]
        wall = time.perf_counter() - begun
        print(json.dumps({"stamps": [stamp - begun for stamp in stamps], "wall_s": wall}), flush=True)


class Bare:
    """A warm process that runs ``bare``."""

    def __init__(self, model: Path, settings: dict[str, Any]) -> None:
        command = [sys.executable, __file__, "--bare", str(model), json.dumps(settings)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.ask_line()

    def ask_line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline()

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        answer: dict[str, Any] = json.loads(self.ask_line())
        return answer


def through_studio(studio: Studio, request: dict[str, Any]) -> tuple[float, Artefact]:
    """Seconds from the call to the end of the job as its caller sees it, and what was made."""
    begun = time.perf_counter()
    made = studio.run("starter-text", completion=True, **request)
    return time.perf_counter() - begun, made[0]


def compare(studio: Studio, other: Bare, request: dict[str, Any], rounds: int) -> list[dict[str, float]]:
    """Paired runs: decode speed on both sides, and the wall time of the whole call."""
    rows = []
    for number in range(rounds + 1):
        turn = {**request, "seed": number}
        ours_wall, artefact = through_studio(studio, turn)
        theirs = other.ask(turn)
        stamps = theirs["stamps"]
        if number == 0:
            continue  # the first turn warms both sides
        count = artefact.info["completion_tokens"]
        rows.append(
            {
                "studio_tokens": count,
                "studio_tokens_per_s": artefact.info["tokens_per_s"],
                "studio_wall_s": ours_wall,
                "bare_tokens": len(stamps) - 1,
                "bare_tokens_per_s": (len(stamps) - 2) / (stamps[-2] - stamps[0]) if len(stamps) > 2 else 0.0,
                "bare_wall_s": theirs["wall_s"],
            }
        )
    return rows


def import_cost() -> dict[str, Any]:
    """A fresh interpreter: how long ``import studio`` and its engine take, and what they bring along."""
    code = (
        "import sys, time; begun = time.perf_counter(); import studio; light = time.perf_counter() - begun;"
        "studio.Studio; whole = time.perf_counter() - begun;"
        f"print(light, whole, *[name for name in {HEAVY!r} if name in sys.modules])"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(5)]
    rows = [run.stdout.split() for run in runs]
    return {
        "import_studio_s": statistics.median(float(row[0]) for row in rows),
        "with_engine_s": statistics.median(float(row[1]) for row in rows),
        "heavy_modules": rows[-1][2:],
    }


def measure(rounds: int, tokens: int) -> dict[str, Any]:
    sampling = {"temperature": 0.7, "top_p": 0.95, "top_k": 40, "min_p": 0.05}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        default = Studio()
        files = default.weights.require(default.models.get("starter-text"))
        (home / "models").symlink_to(default.home.models)
        default.close()
        with Studio(home) as studio:
            plan = studio.plan("starter-text", prompt=PROMPT, completion=True)
            other = Bare(files["model"], plan.settings)
            long = compare(studio, other, {"prompt": PROMPT, "max_tokens": tokens, **sampling}, rounds)
            short = compare(studio, other, {"prompt": COUNTING, "max_tokens": 1, **sampling}, rounds * 3)
            other.process.kill()
    ratios = [row["studio_tokens_per_s"] / row["bare_tokens_per_s"] for row in long]
    walls = [(row["studio_tokens"] / row["studio_wall_s"]) / (row["bare_tokens"] / row["bare_wall_s"]) for row in long]
    fixed = [row["studio_wall_s"] - row["bare_wall_s"] for row in short]
    return {
        "decode_ratio": spread(ratios),
        "whole_call_ratio": spread(walls),
        "studio_tokens_per_s": spread([row["studio_tokens_per_s"] for row in long]),
        "bare_tokens_per_s": spread([row["bare_tokens_per_s"] for row in long]),
        "fixed_cost_s": spread(fixed),
        "settings": plan.settings,
        "rounds": rounds,
        "max_tokens": tokens,
    }


def spread(values: list[float]) -> dict[str, float]:
    return {"min": round(min(values), 4), "median": round(statistics.median(values), 4), "max": round(max(values), 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bare", nargs=2, metavar=("MODEL", "SETTINGS"), help=argparse.SUPPRESS)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--tokens", type=int, default=160)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "core.json")
    options = parser.parse_args()
    if options.bare:
        bare(options.bare[0], json.loads(options.bare[1]))
        return
    machine = probe()
    result = {
        "what": "starter-text (SmolLM2-135M-Instruct Q4_1) through Studio's worker against bare llama-cpp-python",
        "command": "python " + " ".join(["scripts/bench_core.py", *sys.argv[1:]]),
        "machine": {"processor": machine.processor, "cores": machine.cores, "system": machine.system},
        "versions": {"python": sys.version.split()[0], "llama-cpp-python": version("llama-cpp-python")},
        "imports": import_cost(),
        **measure(options.rounds, options.tokens),
    }
    options.out.parent.mkdir(exist_ok=True)
    options.out.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
