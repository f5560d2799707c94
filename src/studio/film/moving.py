"""A film as a GIF: one palette for all of it, so that memory does not grow with its length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studio.files import whole
from studio.film.joined import frames_of
from studio.film.segments import Segment

if TYPE_CHECKING:
    from PIL import Image

MAX_GIF_FRAMES = 900
_SAMPLES = 24
_SAMPLE_SIDE = 96


def write_gif(path: Path, films: Sequence[Path], frames: int, fps: int) -> Segment:
    """``films`` one after the other, ``frames`` in all, as a GIF that repeats. Read twice: colours, then pictures."""
    import av
    import numpy as np

    palette = _palette(films, frames)
    # (256, argb), opaque
    colours = np.full((256, 4), 255, np.uint8)
    known = np.asarray(palette.getpalette("RGB"), np.uint8).reshape(-1, 3)
    colours[: len(known), 1:] = known
    count, stream = 0, None
    with whole(path) as temporary, av.open(temporary, "w", format="gif", options={"loop": "0"}) as container:
        for count, frame in enumerate(_mapped(films, palette), 1):
            if stream is None:
                added: Any = container.add_stream("gif", rate=fps)
                stream = added
                stream.height, stream.width = frame.shape
                stream.pix_fmt = "pal8"
                stream.codec_context.thread_count = 1
            indexed: Any = (frame, colours)
            picture = av.VideoFrame.from_ndarray(indexed, format="pal8")
            picture.pts = count - 1
            container.mux(stream.encode(picture))
        if stream is not None:
            container.mux(stream.encode(None))
    width, height = (stream.width, stream.height) if stream is not None else (0, 0)
    return Segment(path, count, width, height, path.stat().st_size)


def _palette(films: Sequence[Path], frames: int) -> Image.Image:
    """256 colours for frames taken evenly from the whole film."""
    from PIL import Image

    step, chosen = max(1, frames // _SAMPLES), list[Image.Image]()
    for number, frame in enumerate(frames_of(films)):
        if number % step == 0 and len(chosen) < 2 * _SAMPLES:
            small = Image.fromarray(frame)
            small.thumbnail((_SAMPLE_SIDE, _SAMPLE_SIDE), Image.Resampling.NEAREST)
            chosen.append(small)
    width, height = chosen[0].size
    sheet = Image.new("RGB", (width, height * len(chosen)))
    for number, small in enumerate(chosen):
        sheet.paste(small, (0, number * height))
    return sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)


def _mapped(films: Sequence[Path], palette: Image.Image) -> Iterator[Any]:
    """Each frame as indices into the palette, (height, width) uint8. Not dithered: dots that dance make it ten times
    as large."""
    import numpy as np
    from PIL import Image

    for frame in frames_of(films):
        yield np.asarray(Image.fromarray(frame).quantize(palette=palette, dither=Image.Dither.NONE))
