"""What the engine says, in French: finished English sentences are recognised by templates and said again.

Whoever raises an error or emits a note writes one English sentence and nothing else. ``messages_fr.yaml``, beside this
file and beside each family, holds English templates with their French: ``"{model} takes no mask.": "{model} n'accepte
pas de masque."``. What no template recognises stays English.

Plain places take anything; what they hold is said in French too if it is figures, quoted, or itself in a table.
``{why:told}`` takes only what can be said in French, ``{name:word}`` one word and ``{size:figure}`` figures with their
units, so that a short template does not recognise what it should not; ``{names:list}`` holds "a, b or c";
``{name:field}`` is a parameter and ``{value:choice}`` one of its choices (or several), called as on the form. So is
``--name`` in the French of a template.

gettext and Babel look up the sentence before its values are filled in, so that every ``raise`` would have to mark its
words and keep the values apart, in the core, in every family and in what is stored with a job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml

from studio.units import THIN, french_spaces

FILE = "messages_fr.yaml"

MAX_TRIES = 300
"""How many pieces of one text are looked up: none that was made for it keeps the page waiting."""

MAX_VALUE = 500
"""Longer values are somebody's text: they are taken as they are."""

MAX_CUTS = 12
"""At how many ends of sentences a text is tried to be taken apart."""

_PLACE = re.compile(r"\{(\w+)(?::(told|word|figure|list|field|choice))?\}")
_ENDS = (".", "?", "!")
_CUT = re.compile(r"(?<=[.?!]) (?=\S)")
_FLAG = re.compile(r"--([a-z][a-z0-9-]*[a-z0-9])")
_FIGURE = re.compile(r"[-≈]?\d[\d,]*(?:\.\d+)?(?:×\d+)*%?")
_AND = re.compile(r"(, | and | or )")
_UNITS = {"B": "o", "KiB": "Kio", "MiB": "Mio", "GiB": "Gio", "TiB": "Tio", "bytes": "octets"}
_UNITS |= {same: same for same in ("ms", "s", "min", "h", "×", "x", "%")}
_MANY = ("list", "field", "choice")
_JOINTS = {", ": ", ", " and ": " et ", " or ": " ou "}


@dataclass(frozen=True)
class Template:
    """``literals`` are one more than ``places`` (name and kind); the values lie between them."""

    literals: tuple[str, ...]
    places: tuple[tuple[str, str], ...]
    french: str

    @classmethod
    def of(cls, english: str, french: str, spaced: Callable[[str], str] = french_spaces) -> Template:
        """Raises ``ValueError`` where the French names a value that the English does not have."""
        found = [(one[1], one[2] or "") for one in _PLACE.finditer(english)]
        strangers = {one[1] for one in _PLACE.finditer(french)} - {name for name, _ in found}
        if strangers or len({name for name, _ in found}) != len(found) or not _PLACE.sub("", english).strip():
            raise ValueError(f"{english!r}: its places are not those of {french!r}")
        return cls(tuple(_PLACE.sub("\0", english).split("\0")), tuple(found), spaced(french))

    @property
    def weight(self) -> int:
        return sum(map(len, self.literals))

    def values_in(self, text: str) -> list[str] | None:
        """What stands in the places, if all of ``text`` is this sentence.

        Each literal is looked for from where the one before it ends: as in file name patterns, the first place found
        is always good enough. So the time grows with the text and no text can make it explode.
        """
        first, last = self.literals[0], self.literals[-1]
        if not self.places:
            return [] if text == first else None
        at, end = len(first), len(text) - len(last)
        if end < at or not text.startswith(first) or not text.endswith(last):
            return None
        values = []
        for literal in self.literals[1:-1]:
            found = text.find(literal, at, end)
            if found < 0:
                return None
            values.append(text[at:found])
            at = found + len(literal)
        return [*values, text[at:end]]


@dataclass
class Teller:
    """Says English sentences in French; ``labels`` and ``choices`` are what a form calls parameters and values."""

    templates: tuple[Template, ...]
    labels: Mapping[str, str] = field(default_factory=dict)
    choices: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._said = lru_cache(maxsize=2000)(self._say)
        # What ends like a sentence is one before it is part of one, however long that part may be.
        self._ended = sorted(self.templates, key=lambda one: not one.literals[-1].endswith(_ENDS))

    def __call__(self, text: str) -> str:
        return self._said(text) if len(text) <= MAX_VALUE else self._say(text)

    def knows(self, text: str) -> bool:
        """Whether some template is this sentence."""
        return self._whole(text, [MAX_TRIES], strict=False) is not None

    def _say(self, text: str) -> str:
        """The whole, else sentence by sentence; a value that seems to hold an end of a sentence is the last resort."""
        tries = [MAX_TRIES]
        whole = self._whole(text, tries, strict=True)
        if whole is not None:
            return whole
        apart = self._apart(text, tries)
        if apart is not None:
            return apart
        whole = self._whole(text, tries, strict=False)
        return text if whole is None else whole

    def _apart(self, text: str, tries: list[int]) -> str | None:
        """Known sentences said in French, the others left; ``None`` if there is only one or none is known."""
        cuts = [found.end() for found in _CUT.finditer(text)][:MAX_CUTS]
        said, start, known = [], 0, False
        while start < len(text):
            ends = [len(text), *(cut for cut in reversed(cuts) if cut > start)]
            for end in ends[start == 0 :]:
                found = self._whole(text[start:end].rstrip(), tries, strict=True)
                if found is not None:
                    known = True
                    break
            else:
                end = min((cut for cut in cuts if cut > start), default=len(text))
                found = text[start:end].rstrip()
            said.append(found)
            start = end
        return " ".join(filter(None, said)) if known else None

    def _whole(self, text: str, tries: list[int], *, strict: bool) -> str | None:
        tries[0] -= 1
        if tries[0] < 0:
            return None
        for template in self._ended if text.endswith(_ENDS) else self.templates:
            values = template.values_in(text)
            if values is None or (strict and any(_CUT.search(one) and not _is_quoted(one) for one in values)):
                continue
            said = [self._value(value, kind, tries) for value, (_, kind) in zip(values, template.places, strict=True)]
            if None not in said:
                names = (name for name, _ in template.places)
                return self._filled(template, dict(zip(names, said, strict=True)))
        return None

    def _filled(self, template: Template, said: dict[str, Any]) -> str:
        words = _FLAG.sub(lambda flag: self._label(flag[0]), template.french)
        return _PLACE.sub(lambda place: str(said[place[1]]), words)

    def _label(self, name: str) -> str:
        """« Étapes » for ``--steps``, ``steps`` or ``steps.0``; the name itself where it is none of a parameter."""
        plain, dot, rest = name.strip("'").removeprefix("--").replace("-", "_").partition(".")
        label = self.labels.get(plain) or self.labels.get(plain.removeprefix("no_"))
        return f"«{THIN}{label}{THIN}»{dot}{rest}" if label else name

    def _value(self, value: str, kind: str, tries: list[int]) -> str | None:
        if kind in _MANY and len(parts := _AND.split(value)) > 1:
            return "".join(_JOINTS.get(part) or str(self._value(part, kind, tries)) for part in parts)
        if kind == "field" and (label := self._label(value)) != value:
            return label
        if kind == "word" and " " in value:
            return None
        if kind == "choice" and value in self.choices:
            return self.choices[value]
        if (figures := in_figures(value)) is not None or kind == "figure":
            return figures
        if _is_quoted(value):
            return f"«{THIN}{value[1:-1]}{THIN}»"
        if 1 < len(value) <= MAX_VALUE:
            for turned in (False, True)[: 1 + (" " in value)]:  # the same words may begin a sentence or lie within one
                said = self._whole(_turned(value) if turned else value, tries, strict=False)
                if said is not None:
                    return _turned(said) if turned else said
        return None if kind == "told" else value


def _is_quoted(text: str) -> bool:
    return len(text) >= 2 and text[0] == text[-1] and text[0] in "'\"" and text[0] not in text[1:-1]


def _turned(text: str) -> str:
    return text[:1].swapcase() + text[1:]


def in_figures(text: str) -> str | None:
    """``1,536.5 KiB`` -> ``1 536,5 Kio``; ``None`` for what is not only figures and units."""
    said: list[str] = []
    for part in text.split(" ") if 0 < len(text) < 60 else ():
        if part in _UNITS and said:
            said.append(_UNITS[part])
        elif _FIGURE.fullmatch(part):
            said.append(part.replace(",", THIN).replace(".", ","))
        else:
            return None
    return THIN.join(said) or None


def read(file: Path) -> dict[str, str]:
    """The templates of a file, English to French; nothing where there is no such file."""
    if not file.is_file():
        return {}
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return dict(yaml.load(file.read_text(encoding="utf-8"), Loader=loader) or {})  # noqa: S506


def templates_of(
    tables: Iterable[Mapping[str, str]], spaced: Callable[[str], str] = french_spaces
) -> tuple[Template, ...]:
    """Of all tables, the most literal first; where two say the same, the first table counts."""
    merged: dict[str, str] = {}
    for table in tables:
        merged = {**table, **merged}
    found = [Template.of(english, french, spaced) for english, french in merged.items()]
    return tuple(sorted(found, key=lambda one: -one.weight))


def files_of(modules: Iterable[str], name: str = FILE) -> list[Path]:
    """Those beside the modules of families, none of which is imported, and the page's own."""
    places = []
    for module in modules:
        try:
            spec = find_spec(module)
        except (ImportError, ValueError):  # a broken package is told of elsewhere
            continue
        places += [Path(spec.origin)] if spec is not None and spec.origin else []
    return list(dict.fromkeys(place.with_name(name) for place in (*places, Path(__file__))))
