"""What a film is by its content, the recipe inside it, and files of others, which are opened with care."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import av
import pytest
from drawn import frames, tone

from studio.containers import opened
from studio.errors import BadRequest
from studio.film.joined import join
from studio.film.segments import write_segment, write_webm
from studio.media import check_input, sniff
from studio.store.content import content_of, content_sha256
from studio.store.embed import embed, embedded

RECIPE = {"model": "starter-video", "params": {"prompt": "slides right – à droite"}, "seed": 3}


@pytest.fixture
def film(tmp_path: Path) -> Path:
    write_segment(tmp_path / "film.mp4", frames(12), 30)
    return tmp_path / "film.mp4"


def test_the_recipe_is_in_the_film_and_changes_nothing_of_it(film: Path) -> None:
    before = film.read_bytes()
    digest = content_sha256(film, "video/mp4")
    embed(film, "video/mp4", {"model": "other", "params": {}})
    embed(film, "video/mp4", RECIPE)
    assert embedded(film) == RECIPE
    assert film.read_bytes().startswith(before)
    assert content_of(film) == digest
    with av.open(str(film)) as opened_film:
        assert sum(1 for _ in opened_film.decode(video=0)) == 12


def test_the_content_is_pictures_and_sound(film: Path, tmp_path: Path) -> None:
    one = content_of(film)
    joined = tmp_path / "joined.mp4"
    join([film], joined, 30)
    assert content_of(joined) == one, "another file, the same film"
    join([film], joined, 30, tone(tmp_path / "tone.wav", 1))
    with_sound = content_of(joined)
    write_segment(film, frames(12, first=1), 30)
    assert len({one, with_sound, content_of(film)}) == 3
    write_segment(film, frames(12), 15)
    assert content_of(film) != one, "half as fast"
    write_webm(tmp_path / "film.webm", frames(12), 30)
    first = content_of(tmp_path / "film.webm")
    write_webm(tmp_path / "film.webm", frames(12), 30)
    assert content_of(tmp_path / "film.webm") == first


def test_every_cut_of_a_film_has_no_recipe_and_some_content(film: Path, tmp_path: Path) -> None:
    embed(film, "video/mp4", RECIPE)
    whole, cut = film.read_bytes(), tmp_path / "cut.mp4"
    for length in [*range(64), *range(64, len(whole), 97)]:
        cut.write_bytes(whole[:length])
        assert embedded(cut) is None
        assert len(content_of(cut)) == 64


@pytest.mark.parametrize(
    "tail",
    [
        struct.pack(">I4s", 4, b"uuid"),  # shorter than its own head
        struct.pack(">I4sQ", 1, b"uuid", 2**63),
        struct.pack(">I4sQ", 1, b"uuid", 3),
        struct.pack(">I4s", 2**32 - 1, b"uuid"),
        struct.pack(">I4s", 24, b"uuid") + bytes.fromhex("9b5ad1c8f4a34e0fae10c6e7c1d0b7f2"),
        struct.pack(">I4s", 26, b"uuid") + bytes.fromhex("9b5ad1c8f4a34e0fae10c6e7c1d0b7f2") + b"xx",
        struct.pack(">I4s", 8, b"free") * 100_000,
    ],
)
def test_boxes_that_lie(film: Path, tail: bytes) -> None:
    film.write_bytes(film.read_bytes() + tail)
    assert embedded(film) is None


def test_a_recipe_that_would_unfold_to_gigabytes(film: Path) -> None:
    bomb = zlib.compress(b"[" * 50_000_000)
    box = struct.pack(">I4s", 24 + len(bomb), b"uuid") + bytes.fromhex("9b5ad1c8f4a34e0fae10c6e7c1d0b7f2") + bomb
    film.write_bytes(film.read_bytes() + box)
    assert embedded(film) is None


def encoded(path: Path, container_format: str, codec: str, rate: int = 48_000) -> Path:
    """A second of silence."""
    with av.open(str(path), "w", format=container_format) as file:
        stream = file.add_stream(codec, rate=rate)
        for _ in range(20):
            frame = av.AudioFrame(format=stream.codec_context.format.name, layout="stereo", samples=2304)
            for plane in frame.planes:
                plane.update(bytes(plane.buffer_size))
            frame.sample_rate = rate
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("container_format", "codec", "media_type"),
    [
        ("wav", "pcm_s16le", "audio/wav"),
        ("flac", "flac", "audio/flac"),
        ("mp3", "libmp3lame", "audio/mpeg"),
        ("ogg", "libopus", "audio/ogg"),
        ("ipod", "aac", "audio/mp4"),
    ],
)
def test_sounds_are_known_by_their_content(tmp_path: Path, container_format: str, codec: str, media_type: str) -> None:
    sound = encoded(tmp_path / "sound.bin", container_format, codec)
    assert check_input(sound, (media_type,), "sound") == media_type


def test_films_are_known_by_their_content(film: Path, tmp_path: Path) -> None:
    assert check_input(film, ("video/mp4",), "film") == "video/mp4"
    write_webm(tmp_path / "film.mp4.txt", frames(3), 30)
    assert check_input(tmp_path / "film.mp4.txt", ("video/webm",), "film") == "video/webm"


def test_a_list_of_addresses_is_no_film(tmp_path: Path) -> None:
    playlist = tmp_path / "film.mp4"
    secret = tmp_path / "secret.ts"
    secret.write_bytes(b"G" + bytes(187))
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(BadRequest, match=r"film: 'film.mp4' is text/plain by its content"):
        check_input(playlist, ("video/mp4",), "film")
    # Behind the first bytes of a film as well, and where somebody trusted the name:
    playlist.write_bytes(struct.pack(">I4s4s", 12, b"ftyp", b"isom") + playlist.read_bytes())
    with pytest.raises(BadRequest, match="broken"):
        check_input(playlist, ("video/mp4",), "film")
    with pytest.raises((av.FFmpegError, ValueError)), opened(playlist, "video/mp4"):
        pass


def test_ten_hours_of_silence(tmp_path: Path) -> None:
    sound = encoded(tmp_path / "sound.flac", "flac", "flac")
    content = bytearray(sound.read_bytes())
    samples = 10 * 3600 * 48_000
    # STREAMINFO (RFC 9639, 8.2): 36 bits of the number of samples, the last 4 bits of byte 21 and bytes 22 to 25
    content[21] = (content[21] & 0xF0) | (samples >> 32)
    content[22:26] = struct.pack(">I", samples & 0xFFFFFFFF)
    sound.write_bytes(content)
    with pytest.raises(BadRequest, match=r"sound: 'sound.flac' is 10 h 0 min long; the limit is 4 h 0 min"):
        check_input(sound, ("audio/flac",), "sound")


@pytest.mark.parametrize("kind", ["mp4", "webm", "wav"])
def test_broken_files_are_refused_in_one_line(tmp_path: Path, film: Path, kind: str) -> None:
    broken = tmp_path / f"broken.{kind}"
    if kind == "webm":
        write_webm(broken, frames(3), 30)
    source = {"mp4": film, "webm": broken, "wav": tone(tmp_path / "tone.wav", 0.1)}[kind]
    broken.write_bytes(source.read_bytes()[: 20 if kind == "wav" else 50] + bytes(4000))
    with pytest.raises(BadRequest, match=r"broken|holds no") as caught:
        check_input(broken, (sniff(broken),), "film")
    assert "\n" not in str(caught.value)


def test_a_film_without_pictures(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "film.mp4"), "w", format="mp4") as file:
        stream = file.add_stream("aac", rate=48_000)
        frame = av.AudioFrame(format="fltp", layout="stereo", samples=1024)
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        frame.sample_rate = 48_000
        file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with pytest.raises(BadRequest, match="holds no film"):
        check_input(tmp_path / "film.mp4", ("video/mp4",), "film")
