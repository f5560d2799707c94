"""``studio jobs``: one list for all faces."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import typer

from studio.cli.show import JsonLines, Terminal, table
from studio.core import Studio
from studio.events import Queued
from studio.jobs.model import JobRow
from studio.units import format_seconds


def _plain(job: JobRow) -> dict[str, Any]:
    row = job.model_dump(exclude={"request_sha256", "position"})
    row["created"] = datetime.fromtimestamp(job.created).astimezone().isoformat(timespec="seconds")
    return row


def list_jobs(as_json: bool, limit: int) -> None:
    with Studio() as studio:
        rows = studio.jobs.find(limit=limit)
    if as_json:
        typer.echo(json.dumps([_plain(row) for row in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo('No jobs yet. Try: studio run starter-text --prompt "Name three colours."')
        return
    table(
        ("job", "state", "model", "created", "took", "what"),
        ((row.id, row.state, row.model, _clock(row.created), _took(row), _what(row)) for row in rows),
    )


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).strftime("%Y-%m-%d %H:%M:%S")


def _took(row: JobRow) -> str:
    return format_seconds(row.finished - row.started) if row.started and row.finished else ""


def _what(row: JobRow) -> str:
    """The error, or the beginning of the prompt."""
    text = " ".join(str(row.error or row.params.get("prompt", "")).split())
    text = f"{row.step}: {text}" if row.step else text
    return text if len(text) <= 60 else text[:59] + "…"


def show_job(job_id: str, as_json: bool) -> None:
    with Studio() as studio:
        row = studio.queue.get(job_id)
        made = studio.artefacts.of_job(row.id)
    if as_json:
        artefacts = [artefact.model_dump() for artefact in made]
        typer.echo(json.dumps({**_plain(row), "artefacts": artefacts}, indent=2, ensure_ascii=False))
        return
    typer.echo(f"{row.id}  {row.state}  {row.model}  attempt {row.attempt}  {_took(row)}")
    if row.error:
        typer.echo(f"  {row.error} {row.hint}")
    typer.echo(f"  {json.dumps(row.params, ensure_ascii=False)}")
    for artefact in made:
        typer.echo(f"  {artefact.media_type}  {artefact.path}")


def cancel_jobs(job_ids: list[str], as_json: bool) -> None:
    with Studio() as studio:
        rows = [studio.queue.get(job_id) for job_id in job_ids]  # all ids are known, or nothing is cancelled
        results = {row.id: studio.queue.cancel(row.id) for row in rows}
        states = {job_id: studio.queue.get(job_id).state for job_id in results}
    for job_id, now in results.items():
        if as_json:
            typer.echo(json.dumps({"id": job_id, "cancelled": now, "state": states[job_id]}))
        else:
            typer.echo(f"{job_id}: {'cancelled' if now else 'had ended already: ' + states[job_id]}.")


def first_job(job_id: str) -> None:
    with Studio() as studio:
        studio.queue.move_first(job_id)
    typer.echo(f"{job_id}: next.")


def retry_job(job_id: str) -> None:
    with Studio() as studio:
        row = studio.queue.retry(job_id)
    typer.echo(f"{row.id}: {row.state}. To work it off: studio jobs watch {row.id}")


def watch_jobs(job_id: str | None, as_json: bool) -> int:
    """Follow one job, or all that wait; 1 if one that was watched did not end as done."""
    with Studio() as studio:
        waiting = list(reversed(studio.jobs.find(states=["queued", "running"])))
        ids = [studio.queue.get(job_id).id] if job_id else [row.id for row in waiting]
        if not ids:
            typer.echo("Nothing waits.", err=True)
        try:
            return follow_all(studio, ids, as_json=as_json)
        except KeyboardInterrupt:
            typer.echo("studio: stopped watching; what has not ended stays queued.", err=True)
            return 1


def follow_all(studio: Studio, job_ids: list[str], *, as_json: bool) -> int:
    """Show several jobs one after the other; they may run in another order."""
    bad = 0
    for number, job_id in enumerate(job_ids, 1):
        row = studio.queue.get(job_id)
        title = f"[{number}/{len(job_ids)}] {row.step or row.id} {row.model}"
        listener = JsonLines() if as_json else Terminal(title=title, quiet=len(job_ids) > 1)
        if not as_json and len(job_ids) > 1:
            typer.echo(title, err=True)
        for event in studio.jobs.get(job_id).events():
            if as_json and not isinstance(event, Queued):
                typer.echo(json.dumps({"job": job_id, **event.model_dump()}, ensure_ascii=False))
            else:
                listener.take(event)
        listener.close()
        bad += studio.queue.get(job_id).state != "done"
    return 1 if bad else 0
