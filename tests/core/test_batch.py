"""Batches: checked whole before anything is queued, chained, and run again without doing anything twice."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from PIL import Image

from studio.batch import read_batch, submit_batch
from studio.core import Studio
from studio.errors import BadRequest, StudioError
from studio.events import Artefact
from studio.jobs.references import attribute_of, references, substitute
from toolbox import Cli, lines_of, until


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def write(content: object, name: str = "batch.yaml") -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
        return path

    return write


def done(studio: Studio, path: Path) -> dict[str, Artefact]:
    """Run a file to its end; each step's first artefact."""
    rows = submit_batch(studio, path)
    return {str(row.step): studio.jobs.get(row.id).result()[0] for row in rows}


CHAIN = {
    "defaults": {"model": "faulty"},
    "jobs": [
        {"id": "last", "params": {"prompt": "after [${second.text}] and $${plain}"}},
        {"id": "second", "params": {"prompt": "then ${first.text} and ${ first.id }"}},
        {"id": "first", "params": {"prompt": "one"}},
    ],
}


def test_a_chain_in_any_order_of_writing(inline: Studio, write: Any) -> None:
    made = done(inline, write(CHAIN))
    assert made["first"].text == "one 1"
    assert made["second"].text == f"then one 1 and {made['first'].id} 1"
    assert made["last"].text == f"after [then one 1 and {made['first'].id} 1] and ${{plain}} 1"


def test_text_to_text_with_the_toy(inline: Studio, write: Any) -> None:
    jobs = [
        {"id": "idea", "params": {"prompt": "sea", "words": 3, "seed": 1}},
        {"id": "story", "needs": ["idea"], "params": {"prompt": "${idea.text}", "seed": 2}},
    ]
    made = done(inline, write({"defaults": {"model": "toy"}, "jobs": jobs}))
    assert made["story"].recipe["params"]["prompt"] == made["idea"].text


def test_a_picture_is_handed_on_by_its_path(inline: Studio, write: Any) -> None:
    jobs = [
        {"id": "picture", "params": {"picture": True}},
        {"id": "look", "params": {"image": "${picture.path}"}},
    ]
    made = done(inline, write({"defaults": {"model": "faulty"}, "jobs": jobs}))
    size = Path(made["picture"].path).stat().st_size
    assert made["look"].text == f"x 1 {size}"
    assert list(made["look"].recipe["inputs"])


def test_the_text_of_a_picture_fails_its_step_with_the_way_out(inline: Studio, write: Any) -> None:
    jobs = [{"id": "picture", "params": {"picture": True}}, {"id": "say", "params": {"prompt": "${picture.text}"}}]
    rows = submit_batch(inline, write({"defaults": {"model": "faulty"}, "jobs": jobs}))
    with pytest.raises(StudioError, match=r"which is no text\. Use \$\{picture\.path\}"):
        inline.jobs.get(rows[1].id).result()


def test_a_reference_to_the_wrong_kind_of_file_is_checked_when_it_exists(inline: Studio, write: Any) -> None:
    jobs = [{"id": "text"}, {"id": "look", "params": {"image": "${text.path}"}}]
    rows = submit_batch(inline, write({"defaults": {"model": "faulty"}, "jobs": jobs}))
    with pytest.raises(StudioError, match=r"is text/plain by its content. Accepted here: image/png"):
        inline.jobs.get(rows[1].id).result()


def test_the_matrix_is_every_combination_and_the_last_key_changes_fastest(write: Any) -> None:
    name, steps = read_batch(
        write(
            {
                "name": "many things",
                "defaults": {"model": "toy", "params": {"words": 5, "seed": 1}, "priority": 2},
                "jobs": [
                    {"id": "many", "matrix": {"prompt": ["a", "b"], "words": [1, 2, 3]}, "params": {"seed": 9}},
                    {"model": "other", "priority": 7},
                ],
            }
        )
    )
    assert name == "many things"
    assert [step.name for step in steps] == [f"many.{number}" for number in range(1, 7)] + ["job-2"]
    points = [(step.params["prompt"], step.params["words"], step.params["seed"]) for step in steps[:6]]
    assert points == [(p, w, 9) for p in "ab" for w in (1, 2, 3)]
    assert (steps[0].model, steps[0].priority) == ("toy", 2)
    assert (steps[6].model, steps[6].priority, steps[6].params) == ("other", 7, {"words": 5, "seed": 1})


def test_needing_a_matrix_is_needing_all_of_it(inline: Studio, write: Any) -> None:
    jobs = [
        {"id": "sum", "needs": ["many"], "params": {"prompt": "${many.2.text}"}},
        {"id": "many", "matrix": {"prompt": ["a", "b", "c"]}},
    ]
    rows = submit_batch(inline, write({"defaults": {"model": "faulty"}, "jobs": jobs}))
    [last] = [row for row in rows if row.step == "sum"]
    assert set(inline.queue.needs(last.id)) == {"many.1", "many.2", "many.3"}
    assert inline.jobs.get(last.id).result()[0].text == "b 1 1"


BAD: list[tuple[str, Any, str]] = [
    ("cycle", {"jobs": [{"id": "a", "needs": ["b"]}, {"id": "b", "needs": ["a"]}]}, "in a circle: "),
    ("self", {"jobs": [{"id": "a", "params": {"prompt": "${a.text}"}}]}, "in a circle: a → a"),
    ("missing", {"jobs": [{"id": "a", "params": {"prompt": "${b.text}"}}]}, "refers to ${b.text}, but there is no job"),
    ("near", {"jobs": [{"id": "idea"}, {"id": "b", "params": {"prompt": "${ide.text}"}}]}, "Did you mean idea"),
    ("needs", {"jobs": [{"id": "a", "needs": ["c"]}]}, "a needs 'c', which is no job here"),
    ("twice", {"jobs": [{"id": "a"}, {"id": "a"}]}, "two jobs have the id 'a'"),
    ("attribute", {"jobs": [{"id": "a"}, {"id": "b", "params": {"prompt": "${a.size}"}}]}, "${a.size} cannot be read"),
    ("unread", {"jobs": [{"id": "a", "params": {"prompt": "${}"}}]}, "${} cannot be read"),
    ("no dot", {"jobs": [{"id": "a", "params": {"prompt": "${HOME}"}}]}, "$${ for a plain ${"),
    (
        "matrix",
        {"jobs": [{"id": "m", "matrix": {"prompt": ["a"]}}, {"id": "b", "params": {"prompt": "${m.text}"}}]},
        "m is a matrix: write ${m.1.text}",
    ),
    (
        "both",
        {"jobs": [{"id": "a", "params": {"prompt": "a"}, "matrix": {"prompt": ["b"]}}]},
        "in params and in matrix",
    ),
    ("model", {"defaults": {}, "jobs": [{"id": "a"}]}, "names no model"),
    ("unknown model", {"jobs": [{"id": "a", "model": "faulti"}]}, "Did you mean faulty"),
    ("unknown key", {"jobs": [{"id": "a", "parms": {}}]}, "jobs.1.parms"),
    ("unknown param", {"jobs": [{"id": "a", "params": {"promt": "x"}}]}, "Did you mean prompt"),
    (
        "value",
        {"jobs": [{"id": "a"}, {"id": "b", "params": {"outputs": 21}}]},
        "b: outputs is 21; the limit is at most",
    ),
    ("file", {"jobs": [{"id": "a", "params": {"image": "/nowhere.png"}}]}, "a: image: there is no file"),
    ("true", {"jobs": [{"id": "a", "params": {"outputs": True}}]}, "outputs is true"),
    ("text", {"jobs": [{"id": "a", "params": {"outputs": "3"}}]}, 'outputs is "3"'),
    ("nan", "defaults: {model: toy}\njobs: [{id: a, params: {words: .nan}}]", "words is NaN"),
    ("date", "defaults: {model: toy}\njobs: [{id: a, params: {prompt: 2024-01-01}}]", "not plain data"),
    ("empty", {"jobs": []}, "jobs: "),
    ("nothing", "", "the file: "),
    ("list", "- a\n- b", "the file: "),
    ("yaml", "jobs: [", "is not valid YAML"),
    ("tag", "jobs: !!python/object/apply:os.system ['true']", "is not valid YAML"),
    ("bad id", {"jobs": [{"id": "a b"}]}, "other characters than letters"),
    ("number as id", {"jobs": [{"id": 7}]}, "jobs.1.id"),
    ("itself", "defaults: {model: toy}\njobs:\n- params: &x {prompt: *x}\n", "contain themselves"),
    ("deep", "jobs: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
]


@pytest.mark.parametrize(("content", "words"), [bad[1:] for bad in BAD], ids=[bad[0] for bad in BAD])
def test_a_bad_file_is_one_line_and_queues_nothing(inline: Studio, write: Any, content: Any, words: str) -> None:
    if isinstance(content, dict) and "defaults" not in content:
        content = {"defaults": {"model": "faulty"}, **content}
    with pytest.raises(BadRequest) as caught:
        submit_batch(inline, write(content))
    line = str(caught.value)
    assert words in line and "\n" not in line and "batch.yaml" in line
    assert inline.jobs.find() == [] and list(inline.home.inputs.iterdir()) == []


def test_files_that_cannot_be_read(inline: Studio, tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(BadRequest, match="There is no file"):
            submit_batch(inline, path)
    (tmp_path / "latin.yaml").write_bytes(b"jobs: [{id: caf\xe9}]")
    with pytest.raises(BadRequest, match="is not valid YAML"):
        submit_batch(inline, tmp_path / "latin.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 1_000_001)
    with pytest.raises(BadRequest, match="has 1,000,001 bytes; the limit is 1,000,000"):
        submit_batch(inline, tmp_path / "large.yaml")


def test_a_thousand_and_one_jobs_and_a_matrix_without_end(inline: Studio, write: Any) -> None:
    large = {"jobs": [{"id": "m", "model": "toy", "matrix": {"seed": list(range(1001))}}]}
    with pytest.raises(BadRequest, match="more than 1000 jobs"):
        submit_batch(inline, write(large))
    endless = {"jobs": [{"model": "toy", "matrix": {f"p{key}": list(range(1000)) for key in range(10)}}]}
    with pytest.raises(BadRequest, match="more than 1000 jobs"):
        submit_batch(inline, write(endless))
    assert inline.jobs.find() == []


def test_aliases_that_unfold_to_a_billion_values(inline: Studio, write: Any) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10)]
    bomb = "defaults: {model: toy}\njobs:\n- id: a\n  params:\n" + "".join(f"    {line}\n" for line in lines)
    with pytest.raises(BadRequest, match="unfold to more than"):
        submit_batch(inline, write(bomb))
    friendly = "defaults: {model: toy}\njobs:\n- {id: a, params: &p {words: 2}}\n- {id: b, params: *p}\n"
    assert len(read_batch(write(friendly))[1]) == 2


def test_the_same_file_again_does_nothing(studio: Studio, write: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    params = {"journal": str(journal)}
    path = write({"jobs": [{"id": "m", "model": "faulty", "params": params, "matrix": {"prompt": list("abc")}}]})
    first = done(studio, path)
    assert done(studio, path) == first
    assert len(lines_of(journal)) == 3, "nothing was done twice"
    longer = {"jobs": [{"id": "m", "model": "faulty", "params": params, "matrix": {"prompt": list("abcd")}}]}
    assert len(done(studio, write(longer))) == 4
    assert [line.split()[2] for line in lines_of(journal)] == ["a", "b", "c", "d"], "only what was missing"


def test_another_name_is_another_batch(inline: Studio, write: Any) -> None:
    content = {"jobs": [{"id": "a", "model": "toy", "params": {"words": 1}}]}
    ids = {submit_batch(inline, write(content, name))[0].id for name in ("one.yaml", "two.yaml", "one.yaml")}
    assert len(ids) == 2
    named = submit_batch(inline, write({"name": "one", **content}, "three.yaml"))
    assert named[0].id in ids


def test_what_failed_is_tried_again_with_what_waited_for_it(studio: Studio, write: Any, tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    jobs = [
        {"id": "good", "params": {"prompt": "good", "journal": str(journal)}},
        {"id": "bad", "params": {"prompt": "bad", "fault": "plain", "attempts": 1, "journal": str(journal)}},
        {"id": "after", "needs": ["bad", "good"], "params": {"prompt": "after", "journal": str(journal)}},
    ]
    path = write({"defaults": {"model": "faulty"}, "jobs": jobs})
    rows = submit_batch(studio, path)
    for row in rows:
        list(studio.jobs.get(row.id).events())
    states = {row.step: studio.queue.get(row.id).state for row in rows}
    assert states == {"good": "done", "bad": "failed", "after": "failed"}
    assert len(done(studio, path)) == 3
    assert [line.split()[2] for line in lines_of(journal)] == ["good", "bad", "bad", "after"]


def test_a_deleted_output_is_made_again_before_what_needs_it(studio: Studio, write: Any, tmp_path: Path) -> None:
    """The second step failed at first; when the file is run again it must not find its need gone."""
    journal = tmp_path / "journal"
    jobs = [
        {"id": "one", "params": {"prompt": "one", "journal": str(journal)}},
        {"id": "two", "params": {"prompt": "two ${one.text}", "fault": "plain", "attempts": 1}},
    ]
    path = write({"defaults": {"model": "faulty"}, "jobs": jobs})
    rows = submit_batch(studio, path)
    for row in rows:
        list(studio.jobs.get(row.id).events())
    [lost] = studio.artefacts.of_job(rows[0].id)
    Path(lost.path).unlink()
    made = done(studio, path)
    assert Path(made["one"].path).is_file() and made["one"].content_sha256 == lost.content_sha256
    assert made["two"].text == "two one 1 1"
    assert len(lines_of(journal)) == 2


def test_a_large_batch_can_be_run_again_while_most_of_it_waits(
    home: Path, plugins: Path, write: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write({"jobs": [{"id": "m", "model": "toy", "params": {"words": 1}, "matrix": {"seed": list(range(1000))}}]})
    with Studio(home, executor="inline") as studio:
        monkeypatch.setattr(studio, "work", lambda: None)
        first = submit_batch(studio, path)
        assert [row.id for row in submit_batch(studio, path)] == [row.id for row in first]
        assert studio.queue.counts() == {"queued": 1000}


def test_an_input_file_of_a_waiting_batch_may_go(studio: Studio, write: Any, tmp_path: Path) -> None:
    picture, gate, journal = tmp_path / "p.png", tmp_path / "gate", tmp_path / "journal"
    Image.new("RGB", (4, 4)).save(picture)
    jobs = [
        {"id": "first", "params": {"wait_for": str(gate), "journal": str(journal)}},
        {"id": "second", "needs": ["first"], "params": {"image": str(picture)}},
    ]
    rows = submit_batch(studio, write({"defaults": {"model": "faulty"}, "jobs": jobs}))
    until("the first to begin", lambda: lines_of(journal))
    picture.unlink()
    gate.touch()
    assert studio.jobs.get(rows[1].id).result()


def test_two_threads_submit_the_same_file(inline: Studio, write: Any) -> None:
    path = write({**CHAIN, "name": "both"})
    found: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda: found.append([row.id for row in submit_batch(inline, path)])) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4 and len({tuple(ids) for ids in found}) == 1
    assert len(inline.jobs.find()) == 3


def test_the_command_line(cli: Cli, plugins: Path, write: Any, home: Path) -> None:
    jobs = [{"id": "a", "params": {"words": 3, "seed": 1}}, {"id": "b", "params": {"prompt": "${a.text}", "seed": 2}}]
    path = write({"defaults": {"model": "toy"}, "jobs": jobs})
    lines = [json.loads(line) for line in cli("batch", path, "--json", code=0).stdout.splitlines()]
    assert [line["event"] for line in lines].count("done") == 2
    again = cli("batch", path, code=0)
    assert "2 jobs, 2 already done" in again.stderr
    listed = json.loads(cli("jobs", "list", "--json", code=0).stdout)
    assert [row["step"] for row in listed] == ["b", "a"]
    assert all({"id", "state", "model", "created"} <= row.keys() and row["state"] == "done" for row in listed)
    jobs.append({"id": "c", "model": "faulty", "params": {"fault": "plain"}})
    failed = cli("batch", write({"defaults": {"model": "toy"}, "jobs": jobs}), code=1)
    assert "The moon is not in the sky." in failed.stderr
    refused = cli("batch", write({"jobs": [{"id": "a"}]}), code=2)
    assert len(refused.stderr.splitlines()) == 1 and "names no model" in refused.stderr


def test_references_in_any_depth() -> None:
    value = {"a": ["${x.text}", {"b": "and ${y.2.path}, $${z.text}, ${ w.id }"}], "n": 7, "t": True}
    assert list(references(value)) == [
        ("${x.text}", "x", "text"), ("${y.2.path}", "y.2", "path"), ("${ w.id }", "w", "id"),
    ]  # fmt: skip
    replaced = substitute(value, lambda step, attribute: f"<{step} {attribute}>")
    assert replaced == {"a": ["<x text>", {"b": "and <y.2 path>, ${z.text}, <w id>"}], "n": 7, "t": True}


def test_a_result_that_looks_like_a_reference_stays_text() -> None:
    assert substitute("${a.text}", lambda _step, _attribute: "${b.text} $${") == "${b.text} $${"


def test_a_step_that_made_nothing() -> None:
    with pytest.raises(StudioError, match=r"\$\{a\.text\}: a made nothing"):
        attribute_of([], "a", "text")
