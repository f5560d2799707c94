"""Films through the engine: sections as they finish, again from a section, formats, sound, a full disk, a pause."""

from __future__ import annotations

import errno
import json
import shutil
import wave
from pathlib import Path
from typing import Any

import av
import framepack_models
import pytest
import yaml
from framepack_models import SECTION_S
from PIL import Image

from studio import Studio
from studio.batch import submit_batch
from studio.errors import BadRequest, JobFailed
from studio.events import Artefact, Event, Note, Preview, Progress
from studio.film.joined import facts
from studio.store.embed import embedded
from studio_pipelines.video_framepack import filming, space, stepcache
from toolbox import Cli, until


def asked(picture: Path, sections: int, **more: Any) -> dict[str, Any]:
    return {"prompt": "a red star", "image": str(picture), "seconds": sections * SECTION_S, "seed": 5, **more}


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as film:
        return [bytes(packet) for packet in film.demux(video=0) if packet.size]


@pytest.mark.parametrize(
    ("sampling", "order"),
    [("forward", ["1", "2", "2", "3", "3"]), ("inverted", ["2", "2", "1", "1"])],
)
def test_sections_appear_as_they_finish(films: Studio, picture: Path, sampling: str, order: list[str]) -> None:
    shown: list[tuple[str, int]] = []
    events: list[Event] = []
    for event in films.stream(f"tiny-{sampling}", **asked(picture, 3)):
        events.append(event)
        if isinstance(event, Preview):  # it can be played at once, while the next one is made
            shown.append((Path(event.path).stem[-1], event.media_type == "video/mp4"))
    assert [number for number, _ in shown] == order and all(film for _, film in shown)
    steps = [event for event in events if isinstance(event, Progress) and event.phase == "denoise"]
    assert {(event.part, event.parts) for event in steps} == {(1, 3), (2, 3), (3, 3)}
    told = [event for event in events if isinstance(event, Progress) and event.phase == "decode" and event.done]
    assert [event.part for event in told] == [1, 2, 3]
    notes = [event.text for event in events if isinstance(event, Note)]
    assert ("The end of the film is made first, its beginning last." in notes) == (sampling == "inverted")
    left = [event.eta_s for event in told]
    assert all(one is not None for one in left) and left[-1] == 0 and all(left[:-1])
    [made] = [event for event in events if isinstance(event, Artefact)]
    found = facts(Path(made.path))
    assert (found.width, found.height, found.frames, found.fps) == (32, 32, 37, 30)
    assert made.info["sections"] == 3 and made.info["seconds"] == pytest.approx(37 / 30, abs=1e-3)
    assert embedded(Path(made.path)) == made.recipe


def test_forecasts_learn_from_films_that_went_as_planned(
    film_home: Path, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the end is made first, which is said each time; not where steps were passed over."""

    def kept(model: str) -> int:
        files = (film_home / "cache" / "calibration").glob(f"{model}-*.json")
        return sum(len(json.loads(file.read_text("utf-8"))["runs"]) for file in files)

    before = kept("tiny-inverted")
    with Studio(film_home, "inline") as studio:
        studio.run("tiny-inverted", **asked(picture, 2))
        assert kept("tiny-inverted") == before + 1
        monkeypatch.setattr(stepcache, "_polynomial", lambda coefficients, value: 0.0)  # nothing ever changes
        request = asked(picture, 2, steps=8, step_cache="fast")
        notes = [event.text for event in studio.stream("tiny-inverted", **request) if isinstance(event, Note)]
    assert "12 of 16 steps were passed over." in notes, "all but the first and the last of each section"
    assert kept("tiny-inverted") == before + 1


def test_the_recipe_in_the_film_makes_it_again(films: Studio, film_home: Path, picture: Path, cli: Cli) -> None:
    """In another home, from the film alone and the picture."""
    [made] = films.run("tiny-forward", **asked(picture, 2, section_prompts=["a star", "a boat"]))
    alone = film_home.parent / "alone.mp4"
    shutil.copy(made.path, alone)
    done = cli("run", "--like", alone, "-o", film_home.parent / "again.mp4", "--executor", "inline", code=0)
    assert "the same content as before" in done.stderr
    assert "section 1 of 2 can be played" in done.stderr and "section 2 of 2 can be played" in done.stderr
    assert packets(film_home.parent / "again.mp4") == packets(alone)


@pytest.mark.parametrize(
    ("sampling", "number", "stays"), [("forward", 3, slice(0, 16)), ("inverted", 2, slice(37, 49))]
)
def test_again_from_a_section(films: Studio, picture: Path, sampling: str, number: int, stays: slice) -> None:
    """Of four sections of 12 frames: those that were settled by the sections that stay are the same."""
    model = f"tiny-{sampling}"
    [first] = films.run(model, **asked(picture, 4))
    again = {"film": first.path, "from_section": number}
    [same] = films.run(model, **asked(picture, 4, **again))
    assert same.content_sha256 == first.content_sha256, "the same prompt and seed give the same film"
    [other] = films.run(model, **asked(picture, 4, prompt="a blue boat", seed=9, **again))
    assert other.content_sha256 != first.content_sha256
    before, after = (framepack_models.frames(Path(one.path)) for one in (first, other))
    assert before.shape == after.shape
    assert before.shape[0] == 49 and (before[stays] == after[stays]).all()
    rest = slice(stays.stop, None) if stays.start == 0 else slice(0, stays.start)
    assert (before[rest] != after[rest]).any(axis=(1, 2, 3)).mean() > 0.95, "the rest is new, but for the seam"
    [third] = films.run(model, **asked(picture, 4, prompt="a blue boat", seed=9, film=other.path, from_section=number))
    assert third.content_sha256 == other.content_sha256, "what was made again can be made again"


def test_a_film_goes_on(films: Studio, picture: Path) -> None:
    [short] = films.run("tiny-forward", **asked(picture, 2))
    [whole] = films.run("tiny-forward", **asked(picture, 4))
    [longer] = films.run("tiny-forward", **asked(picture, 4, film=short.path, from_section=3))
    assert longer.content_sha256 == whole.content_sha256


def test_what_cannot_be_made_again(films: Studio, picture: Path, tmp_path: Path) -> None:
    [film] = films.run("tiny-forward", **asked(picture, 2))
    [backward] = films.run("tiny-inverted", **asked(picture, 2))

    def refused(model: str, words: str, **more: Any) -> None:
        with pytest.raises(BadRequest, match=words):
            films.submit(model, **{**asked(picture, 2), **more})

    refused("tiny-forward", "from_section is 1; something stays and something is new from 2 to 2", film=film.path,
            from_section=1)  # fmt: skip
    refused("tiny-forward", "from_section is 4", film=film.path, from_section=4)
    refused("tiny-inverted", "has 2 sections, this would have 3", film=backward.path, from_section=1,
            seconds=3 * SECTION_S)  # fmt: skip
    refused("tiny-inverted", "was made by tiny-forward", film=film.path, from_section=1)
    refused("tiny-forward", "There is film, but no from_section", film=film.path)
    shutil.rmtree(films.home.root / "cache" / "results")
    refused("tiny-forward", "The sections of .* are not here", film=film.path, from_section=2)
    assert not films.jobs.find(states=["queued", "running"])


def test_old_films_are_let_go(films: Studio, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio_pipelines.video_framepack.again.LIMIT_BYTES", 4_000)
    made = [films.run("tiny-forward", **asked(picture, 2, seed=seed))[0] for seed in (1, 2, 3)]
    left = [folder.name for folder in (films.home.root / "cache" / "results").iterdir()]
    assert made[2].content_sha256 in left and len(left) < 3


def test_what_a_film_was_made_of_goes_with_the_last_one_of_its_kind(films: Studio, picture: Path) -> None:
    [film], [twin] = (films.run("tiny-forward", **asked(picture, 2, seed=41)) for _ in range(2))
    [other] = films.run("tiny-forward", **asked(picture, 2, seed=42))
    assert film.content_sha256 == twin.content_sha256 != other.content_sha256

    def kept(made: Artefact) -> bool:
        return (films.home.root / "cache" / "results" / made.content_sha256 / "about.json").is_file()

    films.made.delete(film.id)
    assert kept(twin) and kept(other)
    films.made.delete(twin.id)
    assert not kept(twin) and kept(other)

    films.queue.pause(True)  # a job that waits for its turn is given the film
    job = films.submit("tiny-forward", **asked(picture, 2, seed=43, film=other.path, from_section=2))
    films.made.delete(other.id)
    films.queue.pause(False)
    [again] = job.result()
    assert again.info["sections"] == 2


def test_formats_and_sound(films: Studio, picture: Path, tmp_path: Path) -> None:
    sound = tmp_path / "sound.wav"
    with wave.open(str(sound), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(1000) + b"\x00\x20\x00\xe0" * 1000)
    [silent] = films.run("tiny-forward", **asked(picture, 2))
    [film] = films.run("tiny-forward", **asked(picture, 2, sound=str(sound)))
    assert packets(Path(film.path)) == packets(Path(silent.path)) and facts(Path(film.path)).sound
    assert film.content_sha256 != silent.content_sha256
    [webm] = films.run("tiny-forward", **asked(picture, 2, format="webm", sound=str(sound)))
    assert webm.media_type == "video/webm" and facts(Path(webm.path)).frames == 25
    [gif] = films.run("tiny-forward", **asked(picture, 2, format="gif"))
    with Image.open(gif.path) as moving:
        assert gif.media_type == "image/gif" and moving.n_frames > 1  # type: ignore[attr-defined]
    with pytest.raises(BadRequest, match="A GIF has no sound"):
        films.submit("tiny-forward", **asked(picture, 2, format="gif", sound=str(sound)))


def test_no_space_is_said_before_anything_is_made(
    films: Studio, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda folder: 1_000_000)
    with pytest.raises(
        BadRequest, match=r"No space for a film of 3 sections: [\d.]+ MiB are needed, 976.6 KiB are free"
    ):
        films.submit("tiny-forward", **asked(picture, 3))
    assert not films.jobs.find(states=["queued", "running"])


@pytest.mark.parametrize("how", ["looked", "written"])
def test_no_space_keeps_what_is_finished(
    films: Studio, picture: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    [undisturbed] = films.run("tiny-forward", **asked(picture, 3))
    with monkeypatch.context() as patch:
        if how == "looked":  # it fills up meanwhile
            answers = iter([10**12, 10**12, 1000, 1000])
            patch.setattr(filming, "free_bytes", lambda folder: next(answers))
            patch.setattr(space, "free_bytes", lambda folder: 10**9)
        else:
            write = filming.write_segment

            def full(path: Path, *args: Any) -> Any:
                if path.name == "segment-0003.mp4" and (path.parent / "latents-0003.safetensors").exists():
                    raise space.NoSpace("full") from OSError(errno.ENOSPC, "No space left on device")
                return write(path, *args)

            patch.setattr(filming, "write_segment", full)
        job = films.submit("tiny-forward", **asked(picture, 3))
        with pytest.raises(JobFailed) as caught:
            job.result()
    assert "No space for section 3 of 3: " in caught.value.what and "are needed for the rest" in caught.value.what
    assert "The 2 finished ones are kept." in caught.value.what
    assert f"studio jobs retry {job.id}" in caught.value.hint
    films.queue.retry(job.id)
    films.work()
    events = list(films.jobs.get(job.id).events())
    last = next(place for place, event in reversed(list(enumerate(events))) if event.event == "queued")
    begun = [event.part for event in events[last:] if isinstance(event, Progress) and event.phase == "decode"]
    assert set(begun) == {3}, "only the third section is made"
    assert any(isinstance(event, Note) and "Goes on with section 3 of 3" in event.text for event in events[last:])
    assert films.jobs.get(job.id).result()[0].content_sha256 == undisturbed.content_sha256


def test_a_pause_gives_the_card_back_and_loses_no_section(films: Studio, picture: Path) -> None:
    [undisturbed] = films.run("tiny-forward", **asked(picture, 4))
    job = films.submit("tiny-forward", **asked(picture, 4))
    for event in job.events():
        if isinstance(event, Preview):
            break
    films.queue.pause(True)
    until("the job waits", lambda: films.jobs.get(job.id).state in ("queued", "done"))
    films.queue.pause(False)
    [made] = job.result()
    assert made.content_sha256 == undisturbed.content_sha256


def test_bad_input_on_the_command_line(film_home: Path, picture: Path, tmp_path: Path, cli: Cli) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:80])
    fine = ["--prompt", "a star", "--image", picture]
    for args, words in (
        (["--prompt", "a star", "--image", broken], "broken picture"),
        ([*fine, "--seconds", "0"], "seconds is 0"),
        ([*fine, "--seconds", "10000"], "seconds is 10000"),
        ([*fine, "--seconds", "1.2", "--section-prompts", "up", "down"], "There are 2 section prompts"),
        (["--prompt", "a star"], "image"),
    ):
        done = cli("run", "tiny-forward", *args, code=2)
        assert words in done.stderr and len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert json.loads(cli("jobs", "list", "--json", code=0).stdout) == []


def test_a_film_from_words_alone_is_a_chain(film_home: Path, plugins: Path, tmp_path: Path) -> None:
    """A model that makes pictures makes the first frame; the film and what is made again of it follow."""
    same = {"image": "${picture.path}", "seconds": 2 * SECTION_S, "seed": 5}
    again = {**same, "film": "${film.path}", "from_section": 2, "prompt": "a blue boat"}
    jobs = [
        {"id": "picture", "model": "faulty", "params": {"picture": True}},
        {"id": "film", "needs": ["picture"], "params": {**same, "prompt": "a red star"}},
        {"id": "other", "needs": ["picture", "film"], "params": again},
    ]
    file = tmp_path / "chain.yaml"
    file.write_text(yaml.safe_dump({"defaults": {"model": "tiny-forward"}, "jobs": jobs[1:] + jobs[:1]}))
    with Studio(film_home, executor="inline") as studio:
        rows = submit_batch(studio, file)
        made = {str(row.step): studio.jobs.get(row.id).result()[0] for row in rows}
        assert facts(Path(made["film"].path)).frames == facts(Path(made["other"].path)).frames == 25
        assert made["film"].content_sha256 != made["other"].content_sha256
