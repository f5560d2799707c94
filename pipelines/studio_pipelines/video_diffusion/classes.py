"""Which of diffusers' classes does what, and what its films are like. Names only: nothing is imported here.

The rows are of diffusers 0.42: ``pipelines/wan/pipeline_wan.py``, ``pipelines/ltx/pipeline_ltx.py`` and
``pipeline_ltx_image2video.py``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["text", "image"]


@dataclass(frozen=True)
class PipelineClass:
    """One architecture. ``image`` is the class that begins with a picture, "" where there is none.

    A latent stands for ``factor`` × ``factor`` pixels and, after the first, for ``frames`` frames; a token for
    ``patch`` × ``patch`` latents. ``together``: the negative prompt runs in the same call, as a second half of the
    batch. ``rate``: the name by which the class is told the frames a second, "" where it does not ask. ``packed``: the
    callback's latents are tokens.
    """

    text: str
    image: str = ""
    factor: int = 8
    frames: int = 4
    patch: int = 2
    together: bool = False
    rate: str = ""
    packed: bool = False

    @property
    def multiple(self) -> int:
        """What both sides are multiples of, in pixels."""
        return self.factor * self.patch


CLASSES: dict[str, PipelineClass] = {
    "WanPipeline": PipelineClass(text="WanPipeline"),
    "LTXPipeline": PipelineClass(
        text="LTXPipeline",
        image="LTXImageToVideoPipeline",
        factor=32,
        frames=8,
        patch=1,
        together=True,
        rate="frame_rate",
        packed=True,
    ),
}
