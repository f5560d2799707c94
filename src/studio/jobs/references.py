"""``${step.text}``: one job's result in another's parameters. Resolved when the job starts, because then it exists.

``${step.text}``, ``${step.path}`` and ``${step.id}`` are the first artefact of a step; ``${step.2.path}`` is that of
the second job of a matrix; ``$${`` is a plain ``${``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from studio.errors import StudioError
from studio.events import Artefact

ATTRIBUTES = ("text", "path", "id")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^{}]*)\}")
_PARTS = re.compile(r"^\s*([A-Za-z0-9_-]+(?:\.\d+)?)\.(\w+)\s*$")


def references(value: Any) -> Iterator[tuple[str, str, str]]:
    """Every reference in a value of any depth: ``(as written, step, attribute)``; step "" if it cannot be read."""
    if isinstance(value, dict):
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)
    elif isinstance(value, str):
        for found in _REFERENCE.finditer(value):
            if found.group(1) is None:
                continue
            parts = _PARTS.match(found.group(1))
            step, attribute = parts.groups() if parts else ("", "")
            yield found.group(0), step, attribute


def substitute(value: Any, resolve: Callable[[str, str], str]) -> Any:
    """The value with every reference replaced by ``resolve(step, attribute)``."""
    if isinstance(value, dict):
        return {key: substitute(item, resolve) for key, item in value.items()}
    if isinstance(value, list):
        return [substitute(item, resolve) for item in value]
    if not isinstance(value, str):
        return value

    def replace(found: re.Match[str]) -> str:
        if found.group(1) is None:
            return "${"
        parts = _PARTS.match(found.group(1))
        return resolve(*parts.groups()) if parts else found.group(0)

    return _REFERENCE.sub(replace, value)


def attribute_of(artefacts: list[Artefact], step: str, attribute: str) -> str:
    """What a reference stands for. ``StudioError`` if the step made nothing of the kind."""
    if not artefacts:
        raise StudioError(f"${{{step}.{attribute}}}: {step} made nothing.", "Refer to a step that makes something.")
    first = artefacts[0]
    if attribute == "text":
        if not first.media_type.startswith("text/") and first.media_type != "application/json":
            raise StudioError(
                f"${{{step}.text}}: {step} made {first.media_type}, which is no text.", f"Use ${{{step}.path}}."
            )
        return first.text.strip()
    return first.path if attribute == "path" else first.id
