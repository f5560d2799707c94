"""``studio batch``: submit what is missing of a file and follow it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import typer

from studio.batch import submit_batch
from studio.cli.jobs import follow_all
from studio.core import ExecutorName, Studio


def batch_command(file: str, executor: str, as_json: bool) -> int:
    """0 if every job of the file is done, 1 if not. Raises ``BadRequest`` before anything is queued."""
    with Studio(executor=cast(ExecutorName, executor)) as studio:
        rows = submit_batch(studio, Path(file))
        missing = [row for row in rows if row.state != "done"]
        if not as_json:
            done = len(rows) - len(missing)
            typer.echo(f"{Path(file).name}: {len(rows)} jobs, {done} already done.", err=True)
        try:
            return follow_all(studio, [row.id for row in missing], as_json=as_json)
        except KeyboardInterrupt:
            waiting = sum(not studio.queue.get(row.id).ended for row in rows)
            typer.echo(f"studio: stopped; {waiting} jobs stay queued. To go on: studio batch {file}", err=True)
            return 1
