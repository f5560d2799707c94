"""Frames to a file that plays by itself and can be joined with its like, packet by packet.

H.264 (High, yuv420p, BT.709) by libx264, one thread, no B-frames: a packet is a frame, in the order of time, so pts and
dts are the frame's number and segments join without edit lists. Every segment begins with a key frame and refers to
nothing before it. One thread and fixed settings make the same frames the same bytes on the same machine.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.files import whole

if TYPE_CHECKING:
    import av
    import numpy as np
    from av.container import OutputContainer
    from av.video.stream import VideoStream
    from numpy.typing import NDArray

    Frame = NDArray[np.uint8]  # (height, width, rgb)

ENCODER = "libx264"
CRF = 17
_H264 = {"preset": "medium", "crf": str(CRF), "bf": "0", "g": "30", "keyint_min": "30", "sc_threshold": "0"}
_VP9 = {"deadline": "good", "cpu-used": "4", "crf": "24", "b": "0", "g": "60", "lag-in-frames": "0"}
BYTES_PER_PIXEL = 0.25
"""What a pixel of a film takes at most in practice: flat drawings take a hundredth of it, pure noise twice as much."""


@dataclass(frozen=True)
class Segment:
    """What was written: a file of ``frames`` frames, (height, width), ``size_bytes`` long."""

    path: Path
    frames: int
    width: int
    height: int
    size_bytes: int


def expected_bytes(frames: int, width: int, height: int) -> int:
    """What that many frames may take on the disk: for asking whether there is room."""
    return int(frames * width * height * BYTES_PER_PIXEL) + 4096


def write_segment(path: Path, frames: Iterable[Frame], fps: int) -> Segment:
    """Write ``frames``, each (height, width, rgb) uint8 with even sides, as an MP4 that is whole or absent.

    Frames are taken one by one and not kept. Raises ``StudioError`` where the disk is full or there are no frames.
    """
    return _write(path, frames, fps, "mp4", ENCODER, _H264)


def write_webm(path: Path, frames: Iterable[Frame], fps: int, sound: Path | None = None) -> Segment:
    """The same as WebM (VP9), with ``sound`` (a file of any format that is read) as Opus."""
    return _write(path, frames, fps, "webm", "libvpx-vp9", _VP9, sound)


def _write(
    path: Path,
    frames: Iterable[Frame],
    fps: int,
    container_format: str,
    codec: str,
    options: dict[str, str],
    sound: Path | None = None,
) -> Segment:
    import av

    from studio.film.sound import SoundTrack

    count, stream = 0, None
    layout = muxing(container_format)
    with whole(path) as temporary, av.open(temporary, "w", format=container_format, options=layout) as container:
        track: SoundTrack | None = None
        for count, frame in enumerate(frames, 1):
            if stream is None:
                stream = _stream(container, codec, fps, frame.shape, options)
                track = SoundTrack(container, sound, "libopus") if sound else None
            picture = _picture(frame, count - 1, fps)
            container.mux(stream.encode(picture))
            if track is not None:
                track.advance(count / fps)
        if stream is None:
            raise StudioError("A film without frames cannot be written.")
        container.mux(stream.encode(None))
        if track is not None:
            track.finish(count / fps)
        width, height = stream.width, stream.height
    return Segment(path, count, width, height, path.stat().st_size)


def muxing(container_format: str) -> dict[str, str]:
    """How files are laid out: the index first, so that a browser plays before it has all; no version of a library."""
    faststart = {"movflags": "+faststart"} if container_format == "mp4" else {}
    return {"fflags": "+bitexact", **faststart}


def _stream(
    container: OutputContainer, codec: str, fps: int, shape: tuple[int, ...], options: dict[str, str]
) -> VideoStream:
    height, width = shape[:2]
    if width % 2 or height % 2:
        raise StudioError(f"A film needs even sides; the frames are {width}×{height}.")
    stream: Any = container.add_stream(codec, rate=fps, options=options)
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    # BT.709 throughout, limited range: said in the file, or players would guess by the size.
    context.colorspace = context.color_primaries = context.color_trc = context.color_range = 1
    return stream  # type: ignore[no-any-return]


def _picture(frame: Frame, number: int, fps: int) -> av.VideoFrame:
    import av
    from av.video.reformatter import ColorRange, Colorspace

    picture: av.VideoFrame = _reformatter().reformat(
        av.VideoFrame.from_ndarray(frame, format="rgb24"),
        format="yuv420p",
        dst_colorspace=Colorspace.ITU709,
        dst_color_range=ColorRange.MPEG,
    )
    picture.pts, picture.time_base = number, _tick(fps)
    return picture


@functools.cache
def _tick(fps: int) -> Any:
    from fractions import Fraction

    return Fraction(1, fps)


@functools.cache
def _reformatter() -> Any:
    from av.video.reformatter import VideoReformatter

    return VideoReformatter()
