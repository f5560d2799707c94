"""``studio status``, ``pause`` and ``resume``: what the house is doing, from any terminal."""

from __future__ import annotations

import json
from typing import Any

import typer
from filelock import FileLock, Timeout

from studio import hardware
from studio.core import Studio
from studio.jobs.model import JobRow
from studio.units import format_bytes


def show_status(as_json: bool) -> None:
    with Studio() as studio:
        machine = hardware.probe(studio.home.root)
        counts = studio.queue.counts()
        running = studio.jobs.find(states=["running"])
        working = _somebody_works(studio)
        facts: dict[str, Any] = {
            "home": str(studio.home.root),
            "paused": studio.queue.paused,
            "working": working,
            "running": [row.id for row in running],
            "jobs": counts,
            "loaded": (studio.queue.note("loaded") or []) if working else [],
            "hardware": machine.model_dump(),
        }
    if as_json:
        typer.echo(json.dumps(facts, indent=2))
        return
    typer.echo(_headline(facts["paused"] is True, working, running, counts.get("queued", 0)))
    typer.echo(f"  queued   {counts.get('queued', 0)}")
    for held in facts["loaded"]:
        typer.echo(f"  loaded   {held['model']}: {_places(held)}")
    for gpu in machine.gpus:
        typer.echo(f"  card     {gpu.name}: {format_bytes(gpu.free_bytes)} of {format_bytes(gpu.total_bytes)} free")
    if not machine.gpus:
        typer.echo("  card     none found: models run on the processor")
    typer.echo(f"  memory   {format_bytes(machine.ram_free_bytes)} of {format_bytes(machine.ram_total_bytes)} free")
    typer.echo(f"  disk     {format_bytes(machine.disk_free_bytes)} free at {studio.home.root}")


def _places(held: dict[str, Any]) -> str:
    """Where a loaded model is, as ``MemoryManager.held`` wrote it down."""
    memory = f"{format_bytes(held['ram_bytes'])} of memory"
    if held.get("parked"):
        return f"parked in memory, planned for {memory}"
    card = f"{format_bytes(held['vram_bytes'])} on the card and " if held["vram_bytes"] else ""
    return f"planned for {card}{memory}"


def _headline(paused: bool, working: bool, running: list[JobRow], waiting: int) -> str:
    if paused:
        return "Paused: no job runs, no model is loaded. To go on: studio resume"
    if running and working:
        return f"Working on {running[0].id} ({running[0].model})."
    if working:
        return "Ready, nothing runs."
    return (
        "Nobody is working. To work off the queue: studio jobs watch"
        if waiting
        else "Nobody is working, nothing waits."
    )


def _somebody_works(studio: Studio) -> bool:
    """Whether a process holds the home's lock. Taking it for a moment to ask delays nobody noticeably."""
    lock = FileLock(studio.home.runner_lock, thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def set_pause(on: bool) -> None:
    with Studio() as studio:
        studio.queue.pause(on)
        waiting = studio.queue.counts().get("queued", 0)
    if on:
        typer.echo("Paused. What was running is queued again. To go on: studio resume")
    else:
        jobs = f"{waiting} job{'s wait' if waiting > 1 else ' waits'}. To work off the queue: studio jobs watch"
        typer.echo(f"Going on; {jobs if waiting else 'nothing waits.'}")
