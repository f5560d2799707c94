"""The two networks of Real-ESRGAN in numbers: convolutions, parameters, and how far one pixel reaches. No torch.

``compact`` is SRVGGNetCompact (a row of ``depth`` convolutions), ``rrdb`` is RRDBNet (``depth`` residual blocks of 15
convolutions each). Both are 64 features wide and enlarge four times; an entry of the catalogue names one of them under
``settings``. Sources: Wang et al., "Real-ESRGAN" (2021), and the modules in its repository (xinntao/Real-ESRGAN,
``realesrgan/archs/srvgg_arch.py``; XPixelGroup/BasicSR, ``basicsr/archs/rrdbnet_arch.py``).
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.plugin import ModelSpec

SCALE = 4
"""What both networks enlarge by; other scales are reduced from it."""

COLOURS = 3
FEATURES = 64
GROWTH = 32
"""Features that each convolution of a dense block adds."""


class Architecture(BaseModel):
    """Which network, and how deep: the ``settings`` of a catalogue entry."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    network: Literal["compact", "rrdb"]
    depth: int = Field(ge=1, le=64)

    @property
    def convolutions(self) -> tuple[tuple[int, int], ...]:
        """(outputs, inputs) of every convolution, all 3×3 with a bias, in the order in which they run."""
        first, same, last = (FEATURES, COLOURS), (FEATURES, FEATURES), (COLOURS, FEATURES)
        if self.network == "compact":
            return (first, *[same] * self.depth, (COLOURS * SCALE**2, FEATURES))
        dense = [(GROWTH, FEATURES + GROWTH * step) for step in range(4)] + [(FEATURES, FEATURES + 4 * GROWTH)]
        return (first, *dense * 3 * self.depth, same, same, same, same, last)

    @property
    def slopes(self) -> int:
        """How many parametric activations there are, of one slope a feature."""
        return self.depth + 1 if self.network == "compact" else 0

    @property
    def params(self) -> int:
        return sum(9 * out * into + out for out, into in self.convolutions) + FEATURES * self.slopes

    @property
    def overlap(self) -> int:
        """Pixels of the picture beside a tile that are read with it.

        ``compact``: as far as its convolutions reach, so tiles change nothing. ``rrdb`` reaches ``15 * depth + 3``
        pixels, but with its published weights what lies beyond 56 of them (48 at depth 6) changed no value by more
        than 1/255 in the photographs that were cut to see this.
        """
        return self.depth + 2 if self.network == "compact" else min(15 * self.depth + 3, 80)

    @property
    def tiles(self) -> tuple[int, ...]:
        """Sizes to choose from, largest first."""
        return (512, 256, 128, 64)


def architecture_of(spec: ModelSpec) -> Architecture:
    """The network of a catalogue entry. ``BadRequest`` names the entry and the key."""
    return spec.checked_settings(Architecture)
