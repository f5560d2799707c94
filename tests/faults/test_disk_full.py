"""A full disk is said in one line with its bytes, leaves no part of a file, and costs one job."""

from __future__ import annotations

import errno
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from studio.errors import StudioError
from studio.files import copy_whole, write_whole
from studio.store.database import Database
from toolbox import files_in

LIMIT = 3_000_000
CONFINED = (  # every file that this process and its children write ends at LIMIT bytes
    f"import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}));"
    "from studio.cli.main import main; sys.argv[0] = 'studio'; main()"
)


def test_a_job_too_large_for_the_disk(home: Path, plugins: Path, tmp_path: Path) -> None:
    file = tmp_path / "two.yaml"
    jobs = [{"id": "large", "params": {"size_bytes": 2 * LIMIT}}, {"id": "small", "params": {"size_bytes": 10}}]
    file.write_text(yaml.safe_dump({"defaults": {"model": "faulty"}, "jobs": jobs}))
    done = subprocess.run(
        [sys.executable, "-c", CONFINED, "batch", str(file)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr and "bug" not in done.stderr
    [line] = [line for line in done.stderr.splitlines() if "No space" in line]
    assert re.search(r"[\d.]+ (B|[KMG]iB) are needed, [\d.]+ [KMGT]iB are free", line)
    names = [path.name for path in files_in(home / "outputs")]
    assert len(names) == 2 and all("-1.txt" in name for name in names), "the small one, whole, with its recipe"
    assert files_in(home / "work") == []


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
@pytest.mark.parametrize("how", ["write", "copy"])
def test_the_old_file_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, how: str) -> None:
    target, source = tmp_path / "kept.txt", tmp_path / "source.txt"
    target.write_text("old")
    source.write_bytes(b"new" * 1000)

    def full(_handle: int) -> None:
        raise OSError(code, "No space left on device")

    monkeypatch.setattr("studio.files.os.fsync", full)
    with pytest.raises(StudioError, match=r"No space for kept.txt: 2.9 KiB are needed, .* are free"):
        if how == "write":
            write_whole(target, b"new" * 1000)
        else:
            copy_whole(source, target)
    assert target.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept.txt", "source.txt"]


def test_a_full_database_is_undone_whole_and_said_in_one_line(tmp_path: Path) -> None:
    database = Database(tmp_path / "studio.db")
    pages = database.rows("PRAGMA page_count")[0][0]
    database.rows(f"PRAGMA max_page_count = {pages + 2}")
    with pytest.raises(StudioError, match="No space for the database"), database.write() as connection:
        for number in range(1000):
            connection.execute(
                "INSERT INTO jobs (id, model, params, state, position, request_sha256, created)"
                " VALUES (?, 'm', ?, 'queued', 0, '', 0)", (str(number), "x" * 5000),
            )  # fmt: skip
    assert database.rows("SELECT * FROM jobs") == []
    database.rows("PRAGMA max_page_count = 1000000")
    with database.write() as connection:
        connection.execute(
            "INSERT INTO jobs (id, model, params, state, position, request_sha256, created)"
            " VALUES ('a', 'm', '{}', 'queued', 0, '', 0)"
        )
    other = Database(database.path)
    assert [row["id"] for row in other.rows("SELECT id FROM jobs")] == ["a"], "committed, not left in a transaction"
    for one in (database, other):
        one.close()
