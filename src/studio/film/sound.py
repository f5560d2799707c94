"""Sound for a film, from a file of any format that is read: decoded piece by piece, 48 kHz stereo, cut or padded."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.containers import opened
from studio.errors import BadRequest
from studio.media import sniff

if TYPE_CHECKING:
    from av.container import OutputContainer

RATE = 48_000
_PIECE = 1024  # samples
_BITS_PER_S = 160_000


class SoundTrack:
    """A track that is written along with the pictures: ``advance`` as far as they are, ``finish`` at their end.

    So neither the sound nor the film is ever held whole, and both lie side by side in the file.
    """

    def __init__(self, container: OutputContainer, source: Path, codec: str) -> None:
        self._container: Any = container
        self._stream: Any = self._container.add_stream(codec, rate=RATE)
        context: Any = self._stream.codec_context
        context.layout, context.bit_rate = "stereo", _BITS_PER_S
        self._format: str = context.format.name if context.format else "fltp"
        self._pieces = _pieces(source, self._format)
        self._written = 0

    def advance(self, seconds: float) -> None:
        """Write sound up to ``seconds`` from the beginning."""
        self._write(round(seconds * RATE), whole_only=True)

    def finish(self, seconds: float) -> None:
        """Write the rest, silence where the file is shorter, and end exactly at ``seconds``."""
        self._write(round(seconds * RATE), whole_only=False)
        self._container.mux(self._stream.encode(None))
        self._pieces.close()

    def _write(self, end: int, *, whole_only: bool) -> None:
        while (left := end - self._written) > 0:
            if whole_only and left < _PIECE:
                return
            frame = self._taken(min(_PIECE, left))
            frame.pts, frame.time_base = self._written, Fraction(1, RATE)
            self._written += frame.samples
            self._container.mux(self._stream.encode(frame))

    def _taken(self, samples: int) -> Any:
        piece = next(self._pieces)
        return piece if piece.samples == samples else _cut(piece, samples, self._format)


def _pieces(source: Path, sample_format: str) -> Generator[Any]:
    """Frames of exactly ``_PIECE`` samples; silence without end behind the file's own."""
    import av

    fifo = av.AudioFifo()
    media_type = sniff(source)
    with suppress(EOFError), opened(source, media_type) as container:
        resampler = av.AudioResampler(format=sample_format, layout="stereo", rate=RATE)
        try:
            for frame in container.decode(audio=0):
                frame.pts = None
                for fitting in resampler.resample(frame):
                    fitting.pts = None
                    fifo.write(fitting)
                while (piece := fifo.read(_PIECE)) is not None:
                    yield piece
            for fitting in resampler.resample(None):
                fitting.pts = None
                fifo.write(fitting)
        except av.InvalidDataError as error:
            raise BadRequest(f"The sound {source.name!r} is broken.", "Give one that plays to its end.") from error
    while (piece := fifo.read(_PIECE)) is not None:
        yield piece
    last = fifo.read(0, partial=True)
    if last is not None and last.samples:
        yield _cut(last, _PIECE, sample_format)
    while True:
        yield _cut(None, _PIECE, sample_format)


def _cut(frame: Any, samples: int, sample_format: str) -> Any:
    """``frame`` cut to that many samples, or silence behind it."""
    import av
    import numpy as np

    held = frame.to_ndarray() if frame is not None else None  # planar: (channels, samples); packed: (1, samples x 2)
    planar = sample_format.endswith("p")
    width = samples if planar else 2 * samples
    kind = np.float32 if sample_format.startswith("flt") else np.int16
    new = np.zeros((2, width) if planar else (1, width), kind)
    if held is not None:
        some = min(width, held.shape[1])
        new[:, :some] = held[:, :some]
    made = av.AudioFrame.from_ndarray(new, format=sample_format, layout="stereo")
    made.sample_rate = RATE
    return made
