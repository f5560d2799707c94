"""One file over HTTP into a partial file that survives drops, kills and restarts.

This small part is ours because ``huggingface_hub`` 2.4 cannot do it (its ``file_download.py``): it writes to a
temporary file with a random name and deletes that on failure, so a killed or failed download starts from zero;
it hands bytes on in pieces of 10 MiB, so each drop loses up to that much and progress stands still in between;
it gives up at once on a reset connection or a 5xx; and it never compares the sha256. Its session, headers, token
and redirects (which drop the token when they leave the hub) are used as they are.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from studio.download.common import Meter
from studio.download.hub_api import (
    ATTEMPTS,
    Retry,
    check_status,
    endpoint,
    gave_up,
    pause,
    plain_network_errors,
    quiet,
    timeout_s,
)

# A line that drops after every few bytes ends here, though each request brought something.
_MAX_REQUESTS = 200


def fetch(repo: str, commit: str, path: str, partial: Path, size: int | None, meter: Meter) -> None:
    """Complete ``partial`` with the bytes of ``path`` at ``commit``, going on where it ends.

    ``size`` in bytes, ``None`` if not known. Raises ``StudioError`` after ``ATTEMPTS`` requests in a row that
    brought nothing. The content is not checked here.
    """
    what = f"Downloading {path} of {repo}"
    failures = 0
    for _ in range(_MAX_REQUESTS):
        before = _size(partial)
        meter.current = before
        if size is not None and before == size:
            return
        try:
            _request(repo, commit, path, partial, before, size, meter)
            return
        except Retry as error:
            reason = error
        failures = 0 if _size(partial) > before else failures + 1
        if failures >= ATTEMPTS:
            raise gave_up(what, reason) from reason
        pause(max(1, failures), reason.wait_s, meter.tick)
    raise gave_up(what, f"{_MAX_REQUESTS} requests, each cut off")


def _request(repo: str, commit: str, path: str, partial: Path, offset: int, size: int | None, meter: Meter) -> None:
    quiet()
    from huggingface_hub import get_session
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = f"{endpoint()}/{repo}/resolve/{commit}/{quote(path)}"
    # Compressed bytes could not be counted or continued.
    headers = build_hf_headers(library_name="studio") | {"Accept-Encoding": "identity"}
    if offset:
        headers["Range"] = f"bytes={offset}-"
    with (
        plain_network_errors(),
        get_session().stream("GET", url, headers=headers, timeout=timeout_s()) as response,
    ):
        if response.status_code == 416:
            partial.unlink(missing_ok=True)
            raise Retry(f"the server has no bytes from {offset} on")
        check_status(response.status_code, response.headers.get("Retry-After"), repo, f"{path} of {repo}")
        compressed = response.headers.get("Content-Encoding", "identity") != "identity"
        resumed = response.status_code == 206
        if resumed and (compressed or not _starts_at(response.headers.get("Content-Range"), offset)):
            partial.unlink(missing_ok=True)
            raise Retry(f"the server did not continue at byte {offset}")
        # A server that ignores Range sends the file from its start: so does the partial file begin again.
        meter.current = done = offset if resumed else 0
        with partial.open("ab" if resumed else "wb", buffering=0) as file:
            for chunk in response.iter_bytes():
                done += len(chunk)
                if size is not None and done > size:
                    file.truncate(0)
                    raise Retry(f"the server sent more than the {size} bytes that the hub lists")
                file.write(chunk)
                meter.advance(len(chunk))
    if size is not None and done < size:
        raise Retry(f"the connection ended after {done} of {size} bytes")


def _starts_at(content_range: str | None, offset: int) -> bool:
    """Whether ``bytes 100-199/200`` begins at ``offset``."""
    return (content_range or "").replace("bytes ", "", 1).partition("-")[0].strip() == str(offset)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
