"""Which files of a source a catalogue entry asks for."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

from studio.download.content import check_path, check_type, is_allowed
from studio.errors import BadWeights
from studio.spec import ModelFile, Source

_WILD = re.compile(r"[*?\[]")


@dataclass(frozen=True)
class Wanted:
    """One file to get, for one role. ``bytes`` and ``sha256`` are what the catalogue pins, if it does."""

    role: str
    path: str
    bytes: int | None = None
    sha256: str | None = None


def is_glob(path: str) -> bool:
    return _WILD.search(path) is not None


def folder_of(path: str) -> str:
    """The part of a glob before its first wildcard, as a folder: ``transformer/*.json`` -> ``transformer``."""
    fixed = path[: wild.start()] if (wild := _WILD.search(path)) else path
    return fixed.rpartition("/")[0]


def check_asked(source: Source) -> None:
    """Raises ``BadWeights`` if the entry asks for a path or a type that is never accepted; needs no network."""
    for file in source.files.values():
        last = check_path(file.path).rpartition("/")[2]
        if not is_glob(last) or ("." in last and not is_glob(last[last.rindex(".") :])):
            check_type(file.path, pinned=file.sha256 is not None)


def choose(source: Source, names: Collection[str], where: str) -> list[Wanted]:
    """The files to get, each once a role, in the order of the entry.

    A glob silently leaves out files of types that are never downloaded (a README, a second copy as ``.bin``);
    a plain path of such a type, or a glob that names one, is refused. Raises ``BadWeights``.
    """
    check_asked(source)
    wanted: list[Wanted] = []
    for role, file in source.files.items():
        if is_glob(file.path):
            wanted += _matches(role, file, names, where)
            continue
        if file.path not in names:
            raise BadWeights(f"{where} has no file {file.path!r}.", "Correct the path in the catalogue entry.")
        wanted.append(Wanted(role, file.path, file.bytes, file.sha256))
    return wanted


def _matches(role: str, file: ModelFile, names: Collection[str], where: str) -> list[Wanted]:
    pattern = _regex(file.path)
    found = [name for name in sorted(names) if is_allowed(name) and pattern.fullmatch(name)]
    if not found:
        raise BadWeights(
            f"{where} has no file of an accepted type that matches {file.path!r}.",
            "Correct the path in the catalogue entry.",
        )
    return [Wanted(role, check_path(name)) for name in found]


def _regex(glob: str) -> re.Pattern[str]:
    """A glob as a regular expression; ``*`` and ``?`` stay within one folder, ``**`` crosses folders."""
    pieces = re.split(r"(\*\*|\*|\?|\[[^\]]*\])", glob)
    known = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(known.get(piece) or _literal(piece) for piece in pieces))


def _literal(piece: str) -> str:
    return piece.replace("[!", "[^", 1) if is_glob(piece) else re.escape(piece)
