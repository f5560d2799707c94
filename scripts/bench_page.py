"""How quick the page is: from the command to its first use, watched by twenty, and with a thousand results.

    start     `studio ui` in a fresh home -> it listens -> a text box takes words, in Chromium -> the words are sent
    watched   twenty pages look at one answer that is being written: each must show all of it, as the database has it
    gallery   a thousand pictures and long texts: how long a tab of them takes to show

Writes ``benchmarks/page.json`` with the load of the machine, without which no figure here means anything.
Run: ``.venv/bin/python scripts/bench_page.py`` (``--only start``; ``--against FOLDER``: another checkout, in turns).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
HEAVY = ("libtorch", "libllama", "libggml")
BOX = "#chat-box textarea"
LOOK_S = 0.005


class Server:
    """``studio ui`` as a person starts it, in a home of its own."""

    def __init__(self, home: Path, code: Path = ROOT, args: Sequence[str] = (), more: Sequence[Path] = ()) -> None:
        """``args``: further ones of the command; ``more``: folders with packages that it finds as if installed."""
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.home, self.url = home, f"http://127.0.0.1:{self.port}/"
        self.begun = time.perf_counter()
        self._log = (home / "page.log").open("w")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "studio.cli.main", "ui", "--no-browser", "--port", str(self.port), *args],
            env={
                **{name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
                "STUDIO_HOME": str(home),
                "PYTHONPATH": os.pathsep.join(map(str, [code / "src", code / "pipelines", *more])),
            },
            stdout=self._log, stderr=subprocess.STDOUT, cwd=code,
        )  # fmt: skip

    def since(self) -> float:
        return time.perf_counter() - self.begun

    def listening(self) -> float:
        """Wait until it answers; seconds since the command."""
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return self.since()
            if self.process.poll() is not None:
                raise SystemExit((self.home / "page.log").read_text())
            time.sleep(LOOK_S)

    def memory(self) -> dict[str, Any]:
        """Of the server alone, not of the worker: bytes, and which heavy libraries it holds (Linux tells)."""
        maps = Path(f"/proc/{self.process.pid}/maps")
        held = [name for name in HEAVY if name in maps.read_text()] if maps.exists() else None
        return {"rss_bytes": psutil.Process(self.process.pid).memory_info().rss, "heavy_libraries": held}

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30)
        self._log.close()


@contextlib.contextmanager
def serving(models: Path, code: Path = ROOT, home: Path | None = None, **options: Any) -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as folder:
        home = home or Path(folder)
        if not (home / "models").exists():
            (home / "models").symlink_to(models, target_is_directory=True)
        server = Server(home, code, **options)
        try:
            yield server
        finally:
            server.end()


def start_once(chromium: Any, models: Path, code: Path) -> dict[str, Any]:
    """One start, looked at by a browser that is open already but has never seen the page."""
    with serving(models, code) as server:
        listening = server.listening()
        context = chromium.new_context(locale="en-US")
        page = context.new_page()
        page.goto(server.url)
        page.wait_for_selector(BOX, timeout=120_000)
        page.fill(BOX, "Say hello.")
        usable = server.since()
        cpu = psutil.Process(server.process.pid).cpu_times()
        page.press(BOX, "Enter")
        page.wait_for_selector(".turn.user .said", timeout=120_000)
        sent = server.since()
        page.wait_for_selector(".turn.model .facts", timeout=120_000)  # the words were taken: there is an answer
        found = {
            "listening_s": listening, "usable_s": usable, "sent_s": sent, "answered_s": server.since(),
            "server_cpu_s": cpu.user + cpu.system, **server.memory(),
        }  # fmt: skip
        context.close()
    return found


def bench_start(chromium: Any, models: Path, runs: int, codes: list[Path]) -> dict[str, Any]:
    start_once(chromium, models, codes[0])  # the disk's cache and Python's own files
    found: dict[str, list[dict[str, Any]]] = {str(code): [] for code in codes}
    for _ in range(runs):
        for code in codes:
            found[str(code)].append(start_once(chromium, models, code))
            print(code.name, {k: round(v, 2) for k, v in found[str(code)][-1].items() if k.endswith("_s")}, flush=True)
    ours, *others = (summary(rows) for rows in found.values())
    return {**ours, **({"against": {"commit": commit_of(codes[1]), **others[0]}} if others else {})}


def commit_of(code: Path) -> str:
    asked = ["git", "-C", str(code), "log", "-1", "--format=%h %s"]
    return subprocess.run(asked, capture_output=True, text=True, check=False).stdout.strip()


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The median of each figure, with the single ones beside it; anything else from the last row."""
    out: dict[str, Any] = {}
    for name, last in rows[-1].items():
        values = [row[name] for row in rows]
        if name.endswith("_s"):
            out[name] = {"median": round(statistics.median(values), 3), "all": [round(value, 3) for value in values]}
        else:
            out[name] = last
    return out


# -- twenty pages look at one answer -----------------------------------------------------------------------------------
PAGES = 20
_NOTE_GROWTH = """() => { window.seen = []; new MutationObserver(() => {
  const now = document.querySelector(".turn.writing .prose"); if (!now) return;
  const length = now.textContent.length; if (window.seen.at(-1) !== length) window.seen.push(length);
}).observe(document.querySelector(".thread-box"), {childList: true, subtree: true, characterData: true}); }"""
_RAW = """() => [...document.querySelectorAll(".turn.model:not(.writing) .raw")].at(-1)?.content.textContent"""


def bench_watched(chromium: Any, models: Path, pages: int = PAGES) -> dict[str, Any]:
    """Every page must show, at its end, exactly the words that the database has, and have grown towards them."""
    with serving(models) as server:
        context = chromium.new_context(locale="en-US", viewport={"width": 1000, "height": 700})
        context.set_default_timeout(300_000)
        first = context.new_page()
        server.listening()
        first.goto(server.url)
        first.wait_for_selector(BOX)
        _say(first, "Hello.", tokens=8)
        first.wait_for_selector(".turn.model .facts")
        alone = server.memory()
        shown = [first]
        for _ in range(pages - 1):
            page = context.new_page()
            page.goto(server.url)
            page.wait_for_selector(".turn.model .facts")
            shown.append(page)
        for page in shown:
            page.evaluate(_NOTE_GROWTH)
        before, begun = psutil.Process(server.process.pid).cpu_times(), time.perf_counter()
        _say(first, "Write a long story about the sea and a ship.", tokens=400)
        for page in shown:
            page.locator(".turn.model:not(.writing) .facts").nth(1).wait_for()
        wall = time.perf_counter() - begun
        after = psutil.Process(server.process.pid).cpu_times()
        written, tokens = _last_answer(server.home)
        whole = sum(page.evaluate(_RAW) == written for page in shown)
        growth = [page.evaluate("window.seen") for page in shown]
        found = {
            "pages": len(shown), "pages_that_show_every_word": whole, "tokens": tokens, "wall_s": round(wall, 2),
            "times_a_page_grew": [len(one) for one in growth],
            "shrank": sum(one != sorted(one) for one in growth),
            "server_cpu_s": round(after.user + after.system - before.user - before.system, 2),
            "one_page": alone, "all_pages": server.memory(),
        }  # fmt: skip
        context.close()
    return found


def _say(page: Any, text: str, tokens: int) -> None:
    fold = page.locator("#tab-text").get_by_role("button", name="Settings")
    limit = page.locator("#tab-text").get_by_label("Longest answer")
    if not limit.is_visible():
        fold.click()
    limit.fill(str(tokens))
    page.fill(BOX, text)
    page.press(BOX, "Enter")


def _last_answer(home: Path) -> tuple[str, int]:
    """The words of the newest job as its events have them, and how many tokens that were."""
    with contextlib.closing(sqlite3.connect(home / "studio.db")) as database:
        [job] = database.execute("SELECT id FROM jobs ORDER BY number DESC LIMIT 1").fetchone()
        lines = database.execute("SELECT line FROM events WHERE job_id = ? ORDER BY number", (job,)).fetchall()
    events = [json.loads(line) for (line,) in lines]
    words = "".join(one["text"] for one in events if one["event"] == "token" and one["channel"] == "answer")
    made = next(one for one in events if one["event"] == "artefact")
    return words, made["info"]["completion_tokens"]


# -- a thousand results ------------------------------------------------------------------------------------------------
PIECES = ("gallery", "jobs", "status", "result?tab=image")
_LOADED = """() => { const seen = [...document.querySelectorAll("#tab-gallery .tile img")].filter((one) =>
  one.getBoundingClientRect().top < innerHeight); return seen.length > 0 && seen.every((one) => one.complete); }"""


def bench_gallery(chromium: Any, models: Path, count: int) -> dict[str, Any]:
    """The gallery, the jobs and a long text, as a browser of 1280 x 900 sees them."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        fill(home, count)
        with serving(models, home=home) as server:
            server.listening()
            page = chromium.new_context(locale="en-US", viewport={"width": 1280, "height": 900}).new_page()
            page.add_init_script("sessionStorage.clear()")  # the page would begin where it was left
            page.set_default_timeout(120_000)
            page.goto(server.url)
            page.wait_for_selector(BOX)
            found = {"artefacts": count}
            for name in ("first_look_s", "second_look_s"):  # the first makes the small pictures
                begun = time.perf_counter()
                page.locator("#tab-gallery-button").click()
                page.wait_for_function(_LOADED)
                found[name] = round(time.perf_counter() - begun, 3)
                page.reload()
                page.wait_for_selector(BOX)
            page.locator("#tab-gallery-button").click()
            page.wait_for_function(_LOADED)
            found["elements_of_the_page"] = page.evaluate("document.querySelectorAll('*').length")
            found["next_page_s"] = _until_changed(page, lambda: page.locator("#tab-gallery .pager .b").last.click())
            found["long_text_s"] = _open_long(page)
            begun = time.perf_counter()
            page.locator("#tab-jobs-button").click()
            page.wait_for_selector("#tab-jobs .job")
            found["jobs_s"] = round(time.perf_counter() - begun, 3)
            found["answers_ms"] = {name: _answer_ms(server, name) for name in PIECES}
            found.update(server.memory())
    return found


def fill(home: Path, count: int) -> None:
    """A home as it would be after so many jobs, without computing: written by the calls that a runner makes."""
    from PIL import Image

    from studio.events import Artefact, Done
    from studio.jobs.model import Request
    from studio.jobs.queue import JobQueue
    from studio.store.artefacts import ArtefactStore
    from studio.store.database import Database
    from studio.store.home import Home

    place = Home(home)
    database = Database(place.root / "studio.db")
    store = ArtefactStore(place, database)
    queue = JobQueue(database, store)
    for number in range(count):
        text = number % 10 == 9
        model = "starter-text" if text else "starter-image"
        params = {"prompt": f"number {number}", "seed": number}
        queue.submit([Request(model=model, params=params, request_sha256=f"{number:064x}")])
        row = queue.claim()
        assert row is not None
        file = place.workdir(row.id) / ("made.txt" if text else "made.png")
        if text:
            file.write_text(f"Line {number} of a long text that goes on and on.\n" * 20_000)
        else:
            Image.effect_noise((512, 512), number % 97).save(file)
        media = "text/plain" if text else "image/png"
        recipe = {"model": model, "params": params}
        made = store.take(
            Artefact(path=str(file), media_type=media, recipe=recipe), job_id=row.id, number=1, created=time.time()
        )
        queue.append(row, [made, Done()], [(1, made)])
    database.close()


def _until_changed(page: Any, act: Any) -> float:
    before = page.locator("#tab-gallery .tile").first.get_attribute("data-key")
    begun = time.perf_counter()
    act()
    page.wait_for_function("(key) => document.querySelector('#tab-gallery .tile')?.dataset.key !== key", arg=before)
    page.wait_for_function(_LOADED)
    return round(time.perf_counter() - begun, 3)


def _open_long(page: Any) -> float:
    begun = time.perf_counter()
    page.locator("#tab-gallery .tile.text").first.click()
    page.wait_for_selector("#tab-gallery .opened .words")
    return round(time.perf_counter() - begun, 3)


def _answer_ms(server: Server, piece: str) -> float:
    """The median of ten answers of one live piece."""
    import httpx2

    taken = []
    for _ in range(10):
        begun = time.perf_counter()
        httpx2.get(f"{server.url}studio/live/{piece}").raise_for_status()
        taken.append(time.perf_counter() - begun)
    return round(statistics.median(taken) * 1000, 1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--artefacts", type=int, default=1000)
    parser.add_argument("--only", choices=("start", "watched", "gallery"))
    parser.add_argument("--against", type=Path, help="another checkout, started in turns")
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "test-home" / "models")
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "page.json")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    models = options.models.absolute()
    found = json.loads(options.json.read_text()) if options.only and options.json.exists() else {}
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        machine = {"python": platform.python_version(), "gradio": version("gradio"), "chromium": chromium.version,
                   "cores": os.cpu_count(), "processor": processor()}  # fmt: skip
        codes = [ROOT, *([options.against.absolute()] if options.against else [])]
        parts = {
            "start": lambda: bench_start(chromium, models, options.runs, codes),
            "watched": lambda: bench_watched(chromium, models),
            "gallery": lambda: bench_gallery(chromium, models, options.artefacts),
        }
        for name, measure in parts.items():
            if options.only in (None, name):
                load = os.getloadavg()[0]
                result = measure()
                found[name] = {"load_before": round(load, 2), "load_after": round(os.getloadavg()[0], 2), **result}
                print(json.dumps({name: found[name]}, indent=1), flush=True)
        found["machine"] = machine
    options.json.write_text(json.dumps(found, indent=1) + "\n")


def processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor()
    )


if __name__ == "__main__":
    main()
