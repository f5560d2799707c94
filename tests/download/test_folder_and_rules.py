"""The user's own folder as a source, and the rules that hold for any name and any bytes."""

from __future__ import annotations

import pickle
import re
from pathlib import Path, PurePosixPath

import pytest
from fake_hub import MakeSpec, gguf, safetensors
from hypothesis import given
from hypothesis import strategies as st

from studio.download import ModelStore, PullResult
from studio.download.choose import choose, folder_of
from studio.download.content import ALLOWED_SUFFIXES, check_path, fault_in
from studio.errors import BadRequest, BadWeights, MissingWeights
from studio.files import sha256_of
from studio.spec import ModelFile, ModelSpec, Source


def test_a_folder_is_used_in_place_and_never_removed(store: ModelStore, make_spec: MakeSpec, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    (mine / "t").mkdir(parents=True)
    (mine / "m.gguf").write_bytes(gguf(500))
    (mine / "t" / "a.safetensors").write_bytes(safetensors(500))
    spec = make_spec({"model": "m.gguf", "t": "t/*"}, folder=str(mine))
    assert store.installed(spec) == {"model": mine / "m.gguf", "t": mine / "t"}
    assert store.pull(spec).downloaded_bytes == 0
    assert store.verify(spec) == []
    (mine / "m.gguf").write_bytes(gguf(500, seed=1))
    (line,) = store.verify(spec)
    assert line.startswith(f"{mine / 'm.gguf'}: its sha256 is")
    assert store.remove(spec) == 0
    assert (mine / "m.gguf").exists()


def test_files_that_a_package_brings_are_compared_with_the_catalogue(
    store: ModelStore, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are never pulled, so there is no lock to compare with."""
    package = tmp_path / "brings_files"
    (package / "starter" / "t").mkdir(parents=True)
    (package / "__init__.py").touch()
    weights, words = package / "starter" / "m.safetensors", package / "starter" / "t" / "words.json"
    weights.write_bytes(safetensors(500))
    words.write_text("{}")
    monkeypatch.syspath_prepend(str(tmp_path))
    spec = make_spec({"model": "starter/m.safetensors", "t": "starter/t/*"}, package="brings_files")
    assert spec.source is not None
    known = ModelFile(path="starter/m.safetensors", bytes=weights.stat().st_size, sha256=sha256_of(weights))
    files = {**spec.source.files, "model": known}
    spec = spec.model_copy(update={"source": spec.source.model_copy(update={"files": files})})
    assert store.verify(spec) == []
    weights.write_bytes(safetensors(500, seed=1))
    (line,) = store.verify(spec)
    assert line.startswith(f"{weights}: its sha256 is") and str(known.sha256) in line
    weights.write_bytes(safetensors(400))
    assert "bytes, the catalogue says" in store.verify(spec)[0]
    weights.unlink()
    words.unlink()
    words.parent.rmdir()
    assert [line.partition(": ")[2].partition(".")[0] for line in store.verify(spec)] == ["the file is missing"] * 2


def test_a_folder_must_be_absolute_and_complete(store: ModelStore, make_spec: MakeSpec, tmp_path: Path) -> None:
    relative = make_spec({"model": "m.gguf"}, folder="models/mine")
    assert store.installed(relative) is None
    with pytest.raises(BadRequest, match="not an absolute path"):
        store.require(relative)
    gone = make_spec({"model": "m.gguf"}, folder=str(tmp_path / "gone"))
    assert store.installed(gone) is None
    with pytest.raises(MissingWeights, match="gone"):
        store.require(gone)
    with pytest.raises(MissingWeights, match="does not exist"):
        store.pull(gone)


def test_the_users_own_files_are_data_too(store: ModelStore, make_spec: MakeSpec, tmp_path: Path) -> None:
    (tmp_path / "m.safetensors").write_bytes(b"\x80\x04\x95evil")
    (tmp_path / "m.pt").write_bytes(b"PK\x03\x04")
    disguised = make_spec({"model": "m.safetensors"}, folder=str(tmp_path))
    for use in (store.require, store.pull):
        with pytest.raises(BadWeights, match="is a pickle"):
            use(disguised)
        with pytest.raises(BadWeights, match="can run code"):
            use(make_spec({"model": "m.pt"}, folder=str(tmp_path)))
        with pytest.raises(BadWeights, match="outside its source"):
            use(make_spec({"model": "../m.gguf"}, folder=str(tmp_path)))


def test_a_model_without_a_source_needs_nothing(store: ModelStore) -> None:
    spec = ModelSpec(id="none", pipeline="text-llm")
    assert store.installed(spec) == store.require(spec) == {}
    assert store.pull(spec) == PullResult("none", {})
    assert (store.remove(spec), store.verify(spec), store.size_bytes(spec)) == (0, [], 0)


@pytest.mark.parametrize("name", ["hub", "locks"])
def test_names_of_folders_are_no_model_ids(store: ModelStore, make_spec: MakeSpec, name: str) -> None:
    with pytest.raises(BadRequest, match="the name is used for a folder"):
        store.pull(make_spec({"model": "m.gguf"}, id=name))


@given(st.text(alphabet="ab./\\:\0 ~", max_size=12))
def test_an_accepted_path_stays_inside(path: str) -> None:
    base = Path("/base")
    try:
        check_path(path)
    except BadWeights:
        return
    resolved = (base / path).resolve()
    assert resolved.is_relative_to(base)
    assert resolved != base


@given(st.binary(max_size=200), st.sampled_from(sorted(ALLOWED_SUFFIXES)))
def test_any_bytes_are_judged_without_an_error(tmp_path_factory: pytest.TempPathFactory, data: bytes, end: str) -> None:
    place = tmp_path_factory.getbasetemp() / "judged"
    place.write_bytes(data)
    verdict = fault_in(place, "m" + end)
    assert verdict is None or verdict
    if end == ".gguf" and verdict is None:
        assert data.startswith(b"GGUF")
    if end == ".safetensors" and verdict is None:
        assert 2 <= int.from_bytes(data[:8], "little") <= len(data) - 8
    if data.startswith((b"PK\x03\x04", b"version https://git-lfs")):
        assert verdict is not None


@pytest.mark.parametrize("name", ["m.txt", "m.json", "m.model", "m.gguf", "m.safetensors"])
def test_a_pickle_is_a_pickle_under_any_name(tmp_path: Path, name: str) -> None:
    for protocol in range(2, 6):
        (tmp_path / name).write_bytes(pickle.dumps({"a": "{" * 9}, protocol=protocol))
        assert fault_in(tmp_path / name, name) is not None
    (tmp_path / name).write_bytes(b"\x80\x04" + b"\0" * 6 + b"{}")
    assert fault_in(tmp_path / name, name) is not None


@pytest.mark.parametrize("length", [2, 0x480, 0x480 - 1])
def test_a_header_length_that_looks_like_a_pickle_is_judged_by_its_brace(tmp_path: Path, length: int) -> None:
    place = tmp_path / "m"
    place.write_bytes(length.to_bytes(8, "little") + b"{" + b" " * (length - 2) + b"}" + b"data")
    assert fault_in(place, "m.safetensors") is None


_NAMES = ["a.json", "b/c.safetensors", "b/c/d.gguf", "b/e.bin", "x.py", "b/f.json"]
_names = st.lists(st.sampled_from(_NAMES), unique=True)


@given(_names, st.sampled_from(["*", "b/*", "b/**", "**", "b/*.json", "?.json", "[!b].json", "b/[cf].*"]))
def test_a_glob_takes_only_data_and_only_from_its_folder(names: list[str], glob: str) -> None:
    source = Source.model_validate({"folder": "/x", "files": {"r": {"path": glob}}, "licence": "MIT"})
    try:
        chosen = [wanted.path for wanted in choose(source, names, "here")]
    except BadWeights:
        chosen = []
    assert all(PurePosixPath(name).suffix in ALLOWED_SUFFIXES for name in chosen)
    assert all(name.startswith(folder_of(glob)) for name in chosen)
    if "**" not in glob:
        assert all(name.count("/") == glob.count("/") for name in chosen)
    if glob in ("**", "b/**"):
        inside = [name for name in names if name.startswith(folder_of(glob)) and not re.search(r"\.(bin|py)$", name)]
        assert chosen == sorted(inside)
