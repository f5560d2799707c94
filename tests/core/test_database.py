"""The database: durable settings, migrations, many processes, a transaction that is whole or nothing."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from studio.errors import StudioError
from studio.store import database
from studio.store.database import MIGRATIONS, Database


@pytest.fixture
def db(tmp_path: Path) -> Database:
    return Database(tmp_path / "studio.db")


def one(db: Database, pragma: str) -> object:
    return db.rows(f"PRAGMA {pragma}")[0][0]


def test_a_commit_lasts_through_a_power_cut(db: Database) -> None:
    assert one(db, "journal_mode") == "wal"
    assert one(db, "synchronous") == 2, "FULL"
    assert one(db, "foreign_keys") == 1
    assert one(db, "user_version") == len(MIGRATIONS)
    assert db.check() == "ok"


def test_migrations_go_on_from_where_the_file_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "studio.db").close()
    added = "CREATE TABLE later (text TEXT); INSERT INTO later VALUES ('kept');"
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, added))
    for _ in range(2):  # the second opening finds nothing to do
        newer = Database(tmp_path / "studio.db")
        assert [row["text"] for row in newer.rows("SELECT text FROM later")] == ["kept"]
        assert one(newer, "user_version") == len(MIGRATIONS) + 1
        newer.close()


def test_a_migration_that_fails_leaves_the_old_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Database(tmp_path / "studio.db").close()
    monkeypatch.setattr(database, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE half (a TEXT); CREATE TABLE jobs (b TEXT)"))
    with pytest.raises(StudioError, match="already exists"):
        Database(tmp_path / "studio.db")
    monkeypatch.undo()
    db = Database(tmp_path / "studio.db")
    assert one(db, "user_version") == len(MIGRATIONS)
    assert db.rows("SELECT name FROM sqlite_master WHERE name = 'half'") == []


def test_a_newer_version_is_refused_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "studio.db"
    Database(file).close()
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA user_version = 999")
    with pytest.raises(StudioError, match="has version 999; this Studio knows"):
        Database(file)
    with sqlite3.connect(file) as connection:
        assert connection.execute("PRAGMA user_version").fetchone()[0] == 999


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    file = tmp_path / "studio.db"
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(StudioError, match="cannot be opened") as caught:
        Database(file)
    assert "studio doctor" in caught.value.hint
    assert file.read_bytes() == b"not a database" * 100


def test_an_error_undoes_the_whole_transaction(db: Database) -> None:
    with db.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")
    with pytest.raises(KeyError), db.write() as connection:
        connection.execute("INSERT INTO t VALUES (1)")
        with db.write() as inner:
            inner.execute("INSERT INTO t VALUES (2)")
        raise KeyError
    assert db.rows("SELECT * FROM t") == []
    with db.write() as connection:
        connection.execute("INSERT INTO t VALUES (3)")
    assert [row["n"] for row in Database(db.path).rows("SELECT n FROM t")] == [3]


WRITER = """
import sys
from pathlib import Path
from studio.store.database import Database
db = Database(Path(sys.argv[1]))
with db.write() as connection:
    connection.execute("CREATE TABLE IF NOT EXISTS t (who TEXT, n INTEGER)")
for n in range(50):
    with db.write() as connection:
        [[count]] = connection.execute("SELECT COUNT(*) FROM t").fetchall()
        connection.execute("INSERT INTO t VALUES (?, ?)", (sys.argv[2], count))
"""


def test_processes_that_open_and_write_at_the_same_time(tmp_path: Path) -> None:
    """Read and write are one transaction: every count is written once. The file is new, so they migrate together."""
    file = tmp_path / "studio.db"
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(file), str(number)], stderr=subprocess.PIPE, text=True)
        for number in range(6)
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert writer.returncode == 0, errors
    db = Database(file)
    assert [row["n"] for row in db.rows("SELECT n FROM t ORDER BY n")] == list(range(300))


def test_threads_share_one_connection(db: Database) -> None:
    with db.write() as connection:
        connection.execute("CREATE TABLE t (n INTEGER)")

    def work() -> None:
        for _ in range(25):
            with db.write() as connection:
                count = connection.execute("SELECT COUNT(*) FROM t").fetchone()[0]
                connection.execute("INSERT INTO t VALUES (?)", (count,))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row["n"] for row in db.rows("SELECT n FROM t ORDER BY n")] == list(range(100))
