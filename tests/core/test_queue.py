"""The queue without a runner: what is accepted, its order, its ends, and what a late reader sees."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from studio.core import Studio
from studio.errors import BadRequest, Conflict, NotFound
from studio.events import Artefact, Done, Event, Failed, Progress, Queued, Token
from studio.jobs.model import JobRow, Request, request_sha256
from studio.jobs.queue import INTERRUPTIONS_BEFORE_YIELDING, MAX_INTERRUPTIONS, JobQueue
from studio.store.artefacts import ArtefactStore
from studio.store.database import Database
from studio.store.home import Home


@pytest.fixture
def queue(home: Path) -> Iterator[JobQueue]:
    place = Home(home)
    database = Database(place.database)
    yield JobQueue(database, ArtefactStore(place, database))
    database.close()


def ask(name: str = "x", **more: object) -> Request:
    params = {"prompt": name}
    return Request.model_validate(
        {"model": "toy", "params": params, "request_sha256": request_sha256("toy", params), **more}
    )


def add(queue: JobQueue, name: str = "x", **more: object) -> JobRow:
    [row] = queue.submit([ask(name, **more)])
    return row


def order(queue: JobQueue) -> list[str]:
    """What would be worked off, in order."""
    found = []
    while (job := queue.claim()) is not None:
        found.append(str(job.params["prompt"]))
        assert queue.append(job, [Done()])
    return found


def story(queue: JobQueue, job: JobRow) -> list[Event]:
    return [event for _, event in queue.events(job.id)]


def test_priority_first_then_the_order_of_asking(queue: JobQueue) -> None:
    for name, priority in (("a", 0), ("b", 0), ("c", 5), ("d", -1), ("e", 5)):
        add(queue, name, priority=priority)
    assert order(queue) == ["c", "e", "a", "b", "d"]


def test_moving(queue: JobQueue) -> None:
    rows = {name: add(queue, name) for name in "abcde"}
    queue.move_first(rows["d"].id)
    queue.move_after(rows["a"].id, rows["c"].id)
    queue.move_after(rows["b"].id, rows["e"].id)
    assert order(queue) == ["d", "c", "a", "e", "b"]


def test_moving_behind_a_job_takes_its_priority(queue: JobQueue) -> None:
    urgent, other, late = add(queue, "urgent", priority=3), add(queue, "other"), add(queue, "late")
    queue.move_after(late.id, urgent.id)
    queue.set_priority(other.id, 9)
    assert order(queue) == ["other", "urgent", "late"]


def test_many_moves_into_one_gap_keep_the_order(queue: JobQueue) -> None:
    first, last = add(queue, "first"), add(queue, "last")
    names = [f"n{number}" for number in range(150)]
    for name in names:
        queue.move_after(add(queue, name).id, first.id)
    assert order(queue) == ["first", *reversed(names), "last"]
    assert queue.get(last.id).state == "done"


def test_the_same_key_is_the_same_job(queue: JobQueue) -> None:
    first, second = add(queue, "x", idempotency_key="k"), add(queue, "x", idempotency_key="k")
    assert first.id == second.id
    with pytest.raises(Conflict, match=f"'k' belongs to another request \\(job {first.id}\\)"):
        add(queue, "y", idempotency_key="k")
    assert add(queue, "x").id != first.id, "without a key it is a new job"
    assert len(queue.find()) == 2


def test_a_conflict_undoes_everything_that_was_asked_with_it(queue: JobQueue) -> None:
    add(queue, "x", idempotency_key="k")
    with pytest.raises(Conflict):
        queue.submit([ask("new"), ask("y", idempotency_key="k")])
    assert [row.params["prompt"] for row in queue.find()] == ["x"]


def test_a_hundred_at_the_same_time_with_one_key(home: Path, plugins: Path) -> None:
    """From two engines and many threads, through the whole way of a request."""
    ids: list[str] = []
    with Studio(home, executor="inline") as one, Studio(home, executor="inline") as two:

        def ask_for_it(number: int) -> None:
            ids.append((one, two)[number % 2].submit("toy", words=3, idempotency_key="one-and-only").id)

        threads = [threading.Thread(target=ask_for_it, args=(number,)) for number in range(100)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(ids) == 100 and len(set(ids)) == 1
        assert len(one.jobs.get(ids[0]).result()) == 1
        assert len(one.artefacts.newest()) == 1


def test_a_key_remembers_the_request_not_the_drawn_seed(inline: Studio) -> None:
    first = inline.submit("toy", words=3, idempotency_key="k")
    assert inline.submit("toy", words=3, idempotency_key="k").id == first.id
    assert isinstance(first.row.params["seed"], int)
    with pytest.raises(Conflict):
        inline.submit("toy", words=4, idempotency_key="k")


def test_cancelling(queue: JobQueue) -> None:
    waiting, running = add(queue, "waiting"), add(queue, "running", priority=1)
    claimed = queue.claim()
    assert claimed is not None and claimed.id == running.id
    assert queue.cancel(waiting.id) and queue.cancel(running.id)
    assert not queue.cancel(waiting.id), "it has ended already"
    assert queue.claim() is None
    assert not queue.append(claimed, [Token(text="late")]), "what the runner still writes has no effect"
    assert not queue.append(claimed, [Done()])
    assert queue.get(running.id).state == "cancelled"
    assert [event.event for event in story(queue, running)] == ["queued", "failed"]
    with pytest.raises(NotFound, match="There is no job 'nothing'"):
        queue.cancel("nothing")


def test_what_waits_for_a_job_that_fails_fails_too(queue: JobQueue) -> None:
    a = add(queue, "a", step="idea")
    b = add(queue, "b", step="picture", needs={"idea": a.id})
    c = add(queue, "c", needs={"picture": b.id})
    other = add(queue, "other")
    job = queue.claim()
    assert job is not None and queue.append(job, [Failed(error="No.")])
    assert [queue.get(row.id).state for row in (a, b, c, other)] == ["failed", "failed", "failed", "queued"]
    assert queue.get(b.id).error == "It needs idea, which was not done."
    assert queue.get(c.id).error == "It needs picture, which was not done."


def test_a_job_waits_for_what_it_needs(queue: JobQueue) -> None:
    a, b = add(queue, "a"), add(queue, "b")
    add(queue, "c", priority=9, needs={"a": a.id, "b": b.id})
    assert order(queue) == ["a", "b", "c"]


def test_retry_begins_anew_and_takes_its_needs_along(queue: JobQueue) -> None:
    a = add(queue, "a")
    b = add(queue, "b", needs={"a": a.id})
    queue.cancel(a.id)
    assert queue.get(b.id).state == "failed"
    row = queue.retry(b.id)
    assert (row.state, row.error, row.crashes) == ("queued", "", 0)
    assert queue.get(a.id).state == "queued", "or b could never start"
    assert order(queue) == ["a", "b"]
    assert [event.event for event in story(queue, row)] == ["queued", "failed", "queued", "done"]
    assert queue.retry(add(queue, "fresh").id).attempt == 0, "a job that waits is left as it is"


def test_asking_again_queues_what_failed(queue: JobQueue) -> None:
    row = add(queue, "x", idempotency_key="k")
    queue.cancel(row.id)
    assert add(queue, "x", idempotency_key="k").state == "cancelled"
    [again] = queue.submit([ask("x", idempotency_key="k")], again=True)
    assert (again.id, again.state) == (row.id, "queued")
    assert order(queue) == ["x"]
    [done] = queue.submit([ask("x", idempotency_key="k")], again=True)
    assert done.state == "done", "what is done is not done again"


def test_an_attempt_that_was_overtaken_has_no_effect(queue: JobQueue) -> None:
    add(queue)
    old = queue.claim()
    assert old is not None
    queue.recover()
    new = queue.claim()
    assert new is not None and (old.id, old.attempt, new.attempt) == (new.id, 1, 2)
    assert not queue.append(old, [Done()]) and not queue.is_running(old)
    queue.crashed(old, "late news")
    queue.release(old)
    assert queue.get(new.id).state == "running" and queue.get(new.id).crashes == 0
    assert queue.append(new, [Done()])


def test_a_new_attempt_voids_what_the_last_one_made(queue: JobQueue) -> None:
    row = add(queue)
    made = Artefact(path="/x", media_type="text/plain", id=f"{row.id}-1", content_sha256="0")
    job = queue.claim()
    assert job is not None and queue.append(job, [made], [(1, made)])
    assert [one.id for one in queue._artefacts.of_job(row.id)] == [made.id]
    queue.crashed(job, "signal 9")
    assert queue.claim() is not None
    assert queue._artefacts.of_job(row.id) == [], "it may make less this time"


def test_two_crashes_are_quarantine(queue: JobQueue) -> None:
    row = add(queue)
    other = add(queue, "other", needs={"x": row.id})
    for crashes in (1, 2):
        job = queue.claim()
        assert job is not None and job.id == row.id
        queue.crashed(job, "signal 11")
        assert queue.get(row.id).crashes == crashes
    ended = queue.get(row.id)
    assert ended.state == "quarantined" and "signal 11" in ended.error and ended.hint
    assert queue.get(other.id).state == "failed"
    assert queue.retry(row.id).crashes == 0


def test_an_interruption_is_no_crash_but_is_counted(queue: JobQueue) -> None:
    row = add(queue, "unlucky")
    assert queue.claim() is not None
    assert [left.id for left in queue.recover()] == [row.id]
    now = queue.get(row.id)
    assert (now.state, now.crashes, now.interruptions) == ("queued", 0, 1)
    assert queue.recover() == [], "nothing is running now"


def test_often_interrupted_it_lets_others_go_first_and_in_the_end_is_set_aside(queue: JobQueue) -> None:
    row, other = add(queue, "unlucky"), add(queue, "other", priority=-1)
    for count in range(1, MAX_INTERRUPTIONS + 1):
        if count == INTERRUPTIONS_BEFORE_YIELDING:
            queue.set_priority(other.id, 0)
        job = queue.claim()
        assert job is not None
        if job.id == other.id:
            assert count == INTERRUPTIONS_BEFORE_YIELDING + 1, "right after it yields"
            assert queue.append(job, [Done()])
            job = queue.claim()
            assert job is not None
        queue.recover()
        assert queue.get(row.id).interruptions == count
    assert queue.get(other.id).state == "done"
    assert queue.get(row.id).state == "quarantined"
    assert f"{MAX_INTERRUPTIONS} times" in queue.get(row.id).error


def test_closing_is_nobodys_fault(queue: JobQueue) -> None:
    add(queue)
    job = queue.claim()
    assert job is not None
    queue.release(job)
    now = queue.get(job.id)
    assert (now.state, now.crashes, now.interruptions, now.attempt) == ("queued", 0, 0, 1)


def test_a_late_reader_sees_the_whole_story(inline: Studio) -> None:
    job = inline.submit("toy", words=5, seed=1)
    live = list(job.events())
    assert list(job.events()) == live == list(inline.jobs.get(job.id).events())
    numbers = [number for number, _ in inline.follow(job.id)]
    assert numbers == list(range(1, len(live) + 1))
    assert [event for _, event in inline.follow(job.id, after=numbers[-2])] == live[-1:]


def test_a_reader_who_has_seen_everything_is_told_so(inline: Studio) -> None:
    job = inline.submit("toy", words=1)
    count = len(list(job.events()))
    assert list(job.events(after=count)) == []


def test_events_are_numbered_across_attempts(queue: JobQueue) -> None:
    add(queue)
    job = queue.claim()
    assert job is not None
    queue.append(job, [Progress(phase="load"), Token(text="lost")])
    queue.crashed(job, "signal 9")
    job = queue.claim()
    assert job is not None
    queue.append(job, [Token(text="kept"), Done(seconds={"total": 1})])
    assert [number for number, _ in queue.events(job.id)] == list(range(1, 7))
    assert [event.attempt for event in story(queue, job) if isinstance(event, Queued)] == [1, 2]


def test_ids_may_be_shortened_but_not_guessed(queue: JobQueue) -> None:
    row = add(queue)
    assert queue.get(row.id[:4]).id == row.id
    for name in (row.id[:3], "", "%", "____", row.id + "0", "' OR 1=1 --"):
        with pytest.raises(NotFound):
            queue.get(name)
    twin = add(queue, id=row.id[:6] + "zzzzzz")
    with pytest.raises(NotFound):
        queue.get(row.id[:5])
    assert queue.get(row.id[:6] + "z").id == twin.id


def test_finding(queue: JobQueue) -> None:
    a, b = add(queue, "a", batch="one"), add(queue, "b", batch="two")
    queue.cancel(a.id)
    assert [row.id for row in queue.find()] == [b.id, a.id]
    assert [row.id for row in queue.find(states=["cancelled"])] == [a.id]
    assert [row.id for row in queue.find(batch="two", states=["queued", "running"])] == [b.id]
    assert queue.find(states=["no such state"]) == [] and len(queue.find(limit=1)) == 1
    assert queue.counts() == {"cancelled": 1, "queued": 1}


def test_a_full_queue_refuses_new_jobs_only(home: Path, plugins: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("studio.core.MAX_QUEUED", 3)
    with Studio(home, executor="inline") as studio:
        monkeypatch.setattr(studio, "work", lambda: None)  # nothing leaves the queue
        ids = [studio.submit("toy", idempotency_key=str(number)).id for number in range(3)]
        with pytest.raises(BadRequest, match="holds 3 jobs and this would add 1; the limit is 3"):
            studio.submit("toy")
        assert studio.submit("toy", idempotency_key="2").id == ids[2], "it is there already"
        studio.jobs.get(ids[0]).cancel()
        assert studio.submit("toy").state == "queued"
        with pytest.raises(BadRequest):
            studio.submit_all([studio.request("toy", {}, idempotency_key="0")], again=True)


def test_a_job_on_a_closed_engine_goes_on_with_the_next(home: Path, plugins: Path) -> None:
    with Studio(home, executor="inline") as studio:
        [row] = studio.queue.submit([studio.request("toy", {"words": 2})])
    with Studio(home, executor="inline") as studio:
        job = studio.jobs.get(row.id)
        assert job.state == "queued" and "queued" in repr(job)
        assert job.result()[0].text
