"""What a request to a text model may say. Every face (command line, YAML, page, HTTP) derives from this class.

Field order is the order on the page. A request is checked here, before it is queued; what only the model file can
tell (its trained context, whether it sees) is checked in ``family.TextLLM.plan``.
"""

from __future__ import annotations

import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from studio.plugin import Params, Picture

from .json_schema import check_schema

TEXT_MAX = 1_000_000
TURNS_MAX = 2_000
IMAGES_MAX = 16
TOKENS_MAX = 1_048_576


class Message(BaseModel):
    """One earlier turn of the conversation."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    role: Literal["user", "assistant", "system"] = Field(description="Who said it.")
    content: str = Field(max_length=TEXT_MAX, description="What was said.")
    images: list[Picture] = Field(default=[], max_length=IMAGES_MAX, description="Pictures shown with it.")


def _schema(value: dict[str, Any] | None) -> dict[str, Any] | None:
    if value is not None:
        check_schema(value)
    return value


class TextParams(Params):
    """The parameters of a text model."""

    prompt: str = Field(
        min_length=1,
        max_length=TEXT_MAX,
        description="What to say to the model; with completion, the text to continue.",
        json_schema_extra={"widget": "text"},
    )
    system: str = Field(
        default="",
        max_length=TEXT_MAX,
        description="How the model should behave, said before the conversation.",
        json_schema_extra={"label": "System prompt", "widget": "text"},
    )
    images: list[Picture] = Field(
        default=[],
        max_length=IMAGES_MAX,
        description="Pictures to look at (PNG, JPEG, WebP); only for models that see.",
        json_schema_extra={"widget": "file"},
    )
    thinking: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="Whether a reasoning model thinks before it answers; auto leaves it to the model.",
        json_schema_extra={"group": "answer"},
    )
    max_tokens: int = Field(
        default=1024,
        ge=1,
        le=TOKENS_MAX,
        description="The longest answer, thinking included; the context limits it too.",
        json_schema_extra={"label": "Longest answer", "group": "answer", "unit": "tokens"},
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=200)]] = Field(
        default=[],
        max_length=8,
        description="The answer ends before the first of these texts.",
        json_schema_extra={"label": "Stop sequences", "group": "answer", "advanced": True},
    )
    json_schema: Annotated[dict[str, Any] | None, AfterValidator(_schema)] = Field(
        default=None,
        description="A JSON schema; the answer is then JSON that follows it.",
        json_schema_extra={"label": "JSON schema", "group": "answer", "widget": "json", "advanced": True},
    )
    temperature: float = Field(
        default=0.7,
        ge=0,
        le=5,
        description="How freely words are chosen; 0 always takes the likeliest.",
        json_schema_extra={"group": "sampling", "widget": "slider"},
    )
    top_p: float = Field(
        default=0.95,
        ge=0,
        le=1,
        description="Choose among the likeliest words that together reach this probability; 1 turns it off.",
        json_schema_extra={"label": "Top-p", "group": "sampling", "widget": "slider", "advanced": True},
    )
    top_k: int = Field(
        default=40,
        ge=0,
        le=1000,
        description="Choose among this many likeliest words; 0 turns it off.",
        json_schema_extra={"label": "Top-k", "group": "sampling", "advanced": True},
    )
    min_p: float = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Leave out words less likely than this share of the likeliest; 0 turns it off.",
        json_schema_extra={"label": "Min-p", "group": "sampling", "widget": "slider", "advanced": True},
    )
    repeat_penalty: float = Field(
        default=1.0,
        ge=0.5,
        le=2,
        description="Above 1, words among the last 64 of the answer become less likely; 1 turns it off.",
        json_schema_extra={"label": "Repetition penalty", "group": "sampling", "advanced": True},
    )
    context: int | None = Field(
        default=None,
        ge=256,
        le=TOKENS_MAX,
        description="Tokens that prompt and answer share; left out, what the memory allows, up to 32,768.",
        json_schema_extra={"group": "memory", "unit": "tokens", "advanced": True},
    )
    kv_cache: Literal["auto", "f16", "q8_0", "q4_0"] = Field(
        default="auto",
        description="Precision of the model's working memory; q8_0 takes half of f16, q4_0 a quarter.",
        json_schema_extra={"label": "KV cache", "group": "memory", "advanced": True},
    )
    gpu_layers: int | None = Field(
        default=None,
        ge=0,
        le=1000,
        description="Layers on the graphics card; left out, as many as fit.",
        json_schema_extra={"label": "On the card", "group": "memory", "unit": "layers", "advanced": True},
    )
    threads: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Processor threads; left out, one less than the cores.",
        json_schema_extra={"group": "memory", "advanced": True},
    )
    date: str | None = Field(
        default=None,
        min_length=10,
        max_length=10,
        pattern=r"^\d{4}-\d{2}-\d{2}$",
        description="The day that the model is told, YYYY-MM-DD, if its format tells it; left out, today.",
        json_schema_extra={"group": "conversation", "advanced": True},
    )
    messages: list[Message] = Field(
        default=[],
        max_length=TURNS_MAX,
        description="The conversation so far, oldest first; the prompt is the next turn.",
        json_schema_extra={"group": "conversation", "widget": "json", "advanced": True},
    )
    completion: bool = Field(
        default=False,
        description="Continue the prompt as plain text, without the model's chat format.",
        json_schema_extra={"group": "conversation", "advanced": True},
    )

    @field_validator("date")
    @classmethod
    def _real_day(cls, value: str | None) -> str | None:
        if value is not None:
            datetime.date.fromisoformat(value)
        return value

    @field_validator("completion")
    @classmethod
    def _alone(cls, value: bool, info: ValidationInfo) -> bool:
        """A plain continuation has no turns: refuse what would be dropped."""
        used = [name for name in ("system", "images", "messages") if info.data.get(name)]
        if value and used:
            raise ValueError(f"a completion continues the prompt alone; leave out {' and '.join(used)}")
        return value
