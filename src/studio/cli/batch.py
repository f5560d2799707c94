"""``studio batch``: submit what is missing of a file and follow it to its end."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import typer

from studio.batch import submit_batch
from studio.cli.jobs import follow_all
from studio.core import ExecutorName, Studio
from studio.grids import check_grid, write_grids


def batch_command(file: str, executor: str, as_json: bool, grid: str | None = None) -> int:
    """0 if every job of the file is done, 1 if not. Raises ``BadRequest`` before anything is queued."""
    with Studio(executor=cast(ExecutorName, executor)) as studio:
        if grid is not None:
            check_grid(Path(file), Path(grid))
        rows = submit_batch(studio, Path(file))
        missing = [row for row in rows if row.state != "done"]
        if not as_json:
            done = len(rows) - len(missing)
            typer.echo(f"{Path(file).name}: {len(rows)} jobs, {done} already done.", err=True)
        try:
            code = follow_all(studio, [row.id for row in missing], as_json=as_json)
            for path in write_grids(studio, Path(file), rows, Path(grid)) if grid is not None else ():
                typer.echo(f"Contact sheet: {path}", err=True)
            return code
        except KeyboardInterrupt:
            waiting = sum(not studio.queue.get(row.id).ended for row in rows)
            typer.echo(f"studio: stopped; {waiting} jobs stay queued. To go on: studio batch {file}", err=True)
            return 1
