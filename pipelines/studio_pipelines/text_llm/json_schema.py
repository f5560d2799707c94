"""Which JSON schemas an answer can be held to, and their grammar for llama.cpp.

``llama_cpp.llama_grammar`` turns a schema into GBNF but passes over the keywords that it does not know, so an
answer could break the schema in silence. Only keywords that its grammar enforces are let through. It also names
rules after the last part of a reference, so a definition and a property of one name would share a rule: the
definitions get names of their own first.
"""

from __future__ import annotations

import json
from typing import Any

BYTES_MAX = 65_536
DEPTH_MAX = 32
REPEAT_MAX = 2_000

_TYPES = ("object", "array", "string", "number", "integer", "boolean", "null")
_NOTES = {"title", "description", "default", "examples", "$schema", "$id", "$comment", "deprecated"}
_NEEDS = {
    "properties": "object", "required": "object", "additionalProperties": "object",
    "items": "array", "prefixItems": "array", "minItems": "array", "maxItems": "array",
    "minLength": "string", "maxLength": "string", "format": "string",
}  # fmt: skip
_ANY = {"type", "enum", "const", "anyOf", "oneOf", "$ref", "$defs", "definitions"}
_FORMATS = ("date", "time", "date-time", "uuid")


def check_schema(schema: dict[str, Any]) -> None:
    """Raise ``ValueError`` with one line when the grammar could not hold an answer to ``schema``."""
    if len(json.dumps(schema)) > BYTES_MAX:
        raise ValueError(f"the schema is longer than {BYTES_MAX:,} bytes")
    places = [where for where in ("$defs", "definitions") if isinstance(schema.get(where), dict)]
    names = {f"#/{where}/{name}" for where in places for name in schema[where]}
    _check(schema, "the schema", names, 0)


def _check(node: Any, place: str, names: set[str], depth: int) -> None:
    if not isinstance(node, dict):
        raise ValueError(f"{place} is not a JSON object")
    if depth > DEPTH_MAX:
        raise ValueError(f"{place} is more than {DEPTH_MAX} levels deep")
    for key in node:
        if key not in _ANY and key not in _NEEDS and key not in _NOTES:
            raise ValueError(f"{place} uses {key!r}, which the grammar cannot enforce")
    for key in ("properties", "$defs", "definitions"):
        if not isinstance(node.get(key, {}), dict):
            raise ValueError(f"{place} has {key!r} that is not a JSON object")
    _check_values(node, place, names)
    _check_parts(node, place, names, depth + 1)


def _check_values(node: dict[str, Any], place: str, names: set[str]) -> None:
    kind = node.get("type")
    if isinstance(kind, list) and (len(node.keys() - _NOTES) > 1 or not kind or any(k not in _TYPES for k in kind)):
        raise ValueError(f"{place} may have a list of types only alone; use anyOf")
    if not isinstance(kind, list) and "type" in node and kind not in _TYPES:
        raise ValueError(f"{place} has the unknown type {kind!r}")
    for key, needed in _NEEDS.items():
        if key in node and kind != needed:
            raise ValueError(f"{place} has {key!r} but not the type {needed!r}")
    if "$ref" in node and not (isinstance(node["$ref"], str) and node["$ref"] in names):
        raise ValueError(f"{place} refers to {node['$ref']!r}; only #/$defs/NAME of the schema itself is possible")
    if node.get("format", "uuid") not in _FORMATS:
        raise ValueError(f"{place} has the format {node['format']!r}; possible are {', '.join(_FORMATS)}")
    for key in ("minItems", "maxItems", "minLength", "maxLength"):
        count = node.get(key, 0)
        if type(count) is not int or not 0 <= count <= REPEAT_MAX:
            raise ValueError(f"{place} has {key} {count!r}; possible are 0 to {REPEAT_MAX:,}")
    for key in ("enum", "anyOf", "oneOf", "prefixItems", "required"):
        if key in node and (not isinstance(node[key], list) or (not node[key] and key != "required")):
            raise ValueError(f"{place} has {key!r} without a list of choices")
    # The converter takes any "$ref" for a reference, wherever it stands.
    if "$ref" in node.get("properties", {}) or any(_holds_ref(node.get(key)) for key in ("enum", "const")):
        raise ValueError(f"{place} has '$ref' as the name of a property or within a value; only references may use it")
    missing = [name for name in node.get("required", ()) if name not in list(node.get("properties", {}))]
    if missing:
        raise ValueError(f"{place} requires {missing[0]!r}, which is not among its properties")
    deciding = node.keys() & {"$ref", "anyOf", "oneOf", "enum", "const"}
    if len(deciding) > 1 or (deciding & {"$ref", "anyOf", "oneOf"} and node.keys() & (_NEEDS.keys() | {"type"})):
        raise ValueError(f"{place} combines {', '.join(sorted(deciding))} with other rules; the grammar takes one")
    if "prefixItems" in node and node.keys() & {"items", "minItems", "maxItems"}:
        raise ValueError(f"{place} combines prefixItems with other rules for items; the grammar takes one")


def _holds_ref(value: Any) -> bool:
    """Whether a value of an answer has a member of that name."""
    if isinstance(value, dict):
        return "$ref" in value or any(map(_holds_ref, value.values()))
    return isinstance(value, list) and any(map(_holds_ref, value))


def _check_parts(node: dict[str, Any], place: str, names: set[str], depth: int) -> None:
    for key in ("properties", "$defs", "definitions"):
        for name, part in node.get(key, {}).items():
            _check(part, f"{place.removeprefix('the schema.')}.{name}", names, depth)
    for key in ("anyOf", "oneOf", "prefixItems"):
        for index, part in enumerate(node.get(key, ())):
            _check(part, f"{place}.{key}[{index}]", names, depth)
    if "items" in node:
        _check(node["items"], f"{place}.items", names, depth)
    extra = node.get("additionalProperties", True)
    if not isinstance(extra, bool):
        _check(extra, f"{place}.additionalProperties", names, depth)


def grammar_of(schema: dict[str, Any]) -> str:
    """The GBNF grammar of a checked schema."""
    from llama_cpp.llama_grammar import json_schema_to_gbnf

    grammar = str(json_schema_to_gbnf(json.dumps(_own_names(schema))))
    # Its strings may hold bare control characters, which JSON forbids; llama.cpp's grammars/json.gbnf says it right.
    return grammar.replace(r'char ::= [^"\\] |', r'char ::= [^"\\\x7F\x00-\x1F] |')


def _own_names(schema: dict[str, Any]) -> dict[str, Any]:
    """The rules of a checked schema with names of their own for its definitions; notes and what nothing can refer to
    (definitions further inside) are left out."""
    new = {}
    for where in ("$defs", "definitions"):
        for index, name in enumerate(schema.get(where, {})):
            new[f"#/{where}/{name}"] = f"studio-{where.strip('$')}-{index}"

    def renamed(node: dict[str, Any]) -> dict[str, Any]:
        if "$ref" in node:
            return {"$ref": "#/$defs/" + new[node["$ref"]]}
        rules = {key: value for key, value in node.items() if key not in _NOTES and key not in ("$defs", "definitions")}
        for key, value in rules.items():
            if key == "properties":
                rules[key] = {name: renamed(part) for name, part in value.items()}
            elif key in ("anyOf", "oneOf", "prefixItems"):
                rules[key] = [renamed(part) for part in value]
            elif key in ("items", "additionalProperties") and isinstance(value, dict):
                rules[key] = renamed(value)
        # A schema without any rule means any JSON value; the converter reads it as any object, or not at all.
        return rules or {"type": list(_TYPES)}

    body = renamed(schema)
    if "$ref" in body:
        # The converter looks for definitions only beside rules that are no reference themselves.
        body = {"anyOf": [body]}
    body["$defs"] = {
        new[f"#/{where}/{name}"]: renamed(part)
        for where in ("$defs", "definitions")
        for name, part in schema.get(where, {}).items()
    }
    return body
