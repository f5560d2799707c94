"""Writes the README's table of what runs on which card, from the catalogue, by the planner's own arithmetic.

Run: ``python scripts/card_table.py``; ``--check`` only says whether the table is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from pydantic.fields import FieldInfo

from studio.catalogue import Catalogue
from studio.errors import DoesNotFit
from studio.forms import validate
from studio.hardware import VRAM_MARGIN_BYTES
from studio.memory.activations import resolve
from studio.memory.plan_machine import card_rates
from studio.memory.plan_request import make_plan
from studio.pipeline import Budget, Footprint, Plan
from studio.registry import Registry
from studio.spec import ModelSpec
from studio.units import GIB, format_bytes

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- card-table:begin (scripts/card_table.py writes this) -->\n", "<!-- card-table:end -->"
CARDS_GIB = (6, 8, 12, 16, 24)
RAM_BYTES = 16 * GIB
SHOWN = ("text-llm", "image-diffusion", "video-framepack", "video-diffusion")
_NONE = FieldInfo(default=None)
ACTIVATIONS = README.parent / ".cache" / "activations"


def cell(spec: ModelSpec, registry: Registry, card_gib: int) -> str:
    """The planner's choice on an empty card and its speed: ``"8k, all · 33/s"``, ``"bf16, 20/57 · 25 s"`` or a dash."""
    family = registry.get(spec.pipeline)
    pipeline = family(spec)
    pipeline.uses_card = lambda: True  # the table is about cards
    card = card_gib * GIB
    budget = Budget(vram_bytes=card - VRAM_MARGIN_BYTES, ram_bytes=RAM_BYTES, threads=4, rates=card_rates(card))
    given = {"image": "picture.png"} if family.Params.model_fields.get("image", _NONE).is_required() else {}
    params = validate(family.Params, {**spec.defaults, "prompt": "x", **given})
    try:
        drawn = make_plan(pipeline, params, budget, resolve=_resolved)
    except DoesNotFit:
        return "–"
    plan = drawn.plan
    if "networks" in plan.settings:
        return f"{_networks(plan)} · {about(plan.seconds or 0)}"
    writing = next(phase.seconds or 0 for phase in plan.phases if phase.name == "generate")
    return f"{_layers(plan, pipeline)} · {rounded((drawn.tokens or 0) / writing)}/s"


def rounded(number: float) -> str:
    """Two figures: more of them would promise what typical rates cannot."""
    return f"{float(f'{number:.2g}'):,.10g}"


def about(seconds: float) -> str:
    """A time in two figures: ``"25 s"``, ``"83 min"``."""
    if seconds < 90:
        return f"{rounded(seconds)} s"
    return f"{rounded(seconds / 60)} min" if seconds < 90 * 60 else f"{rounded(seconds / 3600)} h"


def _resolved(footprint: Footprint) -> Footprint:
    return resolve(footprint, ACTIVATIONS, here=True)


def _networks(plan: Plan) -> str:
    """How the network that denoises lies, and whether anything is read from the disk in every step."""
    networks = plan.settings["networks"]
    denoiser = next(networks[name] for name in ("unet", "transformer") if name in networks)
    where = "all" if denoiser["resident"] == denoiser["blocks"] else f"{denoiser['resident']}/{denoiser['blocks']}"
    disk = ", disk" if any(one["disk_bytes"] for one in networks.values()) else ""
    return f"{denoiser['precision']}, {where}{disk}"


def _layers(plan: Plan, pipeline: Any) -> str:
    context = f"{plan.settings['n_ctx'] // 1024}k"
    layers, total = plan.settings["n_gpu_layers"], pipeline.shape().layers
    kv = "" if plan.settings["type_k"] == "f16" else f" {plan.settings['type_k']}"
    return f"{context}{kv}, {'all' if layers > total else f'{layers}/{total}'}"


def table() -> str:
    registry = Registry()
    rows = ["| Model | Download | " + " | ".join(f"{card} GB" for card in CARDS_GIB) + " |"]
    rows.append("|---|---|" + "---|" * len(CARDS_GIB))
    for spec in Catalogue(registry).specs.values():
        if spec.pipeline not in SHOWN:
            continue
        size = spec.about_bytes or _weights(spec)
        cells = " | ".join(cell(spec, registry, card) for card in CARDS_GIB)
        about = "" if spec.download_bytes else "about "
        rows.append(f"| {spec.id} | {about}{format_bytes(size)} | {cells} |")
    return "\n".join(rows) + "\n"


def _weights(spec: ModelSpec) -> int:
    """About what the files take, in 16 bits."""
    return sum(2 * component.params for component in spec.components.values())


def main() -> int:
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    _, after = rest.split(END)
    new = before + BEGIN + table() + END + after
    if "--check" in sys.argv:
        return int(new != text)
    README.write_text(new, encoding="utf-8")
    print(table())
    return 0


if __name__ == "__main__":
    sys.exit(main())
