"""One denoising step under a memory cap: resident, diffusers' group offload, FramePack's DynamicSwap, and Studio.

Every variant is a process of its own. With a CUDA device the cap is `torch.cuda.set_per_process_memory_fraction`
(resident variants run without it, and the first one is the reference); without one, everything runs from CPU to CPU,
which compares memory, loading and reading from the disk, and says nothing of a card's speed. ``own`` is what is no
file's: pages of a mapped file are the system's to take back. Weights are random, written once as a safetensors file,
and read once by each variant.

    python scripts/bench_memory.py                                    # a tiny FramePack on CPU
    python scripts/bench_memory.py --preset framepack-small           # 1.1 B parameters, for a processor
    python scripts/bench_memory.py --preset framepack --cap-gib 6     # 12.874 B parameters, bf16, 16k tokens
    python scripts/bench_memory.py --preset framepack-4k --weights DIR --cap-gib 12 --variants resident \
        resident-compiled group-block group-leaf dynamic-swap studio studio-18 studio-compiled-18 studio-fp8-18
    python scripts/bench_memory.py --model QwenImageTransformer2DModel --config '{"num_layers": 8}' --inputs FILE

Variants: resident, resident-compiled, group-block, group-leaf, group-disk, dynamic-swap, and
studio[-compiled][-STORAGE][-disk][-N] (N blocks resident). `--preset stack` is a model of FramePack's size in torch
alone, for a machine without diffusers. Inputs are a JSON object {argument: [dtype, shape] or a number}; integers count
up, other values are noise.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import statistics
import struct
import sys
import tempfile
import time
from contextlib import ExitStack
from importlib.metadata import distributions
from math import prod
from pathlib import Path
from typing import Any

from bench_memory_models import PRESETS, stack
from watched import run_watched

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "src"))
GIB = 1024**3
USUAL = ("resident", "group-block", "group-leaf", "dynamic-swap", "studio", "studio-2")


def build(options: argparse.Namespace) -> Any:
    """The model without weights."""
    import torch

    from studio.memory.stream_blocks import empty_module

    if options.model == "stack":
        return empty_module(lambda: stack(**options.config), torch.bfloat16)
    import diffusers

    kind = getattr(diffusers, options.model)
    return empty_module(lambda: kind.from_config(options.config), torch.bfloat16)


def write_weights(module: Any, folder: Path) -> int:
    """Random bf16 weights, written as they are made: 64 MB of noise again and again. Returns their bytes."""
    import torch

    header, total, path = {}, 0, folder / "weights.safetensors"
    for name, value in module.named_parameters():
        end = total + 2 * value.numel()
        header[name] = {"dtype": "BF16", "shape": list(value.shape), "data_offsets": [total, end]}
        total = end
    text = json.dumps(header).encode()
    if path.is_file() and path.stat().st_size == 8 + len(text) + total:
        return total
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    noise = (torch.randn(32 * 1024**2) * 0.02).bfloat16().view(torch.uint8).numpy().data
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        left = total
        while left:
            left -= file.write(noise[: min(len(noise), left)])
    return total


def make_inputs(spec: dict[str, Any], device: Any) -> dict[str, Any]:
    import torch

    random = torch.Generator().manual_seed(1)
    found: dict[str, Any] = {}
    for name, value in spec.items():
        if not isinstance(value, list):
            found[name] = value
        elif value[0] == "bool":
            found[name] = torch.ones(value[1], dtype=torch.bool, device=device)
        elif value[0].startswith("int"):
            found[name] = torch.arange(prod(value[1])).view(value[1]).to(device)
        else:
            found[name] = torch.randn(value[1], generator=random).to(device, getattr(torch, value[0]))
    return found


def load_resident(module: Any, folder: Path, device: Any) -> None:
    """Weights straight to ``device``, as a library would that has room for them."""
    from safetensors.torch import load_file

    state = load_file(folder / "weights.safetensors", device=str(device))
    module.load_state_dict({k: v.clone() if v.device.type == "cpu" else v for k, v in state.items()}, False, True)
    for owner in module.modules():
        for name, value in owner._buffers.items():
            owner._buffers[name] = None if value is None else value.to(device)


def swap_dynamically(module: Any, device: Any) -> None:
    """FramePack's rule (`diffusers_helper/memory.py`, DynamicSwapInstaller): every access to a weight copies it."""

    def swapping(kind: Any) -> Any:
        def __getattr__(self: Any, name: str) -> Any:
            for table in ("_parameters", "_buffers"):
                value = self.__dict__[table].get(name)
                if value is not None:
                    return value.to(device)
            return kind.__getattr__(self, name)

        return type(f"Swapping{kind.__name__}", (kind,), {"__getattr__": __getattr__})

    for child in list(module.modules()):
        child.__class__ = swapping(type(child))


def compile_blocks(module: Any) -> None:
    """Each block's forward, so that whatever moves weights stays outside."""
    import torch

    from studio.memory.stream_blocks import find_blocks

    torch._dynamo.config.recompile_limit = 64
    for name in find_blocks(module):
        block = module.get_submodule(name)
        block.forward = torch.compile(block.forward)


def plain_read(folder: Path) -> float:
    """Seconds to read the file into a buffer again and again: what setting up is compared with, just before it, so that
    both find the same of it in the page cache."""
    buffer, begun = memoryview(bytearray(64 * 1024**2)), time.perf_counter()
    with (folder / "weights.safetensors").open("rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - begun


def prepare(variant: str, module: Any, folder: Path, device: Any, stack: ExitStack) -> dict[str, Any]:
    """Bring the weights as the variant does. Returns what it says of itself."""
    import torch

    if "compiled" in variant:
        compile_blocks(module)
    if variant.startswith("resident"):
        load_resident(module, folder, device)
    elif variant.startswith("group"):
        from diffusers.hooks.group_offloading import apply_group_offloading

        load_resident(module, folder, torch.device("cpu"))
        level, count = {"group-leaf": ("leaf_level", None)}.get(variant, ("block_level", 1))
        kept = stack.enter_context(tempfile.TemporaryDirectory(dir=folder)) if variant == "group-disk" else None
        apply_group_offloading(
            module, device, torch.device("cpu"), level, count, use_stream=device.type == "cuda",
            offload_to_disk_path=kept,
        )  # fmt: skip
    elif variant == "dynamic-swap":
        load_resident(module, folder, torch.device("cpu"))
        swap_dynamically(module, device)
    else:
        from studio.memory.slabs import load_slabs
        from studio.memory.streaming import streamed

        match = re.fullmatch(r"studio(-compiled)?(-fp8|-int8|-nf4-dq|-nf4)?(-disk)?(?:-(\d+))?", variant)
        if match is None:
            raise SystemExit(f"There is no variant {variant}.")
        storage, resident = (match[2] or "-plain")[1:], int(match[4] or 0)
        plain_s = plain_read(folder)
        begun = time.perf_counter()
        slabs = stack.enter_context(load_slabs(folder, module, storage=storage, mapped=bool(match[3])))  # type: ignore[arg-type]
        read_s = time.perf_counter() - begun
        stream = stack.enter_context(streamed(module, slabs=slabs, device=device, resident=resident))
        held = stream.device_bytes
        return {
            "slab_bytes": slabs.size_bytes,
            "read_s": read_s,
            "plain_read_s": plain_s,
            "setup_ratio": round((time.perf_counter() - begun) / plain_s, 2),
            "weights_on_device_bytes": held.total,
            "stream": stream,
        }
    return {}


def work(options: argparse.Namespace) -> dict[str, Any]:
    """One variant in this process: load, some steps, and its output against the reference's."""
    import torch

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    wait: Any = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    if options.cap_gib:
        whole = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, options.cap_gib * GIB / whole))
    if device.type == "cpu":
        torch.set_num_threads(1)  # or threads that wait for each other on a busy machine are what is measured
    module, folder = build(options), Path(options.weights)
    steps, begun = [], time.perf_counter()
    with ExitStack() as stack, torch.no_grad():
        said = prepare(options.variant, module, folder, device, stack)
        inputs = make_inputs(options.inputs, device)
        wait()
        load_s = time.perf_counter() - begun - said.get("plain_read_s", 0.0)
        for _ in range(options.steps + 1):
            begun = time.perf_counter()
            output = module(**inputs)
            result = output[0] if isinstance(output, tuple) else output.sample
            wait()
            steps.append(time.perf_counter() - begun)
        if "stream" in said:
            stream = said.pop("stream")
            said["misses"], said["copied_bytes"] = stream.misses, stream.copied_bytes
        row = {"load_s": load_s, "first_step_s": steps[0], "step_s": statistics.median(steps[1:]), **said}
        if device.type == "cuda":
            row["peak_reserved_bytes"] = torch.cuda.max_memory_reserved()
            row["within_cap"] = not options.cap_gib or row["peak_reserved_bytes"] <= options.cap_gib * GIB
        return {**row, **compared(result.float().cpu(), Path(options.reference))}


def compared(result: Any, reference: Path) -> dict[str, Any]:
    import torch

    finite = bool(torch.isfinite(result).all())
    if not reference.exists():
        torch.save(result, reference)
        return {"finite": finite}
    other = torch.load(reference, weights_only=True)
    return {
        "finite": finite,
        "equal": torch.equal(result, other),
        "relative_difference": float((result - other).norm() / other.norm()),
    }


def machine() -> dict[str, Any]:
    """Where this ran. On CUDA, with the bus measured: 1 GiB from pinned memory, the best of five."""
    import torch

    found: dict[str, Any] = {
        "system": platform.platform(),
        "cores": os.cpu_count(),
        "ram_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
    }
    if torch.cuda.is_available():
        host = torch.empty(GIB, dtype=torch.uint8, pin_memory=True)
        card, times = host.to("cuda"), []
        for _ in range(5):
            torch.cuda.synchronize()
            begun = time.perf_counter()
            card.copy_(host, non_blocking=True)
            torch.cuda.synchronize()
            times.append(time.perf_counter() - begun)
        del host, card
        torch.cuda.empty_cache()  # the variants' processes need the card
        name, memory = torch.cuda.get_device_name(), torch.cuda.mem_get_info()[1]
        found |= {"gpu": name, "vram_bytes": memory, "pinned_bytes_per_s": round(GIB / min(times))}
    return found


def run_variant(variant: str, options: argparse.Namespace, reference: Path) -> dict[str, Any]:
    # What is resident has the whole card, and so has the reference, whatever it is.
    cap = 0 if variant.startswith("resident") or not reference.exists() else options.cap_gib
    told = {name: getattr(options, name) for name in ("model", "config", "inputs", "steps")}
    told |= {"variant": variant, "cap_gib": cap, "weights": str(options.weights), "reference": str(reference)}
    command = [sys.executable, str(Path(__file__).resolve()), "--worker", json.dumps(told)]
    done = run_watched(command)
    if done.returncode:
        last = (done.err.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"variant": variant, "cap_gib": cap, "error": last[:300]}
    row = json.loads(done.out.splitlines()[-1])
    return {
        "variant": variant,
        "cap_gib": cap,
        **row,
        "peak_ram_bytes": done.most_bytes,
        "peak_own_ram_bytes": done.own_bytes,
    }


def table(rows: list[dict[str, Any]]) -> str:
    lines = [f"{'variant':<24}{'cap GiB':>8}{'s/step':>10}{'load s':>9}{'GPU GiB':>9}{'RAM GiB':>9}{'own':>7}  output"]
    for row in rows:
        if "error" in row:
            lines.append(f"{row['variant']:<24}{row['cap_gib'] or '-':>8}  {row['error']}")
            continue
        card = f"{row['peak_reserved_bytes'] / GIB:.2f}" if "peak_reserved_bytes" in row else "-"
        same = (
            "reference" if "equal" not in row else "equal" if row["equal"] else f"{row['relative_difference']:.1e} off"
        )
        lines.append(
            f"{row['variant']:<24}{row['cap_gib'] or '-':>8}{row['step_s']:>10.4f}{row['load_s']:>9.2f}{card:>9}"
            f"{row['peak_ram_bytes'] / GIB:>9.2f}{row['peak_own_ram_bytes'] / GIB:>7.2f}  {same}"
        )
    return "\n".join(lines)


def versions() -> dict[str, str]:
    found = {package.name: package.version for package in distributions()}
    names = ("torch", "diffusers", "safetensors")
    return {"python": sys.version.split()[0], **{name: found.get(name, "none") for name in names}}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="tiny")
    parser.add_argument("--model", help="a diffusers class, instead of the preset's")
    parser.add_argument("--config", type=json.loads, help="JSON, instead of the preset's")
    parser.add_argument("--inputs", help="JSON or a file with it, instead of the preset's")
    parser.add_argument("--variants", nargs="+", default=list(USUAL))
    parser.add_argument("--cap-gib", type=float, default=6.0)
    parser.add_argument("--steps", type=int, default=3, help="measured, after one that is not")
    parser.add_argument("--weights", type=Path, help="folder for the random weights; kept and used again")
    parser.add_argument("--out", type=Path, help="default: benchmarks/memory_<cpu or the cap>.json")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    model, config, inputs = PRESETS[options.preset]
    options.model, options.config = options.model or model, config if options.config is None else options.config
    text = options.inputs and (options.inputs if options.inputs.startswith("{") else Path(options.inputs).read_text())
    options.inputs = json.loads(text) if text else inputs
    return options


def main() -> None:
    options = parse()
    if options.worker:
        print(json.dumps(work(argparse.Namespace(**json.loads(options.worker)))))
        return
    with tempfile.TemporaryDirectory() as folder:
        options.weights = options.weights or Path(folder) / "weights"
        module = build(options)
        size = write_weights(module, options.weights)
        where = machine()
        options.cap_gib *= "gpu" in where
        rows = [run_variant(variant, options, Path(folder) / "reference.pt") for variant in options.variants]
    result = {
        "what": "seconds per denoising step of one model, by how its weights are kept; random weights",
        "command": "python " + " ".join(["scripts/bench_memory.py", *sys.argv[1:]]),
        "machine": where,
        "versions": versions(),
        "model": {"class": options.model, "config": options.config, "weight_bytes": size, "inputs": options.inputs},
        "rows": rows,
    }
    name = f"memory_{options.preset}_{options.cap_gib:g}gib.json" if "gpu" in where else "memory_cpu.json"
    out = options.out or ROOT / "benchmarks" / name
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=2) + "\n")
    print(table(rows))


if __name__ == "__main__":
    main()
