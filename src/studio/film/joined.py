"""Segments to one film, packet by packet: nothing is encoded again. And what one may want to know of a film."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.containers import opened
from studio.errors import StudioError
from studio.files import whole
from studio.film.segments import Segment, muxing
from studio.film.sound import SoundTrack
from studio.media import sniff

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL import Image


@dataclass(frozen=True)
class Facts:
    """Of a film: (height, width), its number of frames, frames a second, seconds, whether there is sound."""

    width: int
    height: int
    frames: int
    fps: float
    seconds: float
    sound: bool


def join(segments: Sequence[Path], target: Path, fps: int, sound: Path | None = None) -> Segment:
    """One MP4 of segments that ``write_segment`` wrote with the same ``fps`` and size, in the given order.

    ``sound``: laid under it (AAC), cut or padded with silence to the film's length. Raises ``StudioError`` where the
    segments do not belong together or the disk is full.
    """
    import av

    if not segments:
        raise StudioError("A film without segments cannot be joined.")
    size = sum(path.stat().st_size for path in segments)
    number = 0
    with whole(target, size) as temporary, av.open(temporary, "w", format="mp4", options=muxing("mp4")) as film:
        stream, track, head = None, None, None
        for path in segments:
            with opened(path, "video/mp4") as segment:
                source: Any = segment.streams.video[0]
                if stream is None:
                    stream = film.add_stream_from_template(source)
                    stream.time_base = Fraction(1, fps)
                    head = _head(source)
                    track = SoundTrack(film, sound, "aac") if sound else None
                if _head(source) != head:
                    raise StudioError(f"{path.name} was made with other settings than the segments before it.")
                for packet in segment.demux(source):
                    if packet.size == 0:  # the end
                        continue
                    packet.time_base = Fraction(1, fps)
                    packet.pts = packet.dts = number
                    packet.duration = 1
                    packet.stream = stream
                    film.mux(packet)
                    number += 1
                    if track is not None:
                        track.advance(number / fps)
        if track is not None:
            track.finish(number / fps)
        width, height = head[1:] if head else (0, 0)
    return Segment(target, number, width, height, target.stat().st_size)


def cut(film: Path, parts: Sequence[tuple[range, Path]], fps: int) -> None:
    """The reverse of ``join``: ``parts`` of a film, each from a key frame on, as segments, packet by packet.

    Frames are counted from 0. Raises ``StudioError`` where a part does not begin with a key frame or is not there.
    """
    import av

    for frames, target in parts:
        number = 0
        with opened(film, "video/mp4") as source, whole(target, film.stat().st_size) as temporary:
            stream: Any = source.streams.video[0]
            with av.open(temporary, "w", format="mp4", options=muxing("mp4")) as segment:
                copied = segment.add_stream_from_template(stream)
                for packet in source.demux(stream):
                    if packet.size and number in frames:
                        if number == frames.start and not packet.is_keyframe:
                            raise StudioError(f"{film.name} cannot be cut at frame {number}.")
                        packet.time_base = Fraction(1, fps)
                        packet.pts = packet.dts = number - frames.start
                        packet.duration = 1
                        packet.stream = copied
                        segment.mux(packet)
                    number += bool(packet.size)
            if number < frames.stop:
                raise StudioError(f"{film.name} has {number} frames, so none can be cut up to {frames.stop}.")


def _head(stream: Any) -> tuple[bytes, int, int]:
    """What a decoder must know before the first packet: joined packets share it."""
    return bytes(stream.codec_context.extradata or b""), stream.width, stream.height


def facts(path: Path) -> Facts:
    """What a film is. Raises ``StudioError`` for a file that is none."""
    import av

    try:
        with opened(path, sniff(path)) as film:
            stream = film.streams.video[0]
            frames = stream.frames or sum(1 for packet in film.demux(stream) if packet.size)
            rate = float(stream.average_rate or stream.guessed_rate or 0)
            seconds = film.duration / 1_000_000 if film.duration else frames / rate if rate else 0.0
            return Facts(stream.width, stream.height, frames, rate, seconds, bool(film.streams.audio))
    except (av.FFmpegError, KeyError, IndexError) as error:
        raise StudioError(f"{path.name} is not a film that can be read.") from error


def frames_of(paths: Sequence[Path]) -> Iterator[NDArray[np.uint8]]:
    """The frames of films one after the other, each (height, width, rgb) uint8; one is held at a time."""
    for path in paths:
        with opened(path, sniff(path)) as film:
            film.streams.video[0].thread_count = 1
            for frame in film.decode(video=0):
                found: Any = frame.to_ndarray(format="rgb24")
                yield found


def poster(path: Path) -> Image.Image:
    """The first frame."""
    from PIL import Image

    for frame in frames_of([path]):
        return Image.fromarray(frame)
    raise StudioError(f"{path.name} holds no pictures.")
