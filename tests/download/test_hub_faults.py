"""Broken lines, broken servers, killed processes: at least 90 % of the bytes are reused, nothing bad is seen."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_hub import COMMIT, REPO, FakeHub, Fault, MakeSpec, safetensors

from studio.download import ModelStore, hub_api
from studio.errors import BadWeights, StudioError
from studio.units import MIB

SIZE = 2 * MIB
NAME = "model.safetensors"
ONE = {"model": NAME}


@pytest.fixture
def content(hub: FakeHub) -> bytes:
    data = safetensors(SIZE)
    hub.add({NAME: data})
    return data


def partials(store: ModelStore) -> list[Path]:
    return list(store.root.rglob("*.incomplete"))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_dropped_line_is_taken_up_where_it_broke(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, at: float
) -> None:
    hub.faults[NAME] = [Fault("drop", at)]
    result = store.pull(make_spec(ONE))
    assert result.files["model"].read_bytes() == content
    first = int(SIZE * at)
    again = hub.served[NAME] - SIZE
    assert again <= 0.1 * first
    assert len([path for path in hub.asked() if "/resolve/" in path]) == 2
    assert partials(store) == []


@pytest.mark.parametrize("at", [0.1, 0.5, 0.99])
def test_a_later_pull_goes_on_where_an_earlier_one_gave_up(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, at: float
) -> None:
    hub.faults[NAME] = [Fault("drop", at), Fault("503", times=-1)]
    with pytest.raises(StudioError, match=f"failed {hub_api.ATTEMPTS} times in a row") as caught:
        store.pull(make_spec(ONE))
    assert "pull again to go on from there" in caught.value.hint
    assert store.installed(make_spec(ONE)) is None
    (partial,) = partials(store)
    assert partial.stat().st_size == int(SIZE * at)

    hub.faults.clear()
    result = ModelStore(store.root).pull(make_spec(ONE))
    assert result.files["model"].read_bytes() == content
    assert hub.served[NAME] == SIZE
    assert result.reused_bytes == int(SIZE * at)


def test_ten_drops_in_a_row_are_survived_if_each_brought_something(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("drop", tenth / 10) for tenth in range(1, 10)]
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content
    assert hub.served[NAME] == SIZE


@pytest.mark.parametrize("kind", ["ignore-range", "short-range"])
def test_a_server_that_cannot_continue_still_gives_the_right_file(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, kind: str
) -> None:
    hub.faults[NAME] = [Fault("drop", 0.5), Fault(kind, at=1.0)]
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content
    assert store.verify(make_spec(ONE)) == []


def test_bytes_from_another_place_are_not_appended(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("drop", 0.5), Fault("short-range"), Fault("503", times=-1)]
    with pytest.raises(StudioError, match="answered 503"):
        store.pull(make_spec(ONE))
    assert sum(path.stat().st_size for path in partials(store)) == 0


def test_a_server_that_ignores_range_and_always_drops_ends_in_an_error(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("ignore-range", at=0.5, times=-1)]
    with pytest.raises(StudioError, match="times in a row"):
        store.pull(make_spec(ONE))
    assert len(hub.asked()) <= hub_api.ATTEMPTS + 2
    assert store.installed(make_spec(ONE)) is None


def test_a_flipped_bit_is_found_and_the_file_fetched_again_once(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("flip", 0.3)]
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content
    assert hub.served[NAME] == 2 * SIZE


def test_a_bit_flipped_before_a_drop_is_found_too(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("drop", 0.5), Fault("503", times=-1)]
    with pytest.raises(StudioError):
        store.pull(make_spec(ONE))
    (partial,) = partials(store)
    data = bytearray(partial.read_bytes())
    data[1000] ^= 128
    partial.write_bytes(data)
    hub.faults.clear()
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content


def test_a_bit_that_is_always_flipped_is_a_plain_error(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("flip", 0.3, times=-1)]
    with pytest.raises(
        BadWeights, match=f"{NAME} of {REPO} is refused: its sha256 is .* It was fetched twice"
    ) as error:
        store.pull(make_spec(ONE))
    assert "\n" not in str(error.value)
    assert hub.served[NAME] == 2 * SIZE
    assert store.installed(make_spec(ONE)) is None
    assert partials(store) == []
    assert not (store.root / "hub/models--org--tiny/snapshots").exists()


@pytest.mark.parametrize("status", ["500", "503", "429"])
def test_a_server_in_trouble_is_asked_again(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, status: str
) -> None:
    hub.listing_faults = [Fault(status)]
    hub.faults[NAME] = [Fault(status, times=2)]
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content
    assert len(hub.asked()) == 5


def test_retries_are_bounded(hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes) -> None:
    hub.faults[NAME] = [Fault("500", times=-1)]
    with pytest.raises(StudioError, match="the server answered 500"):
        store.pull(make_spec(ONE))
    assert len([path for path in hub.asked() if "/resolve/" in path]) == hub_api.ATTEMPTS


def test_nobody_there_is_a_plain_error(
    store: ModelStore, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, hub: FakeHub
) -> None:
    hub.stop()
    with pytest.raises(StudioError, match=rf"Asking {hub.url} for .* failed"):
        store.pull(make_spec(ONE))
    hub.start()  # so that the fixture can stop it


def test_a_hub_that_sends_more_than_it_lists_cannot_fill_the_disk(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.lie[NAME] = {"lfs": {"size": 1000, "sha256": "0" * 64, "pointerSize": 1}}
    with pytest.raises(StudioError, match="more than the 1000 bytes"):
        store.pull(make_spec(ONE))
    assert sum(path.stat().st_size for path in partials(store)) == 0


def test_progress_is_frequent_and_can_cancel(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes
) -> None:
    hub.faults[NAME] = [Fault("slow", times=-1)]
    steps: list[int] = []

    def progress(name: str, done: int, total: int) -> None:
        steps.append(done)
        assert total == SIZE
        if done > SIZE // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull(make_spec(ONE), progress=progress)
    assert any(0 < done <= SIZE // 2 for done in steps) and steps == sorted(steps)
    assert store.installed(make_spec(ONE)) is None
    assert store.pull(make_spec(ONE)).files["model"].read_bytes() == content
    assert hub.served[NAME] <= 1.1 * SIZE + 64 * 1024


_PULL = """
import sys
from pathlib import Path
from studio.download import ModelStore
from studio.spec import ModelSpec
spec = ModelSpec.model_validate_json(sys.argv[2])
print(ModelStore(Path(sys.argv[1])).pull(spec).downloaded_bytes)
"""


def pulling(store: ModelStore, spec: object, tmp_path: Path) -> subprocess.Popen[str]:
    import studio

    environment = os.environ | {"PYTHONPATH": str(Path(studio.__file__).parents[1])}
    command = [sys.executable, "-c", _PULL, str(store.root), spec.model_dump_json()]  # type: ignore[attr-defined]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment, cwd=tmp_path)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_pull_is_taken_up(hub: FakeHub, store: ModelStore, make_spec: MakeSpec, tmp_path: Path) -> None:
    size = 8 * MIB
    data = safetensors(size)
    hub.add({NAME: data, "config.json": b"{}"})
    hub.faults[NAME] = [Fault("slow")]
    spec = make_spec({"model": NAME, "config": "config.json"}, revision=None)
    child = pulling(store, spec, tmp_path)
    end = time.monotonic() + 30
    while not any(path.stat().st_size > 0.4 * size for path in partials(store)):
        assert time.monotonic() < end, "the child did not download"
        assert child.poll() is None, "the child was done too early"
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.communicate()
    assert store.installed(spec) is None

    hub.add({NAME: safetensors(size, 9)}, commit="b" * 40)  # meanwhile main moves: the commit was locked already
    result = store.pull(spec)
    assert result.revision == COMMIT
    assert result.files["model"].read_bytes() == data
    assert hub.served[NAME] <= 1.1 * size
    assert result.reused_bytes >= 0.4 * size
    assert store.remove(spec) == size + 2


def test_two_processes_fetch_a_model_once(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, tmp_path: Path
) -> None:
    hub.faults[NAME] = [Fault("slow", times=-1)]
    children = [pulling(store, make_spec(ONE), tmp_path) for _ in range(2)]
    printed = sorted(int(child.communicate(timeout=30)[0]) for child in children)
    assert printed == [0, SIZE]
    assert hub.served[NAME] == SIZE


def test_two_models_that_share_a_file_fetch_it_once(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, tmp_path: Path
) -> None:
    hub.faults[NAME] = [Fault("slow", times=-1)]
    children = [pulling(store, make_spec(ONE, id=name), tmp_path) for name in ("one", "two")]
    printed = sorted(int(child.communicate(timeout=30)[0]) for child in children)
    assert printed == [0, SIZE]
    assert hub.served[NAME] == SIZE


def test_importing_is_light(tmp_path: Path) -> None:
    import studio

    heavy = "{'huggingface_hub', 'httpx2', 'httpx', 'filelock', 'torch', 'tqdm', 'requests'}"
    code = f"import sys, studio.download; print(sorted({heavy} & sys.modules.keys()))"
    environment = os.environ | {"PYTHONPATH": str(Path(studio.__file__).parents[1])}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert printed.stdout.strip() == "[]"


def test_installed_reads_sizes_and_no_content(hub: FakeHub, store: ModelStore, make_spec: MakeSpec) -> None:
    hub.add({f"t/{number}.safetensors": safetensors(200, number) for number in range(3)})
    spec = make_spec({"t": "t/*"})
    place = store.pull(spec).files["t"]
    one = next(place.rglob("*.safetensors")).resolve()
    one.write_bytes(bytes(one.stat().st_size))
    assert store.installed(spec) is not None, "that is what verify is for"
    assert len(store.verify(spec)) == 1


def test_the_disk_becomes_full_while_writing(
    hub: FakeHub, store: ModelStore, make_spec: MakeSpec, content: bytes, tmp_path: Path
) -> None:
    """RLIMIT_FSIZE stands in for a full disk: the write fails half way, in a process of its own."""
    resource = pytest.importorskip("resource")
    spec = make_spec(ONE)
    code = _PULL.replace("print(", "import resource, signal\n").split("\nimport resource")[0] + (
        "\nimport resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({SIZE // 2}, {resource.RLIM_INFINITY}))\n"
        "from studio.errors import StudioError\n"
        "try:\n    ModelStore(Path(sys.argv[1])).pull(spec)\nexcept StudioError as error:\n    print(error)\n"
    )
    import studio

    environment = os.environ | {"PYTHONPATH": str(Path(studio.__file__).parents[1])}
    command = [sys.executable, "-c", code, str(store.root), spec.model_dump_json()]
    printed = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)
    assert printed.returncode == 0, printed.stderr
    assert "Pulling 'tiny' failed" in printed.stdout
    assert len(printed.stdout.splitlines()) == 1
    assert store.installed(spec) is None
    assert store.pull(spec).files["model"].read_bytes() == content
