"""Frames to segments, segments to a film: whole or absent, the same bytes each time, nothing encoded twice."""

from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from drawn import frames, tone
from PIL import Image, ImageSequence

from studio.errors import StudioError
from studio.film.joined import cut, facts, frames_of, join, poster
from studio.film.moving import write_gif
from studio.film.segments import write_segment, write_webm

FPS = 30


@pytest.fixture
def segments(tmp_path: Path) -> list[Path]:
    """Three segments of one disc that goes on: 37, 36 and 1 frames."""
    made, first = [], 0
    for number, count in enumerate((37, 36, 1)):
        write_segment(tmp_path / f"{number}.mp4", frames(count, first=first), FPS)
        made.append(tmp_path / f"{number}.mp4")
        first += count
    return made


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(video=0) if packet.size]


def heard(path: Path) -> np.ndarray:
    """The loudness of each tenth of a second."""
    with av.open(str(path)) as film:
        samples = np.concatenate([frame.to_ndarray() for frame in film.decode(audio=0)], axis=1)
    assert samples.shape[0] == 2 and samples.dtype == np.float32
    return np.array([np.abs(samples[:, at : at + 4800]).max() for at in range(0, samples.shape[1], 4800)])


def test_a_segment_plays_by_itself_and_is_the_same_each_time(tmp_path: Path) -> None:
    one, two = tmp_path / "one.mp4", tmp_path / "two.mp4"
    made = write_segment(one, frames(36), FPS)
    write_segment(two, frames(36), FPS)
    assert one.read_bytes() == two.read_bytes()
    assert (made.frames, made.width, made.height, made.size_bytes) == (36, 64, 48, one.stat().st_size)
    with av.open(str(one)) as film:
        stream = film.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.profile) == ("h264", "High")
        assert stream.codec_context.format.name == "yuv420p"
        assert stream.codec_context.colorspace == 1, "BT.709, and it says so"
        shown = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    difference = np.abs(np.stack(shown).astype(int) - np.stack(list(frames(36))).astype(int))
    assert difference.mean() < 4 and np.abs(difference[:, 0, 0]).max() <= 3, "colours are kept"


def test_segments_are_joined_packet_by_packet(segments: list[Path], tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    made = join(segments, film, FPS)
    assert packets(film) == [packet for segment in segments for packet in packets(segment)]
    assert made.frames == 74
    found = facts(film)
    assert (found.width, found.height, found.frames, found.fps, found.sound) == (64, 48, 74, 30.0, False)
    assert found.seconds == pytest.approx(74 / 30, abs=1e-5)
    with av.open(str(film)) as opened:
        stream = opened.streams.video[0]
        times = [(packet.pts, packet.dts) for packet in opened.demux(stream) if packet.size]
        tick = stream.time_base * FPS
        assert times == [(number / tick, number / tick) for number in range(74)], "each frame at its time, from zero"
    content = film.read_bytes()
    assert content.find(b"moov") < content.find(b"mdat"), "a browser can begin before it has all"
    assert np.array_equal(np.stack(list(frames_of([film]))), np.stack(list(frames_of(segments))))


def test_the_order_is_the_given_one(segments: list[Path], tmp_path: Path) -> None:
    join(segments[1::-1], tmp_path / "film.mp4", FPS)
    assert packets(tmp_path / "film.mp4") == packets(segments[1]) + packets(segments[0])


def test_a_film_is_cut_where_it_was_joined(segments: list[Path], tmp_path: Path) -> None:
    film = tmp_path / "film.mp4"
    join(segments, film, FPS)
    again = [tmp_path / f"again-{number}.mp4" for number in range(3)]
    cut(film, [(range(37), again[0]), (range(37, 73), again[1]), (range(73, 74), again[2])], FPS)
    assert [packets(path) for path in again] == [packets(path) for path in segments]
    join(again, tmp_path / "joined.mp4", FPS)
    assert (tmp_path / "joined.mp4").read_bytes() == film.read_bytes()
    for wrong, words in ((range(38, 40), "cannot be cut at frame 38"), (range(73, 80), "has 74 frames")):
        with pytest.raises(StudioError, match=words):
            cut(film, [(wrong, tmp_path / "wrong.mp4")], FPS)
    assert not (tmp_path / "wrong.mp4").exists()


def test_segments_of_other_films_are_refused(segments: list[Path], tmp_path: Path) -> None:
    write_segment(tmp_path / "other.mp4", frames(3, width=32), FPS)
    before = segments[0].read_bytes()
    with pytest.raises(StudioError, match=r"other.mp4 was made with other settings"):
        join([*segments, tmp_path / "other.mp4"], segments[0], FPS)
    assert segments[0].read_bytes() == before
    assert [path.name for path in tmp_path.iterdir() if "part" in path.name] == []


@pytest.mark.parametrize(
    ("given", "words"), [([], "without frames"), (list(frames(2, width=33)), "needs even sides; the frames are 33×48")]
)
def test_what_makes_no_film(tmp_path: Path, given: list[np.ndarray], words: str) -> None:
    with pytest.raises(StudioError, match=words):
        write_segment(tmp_path / "film.mp4", given, FPS)
    assert list(tmp_path.iterdir()) == []


def test_frames_are_not_kept(tmp_path: Path) -> None:
    alive: weakref.WeakSet[np.ndarray] = weakref.WeakSet()
    most = 0

    class Watched(np.ndarray):
        __hash__ = object.__hash__
        __eq__ = object.__eq__

    def watched() -> Iterator[np.ndarray]:
        nonlocal most
        for frame in frames(200):
            seen = frame.view(Watched)
            alive.add(seen)
            most = max(most, len(alive))
            yield seen

    write_segment(tmp_path / "film.mp4", watched(), FPS)
    assert most <= 3


@pytest.mark.parametrize(("seconds", "silent_from"), [(1.0, 1.0), (9.0, 99)])
def test_sound_is_laid_under_the_film(segments: list[Path], tmp_path: Path, seconds: float, silent_from: float) -> None:
    silent, film = tmp_path / "silent.mp4", tmp_path / "film.mp4"
    join(segments, silent, FPS)
    join(segments, film, FPS, tone(tmp_path / "tone.wav", seconds))
    assert packets(film) == packets(silent)
    assert facts(film).sound and facts(film).seconds == pytest.approx(74 / 30, abs=1e-3)
    loud = heard(film)
    assert len(loud) == pytest.approx(25, abs=1), "cut or padded to the film"
    for number, loudness in enumerate(loud[:24]):
        assert (loudness > 0.2) == (number / 10 < silent_from), f"at {number / 10} s"
    join(segments, silent, FPS, tmp_path / "tone.wav")
    assert silent.read_bytes() == film.read_bytes()


def test_broken_sound_makes_no_film(segments: list[Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(tone(tmp_path / "tone.wav", 1).read_bytes()[:20])
    with pytest.raises((StudioError, av.FFmpegError)):
        join(segments, tmp_path / "film.mp4", FPS, broken)
    assert not (tmp_path / "film.mp4").exists()


def test_a_film_as_webm_and_as_gif(segments: list[Path], tmp_path: Path) -> None:
    webm, gif = tmp_path / "film.webm", tmp_path / "film.gif"
    write_webm(webm, frames_of(segments), FPS, tone(tmp_path / "tone.wav", 1))
    with av.open(str(webm)) as film:
        assert [stream.codec_context.name for stream in film.streams] == ["vp9", "opus"]
        assert sum(1 for _ in film.decode(video=0)) == 74
    assert write_gif(gif, segments, 74, FPS).frames == 74
    with Image.open(gif) as moving:
        lengths = [frame.info["duration"] for frame in ImageSequence.Iterator(moving)]
        moving.seek(40)
        shown = np.asarray(moving.convert("RGB")).astype(int)
        assert moving.info["loop"] == 0
    assert len(lengths) == 74 and sum(lengths) == pytest.approx(74 / 30 * 1000, abs=20)
    assert np.abs(shown - next(frames(1, first=40))).mean() < 6
    again = tmp_path / "again.gif"
    write_gif(again, segments, 74, FPS)
    assert again.read_bytes() == gif.read_bytes()


def test_the_poster_is_the_first_frame(segments: list[Path]) -> None:
    picture = np.asarray(poster(segments[0])).astype(int)
    assert np.abs(picture - next(frames(1))).mean() < 4


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))\n"
        "from pathlib import Path\nimport numpy as np\n"
        "from studio.errors import StudioError\nfrom studio.film.segments import write_segment\n"
        "noise = np.random.default_rng(1).integers(0, 255, (9, 64, 64, 3), np.uint8)\n"
        "try:\n    write_segment(Path(sys.argv[1]), noise, 30)\nexcept StudioError as error:\n    print(error.what)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "film.mp4")], capture_output=True, text=True, check=False
    )
    assert done.stdout.startswith("No space for film.mp4: "), done.stderr
    assert list(tmp_path.iterdir()) == []
