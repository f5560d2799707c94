"""Where a picture is cut: plain arithmetic over rectangles, in pixels of the picture that is enlarged."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

MARGIN = 10
"""Pixels added around the picture, the outermost ones repeated, so that its edge is not taken for a black frame; the
reference implementation offers as many (``pre_pad``)."""


@dataclass(frozen=True)
class Tile:
    """A rectangle: ``right`` and ``bottom`` are the first pixels outside."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def width(self) -> int:
        return self.right - self.left

    @property
    def height(self) -> int:
        return self.bottom - self.top

    def widened(self, by: int, width: int, height: int, margin: int) -> Tile:
        """``by`` pixels more on each side, within a picture that has ``margin`` pixels around it."""
        return Tile(
            max(-margin, self.left - by),
            max(-margin, self.top - by),
            min(width + margin, self.right + by),
            min(height + margin, self.bottom + by),
        )

    def split(self) -> list[Tile]:
        """Quarters; halves of one that is a pixel wide or high; nothing for a single pixel."""
        if self.width == self.height == 1:
            return []
        x = [self.left, self.left + (self.width + 1) // 2, self.right]
        y = [self.top, self.top + (self.height + 1) // 2, self.bottom]
        quarters = [Tile(x[i], y[j], x[i + 1], y[j + 1]) for j in range(2) for i in range(2)]
        return [one for one in quarters if one.width and one.height]


def grid(width: int, height: int, size: int) -> list[Tile]:
    """Tiles of at most ``size``, all about equally large, row by row; together exactly the picture."""
    x, y = _cuts(width, size), _cuts(height, size)
    return [Tile(left, top, right, bottom) for top, bottom in pairwise(y) for left, right in pairwise(x)]


def _cuts(length: int, size: int) -> list[int]:
    pieces = -(-length // size)
    return [length * piece // pieces for piece in range(pieces + 1)]
