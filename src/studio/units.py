"""Bytes and seconds: kept as plain numbers inside, written for people only at the edge."""

from __future__ import annotations

import re

KIB = 1024
MIB = 1024**2
GIB = 1024**3

THIN = "\u202f"
"""The narrow no-break space that French wants before ; : ! ? and within quotation marks."""


def format_bytes(count: int | None) -> str:
    """``1536`` -> ``"1.5 KiB"``; ``None`` (not known) -> ``"unknown"``."""
    if count is None:
        return "unknown"
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def format_seconds(seconds: float | None) -> str:
    """``0.0421`` -> ``"42 ms"``, ``75`` -> ``"1 min 15 s"``."""
    if seconds is None:
        return "unknown"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def french_spaces(text: str) -> str:
    """``"Fini ; « a » !"`` with the spaces that do not break where French wants them."""
    return re.sub(r" (?=[;:!?»])|(?<=«) ", THIN, text)
