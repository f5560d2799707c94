"""What the buttons of the lists do. Each names its job, model, artefact or conversation by id; nothing is guessed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from studio.errors import BadRequest
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.tabs.make import PERSON_WAITS

UNLOAD_S = 4.0

Asked = Mapping[str, Any]


def do(house: House, say: Words, asked: Asked) -> str:
    """Do it and return what to tell the person, or "". ``BadRequest`` for what does not exist or cannot be now."""
    action = _ACTIONS.get(str(asked.get("do", "")))
    if action is None:
        raise BadRequest(f"There is no action {str(asked.get('do'))[:40]!r}.", f"There are: {', '.join(_ACTIONS)}.")
    return action(house, say, asked)


def _id(asked: Asked, name: str = "id") -> str:
    value = asked.get(name)
    if not isinstance(value, str) or not value or len(value) > 200:
        raise BadRequest(f"The action needs {name!r}.", "Reload the page.")
    return value


def _cancel(house: House, say: Words, asked: Asked) -> str:
    return "" if house.studio.queue.cancel(_id(asked)) else say("said.ended")


def _retry(house: House, say: Words, asked: Asked) -> str:
    house.studio.queue.retry(_id(asked))
    house.studio.work()
    return say("said.queued")


def _again(house: House, say: Words, asked: Asked) -> str:
    """The same request once more, from a job or from an artefact: the same seed gives the same result."""
    if "artefact" in asked:
        recipe = house.studio.artefacts.get(_id(asked, "artefact")).recipe
        model, params = str(recipe["model"]), dict(recipe["params"])
    else:
        row = house.studio.queue.get(_id(asked))
        if house.studio.queue.needs(row.id):
            raise BadRequest("This job was fed by others of its batch.", "Run the batch again.")
        model, params = row.model, row.params
    house.studio.submit(model, priority=PERSON_WAITS, **params)
    return say("said.queued")


def _anyway(house: House, say: Words, asked: Asked) -> str:
    """A request that no plan fits, with the nearest one that would."""
    row = house.studio.queue.get(_id(asked))
    house.studio.submit(row.model, priority=PERSON_WAITS, run_anyway=True, **row.params)
    house.studio.work()
    return say("said.queued")


def _send(house: House, say: Words, asked: Asked) -> str:
    """A result to the model that needs nothing else."""
    made = house.studio.artefacts.get(_id(asked, "artefact"))
    target = house.targets.direct(made.media_type)
    if target is None:
        raise BadRequest(say("gallery.no_use"))
    given: dict[str, Any] = {target.field: made.path}
    house.studio.submit(target.model, priority=PERSON_WAITS, **given)
    house.studio.work()
    return say("said.queued")


def _cancel_batch(house: House, say: Words, asked: Asked) -> str:
    rows = house.studio.jobs.find(batch=_id(asked, "batch"))
    stopped = [row for row in rows if not row.ended and house.studio.queue.cancel(row.id)]
    return "" if stopped else say("said.ended")


def _first(house: House, _say: Words, asked: Asked) -> str:
    queue = house.studio.queue
    waiting = queue.find(states=["queued"])
    row = queue.get(_id(asked))
    queue.set_priority(row.id, max([job.priority for job in waiting] + [row.priority]))
    queue.move_first(row.id)
    return ""


def _up(house: House, say: Words, asked: Asked) -> str:
    order, place = _order(house, asked)
    if place > 1:
        house.studio.queue.move_after(order[place], order[place - 2])
    elif place == 1:
        return _first(house, say, asked)
    return ""


def _down(house: House, _say: Words, asked: Asked) -> str:
    order, place = _order(house, asked)
    if place < len(order) - 1:
        house.studio.queue.move_after(order[place], order[place + 1])
    return ""


def _order(house: House, asked: Asked) -> tuple[list[str], int]:
    """The waiting jobs as they will run, and the place of the one that is meant."""
    waiting = sorted(house.studio.queue.find(states=["queued"]), key=lambda row: (-row.priority, row.position))
    order, job = [row.id for row in waiting], house.studio.queue.get(_id(asked)).id
    if job not in order:
        raise BadRequest(f"The job {job} does not wait any more.", "Only waiting jobs can be moved.")
    return order, order.index(job)


def _pause(house: House, say: Words, _asked: Asked) -> str:
    house.studio.queue.pause(True)
    return say("said.paused")


def _resume(house: House, say: Words, _asked: Asked) -> str:
    house.studio.queue.pause(False)
    house.studio.work()
    return say("said.resumed")


def _unload(house: House, say: Words, _asked: Asked) -> str:
    """Give the card back by a short pause, which ends the worker. Refused while a job runs: it would begin anew."""
    queue = house.studio.queue
    if queue.find(states=["running"], limit=1):
        raise BadRequest(say("said.unload_busy"))
    if not queue.paused:
        queue.pause(True)
        try:
            end = time.monotonic() + UNLOAD_S
            while queue.note("loaded") and time.monotonic() < end:
                house.studio.database.wait(0.05)
        finally:
            queue.pause(False)
    return say("said.unloaded")


def _pull(house: House, say: Words, asked: Asked) -> str:
    house.pulls.start(_id(asked))
    return say("said.pulling")


def _stop_pull(house: House, say: Words, asked: Asked) -> str:
    return say("said.pull_stopped") if house.pulls.stop(_id(asked)) else say("said.ended")


def _remove(house: House, say: Words, asked: Asked) -> str:
    freed = house.studio.models.remove(_id(asked))
    return say("said.removed", size=say.size(freed))


def _delete(house: House, say: Words, asked: Asked) -> str:
    house.studio.made.delete(_id(asked, "artefact"))
    return say("said.deleted")


def _delete_chat(house: House, say: Words, asked: Asked) -> str:
    house.chats.delete(_id(asked, "chat"))
    return say("said.deleted")


def _branch(house: House, _say: Words, asked: Asked) -> str:
    with house.chats.change(_id(asked, "chat")) as chat:
        chat.show(_id(asked, "turn"))
    return ""


_ACTIONS: dict[str, Callable[[House, Words, Asked], str]] = {
    "cancel": _cancel, "retry": _retry, "again": _again, "first": _first, "up": _up, "down": _down, "pause": _pause,
    "resume": _resume, "unload": _unload, "pull": _pull, "remove": _remove, "delete": _delete,
    "anyway": _anyway, "send": _send, "stop-pull": _stop_pull, "cancel-batch": _cancel_batch,
    "delete-chat": _delete_chat, "branch": _branch,
}  # fmt: skip
