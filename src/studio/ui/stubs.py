"""Gradio without its stub files."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any


@contextlib.contextmanager
def gradio_without_stubs() -> Iterator[None]:
    """Gradio writes ``.pyi`` files beside its own modules each time it is imported, which takes a third of the time
    and fails where it is installed read-only. It skips classes whose file is not known."""
    known = inspect.getfile

    def getfile(thing: Any) -> str:
        if isinstance(thing, type) and (type(thing).__name__ == "ComponentMeta" or thing.__name__ == "BlocksEvents"):
            raise OSError("not asked for")
        return known(thing)

    inspect.getfile = getfile  # type: ignore[assignment]
    try:
        yield
    finally:
        inspect.getfile = known
