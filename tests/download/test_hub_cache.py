"""Files in the hub library's own cache, the user's: used where they are, never spoilt, and found by the library."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import pytest
from fake_hub import COMMIT, REPO, FakeHub, MakeSpec, etag, safetensors

from studio.download import ModelStore
from studio.errors import BadWeights, StudioError

ONE = {"model": "model.safetensors"}


def hub_cache(root: Path, repo: str = REPO) -> Path:
    return root / ("models--" + repo.replace("/", "--"))


def put_in_cache(cache: Path, path: str, content: bytes, *, commit: str = COMMIT) -> Path:
    """Lay a file into a cache as the library does; returns its blob."""
    blob = hub_cache(cache) / "blobs" / etag(path, content)
    pointer = hub_cache(cache) / "snapshots" / commit / path
    for place in (blob, pointer):
        place.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(content)
    pointer.symlink_to(blob)
    return blob


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HF_HOME"])
def test_new_files_go_to_the_users_own_cache(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    cache = tmp_path / "mine" / "hub"
    monkeypatch.setenv(variable, str(cache if variable == "HF_HUB_CACHE" else cache.parent))
    hub.add({"sub/model.safetensors": safetensors(1000), "config.json": b"{}"})
    foreign = put_in_cache(cache, "config.json", b"{}")
    spec = make_spec({"model": "sub/model.safetensors", "config": "config.json"})
    files = store.pull(spec).files
    assert files["model"] == hub_cache(cache) / "snapshots" / COMMIT / "sub/model.safetensors"
    assert not (store.root / "hub").exists()
    assert hub.served == {"sub/model.safetensors": 1000}

    assert store.remove(spec) == 1000
    assert not files["model"].exists()
    assert foreign.exists()
    assert files["config"].exists()  # it was there before


def test_the_library_finds_what_studio_fetched(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    from huggingface_hub import try_to_load_from_cache

    hub.add({"model.safetensors": safetensors(1000)})
    files = store.pull(make_spec(ONE)).files
    found = try_to_load_from_cache(REPO, "model.safetensors", cache_dir=store.root / "hub", revision=COMMIT)
    assert found == str(files["model"])


@pytest.mark.parametrize("offline", [False, True])
def test_a_foreign_cache_is_used_in_place(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, offline: bool
) -> None:
    content = safetensors(2000)
    hub.add({"model.safetensors": content})
    blob = put_in_cache(tmp_path / "user/.cache/huggingface/hub", "model.safetensors", content)
    store = ModelStore(store.root, offline=offline)
    result = store.pull(make_spec(ONE))
    assert result.files["model"].resolve() == blob
    assert (hub.served, result.downloaded_bytes, result.reused_bytes) == ({}, 0, 2000)
    assert (hub.requests == []) is offline

    assert store.remove(make_spec(ONE)) == 0
    assert blob.read_bytes() == content
    assert not result.files["model"].exists()


def test_a_bad_file_in_a_foreign_cache_is_left_there_and_not_used(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    content = safetensors(2000)
    hub.add({"model.safetensors": content})
    blob = put_in_cache(tmp_path / "user/.cache/huggingface/hub", "model.safetensors", content)
    blob.write_bytes(bad := content[:-1] + b"\0")
    result = store.pull(make_spec(ONE))
    assert result.files["model"].read_bytes() == content
    assert result.files["model"].resolve().is_relative_to(store.root)
    assert blob.read_bytes() == bad


def test_a_disguised_file_in_a_foreign_cache_is_refused_and_left_there(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    content = pickle.dumps({"a": b"x" * 300})
    hub.add({"model.safetensors": content})
    blob = put_in_cache(tmp_path / "user/.cache/huggingface/hub", "model.safetensors", content)
    with pytest.raises(BadWeights, match="is a pickle"):
        store.pull(make_spec(ONE))
    assert store.installed(make_spec(ONE)) is None
    assert hub.served == {}
    assert blob.read_bytes() == content


def test_offline_a_glob_needs_the_hubs_own_listing(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """One of two shards in a cache looks complete to a glob; only a listing tells."""
    cache = tmp_path / "user/.cache/huggingface/hub"
    put_in_cache(cache, "t/a-1.safetensors", safetensors(2000))
    with pytest.raises(StudioError, match="not complete on this machine, and Studio is offline"):
        ModelStore(store.root, offline=True).pull(make_spec({"model": "t/*"}))
    assert store.installed(make_spec({"model": "t/*"})) is None


def test_offline_a_glob_is_complete_when_the_listing_says_so(
    store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    """The library keeps the hub's listing of a commit in ``trees``; with it, missing shards are noticed."""
    cache = tmp_path / "user/.cache/huggingface/hub"
    contents = {f"t/a-{number}.safetensors": safetensors(2000, number) for number in (1, 2)}
    tree = hub_cache(cache) / "trees" / f"{COMMIT}.json"
    tree.parent.mkdir(parents=True)
    entry = {"size": 130, "blob_id": "0" * 40, "lfs_size": 2000}
    files = {path: entry | {"lfs_sha256": etag(path, content)} for path, content in contents.items()}
    tree.write_text(json.dumps({"format_version": 1, "files": files}))
    offline = ModelStore(store.root, offline=True)
    put_in_cache(cache, "t/a-1.safetensors", contents["t/a-1.safetensors"])
    with pytest.raises(StudioError, match=r"1 files are missing \(t/a-2.safetensors first\), and Studio is offline"):
        offline.pull(make_spec({"model": "t/*"}))
    put_in_cache(cache, "t/a-2.safetensors", contents["t/a-2.safetensors"])
    assert offline.pull(make_spec({"model": "t/*"})).reused_bytes == 4000


def test_offline_an_open_revision_is_what_the_cache_calls_main(
    store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    cache = tmp_path / "user/.cache/huggingface/hub"
    put_in_cache(cache, "model.safetensors", safetensors(2000))
    (hub_cache(cache) / "refs").mkdir()
    (hub_cache(cache) / "refs" / "main").write_text(COMMIT)
    offline = ModelStore(store.root, offline=True)
    assert offline.pull(make_spec(ONE, revision=None)).revision == COMMIT


def test_it_works_without_links(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows without developer mode, FAT disks."""
    foreign = put_in_cache(tmp_path / "user/.cache/huggingface/hub", "config.json", b'{"a": 1}')
    hub.add({"model.safetensors": safetensors(1000), "config.json": b'{"a": 1}'})
    monkeypatch.setattr(Path, "symlink_to", _no_links)
    spec = make_spec(ONE | {"config": "config.json"})
    files = store.pull(spec).files
    assert not any(path.is_symlink() for path in files.values())
    assert store.verify(spec) == []
    files["model"].write_bytes(b"broken")
    store.pull(spec)
    assert hub.served == {"model.safetensors": 2000}
    assert store.verify(spec) == []
    assert store.remove(spec) == 1008
    assert not any(path.exists() for path in files.values())
    assert foreign.exists()


def _no_links(*_: object) -> None:
    raise OSError("links are not permitted")
