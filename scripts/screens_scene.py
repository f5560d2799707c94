"""What ``screens.py`` looks at: a server in a home of its own, a program that asks it, and what goes wrong."""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from PIL import Image, ImageDraw

from bench_page import ROOT, Server, serving
from screens_eye import Eye

sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "download")]
from fake_hub import FakeHub, Fault  # noqa: E402

from toolbox import install_family  # noqa: E402

COMES = "deepseek-r1-distill-qwen-1.5b"
"""The only model of the hub."""
COMES_BYTES = 400 * 2**20


@dataclass
class Scene:
    """A server, a program that asks it for things, and those who look."""

    server: Server
    client: Any
    eyes: Sequence[Eye]
    known: set[str]

    def shoot(self, tab: str, state: str, before: Callable[[Eye], object] | None = None) -> None:
        """One tab in one state in all looks; ``before`` brings each page there."""
        for eye in self.eyes:
            eye.go(tab)
            if before is not None:
                before(eye)
            eye.shoot(tab, state)

    def submit(self, model: str, **params: Any) -> str:
        return str(self.client.predict(model, params, api_name="/submit")["job"])

    def make(self, model: str, **params: Any) -> dict[str, Any]:
        return dict(self.client.predict(model, params, api_name="/run"))

    def job(self, job: str) -> dict[str, Any]:
        return dict(self.client.predict(job, api_name="/job"))

    def cancel(self, *jobs: str) -> None:
        for job in jobs:
            self.client.predict(job, api_name="/cancel")

    def sprite(self) -> str:
        """A picture that a film can begin with."""
        path = self.server.home / "first.png"
        sprite = Image.new("RGB", (64, 64), (240, 240, 235))
        ImageDraw.Draw(sprite).ellipse((8, 20, 30, 42), fill=(215, 40, 40))
        sprite.save(path)
        return str(path)


@contextlib.contextmanager
def studio(models: Path, eyes: Sequence[Eye], more: Sequence[Path] = ()) -> Iterator[Scene]:
    """A server in a fresh home whose models may be spoiled, a client of it, and the page open for all who look."""
    from gradio_client import Client

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(models, home / "models")
        for lock in (home / "models" / "locks").glob("*.json"):  # they name whole paths
            lock.write_text(lock.read_text().replace(str(models), str(home / "models")))
        with serving(models, home=home, more=more) as server:
            server.listening()
            client = Client(server.url, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 120})
            for eye in eyes:
                eye.open(server.url)
            yield Scene(server, client, eyes, {one["id"] for one in client.predict(api_name="/models")})


def offer(hub: FakeHub) -> None:
    """A hub with one model, whose file comes slowly and never whole; every other is unknown to it."""
    from studio.catalogue import builtin_file, read_models

    source = next(one.source for one in read_models(builtin_file()) if one.id == COMES)
    [file] = source.files.values()
    content = b"GGUF\x03\0\0\0" + bytes(COMES_BYTES)
    hub.add({file.path: content}, repo=source.repo, commit=source.revision or "a" * 40)
    hub.lie[file.path] = {"size": file.bytes, "lfs": {"size": file.bytes, "sha256": file.sha256, "pointerSize": 130}}
    hub.faults[file.path] = [Fault("slow", times=-1)]


@contextlib.contextmanager
def foreign_family() -> Iterator[Path]:
    """The tests' family of painted squares, as pip would leave it."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = ROOT / "tests" / "ui" / "plugins" / "paintfamily"
        shutil.copytree(source, folder / "paintfamily", ignore=shutil.ignore_patterns("__pycache__"))
        install_family(folder, "paintfamily", {"paint": "paintfamily.family:Paint"})
        points = folder / "paintfamily-1.0.dist-info" / "entry_points.txt"
        points.write_text(points.read_text() + "\n[studio.widgets]\nknob = paintfamily.page:Knob\n")
        yield folder


def kill_worker(server: Server) -> None:
    for process in psutil.Process(server.process.pid).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if "studio.jobs.worker" in process.cmdline():
                process.kill()


@contextlib.contextmanager
def damaged(files: Sequence[Path]) -> Iterator[None]:
    """These files as a bad disk would leave them, for a while."""
    kept = [(file, file.rename(file.with_name(file.name + ".kept"))) for file in files]
    for file, _ in kept:
        file.write_bytes(b"damaged")
    try:
        yield
    finally:
        for file, good in kept:
            good.replace(file)
