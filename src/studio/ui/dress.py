"""What Gradio's own HTML page lacks: our style before the first paint, the nonce, the language; nothing foreign."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.ui.guard import prefers_french

_OUTSIDE = re.compile(rb"<meta\s+(?:property|name)=\"(?:og|twitter):[^>]*>\s*", re.DOTALL)
# Gradio takes the language of its own few words from the browser; on our page the person has chosen it.
_SPEAK = (
    "<script>Object.defineProperties(navigator, {{language: {{get: () => '{0}'}}, languages: {{get: () => ['{0}']}}}});"
    "</script>"
)
# Where Gradio's scripts run already, the element would be made before its attributes are read: copied, it has them.
_PUT = b"""</gradio-app></template><script>{
  const kept = document.querySelector("body > template");
  kept.replaceWith(document.importNode(kept.content, true));
}</script>"""
_PAGES = {"/": "en", "/fr": "fr", "/fr/": "fr"}


class Dress:
    """Rewrites the two HTML pages, and sends a browser that prefers French to the French one."""

    def __init__(self, app: ASGIApp, assets: Callable[[], list[str]], beginning: Callable[[str], str | None]) -> None:
        """``assets`` names the files of the widgets: asked for each page, since they are found while it starts.
        ``beginning``: what a browser is answered in a language at once, while the rest is being made."""
        self._app = app
        self._assets = assets
        self._beginning = beginning
        self._version = str(int((Path(__file__).parent / "style.css").stat().st_mtime))

    def _head(self) -> str:
        own = [f"studio/style.css?{self._version}", f"studio/keys.js?{self._version}"]
        return "".join(_link(file) for file in [*own, *(f"studio/widget/{name}" for name in self._assets())])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        language = _PAGES.get(scope.get("path", "")) if scope["type"] == "http" else None
        if language is None:
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        wanted = _wanted(headers)
        if language != wanted and scope["path"] == "/" and "text/html" in headers.get("accept", ""):
            await send({"type": "http.response.start", "status": 303, "headers": [(b"location", b"/fr/")]})
            await send({"type": "http.response.body", "body": b""})
            return
        plain = [(name, value) for name, value in scope["headers"] if name != b"accept-encoding"]
        rewriter = _Rewriter(send, self._head, language, scope["state"]["nonce"])
        browses = scope["method"] == "GET" and "text/html" in headers.get("accept", "")
        if browses and scope["path"] != "/fr" and (beginning := self._beginning(language)) is not None:
            await rewriter.begin(beginning)
        await self._app({**scope, "headers": plain}, receive, rewriter)


def _link(file: str) -> str:
    style = ".css" in file
    return f'<link rel="stylesheet" href="{file}">' if style else f'<script type="module" src="{file}"></script>'


def _wanted(headers: dict[str, str]) -> str:
    chosen = re.search(r"(?:^|;\s*)studio_language=(en|fr)", headers.get("cookie", ""))
    return "fr" if prefers_french(chosen[1] if chosen else "", headers.get("accept-language", "")) else "en"


class _Rewriter:
    """Collects an HTML answer and sends it changed; anything else goes through as it is.

    An answer that was begun goes on with the HTML, or ends where something else was to be said.
    """

    def __init__(self, send: Send, head: Callable[[], str], language: str, nonce: str) -> None:
        self._send, self._head, self._language, self._nonce = send, head, language, nonce
        self._start: Message | None = None
        self._begun = False
        self._body = b""

    async def begin(self, beginning: str) -> None:
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"cache-control", b"no-store")]
        await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        body = self._own(beginning.encode())
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        self._begun = True

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            kind = dict(message["headers"]).get(b"content-type", b"")
            if kind.startswith(b"text/html"):
                self._start = message
            if self._start or self._begun:
                return
        if not (self._start or self._begun) or message["type"] != "http.response.body":
            await self._send(message)
            return
        self._body += message.get("body", b"")
        if not message.get("more_body"):
            await self._end()

    async def _end(self) -> None:
        body = self._dressed() if self._start else b""
        if self._start and not self._begun:
            kept = [(name, value) for name, value in self._start["headers"] if name != b"content-length"]
            await self._send({**self._start, "headers": [*kept, (b"content-length", str(len(body)).encode())]})
        await self._send({"type": "http.response.body", "body": body})

    def _dressed(self) -> bytes:
        body = _OUTSIDE.sub(b"", self._body)
        body = body.replace(b"</head>", (self._head() + "</head>").encode(), 1)
        if not self._begun:
            return self._own(body)
        body = body.replace(b"<gradio-app", b"<template><gradio-app", 1).replace(b"</gradio-app>", _PUT, 1)
        return self._allowed(body)

    def _own(self, body: bytes) -> bytes:
        """With the language, for the page and for Gradio, and the nonce of our policy."""
        body = body.replace(b'lang="en"', f'lang="{self._language}"'.encode(), 1)
        body = body.replace(b"<head>", b"<head>" + _SPEAK.format(self._language).encode(), 1)
        return self._allowed(body)

    def _allowed(self, body: bytes) -> bytes:
        return body.replace(b"<script", f'<script nonce="{self._nonce}"'.encode())
