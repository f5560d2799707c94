"""``Params`` to neutral field specs, and raw values to checked ``Params``.

A parameter is declared once, in its family. Command-line flags, YAML validation, the page and HTTP all read the
``FieldSpec`` list made here, and all of them check values with ``validate``.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from studio.errors import BadRequest, nearest
from studio.pipeline import Params
from studio.units import french_spaces

Kind = Literal["int", "float", "str", "bool", "choice", "file", "json"]
P = TypeVar("P", bound=Params)

MAX_REQUEST_BYTES = 4_000_000


class FieldSpec(BaseModel):
    """One parameter, as every face needs it. ``multiple``: a list of ``kind``."""

    model_config = ConfigDict(frozen=True)

    name: str
    kind: Kind
    label: str
    description: str
    required: bool = False
    multiple: bool = False
    default: Any = None
    minimum: float | None = None
    maximum: float | None = None
    choices: tuple[str | int | float, ...] = ()
    offers: tuple[Any, ...] = ()
    """What suits this model, to choose from; other values are allowed. Pairs are a width and a height."""
    accept: tuple[str, ...] = ()
    group: str = "main"
    widget: str = ""
    unit: str = ""
    advanced: bool = False


@lru_cache
def field_specs(params: type[Params], language: str = "en") -> tuple[FieldSpec, ...]:
    """The fields of a family in the order of their declaration; ``seed``, declared in the base, comes last."""
    schema = params.model_json_schema()
    words = _translations(params, language)
    required = set(schema.get("required", ()))
    fields = [
        _field(name, node, schema.get("$defs", {}), name in required, words.get(name, {}))
        for name, node in schema.get("properties", {}).items()
    ]
    return tuple(sorted(fields, key=lambda field: field.name == "seed"))


def _translations(params: type[Params], language: str) -> dict[str, dict[str, str]]:
    """``fr.yaml`` beside the family: ``{field: {label, description}}``. English is in the code."""
    if language == "en":
        return {}
    import yaml

    module = sys.modules[params.__module__].__file__
    file = Path(module or "").with_name(f"{language}.yaml")
    words = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    found = {**_COMMON.get(language, {}), **{name: word for name, word in words.items() if isinstance(word, dict)}}
    return {name: {key: french_spaces(text) for key, text in word.items()} for name, word in found.items()}


# The parameters that every family has, where its own file does not name them.
_COMMON: dict[str, dict[str, dict[str, str]]] = {
    "fr": {
        "seed": {
            "label": "Graine",
            "description": "Le départ du hasard ; la même graine donne le même résultat. Tirée au sort si omise.",
        }
    }
}


def _field(
    name: str, node: dict[str, Any], definitions: dict[str, Any], required: bool, words: dict[str, str]
) -> FieldSpec:
    value = _not_null(node, definitions)
    item = _not_null(value["items"], definitions) if value.get("type") == "array" and "items" in value else None
    if item is not None and _kind(item) == "json":
        item = None  # a list of objects is written as one piece of JSON
    inner = item or value
    hints = {**inner, **value, **node}
    return FieldSpec(
        name=name,
        kind=_kind(inner),
        label=words.get("label") or hints.get("label") or name.replace("_", " ").capitalize(),
        description=words.get("description") or node.get("description", ""),
        required=required,
        multiple=item is not None,
        default=node.get("default"),
        minimum=_bound(inner, "minimum", "exclusiveMinimum"),
        maximum=_bound(inner, "maximum", "exclusiveMaximum"),
        choices=tuple(inner.get("enum", [inner["const"]] if "const" in inner else [])),
        accept=tuple(inner.get("accept", ())),
        group=hints.get("group", "main"),
        widget=hints.get("widget", ""),
        unit=hints.get("unit", ""),
        advanced=hints.get("advanced", False),
    )


def _not_null(node: dict[str, Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """The schema of the value itself: without ``| None``, with references followed."""
    options = [option for option in node.get("anyOf", ()) if option.get("type") != "null"]
    if len(options) == 1:
        return _not_null(options[0], definitions)
    if "$ref" in node:
        found: dict[str, Any] = definitions[node["$ref"].rsplit("/", 1)[-1]]
        return found
    return node


def _kind(node: dict[str, Any]) -> Kind:
    if node.get("widget") == "file":
        return "file"
    if "enum" in node or "const" in node:
        return "choice"
    kinds: dict[str, Kind] = {"integer": "int", "number": "float", "string": "str", "boolean": "bool"}
    return kinds.get(node.get("type", ""), "json")


def _bound(node: dict[str, Any], *names: str) -> float | None:
    return next((float(node[name]) for name in names if name in node), None)


def validate(params: type[P], values: Mapping[str, Any], *, model: str = "", adopt: Any = None) -> P:
    """The checked parameters, or ``BadRequest`` with one line: what, the value, the limit, the way out.

    Values are checked as strict JSON whatever face they come from: ``true`` is not 1, ``"7"`` is not 7. ``adopt``
    is called for every input file, ``(path, accepted media types, field name) -> path``.
    """
    try:
        text = json.dumps(values, default=_plain)
    except RecursionError:
        raise BadRequest(f"The parameters of {model or 'the request'} are nested too deeply.") from None
    except (TypeError, ValueError) as error:
        raise BadRequest(f"The parameters of {model or 'the request'} are not plain data: {error}.") from error
    if len(text) > MAX_REQUEST_BYTES:
        raise BadRequest(f"The request has {len(text):,} bytes; the limit is {MAX_REQUEST_BYTES:,}.", "Shorten it.")
    try:
        return params.model_validate_json(text, context={"adopt": adopt})
    except ValidationError as error:
        raise _plain_error(params, error, model) from None


def _plain(value: object) -> str:
    if isinstance(value, os.PathLike):
        return str(os.fspath(value))
    raise TypeError(f"{type(value).__name__} cannot be written as JSON")


def _plain_error(params: type[Params], error: ValidationError, model: str) -> BadRequest:
    # A misspelt name comes first: it is the cause where the right name is then missing.
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
    name, kind, limits = str(first["loc"][0]) if first["loc"] else "", first["type"], first.get("ctx", {})
    value = _short(first.get("input"))
    hint = _way_out(params, name, model)
    whose = f"{model} has" if model else "There is"
    if kind == "json_invalid":  # a lone surrogate, from an argument that is no UTF-8; or nested too deeply
        return BadRequest(f"The parameters of {model or 'the request'} cannot be read: {first['msg']}.")
    if kind == "extra_forbidden":
        return BadRequest(f"{whose} no parameter {name!r}.", nearest(name, params.model_fields))
    if kind == "missing":
        return BadRequest(f"{model or 'The request'} needs the parameter {place!r}.", hint, field=name)
    for limit, words in _LIMITS.items():
        if limit in limits:
            size = f"has {_length(first['input'])} {_counted(kind)}" if limit.endswith("_length") else f"is {value}"
            return BadRequest(f"{place} {size}; the limit is {words} {limits[limit]:,}.", hint, field=name)
    if kind == "finite_number":
        return BadRequest(f"{place} is {value}; it must be a finite number.", hint, field=name)
    message = first["msg"].removeprefix("Value error, ")
    return BadRequest(f"{place} is {value}: {message[0].lower()}{message[1:]}.", hint, field=name)


_LIMITS = {
    "le": "at most", "ge": "at least", "lt": "below", "gt": "above", "max_length": "at most", "min_length": "at least",
}  # fmt: skip


def _counted(kind: str) -> str:
    return "characters" if kind.startswith("string") else "items"


def _length(value: object) -> str:
    return f"{len(value):,}" if isinstance(value, str | list | dict) else "too many"


def _short(value: object) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _way_out(params: type[Params], name: str, model: str) -> str:
    """What the field accepts, from its own declaration."""
    field = next((field for field in field_specs(params) if field.name == name), None)
    if field is None:
        return ""
    if field.choices:
        return f"Choose one of: {', '.join(map(str, field.choices))}."
    if field.minimum is not None and field.maximum is not None:
        what = "a whole number" if field.kind == "int" else "a number"
        return f"Give {what} from {field.minimum:,.10g} to {field.maximum:,.10g}."
    return f"See: studio run {model} --help" if model else ""
