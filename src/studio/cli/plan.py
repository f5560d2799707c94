"""``studio plan``: what a request, or a file of jobs, would take; nothing is loaded or downloaded."""

from __future__ import annotations

import json
import shutil
from argparse import SUPPRESS, Namespace
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import typer

from studio.batch import read_batch
from studio.cli.flags import Parser, add_fields, by_flags, parse
from studio.cli.show import table
from studio.core import Studio
from studio.errors import BadRequest, StudioError
from studio.pipeline import Plan
from studio.units import GIB, format_bytes, format_seconds

MOST_GIB = 100_000
LEAST_WHY = 36
"""Columns of a terminal below which the reasons would be read word by word."""
IMAGINED = "The card is imagined: this machine has none."
_USAGE = "Say what a request would take. MODEL comes first; its parameters are flags, and none is required."


def plan_command(args: list[str]) -> int:
    """Returns the exit code: 0 it fits, 1 it does not. Raises ``BadRequest``."""
    named = args[0] if args and not args[0].startswith("-") else None
    parser = _parser(named)
    options, _ = parser.parse_known_args(args)
    if options.help and named is None:
        parser.print_help()
        return 0
    if (named is None) == (options.batch is None):
        raise BadRequest("studio plan needs a model, or --batch FILE, and not both.", "See: studio models list")
    with Studio(executor="inline") as studio:
        fields = studio.fields(named) if named else ()
        add_fields(parser, (field.model_copy(update={"required": False}) for field in fields))  # so says the help
        if options.help:
            parser.print_help()
            return 0
        options, params = parse(parser, args, fields)
        limits = {
            "vram_bytes": _bytes("--vram", options.vram),
            "ram_bytes": _bytes("--ram", options.ram),
            "prefer": options.prefer,
        }
        if named is None:
            return _plan_batch(studio, Path(options.batch), limits, options)
        with by_flags(fields):
            plan = studio.forecast(named, **limits, **params)
        here = studio.models.files(named) is not None
        free_bytes = shutil.disk_usage(studio.home.root).free
    if options.json:
        typer.echo(json.dumps(as_json(plan)))
    else:
        _print(plan, limits["vram_bytes"])
        if not here and plan.disk_bytes:
            typer.echo(missing(plan, free_bytes))
    return 0 if plan.fits else 1


def _parser(model: str | None) -> Parser:
    parser = Parser(f"studio plan {model}" if model else "studio plan", _USAGE)
    parser.usage = f"studio plan {model or 'MODEL|--batch FILE'} [--vram GB] [--ram GB] [--prefer ...] [--json] ..."
    if model:
        parser.add_argument("model", metavar="MODEL", help="see: studio models list")
    limits = parser.add_argument_group("limits")
    limits.add_argument(
        "--vram",
        metavar="GB",
        help="what it may use of the card, 0.5 of it left to the screen; without a card, a card of that size is "
        "imagined",
    )
    limits.add_argument(
        "--ram",
        metavar="GB",
        help="what it may use of the memory, 1 of it left to other programs; beside an imagined card, all the memory "
        "of that machine, of which its system takes a part",
    )
    limits.add_argument(
        "--prefer", choices=("balanced", "speed", "quality"), default="balanced",
        help="balanced: the best precision within 15 %% of the fastest plan (default); speed: the fastest; quality: "
        "the most precise. Text models come in one precision: their settings go from best to least in one order",
    )  # fmt: skip
    batch = SUPPRESS if model else "all jobs of a YAML file instead of one model"
    limits.add_argument("--batch", metavar="FILE", help=batch)
    limits.add_argument("--json", action="store_true", help="one JSON object on standard output")
    limits.add_argument("-h", "--help", action="store_true", help="show this")
    parser.epilog = "Exit code: 0 it fits, 1 it does not, 2 a bad request."
    return parser


def _bytes(flag: str, text: str | None) -> int | None:
    """Gigabytes as cards and memory are sold (1,024 cubed) to bytes."""
    if text is None:
        return None
    try:
        size = float(text)
    except ValueError:
        size = -1
    if not 0 <= size <= MOST_GIB:
        what = f"{flag} is {text!r}; it must be a number of gigabytes from 0 to {MOST_GIB:,}."
        raise BadRequest(what, f"Write: {flag} 8")
    return round(size * GIB)


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as one object; ``nearest`` only where it does not fit."""
    return plan.model_dump(mode="json", exclude=set() if not plan.fits else {"nearest"})


def _print(plan: Plan, vram_bytes: int | None) -> None:
    """The table and what follows from it. What does not fit is said first, since the table is then another plan's."""
    if not plan.fits:
        typer.echo(f"{plan.model} does not fit. {plan.nearest}")
        if not plan.imagined and plan.peak_ram_bytes:
            typer.echo(f"To try it anyway: studio run {plan.model} --run-anyway")
        typer.echo("\nWhat would fit:\n" if plan.rows else "")
    if plan.rows:
        headers = ("Phase", "What", "Where", "Precision", "Size", "Time", "Why")
        table(headers, (_cells(row.model_dump()) for row in plan.rows), wraps="Why", least=LEAST_WHY)
    typer.echo(f"\n{plan.model} fits. {_totals(plan)}" if plan.fits else f"\n{_totals(plan)}")
    if plan.told:
        typer.echo(f"Settings: {' · '.join(plan.told)}.")
    typer.echo(_room(plan, vram_bytes))
    if plan.imagined:
        typer.echo(f"{IMAGINED} It is taken to be as fast as NVIDIA's RTX 30 series at that size.")
    elif plan.basis:
        typer.echo(f"Times are {plan.basis}.")


def missing(plan: Plan, free_bytes: int) -> str:
    """Of a model that is not on this machine: how to get it, and whether the disk has room for it."""
    if plan.disk_bytes <= free_bytes:
        return f"The model is not on this machine yet: studio models pull {plan.model}"
    sizes = f"{format_bytes(plan.disk_bytes)}; the disk has {format_bytes(free_bytes)} free"
    return f"The model is not on this machine yet, and its files need {sizes}."


def _room(plan: Plan, vram_bytes: int | None) -> str:
    """What there was to plan with, which is less than what a machine has."""
    memory = f"{format_bytes(plan.ram_room_bytes)} of memory"
    if plan.vram_room_bytes:
        card = f"{format_bytes(plan.vram_room_bytes)} of the card"
        return f"Planned within {card} and {memory}: what the screen, the system and other programs leave."
    without = ""
    if vram_bytes:
        without = f" {format_bytes(vram_bytes)} of a card are too little beside the screen: planned without one."
    return f"Planned within {memory}: what the system and other programs leave.{without}"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = format_bytes(row["size_bytes"]) if row["size_bytes"] else ""
    seconds = format_seconds(row["seconds"]) if row["seconds"] is not None else ""
    return row["phase"], row["what"], row["where"], row["precision"], size, seconds, row["why"]


def _peaks(vram_bytes: int, ram_bytes: int) -> str:
    memory = f"{format_bytes(ram_bytes)} of memory"
    return f"{format_bytes(vram_bytes)} on the card and {memory}" if vram_bytes else memory


def _totals(plan: Plan) -> str:
    time = "time not known" if plan.seconds is None else f"about {format_seconds(plan.seconds)}{_once_loaded(plan)}"
    return (
        f"At most {_peaks(plan.peak_vram_bytes, plan.peak_ram_bytes)}; {format_bytes(plan.disk_bytes)} on disk; {time}."
    )


def _once_loaded(plan: Plan) -> str:
    """What the next request takes, where loading is a good part of this one."""
    loading = _loading_s(plan)
    if plan.seconds is None or loading < max(1.0, 0.05 * plan.seconds):
        return ""
    return f" with loading, {format_seconds(max(0.0, plan.seconds - loading))} once it is loaded"


def _loading_s(plan: Plan) -> float:
    return sum(phase.seconds or 0.0 for phase in plan.phases if phase.name == "load")


def _plan_batch(studio: Studio, path: Path, limits: dict[str, Any], options: Namespace) -> int:
    name, steps = read_batch(path)
    plans: list[tuple[str, Plan]] = []
    for step in steps:
        try:
            plans.append((step.name, studio.forecast(step.model, **limits, **step.params)))
        except StudioError as error:
            raise BadRequest(f"{path.name}: {step.name}: {error.what}", error.hint) from error
    whole = batch_totals(name, plans)
    if options.json:
        typer.echo(json.dumps(whole))
        return 0 if whole["fits"] else 1
    table(("Job", "Model", "Fits", "Card", "Memory", "Time"), _batch_rows(plans))
    time = "about" if whole["seconds"] is not None else "more than"
    peaks = _peaks(whole["peak_vram_bytes"], whole["peak_ram_bytes"])
    typer.echo(f"\n{name}: {len(plans)} jobs, {time} {format_seconds(whole['seconds_at_least'])}; at most {peaks}.")
    told: set[str] = set()
    for job, plan in plans:
        if not plan.fits and plan.nearest not in told:
            told.add(plan.nearest)
            typer.echo(f"{job} does not fit. {plan.nearest}")
    if any(plan.imagined for _, plan in plans):
        typer.echo(IMAGINED)
    return 0 if whole["fits"] else 1


def _batch_rows(plans: list[tuple[str, Plan]]) -> Iterator[tuple[str, ...]]:
    """A line for each job, and one for all jobs of a matrix that take the same, however many they are."""
    told = [(job, (job.rpartition(".")[0] or job, *_batch_cells(plan))) for job, plan in plans]
    for (step, *cells), group in groupby(told, lambda one: one[1]):
        names = [job for job, _ in group]
        if len(names) == 1:
            yield names[0], *cells
        else:
            yield f"{step} ({len(names)} jobs)", *cells[:-1], f"{cells[-1]} each"


def _batch_cells(plan: Plan) -> tuple[str, ...]:
    card = format_bytes(plan.peak_vram_bytes) if plan.peak_vram_bytes else ""
    memory, time = format_bytes(plan.peak_ram_bytes), format_seconds(plan.seconds)
    return plan.model, "yes" if plan.fits else "no", card, memory, time


def batch_totals(name: str, plans: list[tuple[str, Plan]]) -> dict[str, Any]:
    """The sum of the times and the largest peaks. A job whose model is still loaded from the one before it does
    not load again; ``disk_bytes`` counts each model once."""
    known, unknown = 0.0, False
    before: Plan | None = None
    for _, plan in plans:
        warm = before is not None and (before.model, before.settings) == (plan.model, plan.settings)
        told = plan.seconds if plan.seconds is not None else sum(phase.seconds or 0 for phase in plan.phases)
        known += told - (_loading_s(plan) if warm else 0)
        unknown = unknown or plan.seconds is None
        before = plan
    return {
        "batch": name,
        "fits": all(plan.fits for _, plan in plans),
        "peak_vram_bytes": max(plan.peak_vram_bytes for _, plan in plans),
        "peak_ram_bytes": max(plan.peak_ram_bytes for _, plan in plans),
        "disk_bytes": sum({plan.model: plan.disk_bytes for _, plan in plans}.values()),
        "seconds": None if unknown else known,
        "seconds_at_least": known,
        "jobs": [{"id": job, **as_json(plan)} for job, plan in plans],
    }
