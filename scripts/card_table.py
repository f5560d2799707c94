"""Writes the README's table of what runs on which card, from the catalogue, by the planner's own arithmetic.

Run: ``python scripts/card_table.py``; ``--check`` only says whether the table is up to date.
"""

from __future__ import annotations

import sys
from pathlib import Path

from studio.catalogue import Catalogue
from studio.errors import DoesNotFit
from studio.forms import validate
from studio.hardware import VRAM_MARGIN_BYTES
from studio.pipeline import Budget
from studio.registry import Registry
from studio.spec import ModelSpec
from studio.units import GIB, format_bytes

README = Path(__file__).resolve().parents[1] / "README.md"
BEGIN, END = "<!-- card-table:begin (scripts/card_table.py writes this) -->\n", "<!-- card-table:end -->"
CARDS_GIB = (6, 8, 12, 16, 24)
RAM_BYTES = 16 * GIB


def cell(spec: ModelSpec, registry: Registry, card_gib: int) -> str:
    """The planner's choice on an empty card: ``"8k, all"``, ``"8k, 20/32"`` or a dash."""
    family = registry.get(spec.pipeline)
    pipeline = family(spec)
    pipeline.uses_card = lambda: True  # type: ignore[attr-defined] # the table is about cards
    budget = Budget(vram_bytes=card_gib * GIB - VRAM_MARGIN_BYTES, ram_bytes=RAM_BYTES, threads=4)
    try:
        plan = pipeline.plan(validate(family.Params, {**spec.defaults, "prompt": "x"}), budget)
    except DoesNotFit:
        return "–"
    context = f"{plan.settings['n_ctx'] // 1024}k"
    layers, total = plan.settings["n_gpu_layers"], pipeline.shape().layers  # type: ignore[attr-defined]
    kv = "" if plan.settings["type_k"] == "f16" else f" {plan.settings['type_k']}"
    return f"{context}{kv}, {'all' if layers > total else f'{layers}/{total}'}"


def table() -> str:
    registry = Registry()
    rows = ["| Model | Download | " + " | ".join(f"{card} GB" for card in CARDS_GIB) + " |"]
    rows.append("|---|---|" + "---|" * len(CARDS_GIB))
    for spec in Catalogue(registry).specs.values():
        size = spec.download_bytes or spec.settings.get("file_bytes_estimate")
        cells = " | ".join(cell(spec, registry, card) for card in CARDS_GIB)
        about = "" if spec.download_bytes else "about "
        rows.append(f"| {spec.id} | {about}{format_bytes(size)} | {cells} |")
    return "\n".join(rows) + "\n"


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
