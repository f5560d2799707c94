"""Unfinished pictures for the price of one small matrix product: colours as linear functions of the latents.

The factors are learned from the model's own finished pictures (least squares of pixels, averaged over each latent's
patch, on the latents' channels) and kept for the next time, so a model shows previews from its second picture on. The
idea of linear factors is known from ComfyUI and diffusers' documentation, where they were fitted by hand; a starter
model brings its own. Imports torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

_LONGEST_PX = 256
_ENOUGH = 16


class Previewer:
    """The linear factors of one model's latents. ``file`` is where they are kept, ``shipped`` what came with it."""

    def __init__(self, file: Path | None, shipped: Path | None = None) -> None:
        self._file = file
        self._gram: torch.Tensor | None = None  # (C + 1, C + 1): sums of products of latents
        self._target: torch.Tensor | None = None  # (C + 1, 3): sums of products of latents and colours
        self._pictures = 0
        self._factors: torch.Tensor | None = None  # (C + 1, 3)
        self._read(shipped)
        self._read(file)

    @classmethod
    def of(cls, model: str, cache: Path | None, config: Path | None) -> Previewer:
        """What is kept of a model in the cache, and what lies beside its ``model_index.json``."""
        kept = cache / "preview" / f"{model}.json" if cache is not None else None
        return cls(kept, config.with_name("preview.json") if config is not None else None)

    def save(self, grid: torch.Tensor, longest_px: int, path: Path) -> Path | None:
        """Write a small picture of latents (C, h, w), never larger than ``longest_px``, the finished one's longer side.

        ``None`` while the factors are not known. JPEG takes a tenth of the time of PNG.
        """
        if self._factors is None or grid.shape[0] + 1 != self._factors.shape[0]:
            return None
        colours = _with_one(grid) @ self._factors  # (h·w, 3)
        height, width = grid.shape[1:]
        pixels = (colours.clamp(0, 1) * 255).round().to(torch.uint8).reshape(height, width, 3)
        image = Image.fromarray(pixels.numpy())
        scale = min(_LONGEST_PX, longest_px) / max(width, height)
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        image.resize(size, Image.Resampling.BICUBIC).save(path, quality=85)
        return path

    def learn(self, grid: torch.Tensor, image: Image.Image) -> None:
        """Take in a finished picture and its latents (C, h, w), as they were after the last step."""
        if self._file is None or self._pictures >= _ENOUGH:
            return
        height, width = grid.shape[1:]
        small = image.convert("RGB").resize((width, height), Image.Resampling.BOX)
        colours = torch.tensor(list(small.tobytes()), dtype=torch.float32).reshape(-1, 3) / 255
        inputs = _with_one(grid)
        gram, target = inputs.T @ inputs, inputs.T @ colours
        if self._gram is None or self._target is None or self._gram.shape != gram.shape:
            self._gram, self._target, self._pictures = gram, target, 1
        else:
            self._gram, self._target, self._pictures = self._gram + gram, self._target + target, self._pictures + 1
        self._solve()
        self._write()

    def _solve(self) -> None:
        if self._gram is None or self._target is None:
            return
        ridge = 1e-3 * torch.trace(self._gram) / self._gram.shape[0]
        self._factors = torch.linalg.solve(self._gram + ridge * torch.eye(self._gram.shape[0]), self._target)

    def _read(self, path: Path | None) -> None:
        """What was learned before; a file that cannot be read is as good as none."""
        if path is None or not path.is_file():
            return
        try:
            kept: dict[str, Any] = json.loads(path.read_text("utf-8"))
            if "gram" in kept:
                self._gram, self._target = torch.tensor(kept["gram"]), torch.tensor(kept["target"])
                self._pictures = int(kept["pictures"])
                self._solve()
            else:
                self._factors = torch.tensor([*kept["factors"], kept["bias"]])
        except (OSError, ValueError, KeyError, TypeError, RuntimeError):
            self._gram = self._target = None

    def _write(self) -> None:
        if self._file is None or self._gram is None or self._target is None:
            return
        content = {"pictures": self._pictures, "gram": self._gram.tolist(), "target": self._target.tolist()}
        self._file.parent.mkdir(parents=True, exist_ok=True)
        part = self._file.with_suffix(".part")
        part.write_text(json.dumps(content), "utf-8")
        part.replace(self._file)


def _with_one(grid: torch.Tensor) -> torch.Tensor:
    """(C, h, w) to (h·w, C + 1), the last column for the bias."""
    flat = grid.flatten(1).T
    return torch.cat([flat, torch.ones(flat.shape[0], 1)], dim=1)
