"""A request over one of diffusers' pipelines: progress, previews, and latents that are not lost. Imports torch.

The latents are written to the job's folder before they are decoded: an attempt that follows a crash only decodes.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from PIL import Image

from studio.events import Event, Note, Preview, Progress
from studio.latent_preview import Previewer
from studio.pipeline import Context

LATENTS = "latents.safetensors"

R = TypeVar("R")


@dataclass
class DiffusersRun(ABC, Generic[R]):
    """One request at work: ``result()`` does it. ``notes``: what had to be changed for want of memory, and what else is
    said; ``usual``: those of them that change nothing of the plan.

    ``model`` is a ``Loaded`` with a ``pipeline(task)``; ``params`` say ``preview_every``; ``request`` says
    ``task``, ``steps``, ``width`` and ``height``.
    """

    model: Any
    params: Any
    request: Any
    ctx: Context
    emit: Callable[[Event], None]
    previewer: Previewer
    started: float = field(default_factory=time.perf_counter, kw_only=True)
    notes: list[str] = field(default_factory=list, kw_only=True)
    usual: set[str] = field(default_factory=set, kw_only=True)
    words_known: bool = field(default=False, kw_only=True)
    """Whether embeddings were given to the pipeline that an earlier request had made."""
    last: torch.Tensor | None = field(default=None, kw_only=True)
    """The latents after the last step that was done."""

    @abstractmethod
    def made(self) -> R:
        """Run the pipeline, its decoding within ``decoding_kept``."""

    @abstractmethod
    def decoded(self, held: Mapping[str, torch.Tensor]) -> R:
        """Only the decoding, of ``latents`` (and the ``timestep`` that some decoders read) as they were kept."""

    def carried(self) -> Hashable:
        """What the prompt's encoding depends on besides the prompt: adapters."""
        return ()

    @abstractmethod
    def grid(self, latents: torch.Tensor) -> torch.Tensor | None:
        """Of a batch's latents those to show, (C, h, w), on the processor; ``None``: they cannot be shown."""

    @cached_property
    def pipeline(self) -> Any:
        return self.model.pipeline(self.request.task)

    def result(self) -> R:
        """What the request asks for, made or, after a crash, only decoded."""
        kept = self.ctx.workdir / LATENTS
        if (held := _read(kept)) is not None:
            self.emit(Progress(phase="decode", done=0, total=1))
            found = self.decoded(held)
        else:
            found = self.made()
        self.tell()
        kept.unlink(missing_ok=True)
        self.emit(Progress(phase="decode", done=1, total=1))
        return found

    @contextmanager
    def decoding_kept(self) -> Iterator[None]:
        """The pipeline's last call, the decoding, is made safe: latents are written first. Its first one, the encoding
        of the prompt, is asked only for what is not known from an earlier request."""
        vae: Any = self.model.networks["vae"]
        decode = vae.decode

        def safe(latents: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            timestep = next((value for value in args if isinstance(value, torch.Tensor)), None)
            _write(self.ctx.workdir / LATENTS, latents, timestep)
            self.emit(Progress(phase="decode", done=0, total=1))
            self.ctx.check()
            return decode(latents, *args, **kwargs)

        vae.decode = safe
        try:
            self.emit(Progress(phase="encode", done=0, total=1))
            device = self.model.networks.device
            with self.model.remembered.over(self.pipeline, self.carried(), device, self._encoded):
                yield
        finally:
            vae.decode = decode

    def _encoded(self, remembered: bool) -> None:
        self.emit(Progress(phase="encode", done=1, total=1, remembered=remembered or self.words_known))
        self.ctx.check()

    def learn(self, picture: Image.Image) -> None:
        """What the last latents have become, for the next previews."""
        if self.last is not None and (grid := self.grid(self.last)) is not None:
            self.previewer.learn(grid, picture)

    def tell(self) -> None:
        """What the engine had to change, as it happens and for the record of what is made."""
        fresh = self.model.networks.notes[len(self.notes) :]
        self.notes.extend(fresh)
        for sentence in fresh:
            self.emit(Note(text=sentence, usual=sentence in self.usual))

    def on_step(self, pipeline: Any, step: int, timestep: Any, values: dict[str, Any]) -> dict[str, Any]:
        """diffusers' ``callback_on_step_end``: stop if somebody cancelled, say how far it is, now and then show it."""
        self.ctx.check()
        self.tell()
        self.last = values.get("latents")
        done, total = step + 1, int(getattr(pipeline, "num_timesteps", 0) or self.request.steps)
        took = time.perf_counter() - self.started
        self.emit(Progress(phase="denoise", done=done, total=total, eta_s=took / done * (total - done)))
        every = self.params.preview_every
        if every and done % every == 0 and done < total and self.last is not None:
            self._show(self.last, done)
        return {}

    def _show(self, latents: torch.Tensor, done: int) -> None:
        """What is unfinished after ``done`` steps, once the model's factors are known."""
        grid, file = self.grid(latents), self.ctx.workdir / f"preview-{done}.jpg"
        longest = max(self.request.width, self.request.height)
        if grid is not None and (path := self.previewer.save(grid, longest, file)) is not None:
            self.emit(Preview(path=str(path), media_type="image/jpeg"))


def _write(path: Path, latents: torch.Tensor, timestep: torch.Tensor | None) -> None:
    """Whole or not at all: a crash may come at any moment."""
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    held = {"latents": latents, **({"timestep": timestep} if timestep is not None else {})}
    save_file({name: value.detach().to("cpu").contiguous() for name, value in held.items()}, str(part))
    part.replace(path)


def _read(path: Path) -> dict[str, torch.Tensor] | None:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        found = load_file(str(path))
    except (SafetensorError, OSError):
        return None
    return found if "latents" in found else None
