"""The page answers from the first moment: Gradio takes seconds to import, so that happens while the browser is opened.

Until a language's page is made, a browser that asks for it gets the beginning of an answer: it shows that the page is
being made and loads the scripts meanwhile; the page itself follows as the rest of the same answer. Everything else
simply waits. A language is made when it is first asked for, so a person who reads one waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

from starlette.applications import Starlette
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.ui.i18n import LANGUAGES, words_of

Made = TypeVar("Made")
_OURS = re.compile(r"^(?:/fr)?/studio/")
_READY = re.compile(r"^(?:/fr)?/studio/ready$")
# What follows it is Gradio's whole document: a browser takes its <html> and <body> for those that are open already, and
# the rest for more of the body. The scripts are run as they come, so that nothing of theirs is left to be done then. A
# browser does not say that an answer was cut off: the request beside it does.
_BEGINNING = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Studio</title>
<meta name="viewport" content="width=device-width, initial-scale=1, shrink-to-fit=no">
<link rel="icon" href="studio/icon.svg">{links}
<style>.starting{{position:fixed;inset:0;z-index:9;display:grid;place-content:center;justify-items:center;gap:.5rem;
font:16px system-ui;background:#fff;color:#1f2937}}.starting b{{font-size:1.6rem}}.starting p{{margin:0;opacity:.7}}
@media(prefers-color-scheme:dark){{.starting{{background:#0b0f19;color:#f3f4f6}}}}
body:has(#tabs) .starting{{display:none}}</style></head>
<body><div class="starting" role="status"><b>Studio</b><p>{text}</p></div>
<script>{{ for (const name of {scripts}) import(new URL(name, document.baseURI)).catch(() => {{}});
const ready = () => fetch("studio/ready").then((answer) => {{ if (!answer.ok) throw answer; }});
const again = () => ready().then(() => location.reload(), () => setTimeout(again, 1000));
ready().catch(again);
addEventListener("DOMContentLoaded", () => {{ if (!document.querySelector("gradio-app")) again(); }}); }}</script>
"""


class Making(Protocol):
    """What the door waits for. Both run in a thread of their own, one after the other."""

    def routes(self) -> ASGIApp:
        """Import what takes long, and answer ``/studio/...`` of both languages."""

    def page(self, language: str) -> Starlette:
        """The Gradio page of a language, mounted in an application whose lifespan it needs."""


class Door:
    """The ASGI application behind the guard.

    ``ready`` is called once, when the first page can be used; ``failed`` when something could not be made, with
    ``fault`` set. ``at_once``: both languages are made before the start is over.
    """

    def __init__(
        self,
        making: Making,
        links: list[str],
        *,
        ready: Callable[[], None] = lambda: None,
        failed: Callable[[], None] = lambda: None,
        at_once: bool = False,
    ) -> None:
        self._making, self._ready, self._failed, self._at_once = making, ready, failed, at_once
        self._files = links
        self._thread = ThreadPoolExecutor(1, "page")
        self._open = contextlib.AsyncExitStack()
        self._parts: dict[str, asyncio.Task[ASGIApp]] = {}
        self._told = False
        self.fault: Exception | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        path = scope["path"]
        language = "fr" if path == "/fr" or path.startswith("/fr/") else "en"
        if _READY.match(path):
            await asyncio.shield(self._page(language))
            await Response(status_code=204, headers={"cache-control": "no-store"})(scope, receive, send)
        elif _OURS.match(path):
            await (await asyncio.shield(self._routes()))(scope, receive, send)
        else:
            await (await asyncio.shield(self._page(language)))(scope, receive, send)

    def beginning(self, language: str) -> str | None:
        """How the answer begins for a browser that asks for a page which is not made yet."""
        if self._page(language).done():
            return None
        styles = [f'<link rel="preload" as="style" href="{one}" crossorigin>' for one in self._files if ".css" in one]
        scripts = [one for one in self._files if one.endswith(".js")]
        links = [*styles, *(f'<link rel="modulepreload" href="{one}">' for one in scripts)]
        text = words_of(language)("page.starting")
        return _BEGINNING.format(links="".join(links), text=text, scripts=json.dumps(scripts))

    def _routes(self) -> asyncio.Task[ASGIApp]:
        if "" not in self._parts:
            self._parts[""] = asyncio.create_task(self._make(self._making.routes))
        return self._parts[""]

    def _page(self, language: str) -> asyncio.Task[ASGIApp]:
        if language not in self._parts:
            self._parts[language] = asyncio.create_task(self._opened(language))
        return self._parts[language]

    async def _opened(self, language: str) -> ASGIApp:
        await asyncio.shield(self._routes())
        page = await self._make(lambda: self._making.page(language))
        await self._open.enter_async_context(page.router.lifespan_context(page))
        if not self._told:
            self._told = True
            self._ready()
        return page

    async def _make(self, make: Callable[[], Made]) -> Made:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, make)
        except Exception as error:
            self.fault = self.fault or error
            self._failed()
            raise

    async def _live(self, receive: Receive, send: Send) -> None:
        """Begin with the start; what was opened is closed with the end."""
        await receive()
        try:
            if self._at_once:
                for language in LANGUAGES:
                    await self._page(language)
            else:
                self._parts["first"] = asyncio.create_task(self._first())
        except Exception as error:
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            raise
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._thread.shutdown(wait=False, cancel_futures=True)
        await self._open.aclose()
        await send({"type": "lifespan.shutdown.complete"})

    async def _first(self) -> ASGIApp:
        """Nobody may have asked for a page when all else is ready: programs want the English one."""
        routes = await asyncio.shield(self._routes())
        if not any(language in self._parts for language in LANGUAGES):
            await self._page("en")
        return routes
