"""Gradio without what the page never uses, which is half the time to import it (measured: 0.9 s of 2.0).

Its modules are not touched: while they are imported, some names that they take from elsewhere lead to stand-ins, and
these lead to the real thing as soon as anybody uses them.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import ssl
import sys
from collections.abc import Callable, Iterator
from functools import lru_cache
from types import ModuleType
from typing import Any

_LATER = ("pandas", "gradio.cli", "gradio.external", "gradio.workflow")
"""Tables, the command line, models of the Hub, a canvas: imported by Gradio in case somebody wants them."""


class _Later(ModuleType):
    """A module that is imported when it is used. What is taken out of it at once are functions: they call the real."""

    def __init__(self, name: str, functions: bool) -> None:
        super().__init__(name)
        self.__path__: list[str] = []
        self._functions = functions

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if not self._functions:
            return getattr(self._real(), name)
        return lambda *args, **options: getattr(self._real(), name)(*args, **options)

    def _real(self) -> ModuleType:
        if sys.modules.get(self.__name__) is self:
            del sys.modules[self.__name__]
        return importlib.import_module(self.__name__)


class _Unwritten:
    """In place of a template of documentation, which is rendered for each event of each component."""

    def __init__(self, *_args: object) -> None:
        pass

    def render(self, **_values: object) -> str:
        return ""


@contextlib.contextmanager
def lean_gradio() -> Iterator[None]:
    """Import Gradio within it, or define components.

    Gradio also writes ``.pyi`` files beside its own modules each time, which takes a third of the time and fails where
    it is installed read-only. It skips classes whose file is not known.
    """
    import jinja2

    known, template, context = inspect.getfile, jinja2.Template, ssl.create_default_context
    later = {name: _Later(name, "." in name) for name in _LATER if name not in sys.modules}
    sys.modules.update(later)
    inspect.getfile = _no_file(known)  # type: ignore[assignment]
    jinja2.Template = _Unwritten  # type: ignore[assignment, misc]
    ssl.create_default_context = lru_cache(context)  # type: ignore[assignment]  # three clients, each of which would read all certificates
    try:
        yield
    finally:
        inspect.getfile, jinja2.Template, ssl.create_default_context = known, template, context  # type: ignore[misc]
        for name, module in later.items():
            if sys.modules.get(name) is module:
                del sys.modules[name]


def _no_file(known: Callable[[Any], str]) -> Callable[[Any], str]:
    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and (type(thing).__name__ == "ComponentMeta" or thing.__name__ == "BlocksEvents"):
            raise OSError("not asked for")
        return known(thing)

    return getfile


@contextlib.contextmanager
def signatures_once() -> Iterator[None]:
    """Build a page within it: for each component Gradio asks twice what its class takes, a fifth of the time."""
    signature, arguments = inspect.signature, inspect.getfullargspec
    inspect.signature, inspect.getfullargspec = _once(signature), _once(arguments)
    try:
        yield
    finally:
        inspect.signature, inspect.getfullargspec = signature, arguments


def _once(ask: Callable[..., Any]) -> Callable[..., Any]:
    known = lru_cache(maxsize=1024)(ask)

    def once(*args: Any, **options: Any) -> Any:
        try:
            return known(*args, **options)
        except TypeError:  # something that has no hash, or no signature
            return ask(*args, **options)

    return once
