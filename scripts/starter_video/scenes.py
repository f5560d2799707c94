"""Films of one picture in motion, generated: emoji and plain shapes on a plain or softly shaded ground.

Every motion comes back to where it began after 36 frames, which is one section of nine latents. So each section shows
the same movement, begins and ends with the given picture, and another motion may follow at any section.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from starter_image import data as emoji

PERIOD = 36  # frames of a section
SPEED = 2  # pixels a frame, for a side of 64: what leaves on one side comes back on the other
GAP = 8  # hidden pixels between leaving and coming back, so that 36 steps of 2 pixels are one round of 64 + 8
BOUNCE = 20  # pixels, for a side of 64
PULSE = 0.35  # up to so much larger, then smaller
SLIDES = {"right": (0, 1), "left": (0, -1), "up": (-1, 0), "down": (1, 0)}  # rows, columns
FLUENT = (
    "https://registry.npmjs.org/@iconify-json/fluent-emoji-flat/-/fluent-emoji-flat-1.2.6.tgz",
    "RY47RgPb47fYUiyrA64sIOL0+UU02s29sXpNBbIQRBUlPlfNFTKUmZDERGuxDs/7yNGWqQYvuaSYM1M4fRXlUw==",
)


@dataclass(frozen=True)
class Sprites:
    """RGBA bytes (N, 4, size, size), and names with articles: English, French."""

    pictures: torch.Tensor
    subjects: tuple[list[str], list[str]]


@dataclass(frozen=True)
class Scene:
    """A first frame: premultiplied RGBA (4, S, S) in 0..1 over a ground (3, S, S) in 0..1."""

    sprite: torch.Tensor
    ground: torch.Tensor


SHAPES = {
    "circle": '<circle cx="64" cy="64" r="56" fill="{c}"/>',
    "square": '<rect x="12" y="12" width="104" height="104" fill="{c}"/>',
    "triangle": '<path d="M64 8 122 114H6z" fill="{c}"/>',
    "diamond": '<path d="M64 4 124 64 64 124 4 64z" fill="{c}"/>',
    "ring": '<circle cx="64" cy="64" r="44" fill="none" stroke="{c}" stroke-width="26"/>',
    "star": '<path d="M64 4 81 46 126 49 91 78 103 122 64 98 25 122 37 78 2 49 47 46z" fill="{c}"/>',
}
COLOURS = ["#d22", "#27c", "#2a4", "#fb0", "#a3c", "#222", "#f70", "#0bb"]


def load_sprites(cache: Path, size: int = 64) -> Sprites:
    """Noto emoji as for the image starter, and shapes in eight colours. Downloads once."""
    dataset = emoji.load_dataset(cache, size)
    shapes = [emoji.rasterise(body.format(c=colour), size) for body in SHAPES.values() for colour in COLOURS]
    drawn = torch.from_numpy(np.stack(shapes)).permute(0, 3, 1, 2)
    names = ([c.en[0] for c in dataset.concepts], [c.fr[0] for c in dataset.concepts])
    return Sprites(torch.cat([dataset.pictures, dataset.others, drawn]), names)


def load_held_out(cache: Path, count: int, size: int = 64) -> torch.Tensor:
    """Emoji by another hand (Fluent, flat, MIT), never shown in training: RGBA bytes (count, 4, size, size)."""
    emoji.TARBALLS["fluent-flat"] = FLUENT
    icons = emoji.read_json(emoji.download("fluent-flat", cache), "icons.json")["icons"]  # type: ignore[index]
    plain = sorted(name for name in icons if not name.endswith(("light", "dark", "medium")))
    chosen = [plain[i * len(plain) // count] for i in range(count)]
    scale = '<g transform="scale(4)">{}</g>'  # these icons are 32 units wide
    drawn = [emoji.rasterise(scale.format(icons[name]["body"]), size) for name in chosen]
    return torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous()


def shrink(rgba: torch.Tensor, size: int) -> torch.Tensor:
    """RGBA bytes (4, S, S) -> premultiplied (4, size, size) in 0..1."""
    values = rgba.float() / 255
    values = torch.cat([values[:3] * values[3:], values[3:]])
    return F.interpolate(values[None], size=(size, size), mode="bilinear", antialias=True)[0].clamp(0, 1)


def place(rgba: torch.Tensor, side: int, size: int, row: int, column: int, ground: torch.Tensor) -> Scene:
    sprite = torch.zeros(4, side, side)
    sprite[:, row : row + size, column : column + size] = shrink(rgba, size)
    return Scene(sprite, ground)


def make_scene(pictures: torch.Tensor, random_: torch.Generator) -> Scene:
    """A sprite of some size near the middle; a fifth as large as the picture, on white, like the image starter's."""
    side = pictures.shape[-1]
    rgba = pictures[int(torch.randint(len(pictures), (1,), generator=random_))]
    chance = torch.rand(8, generator=random_).tolist()
    if chance[0] < 0.5:  # Emoji are mostly orange and blue: with colours changing places all hues are as common.
        rgba = rgba[[*torch.randperm(3, generator=random_).tolist(), 3]]
    if chance[1] < 0.5:
        rgba = rgba.flip(2)
    size = side if chance[2] < 0.2 else int(side * (0.5 + 0.45 * chance[3])) // 2 * 2
    free = side - size
    reach = min(free, side // 4)
    row, column = ((free - reach) // 2 + int(chance[i] * (reach + 1)) for i in (4, 5))
    ground = torch.ones(3, side, side)
    if chance[6] > 0.5:
        ends = 1 - 0.35 * torch.rand(3, 2, generator=random_)  # soft colours
        slope = torch.linspace(0, 1, side) if chance[6] > 0.75 else torch.zeros(side)
        rows = ends[:, :1] + (ends[:, 1:] - ends[:, :1]) * slope
        ground = rows[:, :, None].expand(3, side, side).clone()
    return place(rgba, side, size, row, column, ground)


def film(scene: Scene, motion: str, frames: list[int]) -> torch.Tensor:
    """The scene under a motion at the given frame numbers: RGB (T, 3, S, S) in -1..1."""
    side = scene.sprite.shape[-1]
    unit = side / 64
    if motion in SLIDES:
        rows, columns = SLIDES[motion]
        step, gap = round(SPEED * unit), round(GAP * unit)
        wide = F.pad(scene.sprite, (0, gap * abs(columns), 0, gap * abs(rows)))
        shifts = [(step * t * rows, step * t * columns) for t in frames]
        moved = torch.stack([wide.roll(shift, (1, 2))[:, :side, :side] for shift in shifts])
    elif motion == "still":
        moved = scene.sprite.expand(len(frames), -1, -1, -1)
    else:
        places = torch.stack([_warp(motion, t % PERIOD / PERIOD, unit * 2 / side) for t in frames])
        grid = F.affine_grid(places, [len(frames), 4, side, side], align_corners=False)
        still = scene.sprite.expand(len(frames), -1, -1, -1)
        moved = F.grid_sample(still, grid, padding_mode="zeros", align_corners=False)
    return (moved[:, :3] + scene.ground * (1 - moved[:, 3:])) * 2 - 1


def _warp(motion: str, part: float, pixel: float) -> torch.Tensor:
    """Where each point of a frame is found in the first one: 2 x 3, around the picture's middle. `part`: 0 to 1."""
    scale, angle, rise = 1.0, 0.0, 0.0
    if motion == "bounces":
        rise = 4 * BOUNCE * pixel * part * (1 - part)
    elif motion == "spins":
        angle = 2 * math.pi * part
    else:
        scale = 1 + PULSE * math.sin(2 * math.pi * part)
    sine, cosine = math.sin(angle) / scale, math.cos(angle) / scale
    return torch.tensor([[cosine, sine, 0.0], [-sine, cosine, rise]])
