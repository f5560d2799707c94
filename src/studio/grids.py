"""Contact sheets of a batch's matrices: every picture in its place, with what was varied written along the sides.

The last key of a matrix runs to the right, the one before it downward, and every combination of the others is a table
of its own under a heading. The same pictures give the same sheet on the same machine: letters are of the first font
found there of a few common ones, else of Pillow's own, which has no accents.
"""

from __future__ import annotations

import io
import itertools
import os
import unicodedata
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from studio.batch import Entry, read_entries
from studio.core import Studio
from studio.errors import BadRequest
from studio.files import write_whole
from studio.jobs.model import JobRow

CELL_PX = 384
MAX_SIDE_PX = 16_000
MAX_PIXELS = 100_000_000
_SMALLEST_PX = 48
_GAP = 8
_LINES = 3
_LONGEST = 600
"""Letters of a label; more would not be seen."""

_FONTS = ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "NotoSans-Regular.ttf", "Arial.ttf", "Helvetica.ttc")
_PAPER, _INK, _FAINT, _EMPTY = (255, 255, 255), (20, 20, 20), (110, 110, 110), (232, 232, 232)


@dataclass(frozen=True)
class Cell:
    """One job of a matrix: its pictures, or in words why there are none."""

    pictures: tuple[Path, ...] = ()
    words: str = ""


@dataclass(frozen=True)
class Sheet:
    """A matrix with its keys and their values in order; ``cells`` in the order of its jobs."""

    name: str
    axes: tuple[tuple[str, tuple[Any, ...]], ...]
    cells: tuple[Cell, ...] = ()

    @property
    def columns(self) -> Sequence[Any]:
        return self.axes[-1][1]

    @property
    def rows(self) -> Sequence[Any]:
        return self.axes[-2][1] if len(self.axes) > 1 else (None,)

    @property
    def tables(self) -> list[tuple[Any, ...]]:
        return list(itertools.product(*(values for _, values in self.axes[:-2])))


def check_grid(batch: Path, target: Path) -> list[Sheet]:
    """The sheets that a batch file would have, without pictures. Raises ``BadRequest`` if it has none."""
    if target.suffix.lower() != ".png":
        raise BadRequest(f"--grid is {str(target)!r}: a contact sheet is written as PNG.", "Write: --grid sheet.png")
    if not os.path.isdir(target.parent):  # noqa: PTH112 - false for any impossible name, too
        raise BadRequest(f"There is no folder {str(target.parent)!r} for the contact sheet.", "Make it first.")
    sheets = [_sheet(name, entry) for name, entry in read_entries(batch) if entry.matrix]
    if not sheets:
        raise BadRequest(f"{batch.name} has no matrix, so there is no grid to draw.", "Add to a job: matrix: {...}")
    for sheet in sheets:
        _cell_px(sheet)
    return sheets


def write_grids(studio: Studio, batch: Path, jobs: Sequence[JobRow], target: Path) -> list[Path]:
    """Draw every matrix of a batch whose jobs have ended. With several, the job's id is added to the file's name."""
    sheets = check_grid(batch, target)
    by_step = {row.step: row for row in jobs}
    written = []
    for sheet in sheets:
        names = (f"{sheet.name}.{number}" for number in itertools.count(1))
        count = len(sheet.tables) * len(sheet.rows) * len(sheet.columns)
        cells = tuple(_cell(studio, by_step.get(name)) for name in itertools.islice(names, count))
        path = target if len(sheets) == 1 else target.with_name(f"{target.stem}-{sheet.name}{target.suffix}")
        buffer = io.BytesIO()
        drawn(Sheet(sheet.name, sheet.axes, cells)).save(buffer, "PNG")
        write_whole(path, buffer.getvalue())
        written.append(path)
    return written


def drawn(sheet: Sheet) -> Image.Image:
    """The contact sheet. Raises ``BadRequest`` for a matrix too large to be seen."""
    side = _cell_px(sheet)
    font, plain = _font(max(11, side // 22))
    line = sum(font.getmetrics())
    left = _left(sheet, side)
    head = line * _LINES + _GAP if len(sheet.axes) > 2 else 0
    top = line * _LINES + _GAP
    height = head + top + len(sheet.rows) * (side + _GAP) + _GAP
    page = Image.new("RGB", (left + len(sheet.columns) * (side + _GAP) + _GAP, height * len(sheet.tables)), _PAPER)
    pen = _Pen(ImageDraw.Draw(page), font, line, plain)
    cells = iter(sheet.cells)
    for number, values in enumerate(sheet.tables):
        y = number * height
        if values:
            keys = ", ".join(_label(key, value) for (key, _), value in zip(sheet.axes, values, strict=False))
            pen.write(keys, _GAP, y + _GAP, page.width - 2 * _GAP, _INK)
        for column, value in enumerate(sheet.columns):
            x = left + column * (side + _GAP)
            pen.write(_label(sheet.axes[-1][0], value), x, y + head + _GAP, side, _INK)
        for row, value in enumerate(sheet.rows):
            down = y + head + top + row * (side + _GAP)
            if len(sheet.axes) > 1:
                pen.write(_label(sheet.axes[-2][0], value), _GAP, down, left - 2 * _GAP, _INK, lines=side // line)
            for column in range(len(sheet.columns)):
                _draw(page, pen, next(cells, Cell(words="not done")), left + column * (side + _GAP), down, side)
    return page


def _font(size: int) -> tuple[Any, bool]:
    """A font of this height, and whether it knows only letters without accents."""
    for name in _FONTS:
        try:
            return ImageFont.truetype(name, size), False
        except OSError:
            continue
    return ImageFont.load_default(size), True


def _sheet(name: str, entry: Entry) -> Sheet:
    return Sheet(name, tuple((key, tuple(values)) for key, values in entry.matrix.items()))


def _left(sheet: Sheet, side: int) -> int:
    """Room for the labels of the rows."""
    return side // 2 + 2 * _GAP if len(sheet.axes) > 1 else _GAP


def _cell_px(sheet: Sheet) -> int:
    """The side of a cell with which the whole stays within limits."""
    columns, rows = len(sheet.columns) + 1, len(sheet.rows) * len(sheet.tables) + len(sheet.tables)
    side = min(CELL_PX, MAX_SIDE_PX // max(columns, rows), int((MAX_PIXELS / (columns * rows)) ** 0.5)) - _GAP
    if side < _SMALLEST_PX:
        raise BadRequest(
            f"The matrix {sheet.name} would have {columns - 1} columns and {rows} rows: too many to be seen.",
            "Split it into several jobs, or leave out --grid.",
        )
    return side


def _cell(studio: Studio, row: JobRow | None) -> Cell:
    """What a job made, as far as it is pictures."""
    if row is None:
        return Cell(words="not done")
    row = studio.queue.get(row.id)
    made = [one for one in studio.artefacts.of_job(row.id) if one.media_type.startswith("image/")]
    pictures = tuple(Path(one.path) for one in made if Path(one.path).is_file())
    return Cell(pictures, "" if pictures else "no picture" if row.state == "done" else row.state)


def _label(key: str, value: Any) -> str:
    if isinstance(value, list):
        value = ", ".join(map(str, value)) or "none"
    elif isinstance(value, bool):
        value = "yes" if value else "no"
    elif value is None:
        value = "none"
    return f"{key}: {' '.join(str(value).split())}"


def _draw(page: Image.Image, pen: _Pen, cell: Cell, x: int, y: int, side: int) -> None:
    """The pictures of one job, side by side in as many rows as columns."""
    if not cell.pictures:
        page.paste(_EMPTY, (x, y, x + side, y + side))
        pen.write(cell.words, x + _GAP, y + _GAP, side - 2 * _GAP, _FAINT)
        return
    across = next(n for n in range(1, 100) if n * n >= len(cell.pictures))
    part = side // across
    for number, path in enumerate(cell.pictures[: across * across]):
        with Image.open(path) as image:
            small = image.convert("RGB")
        scale = part / max(small.size)
        size = (max(1, round(small.width * scale)), max(1, round(small.height * scale)))
        small = small.resize(size, Image.Resampling.LANCZOS)
        corner = (x + number % across * part, y + number // across * part)
        page.paste(small, (corner[0] + (part - size[0]) // 2, corner[1] + (part - size[1]) // 2))


@dataclass(frozen=True)
class _Pen:
    """Writes text into a width, broken between words, cut with an ellipsis."""

    draw: ImageDraw.ImageDraw
    font: Any
    line: int
    plain: bool
    """Whether the font knows only letters without accents."""

    def write(self, text: str, x: int, y: int, width: int, ink: tuple[int, int, int], lines: int = _LINES) -> None:
        for number, part in enumerate(self._broken(text, width, max(1, lines))):
            self.draw.text((x, y + number * self.line), part, ink, self.font)

    def _broken(self, text: str, width: int, lines: int) -> list[str]:
        if self.plain:
            text = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
        parts = [""]
        for word in self._words(text, width):
            longer = f"{parts[-1]} {word}".strip()
            if self.font.getlength(longer) <= width:
                parts[-1] = longer
            else:
                parts.append(word)
        if len(parts) > lines:
            parts = parts[:lines]
            while parts[-1] and self.font.getlength(f"{parts[-1]} …") > width:
                parts[-1] = parts[-1][:-1]
            parts[-1] += " …"
        return parts

    def _words(self, text: str, width: int) -> Iterator[str]:
        """Words, of which too long ones are cut where the line ends."""
        for word in text[:_LONGEST].split():
            while word:
                # The longest beginning that fits; one letter in any case.
                end = bisect_right(range(1, len(word) + 1), width, key=lambda n: self.font.getlength(word[:n])) or 1
                yield word[:end]
                word = word[end:]
