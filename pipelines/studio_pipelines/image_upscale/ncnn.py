"""Weights in ncnn's two files, checked against the network that they are for before a single number is used.

``.param`` is text: the number 7767517, a line of two counts, and one line a layer (kind, name, counts of inputs and
outputs, their names, ``key=value`` pairs). ``.bin`` holds the numbers alone, in the order of the layers: a
convolution's weights after four bytes that say how they are stored, then its biases; the slopes of a PReLU. Only both
together say what a byte means. Source of the format: Tencent/ncnn (BSD-3), "Param and model file structure" in its
documentation, ``src/modelbin.cpp`` and ``src/layer/convolution.cpp``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from studio.plugin import BadWeights

from .architecture import FEATURES, Architecture

if TYPE_CHECKING:
    import torch

MAGIC = "7767517"
HALF_TAG, SINGLE_TAG, PLAIN_TAG = 0x01306B47, 0x0002C056, 0
MAX_PARAM_BYTES = 4_000_000

_OUTPUTS, _KERNEL, _DILATION, _STRIDE, _PADDING, _BIAS, _WEIGHTS, _INT8 = 0, 1, 2, 3, 4, 5, 6, 8
_WITHOUT_NUMBERS = frozenset({"Input", "Split", "Concat", "Eltwise", "BinaryOp", "Interp", "PixelShuffle"})


@dataclass(frozen=True)
class Numbers:
    """One tensor inside the ``.bin`` file: where it begins, its shape, and whether it is in 16 bits."""

    layer: str
    offset: int
    shape: tuple[int, ...]
    half: bool = False

    @property
    def count(self) -> int:
        product = 1
        for size in self.shape:
            product *= size
        return product

    @property
    def bytes(self) -> int:
        """16-bit numbers are filled up to whole groups of four bytes."""
        return -(-2 * self.count // 4) * 4 if self.half else 4 * self.count


@dataclass(frozen=True)
class Layer:
    kind: str
    name: str
    values: dict[int, float]


def scan(param: Path, weights: Path, architecture: Architecture) -> tuple[Numbers, ...]:
    """Where every tensor lies: weights, biases and slopes in the order of the layers.

    Raises ``BadWeights`` in one line when a file is no such file, when the two do not belong together, or when they
    are not of ``architecture``. Reads the text and four bytes a convolution.
    """
    layers = read_layers(param)
    try:
        size = weights.stat().st_size
        with weights.open("rb") as file:
            found = []
            offset = 0
            for layer, shape in _expected(layers, param.name, architecture):
                half = False
                if len(shape) == 4:
                    half, offset = _in_half(file, offset, weights.name, layer.name), offset + 4
                numbers = Numbers(layer.name, offset, shape, half)
                found.append(numbers)
                offset += numbers.bytes
    except OSError as error:
        raise _bad(weights.name, f"cannot be read: {error.strerror}") from error
    if offset != size:
        raise _bad(weights.name, f"has {size:,} bytes, but its layers take {offset:,}")
    return tuple(found)


def read_layers(param: Path) -> list[Layer]:
    """The layers of a ``.param`` file, in order. Raises ``BadWeights``."""
    try:
        if param.stat().st_size > MAX_PARAM_BYTES:
            raise _bad(param.name, f"has more than {MAX_PARAM_BYTES:,} bytes")
        lines = param.read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise _bad(param.name, f"cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise _bad(param.name, "is not the text that it should be") from None
    if not lines or lines[0].strip() != MAGIC:
        raise _bad(param.name, f"does not begin with {MAGIC}")
    counts = lines[1].split() if len(lines) > 1 else []
    rows = [line.split() for line in lines[2:] if line.strip()]
    if len(counts) != 2 or counts[0] != str(len(rows)):
        told = counts[0][:20] if counts else "nothing"
        raise _bad(param.name, f"has {len(rows)} layers and says {told}")
    return [_layer(row, param.name) for row in rows]


def _layer(row: list[str], name: str) -> Layer:
    """One line: kind, name, counts of inputs and outputs, their names, then the values."""
    try:
        inputs, outputs = int(row[2]), int(row[3])
        if inputs < 0 or outputs < 0:
            raise ValueError
        pairs = [pair.partition("=") for pair in row[4 + inputs + outputs :]]
        # Keys below -23300 hold lists (slopes of an activation, factors of a sum); no size follows from them.
        values = {int(key): float(value) for key, _, value in pairs if int(key) >= 0}
    except (IndexError, ValueError):
        raise _bad(name, f"has a layer that cannot be read: {' '.join(row)[:60]!r}") from None
    return Layer(row[0], row[1], values)


def _expected(layers: list[Layer], name: str, architecture: Architecture) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """(layer, shape of a tensor) for every tensor of the architecture, as the layers say it too."""
    convolutions, slopes = list(architecture.convolutions), architecture.slopes
    for layer in layers:
        if layer.kind == "Convolution":
            if not convolutions:
                raise _bad(name, f"has more convolutions than {architecture.network} of depth {architecture.depth}")
            out, into = convolutions.pop(0)
            _check_convolution(layer, out, into, name)
            yield layer, (out, into, 3, 3)
            yield layer, (out,)
        elif layer.kind == "PReLU":
            slopes -= 1
            if slopes < 0 or layer.values.get(_OUTPUTS) != FEATURES:
                raise _bad(name, f"has an activation, {layer.name}, that {architecture.network} has not")
            yield layer, (FEATURES,)
        elif layer.kind not in _WITHOUT_NUMBERS:
            raise _bad(name, f"has a layer {layer.kind!r}, which no Real-ESRGAN has")
    if convolutions or slopes:
        raise _bad(name, f"ends {len(convolutions)} convolutions and {slopes} activations too early")


def _check_convolution(layer: Layer, out: int, into: int, name: str) -> None:
    wanted = {_OUTPUTS: out, _KERNEL: 3, _DILATION: 1, _STRIDE: 1, _PADDING: 1, _BIAS: 1, _WEIGHTS: 9 * out * into}
    usual = {_DILATION: 1, _STRIDE: 1, _INT8: 0}
    for key, value in {**wanted, _INT8: 0}.items():
        found = layer.values.get(key, usual.get(key))
        if found != value:
            raise _bad(name, f"has {found} where {layer.name} should have {value} (value {key})")


def _in_half(file: BinaryIO, offset: int, name: str, layer: str) -> bool:
    """What the four bytes before a convolution's weights say. ncnn's 8-bit forms are no Real-ESRGAN."""
    file.seek(offset)
    head = file.read(4)
    if len(head) < 4:
        raise _bad(name, f"ends before {layer}")
    tag = int.from_bytes(head, "little")
    if tag not in (HALF_TAG, SINGLE_TAG, PLAIN_TAG):
        raise _bad(name, f"has the storage {tag:#010x} at {layer}; known are 16 and 32 bits")
    return tag == HALF_TAG


def read_tensors(weights: Path, numbers: tuple[Numbers, ...]) -> list[torch.Tensor]:
    """The tensors that ``scan`` found, float32 on the processor. Raises ``BadWeights`` for numbers that are none."""
    import torch

    content = bytearray(weights.read_bytes())
    found = []
    for one in numbers:
        kind = torch.float16 if one.half else torch.float32
        flat = torch.frombuffer(content, dtype=kind, count=one.count, offset=one.offset)
        tensor = flat.reshape(one.shape).to(torch.float32, copy=True)
        if not bool(tensor.isfinite().all()):
            raise _bad(weights.name, f"has numbers at {one.layer} that are none")
        found.append(tensor)
    return found


def _bad(name: str, what: str) -> BadWeights:
    return BadWeights(f"{name} {what}.", "Fetch the model again: studio models verify, then studio models pull.")
