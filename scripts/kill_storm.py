"""Kill a batch again and again, at the start, while a model loads, while it writes, while a file is stored.

    python scripts/kill_storm.py --model starter-text --jobs 20 --kills 10

Afterwards every job must be done once: one row, one whole file, one recipe each, the same content as in a run that
nobody disturbed, a sound database, and no process left behind. Exit code 1 if anything is missing or double.
Needs a Unix system. The home is a new folder; --models names the models folder that it uses.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import psutil

MOMENTS = ("start", "load", "generate", "store")
ROOT = Path(__file__).resolve().parents[1]


@dataclass
class Storm:
    """One batch in one home, and what happened to it."""

    home: Path
    batch: Path
    chance: random.Random
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    def start(self, output: IO[bytes]) -> subprocess.Popen[bytes]:
        """The batch in a session of its own, so that its whole tree can be killed."""
        return subprocess.Popen(
            [sys.executable, "-m", "studio.cli.main", "batch", str(self.batch), "--json"],
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "STUDIO_HOME": str(self.home)},
        )

    def kill_once(self, moment: str, *, alone: bool) -> bool:
        """Run until ``moment``, then kill everything (or the program alone); ``False`` if it ended before."""
        with (self.home.parent / f"{self.home.name}.log").open("wb") as output:
            process = self.start(output)
            begun = time.time()
            due = begun + self.chance.uniform(0, 0.6)
            files, done, extra = self.stored(), self.look(begun)[0], self.chance.randrange(2)
            while process.poll() is None:
                if moment == "start":
                    reached = time.time() >= due
                elif moment == "store":
                    reached = self.stored() > files + 2 * extra
                else:
                    now_done, now_doing = self.look(begun)
                    reached = now_done >= done + extra and now_doing == moment
                if reached:
                    time.sleep(self.chance.choice((0, 0, 0.001, 0.005, 0.02)))
                    if alone:
                        process.kill()
                    else:
                        os.killpg(process.pid, signal.SIGKILL)
                    break
            code = process.wait()
        if code == -signal.SIGKILL:
            self.kills[moment] += 1
        return code == -signal.SIGKILL

    def look(self, since: float) -> tuple[int, str]:
        """How many jobs are done, and what the one that was begun since then does: ``load`` or ``generate``."""
        if not (self.home / "studio.db").exists():
            return 0, ""
        connection = sqlite3.connect(self.home / "studio.db", timeout=30)
        try:
            done = connection.execute("SELECT COUNT(*) FROM jobs WHERE state = 'done'").fetchone()[0]
            last = connection.execute(
                "SELECT line FROM events JOIN jobs ON jobs.id = job_id WHERE state = 'running'"
                " AND started > ? ORDER BY events.number DESC LIMIT 1",
                (since,),
            ).fetchone()
        except sqlite3.OperationalError:  # the tables are not there yet
            return 0, ""
        finally:
            connection.close()
        event = json.loads(last[0]) if last else {}
        if event.get("event") in ("token", "artefact"):
            return done, "generate"
        return done, "load" if event.get("phase") == "load" else ""

    def stored(self) -> int:
        """The files in the store, whole or on their way."""
        return sum(1 for path in (self.home / "outputs").rglob("*") if path.is_file())

    def finish(self) -> int:
        """Run to the end, undisturbed."""
        with (self.home.parent / f"{self.home.name}.log").open("wb") as output:
            return self.start(output).wait()

    def left_behind(self) -> list[int]:
        """Processes that still work for this home, after they had time to notice that their parent is gone."""
        for _ in range(500):
            found = [process.pid for process in psutil.process_iter() if self._ours(process)]
            if not found:
                break
            time.sleep(0.01)
        return found

    def _ours(self, process: psutil.Process) -> bool:
        try:
            ours = process.environ().get("STUDIO_HOME") == str(self.home) and process.pid != os.getpid()
            return ours and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False


def write_batch(path: Path, model: str, jobs: int, params: dict[str, object]) -> None:
    """As many jobs as asked for, which differ in their seed."""
    entry = {"id": "job", "model": model, "params": params, "matrix": {"seed": list(range(1, jobs + 1))}}
    path.write_text(json.dumps({"name": "storm", "jobs": [entry]}))  # JSON is YAML


def faults_of(home: Path, jobs: int) -> tuple[dict[str, str], list[str]]:
    """``{step: sha256 of its content}``, and one line for whatever is missing, double or torn."""
    faults = []
    connection = sqlite3.connect(home / "studio.db")
    if (state := connection.execute("PRAGMA integrity_check").fetchone()[0]) != "ok":
        faults.append(f"the database: {state}")
    states = dict(connection.execute("SELECT state, COUNT(*) FROM jobs GROUP BY state").fetchall())
    if states != {"done": jobs}:
        faults.append(f"{jobs} jobs done were wanted, there are {states}")
    rows = connection.execute("SELECT step, artefacts.line FROM artefacts JOIN jobs ON jobs.id = job_id").fetchall()
    ends = connection.execute("SELECT COUNT(*) FROM events WHERE json_extract(line, '$.event') = 'done'").fetchone()[0]
    connection.close()
    if len(rows) != jobs or ends != jobs:
        faults.append(f"{jobs} outputs and ends were wanted, there are {len(rows)} and {ends}")
    contents, wanted = {}, set()
    for step, line in rows:
        made = json.loads(line)
        path, recipe = Path(made["path"]), Path(made["path"] + ".recipe.json")
        wanted |= {path, recipe}
        contents[step] = made["content_sha256"]
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != made["content_sha256"]:
            faults.append(f"{path.name} is missing or torn")
        elif json.loads(recipe.read_bytes()) != made["recipe"]:
            faults.append(f"{recipe.name} is not the recipe of its file")
    there = {path for path in (home / "outputs").rglob("*") if path.is_file()}
    faults += [f"{path.name} belongs to nothing" for path in sorted(there - wanted)]
    faults += [f"work/{path.name} was left" for path in (home / "work").iterdir()]
    return contents, faults


def new_home(folder: Path, models: Path | None) -> Path:
    folder.mkdir(parents=True)
    if models is not None:
        (folder / "models").symlink_to(models.absolute(), target_is_directory=True)
    return folder


def storm(
    folder: Path, model: str, params: dict[str, object], *, jobs: int, kills: int, seed: int, models: Path | None = None
) -> tuple[Storm, list[str]]:
    """The whole play; the second value is empty if all promises were kept."""
    folder.mkdir(parents=True, exist_ok=True)
    batch = folder / "storm.yaml"
    write_batch(batch, model, jobs, params)
    calm = Storm(new_home(folder / "calm", models), batch, random.Random(seed))
    hit = Storm(new_home(folder / "storm", models), batch, random.Random(seed))
    faults = [] if calm.finish() == 0 else ["the undisturbed run failed"]
    begun = time.monotonic()
    for number in range(kills):
        hit.kill_once(MOMENTS[number % len(MOMENTS)], alone=number % 3 == 2)
        if left := hit.left_behind():
            faults.append(f"after kill {number + 1} these processes were left: {left}")
    if code := hit.finish():
        faults.append(f"the last run ended with exit code {code}")
    hit.seconds = time.monotonic() - begun
    expected, _ = faults_of(calm.home, jobs)
    contents, more = faults_of(hit.home, jobs)
    if contents != expected:
        faults.append("the contents differ from those of the undisturbed run")
    return hit, faults + more


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter-text")
    parser.add_argument("--params", default='{"prompt": "Write a sentence about the sea.", "max_tokens": 24}')
    parser.add_argument("--jobs", type=int, default=20)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "test-home" / "models")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kill-storm-"))
    hit, faults = storm(
        folder, options.model, json.loads(options.params),
        jobs=options.jobs, kills=options.kills, seed=options.seed, models=options.models,
    )  # fmt: skip
    with sqlite3.connect(hit.home / "studio.db") as connection:
        attempts, most = connection.execute("SELECT SUM(attempt), MAX(attempt) FROM jobs").fetchone()
    landed = ", ".join(f"{moment} {hit.kills[moment]}" for moment in MOMENTS)
    print(f"{options.jobs} jobs of {options.model}, {hit.kills.total()} of {options.kills} kills landed ({landed})")
    print(f"{attempts} attempts in all, at most {most} for one job; {hit.seconds:.1f} s with all restarts")
    for fault in faults:
        print(f"Fault: {fault}")
    if faults:
        print(f"The home is kept in {folder}")
        return 1
    shutil.rmtree(folder)
    print("Every job is done once; files, recipes and rows agree; the contents are those of an undisturbed run.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
