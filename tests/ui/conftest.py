"""A page server in a process of its own with a foreign family, and a browser that is found, installed, or missed."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from browsing import Tab, jobs_of
from page_server import Page, StartPage
from starlette.testclient import TestClient

from studio.core import Studio
from studio.jobs.model import ENDED
from studio.ui.guard import Gate
from toolbox import install_family, until

PLUGINS = Path(__file__).parent / "plugins"
TOYS = Path(__file__).parents[1] / "core" / "plugins"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The file that takes longest begins, so that no process waits for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_video_tab.py")


@pytest.fixture(scope="session")
def page_plugins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The families ``toy``, ``faulty``, ``paint`` and ``film`` and the widget ``knob``, as pip would leave them."""
    folder = tmp_path_factory.mktemp("page-packages")
    for source, package, name, value in (
        (TOYS, "toyfamily", "toy", "toyfamily.family:Toy"),
        (TOYS, "faultyfamily", "faulty", "faultyfamily.family:Faulty"),
        (PLUGINS, "paintfamily", "paint", "paintfamily.family:Paint"),
        (PLUGINS, "filmfamily", "film", "filmfamily.family:Film"),
    ):
        shutil.copytree(source / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        install_family(folder, package, {name: value})
    points = folder / "paintfamily-1.0.dist-info" / "entry_points.txt"
    points.write_text(points.read_text() + "\n[studio.widgets]\nknob = paintfamily.page:Knob\n")
    return folder


@pytest.fixture
def foreign(page_plugins: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same families visible in this process."""
    monkeypatch.syspath_prepend(str(page_plugins))
    return page_plugins


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, page_plugins: Path) -> Iterator[Studio]:
    """An engine without a worker process, with the families of ``page_plugins``."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(page_plugins))
        with Studio(tmp_path_factory.mktemp("engine") / "home", executor="inline") as studio:
            yield studio


@pytest.fixture(scope="module")
def client(studio: Studio) -> Iterator[TestClient]:
    """The whole application over ``studio``, in this process."""
    from studio.ui.server import build_app, hosts_of

    app = build_app(studio, Gate(hosts_of("127.0.0.1", 7860)))
    with TestClient(app, base_url="http://127.0.0.1:7860", follow_redirects=False) as client:
        yield client
    gc.collect()  # Gradio's event loop goes now, where its warning is expected


def address_in(place: Path) -> bool:
    """In a line of the log, or in the whole of ``page.json``."""
    text = place.read_text() if place.exists() else ""
    return "http://" in text and (place.suffix != ".json" or text.endswith("}"))


@pytest.fixture(scope="session")
def start_page(page_plugins: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPage]:
    """Starts ``studio ui`` as a person would; what is left of it goes at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(*args: str, home: Path | None = None, more: Sequence[Path] = (), ready: bool = True) -> Page:
        """``more``: further folders of Python modules for the server and its worker. Not ``ready``: it only listens."""
        home = home or tmp_path_factory.mktemp("page") / "home"
        home.mkdir(exist_ok=True)
        models = Path(os.environ["STUDIO_TEST_MODELS"]).absolute()
        if models.is_dir() and not (home / "models").exists():
            (home / "models").symlink_to(models, target_is_directory=True)
        log = home / "page.log"
        modules = os.pathsep.join(map(str, [page_plugins, *more]))
        environment = {**os.environ, "STUDIO_HOME": str(home), "PYTHONPATH": modules, "PYTHONUNBUFFERED": "1"}
        with log.open("w") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "studio.cli.main", "ui", "--no-browser", "--port", "0", *args],
                stdout=output, stderr=subprocess.STDOUT, text=True, env=environment, start_new_session=True,
            )  # fmt: skip
        started.append(process)
        place = log if ready else home / "page.json"
        until("the page's address", lambda: address_in(place) or process.poll() is not None, 120)
        assert process.poll() is None, log.read_text()
        if not ready:
            return Page(json.loads(place.read_text())["url"], home, process, log)
        text = log.read_text()
        return Page(next(word for word in text.split() if word.startswith("http://")), home, process, log)

    yield start
    for process in started:
        process.terminate()
    for process in started:
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def page(start_page: StartPage) -> Page:
    """One server for the tests that only look or add."""
    if not (Path(os.environ["STUDIO_TEST_MODELS"]) / "locks" / "starter-text.json").is_file():
        pytest.fail("The starter model is missing: run make test, which gets it.", pytrace=False)
    return start_page()


def find_chromium() -> str | None:
    """A Chromium of the system, or playwright's own."""
    for name in ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable"):
        if found := shutil.which(name):
            return found
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        own = playwright.chromium.executable_path
    return own if Path(own).exists() else None


def get_chromium() -> str | None:
    """Install one where that is possible: Debian's as root, else playwright's into the user's cache."""
    attempts = [[sys.executable, "-m", "playwright", "install", "chromium"]]
    if hasattr(os, "geteuid") and os.geteuid() == 0 and shutil.which("apt-get"):
        attempts.insert(0, ["sh", "-c", "apt-get update -qq && apt-get install -y -qq chromium"])
    for command in attempts:
        try:
            subprocess.run(command, capture_output=True, timeout=150, check=False)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if found := find_chromium():
            return found
    return None


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, or a skip that says how to get one. Not for longer than a module: it keeps an event loop running."""
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed: pip install playwright")
    path = find_chromium() or get_chromium()
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or python -m playwright install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any, page: Page) -> Iterator[Tab]:
    tab = Tab(browser, page)
    yield tab
    tab.context.close()
    _leave_nothing_running(page)
    assert tab.outside == []
    assert tab.complaints == []


def _leave_nothing_running(page: Page) -> None:
    """The server is shared: what one test left to be written, the next one's words would wait for."""
    left = [job["id"] for job in jobs_of(page) if job["state"] not in ENDED]
    if left:
        with Studio(page.home, executor="inline") as studio:
            for job_id in left:
                studio.queue.cancel(job_id)
