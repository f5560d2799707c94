"""``studio run``: one request from flags, or again from a recipe."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import typer

from studio.cli.flags import Parser, add_fields, by_flags, parse
from studio.cli.output import fitted
from studio.cli.show import JsonLines, Listener, Terminal
from studio.core import EXECUTORS, Studio
from studio.errors import BadRequest, StudioError
from studio.events import Artefact
from studio.handles import Job
from studio.store.artefacts import export
from studio.units import format_seconds

PERSON_WAITS = 10
"""The priority of ``studio run``: somebody looks at the screen, so it goes before batches."""

WORTH_SAYING_S = 20.0
"""A job that is foreseen to take so long says so when it is queued."""

_USAGE = "Make something with a model. MODEL comes first; its parameters are flags."


def run_command(args: list[str]) -> int:
    """Returns the exit code: 0 done, 1 the job did not end as done. Raises ``BadRequest``."""
    # What follows MODEL can only be parsed when the model's own flags are known.
    named = args[0] if args and not args[0].startswith("-") else None
    options, _ = _parser(named).parse_known_args(args)
    with Studio(executor=options.executor) as studio:
        recipe = studio.artefacts.recipe_of(Path(options.like)) if options.like else {}
        model = named or recipe.get("model")
        if model is None and options.help:
            _parser("MODEL").print_help()
            return 0
        if model is None:
            raise BadRequest("studio run needs a model.", "See: studio models list")
        parser = _parser(named)
        fields = studio.fields(model)
        add_fields(parser, fields)
        if options.help:
            parser.print_help()
            return 0
        options, given = parse(parser, args, fields)
        params = {**recipe.get("params", {}), **given}
        if options.output:
            makes = studio.family(studio.catalogue.get(model)).makes
            params = fitted(Path(options.output), model, makes, fields, params)
        with by_flags(fields):
            job = studio.submit(
                model,
                priority=PERSON_WAITS,
                idempotency_key=options.idempotency_key,
                run_anyway=options.run_anyway,
                **params,
            )
        if sys.stderr.isatty() and not options.json and (said := foretold(studio, model, params)):
            typer.echo(f"studio: {said}", err=True)
        expected = recipe.get("content_sha256") if not given else None
        return _follow(studio, job, options.output, JsonLines() if options.json else Terminal(), expected)


def foretold(studio: Studio, model: str, params: dict[str, Any]) -> str:
    """What a longer job will take, once it is queued; nothing of one that is over soon, or where it is not known."""

    def unmeasured(probes: object) -> NoReturn:
        raise StudioError("Nobody waits for measuring here: the job measures for itself.")

    try:
        plan = studio.foresee(model, params, run=unmeasured, near=True)
    except StudioError:  # the job says itself what is wrong
        return ""
    if not plan.fits or plan.seconds is None or plan.seconds < WORTH_SAYING_S:
        return ""
    rough = "" if not plan.estimated else ", roughly"
    return f"this takes about {format_seconds(plan.seconds)}{rough}; what for: studio plan {model}"


def _parser(model: str | None) -> Parser:
    parser = Parser(f"studio run {model}" if model else "studio run", _USAGE)
    parser.usage = f"studio run {model or 'MODEL'} [--PARAMETER VALUE ...] [-o FILE] [--json] [--like FILE] ..."
    if model:
        parser.add_argument("model", metavar="MODEL", help="see: studio models list")
    request = parser.add_argument_group("request")
    request.add_argument(
        "-o",
        "--output",
        metavar="FILE",
        help="also put the result here, its recipe beside it; its suffix chooses the format where there is a choice",
    )
    request.add_argument("--json", action="store_true", help="events as JSON lines on standard output")
    request.add_argument("--like", metavar="FILE", help="make FILE again from its recipe; flags change parameters")
    request.add_argument("--idempotency-key", metavar="KEY", help="asking again with the same key gives the same job")
    request.add_argument("--run-anyway", action="store_true", help="try it even if the plan says that it does not fit")
    request.add_argument("--executor", choices=sorted(EXECUTORS), default="worker", help="default: worker")
    request.add_argument("-h", "--help", action="store_true", help="show this")
    return parser


def _follow(studio: Studio, job: Job, output: str | None, listener: Listener, expected: str | None) -> int:
    """Show events until the job has ended; Ctrl-C cancels it, because a person waits here for nothing else."""
    made: list[Artefact] = []
    if studio.queue.paused:
        typer.echo(f"studio: paused; job {job.id} waits. To go on: studio resume", err=True)
    try:
        for event in job.events():
            if isinstance(event, Artefact):
                made.append(event)
            listener.take(event)
    except KeyboardInterrupt:
        job.cancel()
        listener.close()
        typer.echo(f"studio: cancelled job {job.id}.", err=True)
        return 1
    listener.close()
    if job.state != "done":
        return 1
    if output:
        _put(made, Path(output))
    if expected is not None:
        _compare(made, expected, as_json=isinstance(listener, JsonLines))
    return 0


def _put(made: list[Artefact], target: Path) -> None:
    """One artefact under the name itself; more as ``name-2.png``, ``name-3.png``."""
    for number, artefact in enumerate(made, 1):
        place = target if number == 1 else target.with_name(f"{target.stem}-{number}{target.suffix}")
        export(artefact, place)


def _compare(made: list[Artefact], expected: str, *, as_json: bool) -> None:
    same = any(artefact.content_sha256 == expected for artefact in made)
    if as_json:
        result: dict[str, Any] = {"event": "compared", "same_content": same, "content_sha256": expected}
        typer.echo(json.dumps(result))
        return
    text = "the same content as before" if same else "NOT the same content as before: versions or hardware differ"
    typer.echo(f"studio: {text} (sha256 {expected[:12]}…).", err=True)
