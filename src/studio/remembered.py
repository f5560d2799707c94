"""What text encoders made of the last prompts: the same words with another seed need no text encoder. Imports torch.

A text encoder may be the largest network of a model. Where it does not fit beside the others it is brought to the card,
or read from the disk, for every request; what it makes of a prompt is a few megabytes, and the same while the model
carries the same adapters.
"""

from __future__ import annotations

import inspect
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from studio.units import MIB

LIMIT_BYTES = 32 * MIB
"""A prompt is 4 MiB for T5 with 512 tokens, 7.5 for klein's Qwen3; what was not asked for longest goes first."""

_PLAIN = (str, int, float, bool, type(None), torch.device, torch.dtype)


class Remembered:
    """Nested tuples, lists and dicts of tensors by what they were made of, up to ``limit_bytes`` of them in memory."""

    def __init__(self, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit = limit_bytes
        self._kept: OrderedDict[Hashable, tuple[int, Any]] = OrderedDict()

    def get(self, key: Hashable, device: torch.device) -> Any | None:
        """What was kept, on ``device``; ``None`` if nothing is. It is the caller's own: what is kept stays as it is."""
        if key not in self._kept:
            return None
        self._kept.move_to_end(key)
        return _copied(self._kept[key][1], device)

    def keep(self, key: Hashable, made: Any) -> None:
        """Keep a copy, if it is of nothing but tensors and plain values, and is not too large."""
        size = _bytes(made)
        if size is not None and size <= self._limit:
            self._kept[key] = size, _copied(made, torch.device("cpu"))
            while sum(size for size, _ in self._kept.values()) > self._limit:
                self._kept.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()

    @contextmanager
    def over(
        self, pipeline: Any, carried: Hashable, device: torch.device, told: Callable[[bool], None]
    ) -> Iterator[None]:
        """Within this context ``pipeline.encode_prompt`` is asked once for each prompt. ``carried``: what else its
        answer depends on, such as adapters. ``told``: called after each answer, with whether it was known. A pipeline
        that has no such method encodes as it will."""
        encode = getattr(pipeline, "encode_prompt", None)
        if encode is None:
            yield
            return
        signature = inspect.signature(encode)

        def known(*args: Any, **kwargs: Any) -> Any:
            asked = _plain(signature.bind(*args, **kwargs).arguments)
            key = (type(pipeline).__name__, carried, asked)
            found = None if asked is None else self.get(key, device)
            was_known = found is not None
            if not was_known:
                found = encode(*args, **kwargs)
                if asked is not None:
                    self.keep(key, found)
            told(was_known)
            return found

        pipeline.encode_prompt = known
        try:
            yield
        finally:
            del pipeline.encode_prompt


def _plain(value: Any) -> Hashable | None:
    """Arguments as something to compare, with their types; ``None`` if there is a picture or a tensor among them."""
    if isinstance(value, _PLAIN):
        return type(value).__name__, value
    if isinstance(value, dict):
        items = [(name, _plain(one)) for name, one in sorted(value.items())]
        return None if any(one is None for _, one in items) else ("dict", *items)
    if isinstance(value, list | tuple):
        parts = [_plain(one) for one in value]
        return None if any(one is None for one in parts) else ("list", *parts)
    return None


def _copied(value: Any, device: torch.device) -> Any:
    if isinstance(value, torch.Tensor):
        return value.detach().to(device, copy=True)
    if isinstance(value, list | tuple):
        return type(value)(_copied(one, device) for one in value)
    if isinstance(value, dict):
        return {name: _copied(one, device) for name, one in value.items()}
    return value


def _bytes(value: Any) -> int | None:
    """The bytes of all tensors; ``None`` where there is something else that may be changed behind our back."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        value = list(value.values())
    if type(value) in (list, tuple):
        sizes = [_bytes(one) for one in value]
        return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)
    return 0 if isinstance(value, _PLAIN) else None
