"""Words and pictures to what the transformer reads, by diffusers' own pipeline methods; each is encoded once a film."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch

from .assemble import Assembled
from .request import FilmRequest, fitted


@dataclass(frozen=True)
class Words:
    """One prompt: ``embeds`` (1, tokens, width), ``mask`` (1, tokens), ``pooled`` (1, width), all of the transformer's
    type and on its device."""

    embeds: torch.Tensor
    mask: torch.Tensor
    pooled: torch.Tensor


@dataclass(frozen=True)
class Conditions:
    """All that a film is told: ``words`` by prompt, the negative prompt where there is guidance by one, and what the
    image encoder says of the first frame, ``picture`` (1, patches, width)."""

    words: dict[str, Words]
    negative: Words | None
    picture: torch.Tensor
    remembered: bool
    """Whether an earlier film had some of these words."""


def encode(model: Assembled, request: FilmRequest) -> Conditions:
    """Encode each distinct prompt, unless an earlier film had it, and the first frame. One encoder after the other, so
    that each may leave."""
    dtype = model.transformer.dtype
    asked = list(dict.fromkeys([*request.prompts, *([request.negative_prompt] if request.guided else [])]))
    kept = {prompt: model.remembered.get((prompt, model.crops_words), model.device) for prompt in asked}
    said = {prompt: Words(*found) for prompt, found in kept.items() if found is not None}
    remembered = bool(said)
    for prompt, words in _words(model, [prompt for prompt in asked if prompt not in said], dtype).items():
        said[prompt] = words
        model.remembered.keep((prompt, model.crops_words), (words.embeds, words.mask, words.pooled))
    picture = _picture(model, request).to(dtype)
    return Conditions(
        {prompt: said[prompt] for prompt in request.prompts},
        said[request.negative_prompt] if request.guided else None,
        picture,
        remembered,
    )


def _words(model: Assembled, prompts: Iterable[str], dtype: torch.dtype) -> dict[str, Words]:
    """``encode_prompt`` once for the language model and once for CLIP: what is handed to it is not encoded anew."""
    settings, device = model.settings, model.device
    options: dict[str, Any] = {"device": device, "max_sequence_length": settings.max_sequence_length}
    if settings.prompt_template is not None:
        options["prompt_template"] = settings.prompt_template.model_dump()
    none = torch.zeros(1, 1, device=device)
    read: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
    with torch.no_grad():
        pipe = model.pipeline("text_encoder", "tokenizer")
        for prompt in prompts:
            embeds, _, mask = pipe.encode_prompt(prompt, pooled_prompt_embeds=none, **options)
            if model.crops_words:
                embeds, mask = _cropped(embeds, mask)
            read[prompt] = embeds.to(dtype), mask.to(dtype)
        pipe = model.pipeline("text_encoder_2", "tokenizer_2")
        said = {}
        for prompt, (embeds, mask) in read.items():
            _, pooled, _ = pipe.encode_prompt(prompt, prompt_embeds=none, prompt_attention_mask=none, **options)
            said[prompt] = Words(embeds, mask, pooled.to(dtype))
    return said


def _cropped(embeds: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Without the padding behind a prompt; as it is where the padding lies elsewhere."""
    length = int(mask.sum())
    return (embeds[:, :length], mask[:, :length]) if bool(mask[:, :length].all()) and length else (embeds, mask)


def _picture(model: Assembled, request: FilmRequest) -> torch.Tensor:
    """What the image encoder says of the first frame."""
    pipe = model.pipeline("image_encoder", "feature_extractor")
    with torch.no_grad():
        found: torch.Tensor = pipe.encode_image(pixels(model, request, "image"), device=model.device)
    return found


def pixels(model: Assembled, request: FilmRequest, which: str) -> torch.Tensor:
    """The first or the last frame as (1, rgb, height, width), -1 to 1, on the device."""
    from diffusers.video_processor import VideoProcessor

    image = getattr(request, which)
    if image is None:
        raise ValueError(f"the request has no {which}")
    processor = VideoProcessor(vae_scale_factor=model.vae.config.spatial_compression_ratio)
    fitting = fitted(image, request.width, request.height)
    found: torch.Tensor = processor.preprocess(fitting, request.height, request.width)
    return found.to(model.device)


def latent(model: Assembled, request: FilmRequest, which: str) -> torch.Tensor:
    """The first or the last frame as a latent: (1, channels, 1, height, width) in fp32, on the device.

    The autoencoder gives a distribution; what is drawn from it depends on the seed alone.
    """
    vae = model.vae
    frame = pixels(model, request, which).unsqueeze(2).to(vae.dtype)
    with torch.no_grad():
        drawn: torch.Tensor = vae.encode(frame).latent_dist.sample(generator=stream(request.seed, which))
    drawn = drawn * vae.config.scaling_factor
    return drawn.float()


def stream(seed: int, part: int | str) -> torch.Generator:
    """The random numbers of one section (or picture): they follow from the seed and its number alone, on any device."""
    digest = hashlib.sha256(f"framepack {seed} {part}".encode()).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest[:8], "little") >> 1)
