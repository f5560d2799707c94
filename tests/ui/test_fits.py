"""A forecast that could not be made is no verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.core import Studio
from studio.errors import BadRequest, DoesNotFit, StudioError
from studio.ui.fits import Fits, Verdict


@pytest.mark.parametrize(
    ("error", "verdict"),
    [
        (DoesNotFit("It needs 9 GiB."), "no"),
        (StudioError("Foreseeing the memory took more than 300 s."), "unknown"),
        (BadRequest("The prompt is missing."), "unknown"),
        (ZeroDivisionError("a family's bug"), "unknown"),
    ],
)
def test_only_what_does_not_fit_does_not_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, verdict: Verdict
) -> None:
    with Studio(tmp_path / "home", executor="inline") as studio:

        def refused(*_args: Any, **_params: Any) -> Any:
            raise error

        monkeypatch.setattr(studio, "forecast", refused)
        forecast = Fits(studio).ask("starter-image", {})
    assert forecast.verdict == verdict
    assert str(error) in forecast.why
    assert forecast.plan is None
