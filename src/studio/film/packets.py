"""The content of a film: the packets of its pictures and of its sound, without containers, indices and notes."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from studio.containers import opened
from studio.media import sniff


def packets_sha256(path: Path) -> str:
    """sha256 over codec, size, rate and all packets of each stream, pictures before sound.

    Raises ``av.FFmpegError`` or ``ValueError`` for a file that cannot be read.
    """
    media_type = sniff(path)
    whole = hashlib.sha256()
    with opened(path, media_type) as film:
        streams = [*film.streams.video, *film.streams.audio]
        digests = {stream.index: hashlib.sha256() for stream in streams}
        if any(stream.codec_context is None for stream in streams):
            raise ValueError("a stream of an unknown kind")
        for packet in film.demux(streams):
            if packet.size:
                digests[packet.stream_index].update(memoryview(packet))
        stream: Any
        for stream in streams:
            what = f"{stream.type} {stream.codec_context.name}"
            if stream.type == "video":
                what += f" {stream.width}x{stream.height} {stream.average_rate}"
            whole.update(f"{what}\n{digests[stream.index].hexdigest()}\n".encode())
    return whole.hexdigest()
