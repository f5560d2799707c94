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
from pathlib import Path

from PIL import Image

from bench_page import ROOT
from screens_eye import HEIGHT, Eye
from screens_states import STATES, shoot_all


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
