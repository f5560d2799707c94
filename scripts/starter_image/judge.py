"""A judge for drawn concepts: a small classifier trained on the real pictures alone, under heavy augmentation."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from . import data


class Judge(nn.Module):
    """RGB (B, 3, H, W) in -1..1 -> scores (B, concepts)."""

    def __init__(self, concepts: int, widths: tuple[int, ...] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for inner, outer in zip((3, *widths), widths, strict=False):
            layers += [nn.Conv2d(inner, outer, 3, 2, 1), nn.BatchNorm2d(outer), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        # The mean over 2 x 2 regions keeps a rough idea of where things are: above or below, left or right.
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(4 * widths[-1], concepts))

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(pictures))


def disturb(pictures: torch.Tensor, random_: torch.Generator) -> torch.Tensor:
    """Turned, scaled, shifted, tinted, blurred, noisy, with a patch missing: as drawings differ from originals."""
    count, side = len(pictures), pictures.shape[-1]

    def uniform(low: float, high: float, *shape: int) -> torch.Tensor:
        return torch.rand(count, *shape, generator=random_) * (high - low) + low

    angle, scale = uniform(-12, 12) * math.pi / 180, uniform(0.88, 1.2)
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], 1).view(count, 2, 2)
    place = torch.cat([turn * scale[:, None, None], uniform(-0.12, 0.12, 2, 1)], 2)
    grid = F.affine_grid(place, list(pictures.shape), align_corners=False)
    # Minus one makes white zero, which is what grid_sample puts outside of the picture.
    moved = F.grid_sample(pictures - 1, grid, padding_mode="zeros", align_corners=False) + 1
    blurred = F.avg_pool2d(moved, 3, 1, 1, count_include_pad=False)
    moved = torch.lerp(moved, blurred, uniform(0, 1, 1, 1, 1))
    moved = moved * uniform(0.9, 1.05, 3, 1, 1) + uniform(-0.06, 0.06, 3, 1, 1)
    moved = moved + torch.randn(moved.shape, generator=random_) * uniform(0, 0.08, 1, 1, 1)
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    corner, size = uniform(0, side, 2), side // 5
    left, top = corner[:, 0, None, None], corner[:, 1, None, None]
    patch = (x >= left) & (x < left + size) & (y >= top) & (y < top + size)
    return torch.where(patch[:, None], uniform(-1, 1, 3, 1, 1), moved)


def train(pictures: torch.Tensor, steps: int, batch: int = 96, seed: int = 0) -> Judge:
    """`pictures` (N, 3, H, W), one a concept, in -1..1."""
    torch.manual_seed(seed)
    judge, random_ = Judge(len(pictures)), torch.Generator().manual_seed(seed)
    optimiser = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 3e-3, total_steps=steps)
    for step in range(steps):
        chosen = torch.randint(len(pictures), (batch,), generator=random_)
        loss = F.cross_entropy(judge(disturb(pictures[chosen], random_)), chosen, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if (step + 1) % 100 == 0:
            print(f"judge {step + 1:5d} of {steps}  loss {float(loss.detach()):.3f}", flush=True)
    return judge.eval()


def hits(scores: torch.Tensor, wanted: torch.Tensor) -> dict[str, float]:
    """Share of rows whose wanted concept is the first, or among the first five."""
    first = scores.topk(5, dim=1).indices == wanted[:, None]
    return {
        "top1": round(float(first[:, 0].float().mean()), 4),
        "top5": round(float(first.any(1).float().mean()), 4),
    }


def held_out_captions(
    concepts: list[data.Concept],
    count: int,
    frames_of: tuple[list[str], list[str]] = (data.EN_HELD_OUT, data.FR_HELD_OUT),
    seed: int = 0,
) -> tuple[list[str], torch.Tensor]:
    """Phrasings that training never saw, half English and half French, each about another concept."""
    random_ = torch.Generator().manual_seed(seed)
    chosen = torch.randperm(len(concepts), generator=random_)[:count]
    captions = []
    for number, concept in enumerate(concepts[i] for i in chosen.tolist()):
        language, frames = ("en", "fr")[number % 2], frames_of[number % 2]
        name = (concept.en if language == "en" else concept.fr)[0]
        captions.append(data.fill(frames[number // 2 % len(frames)], name, language))
    return captions, chosen
