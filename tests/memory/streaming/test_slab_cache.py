"""Weights are quantised once: made whole, found again, never taken from a file that is not what it should be."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from streaming_models import Chain, Tiny, assert_equal

from studio.errors import MissingWeights
from studio.memory.slab_cache import list_cache, trim_cache
from studio.memory.slabs import REST, Slabs, load_slabs
from studio.memory.storage import Storage
from studio.memory.stream_blocks import empty_module
from studio.memory.streaming import streamed


def chain() -> Chain:
    return empty_module(lambda: Chain(5, 128))  # type: ignore[return-value]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The files of a small model."""
    torch.manual_seed(0)
    state = {name: value for name, value in Chain(5, 128).state_dict().items() if name != "blocks.1.0.weight"}
    folder = tmp_path / "model"
    folder.mkdir()
    save_file(state, folder / "model.safetensors")
    return folder


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """Not there yet."""
    return tmp_path / "cache" / "weights"


def content(slabs: Slabs) -> dict[str, list[int]]:
    found = {}
    for name, layout in slabs.layouts.items():
        out = torch.zeros(layout.stored_bytes, dtype=torch.uint8)
        slabs.read_into(name, out)
        found[name] = out.tolist()
    return found


def everything(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("memory", [None, (), ("", "blocks.1", "blocks.3")], ids=["ram", "files", "both"])
@pytest.mark.parametrize("storage", ["int8", "nf4-dq"])
def test_made_once_and_used_again(source: Path, cache: Path, storage: Storage, memory: tuple[str, ...] | None) -> None:
    """The second time without the originals; the file is one that the safetensors library reads."""
    wanted = content(load_slabs(source, chain(), dtype=torch.bfloat16, storage=storage))

    def load() -> Slabs:
        return load_slabs(
            source, chain(), dtype=torch.bfloat16, storage=storage, memory=memory, cache=cache, revision="r"
        )

    with load() as slabs:
        assert content(slabs) == wanted
    [name] = everything(cache)
    assert name.startswith(f"Chain-{storage}-")
    made = (cache / name).stat()
    with safe_open(cache / name, "pt") as file:
        assert {key.removeprefix("group."): file.get_tensor(key).tolist() for key in file.keys()} == wanted  # noqa: SIM118
        said = file.metadata()
        assert (said["format"], said["storage"], json.loads(said["made_from"])) == ("1", storage, [["model"], "r"])
        assert ["blocks.2.0.weight", [128, 128], "bfloat16"] in json.loads(said["layout"])["blocks.2"]
    shutil.rmtree(source)
    with load() as slabs:
        assert content(slabs) == wanted
        assert slabs.size_bytes == sum(
            layout.stored_bytes for group, layout in slabs.layouts.items() if memory is None or group in memory
        )
    assert everything(cache) == [name]
    assert (cache / name).stat().st_ino == made.st_ino, "not written again"


@pytest.mark.parametrize("kind", ["framepack", "unet", "t5"])
def test_streamed_from_the_cache(wide: dict[str, Tiny], kind: str, tmp_path: Path) -> None:
    """Bit for bit as without one, from RAM, from the file, and from both."""
    model = wide[kind]
    module = model.empty(torch.bfloat16)
    with load_slabs(model.folder, module, dtype=torch.bfloat16, storage="int8") as slabs:
        groups = [REST, *slabs.blocks]
        with streamed(module, slabs=slabs, device="cpu"):
            wanted = model.run(module, 2)
    for memory in ((), groups[::2], None):
        with load_slabs(
            model.folder, module, dtype=torch.bfloat16, storage="int8", memory=memory, cache=tmp_path
        ) as slabs:
            for resident in (1, len(groups) - 1):
                with streamed(module, slabs=slabs, device="cpu", resident=resident):
                    assert_equal(model.run(module, 2), wanted)
    assert len(everything(tmp_path)) == 1


def test_what_the_name_depends_on(source: Path, cache: Path) -> None:
    """Another file, time, storage, type, split or naming is another cache file; plain weights have none."""
    path = source / "model.safetensors"

    def count(**options: object) -> int:
        module = options.pop("module", None) or chain()
        load_slabs(source, module, **{"storage": "int8", "cache": cache, **options}).close()  # type: ignore[arg-type]
        return len(everything(cache)) if cache.exists() else 0

    assert count(storage="plain") == 0
    assert count() == count() == 1
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert count() == 2
    assert count(storage="fp8") == 3
    assert count(dtype=torch.bfloat16) == 4
    assert count(blocks=["blocks.2"]) == 5
    assert count(revision="one") == 6
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))
    assert count(revision="one") == 6, "whoever names a revision vouches for the files"
    assert count(revision="two") == 7
    other = shutil.copytree(source, source.with_name("model_2"))
    load_slabs(other, chain(), storage="int8", cache=cache, revision="two").close()
    assert len(everything(cache)) == 8, "two networks of one class in one repository"
    state = {f"x.{name}": value for name, value in Chain(5, 128).state_dict().items() if name != "blocks.1.0.weight"}
    save_file(state, path)
    assert count(revision="one", rename=lambda name: f"x.{name}") == 9
    load_slabs(Chain(5, 128).state_dict(), chain(), storage="int8", cache=cache).close()
    assert len(everything(cache)) == 9, "a state dict without a revision has no name"
    path.unlink()
    with pytest.raises(MissingWeights):
        count()


def _flip(path: Path, where: int) -> None:
    data = bytearray(path.read_bytes())
    data[where] ^= 0xFF
    path.write_bytes(data)


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-256]),
    "empty": lambda path: path.write_bytes(b""),
    "no header": lambda path: _flip(path, 3),
    "header": lambda path: _flip(path, 40),
    "a byte": lambda path: _flip(path, -1000),
    "another's": lambda path: save_file({"group.": torch.zeros(256, dtype=torch.uint8)}, path),
    "another's metadata": lambda path: save_file({"a": torch.zeros(4)}, path, {"format": "1", "key": "x"}),
    "no metadata": lambda path: _rewrite(path, {}),
    "another layout": lambda path: _rewrite(path, {"layout": "[]"}),
    "fewer blocks": lambda path: _rewrite(path, {}, keep=lambda name: name != "group.blocks.2", said=True),
    "other sizes": lambda path: _rewrite(path, {}, grow=256, said=True),
}


def _rewrite(path: Path, changed: dict[str, str], keep=lambda name: True, grow: int = 0, said: bool = False) -> None:  # type: ignore[no-untyped-def]
    with safe_open(path, "pt") as file:
        before = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys() if keep(key)}  # noqa: SIM118
    tensors = {name: torch.nn.functional.pad(value, (0, grow)) for name, value in tensors.items()}
    save_file(tensors, path, {**(before if said or changed else {}), **changed})


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_made_again(source: Path, cache: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """With one line in the log, and never a wrong weight."""
    with load_slabs(source, chain(), storage="int8", cache=cache) as slabs:
        wanted = content(slabs)
    [path] = cache.iterdir()
    whole = path.read_bytes()
    DAMAGE[damage](path)
    assert path.read_bytes() != whole
    with caplog.at_level(logging.WARNING), load_slabs(source, chain(), storage="int8", cache=cache) as slabs:
        assert content(slabs) == wanted
    [line] = [record.getMessage() for record in caplog.records]
    assert "is of no use" in line and "\n" not in line
    assert path.read_bytes() == whole
    assert len(everything(cache)) == 1


def test_a_full_disk_is_a_line_in_the_log(source: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The weights are used all the same, from RAM and from the originals; nothing half written stays."""
    resource = pytest.importorskip("resource")
    wanted = content(load_slabs(source, chain(), storage="int8"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for memory in (None, ("blocks.0",)):
        caplog.clear()
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        try:
            slabs = load_slabs(source, chain(), storage="int8", cache=cache, memory=memory)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        with slabs:
            assert content(slabs) == wanted
        assert everything(cache) == []
        assert [record.getMessage().startswith("no quantised copy") for record in caplog.records] == [True]


def test_a_folder_that_cannot_be_made(source: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    cache.parent.write_text("a file where the folder should be")
    with load_slabs(source, chain(), storage="int8", cache=cache) as slabs:
        assert slabs.size_bytes
    assert "no quantised copy" in caplog.text


WRITER = """
import hashlib, sys, torch
from pathlib import Path
from streaming_models import Chain
from studio.memory.slabs import load_slabs
torch.set_num_threads(1)
for line in sys.stdin:  # each line starts one round in both processes at once
    module = Chain(5, 128)
    with load_slabs(Path(sys.argv[1]), module, storage="nf4", cache=Path(sys.argv[2]), revision=line.strip()) as slabs:
        digest = hashlib.sha256()
        for name in slabs.layouts:
            digest.update(slabs.stored(name).numpy().tobytes())
    print(digest.hexdigest(), flush=True)
"""


@pytest.fixture
def two(source: Path, cache: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Two processes that load the same model when they are sent a line."""
    places = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, places))}
    started = [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITER, str(source), str(cache)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
        )
        for _ in range(2)
    ]  # fmt: skip
    yield started
    for process in started:
        process.kill()
        process.communicate()


def test_two_processes_at_once(source: Path, cache: Path, two: list[subprocess.Popen[str]]) -> None:
    said = set()
    for number in range(6):
        for process in two:
            process.stdin.write(f"{number}\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]
        said |= {process.stdout.readline() for process in two}  # type: ignore[union-attr]
        assert len(everything(cache)) == number + 1
    assert len(said) == 1 and len(said.pop()) == 65
    shutil.rmtree(source)
    for number in range(6):
        load_slabs(source, chain(), storage="nf4", cache=cache, revision=str(number)).close()


def test_trimming(source: Path, cache: Path) -> None:
    """Least recently used first, down to the limit; half-written files of the dead go, what is not ours stays."""

    def load(revision: str, **options: object) -> Slabs:
        return load_slabs(source, chain(), storage="int8", cache=cache, revision=revision, **options)  # type: ignore[arg-type]

    for revision in "abc":
        load(revision).close()
    paths = {file.path: number for number, file in enumerate(list_cache(cache))}
    for path, number in paths.items():
        os.utime(path, ns=(number, number))
    assert [paths[file.path] for file in list_cache(cache)] == [0, 1, 2]
    size = list_cache(cache)[0].size_bytes
    (cache / "notes.txt").write_text("mine")
    (cache / ".x.slabs.safetensors.999999999.1.part").write_text("half")
    mapped = load("a", memory=())  # used again: the youngest now, and held open
    wanted = content(mapped)
    assert trim_cache(cache, 3 * size) == []
    assert [paths[path] for path in trim_cache(cache, 2 * size)] == [1]
    assert [paths[file.path] for file in list_cache(cache)] == [2, 0]
    assert [paths[path] for path in trim_cache(cache, 0)] == [2, 0]
    assert everything(cache) == ["notes.txt"]
    with mapped:
        assert content(mapped) == wanted, "what is mapped stays readable"
    assert trim_cache(cache / "none", 0) == []
