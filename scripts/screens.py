"""Pictures of every state of the page: ``.venv/bin/python scripts/screens.py FOLDER``.

Each tab in each state that it can be in (``screens_states.py`` says which, and brings the page there), in English and
French, light and dark, 390 and 1920 wide, made with the starter models in a home of its own, and for each tab and state
two sheets of all looks. Nothing is compared: they are there to be looked at. ``--states done --widths 1920`` and the
like make fewer.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from bench_page import BOX, ROOT

HEIGHT = {390: 844, 1920: 1080}
TALLEST = 2400
SETTLE_MS = 350
WAIT_MS = 180_000


class Eye:
    """The page in one language, looked at in each width, light and dark: one tab of a browser, so that all looks of a
    state show the same moment of the same work."""

    def __init__(
        self, chromium: Any, folder: Path, language: str, themes: Sequence[str], widths: Sequence[int]
    ) -> None:
        self.folder, self.language, self.themes, self.widths = folder, language, themes, widths
        self.context = chromium.new_context(locale=language, viewport=self._size(widths[-1]), color_scheme=themes[0])
        self.context.set_default_timeout(WAIT_MS)
        self.context.add_init_script("sessionStorage.clear()")  # the page would begin where it was left
        self.page = self.context.new_page()

    def open(self, url: str) -> None:
        self.page.goto(url + ("fr/" if self.language == "fr" else ""))
        self.page.wait_for_selector(BOX)

    def again(self) -> None:
        """The page as it begins, with nothing typed."""
        self.page.reload()
        self.page.wait_for_selector(BOX)

    def go(self, tab: str) -> None:
        self.page.evaluate("(id) => document.getElementById(id).click()", f"tab-{tab}-button")
        self.page.wait_for_selector(f"#tab-{tab}", state="visible")

    def click(self, selector: str) -> None:
        """Click what is there, whether it is in view or not."""
        self.page.wait_for_selector(selector, state="attached")
        self.page.evaluate("(one) => document.querySelector(one).click()", selector)

    def act(self, **values: str) -> None:
        """What a button of the lists does."""
        self.page.evaluate(
            "(values) => fetch('studio/do', {method: 'POST', headers: {'Content-Type': 'application/json'},"
            " body: JSON.stringify(values)})",
            values,
        )

    def say(self, words: str) -> None:
        self.go("text")
        self.page.fill(BOX, words)
        self.page.press(BOX, "Enter")

    def choose(self, tab: str, model: str) -> None:
        """Another model in the list at the top of a tab, and its forecast."""
        self.go(tab)
        self.page.locator(f"#{tab}-model input").click()
        self.page.locator(f"[role=option]:has-text('{model}')").first.click()
        self.page.locator(f"#tab-{tab} .forecast .badge").locator("visible=true").first.wait_for()

    def shoot(self, tab: str, state: str, at: Callable[[], object] | None = None) -> None:
        """All looks of what is shown; ``at`` is done anew for each width."""
        for width in self.widths:
            self.page.set_viewport_size(self._size(width))
            if at is not None:
                at()
            self.page.wait_for_timeout(SETTLE_MS)
            tall = self.page.evaluate("document.documentElement.scrollHeight")
            if tall > HEIGHT[width]:  # what sticks to the lower edge is seen there, not in the middle
                self.page.set_viewport_size({"width": width, "height": min(TALLEST, tall)})
                self.page.wait_for_timeout(SETTLE_MS)
            for theme in self.themes:
                self.page.emulate_media(color_scheme=theme)
                self.page.wait_for_timeout(SETTLE_MS // 2)
                name = f"{tab}.{state}.{self.language}.{theme}.{width}.png"
                self.page.screenshot(path=self.folder / name, animations="disabled")
            self._wide(tab, state, width)

    def _wide(self, tab: str, state: str, width: int) -> None:
        needs = self.page.evaluate("document.documentElement.scrollWidth")
        if needs > width:
            print(f"  {tab} {state} {self.language}: {needs} px wide at {width}", flush=True)

    @staticmethod
    def _size(width: int) -> dict[str, int]:
        return {"width": width, "height": HEIGHT[width]}


def main() -> None:
    from screens_states import STATES, shoot_all

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
    begun = time.monotonic()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or playwright.chromium.executable_path
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        eyes = [Eye(chromium, options.folder, one, options.themes, options.widths) for one in options.languages]
        shoot_all(options.models.absolute(), eyes, options.states)
        chromium.close()
    count = sheets(options.folder)
    print(f"{count} pictures, {time.monotonic() - begun:.0f} s", flush=True)


def sheets(folder: Path) -> int:
    """For each tab, state and width one picture of all its looks; returns how many pictures there are."""
    groups: dict[tuple[str, int], list[Path]] = {}
    found = sorted(folder.glob("[!s]*.*.*.*.*.png"))
    for file in found:
        tab, state, _, _, width, _ = file.name.split(".")
        groups.setdefault((f"{tab}.{state}", int(width)), []).append(file)
    for (name, width), files in groups.items():
        pictures = [Image.open(file).convert("RGB") for file in files]
        columns = len(pictures) if width < 1000 else min(2, len(pictures))
        if width >= 1000:
            half = Image.Resampling.LANCZOS
            pictures = [one.resize((one.width // 2, one.height // 2), half) for one in pictures]
        wide, tall = (max(side) + 8 for side in zip(*(one.size for one in pictures), strict=True))
        sheet = Image.new("RGB", (columns * wide, -(-len(pictures) // columns) * tall), (128, 128, 128))
        for number, one in enumerate(pictures):
            sheet.paste(one, (number % columns * wide, number // columns * tall))
        sheet.save(folder / f"sheet-{name}-{width}.png")
    return len(found)


if __name__ == "__main__":
    main()
