"""Measures what the catalogue's models take at their own defaults, for ``src/studio/memory/activations.json``.

Run: ``python scripts/ship_activations.py`` after a change of the catalogue or of a family's probes; it measures anew
what the file lacks, and everything with ``--all``. ``--check`` only says whether a probe is missing or too many.
"""

from __future__ import annotations

import json
import sys
import tempfile
from dataclasses import asdict

from studio import Studio
from studio.core import stand_ins
from studio.memory.activations import made_by, measure
from studio.memory.shipped import FILE, name_of, shipped, versions
from studio.pipeline import Probe


def wanted() -> dict[str, Probe]:
    """The probes of every model of the catalogue with its own defaults, with a card and without, by name."""
    found: dict[str, Probe] = {}
    with tempfile.TemporaryDirectory() as home, Studio(home, executor="inline") as studio:
        for spec in studio.models:
            checked = studio.check(spec.id, stand_ins(studio.fields(spec.id)), references=True)
            for card in (False, True):
                pipeline = studio.pipeline(spec, {})
                pipeline.uses_card = lambda card=card: card
                for stage in pipeline.footprint(checked.given).stages:
                    for variant in stage.variants:
                        found.update((name_of(one.make, one.arguments), one) for one in variant.probes)
    return dict(sorted(found.items()))


def differences() -> tuple[set[str], set[str]]:
    """The names of probes that the file lacks, and of those that it has for nothing."""
    kept = {name_of(one["make"], one["arguments"]) for one in json.loads(FILE.read_text("utf-8"))["probes"]}
    names = set(wanted())
    return names - kept, kept - names


def write(*, everything: bool) -> int:
    """Measure what is missing, or everything, and write the file; returns how many were measured."""
    rows, count = [], 0
    for probe in wanted().values():
        row = None if everything or not FILE.is_file() else shipped(probe.make, probe.arguments)
        if row is None:
            count += 1
            row = {"make": probe.make, "arguments": probe.arguments, **asdict(measure(made_by(probe)))}
        rows.append(json.dumps(row, sort_keys=True))
    body = ",\n".join(rows)
    FILE.write_text(f'{{"versions": {json.dumps(versions())}, "probes": [\n{body}\n]}}\n', "utf-8", newline="\n")
    return count


def main() -> int:
    if "--check" in sys.argv[1:]:
        missing, left = differences()
        print(f"{len(missing)} missing, {len(left)} too many")
        return 1 if missing or left else 0
    print(f"measured {write(everything='--all' in sys.argv[1:])}: {FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
