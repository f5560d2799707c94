"""How unlike two pictures are, (B, 3, H, W) each."""

import torch
from torch.nn import functional as F


def likeness(result: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    return F.l1_loss(result, picture) + edges(result, picture) + hues(result, picture)


def edges(result: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """L1 between the differences of neighbouring pixels, across and down."""
    across = F.l1_loss(result.diff(dim=3), picture.diff(dim=3))
    return across + F.l1_loss(result.diff(dim=2), picture.diff(dim=2))


def hues(result: torch.Tensor, picture: torch.Tensor) -> torch.Tensor:
    """L1 between red minus green and blue minus green, each averaged over 4 x 4 pixels.

    Plain L1 learns light and dark first and may leave green and violet grey for many hundred steps.
    """
    small, wanted = F.avg_pool2d(result, 4), F.avg_pool2d(picture, 4)
    return F.l1_loss(small[:, ::2] - small[:, 1:2], wanted[:, ::2] - wanted[:, 1:2])
