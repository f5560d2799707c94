"""Files of sound and moving pictures, opened with care: ffmpeg gets a file that is open already, the one format that
its first bytes name, a list of decoders, and no protocol to open anything else with.

When a request is made, in the process that serves the page, headers are read and at most ``_PROBE`` bytes behind them,
from which ffmpeg may decode a few frames to learn what they are; all else is decoded by the worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.errors import BadRequest
from studio.units import format_seconds

if TYPE_CHECKING:
    from av.container import InputContainer

MAX_SOUND_S = 4 * 3600
MAX_FILM_S = 3600
MAX_FRAME_PIXELS = 40_000_000
_PROBE = "5000000"  # bytes, and microseconds, that ffmpeg may look at to learn what a file holds

_FORMATS = {
    "audio/wav": "wav",
    "audio/flac": "flac",
    "audio/ogg": "ogg",
    "audio/mpeg": "mp3",
    "audio/mp4": "mp4",
    "video/mp4": "mp4",
    "video/webm": "matroska",
}
_SOUND = (
    "aac,alac,flac,mp3,mp3float,opus,libopus,vorbis,pcm_s16le,pcm_s16be,pcm_s24le,pcm_s32le,pcm_u8,pcm_f32le,pcm_f64le"
)
_PICTURES = "h264,hevc,vp8,vp9,libvpx,libvpx-vp9,av1,libdav1d,mpeg4"


def is_media(media_type: str) -> bool:
    """Whether ``opened`` knows this type."""
    return media_type in _FORMATS


@contextmanager
def opened(path: Path, media_type: str) -> Iterator[InputContainer]:
    """The file as PyAV's container. Raises ``av.FFmpegError`` (an ``OSError`` or ``ValueError``) if it is broken."""
    import av

    options = {
        "protocol_whitelist": "none",
        "format_whitelist": _FORMATS[media_type],
        "codec_whitelist": f"{_SOUND},{_PICTURES}",
        "probesize": _PROBE,
        "analyzeduration": _PROBE,
    }
    with path.open("rb") as file, av.open(file, "r", format=_FORMATS[media_type], options=options) as container:
        yield container


def check_media(path: Path, media_type: str, name: str) -> None:
    """Raises ``BadRequest`` for sound or a film that is broken, empty, too long or too large; by its headers only."""
    import av

    film = media_type.startswith("video/")
    kind = "film" if film else "sound"
    try:
        with opened(path, media_type) as container:
            streams = container.streams.video if film else container.streams.audio
            if not streams or streams[0].codec_context is None:  # None: not on the list of decoders
                raise BadRequest(f"{name}: {path.name!r} holds no {kind} that is read.", "Give another file.")
            stream: Any = streams[0]
            seconds, pixels = _seconds(container), stream.width * stream.height if film else 0
    except (av.FFmpegError, OSError, ValueError, EOFError) as error:
        what = f"{name}: {path.name!r} is broken."
        raise BadRequest(what, "Give one that plays.") from error
    limit = MAX_FILM_S if film else MAX_SOUND_S
    if seconds is not None and seconds > limit:
        what = f"{name}: {path.name!r} is {format_seconds(seconds)} long; the limit is {format_seconds(limit)}."
        raise BadRequest(what, "Cut it first.")
    if pixels > MAX_FRAME_PIXELS:
        limit = MAX_FRAME_PIXELS // 10**6
        raise BadRequest(f"{name}: {path.name!r} has more than {limit} megapixels.", "Scale it down first.")


def _seconds(container: InputContainer) -> float | None:
    """By the header; ``None`` where it does not say. Whoever decodes must stop by itself in any case."""
    return None if container.duration is None else container.duration / 1_000_000
