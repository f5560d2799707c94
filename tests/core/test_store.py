"""Outputs are whole or absent, each with its recipe; inputs are what their bytes say and are kept."""

from __future__ import annotations

import hashlib
import json
import os
import struct
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from studio.core import Studio
from studio.errors import BadRequest, NotFound, StudioError
from studio.events import Artefact
from studio.files import copy_whole, move_whole, sweep, write_whole
from studio.media import check_input, sniff
from studio.store.artefacts import ArtefactStore, export, read_recipe, recipe_path
from studio.store.content import content_sha256
from studio.store.database import Database
from studio.store.home import Home
from toolbox import files_in

CREATED = 1_700_000_000.0


class PowerCut(BaseException):
    """Nothing that runs afterwards may tidy up."""


@pytest.fixture
def place(home: Path) -> Home:
    return Home(home)


@pytest.fixture
def store(place: Home) -> Iterator[ArtefactStore]:
    database = Database(place.database)
    yield ArtefactStore(place, database)
    database.close()


def make(place: Home, text: str = "hello", job: str = "job") -> Artefact:
    path = place.workdir(job) / "output-1.txt"
    path.write_text(text)
    return Artefact(path=str(path), media_type="text/plain", recipe={"model": "toy", "params": {"seed": 1}})


def cut_after(monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    """Cut the power before file-system step ``count`` (0: before the first); what was done stays as it is."""
    done = [0]

    def step(real: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **more: Any) -> Any:
            if done[0] >= count:
                raise PowerCut
            done[0] += 1
            return real(*args, **more)

        return run

    monkeypatch.setattr("studio.files.os.fsync", step(os.fsync))
    monkeypatch.setattr(Path, "replace", step(Path.replace))
    monkeypatch.setattr(Path, "unlink", lambda *_args, **_more: None)  # no power, no tidying up


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("count", range(8))
def test_the_power_goes_after_each_step_of_storing(
    place: Home, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch, count: int, old: str | None
) -> None:
    """Whatever is visible under its own name is whole, and a second attempt ends with exactly one."""
    if old is not None:
        store.take(make(place, old), job_id="job", number=1, created=CREATED)
    made = make(place, "new text")
    finished = False
    with monkeypatch.context() as patch:
        cut_after(patch, count)
        try:
            store.take(made, job_id="job", number=1, created=CREATED)
            finished = True
        except PowerCut:
            pass
    assert finished == (count >= 6), "a recipe and a file: flush, rename and flush of the folder for each"
    for path in files_in(place.outputs):
        if path.name.startswith("."):
            assert path.name.endswith(".part")
        elif path.name.endswith(".recipe.json"):
            assert json.loads(path.read_text())["model"] == "toy"
        else:
            assert path.read_text() in ("new text", old), "the old one or the new one, never a part"
    assert store.of_job("job") == [], "no row before the file is whole"
    again = store.take(make(place, "new text"), job_id="job", number=1, created=CREATED)
    monkeypatch.setattr("psutil.pid_exists", lambda _pid: False)
    sweep(place.outputs)
    assert sorted(path.name for path in files_in(place.outputs)) == ["job-1.txt", "job-1.txt.recipe.json"]
    assert Path(again.path).read_text() == "new text"
    assert read_recipe(recipe_path(Path(again.path)))["content_sha256"] == again.content_sha256


@pytest.mark.parametrize("count", range(4))
@pytest.mark.parametrize("how", ["write", "copy"])
def test_a_file_is_old_or_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, count: int) -> None:
    target, source = tmp_path / "target", tmp_path / "source"
    target.write_text("old")
    source.write_text("new")
    with monkeypatch.context() as patch:
        cut_after(patch, count)
        try:
            if how == "write":
                write_whole(target, b"new")
            else:
                copy_whole(source, target)
        except PowerCut:
            pass
    assert target.read_text() == ("old" if count < 2 else "new")


def test_what_a_killed_writer_left_is_swept_and_the_living_ones_is_not(tmp_path: Path) -> None:
    dead = tmp_path / "day" / ".job-1.txt.4194304.77.part"  # above the largest process number of Linux
    alive = tmp_path / f".other.txt.{os.getpid()}.77.part"
    mine = tmp_path / ".my.notes.part"
    dead.parent.mkdir()
    for path in (dead, alive, mine):
        path.write_text("half")
    sweep(tmp_path)
    assert files_in(tmp_path) == sorted([alive, mine])


def test_threads_that_write_one_file_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "target"
    contents = [bytes([number]) * 300_000 for number in range(8)]
    failures: list[BaseException] = []

    def write(content: bytes) -> None:
        try:
            for _ in range(5):
                write_whole(target, content)
                assert target.read_bytes() in contents
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert files_in(tmp_path) == [target]


def test_moving_keeps_the_bytes(tmp_path: Path) -> None:
    source, target = tmp_path / "a", tmp_path / "b"
    source.write_bytes(b"x" * 100_000)
    target.write_bytes(b"old")
    move_whole(source, target)
    assert not source.exists() and target.read_bytes() == b"x" * 100_000


def test_the_recipe_lies_beside_the_file_and_is_found_by_it(place: Home, store: ArtefactStore, tmp_path: Path) -> None:
    made = store.take(make(place), job_id="job", number=1, created=CREATED)
    assert made.id == "job-1" and made.bytes == 5 and Path(made.path).parent.name == "2023-11-14"
    assert made.content_sha256 == hashlib.sha256(b"hello").hexdigest()
    assert store.recipe_of(Path(made.path)) == made.recipe == store.recipe_of(recipe_path(Path(made.path)))
    target = tmp_path / "deep" / "mine.txt"
    export(made, target)
    assert target.read_text() == "hello" and store.recipe_of(target) == made.recipe


def test_the_recipe_is_found_by_content_alone(inline: Studio, tmp_path: Path) -> None:
    [text] = inline.run("toy", seed=4)
    [picture] = inline.run("faulty", picture=True, seed=4)
    copy, resaved = tmp_path / "renamed.dat", tmp_path / "resaved.png"
    copy.write_bytes(Path(text.path).read_bytes())
    with Image.open(picture.path) as image:
        notes = PngInfo()
        notes.add_text("Comment", "written by another program")
        image.save(resaved, pnginfo=notes, compress_level=1)
    assert resaved.read_bytes() != Path(picture.path).read_bytes()
    assert inline.artefacts.recipe_of(copy) == text.recipe
    assert inline.artefacts.recipe_of(resaved) == picture.recipe


def test_no_recipe(inline: Studio, tmp_path: Path) -> None:
    stranger, broken = tmp_path / "stranger.txt", tmp_path / "broken.png"
    stranger.write_text("not made here")
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + b"rubbish" * 10)
    for path in (stranger, broken):
        with pytest.raises(BadRequest, match="has no recipe"):
            inline.artefacts.recipe_of(path)
    with pytest.raises(NotFound, match="There is no file"):
        inline.artefacts.recipe_of(tmp_path / "nothing")
    for text in ("", "[1]", "{}", '{"model": 7, "params": {}}', '{"model": "toy"}', "\x00"):
        recipe_path(stranger).write_text(text)
        with pytest.raises(BadRequest, match="is not a recipe"):
            inline.artefacts.recipe_of(stranger)


def test_what_the_store_does_not_know(store: ArtefactStore) -> None:
    with pytest.raises(NotFound):
        store.get("job-1")
    assert store.of_job("nothing") == [] and store.newest() == []


@pytest.mark.parametrize("escape", ["../other/secret.txt", "link.txt", "missing.txt", ""])
def test_only_files_of_the_jobs_own_folder_are_taken(place: Home, store: ArtefactStore, escape: str) -> None:
    secret = place.workdir("other") / "secret.txt"
    secret.write_text("secret")
    folder = place.workdir("job")
    (folder / "link.txt").symlink_to(secret)
    with pytest.raises(StudioError, match="not in its working folder"):
        store.take(
            Artefact(path=f"{folder}/{escape}", media_type="text/plain"), job_id="job", number=1, created=CREATED
        )
    assert secret.read_text() == "secret" and files_in(place.outputs) == []


def test_the_content_of_a_picture_is_its_pixels(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (1, 2, 3))
    plain, noted, other = tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"
    image.save(plain)
    notes = PngInfo()
    notes.add_text("recipe", "x")
    image.save(noted, pnginfo=notes, compress_level=0)
    image.putpixel((0, 0), (1, 2, 4))
    image.save(other)
    sums = [content_sha256(path, "image/png") for path in (plain, noted, other)]
    assert sums[0] == sums[1] != sums[2]
    square = Image.new("RGB", (2, 3), (1, 2, 3))
    square.save(other)
    assert content_sha256(other, "image/png") != sums[0], "the same bytes in another shape"


def test_the_content_of_a_palette_and_of_frames(tmp_path: Path) -> None:
    sums = set()
    for number, colour in enumerate([(255, 0, 0), (0, 0, 255)]):
        image = Image.new("P", (4, 4), 0)
        image.putpalette(list(colour) * 256)
        image.save(tmp_path / f"{number}.png")
        sums.add(content_sha256(tmp_path / f"{number}.png", "image/png"))
    for last in (10, 200):
        first, second = Image.new("RGB", (4, 4), (1, 1, 1)), Image.new("RGB", (4, 4), (last, 1, 1))
        path = tmp_path / f"{last}.webp"
        first.save(path, save_all=True, append_images=[second], lossless=True)
        sums.add(content_sha256(path, "image/webp"))
    assert len(sums) == 4


def test_an_input_is_kept_so_the_original_may_go(studio: Studio, tmp_path: Path) -> None:
    gate, picture = tmp_path / "gate", tmp_path / "a picture.png"
    Image.new("RGB", (4, 4)).save(picture)
    digest, size = hashlib.sha256(picture.read_bytes()).hexdigest(), picture.stat().st_size
    first = studio.submit("faulty", wait_for=str(gate))
    second = studio.submit("faulty", image=picture)
    picture.unlink()
    gate.touch()
    first.result()
    [made] = second.result()
    assert made.text.split()[-1] == str(size)
    assert made.recipe["inputs"] == {f"{digest}.png": digest}
    assert [path.name for path in files_in(studio.home.inputs)] == [f"{digest}.png"]


def test_a_refused_request_keeps_nothing(inline: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    with pytest.raises(BadRequest):
        inline.submit("faulty", image=picture, outputs=99)
    assert files_in(inline.home.inputs) == [] and inline.jobs.find() == []


def test_an_input_that_changes_while_it_is_read_is_refused(inline: Studio, tmp_path: Path) -> None:
    picture = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(picture)
    checked = inline.check("faulty", {"image": picture})
    picture.write_bytes(picture.read_bytes() + b"more")
    with pytest.raises(BadRequest, match="was changed while it was read"):
        checked.inputs.keep()
    assert files_in(inline.home.inputs) == []


def test_a_cancel_in_the_moment_of_storing_leaves_no_file(inline: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    take = inline.artefacts.take

    def take_and_cancel(made: Artefact, *, job_id: str, number: int, created: float) -> Artefact:
        taken = take(made, job_id=job_id, number=number, created=created)
        assert inline.queue.cancel(job_id)
        return taken

    monkeypatch.setattr(inline.artefacts, "take", take_and_cancel)
    job = inline.submit("toy")
    assert list(job.events())[-1].event == "failed"
    monkeypatch.undo()
    with Studio(inline.home.root, executor="inline") as other:
        inline.close()  # the runner has finished with the job when this returns
        assert other.artefacts.of_job(job.id) == []
    assert files_in(inline.home.outputs) == []


def png_header(width: int, height: int) -> bytes:
    """A PNG that says how large it is and ends there: a few bytes, no pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PICKLE = b"\x80\x04\x95\x1c\x00\x00\x00\x00\x00\x00\x00\x8c\x05posix\x94\x8c\x06system\x94\x93\x94."
BAD_INPUTS: list[tuple[str, bytes, str]] = [
    ("pickle.png", PICKLE, "application/x-pickle by its content. Accepted here: image/png."),
    ("protocol5.png", b"\x80\x05" + PICKLE[2:], "application/octet-stream by its content"),
    ("protocol0.png", b"cposix\nsystem\n(S'true'\ntR.", "text/plain by its content"),
    ("zip.png", b"PK\x03\x04" + bytes(60), "application/zip"),
    ("picture.png", b"\xff\xd8\xff\xe0" + bytes(60), "image/jpeg by its content"),
    ("empty.png", b"", "text/plain"),
    ("cut.png", b"\x89PNG\r\n\x1a\n", "is a broken picture"),
    ("rubbish.png", b"\x89PNG\r\n\x1a\n" + b"\xff" * 200, "is a broken picture"),
    ("bomb.png", png_header(13_000, 13_000), "has more than 40 megapixels"),
    ("bomb2.png", png_header(50_000, 50_000), "has more than 40 megapixels"),
    ("large.png", png_header(8_000, 8_000), "has 8000 × 8000 pixels; the limit is 40 megapixels"),
    ("negative.png", png_header(0, 5), "is a broken picture"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD_INPUTS, ids=[name for name, _, _ in BAD_INPUTS])
def test_an_input_is_what_its_bytes_say(inline: Studio, tmp_path: Path, name: str, content: bytes, words: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(BadRequest) as caught:
        inline.submit("faulty", image=file)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert inline.jobs.find() == [] and files_in(inline.home.inputs) == []


@pytest.mark.parametrize(
    "path",
    ["nul\0byte.png", "/no/such/file.png", "~nobody-at-all/x.png", "x" * 5000, "/etc", "", ".", "../" * 500],
    ids=["nul", "missing", "tilde", "long", "folder", "empty", "here", "up"],
)
def test_odd_paths_are_one_line(inline: Studio, path: str) -> None:
    with pytest.raises(BadRequest) as caught:
        inline.submit("faulty", image=path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 6000
    assert inline.jobs.find() == []


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        ("é".encode() * 3000, "text/plain"),
        (b"x" + "é".encode() * 3000, "text/plain"),
        (b"xx" + "€".encode() * 3000, "text/plain"),
        ("🙂".encode() * 2000, "text/plain"),
        (b"a" * 5000 + b"\xff", "text/plain"),
        (b"caf\xe9", "application/octet-stream"),
        (b"cut \xc3", "application/octet-stream"),
        (b"nul\0", "application/octet-stream"),
        (b"RIFF\x28\0\0\0WAVEfmt \x10\0\0\0\1\0\1\0\x80\xbb\0\0\0\x77\1\0\2\0\x10\0data\4\0\0\0abcd", "audio/wav"),
        (b"GGUF\3\0\0\0", "application/x-gguf"),
    ],
)
def test_sniffing(tmp_path: Path, content: bytes, media_type: str) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    assert sniff(file) == media_type
    assert check_input(file, (), "file") == media_type


def test_several_outputs(inline: Studio) -> None:
    made = inline.run("faulty", outputs=5)
    assert len({artefact.path for artefact in made}) == 5
    assert [artefact.text.split()[1] for artefact in made] == ["1", "2", "3", "4", "5"]
    assert [artefact.id for artefact in inline.artefacts.newest(2)] == [made[4].id, made[3].id]
    assert inline.artefacts.get(made[2].id) == made[2]
    assert inline.run("faulty", outputs=0) == []


def test_two_homes_never_meet(home: Path, plugins: Path, tmp_path: Path) -> None:
    with Studio(home, executor="inline") as one, Studio(tmp_path / "other", executor="inline") as two:
        job, namesake = (studio.submit("toy", idempotency_key="k") for studio in (one, two))
        assert job.id != namesake.id
        with pytest.raises(NotFound):
            two.jobs.get(job.id)
        for studio, mine in ((one, job), (two, namesake)):
            [made] = mine.result()
            assert files_in(studio.home.outputs) == [Path(made.path), recipe_path(Path(made.path))]
