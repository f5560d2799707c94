"""What a catalogue entry says of a text model under ``settings``, and the shape that follows from it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from studio.plugin import BadRequest, ModelSpec

from .sizing import Shape, guessed_shape
from .thinking import FORMATS

DEFAULT_CONTEXT = 8_192
"""Of a model whose file is not here yet and whose catalogue entry does not say."""


class ThinkingSystem(BaseModel):
    """What some models (Nemotron) want to be told in the system turn to think or not."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    on: str
    off: str


class Settings(BaseModel):
    """The architecture as the model's public ``config.json`` has it: a plan can be made before the download.

    ``sliding_pattern`` n: every n-th layer sees the whole context, the others ``sliding_window`` tokens; where the
    former have other heads, ``global_kv_heads`` and ``global_head_dim`` say so.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    thinking: str = "auto"
    thinking_system: ThinkingSystem | None = None
    context: int = Field(default=DEFAULT_CONTEXT, ge=1)
    layers: int | None = Field(default=None, ge=1)
    kv_heads: int = Field(default=8, ge=1)
    head_dim: int = Field(default=128, ge=1)
    embedding: int = Field(default=4096, ge=1)
    vocab: int = Field(default=128_256, ge=1)
    sliding_window: int = Field(default=0, ge=0)
    sliding_pattern: int = Field(default=1, ge=1)
    global_kv_heads: int | None = Field(default=None, ge=1)
    global_head_dim: int | None = Field(default=None, ge=1)


def settings_of(spec: ModelSpec) -> Settings:
    """The checked settings of an entry. ``BadRequest`` names the entry and the key."""
    settings = spec.checked_settings(Settings)
    if settings.thinking not in ("auto", "none", *FORMATS):
        known = ", ".join(("auto", "none", *FORMATS))
        raise BadRequest(
            f"The catalogue entry {spec.id} has the thinking format {settings.thinking!r}.", f"Known: {known}."
        )
    return settings


def file_bytes(spec: ModelSpec, role: Literal["model", "mmproj"]) -> int:
    """The size of a file that is not here: as listed, as its network's, else five bits a parameter."""
    file = spec.source.files.get(role) if spec.source else None
    component = spec.components.get(role)
    usual = max(component.bytes.values(), default=component.params * 5 // 8) if component else 0
    return (file.bytes if file else None) or usual


def catalogued_shape(spec: ModelSpec) -> Shape:
    """The shape of a model before its download."""
    settings = settings_of(spec)
    weights, vision = file_bytes(spec, "model"), file_bytes(spec, "mmproj")
    if settings.layers is None:
        return guessed_shape(weights, settings.context, vision)
    component = spec.components.get("model")
    table = settings.vocab * settings.embedding  # token embeddings; the output matrix is as large
    ends = min(weights // 4, weights * table // component.params if component else weights // 10)
    layers = range(1, settings.layers + 1)
    windowed = tuple(settings.sliding_window > 0 and layer % settings.sliding_pattern != 0 for layer in layers)
    local = 2 * settings.kv_heads * settings.head_dim
    whole = 2 * (settings.global_kv_heads or settings.kv_heads) * (settings.global_head_dim or settings.head_dim)
    return Shape(
        layer_bytes=((weights - 2 * ends) // settings.layers,) * settings.layers,
        input_bytes=ends,
        output_bytes=ends,
        kv_values=tuple(local if short else whole for short in windowed),
        window=settings.sliding_window,
        windowed=windowed,
        fixed_state_bytes=0,
        trained_context=settings.context,
        width=settings.embedding,
        vocabulary=settings.vocab,
        vision_bytes=vision,
    )
