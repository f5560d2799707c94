"""What the hub says of a repository, and its errors in plain words. The only door to ``huggingface_hub``.

The library stays silent here: no telemetry, no xet, no look at which program calls it (with telemetry on, it
asks the hub for a list of known agents before its first real request).
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from studio.errors import NotFound, StudioError

T = TypeVar("T")

ATTEMPTS = 6
"""Requests in a row that may bring nothing before a pull gives up."""
FIRST_WAIT_S = 0.5
_MAX_WAIT_S = 8.0
_RETRY_STATUS = frozenset({408, 429, 500, 502, 503, 504})
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Remote:
    """One file as the hub lists it. ``sha256`` is known for LFS files, ``blob_id`` (git's name) for all."""

    bytes: int | None
    sha256: str | None
    blob_id: str | None

    @property
    def etag(self) -> str | None:
        """The file's name in the ``blobs`` folder of a cache."""
        return self.sha256 or self.blob_id


@dataclass(frozen=True)
class Listing:
    """All files of a repository at one commit."""

    commit: str
    files: dict[str, Remote]


class Retry(Exception):
    """A request failed in a way that may pass; ``wait_s`` is what the server asked for, if it did."""

    def __init__(self, why: str, wait_s: float | None = None) -> None:
        super().__init__(why)
        self.wait_s = wait_s


def quiet() -> None:
    """Switch off what the library would send or use unasked, also if somebody imported it before."""
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = os.environ["HF_HUB_DISABLE_XET"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_DISABLE_TELEMETRY = constants.HF_HUB_DISABLE_XET = True


def endpoint() -> str:
    """The hub's address, as the user set it now (the library reads it only once)."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def pause(failures: int, wait_s: float | None, tick: Callable[[], None] = lambda: None) -> None:
    """Wait before the next attempt: twice as long each time, or as long as the server asked (a minute at most).

    ``tick`` is called meanwhile, so that a face stays alive and a cancelled pull ends.
    """
    seconds = min(60.0, wait_s) if wait_s is not None else min(_MAX_WAIT_S, FIRST_WAIT_S * 2 ** (failures - 1))
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        tick()
        time.sleep(min(left, 0.25))


def gave_up(what: str, why: object) -> StudioError:
    """The error after the last attempt."""
    return StudioError(
        f"{what} failed {ATTEMPTS} times in a row: {why}.",
        "What was downloaded is kept. Check the network, then pull again to go on from there.",
    )


def attempt(what: str, action: Callable[[], T]) -> T:
    """``action()``, again after each ``Retry``, with growing pauses; then ``StudioError``."""
    for failures in range(1, ATTEMPTS + 1):
        try:
            return action()
        except Retry as error:
            if failures == ATTEMPTS:
                raise gave_up(what, error) from error
            pause(failures, error.wait_s)
    raise AssertionError("unreachable")


def check_status(status: int, retry_after: str | None, repo: str, what: str) -> None:
    """Raises for an error status: ``Retry`` if it may pass, else a line that says what to do."""
    if status < 400:
        return
    if status in _RETRY_STATUS:
        wait_s = float(retry_after) if retry_after and retry_after.isdigit() else None
        raise Retry(f"the server answered {status}", wait_s)
    if status in (401, 403):
        raise StudioError(
            f"The hub refuses access to {what} (status {status}).",
            f"Accept the licence at {endpoint()}/{repo} (or check the name), log in with: hf auth login, pull again.",
        )
    if status == 404:
        raise NotFound(f"The hub has no {what}.", "Check repo, revision and path in the catalogue entry.")
    raise StudioError(f"The hub answered {status} for {what}.", "Try again later.")


@contextmanager
def plain_network_errors() -> Iterator[None]:
    """Turn the transport's errors, which may pass, into ``Retry``."""
    import httpx2

    try:
        yield
    except httpx2.TimeoutException as error:
        raise Retry(f"no answer in time ({type(error).__name__})") from error
    except httpx2.RequestError as error:
        raise Retry(str(error) or type(error).__name__) from error


def list_repo(repo: str, revision: str | None) -> Listing:
    """The files of ``repo`` at ``revision`` (``None``: at the newest commit of its main branch)."""
    quiet()
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    what = f"{repo} at {revision or 'main'}"

    def ask() -> Listing:
        with plain_network_errors():
            try:
                info = HfApi(endpoint=endpoint(), library_name="studio").model_info(
                    repo, revision=revision or "main", files_metadata=True, timeout=timeout_s()
                )
            except HfHubHTTPError as error:
                check_status(error.response.status_code, error.response.headers.get("Retry-After"), repo, what)
                raise Retry(str(error)) from error
            except (ValueError, KeyError, TypeError) as error:
                raise StudioError(
                    f"{endpoint()} did not answer like the hub for {what}: {error}", "Check HF_ENDPOINT and your proxy."
                ) from error
        files = {}
        for sibling in info.siblings or []:
            size = sibling.lfs.size if sibling.lfs else sibling.size
            sha256 = sibling.lfs.sha256 if sibling.lfs else None
            files[sibling.rfilename] = Remote(size, sha256, sibling.blob_id)
        return Listing(info.sha or "", files)

    listing = attempt(f"Asking {endpoint()} for {what}", ask)
    if not _COMMIT.fullmatch(listing.commit) or revision not in (None, listing.commit):
        raise StudioError(
            f"{endpoint()} answered with commit {listing.commit!r} for {what}; expected 40 hex digits of that commit.",
            "Check HF_ENDPOINT: it does not behave like the hub.",
        )
    return listing


def timeout_s() -> float:
    """Seconds without a byte before an attempt is given up (``HF_HUB_DOWNLOAD_TIMEOUT``, 10 by default)."""
    from huggingface_hub import constants

    return float(constants.HF_HUB_DOWNLOAD_TIMEOUT)
