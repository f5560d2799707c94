"""Training that is cut and resumed, for the tests of both trainers of starter models."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

import pytest

from starter_training import Stopped, Training

T = TypeVar("T", bound=Training)


def trained(fresh: Callable[[], T], steps: Mapping[str, int], cuts: tuple[int, ...] = ()) -> T:
    """A whole run, cut after each of the given steps and resumed by a new trainer."""
    for cut in (*cuts, -1):
        trainer = fresh()
        if trainer.checkpoint.exists():
            trainer.load()
        else:
            trainer.plan = dict(steps)
        trainer.stop_after = cut
        if cut < 0:
            trainer.run()
        else:
            with pytest.raises(Stopped):
                trainer.run()
    return trainer
