"""Studio: text, image, video, sound and 3D from open-weight models on one consumer graphics card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studio.core import Job as Job
    from studio.core import Studio as Studio

__version__ = "0.1.0"
__all__ = ["Job", "Studio", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the engine on first use, so that a plugin can import ``studio.plugin`` alone."""
    if name in ("Job", "Studio"):
        from studio import core

        return getattr(core, name)
    raise AttributeError(f"module 'studio' has no attribute {name!r}")
