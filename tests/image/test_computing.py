"""On a card without bf16 a plan names the arithmetic of each network: pictures stay the same, but for rounding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from image_harness import Loaded, half_mask, source_picture

TASKS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "text": lambda folder: {},
    "image": lambda folder: {"image": source_picture(folder / "source.png")},
    "inpaint": lambda folder: {
        "image": source_picture(folder / "source.png"),
        "mask_image": half_mask(folder / "mask.png"),
    },
}


def computed(folder: Path, kinds: dict[str, str], precision: str = "bf16") -> dict[str, Any]:
    """A plan's settings: these networks in this arithmetic, all others in 32 bits."""
    names = [path.name for path in folder.iterdir() if list(path.glob("*.safetensors"))]
    held = {"precision": precision, "blocks": 2, "resident": 1}
    whole = {"precision": "fp32", "blocks": 0}
    networks = {name: {**(whole if name == "vae" else held), "computing": kinds.get(name, "fp32")} for name in names}
    return {"networks": networks, "free_after_use": False}


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("kind", ["sd", "sdxl"])
def test_a_unet_in_fp16_beside_an_autoencoder_in_32_bits(
    kind: str, task: str, tiny_image: Callable[[str], Path], tmp_path: Path
) -> None:
    """Also where diffusers would move the autoencoder to other arithmetic (``force_upcast``), for every request."""
    folder, asked = tiny_image(kind), TASKS[task](tmp_path)
    exact = Loaded(kind, folder, tmp_path, {})
    [wanted] = exact.make(**asked).pictures
    exact.pipeline.unload()
    half = dict.fromkeys(("text_encoder", "text_encoder_2", "unet"), "fp16")
    loaded = Loaded(kind, folder, tmp_path, computed(folder, half))
    dtypes = {name: str(module.dtype) for name, module in loaded.pipeline.model.networks.items()}
    for _ in range(2):
        [made] = loaded.make(**asked).pictures
        assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 3
    assert dtypes == {name: "torch.float32" if name == "vae" else "torch.float16" for name in dtypes}
    assert {name: str(module.dtype) for name, module in loaded.pipeline.model.networks.items()} == dtypes
    loaded.pipeline.unload()


@pytest.mark.parametrize("kind", ["flux", "sd3"])
def test_weights_in_16_bits_computed_in_32(kind: str, tiny_image: Callable[[str], Path], tmp_path: Path) -> None:
    folder = tiny_image(kind)
    exact = Loaded(kind, folder, tmp_path, {})
    [wanted] = exact.make().pictures
    exact.pipeline.unload()
    loaded = Loaded(kind, folder, tmp_path, computed(folder, {}))
    [made] = loaded.make().pictures
    assert np.abs(made.astype(int) - wanted.astype(int)).max() <= 3
    assert {str(module.dtype) for module in loaded.pipeline.model.networks.values()} == {"torch.float32"}
    loaded.pipeline.unload()
