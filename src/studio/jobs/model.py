"""The plain data of jobs: what is asked for, what the queue knows, what an executor is handed."""

from __future__ import annotations

import hashlib
import json
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

State = Literal["queued", "running", "done", "failed", "cancelled", "quarantined"]
ENDED: frozenset[str] = frozenset({"done", "failed", "cancelled", "quarantined"})


class Request(BaseModel):
    """A checked request, ready to be queued. ``needs`` maps a step name to the job that it stands for.

    ``run_anyway``: it runs even where no plan fits.
    """

    model_config = ConfigDict(frozen=True)

    model: str
    params: dict[str, Any]
    request_sha256: str
    priority: int = 0
    idempotency_key: str | None = None
    batch: str | None = None
    step: str | None = None
    needs: dict[str, str] = Field(default_factory=dict)
    run_anyway: bool = False
    id: str = ""


class JobRow(BaseModel):
    """A job as the queue knows it. Times are seconds since 1970; ``attempt`` counts from 1 once it ran."""

    model_config = ConfigDict(frozen=True)

    id: str
    model: str
    params: dict[str, Any]
    state: State
    priority: int
    position: float
    attempt: int
    crashes: int
    interruptions: int
    idempotency_key: str | None
    request_sha256: str
    batch: str | None
    step: str | None
    error: str
    hint: str
    created: float
    started: float | None
    finished: float | None
    run_anyway: bool = False

    @property
    def ended(self) -> bool:
        return self.state in ENDED


class Task(BaseModel):
    """What an executor needs to do one attempt of one job."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    model: str
    params: dict[str, Any]
    attempt: int
    run_anyway: bool = False


def request_sha256(model: str, params: dict[str, Any], *, run_anyway: bool = False) -> str:
    """The identity of a request: the same model and the same parameters as they were written."""
    insists = {"run_anyway": True} if run_anyway else {}
    text = json.dumps({"model": model, "params": params, **insists}, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
