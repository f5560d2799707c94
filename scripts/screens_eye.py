"""Who looks: one tab of a browser for each language, in every width and theme."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench_page import BOX

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
