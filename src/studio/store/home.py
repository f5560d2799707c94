"""The home folder: everything that Studio keeps. Two homes never meet."""

from __future__ import annotations

import os
from pathlib import Path


class Home:
    """Paths below ``STUDIO_HOME`` (default: the platform's data folder). Creating one makes the folders."""

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("STUDIO_HOME") or _platform_folder()).expanduser().resolve()
        self.database = self.root / "studio.db"
        self.outputs = self.root / "outputs"
        self.inputs = self.root / "inputs"
        self.models = self.root / "models"
        self.work = self.root / "work"
        self.activations = self.root / "cache" / "activations"
        self.calibration = self.root / "cache" / "calibration"
        self.adapters = self.root / "loras"
        self.logs = self.root / "logs"
        self.runner_lock = self.root / "runner.lock"
        for folder in (self.root, self.outputs, self.inputs, self.models, self.work, self.logs):
            folder.mkdir(parents=True, exist_ok=True)

    def workdir(self, job_id: str) -> Path:
        """The folder of one job: outputs before they are stored, and what a family needs to resume."""
        folder = self.work / job_id
        folder.mkdir(parents=True, exist_ok=True)
        return folder


def _platform_folder() -> str:
    import platformdirs

    return platformdirs.user_data_dir("studio", appauthor=False)
