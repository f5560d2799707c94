"""Contact sheets of a batch: every picture in its place, labelled, the same each time."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
import yaml
from PIL import Image

from studio import Studio
from studio.batch import submit_batch
from studio.errors import BadRequest
from studio.grids import Cell, Sheet, check_grid, drawn, write_grids
from toolbox import Cli

TinyImage = Callable[[str], Path]


def written(path: Path, *jobs: dict[str, Any], **defaults: Any) -> Path:
    path.write_text(yaml.safe_dump({"defaults": defaults, "jobs": list(jobs)}, sort_keys=False))
    return path


def colours(folder: Path, count: int) -> list[Path]:
    """Plain pictures of different colours and shapes."""
    paths = []
    for number in range(count):
        paths.append(folder / f"{number}.png")
        size = (64, 64) if number % 2 else (96, 48)
        Image.new("RGB", size, (40 * (number % 6), 250 - 30 * (number % 8), 17 * number % 256)).save(paths[-1])
    return paths


def places(page: Image.Image, path: Path) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the pixels of a plain picture's colour; it must be one full rectangle."""
    pixels = np.asarray(page)
    with Image.open(path) as image:
        colour = image.getpixel((0, 0))
    ys, xs = np.nonzero((pixels == colour).all(axis=2))
    box = int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1
    assert len(xs) == (box[2] - box[0]) * (box[3] - box[1])
    return box


def test_pictures_stand_where_their_axes_say(tmp_path: Path) -> None:
    paths = colours(tmp_path, 12)
    axes = (("scheduler", ("euler", "ddim")), ("seed", (1, 2)), ("steps", (4, 8, 16)))
    page = drawn(Sheet("many", axes, tuple(Cell((path,)) for path in paths)))
    boxes = [places(page, path) for path in paths]
    order = [(table, row, column) for table in range(2) for row in range(2) for column in range(3)]
    middles = {place: ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2) for place, b in zip(order, boxes, strict=True)}
    for (table, row, column), (x, y) in middles.items():
        assert x == pytest.approx(middles[0, 0, column][0], abs=1)
        assert y == pytest.approx(middles[table, row, 0][1], abs=1)
        if column:
            assert x > middles[table, row, column - 1][0]
        if (table, row) != (0, 0):
            assert y > middles[(table, 0, column) if row else (table - 1, 1, column)][1]
    assert boxes[0][2] - boxes[0][0] == 2 * (boxes[0][3] - boxes[0][1]), "the picture's shape is kept"
    again = drawn(Sheet("many", axes, tuple(Cell((path,)) for path in paths)))
    assert again.tobytes() == page.tobytes()


def test_labels_are_told_apart_and_kept_within_the_sheet(tmp_path: Path) -> None:
    [path] = colours(tmp_path, 1)
    short = drawn(Sheet("a", (("seed", (1,)),), (Cell((path,)),)))
    other = drawn(Sheet("a", (("seed", (2,)),), (Cell((path,)),)))
    assert short.size == other.size
    assert short.tobytes() != other.tobytes()
    long = "w" * 3000 + " and more words " * 100
    for axes in ((("prompt", (long,)),), (("prompt", (long,)), ("lora", (["x:0.5"],)))):
        page = drawn(Sheet("a", axes, (Cell((path,)),)))
        assert page.width < 3 * short.width
        assert places(page, path)[2] <= page.width
        edge = np.asarray(page)[:, -4:]
        assert (edge == 255).all(), "a label runs over the edge"


def test_several_pictures_of_a_job_and_none(tmp_path: Path) -> None:
    paths = colours(tmp_path, 3)
    page = drawn(Sheet("a", (("seed", (1, 2)),), (Cell(tuple(paths)), Cell(words="failed"))))
    boxes = [places(page, path) for path in paths]
    assert boxes[1][0] >= boxes[0][2] - 1
    assert boxes[2][1] > boxes[0][3]
    assert page.getpixel((page.width - 40, page.height // 2)) == (232, 232, 232)


@pytest.mark.parametrize(
    ("jobs", "target", "says"),
    [
        ([{"id": "a", "params": {"prompt": "x"}}], "sheet.png", "has no matrix"),
        ([{"id": "a", "matrix": {"seed": [1]}}], "sheet.jpg", "written as PNG"),
        ([{"id": "a", "matrix": {"seed": [1]}}], "no/such/sheet.png", "no folder"),
        ([{"id": "a", "matrix": {"seed": list(range(500))}}], "sheet.png", "too many to be seen"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_in_one_line(
    jobs: list[dict[str, Any]], target: str, says: str, tmp_path: Path
) -> None:
    batch = written(tmp_path / "batch.yaml", *jobs, model="tiny-sd")
    with pytest.raises(BadRequest, match=says) as caught:
        check_grid(batch, tmp_path / target)
    assert "\n" not in str(caught.value)


def test_through_the_batch(tiny_image: TinyImage, home: Path, tmp_path: Path) -> None:
    (home / "models.yaml").write_text(yaml.safe_dump([image_models.catalogue_entry("sd", tiny_image("sd"))]))
    grid = {"prompt": ["a red cat", "a green boat"], "seed": [1, 2]}
    batch = written(
        tmp_path / "batch.yaml",
        {"id": "many", "matrix": grid},
        {"id": "one", "params": {"prompt": "a dog"}, "matrix": {"steps": [1, 2]}},
        model="tiny-sd", params={"width": 64, "height": 64, "steps": 2, "preview_every": 0},
    )  # fmt: skip
    with Studio(home, executor="inline") as studio:
        rows = submit_batch(studio, batch)
        for row in rows[:-1]:
            studio.jobs.get(row.id).result()
        studio.jobs.get(rows[-1].id).result()
        paths = write_grids(studio, batch, rows, tmp_path / "sheet.png")
        first = [path.read_bytes() for path in paths]
        assert [path.name for path in paths] == ["sheet-many.png", "sheet-one.png"]
        assert [path.read_bytes() for path in write_grids(studio, batch, rows, tmp_path / "sheet.png")] == first
    with Image.open(paths[0]) as two_rows, Image.open(paths[1]) as one_row:
        assert two_rows.height > one_row.height


def test_on_the_command_line(cli: Cli, plugins: Path, tmp_path: Path) -> None:
    """Jobs without pictures have empty cells; a grid that cannot be is refused before anything is queued."""
    batch = written(
        tmp_path / "batch.yaml", {"id": "words", "params": {"prompt": "sea"}, "matrix": {"words": [1, 2]}}, model="toy"
    )
    refused = cli("batch", batch, "--grid", tmp_path / "sheet.gif")
    assert refused.returncode == 2
    assert "written as PNG" in refused.stderr
    assert cli("jobs", "list", "--json").stdout.strip() == "[]"
    made = cli("batch", batch, "--executor", "inline", "--grid", tmp_path / "sheet.png")
    assert made.returncode == 0, made.stderr
    assert "Contact sheet" in made.stderr
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 200
        assert sheet.getpixel((sheet.width - 40, sheet.height - 40)) == (232, 232, 232)
