"""Scores one picture with the safety check. A family of the same package, so that image models may use the check."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from pydantic import Field

from studio.plugin import (
    MIB,
    BadRequest,
    BadWeights,
    Context,
    Event,
    Footprint,
    Params,
    Phase,
    Picture,
    Pipeline,
    Plan,
    Progress,
    StudioError,
)

_LOADED_BYTES = 150 * MIB
"""onnxruntime, the weights, and the activations of one picture."""


class SafetyParams(Params):
    """The parameters of the safety check."""

    image: Picture = Field(description="The picture to look at (PNG, JPEG, WebP).")


class ImageSafety(Pipeline[SafetyParams]):
    """Says how likely a picture is pornographic, as JSON: ``{"score": 0.02, "unsafe": false}``."""

    task = "image->text"
    makes = ("application/json",)
    Params = SafetyParams
    libraries = ("onnxruntime", "numpy", "pillow")

    _check: Any = None

    def footprint(self, params: SafetyParams) -> Footprint:
        """The same for every picture: it is made small first."""
        load = Phase(name="load", ram_bytes=_LOADED_BYTES)
        look = Phase(name="look", ram_bytes=_LOADED_BYTES, seconds=0.05)  # a thirtieth to a tenth on two cores
        return Footprint(phases=(load, look), disk_bytes=self.spec.download_bytes or 0)

    def load(self, plan: Plan) -> None:
        """Read the model. Raises ``BadWeights``."""
        from studio_pipelines.image_diffusion.safety import SafetyCheck

        if "model" not in self.files:
            raise BadWeights(f"{self.spec.id} has no model file.", f"Fetch it: studio models pull {self.spec.id}")
        self._check = SafetyCheck(self.files["model"])

    def generate(self, params: SafetyParams, ctx: Context) -> Iterator[Event]:
        """One picture, one line of JSON."""
        from PIL import Image

        from studio_pipelines.image_diffusion.safety import UNSAFE

        if self._check is None:
            raise StudioError(f"{self.spec.id} is not loaded.", "Call load() first.")
        ctx.check()
        try:
            with Image.open(params.image) as image:
                score = round(self._check.score(image), 4)
        except (OSError, ValueError, SyntaxError) as error:
            what = f"image: {params.image.name!r} is cut off or damaged."
            raise BadRequest(what, "Give a picture that opens.") from error
        yield Progress(phase="look", done=1, total=1)
        text = json.dumps({"score": score, "unsafe": score >= UNSAFE})
        yield ctx.save(text + "\n", "application/json", score=score)

    def unload(self) -> None:
        """Free the model."""
        self._check = None
