"""``studio ui``: open the page."""

from __future__ import annotations

from pathlib import Path


def ui_command(host: str, port: int | None, browser: bool, password_file: str | None) -> int:
    """Serve until Ctrl-C. Raises ``BadRequest`` for an open bind without a password, or a port that is taken."""
    from studio.ui.server import serve

    return serve(None, host, port, browser=browser, password_file=Path(password_file) if password_file else None)
