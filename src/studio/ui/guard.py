"""The guard: one small ASGI layer that every request passes before Gradio or we see it.

A page on the loopback address is reachable by every web page that the same browser shows (DNS rebinding, forged
requests), so the name in ``Host``, the ``Origin`` and ``Sec-Fetch-Site`` must be exactly ours, only known paths exist,
and only known kinds of body are taken. With a password nothing at all is shown without it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

from studio.ui.login import login_page

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MAX_BODY_BYTES = 8_000_000
MAX_UPLOAD_BYTES = 4 * 1024**3
COOKIE = "studio_session"
WRONG_PASSWORDS_A_MINUTE = 10

# What the page and the Gradio client ask for. Gradio has more routes (a proxy, an editor of its own code).
_PATHS = re.compile(
    r"^(/fr)?/($|assets/|static/|config/?$|theme\.css$|favicon\.ico$|manifest\.json$|robots\.txt$|studio/[\w./~-]+$"
    r"|gradio_api/(info/?$|queue/(join|data)/?$|heartbeat/\w+$|upload(_progress)?/?$|file=(?!https?:)|startup-events$"
    r"|app_id/?$|login_check/?$|cancel$|reset/?$|(run|api|call)/))",
    re.ASCII,
)
_UPLOAD = re.compile(r"/gradio_api/upload/?$")
_USER_FILES = re.compile(r"^(/fr)?/(gradio_api/file=|studio/(artefact|input|preview|thumb)/)")
_UNSAFE_PATH = re.compile(r"(^|/)\.\.?(/|$)|\\|\x00|//")
_CHANGES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_METHODS = _CHANGES | {"GET", "HEAD"}


@dataclass
class Gate:
    """Who may come in. ``hosts`` are exact values of ``Host`` with their port; ``password`` None: everybody there."""

    hosts: frozenset[str]
    password: str | None = None
    _token: str = field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    _sessions: set[bytes] = field(default_factory=set, repr=False)
    _wrong: deque[float] = field(default_factory=lambda: deque(maxlen=WRONG_PASSWORDS_A_MINUTE), repr=False)

    @property
    def origins(self) -> frozenset[str]:
        return frozenset(f"http://{host}" for host in self.hosts)

    @property
    def token(self) -> str:
        """Opens the page once, in place of the password: for the address that is printed at the start."""
        return self._token

    def exchange(self, token: str) -> str | None:
        """A new session for the one-time token; ``None`` if it is wrong or was used."""
        if not self._token or not hmac.compare_digest(token.encode(), self._token.encode()):
            return None
        self._token = ""
        return self.begin()

    def begin(self) -> str:
        session = secrets.token_urlsafe(32)
        self._sessions.add(hashlib.sha256(session.encode()).digest())
        return session

    def knows(self, session: str) -> bool:
        return hashlib.sha256(session.encode()).digest() in self._sessions

    def right(self, password: str) -> bool | None:
        """Whether the password is right; ``None`` after too many wrong ones within a minute."""
        now = time.monotonic()
        if len(self._wrong) == WRONG_PASSWORDS_A_MINUTE and now - self._wrong[0] < 60:
            return None
        if self.password is not None and hmac.compare_digest(password.encode(), self.password.encode()):
            return True
        self._wrong.append(now)
        return False


class Guard:
    """Refuses with one line of plain text: 421 another host, 403 another origin, 401 no session, 404 no such path."""

    def __init__(self, app: App, gate: Gate) -> None:
        self._app = app
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = _Headers(scope["headers"])
        refused = self._refused(scope, headers)
        if scope["type"] == "websocket":  # nothing of ours speaks it
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        elif refused:
            await _answer(send, *refused)
        elif self._gate.password is not None and not self._known(headers):
            await self._at_the_gate(scope, headers, receive, send)
        else:
            nonce = secrets.token_urlsafe(16)
            scope.setdefault("state", {})["nonce"] = nonce
            await self._app(scope, _limited(receive, _limit(scope)), _with_headers(scope, nonce, send))

    def _refused(self, scope: Scope, headers: _Headers) -> tuple[int, str] | None:
        """The status and the reason, or ``None``. The order matters: a foreign page learns nothing of our paths."""
        host, origin, site = headers.only("host"), headers.only("origin"), headers.only("sec-fetch-site")
        if host is None or host.lower() not in self._gate.hosts:
            return 421, "This address does not belong to this Studio."
        if origin is not None and origin.lower() not in self._gate.origins:
            return 403, "Another web page asked for this."
        if site not in (None, "same-origin", "none"):
            return 403, "Another web page asked for this."
        method, path = scope.get("method", "GET"), scope["path"]
        if method not in _METHODS:
            return 405, "There is no such method here."
        if method in _CHANGES and not _proper_body(path, headers):
            return 403, "A body must be JSON, or an upload at its own place."
        if (_UNSAFE_PATH.search(path) and "gradio_api/file=" not in path) or not _PATHS.match(path):
            return 404, "There is nothing here."
        length = headers.only("content-length") or "0"
        if not length.isdecimal() or int(length) > _limit(scope):
            return 413, f"The request is too large; the limit is {_limit(scope):,} bytes."
        return None

    def _known(self, headers: _Headers) -> bool:
        """By the cookie of a browser, or by ``Authorization: Bearer PASSWORD`` of a program."""
        scheme, _, word = (headers.only("authorization") or "").partition(" ")
        if scheme.lower() == "bearer":
            return self._gate.right(word.strip()) is True
        return self._gate.knows(headers.cookie(COOKIE))

    async def _at_the_gate(self, scope: Scope, headers: _Headers, receive: Receive, send: Send) -> None:
        """The only things that exist for a stranger: the login form, its answer, and the one-time token."""
        french = headers.prefers_french()
        if scope["method"] == "GET" and scope["path"] in ("/", "/fr/"):
            token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
            session = self._gate.exchange(token) if token else None
            if session:
                await _welcome(send, session)
            else:
                await _answer(send, 401, login_page(french), "text/html")
        elif scope["method"] == "POST" and scope["path"] == "/studio/login":
            body = await _read(receive)
            right = self._gate.right(parse_qs(body.decode("utf-8", "replace")).get("password", [""])[0])
            if right:
                await _welcome(send, self._gate.begin())
            else:
                status = 429 if right is None else 401
                await _answer(send, status, login_page(french, wrong=True, wait=right is None), "text/html")
        else:
            await _answer(send, 401, "The password is needed: open the page, or send Authorization: Bearer PASSWORD.")


class _Headers:
    """Headers by name; a name that comes twice counts as wrong wherever one value decides."""

    def __init__(self, raw: Iterable[tuple[bytes, bytes]]) -> None:
        self._raw = [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw]

    def only(self, name: str) -> str | None:
        found = [value for key, value in self._raw if key == name]
        return found[0] if len(found) == 1 else ("\0" if found else None)

    def cookie(self, name: str) -> str:
        try:
            jar: SimpleCookie = SimpleCookie("; ".join(value for key, value in self._raw if key == "cookie"))
        except CookieError:
            return ""
        return jar[name].value if name in jar else ""

    def prefers_french(self) -> bool:
        return prefers_french(self.cookie("studio_language"), self.only("accept-language") or "")


def prefers_french(chosen: str, accepted: str) -> bool:
    """The language that was chosen on the page, else the first of the browser's that we speak."""
    if chosen in ("en", "fr"):
        return chosen == "fr"
    spoken = (part.split(";")[0].strip().lower()[:2] for part in accepted.split(","))
    return next((tongue == "fr" for tongue in spoken if tongue in ("en", "fr")), False)


def _proper_body(path: str, headers: _Headers) -> bool:
    """A form that another page sends by itself is never JSON; uploads have one place of their own."""
    kind = (headers.only("content-type") or "").split(";")[0].strip().lower()
    if _UPLOAD.search(path):
        return kind == "multipart/form-data"
    if path == "/studio/login":
        return kind == "application/x-www-form-urlencoded"
    return kind == "application/json" or (not kind and headers.only("content-length") in (None, "0"))


def _limit(scope: Scope) -> int:
    return MAX_UPLOAD_BYTES if _UPLOAD.search(scope["path"]) else MAX_BODY_BYTES


def _limited(receive: Receive, limit: int) -> Receive:
    """A body without a stated length is cut where it passes the limit."""
    seen = 0

    async def counted() -> Message:
        nonlocal seen
        message = await receive()
        seen += len(message.get("body", b""))
        return message if seen <= limit else {"type": "http.disconnect"}

    return counted


def content_policy(nonce: str) -> str:
    """Nothing from outside, no script but ours. Gradio sets styles on its elements, hence ``unsafe-inline`` there."""
    return (
        f"default-src 'none'; script-src 'self' 'nonce-{nonce}'; style-src 'self' 'unsafe-inline';"
        " img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob:;"
        " worker-src 'self' blob:; manifest-src 'self'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'"
    )


_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),  # with no-referrer the password's form would say "Origin: null"
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"geolocation=(), payment=(), usb=()"),
)


def _with_headers(scope: Scope, nonce: str, send: Send) -> Send:
    sandboxed = bool(_USER_FILES.match(scope["path"]))
    policy = "default-src 'none'; style-src 'unsafe-inline'; sandbox" if sandboxed else content_policy(nonce)

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            kept = [
                (name, value) for name, value in message["headers"] if not name.lower().startswith(b"access-control")
            ]
            message = {**message, "headers": [*kept, *_ALWAYS, (b"content-security-policy", policy.encode())]}
        await send(message)

    return sending


async def _read(receive: Receive) -> bytes:
    """A small body: a password."""
    body, more = b"", True
    while more and len(body) <= 4096:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return body[:4096]


async def _welcome(send: Send, session: str) -> None:
    """To the page, with the session in a cookie that scripts cannot read; the token leaves the address."""
    cookie = f"{COOKIE}={session}; HttpOnly; SameSite=Strict; Path=/"
    await _answer(send, 303, "", headers=((b"location", b"/"), (b"set-cookie", cookie.encode())))


async def _answer(
    send: Send, status: int, text: str, kind: str = "text/plain", headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    own = (
        (b"content-type", f"{kind}; charset=utf-8".encode()),
        (b"cache-control", b"no-store"),
        (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; form-action 'self'"),
    )
    await send({"type": "http.response.start", "status": status, "headers": [*own, *_ALWAYS, *headers]})
    await send({"type": "http.response.body", "body": text.encode()})
