"""``studio plan``: what a request, or a file of jobs, would take; nothing is loaded or downloaded."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import typer

from studio.batch import read_batch
from studio.cli.flags import Parser, add_fields, parse
from studio.cli.show import table
from studio.core import Studio
from studio.errors import BadRequest, StudioError
from studio.pipeline import Plan
from studio.units import GIB, format_bytes, format_seconds

MOST_GIB = 100_000
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
        add_fields(parser, fields)
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
        plan = studio.forecast(named, **limits, **params)
    if options.json:
        typer.echo(json.dumps(as_json(plan)))
    else:
        _print(plan)
    return 0 if plan.fits else 1


def _parser(model: str | None) -> Parser:
    parser = Parser(f"studio plan {model}" if model else "studio plan", _USAGE)
    parser.usage = f"studio plan {model or 'MODEL|--batch FILE'} [--vram GB] [--ram GB] [--prefer ...] [--json] ..."
    if model:
        parser.add_argument("model", metavar="MODEL", help="see: studio models list")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--vram", metavar="GB", help="what it may use of the card; without a card, one is imagined")
    limits.add_argument("--ram", metavar="GB", help="what it may use of the memory")
    limits.add_argument(
        "--prefer", choices=("balanced", "speed", "quality"), default="balanced",
        help="balanced: the best precision within 15 %% of the fastest plan (default)",
    )  # fmt: skip
    limits.add_argument("--batch", metavar="FILE", help="all jobs of a YAML file instead of one model")
    limits.add_argument("--json", action="store_true", help="one JSON object on standard output")
    limits.add_argument("-h", "--help", action="store_true", help="show this")
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
        raise BadRequest(f"{flag} is {text!r}; it must be a number of gigabytes.", f"Write: {flag} 8")
    return round(size * GIB)


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan as one object; ``nearest`` only where it does not fit."""
    return plan.model_dump(mode="json", exclude=set() if not plan.fits else {"nearest"})


def _print(plan: Plan) -> None:
    if plan.rows:
        headers = ("Phase", "What", "Where", "Precision", "Size", "Time", "Why")
        table(headers, (_cells(row.model_dump()) for row in plan.rows))
    verdict = f"{plan.model} {'fits' if plan.fits else 'does not fit'}."
    typer.echo(f"\n{verdict} {_totals(plan)}" if plan.fits else f"\n{verdict} {plan.nearest}")
    if not plan.fits and not plan.imagined and plan.peak_ram_bytes:
        typer.echo(f"To try it anyway: studio run {plan.model} --run-anyway")
    if plan.settings:
        typer.echo(f"Settings: {' · '.join(_settings(plan.settings))}.")
    if plan.imagined:
        typer.echo("The card is imagined: this machine has none. Its speed is that of a typical card of its size.")
    elif plan.basis:
        typer.echo(f"Times are {plan.basis}.")


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    size = format_bytes(row["size_bytes"]) if row["size_bytes"] else ""
    seconds = format_seconds(row["seconds"]) if row["seconds"] is not None else ""
    return row["phase"], row["what"], row["where"], row["precision"], size, seconds, row["why"]


def _totals(plan: Plan) -> str:
    parts = [f"{format_bytes(plan.peak_ram_bytes)} of memory"]
    if plan.peak_vram_bytes:
        parts.insert(0, f"{format_bytes(plan.peak_vram_bytes)} on the card")
    time = "time not known" if plan.seconds is None else f"about {format_seconds(plan.seconds)}"
    return f"At most {' and '.join(parts)}; {format_bytes(plan.disk_bytes)} on disk; {time}."


def _settings(settings: dict[str, Any]) -> list[str]:
    """The plain settings; what is nested is told by the rows."""
    return [f"{name} {value}" for name, value in settings.items() if not isinstance(value, dict | list)]


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
    table(
        ("Job", "Model", "Fits", "Card", "Memory", "Time"),
        (
            (job, plan.model, "yes" if plan.fits else "no", format_bytes(plan.peak_vram_bytes),
             format_bytes(plan.peak_ram_bytes), format_seconds(plan.seconds))
            for job, plan in plans
        ),
    )  # fmt: skip
    time = "about" if whole["seconds"] is not None else "more than"
    peaks = (
        f"{format_bytes(whole['peak_vram_bytes'])} on the card and {format_bytes(whole['peak_ram_bytes'])} of memory"
    )
    typer.echo(f"\n{name}: {len(plans)} jobs, {time} {format_seconds(whole['seconds_at_least'])}; at most {peaks}.")
    for job, plan in plans:
        if not plan.fits:
            typer.echo(f"{job} does not fit. {plan.nearest}")
    if any(plan.imagined for _, plan in plans):
        typer.echo("The card is imagined: this machine has none.")
    return 0 if whole["fits"] else 1


def batch_totals(name: str, plans: list[tuple[str, Plan]]) -> dict[str, Any]:
    """The sum of the times and the largest peaks. A job whose model is still loaded from the one before it does
    not load again; ``disk_bytes`` counts each model once."""
    known, unknown = 0.0, False
    before: Plan | None = None
    for _, plan in plans:
        warm = before is not None and (before.model, before.settings) == (plan.model, plan.settings)
        loading = sum(phase.seconds or 0 for phase in plan.phases if phase.name == "load")
        told = plan.seconds if plan.seconds is not None else sum(phase.seconds or 0 for phase in plan.phases)
        known += told - (loading if warm else 0)
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
