"""The optimisers of the stages, and how fast each stage learns."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from .stages import Settings

Group = dict[str, list[nn.Parameter] | float]


def optimisers(
    settings: "Settings",
    vae: nn.Module,
    decoding: list[nn.Parameter],
    transformer: nn.Module,
    texts: list[nn.Parameter],
) -> dict[str, torch.optim.Optimizer]:
    """By stage; "matrices" goes with both stages of the transformer. `texts`: what is learned of the text encoders."""
    adam, muon = torch.optim.AdamW, torch.optim.Muon
    blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
    matrices = [p for block in blocks for p in block.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in transformer.parameters() if p.requires_grad and id(p) not in known]
    betas = (0.9, 0.98)
    # What a caption says, above all up or down, is learned last: faster, and with less told by what came before.
    groups: list[Group] = [{"params": others, "boost": 1.0}, {"params": texts, "boost": 4.0}]
    return {
        "pictures": adam(vae.parameters(), lr=settings.picture_rate, weight_decay=0.0),
        # Muon (Keller Jordan 2024; in torch since 2.9) for the matrices of the blocks.
        "matrices": muon(matrices, lr=settings.rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
        "motion": adam(others + texts, lr=settings.rate, betas=betas, weight_decay=0.01),
        "again": adam(groups, lr=settings.rate, betas=betas, weight_decay=0.01),
        "films": adam(decoding, lr=settings.film_rate, weight_decay=0.0),
    }


def names_of(stage: str) -> list[str]:
    """The optimisers that take a step in a stage."""
    return [stage, "matrices"] if stage in ("motion", "again") else [stage]


def rate(settings: "Settings", stage: str, step: int, total: int) -> float:
    """It rises for a moment, then falls straight to zero after the last step."""
    top = {
        "pictures": settings.picture_rate,
        "motion": settings.rate,
        "again": settings.rate / 2,
        "films": settings.film_rate,
    }
    return top[stage] * min((step + 1) / min(60, max(1, total // 10)), 1 - step / total)
