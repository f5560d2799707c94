"""Styles: words around a prompt, Studio's own and those that people bring along."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.core import Studio
from studio.errors import BadRequest
from studio_pipelines.image_diffusion.params import ImageParams
from studio_pipelines.image_diffusion.styles import HERE, names_of, ours, styled, styles_in

FILES = {
    "mine.yaml": "boxed: {prompt: 'a red {prompt}', negative_prompt: blurry}\n",
    "fooocus.json": json.dumps([{"name": "Fooocus V2", "prompt": "{prompt}, bright", "negative_prompt": "dark"}]),
    "styles.csv": '\ufeffname,prompt,negative_prompt\nEnd,"by the sea, at night",\n,,\nOnly not,,ugly\n',
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "styles"
    folder.mkdir()
    for name, text in FILES.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def in_style(folder: Path | None, *names: str, negative: str = "") -> tuple[str, str]:
    return styled(ImageParams(prompt="apple", negative_prompt=negative, style=list(names)), folder)


def test_words_are_put_around_one_after_the_other(folder: Path) -> None:
    assert in_style(folder) == ("apple", "")
    assert in_style(folder, "boxed") == ("a red apple", "blurry")
    assert in_style(folder, "boxed", "Fooocus V2", negative="text") == ("a red apple, bright", "text, blurry, dark")
    assert in_style(folder, "End", "Only not") == ("apple, by the sea, at night", "ugly")
    assert in_style(None, "watercolour")[0].startswith("watercolour of apple, ")


def test_ones_own_come_first_and_win(folder: Path) -> None:
    (folder / "mine.yaml").write_text("pencil: {prompt: '{prompt} by my hand'}\n")
    assert in_style(folder, "pencil") == ("apple by my hand", "")
    names = names_of(folder, with_ours=True)
    assert names[:4] == ["Fooocus V2", "pencil", "End", "Only not"]
    assert names.count("pencil") == 1 and {"photo", "watercolour"} <= set(names)
    assert names_of(folder, with_ours=False) == names[:4]


def test_each_of_ours_is_whole() -> None:
    for style in ours().values():
        assert HERE in style.prompt and style.negative_prompt
        assert set(style.label) == {"en", "fr"}
        assert style.around("x", "")[0].count("x") >= 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("broken.json", "{"),
        ("deep.yaml", "a: [1"),
        ("kind.yaml", "a: {prompt: 7}"),
        ("list.yaml", "- word"),
        ("columns.csv", "title,text\nx,y\n"),
        ("bytes.csv", "name\xff"),
    ],
)
def test_a_file_that_is_none_is_named(folder: Path, name: str, text: str) -> None:
    (folder / name).write_bytes(text.encode("latin-1"))
    with pytest.raises(BadRequest, match=f"{name} is no file of styles"):
        styles_in(folder)
    assert names_of(folder, with_ours=False) == []
    assert in_style(folder) == ("apple", "")  # who asks for no style needs none


def test_what_nobody_knows_is_refused_with_what_is_near() -> None:
    with pytest.raises(BadRequest) as refused:
        in_style(Path("styles"), "watercolor")
    assert "no style 'watercolor'" in str(refused.value) and "watercolour" in str(refused.value)


def test_words_that_become_too_many_are_refused(folder: Path) -> None:
    (folder / "long.yaml").write_text(f"long: {{prompt: '{'word ' * 3000} {{prompt}}'}}\n")
    assert len(in_style(folder, "long")[0]) == 15_006
    with pytest.raises(BadRequest, match=r"in its styles has .* characters; the limit is 20,000"):
        in_style(folder, "long", "long")


def test_a_picture_in_a_style_is_that_of_its_words(starter_home: Path, folder: Path) -> None:
    folder.rename(starter_home / "styles")
    with Studio(starter_home, executor="inline") as studio:
        assert {"boxed", "End"} <= set(studio.fields("starter-image")[2].offers)
        assert "watercolour" not in studio.fields("starter-image")[2].offers  # it would not know what to do with it
        [plain] = studio.run("starter-image", prompt="a red apple", negative_prompt="blurry", seed=3, steps=4)
        [made] = studio.run("starter-image", prompt="apple", style=["boxed"], seed=3, steps=4)
        assert made.content_sha256 == plain.content_sha256
        assert made.info["prompt"] == "a red apple" and made.recipe["params"]["style"] == ["boxed"]
        with pytest.raises(BadRequest, match="sets the weight of words"):
            (starter_home / "styles" / "w.yaml").write_text("heavy: {prompt: '({prompt}:1.3)'}\n")
            studio.pipeline(studio.models.get("flux.1-schnell"), {}).preflight(ImageParams(prompt="x", style=["heavy"]))
