"""Every sentence that the engine and the families can say to a person, read from their source with ``ast``.

A sentence is a text given to an error class, to a ``Note``, to a ``Failed``, to a plan's row, or returned by one of the
functions that make part of one. Its values are replaced by ``17``: what a template must then recognise.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import studio
from studio import errors

ROOTS = (Path(studio.__file__).parent, Path(studio.__file__).parents[2] / "pipelines" / "studio_pipelines")

FILES_LEFT_OUT = {
    "studio/cli/": "the command line",
    "studio/ui/server.py": "how the page is started, in a terminal",
    "studio/grids.py": "contact sheets, drawn by the command line",
    "studio/__init__.py": "Python's own attribute error",
}
"""Nobody at the page can meet what these say."""

SAYING = {name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, errors.StudioError)}
SAYING |= {"TemplateFailed", "Note", "Failed"}

PASSED_ON = {
    "bad": (0, "{}"),
    "_bad": (1, "17 {}."),
    "_failed": (0, "The chat template of 17 {}."),
    "_foreign": (1, "{}"),
}
"""Helpers that put their argument of this place into a sentence: all of it, or a part that is said by itself."""

MAKING = {
    "nearest", "_way_out", "_problem", "_disguise", "what_it_is", "_sentence", "_have", "_plain_error", "_why", "_rows",
    "_pass", "_counted", "_length", "_check_values",
}  # fmt: skip
"""Functions whose literals are parts of sentences."""

VALUE = "17"
_MOST = 24


@dataclass(frozen=True)
class Sentence:
    file: str
    line: int
    text: str


def sentences() -> list[Sentence]:
    found = []
    for root in ROOTS:
        for file in sorted(root.rglob("*.py")):
            name = file.relative_to(root.parent).as_posix()
            if not name.startswith(tuple(FILES_LEFT_OUT)):
                tree = ast.parse(file.read_text(encoding="utf-8"))
                found += [Sentence(name, line, text) for line, text in _said(tree, name)]
    return [one for one in dict.fromkeys(found) if any(letter.isalpha() for letter in one.text)]


def constants() -> str:
    """All text of the source in one: a template whose words are not in it has outlived its sentence."""
    texts = []
    for root in ROOTS:
        for file in root.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            texts += [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and _is_text(node)]
    return "\n".join(texts)


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _said(tree: ast.Module, file: str) -> Iterator[tuple[int, str]]:
    names = _assigned(tree.body)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            known = {**names, **_assigned(list(ast.walk(node)))}
            for inner in _own(node):
                if isinstance(inner, ast.Call):
                    yield from ((inner.lineno, text) for text in _call(inner, known, file))
            if node.name in MAKING:
                yield from _made(node, known)


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function without those of the functions within it."""
    for child in ast.iter_child_nodes(function):
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield child
            yield from _own(child)


def _call(call: ast.Call, known: dict[str, list[ast.expr]], file: str) -> Iterator[str]:
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    given = [
        *call.args,
        *(word.value for word in call.keywords if word.arg in ("what", "hint", "error", "text", "why")),
    ]
    if name in SAYING:
        texts = given
    elif name in PASSED_ON:
        place, sentence = PASSED_ON[name]
        for text in texts_of(call.args[place], known) if place < len(call.args) else ():
            yield sentence.format(text)
        return
    elif name == "ValueError" and file.startswith("studio_pipelines/"):
        texts = given  # pydantic says it, or the family passes it on
    elif name == "append" and isinstance(call.func, ast.Attribute) and "notes" in ast.unparse(call.func.value):
        texts = given
    elif name == "Row":
        texts = [word.value for word in call.keywords if word.arg in ("what", "why")]
    else:
        return
    for one in texts:
        yield from texts_of(one, known)


def _made(
    function: ast.FunctionDef | ast.AsyncFunctionDef, known: dict[str, list[ast.expr]]
) -> Iterator[tuple[int, str]]:
    for node in ast.walk(function):
        if isinstance(node, ast.Return) and node.value is not None:
            yield from ((node.lineno, text) for text in texts_of(node.value, known) if " " in text)


def _assigned(nodes: list[ast.AST] | list[ast.stmt]) -> dict[str, list[ast.expr]]:
    found: dict[str, list[ast.expr]] = {}
    for node in nodes:
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for target in targets:
                if isinstance(target, ast.Name):
                    found.setdefault(target.id, []).append(node.value)
    return found


def texts_of(node: ast.expr, known: dict[str, list[ast.expr]], depth: int = 0) -> list[str]:
    """What an expression can say: each way that its conditions may go, with ``17`` for what is not known."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else [VALUE]
    if depth > 6:
        return [VALUE]
    inside = lambda one: texts_of(one, known, depth + 1)  # noqa: E731
    if isinstance(node, ast.JoinedStr):
        return ["".join(parts) for _, parts in zip(range(_MOST), product(*map(inside, node.values)), strict=False)]
    if isinstance(node, ast.FormattedValue):
        quote = "'" if node.conversion == ord("r") else ""
        return [f"{quote}{text}{quote}" for text in inside(node.value)]
    if isinstance(node, ast.IfExp):
        return [*inside(node.body), *inside(node.orelse)]
    if isinstance(node, ast.BoolOp):
        return [text for value in node.values for text in inside(value)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return [left + right for left in inside(node.left) for right in inside(node.right)]
    if isinstance(node, ast.Name) and node.id in known:
        return list(dict.fromkeys(text for value in known[node.id] for text in inside(value)))
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
        if node.func.attr == "format" and isinstance(node.func.value, ast.Constant):
            return [str(node.func.value.value).replace("{}", VALUE)]
        if node.func.attr == "strip":
            return inside(node.func.value)
    return [VALUE]


def phases() -> set[str]:
    """The names given to ``Progress``, and those of a plan's phases."""
    found = set()
    for root in ROOTS:
        for file in root.rglob("*.py"):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            names = _assigned(tree.body)
            for node in ast.walk(tree):
                if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Progress":
                    given = [word.value for word in node.keywords if word.arg == "phase"]
                    found |= {text for one in given for text in texts_of(one, names)}
    return found - {VALUE}
