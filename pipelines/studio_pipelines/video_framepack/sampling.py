"""The loop over the sections of a film: our own, over diffusers' transformer, autoencoder and schedulers.

``HunyuanVideoFramepackPipeline`` keeps all latents and all pixels until the end. Here a section needs what ``State``
holds and nothing else: the given picture's latent, the last 19 latents, the 33 frames that still wait to be blended,
and its own number. So memory is the same however long a film is, and a film goes on after any section.

Sources: ``pipeline_hunyuan_video_framepack.py`` of diffusers 0.42.1, with which the tests compare latents and frames,
and lllyasviel/FramePack at 97fe5dbe06ac1f337ece08935b1076a35eefeeb9.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .assemble import Assembled
from .encoding import Conditions, Words, encode, latent, stream
from .request import FilmRequest
from .sections import HISTORY, KEPT, Schedule
from .stepcache import StepCache

Frames = NDArray[np.uint8]

_LONGEST_SHIFT = math.log(7.0)
"""The reference shifts its steps towards noise by exp(mu), and by 7 at most, which films of its sizes reach."""


@dataclass(frozen=True)
class State:
    """What the section ``section`` needs of those before it; all tensors lie on the processor.

    ``start``: the first frame's latent (1, channels, 1, height, width), fp32. ``history``: (1, channels, 19, ...), the
    nearest last (forward) or first (inverted). ``frames``: the pixels that wait, (1, rgb, 33, height, width) from -1 to
    1, absent before the first section and after the last. ``last``: the last frame's latent, before the first section
    only.
    """

    section: int
    tensors: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Section:
    """A section that was made. ``settled`` are the film's frames ``Schedule.settled`` (none for an inverted film's
    first section) and ``waiting`` those that the next section still blends: (frames, height, width, rgb) in 8 bits.
    ``latents`` are its own, (1, channels, window, height, width). ``skipped``: the steps that the cache passed over."""

    number: int
    settled: Frames
    waiting: Frames
    latents: torch.Tensor
    state: State
    skipped: tuple[int, ...] = ()


@dataclass
class Loop:
    """One request over a loaded model. ``check`` is called before each step and may raise to stop; ``step`` after each
    one with the section, the steps done and their number; ``keep`` with a section's latents before they are decoded."""

    model: Assembled
    request: FilmRequest
    check: Callable[[], None] = lambda: None
    step: Callable[[int, int, int], None] = lambda section, done, total: None
    keep: Callable[[int, torch.Tensor], None] = lambda section, latents: None
    _conditions: Conditions | None = field(default=None, init=False)

    def encode(self) -> Conditions:
        """What the prompts and the first frame say; computed once."""
        if self._conditions is None:
            self._conditions = encode(self.model, self.request)
        return self._conditions

    def begin(self, start: torch.Tensor | None = None) -> State:
        """The state of a film of which nothing is made. ``start``: the first frame's latent as it was, to begin as an
        earlier film did; it depends on the seed."""
        self.encode()
        start = latent(self.model, self.request, "image").cpu() if start is None else start
        empty = start.new_zeros(*start.shape[:2], KEPT, *start.shape[3:])
        tensors = {"start": start, "history": empty}
        if self._schedule.sampling == "forward":
            tensors["history"] = torch.cat([empty, start], dim=2)[:, :, -KEPT:].contiguous()
        if self.request.last_image is not None:
            tensors["last"] = latent(self.model, self.request, "last_image").cpu()
        return State(0, tensors)

    def resume(self, section: int, latents: Sequence[torch.Tensor], start: torch.Tensor | None = None) -> State:
        """The state before ``section``, from the latents of the sections made before it, in that order: of all, or of
        the last three. Decodes only the frames that wait. ``start`` as in ``begin``."""
        state = self.begin(start)
        for number, own in enumerate(latents, section - len(latents)):
            history = self._joined(replace(state, section=number), own.to(self.model.device))
            tensors = {"start": state.tensors["start"], "history": self._nearest(history, KEPT).cpu().clone()}
            if number == section - 1 and not self._schedule.is_last(number):
                frames = self._decoded(number, history)
                overlap, forward = self._schedule.overlap, self._schedule.sampling == "forward"
                tensors["frames"] = (frames[:, :, -overlap:] if forward else frames[:, :, :overlap]).clone()
            state = State(number + 1, tensors)
        return state

    def section(self, state: State, *, seed: int | None = None, latents: torch.Tensor | None = None) -> Section:
        """Make the section ``state.section``: denoise it, unless its ``latents`` are given, and decode.

        ``seed``: of this section alone, the film's own otherwise. ``latents``: as ``keep`` got them.
        """
        number = state.section
        skipped: tuple[int, ...] = ()
        if latents is None:
            latents, skipped = self._denoised(state, self.request.seed if seed is None else seed)
            self.keep(number, latents)
        latents = latents.to(self.model.device)
        history = self._joined(state, latents)
        settled, waiting = self._blended(state, self._decoded(number, history))
        # Copies: a view would keep all that it was cut from.
        tensors = {"start": state.tensors["start"], "history": self._nearest(history, KEPT).cpu().clone()}
        if not self._schedule.is_last(number):
            tensors["frames"] = waiting.clone()
        made = State(number + 1, tensors)
        return Section(number, _eight_bits(settled), _eight_bits(waiting), latents.cpu(), made, skipped)

    @property
    def _schedule(self) -> Schedule:
        return self.request.schedule

    # -- denoising -----------------------------------------------------------------------------------------------

    def _denoised(self, state: State, seed: int) -> tuple[torch.Tensor, tuple[int, ...]]:
        """The latents of a section, (1, channels, window, height, width) in fp32, and the steps passed over."""
        request, device = self.request, self.model.device
        conditions, number = self.encode(), state.section
        words = conditions.words[request.prompts[self._schedule.place(number)]]
        sees = self._sees(state, conditions)
        start = state.tensors["start"]
        shape = (1, start.shape[1], self._schedule.window, *start.shape[3:])
        latents = torch.randn(shape, generator=stream(seed, number)).to(device)
        scheduler = self._scheduler(latents)
        caches: list[StepCache | None] = [self._cache() for _ in range(request.caches)]
        caches = caches or [None]
        total = len(scheduler.timesteps)
        self.step(number, 0, total)
        for done, time in enumerate(scheduler.timesteps, 1):
            self.check()
            guess = self._call(latents, time, words, sees, caches[0])
            if conditions.negative is not None:
                other = self._call(latents, time, conditions.negative, sees, caches[-1])
                guess = other + request.true_cfg_scale * (guess - other)
            latents = scheduler.step(guess.float(), time, latents, return_dict=False)[0]
            self.step(number, done, total)
        return latents, tuple(caches[0].skipped) if caches[0] else ()

    def _call(
        self, latents: torch.Tensor, time: torch.Tensor, words: Words, sees: Mapping[str, Any], cache: StepCache | None
    ) -> torch.Tensor:
        transformer = self.model.transformer
        with torch.no_grad(), transformer.calling(cache, masked=not bool(words.mask.all())):
            found: torch.Tensor = transformer(
                hidden_states=latents.to(transformer.dtype),
                timestep=time.expand(latents.shape[0]),
                encoder_hidden_states=words.embeds,
                encoder_attention_mask=words.mask,
                pooled_projections=words.pooled,
                return_dict=False,
                **sees,
            )[0]
        return found

    def _sees(self, state: State, conditions: Conditions) -> dict[str, Any]:
        """What the transformer is shown beside the latents: the given picture, the history, and where in time they are.

        A last frame stands in for the nearest latent of the first section, which is the end of an inverted film.
        """
        dtype, device = self.model.transformer.dtype, self.model.device
        places = self._schedule.indices(state.section)
        start, history = state.tensors["start"], state.tensors["history"]
        if self._schedule.sampling == "forward":
            four, two, one = torch.split(history, list(HISTORY[::-1]), dim=2)
        else:
            one, two, four = torch.split(history, list(HISTORY), dim=2)
        one = state.tensors.get("last", one)
        guidance = torch.tensor([self.request.guidance_scale], dtype=dtype, device=device) * 1000.0
        return {
            "image_embeds": conditions.picture,
            "guidance": guidance,
            "indices_latents": torch.tensor(places.latents),
            "latents_clean": torch.cat([start, one], dim=2).to(device, dtype),
            "indices_latents_clean": torch.tensor(places.clean),
            "latents_history_2x": two.to(device, dtype),
            "indices_latents_history_2x": torch.tensor(places.history_2x),
            "latents_history_4x": four.to(device, dtype),
            "indices_latents_history_4x": torch.tensor(places.history_4x),
        }

    def _cache(self) -> StepCache:
        """A new cache for a section: nothing is carried from one to the next."""
        settings = self.model.settings
        thresholds: Mapping[str, float] = dict(settings.step_cache.items())
        return StepCache(self.request.steps, thresholds[self.request.step_cache], settings.cache_rescale)

    def _scheduler(self, latents: torch.Tensor) -> Any:
        """A new scheduler, set to the request's steps: the model's own, or UniPC over the same noise levels."""
        from diffusers import UniPCMultistepScheduler

        own = self.model.scheduler
        sigmas = np.linspace(1.0, 0.0, self.request.steps + 1)[:-1]
        mu = _shift(latents, self.model.transformer.config.patch_size, own.config)
        unipc = {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": math.exp(mu)}
        if (self.request.sampler or self.model.settings.sampler) == "euler":
            scheduler: Any = type(own).from_config(own.config)
            scheduler.set_timesteps(device=self.model.device, sigmas=sigmas, mu=mu)
        else:
            scheduler = UniPCMultistepScheduler(**unipc)
            scheduler.set_timesteps(self.request.steps, device=self.model.device, sigmas=sigmas)
        return scheduler

    # -- decoding ------------------------------------------------------------------------------------------------

    def _joined(self, state: State, latents: torch.Tensor) -> torch.Tensor:
        """The history with a section's latents, in the order of the film; with the first frame's where they meet."""
        before = state.tensors["history"].to(latents)
        if self._schedule.sampling == "forward":
            return torch.cat([before, latents], dim=2)
        if self._schedule.is_last(state.section):
            latents = torch.cat([state.tensors["start"].to(latents), latents], dim=2)
        return torch.cat([latents, before], dim=2)

    def _nearest(self, history: torch.Tensor, count: int) -> torch.Tensor:
        """The ``count`` latents that are nearest to what is made next."""
        return history[:, :, -count:] if self._schedule.sampling == "forward" else history[:, :, :count]

    def _decoded(self, number: int, history: torch.Tensor) -> torch.Tensor:
        """The frames of a section and of the one beside it: (1, rgb, frames, height, width), -1 to 1, on the
        processor."""
        self.check()
        vae = self.model.vae
        latents = self._nearest(history, self._schedule.decoded(number)).to(vae.dtype) / vae.config.scaling_factor
        with torch.no_grad():
            found: torch.Tensor = vae.decode(latents, return_dict=False)[0]
        return found.cpu()

    def _blended(self, state: State, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The frames that are settled and those that wait; where both have seen the same frames, one fades into the
        other."""
        schedule, number = self._schedule, state.section
        overlap, forward = schedule.overlap, schedule.sampling == "forward"
        waited = state.tensors.get("frames")
        if waited is not None:
            weights = torch.linspace(1, 0, overlap, dtype=frames.dtype).view(1, 1, -1, 1, 1)
            if forward:
                both = weights * waited + (1 - weights) * frames[:, :, :overlap]
                frames = torch.cat([both, frames[:, :, overlap:]], dim=2)
            else:
                both = weights * frames[:, :, -overlap:] + (1 - weights) * waited
                frames = torch.cat([frames[:, :, :-overlap], both], dim=2)
        if schedule.is_last(number):
            return frames, frames[:, :, :0]
        if forward:
            return frames[:, :, :-overlap], frames[:, :, -overlap:]
        return frames[:, :, overlap:], frames[:, :, :overlap]


def _shift(latents: torch.Tensor, patch: int, config: Mapping[str, Any]) -> float:
    """How far steps are moved towards noise, as a logarithm, by the number of tokens: Flux's line, with an end.

    The line is given by two points, (256, 0.5) and (4096, 1.15) unless the scheduler's configuration has others.
    """
    tokens = latents.shape[2] * latents.shape[3] * latents.shape[4] / patch**2
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return min(float(tokens * slope + low - slope * few), _LONGEST_SHIFT)


def _eight_bits(frames: torch.Tensor) -> Frames:
    """(1, rgb, frames, height, width) from -1 to 1 as (frames, height, width, rgb), rounded as diffusers does.

    One frame after the other, since all of them in fp32 would be the most that a section holds.
    """
    _, rgb, count, height, width = frames.shape
    made = np.empty((count, height, width, rgb), np.uint8)
    for number in range(count):
        seen = (frames[0, :, number].permute(1, 2, 0) * 0.5 + 0.5).clamp(0, 1).float().numpy()
        made[number] = (seen * 255).round()
    return made
