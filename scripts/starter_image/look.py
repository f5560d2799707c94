"""Pictures to look at: labelled sheets of samples and of the autoencoder's reconstructions; preview factors."""

from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

STEPS, GUIDANCE = 20, 4.0

PROMPTS = [
    "a red apple", "une pomme verte", "a blue heart", "un cœur jaune", "a cat", "un chien", "a house", "un arbre",
    "a star", "le soleil", "the moon", "une voiture rouge", "a rocket", "un poisson", "a flower", "une tasse de café",
    "a pizza", "une guitare", "an umbrella", "un robot", "a penguin", "un papillon", "a rainbow", "un gâteau",
    "a bicycle", "un avion", "a banana", "une fraise", "a frog", "une licorne", "a snowman", "un livre bleu",
    "a green square", "un cercle rouge", "please draw a taxi", "dessine-moi un mouton", "two keys on a table",
    "ma belle couronne", "I saw an owl!", "un éléphant, la nuit",
]  # fmt: skip


@torch.no_grad()
def sample(pipe: StableDiffusionPipeline, prompts: list[str], seed: int = 0, batch: int = 20) -> list[Image.Image]:
    """One picture a prompt, each from its own seed, so that a prompt gives the same picture in any company."""
    pictures: list[Image.Image] = []
    for first in range(0, len(prompts), batch):
        part = prompts[first : first + batch]
        generators = [torch.Generator().manual_seed(seed * 1000 + first + i) for i in range(len(part))]
        pictures += pipe(part, num_inference_steps=STEPS, guidance_scale=GUIDANCE, generator=generators).images
    return pictures


def label_font() -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
    """Pillow's own font has no accents, which French needs; a common one of the system does."""
    for name in ("DejaVuSans.ttf", "LiberationSans-Regular.ttf", "Arial.ttf"):
        try:
            return ImageFont.truetype(name, 10)
        except OSError:
            continue
    return ImageFont.load_default(10)


def sheet(pictures: list[Image.Image], labels: list[str], path: Path, columns: int = 8, zoom: int = 2) -> None:
    """A grid, each picture enlarged `zoom` times with its caption below."""
    width, height = (side * zoom for side in pictures[0].size)
    rows, bar = -(-len(pictures) // columns), 18
    page = Image.new("RGB", (columns * (width + 8), rows * (height + bar + 8)), "#e8e8e8")
    draw, font = ImageDraw.Draw(page), label_font()
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % columns * (width + 8) + 4, number // columns * (height + bar + 8) + 4
        page.paste(picture.resize((width, height), Image.Resampling.LANCZOS), (x, y))
        draw.text((x, y + height + 2), label, fill="black", font=font)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)


def to_pictures(tensor: torch.Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in -1..1 -> pictures."""
    values = ((tensor.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(value) for value in values]


def preview_factors(latents: torch.Tensor, pictures: torch.Tensor) -> tuple[dict[str, list], float]:
    """Least squares from scaled latents (N, 4, h, w) to pictures (N, 3, H, W), in -1..1, shrunk to h x w.

    Gives factors for colours in 0..1 and their mean absolute error on the same pictures.
    """
    small = F.interpolate((pictures + 1) / 2, size=latents.shape[-2:], mode="area")
    left = latents.permute(0, 2, 3, 1).reshape(-1, latents.shape[1]).double().cpu().numpy()
    left = np.concatenate([left, np.ones((len(left), 1))], axis=1)
    right = small.permute(0, 2, 3, 1).reshape(-1, 3).double().cpu().numpy()
    solution = np.linalg.lstsq(left, right, rcond=None)[0]
    error = float(np.abs(left @ solution - right).mean())
    rounded = np.round(solution, 5).tolist()
    return {"factors": rounded[:-1], "bias": rounded[-1]}, error
