"""One SQLite file for jobs, events and artefacts.

``journal_mode=WAL`` lets faces read while the runner writes; ``synchronous=FULL`` makes a commit last through a
power cut, which is what "accepted" means here. Several processes share the file; each has one connection.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from studio.errors import StudioError

# Each script takes the database from the version of its index to the next. Never edit one that was released.
MIGRATIONS = (
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        model TEXT NOT NULL,
        params TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('queued','running','done','failed','cancelled','quarantined')),
        priority INTEGER NOT NULL DEFAULT 0,
        position REAL NOT NULL,
        attempt INTEGER NOT NULL DEFAULT 0,
        crashes INTEGER NOT NULL DEFAULT 0,
        interruptions INTEGER NOT NULL DEFAULT 0,
        idempotency_key TEXT UNIQUE,
        request_sha256 TEXT NOT NULL,
        batch TEXT,
        step TEXT,
        error TEXT NOT NULL DEFAULT '',
        hint TEXT NOT NULL DEFAULT '',
        created REAL NOT NULL,
        started REAL,
        finished REAL
    );
    CREATE INDEX jobs_by_state ON jobs (state, priority DESC, position);
    CREATE TABLE needs (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        name TEXT NOT NULL,
        needed_id TEXT NOT NULL REFERENCES jobs (id),
        PRIMARY KEY (job_id, name)
    ) WITHOUT ROWID;
    CREATE INDEX needs_by_needed ON needs (needed_id);
    CREATE TABLE events (
        job_id TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        line TEXT NOT NULL,
        PRIMARY KEY (job_id, number)
    ) WITHOUT ROWID;
    CREATE TABLE artefacts (
        id TEXT PRIMARY KEY,
        job_id TEXT NOT NULL REFERENCES jobs (id),
        number INTEGER NOT NULL,
        line TEXT NOT NULL,
        media_type TEXT NOT NULL,
        content_sha256 TEXT NOT NULL,
        created REAL NOT NULL,
        UNIQUE (job_id, number)
    );
    CREATE INDEX artefacts_by_content ON artefacts (content_sha256);
    """,
    """
    CREATE TABLE notes (name TEXT PRIMARY KEY, line TEXT NOT NULL) WITHOUT ROWID;
    """,
    """
    ALTER TABLE jobs ADD COLUMN run_anyway INTEGER NOT NULL DEFAULT 0 CHECK (run_anyway IN (0, 1));
    """,
)


class Database:
    """A connection that threads share under a lock. ``changed`` is notified after each commit made here."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.changed = threading.Condition()
        self._lock = threading.RLock()
        try:
            self._connection = sqlite3.connect(path, timeout=30, isolation_level=None, check_same_thread=False)
            self._connection.row_factory = sqlite3.Row
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.execute("PRAGMA foreign_keys = ON")
            self._migrate()
        except sqlite3.DatabaseError as error:
            raise StudioError(f"The database {path} cannot be opened: {error}.", "Run: studio doctor") from error

    def _migrate(self) -> None:
        if self._version() == len(MIGRATIONS):
            return
        with self.write() as connection:  # another process may have migrated while this one waited
            version = self._version()
            if version > len(MIGRATIONS):
                raise StudioError(
                    f"The database {self.path} has version {version}; this Studio knows {len(MIGRATIONS)}.",
                    "Use the newer Studio that wrote it, or another STUDIO_HOME.",
                )
            for script in MIGRATIONS[version:]:
                for statement in script.split(";"):
                    if statement.strip():
                        connection.execute(statement)
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")

    def _version(self) -> int:
        return int(self._connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that is on disk when the block ends, or has no effect. May be nested."""
        with self._lock:
            if self._connection.in_transaction:
                yield self._connection
                return
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException as error:
                if self._connection.in_transaction:  # SQLite has undone it already after some errors
                    self._connection.execute("ROLLBACK")
                if isinstance(error, sqlite3.OperationalError) and error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                    raise StudioError(
                        f"No space for the database {self.path}.", "Free some space on its disk, then run it again."
                    ) from error
                raise
        with self.changed:
            self.changed.notify_all()

    def rows(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(sql, values).fetchall()

    def row(self, sql: str, *values: Any) -> sqlite3.Row | None:
        found = self.rows(sql, *values)
        return found[0] if found else None

    def wait(self, timeout_s: float) -> None:
        """Until something was committed here, or the time is over (other processes do not notify)."""
        with self.changed:
            self.changed.wait(timeout_s)

    def check(self) -> str:
        """``"ok"``, or what SQLite finds wrong with the file."""
        return "; ".join(str(row[0]) for row in self.rows("PRAGMA quick_check"))

    def close(self) -> None:
        with self._lock:
            self._connection.close()
