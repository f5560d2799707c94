"""The one module that a family imports. Everything here is stable; everything else in ``studio`` is not."""

from __future__ import annotations

from studio.errors import BadRequest, BadWeights, Cancelled, DoesNotFit, NoSpace, StudioError, nearest
from studio.events import Artefact, Event, Note, Preview, Progress, Token
from studio.fields import MAX_STEPS, PROMPT_MAX, Picture, Sound, Steps
from studio.pictures import check_whole, read_upright, shown_size
from studio.pipeline import Context, Params, Pipeline, beside_result, input_file
from studio.plans import Block, Budget, Footprint, Network, Phase, Plan, Probe, Rates, Row, Stage, Variant
from studio.shapes import NetworkShape, Shapes, networks_of_files, read_shape, text_bytes
from studio.spec import ModelSpec
from studio.stages import network_of, reading, tile_px, whole_or_tiles
from studio.torch_family import TorchFamily
from studio.units import GIB, KIB, MIB, format_bytes, format_seconds

__all__ = [
    "GIB", "KIB", "MAX_STEPS", "MIB", "PROMPT_MAX", "Artefact", "BadRequest", "BadWeights", "Block", "Budget",
    "Cancelled", "Context", "DoesNotFit", "Event", "Footprint", "ModelSpec", "Network", "NetworkShape", "NoSpace",
    "Note", "Params", "Phase", "Picture", "Pipeline", "Plan", "Preview", "Probe", "Progress", "Rates", "Row", "Shapes",
    "Sound", "Stage", "Steps", "StudioError", "Token", "TorchFamily", "Variant", "beside_result", "check_whole",
    "format_bytes", "format_seconds", "input_file", "nearest", "network_of", "networks_of_files", "read_shape",
    "read_upright", "reading", "shown_size", "text_bytes", "tile_px", "whole_or_tiles",
]  # fmt: skip
