"""Studio: text, image, video, sound and 3D from open-weight models on one consumer graphics card."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from studio.version import __version__

if TYPE_CHECKING:
    from studio.core import Studio as Studio
    from studio.handles import Job as Job

__all__ = ["Job", "Studio", "__version__"]


def __getattr__(name: str) -> Any:
    """Import the engine on first use, so that a plugin can import ``studio.plugin`` alone."""
    if name == "Studio":
        from studio.core import Studio

        return Studio
    if name == "Job":
        from studio.handles import Job

        return Job
    raise AttributeError(f"module 'studio' has no attribute {name!r}")
