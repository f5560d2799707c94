"""The one module that a family imports. Everything here is stable; everything else in ``studio`` is not."""

from __future__ import annotations

from studio.errors import BadRequest, BadWeights, Cancelled, DoesNotFit, NoSpace, StudioError, nearest
from studio.events import Artefact, Event, Note, Preview, Progress, Token
from studio.pipeline import (
    Block,
    Budget,
    Context,
    Footprint,
    Network,
    Params,
    Phase,
    Pipeline,
    Plan,
    Probe,
    Rates,
    Row,
    Stage,
    Variant,
    input_file,
)
from studio.shapes import NetworkShape, networks_of_files, read_shape, text_bytes
from studio.spec import ModelSpec
from studio.units import GIB, KIB, MIB, format_bytes, format_seconds

__all__ = [
    "GIB", "KIB", "MIB", "Artefact", "BadRequest", "BadWeights", "Block", "Budget", "Cancelled", "Context",
    "DoesNotFit", "Event", "Footprint", "ModelSpec", "Network", "NetworkShape", "NoSpace", "Note", "Params", "Phase",
    "Pipeline", "Plan", "Preview", "Probe", "Progress", "Rates", "Row", "Stage", "StudioError", "Token", "Variant",
    "format_bytes", "format_seconds", "input_file", "nearest", "networks_of_files", "read_shape", "text_bytes",
]  # fmt: skip
