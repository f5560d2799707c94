"""Every word of the page exists in both languages, and every key that the code asks for exists."""

from __future__ import annotations

import re
import string
from pathlib import Path

import pytest
import yaml

import studio.ui
from studio.forms import field_specs
from studio.registry import Registry
from studio.ui.house import MODALITIES
from studio.ui.i18n import LANGUAGES, table, words_of

FOLDER = Path(studio.ui.__file__).parent
_KEY = re.compile(r"""say\(\s*f?["']([a-z_]+\.[\w{}.\[\]"' -]*?)["']""")
# Keys made of a fixed beginning and a value: every value must be there.
PREFIXES = {
    "tab.": MODALITIES, "soon.": MODALITIES, "fits.": ("fits", "streams", "no", "unknown"),
    "state.": ("queued", "running", "done", "failed", "cancelled", "quarantined"),
    "models.proof_": ("weights", "shape", "tiny", "none"), "jobs.show_": ("all", "active", "done", "trouble"),
    "jobs.none_": ("active", "done", "trouble"),
}  # fmt: skip


def places(text: str) -> set[str | None]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_both_languages_have_the_same_keys_and_values() -> None:
    english, french = table("en"), table("fr")
    assert english.keys() == french.keys()
    for key, text in english.items():
        assert isinstance(text, str), key
        assert isinstance(french[key], str), key
        assert places(text) == places(french[key]), key
        assert bool(text) == bool(french[key]), key


def test_no_key_stands_twice_in_a_file() -> None:
    for language in LANGUAGES:
        node = yaml.compose((FOLDER / f"{language}.yaml").read_text(encoding="utf-8"))
        for group, words in node.value:
            names = [name.value for name, _ in words.value]
            assert len(names) == len(set(names)), (language, group.value)


def test_every_key_that_the_code_uses_exists() -> None:
    known = table("en")
    used = set()
    for file in FOLDER.rglob("*.py"):
        used |= set(_KEY.findall(file.read_text(encoding="utf-8")))
    fixed = {key for key in used if "{" not in key and not key.endswith((".", "_"))}
    assert len(fixed) > 80
    assert fixed <= known.keys()
    for prefix, values in PREFIXES.items():
        for value in values:
            assert prefix + value in known


def test_no_key_is_left_over() -> None:
    code = "".join(file.read_text(encoding="utf-8") for file in FOLDER.rglob("*.py"))
    looked_up = {"unit", "choice", "group", "phase", "preset", "soon", "tab", "fits", "state", "paint", "medium"}
    for key in table("en"):
        group, name = key.split(".", 1)
        made = group in looked_up or re.match(r"(proof|show)_|none_(active|done|trouble)|idea\d|all|here", name)
        assert made or f'"{key}"' in code or f"'{key}'" in code, key


@pytest.mark.parametrize(
    ("language", "size", "time"), [("en", "1.5 KiB", "1 min 15 s"), ("fr", "1,5 Kio", "1 min 15 s")]
)
def test_figures_are_written_in_the_language(language: str, size: str, time: str) -> None:
    say = words_of(language)
    assert say.size(1536) == size
    assert say.time(75) == time
    assert say.size(None) == say("unit.unknown")


SAID = {"s": "second", "tokens": "token|jeton", "frames/s": "fps|second", "layers": "layer|couche", "px": "pixel"}
"""How a label would say its unit once more."""


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("family", Registry().names())
def test_labels_are_words_and_leave_the_unit_to_what_follows(family: str, language: str) -> None:
    fields = field_specs(Registry().get(family).Params, language)
    labels = [one.label for one in fields]
    assert len(set(labels)) == len(labels)
    for one in fields:
        assert not re.search(r"\b(Num|Max|Fps|Cfg|cfg|Kv|Gpu|Json|Lora|Top [pk]|Min p)\b", one.label), one.label
        assert not (one.unit in SAID and re.search(SAID[one.unit], one.label, re.IGNORECASE)), one.label
