"""The user's own files (``folder: /path``), and those that an installed package brings (``package: name``): used where
they are, never written, never removed."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path

from studio.download.choose import check_asked, choose, folder_of, is_glob
from studio.download.content import fault_in
from studio.download.lock import LockedFile
from studio.errors import BadRequest, BadWeights, MissingWeights
from studio.files import sha256_of
from studio.spec import ModelFile, ModelSpec, Source


def local_folder(source: Source) -> Path:
    """The folder of the source. Raises ``BadRequest`` unless it is absolute: a job may run anywhere."""
    if source.package is not None:
        return _package_folder(source.package)
    folder = Path(source.folder or "")
    if not folder.is_absolute():
        raise BadRequest(f"The model folder {source.folder!r} is not an absolute path.", "Write the whole path.")
    return folder


def _package_folder(name: str) -> Path:
    """Where an installed package lies; only its parents are imported."""
    try:
        found = importlib.util.find_spec(name)
    except ImportError:
        found = None
    places = list(found.submodule_search_locations or []) if found else []
    if not places:
        raise BadRequest(f"The package {name!r}, which should hold a model's files, is not installed.", "Install it.")
    return Path(places[0])


def package_revision(source: Source) -> str:
    """The content that the catalogue pins for files of a package: one hash over their paths and sha256."""
    pins = sorted(f"{file.path} {file.sha256}" for file in source.files.values())
    return f"package:{source.package}:{hashlib.sha256(' '.join(pins).encode()).hexdigest()[:16]}"


def check_entry(source: Source) -> Path:
    """The folder, after the entry's own words were checked; the files were not looked at."""
    check_asked(source)
    return local_folder(source)


def check_heads(files: Mapping[str, Path]) -> None:
    """Raises ``BadWeights`` for a file that is not what its name says. The user's own files may change any time."""
    for path in files.values():
        if path.is_file() and (fault := fault_in(path, path.name)):
            raise BadWeights(f"{path} is refused: {fault}.", "Replace the file.")


def find_here(spec: ModelSpec, source: Source) -> dict[str, Path] | None:
    """Role to path if every file exists with the size that the catalogue gives; ``None`` otherwise."""
    try:
        folder = check_entry(source)
    except BadRequest:
        return None
    roles: dict[str, Path] = {}
    for role, file in source.files.items():
        path = folder / (folder_of(file.path) if is_glob(file.path) else file.path)
        if not path.exists() or (file.bytes is not None and path.is_file() and path.stat().st_size != file.bytes):
            return None
        roles[role] = path
    return roles


def package_faults(spec: ModelSpec, source: Source) -> list[str]:
    """What is not as the catalogue says of the files that a package brings, which nobody pulls; one line for each."""
    try:
        folder = check_entry(source)
    except BadRequest as error:
        return [str(error)]
    return [
        f"{folder / file.path}: {why}. Install the package that brings {spec.id} anew."
        for file in source.files.values()
        if (why := _unlike(folder / (folder_of(file.path) if is_glob(file.path) else file.path), file))
    ]


def _unlike(path: Path, file: ModelFile) -> str | None:
    """Why a file, or the folder of several, is not what the catalogue says."""
    if not path.exists():
        return "the file is missing"
    if not path.is_file():
        return None
    if file.bytes is not None and path.stat().st_size != file.bytes:
        return f"it has {path.stat().st_size} bytes, the catalogue says {file.bytes}"
    if file.sha256 is not None and (digest := sha256_of(path)) != file.sha256:
        return f"its sha256 is {digest}, the catalogue says {file.sha256}"
    return fault_in(path, file.path)


def adopt(spec: ModelSpec, source: Source) -> list[LockedFile]:
    """Check the files and take their hashes, so that ``verify`` can tell later whether they changed."""
    folder = check_entry(source)
    if not folder.is_dir():
        raise MissingWeights(
            f"Model {spec.id!r}: the folder {folder} does not exist.", "Correct the folder in the catalogue entry."
        )
    names = {
        (Path(parent) / name).relative_to(folder).as_posix() for parent, _, files in os.walk(folder) for name in files
    }
    locked = []
    for wanted in choose(source, names, f"The folder {folder}"):
        path = folder / wanted.path
        fault = fault_in(path, wanted.path)
        digest = sha256_of(path)
        if fault is None and wanted.sha256 not in (None, digest):
            fault = f"its sha256 is {digest}, the catalogue says {wanted.sha256}"
        if fault:
            raise BadWeights(f"{path} is refused: {fault}.", "Replace the file.")
        size = path.stat().st_size
        locked.append(
            LockedFile(role=wanted.role, path=wanted.path, local=str(path), bytes=size, sha256=digest, owned=False)
        )
    return locked
