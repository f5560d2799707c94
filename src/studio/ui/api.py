"""Named endpoints for programs: ``gradio_client.Client(url).predict(model, params, api_name="/run")``.

    /run      (model, params)  wait for it: {"job", "state", "text", "artefacts": [{id, url, file, media_type}], ...}
    /submit   (model, params)  queue it: {"job", "state"}
    /job      (job)            how it stands, with the same fields as /run
    /cancel   (job)            {"job", "cancelled"}
    /plan     (model, params)  what it would take
    /models   ()               the catalogue
    /files    (job)            the addresses of the files that a job made, below the page's own

``params`` is the JSON that every other face takes; files are paths on the machine that runs Studio, or what the client
uploads: ``{"image": gradio_client.handle_file("mine.png")}``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr
from gradio.events import api

from studio.errors import StudioError
from studio.jobs.model import JobRow
from studio.ui.house import House
from studio.ui.tabs.make import PERSON_WAITS


def expose(house: House) -> None:
    """Add the endpoints to the page that is being built."""
    for call in (_run, _submit, _job, _cancel, _plan, _models, _files):
        api(_bound(house, call), api_name=call.__name__.strip("_"), concurrency_limit=None)


def _bound(house: House, call: Callable[..., Any]) -> Callable[..., Any]:
    """The function without its first parameter, with its type hints kept: Gradio derives the endpoint from them."""
    import inspect

    def bound(*args: Any) -> Any:
        try:
            return call(house, *(_with_paths(one) for one in args))
        except StudioError as error:
            raise gr.Error(str(error), print_exception=False) from None

    signature = inspect.signature(call, eval_str=True)
    bound.__signature__ = signature.replace(parameters=list(signature.parameters.values())[1:])  # type: ignore[attr-defined]
    bound.__annotations__ = {name: one.annotation for name, one in list(signature.parameters.items())[1:]}
    bound.__annotations__["return"] = signature.return_annotation
    bound.__name__, bound.__doc__ = call.__name__.strip("_"), call.__doc__
    return bound


def _with_paths(value: Any) -> Any:
    """An uploaded file as its path, wherever it stands in the parameters."""
    if isinstance(value, list):
        return [_with_paths(one) for one in value]
    if not isinstance(value, dict):
        return value
    meta = value.get("meta")
    if isinstance(meta, dict) and meta.get("_type") == "gradio.FileData":
        return value.get("path")
    return {name: _with_paths(one) for name, one in value.items()}


def _run(house: House, model: str, params: dict) -> dict:  # type: ignore[type-arg]
    """Make it and wait for its end."""
    job = house.studio.submit(model, priority=PERSON_WAITS, **params)
    for _ in job.events():
        pass
    return _told(house, job.row)


def _submit(house: House, model: str, params: dict) -> dict:  # type: ignore[type-arg]
    """Queue it and return at once."""
    return _told(house, house.studio.submit(model, priority=PERSON_WAITS, **params).row)


def _job(house: House, job: str) -> dict:  # type: ignore[type-arg]
    """How a job stands."""
    return _told(house, house.studio.queue.get(job))


def _cancel(house: House, job: str) -> dict:  # type: ignore[type-arg]
    """Cancel a job that waits or runs."""
    row = house.studio.queue.get(job)
    return {"job": row.id, "cancelled": house.studio.queue.cancel(row.id)}


def _plan(house: House, model: str, params: dict) -> dict:  # type: ignore[type-arg]
    """What a request would take; nothing is loaded."""
    return house.studio.forecast(model, **params).model_dump(mode="json")


def _models(house: House) -> list:  # type: ignore[type-arg]
    """All models with what they make and whether they are on this machine."""
    return [
        {
            "id": spec.id, "pipeline": spec.pipeline, "task": house.task(spec), "licence": spec.licence,
            "proof": spec.proof, "installed": house.studio.models.files(spec.id) is not None,
        }
        for spec in house.studio.models
    ]  # fmt: skip


def _files(house: House, job: str) -> list[str]:
    """The addresses, below the page's own, of the files that a job made."""
    return [f"studio/artefact/{made.id}" for made in house.studio.artefacts.of_job(house.studio.queue.get(job).id)]


def _told(house: House, row: JobRow) -> dict[str, Any]:
    story = house.stories.of(row)
    made = house.studio.artefacts.of_job(row.id)
    return {
        "job": row.id,
        "state": row.state,
        "model": row.model,
        "error": row.error,
        "hint": row.hint,
        "seed": row.params.get("seed"),
        "text": story.text,
        "thinking": story.thinking,
        "artefacts": [
            {
                "id": one.id, "url": f"studio/artefact/{one.id}", "file": one.path, "media_type": one.media_type,
                "content_sha256": one.content_sha256, "info": one.info,
            }
            for one in made
        ],
    }  # fmt: skip
