"""Frames and sounds that are drawn, for the tests of films."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np


def frames(count: int, *, first: int = 0, height: int = 48, width: int = 64) -> Iterator[np.ndarray]:
    """A red disc on paper that goes to the right, one pixel a frame; (height, width, rgb)."""
    rows, columns = np.mgrid[:height, :width]
    for number in range(first, first + count):
        frame = np.full((height, width, 3), (240, 230, 200), np.uint8)
        frame[(columns - number % width) ** 2 + (rows - height / 2) ** 2 < (height / 5) ** 2] = (220, 30, 40)
        yield frame


def tone(path: Path, seconds: float, rate: int = 22_050) -> Path:
    """A mono WAV of 440 Hz."""
    samples = np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * 440 / rate) * 12_000
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return path
