"""Command-line flags from field specs: ``--num-frames``, ``--tiled/--no-tiled``, files by path."""

from __future__ import annotations

import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

from studio.errors import BadRequest, StudioError, nearest
from studio.forms import FieldSpec

_PREFIX = "param_"


class Parser(argparse.ArgumentParser):
    """argparse, with errors as ``BadRequest`` and no guessing of abbreviated flags."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description, allow_abbrev=False, add_help=False)
        self.formatter_class = argparse.RawDescriptionHelpFormatter

    def error(self, message: str) -> NoReturn:
        raise BadRequest(f"{message[0].upper()}{message[1:]}.", f"See: {self.prog} --help")


def flag(name: str) -> str:
    """``num_frames`` -> ``--num-frames``."""
    return "--" + name.replace("_", "-")


def add_fields(parser: Parser, fields: Iterable[FieldSpec]) -> None:
    """One flag a field; what is not given stays out, so that the family's own defaults hold."""
    main = parser.add_argument_group("parameters")
    advanced = parser.add_argument_group("advanced parameters")
    for field in fields:
        group = advanced if field.advanced else main
        options: dict[str, Any] = {"dest": _PREFIX + field.name, "default": argparse.SUPPRESS, "help": _help(field)}
        if field.kind == "bool" and not field.multiple:
            group.add_argument(flag(field.name), action=argparse.BooleanOptionalAction, **options)
        elif field.multiple:
            group.add_argument(flag(field.name), action="extend", nargs="+", metavar=_metavar(field), **options)
        else:
            group.add_argument(flag(field.name), metavar=_metavar(field), **options)


def _metavar(field: FieldSpec) -> str:
    if field.choices:
        return "{" + ",".join(map(str, field.choices)) + "}"
    return {"int": "N", "float": "X", "file": "FILE", "json": "JSON"}.get(field.kind, "TEXT")


def _help(field: FieldSpec) -> str:
    notes = []
    if field.minimum is not None and field.maximum is not None:
        notes.append(f"{field.minimum:,.10g} to {field.maximum:,.10g}")
    if field.unit:
        notes.append(field.unit)
    if field.required:
        notes.append("required")
    elif field.default not in (None, "", [], {}):
        default = {True: "on", False: "off"}[field.default] if isinstance(field.default, bool) else field.default
        notes.append(f"default {default}")
    text = f"{field.description} ({'; '.join(notes)})" if notes else field.description
    return text.replace("%", "%%")


def parse(parser: Parser, args: list[str], fields: tuple[FieldSpec, ...]) -> tuple[argparse.Namespace, dict[str, Any]]:
    """The parsed flags, and the parameters among them as plain values (checked later, by ``forms.validate``)."""
    known, unknown = parser.parse_known_args(args)
    if unknown and not unknown[0].startswith("-"):
        raise BadRequest(*_strayed(unknown, fields))
    if unknown:
        flags = [option for action in parser._actions for option in action.option_strings]
        name = unknown[0].split("=")[0]
        raise BadRequest(f"{parser.prog} has no flag {name!r}.", nearest(name, flags))
    by_name = {field.name: field for field in fields}
    params = {}
    for key, value in vars(known).items():
        if key.startswith(_PREFIX):
            field = by_name[key.removeprefix(_PREFIX)]
            params[field.name] = [_plain(field, item) for item in value] if field.multiple else _plain(field, value)
    return known, params


@contextmanager
def by_flags(fields: Iterable[FieldSpec]) -> Iterator[None]:
    """What is wrong with a parameter is said of its flag: ``num_images is 99`` becomes ``--num-images is 99``."""
    try:
        yield
    except StudioError as error:
        names = "|".join(re.escape(field.name) for field in fields)
        at_once = rf"^(?P<name>{names})(?=(\.\d+)? (?:is|has) |: )"
        error.what = re.sub(at_once, lambda found: flag(found["name"]), error.what)
        missing = rf"the parameter '(?P<name>{names})'"
        error.what = re.sub(missing, lambda found: flag(found["name"]), error.what)
        raise


def _strayed(words: list[str], fields: tuple[FieldSpec, ...]) -> tuple[str, str]:
    """Words without a flag: what stands there and what was meant, most likely the prompt."""
    text = " ".join(itertools.takewhile(lambda word: not word.startswith("-"), words))
    flags = [flag(field.name) for field in fields if field.required and field.kind == "str"]
    hint = f'Did you mean {flags[0]} "{text}"?' if flags else "Give each value after its flag."
    return f"No flag stands before {text[:60]!r}.", hint


def _plain(field: FieldSpec, text: Any) -> Any:
    """Text to a value of the field's kind. What does not convert stays text, and the validation says why not."""
    if field.kind == "int":
        try:
            return int(text)
        except ValueError:
            return text
    if field.kind == "float":
        try:
            return float(text)
        except ValueError:
            return text
    if field.kind == "choice":
        return next((choice for choice in field.choices if str(choice) == text), text)
    if field.kind == "json":
        return _json(field, text)
    if field.kind == "str" and text == "-":
        return sys.stdin.read()
    return text


def _json(field: FieldSpec, text: str) -> Any:
    """JSON as it stands, or a file that holds it."""
    if not text.lstrip().startswith(("{", "[", '"')) and Path(text).is_file():
        text = Path(text).read_text(encoding="utf-8")
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadRequest(f"{flag(field.name)} is not JSON: {error}.", "Give JSON, or a file that holds it.") from error
