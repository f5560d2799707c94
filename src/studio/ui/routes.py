"""Our own addresses below ``studio/``: pieces of the page that change, files by opaque id, and what buttons do.

live/NAME?...            a piece of HTML; ``X-Next-Ms`` says when to ask again; 204 where nothing changed
do                       POST {"do": ..., ...}: the buttons of the lists
artefact/ID, thumb/ID, preview/JOB, sheet/GRID, input/NAME, widget/NAME/FILE, style.css, keys.js
language/CODE            remember the language and go to its page
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from studio.errors import NotFound, StudioError
from studio.files import write_whole
from studio.film_plugin import poster
from studio.grids import write_grids
from studio.media import MAX_PIXELS
from studio.ui import actions
from studio.ui.house import House
from studio.ui.i18n import LANGUAGES, Words, words_of
from studio.ui.tabs import gallery, grid, jobs, machine, make, models, result, thread

log = logging.getLogger(__name__)

Render = Callable[[House, Words, Mapping[str, str]], tuple[str, int]]
LIVE: dict[str, Render] = {
    "status": jobs.render_status,
    "jobs": jobs.render,
    "gallery": gallery.render,
    "models": models.render,
    "machine": machine.render,
    "result": result.render,
    "need": make.render_need,
    "thread": thread.render,
    "history": thread.render_history,
}
THUMB = 320
_HERE = Path(__file__).parent
_SCRIPTS = tuple(file.name for file in _HERE.glob("*.js"))
_ASSETS = {"style.css": "text/css", "icon.svg": "image/svg+xml", **dict.fromkeys(_SCRIPTS, "text/javascript")}
_INPUT = re.compile(r"^[0-9a-f]{64}\.\w{1,5}$")


def routes_of(house: House) -> list[Route]:
    """All of them, for both languages: the French page asks below ``/fr``."""
    serve = _Server(house)
    table: list[tuple[str, Callable[[Request], object], str]] = [
        ("live/{name}", serve.live, "GET"),
        ("do", serve.do, "POST"),
        ("artefact/{id}", serve.artefact, "GET"),
        ("artefact/{id}/{name}", serve.artefact, "GET"),
        ("thumb/{id}", serve.thumb, "GET"),
        ("sheet/{name}", serve.sheet, "GET"),
        ("preview/{job}", serve.preview, "GET"),
        ("input/{name}", serve.input, "GET"),
        ("widget/{name}/{file}", serve.widget, "GET"),
        ("language/{language}", serve.language, "GET"),
        ("{name}", serve.asset, "GET"),
    ]
    return [
        Route(f"{prefix}/studio/{path}", handler, methods=[method])
        for prefix in ("", "/fr")
        for path, handler, method in table
    ]


def _say(request: Request) -> Words:
    return words_of("fr" if request.url.path.startswith("/fr/") else "en")


class _Server:
    def __init__(self, house: House) -> None:
        self._house = house

    async def live(self, request: Request) -> Response:
        render = LIVE.get(request.path_params["name"])
        if render is None:
            return PlainTextResponse("There is no such piece.", 404)
        try:
            html, again_ms = await run_in_threadpool(render, self._house, _say(request), request.query_params)
        except (StudioError, ValueError) as error:
            return PlainTextResponse(str(error), 404)
        tag = hashlib.sha256(html.encode()).hexdigest()[:16]
        headers = {"X-Next-Ms": str(again_ms), "X-Tag": tag, "Cache-Control": "no-store"}
        if request.headers.get("x-tag") == tag:
            return Response(status_code=204, headers=headers)
        return Response(html, media_type="text/html", headers=headers)

    async def do(self, request: Request) -> Response:
        try:
            asked = json.loads(await request.body())
        except ValueError:
            asked = None
        if not isinstance(asked, dict):
            return JSONResponse({"error": "The body is no JSON object."}, 400)
        try:
            said = await run_in_threadpool(actions.do, self._house, _say(request), asked)
        except StudioError as error:
            told = self._house.told(_say(request), error.what, error.hint)
            return JSONResponse({"error": told}, 404 if isinstance(error, NotFound) else 400)
        return JSONResponse({"said": said})

    async def artefact(self, request: Request) -> Response:
        try:
            made = await run_in_threadpool(self._house.studio.artefacts.get, request.path_params["id"])
        except NotFound:
            return _nothing()
        path = Path(made.path)
        inside = path.resolve().is_relative_to(self._house.studio.home.outputs)
        headers = {"Cache-Control": "private, max-age=3600"}
        return (
            FileResponse(path, media_type=made.media_type, headers=headers) if inside and path.is_file() else _nothing()
        )

    async def thumb(self, request: Request) -> Response:
        try:
            path = await run_in_threadpool(self._thumbnail, request.path_params["id"])
        except (StudioError, OSError, ValueError):
            return _nothing()
        return FileResponse(path, media_type="image/webp", headers={"Cache-Control": "private, max-age=86400"})

    def _thumbnail(self, artefact_id: str) -> Path:
        """The small picture, made at the first look."""
        made = self._house.studio.artefacts.get(artefact_id)
        place = self._house.studio.made.thumbnail(made.id)
        source = Path(made.path)
        if not place.is_file() or place.stat().st_mtime < source.stat().st_mtime:
            place.parent.mkdir(parents=True, exist_ok=True)
            with _opened(source, made.media_type) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise ValueError("too many pixels")
                image.thumbnail((THUMB, THUMB))
                buffer = io.BytesIO()
                (image if image.mode in ("RGB", "RGBA") else image.convert("RGBA")).save(
                    buffer, "WEBP", quality=82, method=1
                )
            write_whole(place, buffer.getvalue())  # two tabs may ask for it at once
        return place

    async def sheet(self, request: Request) -> Response:
        """All pictures of a grid on one, drawn when it is asked for."""
        path = grid.place_of(self._house, request.path_params["name"])
        if path is None:
            return _nothing()
        target = self._house.studio.home.root / "cache" / "page" / f"{path.stem}.png"
        rows = self._house.studio.jobs.find(batch=path.stem)
        target.parent.mkdir(parents=True, exist_ok=True)
        await run_in_threadpool(write_grids, self._house.studio, path, rows, target)
        return FileResponse(target, media_type="image/png")

    async def preview(self, request: Request) -> Response:
        """The newest one of a running job, or a finished piece of a film by its name; 204 where the job has ended."""
        house = self._house
        try:
            row = await run_in_threadpool(house.studio.queue.get, request.path_params["job"])
        except NotFound:
            return _nothing()
        story = await run_in_threadpool(house.stories.of, row)
        file = request.query_params.get("file")
        preview = story.clips.get(file, (0, None))[1] if file else story.preview
        path = Path(preview.path).resolve() if preview else Path()
        if preview is None or not path.is_relative_to(house.studio.home.work / row.id) or not path.is_file():
            return Response(status_code=204)  # asked for just before the job ended: nothing is wrong
        return FileResponse(path, media_type=preview.media_type, headers={"Cache-Control": "no-store"})

    async def input(self, request: Request) -> Response:
        """A picture that was shown to a model, by its sha256."""
        name = request.path_params["name"]
        path = self._house.studio.home.inputs / name
        return FileResponse(path) if _INPUT.match(name) and path.is_file() else _nothing()

    async def widget(self, request: Request) -> Response:
        folder, file = self._house.widgets.folder(request.path_params["name"]), request.path_params["file"]
        if folder is None or f"{request.path_params['name']}/{file}" not in self._house.widgets.assets():
            return _nothing()
        kind = "text/css" if file.endswith(".css") else "text/javascript"
        return FileResponse(folder / file, media_type=kind)

    async def language(self, request: Request) -> Response:
        language = request.path_params["language"]
        if language not in LANGUAGES:
            return _nothing()
        answer = RedirectResponse("/fr/" if language == "fr" else "/", 303)
        answer.set_cookie("studio_language", language, max_age=31_536_000, samesite="strict")
        return answer

    async def asset(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in _ASSETS:
            return _nothing()
        return FileResponse(_HERE / name, media_type=_ASSETS[name], headers={"Cache-Control": "no-cache"})


def _opened(source: Path, media_type: str) -> Any:
    """A picture, or the first one of a film."""
    from PIL import Image

    return poster(source) if media_type.startswith("video/") else Image.open(source)


def _nothing() -> Response:
    return PlainTextResponse("There is nothing here.", 404)
