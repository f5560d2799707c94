"""``studio models``: the catalogue, and what of it is on this machine."""

from __future__ import annotations

import json
import re
import sys
import time
from typing import Any

import typer

from studio.cli.flags import flag
from studio.cli.show import paragraph, table
from studio.core import Studio
from studio.errors import StudioError
from studio.spec import ModelSpec, Source
from studio.units import format_bytes, format_seconds

PROOF = {
    "weights": "it ran with its own weights",
    "shape": "it ran at full size with random weights",
    "tiny": "its classes ran at a tiny size with random weights",
    "none": "nothing yet",
}
"""What ``proof`` of a catalogue entry means, in words."""


def _row(studio: Studio, spec: ModelSpec) -> dict[str, Any]:
    try:
        task = spec.task or studio.family(spec).task
    except StudioError as error:  # a broken plugin must not hide the other models
        task = f"broken: {error.what}"
    return {
        "id": spec.id,
        "pipeline": spec.pipeline,
        "task": task,
        "proof": spec.proof,
        "licence": spec.licence,
        "installed": studio.models.files(spec.id) is not None,
        "bytes": studio.models.size_bytes(spec.id),
        "about_bytes": spec.about_bytes,
        "gated": bool(spec.source and spec.source.gated),
    }


def list_models(as_json: bool) -> None:
    with Studio() as studio:
        rows = [_row(studio, spec) for spec in studio.models]
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table(
        ("model", "makes", "size", "licence", "shown", "here"),
        (
            (row["id"], row["task"], _size(row["bytes"], row["about_bytes"], "~"), _licence(row), row["proof"],
             "yes" if row["installed"] else "")
            for row in rows
        ),
        wraps="licence",
    )  # fmt: skip
    if sys.stdout.isatty():
        seen = [word for word in PROOF if any(row["proof"] == word for row in rows)]
        told = "; ".join(f"{word}: {PROOF[word]}" for word in seen)
        paragraph(f"\nshown, by this project on its own machines: {told}.", "")
        paragraph(
            "here: installed on this machine. More of one, and its whole licence: studio models show MODEL; what it "
            "would take: studio plan MODEL --vram 8", "",
        )  # fmt: skip


def _licence(row: dict[str, Any]) -> str:
    """The licence's name up to the first remark on it; ``models show`` and ``--json`` have all of it."""
    name = re.split(r"[,;]| \(", row["licence"], maxsplit=1)[0]
    more = " …" if name != row["licence"] else ""
    return f"{name}{more}{' (gated)' if row['gated'] else ''}"


def _size(known: int | None, about: int | None, roughly: str = "about ") -> str:
    return f"{roughly}{format_bytes(about)}" if known is None and about else format_bytes(known)


def show_model(model: str, as_json: bool) -> None:
    with Studio() as studio:
        spec = studio.catalogue.get(model)
        fields = studio.fields(model)
        row = _row(studio, spec)
        files = {role: str(path) for role, path in (studio.models.files(model) or {}).items()}
    if as_json:
        entry = spec.model_dump(mode="json", by_alias=True)
        typer.echo(json.dumps({**entry, **row, "local": files, "params": [f.model_dump() for f in fields]}, indent=2))
        return
    typer.echo(f"{spec.id}  ({row['task']}, family {spec.pipeline})")
    if spec.card:
        paragraph(spec.card.good_at)
        paragraph(f"Limits: {spec.card.limits}")
        paragraph(f"Languages: {', '.join(spec.card.languages)}")
    if spec.source:
        _show_source(spec, spec.source)
    size = _size(row["bytes"], row["about_bytes"])
    state = f"Installed, {size}." if row["installed"] else f"Not installed, {size}: studio models pull {spec.id}"
    paragraph(f"Shown by this project: {PROOF[spec.proof]}.")
    paragraph(state)
    paragraph("Parameters: " + " ".join(flag(field.name) for field in fields))
    paragraph(f"See: studio run {spec.id} --help; what it would take: studio plan {spec.id} --vram 8")


def _show_source(spec: ModelSpec, source: Source) -> None:
    """Where it comes from, under which licence, and its files. Those whose size only the hub knows are one line."""
    inside = f"the package {source.package}" if source.package else None
    gated = ", gated: accept its licence on the hub first" if source.gated else ""
    paragraph(f"From {source.repo or source.pypi or source.folder or inside}, licence {spec.licence}{gated}")
    unknown: dict[str, list[str]] = {}
    for role, file in source.files.items():
        place = f"{file.repo}: {file.path}" if file.repo else file.path
        if file.bytes is None:
            unknown.setdefault(f"Parts from {file.repo}" if file.repo else "Parts", []).append(role)
        else:
            paragraph(f"{role}: {place}  {format_bytes(file.bytes)}")
    for where, roles in unknown.items():
        paragraph(f"{where}: {', '.join(roles)}")
    if source.notice:
        paragraph(f"Notice: {source.notice}")


def pull_model(model: str, offline: bool, as_json: bool) -> None:
    with Studio(offline=offline) as studio:
        spec = studio.catalogue.get(model)
        notice = spec.source.notice if spec.source else ""
        if notice and as_json:
            typer.echo(json.dumps({"event": "note", "text": notice}))
        elif notice:
            typer.echo(f"studio: {notice}", err=True)
        begun = time.perf_counter()
        show = _Pulling(as_json)
        try:
            result = studio.models.pull(model, progress=show)
        finally:
            show.close()
        seconds = time.perf_counter() - begun
        size = studio.models.size_bytes(spec.id)
        revision = result.revision
    if as_json:
        typer.echo(json.dumps({"event": "done", "model": spec.id, "revision": revision, "bytes": size}))
        return
    if result.locked_now and spec.source and spec.source.repo:
        typer.echo(
            f"studio: {spec.id} is locked to commit {revision}, the newest now, with every file's sha256.", err=True
        )
    typer.echo(f"{spec.id}: {format_bytes(size)}, checked, ready ({format_seconds(seconds)}).")


class _Pulling:
    """A bar on a terminal, JSON lines for programs, silence in a pipe."""

    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        self._bars: Any = None
        self._task: Any = None

    def __call__(self, name: str, done: int, total: int) -> None:
        if self._json:
            event = {"event": "progress", "phase": f"download {name}", "done": done, "total": total, "eta_s": None}
            typer.echo(json.dumps(event))
        elif sys.stderr.isatty():
            if self._bars is None:
                self._bars, self._task = _download_bars()
            self._bars.update(self._task, description=name, completed=done, total=total or None)

    def close(self) -> None:
        if self._bars is not None:
            self._bars.stop()


def _download_bars() -> tuple[Any, Any]:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    bars = Progress(*columns, console=Console(stderr=True), transient=True)
    bars.start()
    return bars, bars.add_task("", total=None)


def remove_model(model: str, as_json: bool) -> None:
    with Studio() as studio:
        spec = studio.catalogue.get(model)
        freed = studio.models.remove(model)
    typer.echo(
        json.dumps({"model": spec.id, "freed_bytes": freed}) if as_json else f"{spec.id}: {format_bytes(freed)} freed."
    )


def verify_model(model: str) -> int:
    """0 if every file is as it was downloaded, or as the catalogue says of files that a package brings; 1 if not."""
    with Studio() as studio:
        spec = studio.catalogue.get(model)
        faults = studio.models.verify(model)
    for fault in faults:
        typer.echo(fault, err=True)
    if not faults:
        brought = spec.source is not None and spec.source.package is not None
        typer.echo(f"{spec.id}: every file is as {'the catalogue says' if brought else 'it was downloaded'}.")
    return 1 if faults else 0
