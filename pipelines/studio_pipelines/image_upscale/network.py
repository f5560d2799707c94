"""The two networks of Real-ESRGAN, for inference, with the names of the original modules.

Sources: RRDBNet from Wang et al., "ESRGAN" (2018), and XPixelGroup/BasicSR ``basicsr/archs/rrdbnet_arch.py``
(Apache-2.0); SRVGGNetCompact from xinntao/Real-ESRGAN ``realesrgan/archs/srvgg_arch.py`` (BSD-3). Pictures go in and
out as (batch, 3, height, width), red green blue, 0 to 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from .architecture import COLOURS, FEATURES, GROWTH, SCALE, Architecture
from .ncnn import read_tensors, scan

_LEAK = 0.2
_RESIDUE = 0.2
"""What the residual blocks' own part is multiplied by before it is added."""


def _convolution(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 3, 1, 1)


class Compact(nn.Module):
    """SRVGGNetCompact: convolutions at the picture's own size, then the pixels of each feature are laid out 4×4. What
    it computes is the difference to the picture with every pixel repeated."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(COLOURS, FEATURES), nn.PReLU(FEATURES)]
        for _ in range(depth):
            layers += [_convolution(FEATURES, FEATURES), nn.PReLU(FEATURES)]
        layers.append(_convolution(FEATURES, COLOURS * SCALE**2))
        self.body = nn.Sequential(*layers)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(batch, 3, h, w) -> (batch, 3, 4h, 4w)."""
        found = F.pixel_shuffle(self.body(picture), SCALE)
        return found + F.interpolate(picture, scale_factor=SCALE, mode="nearest")


class DenseBlock(nn.Module):
    """Five convolutions, each of which sees what all before it made."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = _convolution(FEATURES, GROWTH)
        self.conv2 = _convolution(FEATURES + GROWTH, GROWTH)
        self.conv3 = _convolution(FEATURES + 2 * GROWTH, GROWTH)
        self.conv4 = _convolution(FEATURES + 3 * GROWTH, GROWTH)
        self.conv5 = _convolution(FEATURES + 4 * GROWTH, FEATURES)

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, 64, h, w) -> the same."""
        known = states
        for convolution in (self.conv1, self.conv2, self.conv3, self.conv4):
            known = torch.cat((known, F.leaky_relu_(convolution(known), _LEAK)), dim=1)
        return torch.add(states, self.conv5(known), alpha=_RESIDUE)


class Block(nn.Module):
    """Three dense blocks in a residual one."""

    def __init__(self) -> None:
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = DenseBlock(), DenseBlock(), DenseBlock()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """(batch, 64, h, w) -> the same."""
        return torch.add(states, self.rdb3(self.rdb2(self.rdb1(states))), alpha=_RESIDUE)


class RRDBNet(nn.Module):
    """Residual blocks at the picture's own size, then twice: every pixel repeated, and a convolution."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.conv_first = _convolution(COLOURS, FEATURES)
        self.body = nn.Sequential(*(Block() for _ in range(depth)))
        self.conv_body = _convolution(FEATURES, FEATURES)
        self.conv_up1 = _convolution(FEATURES, FEATURES)
        self.conv_up2 = _convolution(FEATURES, FEATURES)
        self.conv_hr = _convolution(FEATURES, FEATURES)
        self.conv_last = _convolution(FEATURES, COLOURS)

    def forward(self, picture: torch.Tensor) -> torch.Tensor:
        """(batch, 3, h, w) -> (batch, 3, 4h, 4w)."""
        states = self.conv_first(picture)
        states = states + self.conv_body(self.body(states))
        for convolution in (self.conv_up1, self.conv_up2):
            states = F.leaky_relu_(convolution(F.interpolate(states, scale_factor=2, mode="nearest")), _LEAK)
        return cast(torch.Tensor, self.conv_last(F.leaky_relu_(self.conv_hr(states), _LEAK)))


def build(architecture: Architecture) -> nn.Module:
    """The network without weights of its own."""
    return (Compact if architecture.network == "compact" else RRDBNet)(architecture.depth)


def load(architecture: Architecture, param: Path, weights: Path) -> nn.Module:
    """The network with the weights of ncnn's two files, float32 on the processor. Raises ``BadWeights``."""
    tensors = read_tensors(weights, scan(param, weights, architecture))
    with torch.device("meta"):
        network = build(architecture)
    # Both sides are in the order in which the layers run.
    names = list(network.state_dict())
    network.load_state_dict(dict(zip(names, tensors, strict=True)), assign=True)
    return network.eval().requires_grad_(False)


def probe(network: str, depth: int, pixels: int) -> tuple[nn.Module, Sequence[torch.Tensor]]:
    """For the planner: the network and one square of ``pixels`` a side."""
    made = build(Architecture.model_validate({"network": network, "depth": depth}))
    return made.eval(), (torch.randn(1, COLOURS, pixels, pixels),)
