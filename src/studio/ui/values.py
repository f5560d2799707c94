"""What a component holds becomes a parameter's value, and back."""

from __future__ import annotations

import json
from typing import Any

from studio.errors import BadRequest
from studio.forms import FieldSpec


def show_value(one: FieldSpec, value: Any) -> Any:
    """A parameter as its component shows it."""
    if one.kind == "file":
        return value or None
    if one.kind == "json":
        return json.dumps(value, ensure_ascii=False) if value not in (None, [], {}) else ""
    if one.multiple:
        return "\n".join(map(str, value or []))
    if value is None:
        return None if one.kind == "bool" else ""
    if one.default is None and one.kind in ("int", "float"):
        return str(value)
    return value


def read_value(one: FieldSpec, raw: Any, *, whole: bool = False) -> Any:
    """What a component holds, as the engine wants it; ``None`` for nothing. ``whole``: empty lines count."""
    if one.kind == "file":
        return raw or ([] if one.multiple else None)
    if one.multiple and one.kind != "json":
        lines = [line.strip() for line in str(raw or "").split("\n")]
        if not (whole and any(lines)):
            lines = [line for line in lines if line]
        return [_plain(one, line) for line in lines]
    if raw is None or raw == "":
        return "" if one.kind == "str" and one.default == "" else (one.default if one.kind == "json" else None)
    return _plain(one, raw)


def _plain(one: FieldSpec, raw: Any) -> Any:
    try:
        if one.kind == "int":
            number = float(raw) if not isinstance(raw, str) else float(raw.strip().replace("\u202f", ""))
            return int(number) if number.is_integer() else number  # the engine says why 2.5 is wrong
        if one.kind == "float":
            return float(raw.strip().replace(",", ".") if isinstance(raw, str) else raw)
        if one.kind == "json":
            return json.loads(raw)
    except (ValueError, OverflowError):
        what = "JSON" if one.kind == "json" else "a number"
        raise BadRequest(
            f"{one.label} is {str(raw)[:60]!r}; it must be {what}.", "Correct it, or leave it out.", field=one.name
        ) from None
    return raw
