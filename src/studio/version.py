"""The version of Studio, in one place, and those of what is installed beside it."""

from __future__ import annotations

from functools import cache
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.1.0"


@cache
def installed(name: str) -> str:
    """The version of an installed distribution, ``""`` if there is none. Nothing is imported. Looked up once: reading
    a package's metadata takes 2 ms, and a forecast asks sixty times."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
