"""The queue: every change of a job's state is one transaction, so that after any crash each job is in one state.

Only the runner that holds the home's lock sets ``running``. What a runner writes about a job carries the attempt it
belongs to and has no effect once the job was cancelled or begun anew.
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from collections.abc import Iterable, Sequence
from typing import Any

from studio.errors import Conflict, NotFound
from studio.events import Artefact, Done, Event, Failed, Queued, parse_event
from studio.jobs.model import ENDED, JobRow, Request
from studio.store.artefacts import ArtefactStore
from studio.store.database import Database

MAX_CRASHES = 2
# The whole program was killed while this job ran. That is rarely the job's fault, so it is counted apart: after a
# few times the job lets the others go first, and only one that is there at every such end is set aside.
INTERRUPTIONS_BEFORE_YIELDING = 3
MAX_INTERRUPTIONS = 20


class JobQueue:
    """All jobs of a home."""

    def __init__(self, database: Database, artefacts: ArtefactStore) -> None:
        self._database = database
        self._artefacts = artefacts

    # -- accepting ---------------------------------------------------------------------------------------------

    def submit(self, requests: Iterable[Request], *, again: bool = False) -> list[JobRow]:
        """Accept all requests or none; when this returns they are on disk.

        A request whose idempotency key is known answers with the job that is there; ``Conflict`` if that job was
        another request. With ``again`` a job that ended without success is queued anew.
        """
        with self._database.write() as connection:
            return [self._submit_one(connection, request, again) for request in requests]

    def _submit_one(self, connection: sqlite3.Connection, request: Request, again: bool) -> JobRow:
        known = self.find_key(request.idempotency_key)
        if known is not None:
            if known.request_sha256 != request.request_sha256:
                raise Conflict(
                    f"The idempotency key {request.idempotency_key!r} belongs to another request (job {known.id}).",
                    "Use a new key, or repeat the request unchanged.",
                )
            if again and known.state in ENDED and known.state != "done":
                return self.retry(known.id)
            return known
        job_id = request.id or new_id()
        connection.execute(
            "INSERT INTO jobs (id, model, params, state, priority, position, idempotency_key, request_sha256, batch,"
            " step, created, run_anyway)"
            " VALUES (?, ?, ?, 'queued', ?, (SELECT COALESCE(MAX(position), 0) + 1 FROM jobs), ?, ?, ?, ?, ?, ?)",
            (
                job_id,
                request.model,
                json.dumps(request.params, ensure_ascii=False),
                request.priority,
                request.idempotency_key,
                request.request_sha256,
                request.batch,
                request.step,
                time.time(),
                request.run_anyway,
            ),
        )
        connection.executemany(
            "INSERT INTO needs (job_id, name, needed_id) VALUES (?, ?, ?)",
            [(job_id, name, needed) for name, needed in request.needs.items()],
        )
        self._write_events(connection, job_id, [Queued(job=job_id, model=request.model)])
        return self.get(job_id)

    def retry(self, job_id: str) -> JobRow:
        """Queue an ended job anew, with its counters at zero. What it made before is replaced when it runs."""
        with self._database.write() as connection:
            job = self.get(job_id)
            if job.ended:
                for needed in map(self.get, self.needs(job.id).values()):
                    if needed.ended and needed.state != "done":
                        self.retry(needed.id)  # or this one could never start
                connection.execute(
                    "UPDATE jobs SET state = 'queued', crashes = 0, interruptions = 0, error = '', hint = '',"
                    " started = NULL, finished = NULL WHERE id = ?",
                    (job.id,),
                )
                event = Queued(job=job.id, model=job.model, attempt=job.attempt + 1)
                self._write_events(connection, job.id, [event])
            return self.get(job.id)

    # -- looking -----------------------------------------------------------------------------------------------

    def get(self, job_id: str) -> JobRow:
        """The job of that id, or of the only id that begins so."""
        rows = self._database.rows("SELECT * FROM jobs WHERE id = ?", job_id) or (
            self._database.rows("SELECT * FROM jobs WHERE substr(id, 1, ?) = ? LIMIT 2", len(job_id), job_id)
            if len(job_id) >= 4
            else []
        )
        if len(rows) != 1:
            raise NotFound(f"There is no job {job_id!r}.", "See: studio jobs list")
        return _job(rows[0])

    def find(self, *, states: Sequence[str] = (), batch: str | None = None, limit: int = 1000) -> list[JobRow]:
        """The newest first."""
        rows = self._database.rows(
            "SELECT * FROM jobs WHERE (?1 = '[]' OR state IN (SELECT value FROM json_each(?1)))"
            " AND (?2 IS NULL OR batch = ?2) ORDER BY number DESC LIMIT ?3",
            json.dumps(list(states)),
            batch,
            limit,
        )
        return [_job(row) for row in rows]

    def counts(self) -> dict[str, int]:
        rows = self._database.rows("SELECT state, COUNT(*) AS count FROM jobs GROUP BY state")
        return {row["state"]: row["count"] for row in rows}

    def needs(self, job_id: str) -> dict[str, str]:
        rows = self._database.rows("SELECT name, needed_id FROM needs WHERE job_id = ?", job_id)
        return {row["name"]: row["needed_id"] for row in rows}

    def events(self, job_id: str, after: int = 0) -> list[tuple[int, Event]]:
        """The events numbered above ``after``: a late reader sees the whole story."""
        rows = self._database.rows(
            "SELECT number, line FROM events WHERE job_id = ? AND number > ? ORDER BY number", job_id, after
        )
        return [(row["number"], parse_event(row["line"])) for row in rows]

    def find_key(self, key: str | None) -> JobRow | None:
        """The job that was accepted under an idempotency key."""
        row = self._database.row("SELECT * FROM jobs WHERE idempotency_key = ?", key) if key else None
        return _job(row) if row else None

    # -- ordering and cancelling -------------------------------------------------------------------------------

    def move_first(self, job_id: str) -> None:
        """Let a queued job be the next of its priority."""
        with self._database.write() as connection:
            connection.execute(
                "UPDATE jobs SET position = (SELECT MIN(position) - 1 FROM jobs) WHERE id = ?", (self.get(job_id).id,)
            )

    def move_after(self, job_id: str, other_id: str) -> None:
        """Put a queued job right behind another one, at the same priority."""
        with self._database.write() as connection:
            other = self.get(other_id)
            below = connection.execute(
                "SELECT MIN(position) FROM jobs WHERE position > ? AND id != ?", (other.position, job_id)
            ).fetchone()[0]
            position = other.position + 1 if below is None else (other.position + below) / 2
            if below is not None and not other.position < position < below:  # the gap was halved too often
                connection.execute(
                    "UPDATE jobs SET position = ranked.place FROM (SELECT id AS name, ROW_NUMBER() OVER"
                    " (ORDER BY position) AS place FROM jobs) AS ranked WHERE jobs.id = ranked.name"
                )
                return self.move_after(job_id, other_id)
            connection.execute(
                "UPDATE jobs SET position = ?, priority = ? WHERE id = ?",
                (position, other.priority, self.get(job_id).id),
            )

    def set_priority(self, job_id: str, priority: int) -> None:
        with self._database.write() as connection:
            connection.execute("UPDATE jobs SET priority = ? WHERE id = ?", (priority, self.get(job_id).id))

    def cancel(self, job_id: str) -> bool:
        """Cancel a job that has not ended; ``False`` if it has. The runner stops the work when it sees the state."""
        with self._database.write() as connection:
            job = self.get(job_id)
            if job.ended:
                return False
            self._end(connection, job, Failed(error="Cancelled.", state="cancelled"))
            return True

    # -- pausing, and what the runner tells of itself ----------------------------------------------------------

    @property
    def paused(self) -> bool:
        return self.note("paused") is True

    def pause(self, on: bool) -> None:
        """While paused, no job runs and the worker is gone: the card is free. What was running is queued again."""
        self.write_note("paused", on)

    def note(self, name: str) -> Any:
        """A small fact that all processes of a home share; ``None`` if it was never written."""
        row = self._database.row("SELECT line FROM notes WHERE name = ?", name)
        return json.loads(row["line"]) if row else None

    def write_note(self, name: str, value: Any) -> None:
        with self._database.write() as connection:
            connection.execute("INSERT OR REPLACE INTO notes (name, line) VALUES (?, ?)", (name, json.dumps(value)))

    # -- the runner's side -------------------------------------------------------------------------------------

    def claim(self) -> JobRow | None:
        """Take the next job whose needs are done, by priority and position, and mark it as running."""
        with self._database.write() as connection:
            row = connection.execute(
                "SELECT id FROM jobs WHERE state = 'queued' AND NOT EXISTS (SELECT 1 FROM needs JOIN jobs AS needed"
                " ON needed.id = needs.needed_id WHERE needs.job_id = jobs.id AND needed.state != 'done')"
                " ORDER BY priority DESC, position LIMIT 1"
            ).fetchone()
            if row is None:
                return None
            connection.execute(
                "UPDATE jobs SET state = 'running', attempt = attempt + 1, started = ? WHERE id = ?",
                (time.time(), row["id"]),
            )
            connection.execute("DELETE FROM artefacts WHERE job_id = ?", (row["id"],))
            return self.get(row["id"])

    def is_running(self, job: JobRow) -> bool:
        """Whether this attempt is still wanted: not cancelled, not begun anew."""
        row = self._database.row(
            "SELECT 1 FROM jobs WHERE id = ? AND attempt = ? AND state = 'running'", job.id, job.attempt
        )
        return row is not None

    def append(self, job: JobRow, events: Sequence[Event], artefacts: Sequence[tuple[int, Artefact]] = ()) -> bool:
        """Record what happened in this attempt, and end the job if the last event is an end. ``False``: not wanted."""
        with self._database.write() as connection:
            if not self.is_running(job):
                return False
            for number, artefact in artefacts:
                self._artefacts.record(artefact, job_id=job.id, number=number)
            last = events[-1] if events else None
            if isinstance(last, Done | Failed):
                self._write_events(connection, job.id, events[:-1])
                self._end(connection, job, last)
            else:
                self._write_events(connection, job.id, events)
            return True

    def crashed(self, job: JobRow, how: str) -> None:
        """The worker died under this job: once more, then quarantine."""
        with self._database.write() as connection:
            if not self.is_running(job):
                return
            crashes = job.crashes + 1
            connection.execute("UPDATE jobs SET crashes = ? WHERE id = ?", (crashes, job.id))
            if crashes >= MAX_CRASHES:
                error = f"The worker died {crashes} times under this job ({how}), so it was set aside."
                hint = "The log names the cause: logs/worker.log in the home folder. Try smaller values."
                self._end(connection, job, Failed(error=error, hint=hint, state="quarantined"))
            else:
                self._requeue(connection, job)

    def release(self, job: JobRow) -> None:
        """Put a running job back unharmed: the program is closing."""
        with self._database.write() as connection:
            if self.is_running(job):
                self._requeue(connection, job)

    def recover(self) -> list[JobRow]:
        """Put back what an earlier runner left running. Call it only while holding the home's lock."""
        with self._database.write() as connection:
            left = self.find(states=["running"])
            for job in left:
                count = job.interruptions + 1
                connection.execute("UPDATE jobs SET interruptions = ? WHERE id = ?", (count, job.id))
                if count >= MAX_INTERRUPTIONS:
                    error = f"Studio ended {count} times while this job ran, so it was set aside."
                    self._end(connection, job, Failed(error=error, hint="Try smaller values.", state="quarantined"))
                    continue
                if count >= INTERRUPTIONS_BEFORE_YIELDING:
                    connection.execute(
                        "UPDATE jobs SET position = (SELECT MAX(position) + 1 FROM jobs) WHERE id = ?", (job.id,)
                    )
                self._requeue(connection, job)
            return left

    # -- inside a transaction ----------------------------------------------------------------------------------

    def _requeue(self, connection: sqlite3.Connection, job: JobRow) -> None:
        connection.execute("UPDATE jobs SET state = 'queued', started = NULL WHERE id = ?", (job.id,))
        self._write_events(connection, job.id, [Queued(job=job.id, model=job.model, attempt=job.attempt + 1)])

    def _end(self, connection: sqlite3.Connection, job: JobRow, event: Done | Failed) -> None:
        failed = event if isinstance(event, Failed) else None
        connection.execute(
            "UPDATE jobs SET state = ?, error = ?, hint = ?, finished = ? WHERE id = ?",
            (
                failed.state if failed else "done",
                failed.error if failed else "",
                failed.hint if failed else "",
                time.time(),
                job.id,
            ),
        )
        self._write_events(connection, job.id, [event])
        if failed:
            self._fail_dependants(connection, job)

    def _fail_dependants(self, connection: sqlite3.Connection, job: JobRow) -> None:
        """What waits for a job that will not be done can never start: say so now."""
        waiting = connection.execute(
            "SELECT jobs.* FROM jobs JOIN needs ON needs.job_id = jobs.id"
            " WHERE needs.needed_id = ? AND jobs.state = 'queued'",
            (job.id,),
        ).fetchall()
        for row in waiting:
            name = job.step or job.id
            hint = f"Mend {name} and run the batch again."
            self._end(connection, _job(row), Failed(error=f"It needs {name}, which was not done.", hint=hint))

    @staticmethod
    def _write_events(connection: sqlite3.Connection, job_id: str, events: Sequence[Event]) -> None:
        first = connection.execute(
            "SELECT COALESCE(MAX(number), 0) + 1 FROM events WHERE job_id = ?", (job_id,)
        ).fetchone()[0]
        connection.executemany(
            "INSERT INTO events (job_id, number, line) VALUES (?, ?, ?)",
            [(job_id, number, event.model_dump_json()) for number, event in enumerate(events, first)],
        )


def new_id() -> str:
    """An opaque job id: 12 hexadecimal digits."""
    return secrets.token_hex(6)


def _job(row: sqlite3.Row) -> JobRow:
    values = {key: row[key] for key in row.keys() if key != "number"}  # noqa: SIM118 - a Row iterates over values
    return JobRow.model_validate({**values, "params": json.loads(values["params"])})
