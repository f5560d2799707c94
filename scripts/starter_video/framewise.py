"""The film's autoencoder on single frames, at a third of the cost.

For one frame the three places in time of a kernel see the same picture. While only the last of them holds weights, as
it does at first, a convolution in two dimensions gives the same result.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType

import torch
from diffusers import AutoencoderKLHunyuanVideo
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d
from torch.nn import functional as F


def _flat(self: HunyuanVideoCausalConv3d, states: torch.Tensor) -> torch.Tensor:
    """(B, C, 1, H, W) -> (B, C', 1, H', W')"""
    side = self.time_causal_padding[0]
    states = states[:, :, 0]
    if side:
        states = F.pad(states, (side,) * 4, mode="replicate")
    result = F.conv2d(states, self.conv.weight[:, :, -1], self.conv.bias, self.conv.stride[1:])
    return result[:, :, None]


@contextmanager
def framewise(vae: AutoencoderKLHunyuanVideo) -> Iterator[None]:
    """Inside, the autoencoder takes films of one frame only, and learns at the last place in time only."""
    convolutions = [part for part in vae.modules() if isinstance(part, HunyuanVideoCausalConv3d)]
    for part in convolutions:
        part.forward = MethodType(_flat, part)
    try:
        yield
    finally:
        for part in convolutions:
            del part.forward
