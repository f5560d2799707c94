"""Names to ``Pipeline`` classes over entry points. A family is imported when it is first used, not before."""

from __future__ import annotations

from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from studio.errors import NotFound, StudioError, nearest
from studio.pipeline import Pipeline

GROUP = "studio.pipelines"


class Registry:
    """The installed families, by entry-point name."""

    def __init__(self) -> None:
        self._points: dict[str, EntryPoint] = {}
        for point in entry_points(group=GROUP):
            other = self._points.setdefault(point.name, point)
            if other.value != point.value:
                raise StudioError(
                    f"Two installed packages offer a pipeline {point.name!r}: {other.value} and {point.value}.",
                    "Uninstall one of them.",
                )

    def names(self) -> list[str]:
        return sorted(self._points)

    def module_of(self, name: str) -> str:
        """The module that holds the family, without importing it."""
        return self._point(name).module

    def get(self, name: str) -> type[Pipeline[Any]]:
        """The class. Raises ``NotFound`` with the nearest names, ``StudioError`` if its package is broken."""
        return _load(self._point(name))

    def _point(self, name: str) -> EntryPoint:
        if name not in self._points:
            raise NotFound(f"There is no pipeline {name!r}.", nearest(name, self._points))
        return self._points[name]


@lru_cache
def _load(point: EntryPoint) -> type[Pipeline[Any]]:
    try:
        found = point.load()
    except Exception as error:
        raise StudioError(
            f"The pipeline {point.name!r} cannot be imported: {type(error).__name__}: {error}",
            f"Mend or uninstall the package that provides {point.value}.",
        ) from error
    if not (isinstance(found, type) and issubclass(found, Pipeline)):
        raise StudioError(f"{point.value} is not a subclass of studio.plugin.Pipeline.", "Mend its entry point.")
    return found
