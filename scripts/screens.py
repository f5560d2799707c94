"""Pictures of every state of the page: ``.venv/bin/python scripts/screens.py FOLDER``.

Each tab, empty, busy, done, failed and where nothing fits, in English and French, light and dark, 390 and 1920 wide,
made with the starter models in a home of its own, and for each tab and state a sheet of all eight. Nothing is compared:
they are there to be looked at. ``--states done --widths 1920`` and the like make fewer.
"""

from __future__ import annotations

import argparse
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from bench_page import BOX, ROOT, Server, serving

TABS = ("text", "image", "video", "audio", "mesh", "jobs", "gallery", "models", "machine")
STATES = {
    "empty": TABS,
    "busy": ("text", "image", "video", "jobs"),
    "done": ("text", "image", "video", "jobs", "gallery", "gallery-opened", "models", "machine"),
    "failed": ("image", "jobs"),
    "no-fit": ("text", "image", "video"),
}
HEIGHT = {390: 844, 1920: 1080}
TALLEST = 2400
LARGE = {"text": "mistral-small-3.1-24b", "image": "qwen-image-2512", "video": "framepack-i2v-hy"}
LONG = {"starter-image": {"prompt": "a red apple", "steps": 100, "num_images": 8}}
SETTLE_MS = 700


class Photographer:
    """One way of looking at the page: a language, light or dark, and a width."""

    def __init__(self, chromium: Any, server: Server, folder: Path, look: tuple[str, str, int]) -> None:
        self.language, self.theme, self.width = look
        self.server, self.folder = server, folder
        self.context = chromium.new_context(
            locale=self.language, viewport={"width": self.width, "height": HEIGHT[self.width]}
        )
        self.context.set_default_timeout(180_000)
        self.context.add_init_script(f"localStorage.setItem('studio-theme', '{self.theme}')")
        self.page = self.context.new_page()
        self.page.goto(server.url + ("fr/" if self.language == "fr" else ""))
        self.page.wait_for_selector(BOX)

    def go(self, tab: str) -> None:
        self.page.evaluate(f"document.getElementById('tab-{tab}-button').click()")
        self.page.wait_for_selector(f"#tab-{tab}", state="visible")

    def click(self, selector: str) -> None:
        """Click what is there, whether it is in view or not."""
        self.page.wait_for_selector(selector, state="attached")
        self.page.evaluate("(one) => document.querySelector(one).click()", selector)

    def shoot(self, tab: str, state: str) -> None:
        self.page.wait_for_timeout(SETTLE_MS)
        name = f"{tab}.{state}.{self.language}.{self.theme}.{self.width}.png"
        tall = min(TALLEST, self.page.evaluate("document.documentElement.scrollHeight"))
        clip = {"x": 0, "y": 0, "width": self.width, "height": max(tall, HEIGHT[self.width])}
        self.page.screenshot(path=self.folder / name, full_page=True, clip=clip, animations="disabled")

    def do(self, action: str) -> None:
        """Press a button of the Machine tab."""
        self.go("machine")
        self.click(f"#tab-machine [data-do={action}]")
        self.page.wait_for_timeout(SETTLE_MS)

    def say(self, words: str) -> None:
        self.go("text")
        self.page.fill(BOX, words)
        self.page.press(BOX, "Enter")

    def choose(self, tab: str, model: str) -> None:
        """Another model in the list at the top of a tab, and its forecast."""
        self.go(tab)
        self.page.locator(f"#{tab}-model input").click()
        option = self.page.locator(f"[role=option]:has-text('{model}')").first
        option.click()
        self.page.wait_for_selector(f"#tab-{tab} .forecast .badge")


@contextmanager
def studio(models: Path) -> Iterator[tuple[Server, Any]]:
    """A server in a fresh home whose models may be spoiled, and a client of it."""
    from gradio_client import Client

    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(models, home / "models")
        with serving(models, home=home) as server:
            server.listening()
            yield server, Client(server.url, verbose=False, analytics_enabled=False, httpx_kwargs={"timeout": 120})


def fill(client: Any, eye: Photographer) -> None:
    """One result of each kind, as a person would make them."""
    for prompt, seed in (("a blue heart", 2), ("a green apple", 5), ("a rocket", 4), ("a red apple", 3)):
        made = client.predict("starter-image", {"prompt": prompt, "seed": seed}, api_name="/run")
    picture = made["artefacts"][0]["file"]
    client.predict("starter-upscale", {"image": picture, "scale": 4}, api_name="/run")
    if "starter-video" in {one["id"] for one in client.predict(api_name="/models")}:
        client.predict(
            "starter-video", {"image": picture, "prompt": "bounces", "seconds": 3.6, "seed": 3}, api_name="/run"
        )
    client.predict("starter-text", {"prompt": "A haiku about rain.", "max_tokens": 40, "seed": 2}, api_name="/run")
    for number, words in enumerate(("What is a lighthouse? Two sentences.", "And who lives in it?")):
        eye.say(words)
        eye.page.locator(".turn.model .facts").nth(number).wait_for()


def busy(client: Any, eye: Photographer, known: set[str]) -> None:
    """What runs while it runs: an answer, then a picture, then a film."""
    eye.page.evaluate("localStorage.removeItem('studio-chat')")
    eye.say("Write a long story about the sea and a ship, with every detail.")
    eye.page.wait_for_selector(".turn.writing .prose")
    eye.shoot("text", "busy")
    eye.page.keyboard.press("Escape")
    for tab, model in (("image", "starter-image"), ("video", "starter-video")):
        if model not in known:
            continue
        asked = LONG.get(model) or {"image": str(eye.folder / "first.png"), "prompt": "bounces", "seconds": 5}
        job = client.predict(model, asked, api_name="/submit")["job"]
        waiting = client.predict("starter-text", {"prompt": "Later.", "max_tokens": 5}, api_name="/submit")["job"]
        eye.go(tab)
        eye.page.locator(f"#tab-{tab} .doing", has_text=re.compile(r"\d+/\d+")).first.wait_for()
        if tab == "video":  # its first section plays while the second is made
            eye.page.locator("#tab-video .film .chip").first.wait_for()
        eye.shoot(tab, "busy")
        if tab == "image":
            eye.go("jobs")
            eye.page.wait_for_selector(".job.running")
            eye.shoot("jobs", "busy")
        for one in (job, waiting):
            client.predict(one, api_name="/cancel")


def done(eye: Photographer) -> None:
    if not eye.page.locator(".turn.model").count():
        eye.click(".past .title")
        eye.page.wait_for_selector(".turn.model .facts", state="attached")
    for tab in STATES["done"]:
        name, _, more = tab.partition("-")
        eye.go(name)
        if more == "opened":
            eye.click("#tab-gallery .tile.image")
            eye.page.wait_for_selector("#tab-gallery .opened")
        eye.page.wait_for_load_state("load")
        eye.shoot(tab, "done")


def failed(client: Any, server: Server, eye: Photographer) -> None:
    """A picture whose model was damaged after it had been asked for."""
    folder = server.home / "models"
    weights = list(folder.rglob("realesr*.bin"))
    kept = {file: file.read_bytes() for file in weights}
    source = server.home / "small.png"
    Image.new("RGB", (40, 30), (200, 60, 60)).save(source)
    eye.do("pause")
    job = client.predict("starter-upscale", {"image": str(source)}, api_name="/submit")["job"]
    for file in weights:
        file.write_bytes(b"damaged")
    eye.do("resume")
    while client.predict(job, api_name="/job")["state"] in ("queued", "running"):
        time.sleep(0.2)
    for file, content in kept.items():
        file.write_bytes(content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--states", nargs="+", choices=STATES, default=list(STATES))
    parser.add_argument("--languages", nargs="+", choices=("en", "fr"), default=["en", "fr"])
    parser.add_argument("--themes", nargs="+", choices=("light", "dark"), default=["light", "dark"])
    parser.add_argument("--widths", nargs="+", type=int, choices=tuple(HEIGHT), default=list(HEIGHT))
    parser.add_argument("--models", type=Path, default=ROOT / ".cache" / "test-home" / "models")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    options.folder.mkdir(parents=True, exist_ok=True)
    looks = list(product(options.languages, options.themes, options.widths))
    with sync_playwright() as playwright, studio(options.models.absolute()) as (server, client):
        path = shutil.which("chromium") or playwright.chromium.executable_path
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        shoot_all(chromium, server, client, options.folder, options.states, looks)
        chromium.close()
    sheets(options.folder)


def shoot_all(
    chromium: Any, server: Server, client: Any, folder: Path, states: list[str], looks: list[tuple[str, str, int]]
) -> None:
    """The states in the order in which a home comes to them."""
    known = {one["id"] for one in client.predict(api_name="/models")}
    ready: set[str] = set()
    for state, look in product([name for name in STATES if name in states], looks):
        print(state, *look, flush=True)
        eye = Photographer(chromium, server, folder, look)
        if state == "empty":
            for tab in STATES["empty"]:
                eye.go(tab)
                eye.shoot(tab, "empty")
        elif state == "busy":
            sprite = Image.new("RGB", (64, 64), (240, 240, 235))
            ImageDraw.Draw(sprite).ellipse((8, 20, 30, 42), fill=(215, 40, 40))
            sprite.save(folder / "first.png")
            busy(client, eye, known)
        elif state == "done":
            if state not in ready:
                fill(client, eye)
            done(eye)
        elif state == "failed":
            if state not in ready:
                failed(client, server, eye)
            for tab in STATES["failed"]:
                eye.go(tab)
                eye.page.wait_for_selector(f"#tab-{tab} .trouble")
                eye.shoot(tab, "failed")
        else:
            for tab in STATES["no-fit"]:
                if LARGE[tab] in known:
                    eye.choose(tab, LARGE[tab])
                    eye.shoot(tab, "no-fit")
        ready.add(state)
        eye.context.close()


def sheets(folder: Path) -> None:
    """For each tab and state one picture of all its looks, half as large."""
    groups: dict[str, list[Path]] = {}
    for file in sorted(folder.glob("*.*.*.*.*.png")):
        groups.setdefault(".".join(file.name.split(".")[:2]), []).append(file)
    for name, files in groups.items():
        pictures = [Image.open(file).convert("RGB") for file in files]
        pictures = [one.resize((one.width // 2, one.height // 2), Image.Resampling.LANCZOS) for one in pictures]
        for width in sorted({one.width for one in pictures}):
            row = [one for one in pictures if one.width == width]
            sheet = Image.new(
                "RGB", (sum(one.width + 8 for one in row), max(one.height for one in row)), (128, 128, 128)
            )
            for number, one in enumerate(row):
                sheet.paste(one, (number * (width + 8), 0))
            sheet.save(folder / f"sheet-{name}-{width * 2}.png")


if __name__ == "__main__":
    main()
