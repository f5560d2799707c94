"""What a family that makes films uses of the engine. Light: PyAV is imported when something is made."""

from __future__ import annotations

from studio.fields import FILM_MEDIA, FilmFormat, FilmSound, FramesPerSecond
from studio.files import whole, write_whole
from studio.film.joined import Facts, cut, facts, frames_of, join, poster
from studio.film.moving import MAX_GIF_FRAMES, write_gif
from studio.film.packets import packets_sha256
from studio.film.segments import Segment, expected_bytes, write_segment, write_webm

__all__ = [
    "FILM_MEDIA", "MAX_GIF_FRAMES", "Facts", "FilmFormat", "FilmSound", "FramesPerSecond", "Segment", "cut",
    "expected_bytes", "facts", "frames_of", "join", "packets_sha256", "poster", "whole", "write_gif", "write_segment",
    "write_webm", "write_whole",
]  # fmt: skip
