"""The tiny models themselves: whole in diffusers' eyes, finite, and the same in every run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import image_models
import numpy as np
import pytest
from PIL import Image

from studio.catalogue import read_models
from studio.download.folder import adopt
from toolbox import files_in

TinyImage = Callable[[str], Path]


def given(kind: str) -> dict[str, Any]:
    """A picture to edit, for the class that does nothing else."""
    if "edit" not in kind:
        return {}
    pixels = np.random.default_rng(3).integers(0, 256, (64, 64, 3), np.uint8)
    return {"image": Image.fromarray(pixels)}


@pytest.mark.parametrize("kind", image_models.MODELS)
def test_gives_the_same_finite_picture_twice_and_another_for_other_words(kind: str, tiny_image: TinyImage) -> None:
    pipe = image_models.load(tiny_image(kind))
    assert type(pipe).__name__ == image_models.MODELS[kind].pipeline

    def picture(**more: Any) -> np.ndarray:
        [pixels] = pipe(**image_models.picture_arguments(kind, **given(kind), **more)).images
        return pixels

    first = picture()
    assert first.shape == (64, 64, 3)
    assert np.isfinite(first).all()
    assert first.std() > 0.05, "a picture of one colour"
    assert ((first > 0) & (first < 1)).mean() > 0.5, "most pixels are cut off at black or white"
    assert np.array_equal(first, picture())
    assert not np.array_equal(first, picture(prompt="a green boat")), "the prompt does not matter"
    assert not np.array_equal(first, picture(seed=2)), "the seed does not matter"


@pytest.mark.parametrize("kind", image_models.MODELS)
def test_every_weight_comes_from_the_seed(kind: str, tiny_image: TinyImage, tmp_path: Path) -> None:
    again = image_models.write(kind, tmp_path / kind)

    def weights(folder: Path) -> dict[str, str]:
        files = [path for path in files_in(folder) if path.suffix == ".safetensors"]
        return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    assert len(weights(again)) >= 3
    assert weights(again) == weights(tiny_image(kind))


@pytest.mark.parametrize("kind", image_models.MODELS)
def test_the_catalogue_entry_names_every_file(kind: str, tiny_image: TinyImage, tmp_path: Path) -> None:
    import yaml

    folder = tiny_image(kind)
    (tmp_path / "models.yaml").write_text(yaml.safe_dump([image_models.catalogue_entry(kind, folder)]))
    [spec] = read_models(tmp_path / "models.yaml")
    assert spec.source is not None
    named = {folder / file.path for file in adopt(spec, spec.source)}
    assert {path for path in files_in(folder) if path.suffix == ".safetensors"} <= named
    assert folder / "model_index.json" in named


@pytest.mark.parametrize("kind", [kind for kind in image_models.MODELS if kind != "qwen-image-edit"])
def test_a_lora_changes_the_picture(kind: str, tiny_image: TinyImage, tmp_path: Path) -> None:
    folder = tiny_image(kind)
    pipe = image_models.load(folder)
    [without] = pipe(**image_models.picture_arguments(kind)).images
    pipe.load_lora_weights(image_models.write_lora(kind, folder, tmp_path / "style.safetensors"))
    [styled] = pipe(**image_models.picture_arguments(kind)).images
    assert np.isfinite(styled).all()
    assert np.abs(styled - without).max() > 0.01
