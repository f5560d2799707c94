"""A forecast that could not be made is no verdict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest

from studio.core import Studio
from studio.errors import BadRequest, DoesNotFit, StudioError
from studio.memory import activations
from studio.memory.activations import Run
from studio.pipeline import Phase, Plan
from studio.ui import fits
from studio.ui.fits import Fits, Forecast, Verdict
from studio.ui.house import House
from studio.ui.i18n import words_of
from studio.ui.view import badge, forecast_line
from toolbox import until


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

        monkeypatch.setattr(studio, "foresee", refused)
        forecast = Fits(studio).ask("starter-image", {})
    assert forecast.verdict == verdict
    assert str(error) in forecast.why
    assert forecast.plan is None


def test_lists_wait_for_no_measurement_and_one_is_made_while_no_job_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that needs a measurement is not forecast while a job runs, and holds up no other one."""
    measuring: list[str] = []
    running = [True]

    def foresee(model: str, _params: Any, *, run: Run | None, near: bool) -> Plan:
        assert near
        if model == "sdxl":
            if run is not None and run.__class__ is not partial:
                run([])
            measuring.append(model)
        return Plan(model=model)

    with Studio(tmp_path / "home", executor="inline") as studio:
        monkeypatch.setattr(studio, "foresee", foresee)
        monkeypatch.setattr(studio.jobs, "find", lambda **_: ["a job"] if running[0] else [])
        monkeypatch.setattr(fits, "LOOK_S", 0.01)
        seen = Fits(studio)
        for model in ("sdxl", "starter-image"):
            assert seen.of(model) is None
        until("the one that needs nothing", lambda: seen.of("starter-image") is not None)
        assert seen.of("sdxl") is None
        assert measuring == []
        running[0] = False
        until("the other one", lambda: seen.of("sdxl") is not None)
        assert measuring == ["sdxl"]


def test_a_fresh_home_forecasts_the_whole_catalogue_without_a_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[object] = []
    monkeypatch.setattr(activations.subprocess, "run", lambda *given, **_: started.append(given))
    with Studio(tmp_path / "home", executor="inline") as studio:
        seen = Fits(studio)
        for spec in studio.models:
            seen.of(spec.id)
        until("all forecasts", lambda: all(seen.of(spec.id) for spec in studio.models))
    assert started == []


def written(tokens_per_s: float, tokens: int = 1000) -> Forecast:
    phase = Phase(name="generate", seconds=tokens / tokens_per_s, token_bytes=(0, 1))
    return Forecast("fits", Plan(model="m", seconds=9e9, phases=(phase,)), tokens=tokens)


@pytest.mark.parametrize(
    ("forecast", "english", "french"),
    [
        (Forecast("fits", Plan(model="m", seconds=3599.0)), "fits", "tient"),
        (Forecast("fits", Plan(model="m")), "fits", "tient"),
        (
            Forecast("streams", Plan(model="m", seconds=70_040.0)),
            "fits with streaming, but takes about 19 h",
            "tient par morceaux, mais prend environ 19 h",
        ),
        (
            Forecast("fits", Plan(model="m", seconds=1_181_652.0)),
            "fits, but takes about 14 days",
            "tient, mais prend environ 14 jours",
        ),
        (Forecast("no", Plan(model="m", seconds=9e9, fits=False)), "does not fit", "ne tient pas"),
        (written(0.6), "fits", "tient"),
        (written(0.26), "fits, but writes 0.3 tokens/s", "tient, mais écrit 0,3 jeton/s"),
    ],
)
def test_what_fits_but_takes_hours_says_so(forecast: Forecast, english: str, french: str) -> None:
    for language, words in (("en", english), ("fr", french)):
        mark = badge(forecast, words_of(language))
        assert f">{words}<" in mark
        assert ('slow"' in mark) == ("," in english)


def test_how_fast_a_text_is_written_follows_from_its_forecast(tmp_path: Path) -> None:
    with Studio(tmp_path / "home", executor="inline") as studio:
        short, long = (Fits(studio).ask("starter-text", {"max_tokens": tokens}) for tokens in (100, 1000))
        line = forecast_line(House(studio), short, words_of("en"), "starter-text")
    assert short.plan is not None
    assert short.tokens_per_s is not None
    assert short.tokens_per_s == pytest.approx(long.tokens_per_s, rel=0.2)
    assert not short.slow
    assert "up to " in line
