"""Input files, kept under their sha256 from the moment that a request is accepted."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from studio.errors import BadRequest
from studio.files import copy_whole, sha256_of
from studio.media import check_input, extension

MAX_INPUT_BYTES = 4 * 1024**3


class InputKeeper:
    """Checks the files of one request while it is validated, and copies them once it was accepted.

    Two steps, so that a refused request leaves nothing behind. ``hashes`` maps each kept path to its sha256.
    """

    def __init__(self, folder: Path, *, references: bool = False) -> None:
        self._folder = folder
        self._references = references
        self._pending: dict[Path, Path] = {}
        self.hashes: dict[str, str] = {}

    def adopt(self, path: Path, accept: tuple[str, ...], name: str) -> Path:
        """Where the file will be kept. Raises ``BadRequest`` if it is missing, too large or of another type."""
        if self._references and "${" in str(path):
            return path
        if "\0" in str(path):
            raise BadRequest(f"{name}: the path holds a NUL character.", "Give the path of an existing file.")
        with suppress(RuntimeError):  # "~nobody" is then a file of that name, which is missing
            path = Path(path).expanduser()
        media_type = check_input(path, accept, name)
        size = path.stat().st_size
        if size > MAX_INPUT_BYTES:
            raise BadRequest(
                f"{name}: {path.name!r} has {size:,} bytes; the limit is {MAX_INPUT_BYTES:,}.", "Shorten it."
            )
        digest = sha256_of(path)
        kept = self._folder / f"{digest}{extension(media_type)}"
        self._pending[kept] = path
        self.hashes[str(kept)] = digest
        return kept

    def keep(self) -> None:
        """Copy what is not kept yet."""
        for kept, path in self._pending.items():
            if kept.exists():
                continue
            copy_whole(path, kept)
            if sha256_of(kept) != kept.stem:
                kept.unlink()
                raise BadRequest(f"{path.name!r} was changed while it was read.", "Ask again.")


def hashes_in(params: dict[str, Any], folder: Path) -> dict[str, str]:
    """The input files that stand anywhere in stored parameters: ``{file name: sha256}``, for the recipe."""
    found: dict[str, str] = {}

    def walk(value: Any) -> None:
        if isinstance(value, dict):
            for item in value.values():
                walk(item)
        elif isinstance(value, list):
            for item in value:
                walk(item)
        elif isinstance(value, str) and len(value) < 4096 and value.startswith(str(folder)):
            found[Path(value).name] = Path(value).stem

    walk(params)
    return found
