"""Writing a weight matrix as fp8, int8 or 4-bit NormalFloat into flat bytes, and reading it back on the device.

Own code because the bytes must lie in one contiguous slab per block: torchao 0.18's int8 tensor keeps its parts in
separate tensors and its nf4 tensor is gone, bitsandbytes' nf4 wants a GPU. The table and the double quantisation are
QLoRA's (https://arxiv.org/abs/2305.14314, appendix E and section 3; the same table as in bitsandbytes,
``functional.py``, ``get_4bit_type("nf4")``). Layouts and sizes: ``storage.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from studio.memory.storage import (
    HALVES,
    NF4_BLOCK,
    NF4_CHUNK,
    NF4_GROUP,
    Storage,
    nf4_blocks,
    nf4_packed_bytes,
    scales_at,
)

NF4_VALUES = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453,
    -0.28444138169288635, -0.18477343022823334, -0.09105003625154495, 0.0,
    0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_FP8_MAX = 448.0
_INT8_MAX = 127.0
ENCODED_AT_ONCE = 4 * 1024 * 1024
"""Weights; a multiple of ``NF4_BLOCK``."""


def encode(weight: Tensor, storage: Storage, out: Tensor) -> None:
    """Write ``weight`` (any float type, any shape) as ``storage`` into ``out``, uint8 of exactly ``stored_bytes``.

    A portion at a time: the steps between take sixteen bytes a weight.
    """
    if storage in HALVES:
        out.view(getattr(torch, HALVES[storage])).copy_(weight.reshape(-1))
    elif storage in ("fp8", "int8"):
        _encode_rows(weight.reshape(weight.shape[0], -1), storage, out)
    elif storage in ("nf4", "nf4-dq"):
        _encode_nf4(weight.reshape(-1), storage, out)
    else:
        raise ValueError(f"{storage} is not a quantised storage")


def _finite(part: Tensor) -> Tensor:
    """The same in 32 bits."""
    if not torch.isfinite(part).all():
        raise ValueError("a weight that is not a finite number cannot be quantised")
    return part.float()


def _encode_rows(rows: Tensor, storage: Storage, out: Tensor) -> None:
    """``rows`` (outputs, inputs) -> codes, then one fp32 scale per row."""
    limit = _FP8_MAX if storage == "fp8" else _INT8_MAX
    begin, width = scales_at(rows.numel()), rows.shape[1]
    codes, scales = out[: rows.numel()], out[begin:].view(torch.float32)
    step = max(1, ENCODED_AT_ONCE // max(1, width))
    for first in range(0, rows.shape[0], step):
        part = _finite(rows[first : first + step])
        scale = part.abs().amax(dim=1, keepdim=True) / limit
        scale.masked_fill_(scale < torch.finfo(torch.float32).tiny, 1.0)
        scales[first : first + step].copy_(scale.flatten())
        part = (part / scale).clamp_(-limit, limit).flatten()
        place = codes[first * width : first * width + part.numel()]
        if storage == "fp8":
            place.view(torch.float8_e4m3fn).copy_(part)
        else:
            place.view(torch.int8).copy_(part.round_())


def _encode_nf4(flat: Tensor, storage: Storage, out: Tensor) -> None:
    """``flat`` (weights,) -> 4-bit indices, the earlier weight in the high half, then the block maxima."""
    count = nf4_blocks(flat.numel())
    step = ENCODED_AT_ONCE // NF4_BLOCK

    def blocks(first: int) -> Tensor:
        part = _finite(flat[first * NF4_BLOCK : (first + step) * NF4_BLOCK])
        return torch.nn.functional.pad(part, (0, -part.numel() % NF4_BLOCK)).view(-1, NF4_BLOCK)

    maxima = torch.cat([blocks(first).abs().amax(dim=1) for first in range(0, count, step)])
    begin = scales_at(nf4_packed_bytes(flat.numel()))
    if storage == "nf4":
        out[begin:].view(torch.float32).copy_(maxima)
    else:
        maxima = _encode_maxima(maxima, out[begin:])
    values = torch.tensor(NF4_VALUES)
    borders = (values[1:] + values[:-1]) / 2
    divisor = maxima.masked_fill(maxima < torch.finfo(torch.float32).tiny, 1.0)
    for first in range(0, count, step):
        part = blocks(first) / divisor[first : first + step, None]
        codes = torch.bucketize(part, borders, out_int32=True).to(torch.uint8).view(-1, 2)
        place = out[first * NF4_BLOCK // 2 :][: codes.shape[0]]
        place.copy_((codes[:, 0] << 4) | codes[:, 1])


def _encode_maxima(maxima: Tensor, out: Tensor) -> Tensor:
    """The block maxima (blocks,) in 8 bits around their mean; returns them as they will be read back."""
    count, groups = maxima.numel(), -(-maxima.numel() // NF4_GROUP)
    mean = maxima.mean()
    grouped = torch.nn.functional.pad(maxima - mean, (0, groups * NF4_GROUP - count)).view(groups, NF4_GROUP)
    scale = grouped.abs().amax(dim=1) / _INT8_MAX
    scale.masked_fill_(scale < torch.finfo(torch.float32).tiny, 1.0)
    out[:count].view(torch.int8).copy_((grouped / scale[:, None]).round_().flatten()[:count])
    numbers = out[scales_at(count) :].view(torch.float32)
    numbers[:groups].copy_(scale)
    numbers[groups].copy_(mean)
    return _decode_maxima(out, count)


def _decode_maxima(stored: Tensor, count: int) -> Tensor:
    """The block maxima (blocks,) fp32 from their 8 bits."""
    groups = -(-count // NF4_GROUP)
    numbers = stored[scales_at(count) :].view(torch.float32)
    scale = numbers[:groups].repeat_interleave(NF4_GROUP)[:count]
    return (stored[:count].view(torch.int8) * scale).add_(numbers[groups]).clamp_(min=0)


class Decoder:
    """Reads stored matrices back on one device. Holds the table of 4-bit pairs there (2 KiB)."""

    def __init__(self, device: torch.device) -> None:
        values = torch.tensor(NF4_VALUES)
        pairs = torch.stack((values.repeat_interleave(16), values.repeat(16)), dim=1)  # (256, 2): high half, low half
        self._pairs = pairs.to(device)

    def decode(self, stored: Tensor, storage: Storage, out: Tensor) -> None:
        """``stored`` (uint8) -> ``out`` (contiguous, its shape and compute type), without a copy of the matrix."""
        if storage in HALVES:
            out.view(-1).copy_(stored.view(getattr(torch, HALVES[storage])))
        elif storage in ("fp8", "int8"):
            codes = stored[: out.numel()].view(torch.float8_e4m3fn if storage == "fp8" else torch.int8)
            rows = out.view(out.shape[0], -1)
            rows.copy_(codes.view(rows.shape))  # exact: 8 bits fit every compute type
            rows.mul_(stored[scales_at(out.numel()) :].view(torch.float32)[:, None])
        elif storage in ("nf4", "nf4-dq"):
            self._decode_nf4(stored, storage, out.view(-1))
        else:
            raise ValueError(f"{storage} is not a quantised storage")

    def _decode_nf4(self, stored: Tensor, storage: Storage, out: Tensor) -> None:
        count, packed = nf4_blocks(out.numel()), nf4_packed_bytes(out.numel())
        tail = stored[scales_at(packed) :]
        maxima = tail.view(torch.float32) if storage == "nf4" else _decode_maxima(tail, count)
        per_chunk = NF4_CHUNK * 2 // NF4_BLOCK
        for first in range(0, count, per_chunk):
            some = maxima[first : first + per_chunk, None]
            codes = stored[first * NF4_BLOCK // 2 :][: some.shape[0] * NF4_BLOCK // 2]
            values = self._pairs.index_select(0, codes.int()).view(-1, NF4_BLOCK).mul_(some)
            place = out[first * NF4_BLOCK : (first + per_chunk) * NF4_BLOCK]
            place.copy_(values.view(-1)[: place.numel()])
            del values  # or it would be held while the next chunk is looked up
