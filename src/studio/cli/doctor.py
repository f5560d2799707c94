"""``studio doctor``: what this machine has, which builds are installed, and what is wrong."""

from __future__ import annotations

import json
import platform
import shutil
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import typer

import studio as package
from studio import hardware
from studio.core import Studio
from studio.errors import StudioError
from studio.hardware import Hardware
from studio.jobs.kept import needed
from studio.store.home import Home
from studio.units import GIB, format_bytes

CUDA_BUILD = (
    'CMAKE_ARGS="-DGGML_CUDA=on" python -m pip install --force-reinstall --no-deps --no-cache-dir'
    " --no-binary llama-cpp-python llama-cpp-python"
)
_LOW_DISK_BYTES = 10 * GIB


def doctor_command(repair: bool, as_json: bool) -> int:
    """0 if all is well, 1 if something is wrong."""
    home = Home()
    machine = hardware.probe(home.root)
    llama = llama_build()
    facts = {
        "studio": package.__version__,
        "python": platform.python_version(),
        "home": str(home.root),
        "hardware": machine.model_dump(),
        "llama_cpp": llama,
        "packages": {
            name: _version(name) for name in ("torch", "diffusers", "transformers", "gradio", "huggingface_hub")
        },
    }
    faults, notes = _faults(home, repair)
    notes += _advice(machine, llama)
    if as_json:
        typer.echo(json.dumps({**facts, "faults": faults, "notes": notes}, indent=2))
        return 1 if faults else 0
    _print(facts, machine, llama)
    for note in notes:
        typer.echo(f"Note: {note}")
    for fault in faults:
        typer.echo(f"Fault: {fault}")
    typer.echo("All is well." if not faults else f"{len(faults)} fault{'s' if len(faults) > 1 else ''} found.")
    return 1 if faults else 0


def llama_build() -> dict[str, Any]:
    """Which llama-cpp-python this is: its version, whether it can use a card, and its processor features."""
    try:
        import llama_cpp
    except (ImportError, OSError, RuntimeError) as error:
        return {"version": _version("llama-cpp-python"), "build": "broken", "features": str(error)}
    gpu = bool(llama_cpp.llama_supports_gpu_offload())
    features = llama_cpp.llama_print_system_info().decode()
    names = [name for name in ("CUDA", "ROCm", "Metal", "Vulkan", "SYCL") if name.lower() in features.lower()]
    return {
        "version": version("llama-cpp-python"),
        "build": (" + ".join(names) or "GPU") if gpu else "CPU only",
        "features": features.replace(" = 1", "").strip(" |"),
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _advice(machine: Hardware, llama: dict[str, Any]) -> list[str]:
    notes = []
    if machine.gpus and llama["build"] == "CPU only":
        notes.append(f"there is an NVIDIA card, but llama.cpp was built for the processor only. Run: {CUDA_BUILD}")
    if machine.gpus and _version("torch").endswith("+cpu"):
        notes.append("there is an NVIDIA card, but torch is its CPU build: install torch from its own index for CUDA.")
    if machine.disk_free_bytes < _LOW_DISK_BYTES:
        notes.append(f"only {format_bytes(machine.disk_free_bytes)} are free on the disk of the home folder.")
    return notes


def _faults(home: Home, repair: bool) -> tuple[list[str], list[str]]:
    """What is wrong with the home, and what was mended."""
    faults: list[str] = []
    notes: list[str] = []
    try:
        studio = Studio(home.root)
    except StudioError as error:
        return [str(error)], notes
    with studio:
        if (state := studio.database.check()) != "ok":
            faults.append(f"the database is damaged: {state}. Restore {home.database} from a copy.")
        faults += studio.catalogue.faults
        for spec in studio.models:
            try:
                studio.family(spec)
            except StudioError as error:
                faults.append(str(error))
        for row in studio.jobs.find(states=["done"]):
            gone = [
                made.path
                for made in studio.artefacts.of_job(row.id)
                if not studio.home.root.joinpath(made.path).is_file()
            ]
            if gone and repair:
                studio.queue.retry(row.id)
                notes.append(f"job {row.id} is queued again: {gone[0]} was gone.")
            elif gone:
                faults.append(f"{gone[0]} is gone. To make it again: studio doctor --repair, then studio jobs watch")
        left = _left_over(studio)
        if left and repair:
            for name in left:
                shutil.rmtree(home.work / name, ignore_errors=True)
            notes.append(f"{len(left)} working folders of ended jobs were removed.")
        if repair and (freed := _clear_unread(home)):
            notes.append(
                f"{format_bytes(freed)} that an earlier version kept of films, and nothing reads, were removed."
            )
    return faults, notes


def _clear_unread(home: Home) -> int:
    """Remove what earlier versions kept where nothing looks any more; how many bytes that were."""
    folder = home.root / "cache" / "films"
    size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    shutil.rmtree(folder, ignore_errors=True)
    return 0 if folder.exists() else size


def _left_over(studio: Studio) -> list[str]:
    """Working folders whose job has ended or is not known, and of which nothing would go on."""
    return [folder.name for folder in studio.home.work.iterdir() if not needed(studio.queue, folder)]


def _print(facts: dict[str, Any], machine: Hardware, llama: dict[str, Any]) -> None:
    typer.echo(f"studio {facts['studio']}, Python {facts['python']}, {machine.system}")
    typer.echo(f"  home       {facts['home']}  ({format_bytes(machine.disk_free_bytes)} free)")
    typer.echo(f"  processor  {machine.processor}, {machine.cores} usable cores")
    typer.echo(f"  memory     {format_bytes(machine.ram_free_bytes)} of {format_bytes(machine.ram_total_bytes)} free")
    for gpu in machine.gpus:
        capability = ".".join(map(str, gpu.compute_capability))
        free = f"{format_bytes(gpu.free_bytes)} of {format_bytes(gpu.total_bytes)} free"
        typer.echo(f"  card       {gpu.name}, {free}, compute capability {capability}, driver {gpu.driver}")
    if not machine.gpus:
        typer.echo("  card       none found (no NVIDIA driver); models run on the processor")
    typer.echo(f"  llama.cpp  llama-cpp-python {llama['version']}, {llama['build']} ({llama['features']})")
    typer.echo("  packages   " + ", ".join(f"{name} {number}" for name, number in facts["packages"].items()))
