"""What the tests of a running page are handed."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Page:
    """A running server. ``log`` holds all that it printed."""

    url: str
    home: Path
    process: subprocess.Popen[str]
    log: Path


StartPage = Callable[..., Page]
