"""Where ``-o FILE`` puts a result: a name that says what is in it, known before anything is queued.

A suffix chooses the ``format`` of a family that has one; where it contradicts what is made, nothing is queued. A name
without a known suffix, and text under any name of text, are the person's own affair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from studio.cli.flags import flag
from studio.errors import BadRequest
from studio.forms import FieldSpec
from studio.media import EXTENSIONS

FORMAT = "format"
_SAME = {".jpeg": ".jpg", ".tif": ".tiff", ".oga": ".ogg"}
_OTHERS = (
    ".bmp", ".tiff", ".avif", ".heic", ".mov", ".mkv", ".avi", ".m4v", ".aac", ".opus", ".stl", ".obj",
)  # fmt: skip
_TEXTS = (".txt", ".json")
_KNOWN = frozenset([*EXTENSIONS.values(), *_OTHERS]) - set(_TEXTS)
"""What a name promises, if it ends so: all but text, which may have many names."""


def fitted(
    target: Path, model: str, makes: Iterable[str], fields: Iterable[FieldSpec], params: Mapping[str, Any]
) -> dict[str, Any]:
    """``params`` with the format that the name of ``target`` asks for.

    ``makes`` are the media types of the family (``Pipeline.makes``); none: not known. Raises ``BadRequest`` where the
    result would lie under a name of something else.
    """
    if target.is_dir() or (target.parent.exists() and not target.parent.is_dir()):
        raise BadRequest(f"{target} cannot be written: it is a folder, or lies below a file.", "Name a file.")
    suffix = _SAME.get(target.suffix.lower(), target.suffix.lower())
    chosen = next((one for one in fields if one.name == FORMAT and one.kind == "choice"), None)
    if chosen is not None:
        return _with_format(target, suffix, model, chosen, params)
    made = [EXTENSIONS.get(media, "") for media in makes]
    named = suffix in _KNOWN or (suffix in _TEXTS and not set(made) & set(_TEXTS))
    if made and named and suffix not in made:
        raise BadRequest(
            f"{target.name} ends in {target.suffix}; {model} makes {' or '.join(made)}.",
            f"Name it {target.with_suffix(made[0]).name}.",
        )
    return dict(params)


def _with_format(target: Path, suffix: str, model: str, chosen: FieldSpec, params: Mapping[str, Any]) -> dict[str, Any]:
    """The suffix is one of the choices, or none that says anything."""
    offered = {f".{choice}": choice for choice in chosen.choices}
    asked = params.get(FORMAT)
    if suffix not in offered:
        if suffix in _KNOWN or suffix in _TEXTS:
            given = f".{asked or chosen.default}"
            raise BadRequest(
                f"{target.name} ends in {target.suffix}; {model} makes {', '.join(offered)}.",
                f"Name it {target.with_suffix(given if given in offered else next(iter(offered))).name}.",
            )
        return dict(params)
    if asked is None:
        return dict(params) if offered[suffix] == chosen.default else {**params, FORMAT: offered[suffix]}
    if asked in chosen.choices and asked != offered[suffix]:
        raise BadRequest(
            f"{target.name} ends in {target.suffix}, but {flag(FORMAT)} is {asked}.",
            f"Name it {target.with_suffix(f'.{asked}').name}, or give {flag(FORMAT)} {offered[suffix]}.",
        )
    return dict(params)
