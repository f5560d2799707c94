"""Films as Studio writes them play in a browser: whole, at their times, in their colours."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studio.film.joined import frames_of, join
from studio.film.segments import write_segment, write_webm
from studio.store.embed import embed

PLAY = """async ([source, red, blue]) => {
    const film = document.createElement('video');
    film.muted = true;
    film.src = source;
    document.body.append(film);
    await new Promise((loaded, failed) => {
        film.onloadeddata = loaded;
        film.onerror = () => failed(film.error.message);
    });
    const colour = async (time, wanted) => {
        film.currentTime = time;
        await new Promise((there) => { film.onseeked = there; });
        const canvas = document.createElement('canvas');
        canvas.width = film.videoWidth;
        canvas.height = film.videoHeight;
        const context = canvas.getContext('2d');
        let seen = [];
        for (let look = 0; look < 100; look++) {  // a busy browser shows the frame a moment after it was found
            context.drawImage(film, 0, 0);
            seen = Array.from(context.getImageData(8, 8, 1, 1).data).slice(0, 3);
            if (seen.every((value, place) => Math.abs(value - wanted[place]) <= 12)) break;
            await new Promise(requestAnimationFrame);
        }
        return seen;
    };
    const found = {width: film.videoWidth, duration: film.duration, first: await colour(0.5 / 30, red)};
    found.second = await colour(40.5 / 30, blue);
    film.currentTime = 0;
    await film.play();
    await new Promise((over) => { film.onended = over; });
    return {...found, ended: film.currentTime};
}"""


def plain(count: int, colour: tuple[int, int, int]) -> Iterator[np.ndarray]:
    for _ in range(count):
        yield np.full((48, 64, 3), colour, np.uint8)


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_a_film_of_two_segments(browser: Any, tmp_path: Path, kind: str) -> None:
    red, blue = (220, 30, 40), (30, 60, 200)
    segments = [write_segment(tmp_path / "1.mp4", plain(36, red), 30).path]
    segments.append(write_segment(tmp_path / "2.mp4", plain(36, blue), 30).path)
    film = tmp_path / f"film.{kind}"
    if kind == "mp4":
        join(segments, film, 30)
        embed(film, "video/mp4", {"model": "any", "params": {}})
    else:
        write_webm(film, frames_of(segments), 30)
    page = browser.new_page()
    page.goto("about:blank")
    source = f"data:video/{kind};base64,{base64.b64encode(film.read_bytes()).decode()}"
    found = page.evaluate(PLAY, [source, red, blue])
    assert found["width"] == 64
    assert found["duration"] == found["ended"] == pytest.approx(72 / 30, abs=0.002)
    for name, colour in (("first", red), ("second", blue)):
        assert np.abs(np.array(found[name]) - colour).max() <= 12, name
    page.close()
