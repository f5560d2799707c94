"""A hub on 127.0.0.1 that speaks as much of the real one's language as a download needs, and misbehaves on order.

It counts every byte of a body that it writes, so a test can say how much was really fetched again.
"""

from __future__ import annotations

import hashlib
import json
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

from studio.spec import ModelSpec

COMMIT = "a" * 40
REPO = "org/tiny"
MakeSpec = Callable[..., ModelSpec]
_LFS = (".safetensors", ".gguf", ".bin", ".pt")


def safetensors(size: int, seed: int = 0) -> bytes:
    """A file of ``size`` bytes that begins like safetensors; the rest is noise that depends on ``seed``."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    noise = hashlib.shake_128(str(seed).encode()).digest(size)
    return (struct.pack("<Q", len(header)) + header + noise)[:size]


def gguf(size: int, seed: int = 0) -> bytes:
    """A file of ``size`` bytes that begins like GGUF version 3 without tensors and keys."""
    return (b"GGUF" + struct.pack("<IQQ", 3, 0, 0) + hashlib.shake_128(str(seed).encode()).digest(size))[:size]


@dataclass
class Fault:
    """What to do wrong with one file: for the next ``times`` requests (-1: always)."""

    kind: str  # drop, ignore-range, flip, slow, short-range, or a status like "401"
    at: float = 0.5
    times: int = 1


@dataclass
class FakeHub:
    """``files[repo][commit][path]`` is content; ``faults[path]`` are applied in order."""

    files: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    main: dict[str, str] = field(default_factory=dict)
    faults: dict[str, list[Fault]] = field(default_factory=dict)
    listing_faults: list[Fault] = field(default_factory=list)
    lie: dict[str, dict[str, Any]] = field(default_factory=dict)
    redirect_to: str | None = None
    served: Counter[str] = field(default_factory=Counter)
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    url: str = ""

    def add(self, files: dict[str, bytes], repo: str = REPO, commit: str = COMMIT) -> None:
        self.files.setdefault(repo, {})[commit] = files
        self.main[repo] = commit

    def start(self) -> FakeHub:
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self) -> list[str]:
        """The paths of all requests so far."""
        return [path for _, path, _ in self.requests]

    def take_fault(self, path: str) -> Fault | None:
        with self.lock:
            waiting = self.faults.get(path, [])
            return _take(waiting)


def _take(waiting: list[Fault]) -> Fault | None:
    if not waiting:
        return None
    fault = waiting[0]
    if fault.times > 0:
        fault.times -= 1
        if fault.times == 0:
            waiting.pop(0)
    return fault


def is_lfs(path: str) -> bool:
    return path.endswith(_LFS)


def etag(path: str, content: bytes) -> str:
    if is_lfs(path):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """The counters are the log."""

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        with self.hub.lock:
            self.hub.requests.append((self.command, path, headers))
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            self._listing("/".join(parts[2:4]), parts[5] if len(parts) > 5 else "main")
        elif len(parts) > 4 and parts[2] == "resolve":
            self._file("/".join(parts[:2]), parts[3], "/".join(parts[4:]), body=body)
        else:
            self._plain(404)

    def _plain(self, status: int, content: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _listing(self, repo: str, revision: str) -> None:
        with self.hub.lock:
            fault = _take(self.hub.listing_faults)
        if fault is not None and fault.kind.isdigit():
            return self._plain(int(fault.kind))
        if fault is not None:
            return self._plain(200, b"<html>a captive portal</html>")
        commit = self.hub.main.get(repo, "") if revision == "main" else revision
        files = self.hub.files.get(repo, {}).get(commit)
        if files is None:
            return self._plain(404, X_Error_Code="RevisionNotFound")
        siblings = []
        for path, content in files.items():
            entry: dict[str, Any] = {"rfilename": path, "size": len(content), "blobId": etag("x", content)}
            if is_lfs(path):
                sha256 = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"size": len(content), "sha256": sha256, "pointerSize": 130}
            siblings.append(entry | self.hub.lie.get(path, {}))
        text = json.dumps({"id": repo, "sha": commit, "siblings": siblings}).encode()
        return self._plain(200, text, Content_Type="application/json")

    def _file(self, repo: str, revision: str, path: str, *, body: bool) -> None:
        if self.hub.redirect_to is not None:
            return self._plain(302, Location=self.hub.redirect_to + self.path)
        commit = self.hub.main.get(repo, "") if revision == "main" else revision
        content = self.hub.files.get(repo, {}).get(commit, {}).get(path)
        if content is None:
            return self._plain(404, X_Error_Code="EntryNotFound")
        fault = self.hub.take_fault(path)
        if fault is not None and fault.kind.isdigit():
            return self._plain(int(fault.kind), Retry_After="0")
        start = self._range_start(fault)
        if start >= len(content):
            return self._plain(416, Content_Range=f"bytes */{len(content)}")
        self.send_response(206 if start else 200)
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", f'"{etag(path, content)}"')
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            shown = start if fault is None or fault.kind != "short-range" else 0
            self.send_header("Content-Range", f"bytes {shown}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            self._body(path, content, start, fault)
        return None

    def _range_start(self, fault: Fault | None) -> int:
        asked = self.headers.get("Range", "")
        if not asked.startswith("bytes=") or (fault is not None and fault.kind == "ignore-range"):
            return 0
        return int(asked.removeprefix("bytes=").split("-")[0])

    def _body(self, path: str, content: bytes, start: int, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "flip":
            place = int(len(content) * fault.at)
            content = content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :]
        drops = fault is not None and fault.kind in ("drop", "ignore-range") and fault.at < 1
        end = int(len(content) * fault.at) if drops and fault is not None else len(content)
        pause = 0.01 if fault is not None and fault.kind == "slow" else 0.0
        try:
            for place in range(start, end, 64 * 1024):
                piece = content[place : min(place + 64 * 1024, end)]
                self.wfile.write(piece)
                with self.hub.lock:
                    self.hub.served[path] += len(piece)
                time.sleep(pause)
        except OSError:  # the client is gone
            self.close_connection = True
            return
        if end < len(content):
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
