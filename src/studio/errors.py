"""What can go wrong, as people are told of it: one line that says what, and one that says the way out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class StudioError(Exception):
    """An expected failure. ``what`` names the thing, the value and the limit; ``hint`` the way out; ``field`` the
    parameter that it is about, where it is about one.

    Users see these two lines and never a traceback. Any other exception is a bug: the log keeps its
    traceback and the user is pointed to the log.
    """

    exit_code = 1

    def __init__(self, what: str, hint: str = "", *, field: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.field = field

    def __str__(self) -> str:
        return f"{self.what} {self.hint}".strip()


class BadRequest(StudioError):
    """Refused before anything was queued or loaded."""

    exit_code = 2


class NotFound(BadRequest):
    """A model, job, artefact or pipeline of that name does not exist."""


class MissingWeights(BadRequest):
    """The model is known but its files are not on this machine."""


class BadWeights(BadRequest):
    """A model file is truncated, corrupt or not what its name says."""


class DoesNotFit(StudioError):
    """No plan holds within the limits; ``hint`` names the nearest thing that would."""


class NoSpace(StudioError):
    """The disk is full, or too full for what is asked."""


class Conflict(BadRequest):
    """The request contradicts something that was accepted before."""


class Cancelled(StudioError):
    """Raised inside a running job when somebody cancelled it."""

    def __init__(self) -> None:
        super().__init__("Cancelled.")


class JobFailed(StudioError):
    """A job that was waited for did not end as ``done``."""

    def __init__(self, what: str, hint: str = "", *, job_id: str = "", state: str = "failed") -> None:
        super().__init__(what, hint)
        self.job_id = job_id
        self.state = state


def nearest(name: str, names: Iterable[str]) -> str:
    """A hint that offers the names closest to ``name``: ``"Did you mean a or b?"``."""
    known = sorted(names)
    close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return f"Did you mean {' or '.join(close)}?"
    if len(known) > 8:
        return f"There are, among others: {', '.join(known[:8])}."
    return f"There are: {', '.join(known) or 'none'}."
