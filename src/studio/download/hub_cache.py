"""The hub's cache layout on disk: ``models--org--name/{blobs/ETAG, snapshots/COMMIT/path, refs, trees}``.

Kept exactly, so that other programs find what Studio fetched and Studio finds what they fetched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from studio.download.hub_api import Listing, Remote

_HEX = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


def configured_cache() -> Path | None:
    """The cache that the user's environment names, in the library's own order; ``None`` when it names none."""
    for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if place := os.environ.get(variable):
            return _expand(place)
    return _expand(home) / "hub" if (home := os.environ.get("HF_HOME")) else None


def known_caches(own: Path) -> list[Path]:
    """Where files may be already: the place for new files first, then Studio's own cache, then the default."""
    default = _expand(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface" / "hub"
    return list(dict.fromkeys([configured_cache() or own, own, default]))


def _expand(place: str) -> Path:
    return Path(os.path.expandvars(place)).expanduser().absolute()


@dataclass(frozen=True)
class RepoCache:
    """One repository's folder in one cache."""

    cache: Path
    repo: str

    @property
    def name(self) -> str:
        return "models--" + self.repo.replace("/", "--")

    @property
    def folder(self) -> Path:
        return self.cache / self.name

    def pointer(self, commit: str, path: str) -> Path:
        """Where the file is seen at its own name."""
        return self.folder / "snapshots" / commit / path

    def blob(self, etag: str) -> Path:
        """Where its content is."""
        if not _HEX.fullmatch(etag):
            raise ValueError(f"not a hash: {etag!r}")
        return self.folder / "blobs" / etag

    def partial(self, etag: str) -> Path:
        """Where its content grows."""
        return self.blob(etag).with_name(f"{etag}.incomplete")

    def guard(self, etag: str) -> Path:
        """The lock file that the library takes too while it writes this blob."""
        return self.cache / ".locks" / self.name / f"{etag}.lock"

    def candidates(self, commit: str, path: str, etag: str) -> list[Path]:
        """Places where the content of ``path`` may be."""
        places = (self.pointer(commit, path), self.blob(etag))
        return list({place.resolve(): place for place in places if place.is_file()}.values())

    def show(self, content: Path, commit: str, path: str, *, movable: bool) -> Path:
        """Make ``content`` visible as ``path``. Where links do not work, it is moved if ``movable``, else copied."""
        pointer = self.pointer(commit, path)
        if pointer.exists() and pointer.samefile(content):
            return pointer
        pointer.parent.mkdir(parents=True, exist_ok=True)
        pointer.unlink(missing_ok=True)
        inside = content.is_relative_to(self.folder)
        try:
            pointer.symlink_to(os.path.relpath(content, pointer.parent) if inside else content)
        except OSError:
            if movable:
                shutil.move(content, pointer)
            else:
                temporary = pointer.with_name(pointer.name + ".tmp")
                shutil.copyfile(content, temporary)
                temporary.replace(pointer)
        return pointer

    def listing(self, commit: str | None) -> Listing | None:
        """What this cache knows of the repository without network; ``None`` when it has no such commit.

        A listing kept by the library (``trees``) names all files; otherwise only the files that are here are
        named, with the hashes that their blobs are called by.
        """
        commit = commit or self._main()
        if commit is None:
            return None
        tree = self._tree(commit)
        if tree is not None:
            return Listing(commit, tree)
        snapshot = self.folder / "snapshots" / commit
        files = {
            path.relative_to(snapshot).as_posix(): _by_blob_name(path) for path in snapshot.rglob("*") if path.is_file()
        }
        return Listing(commit, files) if files else None

    def knows_all_files(self, commit: str) -> bool:
        """Whether the listing is the hub's own, so that a glob can be trusted to find every file."""
        return self._tree(commit) is not None

    def _main(self) -> str | None:
        try:
            commit = (self.folder / "refs" / "main").read_text(encoding="utf-8").strip()
        except OSError:
            return None
        return commit if _HEX.fullmatch(commit) else None

    def _tree(self, commit: str) -> dict[str, Remote] | None:
        try:
            text = (self.folder / "trees" / f"{commit}.json").read_text(encoding="utf-8")
            return {
                name: Remote(entry.get("lfs_size") or entry["size"], entry.get("lfs_sha256"), entry["blob_id"])
                for name, entry in json.loads(text)["files"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def forget(self, pointer: Path, *, owned: bool) -> int:
        """Remove a file from the snapshot and, if Studio downloaded it, its content. Returns the bytes freed.

        Content that another snapshot shows stays.
        """
        content = pointer.resolve()
        outside = pointer.is_symlink() and not content.is_relative_to(self.folder.resolve())
        if not owned and not outside:
            return 0
        size = content.stat().st_size if content.is_file() else 0
        pointer.unlink(missing_ok=True)
        self._prune(pointer.parent)
        if outside or not owned:
            return 0
        if content != pointer:
            shown = (link for link in (self.folder / "snapshots").rglob("*") if link.is_symlink())
            if any(link.resolve() == content for link in shown):
                return 0
            content.unlink(missing_ok=True)
        return size

    def _prune(self, folder: Path) -> None:
        """Remove folders that became empty, up to the snapshots' own."""
        while folder.is_relative_to(self.folder / "snapshots") and folder.name != "snapshots":
            try:
                folder.rmdir()
            except OSError:
                return
            folder = folder.parent


def _by_blob_name(path: Path) -> Remote:
    name = path.resolve().name
    known = name if _HEX.fullmatch(name) else None
    is_sha256 = known is not None and len(known) == 64
    return Remote(path.stat().st_size, known if is_sha256 else None, None if is_sha256 else known)
