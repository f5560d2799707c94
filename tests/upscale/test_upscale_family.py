"""The family as Studio uses it: its words, its plan, the command line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image
from upscale_files import SMALL, Loaded, drawing, furthest, saved

from studio.core import Studio
from studio.plugin import GIB, MIB, BadRequest, ModelSpec, StudioError
from studio_pipelines.image_upscale import params as params_module
from studio_pipelines.image_upscale.family import ImageUpscale
from studio_pipelines.image_upscale.params import UpscaleParams
from toolbox import Cli

NARROW = 1340 * MIB


@pytest.fixture
def upscale_home(home: Path, starter_files: dict[str, Path]) -> Path:
    """A home with the starter upscaler."""
    (home / "models").symlink_to(Path(os.environ["STUDIO_TEST_MODELS"]).absolute(), target_is_directory=True)
    return home


def test_the_asking_process_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; import studio_pipelines.image_upscale.family; "
        "print(sorted({'torch', 'numpy', 'PIL'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_every_field_has_its_french_words() -> None:
    words = yaml.safe_load(Path(params_module.__file__).with_name("fr.yaml").read_text(encoding="utf-8"))
    assert set(words) == set(UpscaleParams.model_fields)
    assert all(set(word) == {"label", "description"} and all(word.values()) for word in words.values())


@pytest.mark.parametrize(
    "values",
    [{}, {"image": "x", "scale": 1}, {"image": "x", "scale": 5}, {"image": "x", "scale": 2.5},
     {"image": "x", "tile": 31}, {"image": "x", "tile": 2049}, {"image": "x", "tile": True},
     {"image": "x", "sharp": 1}],
)  # fmt: skip
def test_other_values_are_refused(inline: Studio, tmp_path: Path, values: dict[str, object]) -> None:
    drawing(8).save(tmp_path / "x", "PNG")
    given = {**values, "image": tmp_path / "x"} if "image" in values else values
    with pytest.raises(BadRequest) as caught:
        inline.check("starter-upscale", given)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_bad_catalogue_entry_names_its_key() -> None:
    family = ImageUpscale(ModelSpec(id="mine", pipeline="image-upscale", settings={"network": "swin", "depth": 3}))
    with pytest.raises(BadRequest, match=r"The catalogue entry mine: settings\.network"):
        family.footprint(UpscaleParams(image=Path("x.png")))


def test_before_load_and_after_unload_there_is_nothing(small_files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    file = saved(drawing(16), tmp_path / "in.png")
    loaded = Loaded(small_files["rrdb"], SMALL["rrdb"], tmp_path)
    assert furthest(loaded.make(file), loaded.make(file)) == 0, "the same request gives the same pixels"
    loaded.pipeline.unload()
    loaded.pipeline.unload()
    with pytest.raises(StudioError, match="is not loaded"):
        loaded.events(file)


def test_a_plan_chooses_the_largest_tiles_that_fit(upscale_home: Path, tmp_path: Path) -> None:
    file = saved(Image.new("RGB", (900, 700)), tmp_path / "in.png")
    with Studio(upscale_home, executor="inline") as studio:
        wide, narrow = (
            studio.forecast("starter-upscale", image=file, vram_bytes=vram, ram_bytes=16 * GIB)
            for vram in (24 * GIB, NARROW)
        )
    assert wide.fits and narrow.fits
    sizes = [int(plan.settings["variants"]["upscale"].split()[-1]) for plan in (wide, narrow)]
    assert sizes[0] == 512 and sizes[1] < 512, (wide.peak_vram_bytes, narrow.peak_vram_bytes)
    assert narrow.peak_vram_bytes < min(NARROW, wide.peak_vram_bytes)


def test_from_the_command_line(upscale_home: Path, cli: Cli, tmp_path: Path) -> None:
    file, target = saved(drawing(40).convert("RGBA"), tmp_path / "in.png"), tmp_path / "out.png"
    done = cli("run", "starter-upscale", "--image", file, "--scale", "3", "-o", target, "--json", code=0)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [one["done"] for one in events if one["event"] == "progress" and one["phase"] == "upscale"] == [1]
    [made] = [one for one in events if one["event"] == "artefact"]
    assert made["info"]["width"] == made["info"]["height"] == 120 and made["media_type"] == "image/png"
    with Image.open(target) as image:
        assert image.size == (120, 120)
    file.write_bytes(file.read_bytes()[:-60])
    refused = cli("run", "starter-upscale", "--image", file, code=2)
    assert "is cut off or damaged" in refused.stderr and len(refused.stderr.splitlines()) == 1
    assert len(json.loads(cli("jobs", "list", "--json", code=0).stdout)) == 1, "what is refused is never queued"
