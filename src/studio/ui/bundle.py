"""Gradio's own scripts and styles, answered without Gradio.

The page asks for about a hundred of them before it can be used. Gradio compresses each anew for every browser and gives
no time for which it may be kept, so they are most of what a browser waits for. Here they come from memory, as they are
(the way is short: this machine, or its network), and may be kept for ever where the name holds a hash of the content.
"""

from __future__ import annotations

import importlib.util
import mimetypes
import re
from functools import lru_cache
from pathlib import Path

from starlette.types import ASGIApp, Receive, Scope, Send

_FOLDERS = ("assets", "static")
_PATH = re.compile(r"^(?:/fr)?/((?:assets|static)/[\w./-]+)$", re.ASCII)
_TABLE = re.compile(r"\bm\.f=\[([^\]]*)\]")
_COMPONENT = re.compile(
    r"[{,](\w+):\{(?:\w+:\(\)=>\w+\(\(\)=>import\(`[^`]+`\)[^{}\[\]]*\[[\d,]*\]\),import\.meta\.url\),)*?"
    r"component:\(\)=>\w+\(\(\)=>import\(`[^`]+`\)[^{}\[\]]*\[([\d,]*)\]"
)
DRAWN = frozenset({
    "accordion", "audio", "browserstate", "button", "checkbox", "column", "dropdown", "file", "form", "image",
    "markdown", "multimodaltextbox", "number", "radio", "row", "slider", "state", "tabitem", "tabs", "textbox",
})  # fmt: skip
"""The kinds of components that the page has from its start."""
_TYPES = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".woff2": "font/woff2"}


class Frontend:
    """The files by their exact names: what was not there at the start does not exist, so no path leads elsewhere."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or find_frontend()
        self._files = {
            file.relative_to(self._folder).as_posix(): file
            for name in _FOLDERS
            for file in (self._folder / name).rglob("*")
            if file.is_file()
        }

    def get(self, name: str) -> Path | None:
        return self._files.get(name)

    def beginning(self) -> list[str]:
        """What the page will load, so that a page that waits loads it already: first by the links of the template,
        then by the tables of its scripts (vite writes into each what its imports need). A version that keeps them
        otherwise has nothing there, and is only slower."""
        template = (self._folder / "index.html").read_text(encoding="utf-8")
        names = re.findall(r'(?:src|href)="\./(assets/[^"]+)"', template)
        for entry in [name for name in names if name.endswith(".js")]:
            names += self._table(entry)
            for script in [name for name in names if "/Index-" in name]:
                names += [name for name in self._table(script) if "/Blocks-" in name or "-logo-" in name]
            for script in [name for name in names if "/core-" in name and name.endswith(".js")]:
                names += self._drawn(script)
        return [name for name in dict.fromkeys(names) if name in self._files]

    def _table(self, script: str) -> list[str]:
        file = self._files.get(script)
        found = _TABLE.search(file.read_text(encoding="utf-8")) if file else None
        return [f"assets/{name}" for name in re.findall(r'"\./([^"]+)"', found[1])] if found else []

    def _drawn(self, script: str) -> list[str]:
        """The scripts and styles of the kinds of components that a page has."""
        table, text = self._table(script), self._files[script].read_text(encoding="utf-8")
        rows = [found[2] for found in _COMPONENT.finditer(text) if found[1] in DRAWN]
        return [table[int(number)] for row in rows for number in row.split(",") if number and int(number) < len(table)]


class Bundle:
    """The ASGI layer that answers with them; anything else goes on to ``app``."""

    def __init__(self, app: ASGIApp, frontend: Frontend) -> None:
        self._app = app
        self._frontend = frontend

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = _PATH.match(scope["path"]) if scope["type"] == "http" and scope["method"] == "GET" else None
        file = self._frontend.get(asked[1]) if asked else None
        if asked is None or file is None:
            await self._app(scope, receive, send)
            return
        body = _content(file)
        kept = "private, max-age=31536000, immutable" if asked[1].startswith("assets/") else "private, max-age=3600"
        kind = _TYPES.get(file.suffix) or mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        headers = [
            (b"content-type", kind.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", kept.encode()),
        ]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def find_frontend() -> Path:
    """Where Gradio keeps them; found without importing it, which takes seconds."""
    found = importlib.util.find_spec("gradio")
    if found is None or not found.submodule_search_locations:
        raise ModuleNotFoundError("gradio is not installed")
    return Path(found.submodule_search_locations[0]) / "templates" / "frontend"


@lru_cache(maxsize=256)
def _content(file: Path) -> bytes:
    """A page takes 2 MB of them; the large ones (plots, diagrams) are asked for by nothing of ours."""
    return file.read_bytes()
