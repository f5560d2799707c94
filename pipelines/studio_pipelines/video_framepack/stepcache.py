"""Steps that change little are not computed: the rest of the transformer is taken from the step before.

The rule is TeaCache's (arXiv 2411.19108): what the first block reads, modulated by the time, tells how much the output
will change. Its relative L1 distance from the step before, put through a polynomial, is added up; below a threshold all
blocks but the first are passed over, and what they added the last time is added again. The first and the last step of
a section are always computed.

diffusers' own caches were looked at and not used: MagCache wants ratios measured for each model and number of steps,
which nobody has published for FramePack, and knows nothing of the input at hand; FirstBlockCache and MagCache hook
every block, so that a step which is passed over would still copy every streamed block to the card. Here the blocks are
not called at all. Unlike the reference, the first block is computed also in steps that are passed over (a sixtieth of
a step): its weights are there then, streamed or not, and the rest is taken from after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoFramepackTransformer3DModel
from torch import nn


@dataclass
class _Seen:
    """What one step leaves to the next: the modulated input of the first block and what the other blocks added, both
    (1, tokens, width), and the change that has added up."""

    read: torch.Tensor | None = None
    added: torch.Tensor | None = None
    change: float = 0.0


@dataclass
class StepCache:
    """The cache of one section and one prompt. ``threshold``: how much change may be passed over."""

    steps: int
    threshold: float
    rescale: tuple[float, ...] = (1.0, 0.0)
    skipped: list[int] = field(default_factory=list)
    _step: int = 0
    _seen: _Seen = field(default_factory=_Seen)

    def decide(self, read: torch.Tensor) -> tuple[bool, float]:
        """Whether this step may be passed over, by what its first block reads; and the change that has added up."""
        before = self._seen.read
        if before is None or self._seen.added is None or self._step == self.steps - 1:
            return False, 0.0
        distance = float((read - before).abs().mean() / before.abs().mean())
        change = self._seen.change + _polynomial(self.rescale, distance)
        return change < self.threshold, change

    def note(self, read: torch.Tensor, added: torch.Tensor, change: float, *, skipped: bool) -> None:
        """A step is over. Called when it has succeeded: one that is repeated for want of memory counts once."""
        if skipped:
            self.skipped.append(self._step)
        self._seen = _Seen(read, added, change if skipped else 0.0)
        self._step += 1

    @property
    def added(self) -> Any:
        """What the blocks after the first added when they last ran: (1, tokens, width)."""
        return self._seen.added


def _polynomial(coefficients: Sequence[float], value: float) -> float:
    total = 0.0
    for coefficient in coefficients:
        total = total * value + coefficient
    return total


class CachingTransformer(HunyuanVideoFramepackTransformer3DModel):
    """FramePack's transformer, which within ``calling`` asks a ``StepCache`` whether to run its blocks."""

    step_cache: StepCache | None = None
    masked = True

    @contextmanager
    def calling(self, cache: StepCache | None, *, masked: bool = True) -> Iterator[None]:
        """Within this context each call is one step of ``cache``; ``None``: all blocks run. ``masked=False``: no token
        is padding, so blocks get no mask, with which torch could not take its quickest attention."""
        self.step_cache, self.masked = cache, masked
        try:
            yield
        finally:
            self.step_cache, self.masked = None, True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """As the parent's, with lists in place of its two lists of blocks for as long as it runs."""
        cache = self.step_cache
        if cache is None and self.masked:
            return super().forward(*args, **kwargs)
        run = _Run(cache, list(self.transformer_blocks), list(self.single_transformer_blocks), self.masked)
        # Plain attributes are found before the registered modules, which stay as they are.
        self.__dict__["transformer_blocks"] = run.double_blocks()
        self.__dict__["single_transformer_blocks"] = run.single_blocks()
        try:
            with run.reading():
                found = super().forward(*args, **kwargs)
        finally:
            del self.__dict__["transformer_blocks"], self.__dict__["single_transformer_blocks"]
        run.over()
        return found


class _Run:
    """One call of the transformer: decides after the first block, and hands blocks a mask or none."""

    def __init__(self, cache: StepCache | None, double: list[nn.Module], single: list[nn.Module], masked: bool) -> None:
        self._cache, self._double, self._single, self._masked = cache, double, single, masked
        self._read: Any = None
        self._first: Any = None
        self._last: Any = None
        self._change, self._skips = 0.0, False

    @contextmanager
    def reading(self) -> Iterator[None]:
        """See what the first block reads: the first output of its ``norm1``."""
        norm: Any = self._double[0].get_submodule("norm1")

        def keep(module: nn.Module, given: Any, made: Any) -> None:
            self._read = made[0].detach()

        handle = norm.register_forward_hook(keep)
        try:
            yield
        finally:
            handle.remove()

    def double_blocks(self) -> list[Any]:
        return [self._opening, *(self._passed(block) for block in self._double[1:])]

    def single_blocks(self) -> list[Any]:
        blocks = [self._passed(block) for block in self._single]
        return [*blocks, self._closing]

    def _opening(self, hidden: torch.Tensor, words: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        hidden, words = self._called(self._double[0], hidden, words, *rest)
        if self._cache is not None:
            self._first = hidden
            self._skips, self._change = self._cache.decide(self._read)
        return hidden, words

    def _passed(self, block: nn.Module) -> Any:
        def call(hidden: torch.Tensor, words: torch.Tensor, *rest: Any) -> Any:
            return (hidden, words) if self._skips else self._called(block, hidden, words, *rest)

        return call

    def _called(self, block: nn.Module, hidden: torch.Tensor, words: torch.Tensor, *rest: Any) -> Any:
        """What diffusers calls a block with: the states, the time, the mask, the places."""
        time, mask, places = rest
        return block(hidden, words, time, mask if self._masked else None, places)

    def _closing(self, hidden: torch.Tensor, words: torch.Tensor, *rest: Any) -> tuple[torch.Tensor, torch.Tensor]:
        if self._cache is not None and self._skips:
            hidden = hidden + self._cache.added
        self._last = hidden
        return hidden, words

    def over(self) -> None:
        """The step succeeded: what the next one needs is kept."""
        if self._cache is None:
            return
        added = self._cache.added if self._skips else self._last - self._first
        self._cache.note(self._read, added, self._change, skipped=self._skips)
