"""What a section of the film is made from, laid out as forward FramePack (F1) lays it out.

The places of latents in time are the given picture, 16 + 2 + 1 of history, and 9 new ones: history reaches the model
at a quarter, half and full size (diffusers 0.42, HunyuanVideoFramepackPipeline, sampling type "vanilla").
"""

import random
from dataclasses import dataclass

import torch

SIZES = (16, 2, 1)
WINDOW = 9
ROUGH = 0.3  # the most noise on history: the model must not trust what it made itself too far


@dataclass(frozen=True)
class Sections:
    """Latents (B, 4, T, h, w): the given picture, 19 of history, 9 to make."""

    first: torch.Tensor
    past: torch.Tensor
    target: torch.Tensor


def sections(
    films: torch.Tensor, asked: list[int], chance: random.Random, random_: torch.Generator, same: float = 0.75
) -> Sections:
    """Sections at some place of a film each. films: (B, motions, 10, 4, h, w); asked: the motion of each.

    `same`: how often the same motion goes on; else the film showed others before, or the same by chance.
    """
    pasts = []
    for film, motion in zip(films, asked, strict=True):
        before = chance.choice((0, 1, 2, 3) if same > 0.5 else (0, 0, 0, 1, 2, 3))
        goes_on = chance.random() < same
        shown = [motion if goes_on else chance.randrange(len(film)) for _ in range(before)]
        past = torch.cat([torch.zeros(sum(SIZES), *film.shape[2:]), film[0, :1], *(film[m, 1:] for m in shown)])
        past = past[-sum(SIZES) :]
        if chance.random() < 0.6:
            strength = ROUGH * chance.random()
            there = past.abs().amax((1, 2, 3), keepdim=True) > 0
            past = past + strength * there * torch.randn(past.shape, generator=random_)
        pasts.append(past)
    chosen = torch.stack([film[motion] for film, motion in zip(films, asked, strict=True)])  # (B, 10, 4, h, w)
    first, target = chosen[:, :1].transpose(1, 2), chosen[:, 1:].transpose(1, 2)
    return Sections(first, torch.stack(pasts).transpose(1, 2), target)


def layout(batch: Sections, frames: list[int], *, recent: bool, device: torch.device) -> dict[str, torch.Tensor]:
    """The transformer's arguments. `frames`: which of the nine are made; `recent`: with the last latent."""
    quarter, half, full = batch.past.to(device).split(SIZES, dim=2)
    places = torch.arange(1 + sum(SIZES) + WINDOW, device=device)
    at_first, at_quarter, at_half, at_full, at_new = places.split([1, *SIZES, WINDOW])
    first = batch.first.to(device)
    return {
        "latents_clean": torch.cat([first, full], 2) if recent else first,
        "indices_latents_clean": torch.cat([at_first, at_full]) if recent else at_first,
        "latents_history_2x": half,
        "indices_latents_history_2x": at_half,
        "latents_history_4x": quarter,
        "indices_latents_history_4x": at_quarter,
        "indices_latents": at_new[frames],
    }
