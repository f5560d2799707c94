"""A model whose files lie in several repositories: each at its own commit, all in one lock."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_hub import COMMIT, REPO, FakeHub, Fault, MakeSpec, safetensors
from pydantic import ValidationError

from studio.download import ModelStore
from studio.download.lock import read_lock
from studio.errors import BadWeights, StudioError

OTHER, OTHERS_COMMIT = "org/encoders", "b" * 40
FILES: dict[str, Any] = {
    "transformer": {"path": "*"},
    "text_encoder": {"path": "text_encoder/*", "repo": OTHER},
    "scheduler": {"path": "scheduler/*", "repo": OTHER},
}
OWN = {"config.json": b'{"own": 1}', "model.safetensors": safetensors(40_000, 1), "README.md": b"# hello"}
ENCODERS = {
    "text_encoder/config.json": b'{"other": 1}',
    "text_encoder/model.safetensors": safetensors(30_000, 2),
    "scheduler/config.json": b"{}",
    "unwanted/model.safetensors": safetensors(20_000, 3),
}


@pytest.fixture
def both(hub: FakeHub) -> FakeHub:
    hub.add(OWN)
    hub.add(ENCODERS, OTHER, OTHERS_COMMIT)
    return hub


def test_all_come_each_from_its_own(both: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    spec = make_spec(FILES, revision=None)
    calls: list[tuple[str, int, int]] = []
    asked: list[str] = []

    def accept(commit: str) -> bool:
        asked.append(commit)
        return True

    result = store.pull(spec, progress=lambda *call: calls.append(call), accept_revision=accept)

    files = store.installed(spec)
    assert files == result.files
    assert files is not None
    assert (files["transformer"] / "config.json").read_bytes() == b'{"own": 1}'
    assert (files["text_encoder"] / "config.json").read_bytes() == b'{"other": 1}'
    assert files["text_encoder"].parent == files["scheduler"].parent != files["transformer"]
    assert not both.served["unwanted/model.safetensors"]
    assert asked == [COMMIT, OTHERS_COMMIT]
    assert result.revision == store.revision(spec) == f"{COMMIT}, {OTHER}@{OTHERS_COMMIT}"
    assert {total for _, _, total in calls} == {result.downloaded_bytes}, "the whole is known from the beginning"
    assert store.verify(spec) == []
    lock = read_lock(store.root / "locks" / "tiny.json")
    assert lock is not None
    assert {(file.repo, file.role) for file in lock.files} == {
        (None, "transformer"), (OTHER, "text_encoder"), (OTHER, "scheduler"),
    }  # fmt: skip
    before = len(both.requests)
    store.pull(spec)
    assert len(both.requests) == before


def test_an_interrupted_pull_keeps_all_commits(both: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    spec = make_spec(FILES, revision=None)
    both.faults["text_encoder/model.safetensors"] = [Fault("404", times=-1)]
    with pytest.raises(StudioError):
        store.pull(spec)
    assert store.installed(spec) is None
    del both.faults["text_encoder/model.safetensors"]
    both.add({**ENCODERS, "text_encoder/config.json": b'{"newer": 1}'}, OTHER, "c" * 40)  # main moves on
    assert store.pull(spec).revision == f"{COMMIT}, {OTHER}@{OTHERS_COMMIT}"


def test_a_shared_repository_stays_while_another_model_uses_it(
    both: FakeHub, store: ModelStore, make_spec: MakeSpec
) -> None:
    both.add({"model.safetensors": safetensors(1_000, 9)}, "org/second", "d" * 40)
    first = make_spec(FILES)
    second = make_spec(FILES, id="second", repo="org/second", revision="d" * 40)
    store.pull(first)
    served = both.served["text_encoder/model.safetensors"]
    store.pull(second)
    assert both.served["text_encoder/model.safetensors"] == served, "what one model brought is not fetched again"
    store.remove(first)
    assert store.installed(first) is None
    assert store.verify(second) == []
    assert store.remove(second) > 30_000
    assert not list((store.root / "hub").rglob("*.safetensors"))


def test_a_pinned_commit_of_another_repository_holds(both: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    pinned = {role: {**file, "revision": OTHERS_COMMIT} if "repo" in file else file for role, file in FILES.items()}
    store.pull(make_spec(pinned))
    assert store.installed(make_spec(FILES)) is not None
    moved = {role: {**file, "revision": "c" * 40} if "repo" in file else file for role, file in FILES.items()}
    assert store.installed(make_spec(moved)) is None
    with pytest.raises(StudioError):
        store.pull(make_spec(moved))


def test_a_hash_is_of_the_file_in_its_own_repository(both: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    """Two repositories may hold files of one name."""
    wrong = {"a": {"path": "config.json"}, "b": {"path": "scheduler/config.json", "repo": OTHER, "sha256": "0" * 64}}
    with pytest.raises(BadWeights):
        store.pull(make_spec(wrong))
    both.add({"config.json": b'{"same": "name"}'}, OTHER, OTHERS_COMMIT)
    same = {"a": {"path": "config.json"}, "b": {"path": "config.json", "repo": OTHER}}
    files = store.pull(make_spec(same, id="same")).files
    assert [files[role].read_bytes() for role in "ab"] == [b'{"own": 1}', b'{"same": "name"}']
    assert store.installed(make_spec(same, id="same")) == files


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"a": {"path": "x.json", "revision": COMMIT}}, "has a revision but no repo"),
        ({"a": {"path": "x.json", "repo": REPO}}, "the source's own repo"),
        ({"a": {"path": "x.json", "repo": OTHER}}, "no file lies in the source's own repo"),
        (
            {
                "a": {"path": "x.json"},
                "b": {"path": "x.json", "repo": OTHER, "revision": COMMIT},
                "c": {"path": "y.json", "repo": OTHER},
            },
            "at two revisions",
        ),
        ({"a": {"path": "x.json", "repo": "../up"}}, "pattern"),
    ],
)
def test_a_bad_entry_is_refused(make_spec: MakeSpec, files: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        make_spec(files)


def test_only_the_hub_has_repositories(make_spec: MakeSpec, tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="its source is none"):
        make_spec({"a": {"path": "x.json", "repo": OTHER}}, folder=str(tmp_path))
