"""The hub as a source: what is fetched, from where, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest
from fake_hub import COMMIT, REPO, FakeHub, Fault, MakeSpec, gguf, safetensors

from studio.download import ModelStore
from studio.download.lock import read_lock
from studio.errors import BadWeights, MissingWeights, NotFound, StudioError
from studio.units import MIB

ONE = {"model": "model.safetensors"}


def whole_model() -> dict[str, bytes]:
    return {
        "model_index.json": b'{"_class_name": "Tiny"}',
        "transformer/config.json": b"{}",
        "transformer/a-1.safetensors": safetensors(300_000, 1),
        "transformer/a-2.safetensors": safetensors(200_000, 2),
        "transformer/modeling.py": b"raise SystemExit",
        "transformer/pytorch_model.bin": b"\x80\x04evil",
        "tokenizer/merges.txt": b"#version: 0.2\na b\n",
        "README.md": b"# hello",
    }


def test_a_whole_model_comes_and_only_data_is_asked_for(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add(whole_model())
    spec = make_spec({"index": "model_index.json", "transformer": "transformer/*", "tokenizer": "tokenizer/*"})
    assert store.installed(spec) is None
    calls: list[tuple[str, int, int]] = []
    result = store.pull(spec, progress=lambda *call: calls.append(call))

    files = store.installed(spec)
    assert files == result.files
    assert files is not None
    assert files["index"].read_bytes() == b'{"_class_name": "Tiny"}'
    assert files["transformer"].parent == files["index"].parent  # one folder, as the libraries want it
    found = sorted(path.name for path in files["transformer"].iterdir())
    assert found == ["a-1.safetensors", "a-2.safetensors", "config.json"]
    assert not [path for path in hub.asked() if path.endswith((".py", ".bin", ".md"))]
    assert not [path for path in hub.asked() if "agent" in path]
    assert (result.revision, result.locked_now) == (COMMIT, True)
    assert calls[-1][1:] == (result.downloaded_bytes, result.downloaded_bytes)
    assert all(done <= total for _, done, total in calls)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)
    assert store.verify(spec) == []
    assert store.size_bytes(spec) == result.downloaded_bytes == sum(hub.served.values())


def test_pulling_again_asks_the_hub_nothing(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    store.pull(make_spec(ONE))
    before = len(hub.requests)
    again = store.pull(make_spec(ONE))
    assert len(hub.requests) == before
    assert (again.downloaded_bytes, again.reused_bytes, again.locked_now) == (0, 1000, False)


@pytest.mark.parametrize(
    "path", ["x.py", "pytorch_model.bin", "w.pt", "w.ckpt", "w.pkl", "*.bin", "code/*.py", "noend"]
)
def test_types_that_can_run_code_are_refused_unasked(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, path: str
) -> None:
    hub.add({path.replace("*", "a"): b"content"})
    with pytest.raises(BadWeights, match="because other types can run code"):
        store.pull(make_spec({"model": path}))
    assert hub.requests == []


@pytest.mark.parametrize(
    "path", ["../up.gguf", "/etc/x.json", "a/../../b.gguf", "C:\\x.gguf", "a//b.gguf", "a\0b.gguf"]
)
def test_paths_that_leave_the_source_are_refused(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, path: str
) -> None:
    with pytest.raises(BadWeights, match="outside its source"):
        store.pull(make_spec({"model": path}))
    assert hub.requests == []


def _zip(tmp_path: Path) -> bytes:
    with zipfile.ZipFile(tmp_path / "z", "w") as archive:
        archive.writestr("data.pkl", "x" * 5000)
    return (tmp_path / "z").read_bytes()


@pytest.mark.parametrize("kind", ["pickle", "old-pickle", "zip", "huge-header", "pointer", "html", "gguf-bounds"])
def test_the_content_must_be_what_the_name_says(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, kind: str
) -> None:
    name, content, why = {
        "pickle": ("m.safetensors", pickle.dumps({"a": b"x" * 300}), "pickle"),
        "old-pickle": ("m.safetensors", pickle.dumps({"a": list(range(99))}, protocol=0), "header claims"),
        "zip": ("m.safetensors", _zip(tmp_path), "zip archive"),
        "huge-header": ("m.safetensors", (2**62).to_bytes(8, "little") + b"{}" * 50, "header claims"),
        "pointer": ("m.gguf", b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
        "html": ("m.gguf", b"<!DOCTYPE html><html>Please log in</html>", "HTML page"),
        "gguf-bounds": ("m.gguf", b"GGUF\x03\0\0\0" + b"\xff" * 7 + b"\x7f" + b"\0" * 50, "more than its"),
    }[kind]
    hub.add({name: content})
    with pytest.raises(BadWeights, match=why) as caught:
        store.pull(make_spec({"model": name}))
    assert name in caught.value.what
    assert "\n" not in str(caught.value)
    assert store.installed(make_spec({"model": name})) is None
    assert not [path for path in store.root.rglob("*") if path.is_file() and "blobs" in path.parts]
    assert hub.served[name] == len(content)  # the hash was right, so it was not fetched twice


def test_an_open_revision_is_shown_locked_and_kept(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000, 1)})
    spec = make_spec(ONE, revision=None)
    asked: list[str] = []

    def accept(commit: str) -> bool:
        asked.append(commit)
        return True

    first = store.pull(spec, accept_revision=accept)
    assert (asked, first.revision, first.locked_now) == ([COMMIT], COMMIT, True)

    hub.add({"model.safetensors": safetensors(1000, 2)}, commit="b" * 40)  # main moves on
    first.files["model"].unlink()
    second = store.pull(spec)
    assert (second.revision, second.locked_now) == (COMMIT, False)
    assert second.files["model"].read_bytes() == safetensors(1000, 1)


def test_a_commit_that_is_not_accepted_downloads_nothing(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    with pytest.raises(StudioError, match=f"{COMMIT} of {REPO} was not accepted"):
        store.pull(make_spec(ONE, revision=None), accept_revision=lambda _: False)
    assert hub.served == {}


def test_a_changed_catalogue_entry_is_not_installed(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000), "other.json": b"{}"})
    store.pull(make_spec(ONE))
    assert store.installed(make_spec(ONE, revision=None)) is not None
    assert store.installed(make_spec(ONE, revision="b" * 40)) is None
    assert store.installed(make_spec(ONE, repo="org/else")) is None
    assert store.installed(make_spec(ONE | {"extra": "other.json"})) is None
    assert store.installed(make_spec({"model": {"path": "model.safetensors", "sha256": "0" * 64}})) is None
    assert store.installed(make_spec({"model": {"path": "model.safetensors", "bytes": 999}})) is None


def test_pins_of_the_catalogue_must_match_the_hub(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    for pin in ({"sha256": "0" * 64}, {"bytes": 999}):
        with pytest.raises(BadWeights, match=r"the hub lists .* expected (0{64}|999)"):
            store.pull(make_spec({"model": {"path": "model.safetensors"} | pin}))
    assert hub.served == {}


def test_a_pin_on_a_small_file_is_checked_too(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    """The hub lists no sha256 for files outside LFS."""
    hub.add({"config.json": b'{"a": 1}'})
    good = hashlib.sha256(b'{"a": 1}').hexdigest()
    with pytest.raises(BadWeights, match=f"its sha256 is {good}, expected 0000"):
        store.pull(make_spec({"model": {"path": "config.json", "sha256": "0" * 64}}))
    assert store.pull(make_spec({"model": {"path": "config.json", "sha256": good}})).files["model"].is_file()


def test_small_files_are_checked_by_their_git_hash(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"config.json": b'{"a": 1}'})
    hub.faults["config.json"] = [Fault("flip", times=-1)]
    with pytest.raises(BadWeights, match="its git hash is not"):
        store.pull(make_spec({"model": "config.json"}))
    assert store.installed(make_spec({"model": "config.json"})) is None


def test_no_room_is_said_before_anything_is_fetched(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.add({"model.safetensors": safetensors(3 * MIB)})
    monkeypatch.setattr("studio.download.common.free_bytes", lambda _: 1 * MIB)
    with pytest.raises(StudioError, match=rf"needed {3 * MIB} bytes \(3.0 MiB\), free {MIB} bytes \(1.0 MiB\)"):
        store.pull(make_spec(ONE))
    assert hub.served == {}


@pytest.mark.parametrize("status", ["401", "403"])
def test_a_gated_repository_says_how_to_get_in(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, status: str
) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    hub.faults["model.safetensors"] = [Fault(status, times=-1)]
    with pytest.raises(StudioError, match=f"status {status}") as caught:
        store.pull(make_spec(ONE, gated=True))
    assert "Accept the licence" in caught.value.hint
    assert f"{hub.url}/{REPO}" in caught.value.hint
    assert "hf auth login" in caught.value.hint
    hub.faults.clear()
    hub.listing_faults = [Fault(status)]
    with pytest.raises(StudioError, match=f"status {status}"):
        store.pull(make_spec(ONE))
    assert hub.served == {}


def test_what_does_not_exist_is_named(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    with pytest.raises(NotFound, match="org/none"):
        store.pull(make_spec(ONE, repo="org/none"))
    with pytest.raises(BadWeights, match=r"no file 'else\.gguf'"):
        store.pull(make_spec({"model": "else.gguf"}))
    with pytest.raises(BadWeights, match="no file of an accepted type that matches 'none/"):
        store.pull(make_spec({"model": "none/*"}))


def test_something_that_is_not_the_hub_is_a_plain_error(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    hub.listing_faults = [Fault("portal")]
    with pytest.raises(StudioError, match="did not answer like the hub"):
        store.pull(make_spec(ONE))


def test_the_token_goes_to_the_hub_and_not_to_where_it_redirects(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    files = {"model.safetensors": safetensors(1000)}
    hub.add(files)
    elsewhere = FakeHub().start()
    elsewhere.add(files)
    hub.redirect_to = elsewhere.url
    try:
        store.pull(make_spec(ONE))
    finally:
        elsewhere.stop()
    assert all(headers["authorization"] == "Bearer hf_secret" for _, _, headers in hub.requests)
    assert len(elsewhere.requests) == 1
    assert "authorization" not in elsewhere.requests[0][2]
    assert all("torch" not in headers["user-agent"] for _, _, headers in hub.requests)
    assert "hf_secret" not in "".join(path.read_text() for path in (store.root / "locks").glob("*.json"))


@pytest.mark.parametrize("how", ["argument", "HF_HUB_OFFLINE"])
def test_offline_asks_nobody(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    if how == "argument":
        store = ModelStore(store.root, offline=True)
    else:
        monkeypatch.setenv(how, "1")
    with pytest.raises(StudioError, match="offline") as caught:
        store.pull(make_spec(ONE))
    assert "studio models pull tiny" in caught.value.hint
    assert hub.requests == []


def test_require_names_the_size_and_the_command(store: ModelStore, make_spec: MakeSpec) -> None:
    with pytest.raises(MissingWeights, match=r"'tiny' is not on this machine \(3.0 MiB\)") as caught:
        store.require(make_spec({"model": {"path": "m.gguf", "bytes": 3 * MIB}}))
    assert caught.value.hint == "studio models pull tiny"


def test_removing_keeps_content_that_another_snapshot_shows(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec
) -> None:
    hub.add({"model.safetensors": safetensors(1000)})
    files = store.pull(make_spec(ONE)).files
    other = store.root / "hub/models--org--tiny/snapshots" / ("b" * 40) / "model.safetensors"
    other.parent.mkdir()
    other.symlink_to(files["model"].resolve())
    assert store.remove(make_spec(ONE)) == 0
    assert other.read_bytes() == safetensors(1000)
    assert not files["model"].exists()


def test_removing_keeps_what_another_model_uses(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"model.safetensors": safetensors(1000), "a.gguf": gguf(500)})
    one, two = make_spec(ONE, id="one"), make_spec(ONE | {"a": "a.gguf"}, id="two")
    store.pull(one)
    store.pull(two)
    assert hub.served == {"model.safetensors": 1000, "a.gguf": 500}
    assert store.remove(two) == 500
    assert store.verify(one) == []
    assert store.remove(one) == 1000
    assert store.remove(one) == 0
    assert [path for path in (store.root / "hub").rglob("*") if path.is_file() and path.suffix != ".lock"] == []


def test_verify_names_the_file_and_pull_repairs_it(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"a.safetensors": safetensors(2000, 1), "b.safetensors": safetensors(3000, 2)})
    spec = make_spec({"a": "a.safetensors", "b": "b.safetensors"})
    files = store.pull(spec).files
    content = bytearray(files["b"].read_bytes())
    content[1500] ^= 4
    files["b"].write_bytes(content)
    assert store.installed(spec) is not None  # the quick look cannot see it

    (line,) = store.verify(spec)
    assert str(files["b"]) in line
    assert line.endswith("Repair: studio models pull tiny")
    with pytest.raises(MissingWeights):
        store.require(spec)
    store.pull(spec)
    assert hub.served == {"a.safetensors": 2000, "b.safetensors": 6000}
    assert store.verify(spec) == []
    assert store.installed(spec) == files


def test_verify_sees_truncated_and_lost_files(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({"a.safetensors": safetensors(2000, 1), "b.safetensors": safetensors(3000, 2)})
    spec = make_spec({"a": "a.safetensors", "b": "b.safetensors"})
    files = store.pull(spec).files
    files["a"].write_bytes(safetensors(2000, 1)[:700])
    files["b"].unlink()
    assert store.installed(spec) is None
    faults = store.verify(spec)
    assert "it has 700 bytes, pulled were 2000" in faults[0]
    assert "the file is missing" in faults[1]
    store.pull(spec)
    assert store.verify(spec) == []


def test_the_lock_tells_all(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    content = safetensors(1000)
    hub.add({"model.safetensors": content})
    files = store.pull(make_spec(ONE)).files
    lock = read_lock(store.root / "locks" / "tiny.json")
    assert lock is not None
    assert (lock.source, lock.revision, lock.licence) == (f"repo:{REPO}", COMMIT, "Apache-2.0")
    assert lock.time
    (file,) = lock.files
    assert (file.role, file.path, file.local, file.bytes) == ("model", "model.safetensors", str(files["model"]), 1000)
    assert file.sha256 == hashlib.sha256(content).hexdigest()
    (store.root / "locks" / "tiny.json").write_text('{"model": "tiny", "files": [')  # torn
    assert store.installed(make_spec(ONE)) is None
    assert store.pull(make_spec(ONE)).downloaded_bytes == 0
