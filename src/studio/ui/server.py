"""``studio ui``: the page behind its guard, one server for each home, with no model loaded and no torch imported."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import os
import socket
import sys
import threading
import time
import webbrowser
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from studio.core import Studio
from studio.errors import BadRequest, StudioError
from studio.ui.bundle import Bundle, Frontend
from studio.ui.door import Door
from studio.ui.dress import Dress
from studio.ui.guard import Gate, Guard
from studio.ui.lean import lean_gradio, signatures_once

PORT = 7860
PORTS_TRIED = 20
PATIENCE_S = 5.0
"""After the first Ctrl-C: another one that comes sooner is haste, a later one says that it does not end by itself."""
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@contextlib.contextmanager
def _uncollected() -> Iterator[None]:
    """Nothing that is made at the start is rubbish: looking for it again and again takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def _without_applications() -> Iterator[None]:
    """Gradio makes a whole application when a page is begun, given a queue, and ended; only the mounted one is used.
    Leaving the others out halves the time to build the page."""
    from gradio.routes import App

    make = App.create_app
    App.create_app = staticmethod(lambda *_args, **_options: None)  # type: ignore[assignment]
    try:
        yield
    finally:
        App.create_app = staticmethod(make)  # type: ignore[method-assign]


def _quiet_gradio(home: Path) -> None:
    """No analytics, no look at newer versions, no share links; uploads stay in the home. Nor a table of the last
    10,000 events with percentiles, which would be made anew, by pandas, at each event."""
    os.environ.update(
        GRADIO_ANALYTICS_ENABLED="False",
        GRADIO_ANALYTICS_CACHE_FREQUENCY=str(sys.maxsize),
        GRADIO_ANALYTICS_MAX_EVENTS="1",
        HF_HUB_DISABLE_TELEMETRY="1",
        GRADIO_TEMP_DIR=str(home / "cache" / "page"),
        GRADIO_SSR_MODE="False",
        GRADIO_MCP_SERVER="False",
        GRADIO_RUN_HISTORY="False",
    )


class _Making:
    """What takes time at the start, for the door: imports and our routes, then each language's page."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._assets: list[str] = []
        self.frontend = Frontend()
        _quiet_gradio(studio.home.root)

    def routes(self) -> Any:
        with _uncollected(), lean_gradio():
            import gradio  # noqa: F401
            from starlette.applications import Starlette

            from studio.ui.house import House
            from studio.ui.routes import routes_of

            self._house = House(self._studio)
            self._assets = self._house.widgets.assets()
            return Starlette(routes=routes_of(self._house))

    def assets(self) -> list[str]:
        """The files of the widgets, as soon as they are known."""
        return self._assets

    def page(self, language: str) -> Any:
        with _uncollected(), _without_applications(), signatures_once():
            import fastapi
            import gradio as gr

            from studio.ui.i18n import words_of
            from studio.ui.page import build_page
            from studio.ui.theme import theme

            page = build_page(self._house, words_of(language))
        app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
        home = self._studio.home
        gr.mount_gradio_app(
            app, page, "/fr" if language == "fr" else "/", theme=theme(), footer_links=[], ssr_mode=False,
            run_history=False, mcp_server=False, enable_monitoring=False, show_error=True, pwa=False,
            allowed_paths=[str(home.inputs), str(home.outputs)], max_file_size="4gb",
        )  # fmt: skip
        self._studio.work()  # what waits from an earlier time goes on at once
        return app


def build_app(studio: Studio, gate: Gate) -> Guard:
    """The whole application, whose start is over when both languages are made: for tests and other servers."""
    making = _Making(studio)
    return _behind_guard(Door(making, [], at_once=True), making, gate)


def _behind_guard(door: Door, making: _Making, gate: Gate) -> Guard:
    return Guard(Bundle(Dress(door, making.assets, door.beginning), making.frontend), gate)


def serve(home: Path | None, host: str, port: int | None, *, browser: bool, password_file: Path | None) -> int:
    """Serve until Ctrl-C. Returns the exit code; raises ``BadRequest`` for an open bind without a password."""
    password = read_password(password_file)
    if host not in LOOPBACK and password is None:
        raise BadRequest(
            f"--host {host} shows the page to other machines; that needs a password.",
            "Add --password-file FILE, or leave out --host.",
        )
    with Studio(home) as studio:
        lock = FileLock(studio.home.root / "page.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return _point_to_first(studio.home.root, browser)
        with lock, _listen(host, port) as listener:
            address = listener.getsockname()
            gate = Gate(hosts_of(host, address[1]), password)
            shown = "localhost" if host in ("0.0.0.0", "::") else host  # noqa: S104 - compared, not bound
            url = f"http://{f'[{shown}]' if ':' in shown else shown}:{address[1]}/"
            _run(_Making(studio), listener, url, gate, studio.home.root, browser)
    return 0


def read_password(file: Path | None) -> str | None:
    """The first line of a file: a password in an argument would stand in the list of processes."""
    if file is None:
        return None
    try:
        password = file.read_text(encoding="utf-8").splitlines()[0].strip()
    except (OSError, UnicodeDecodeError, IndexError) as error:
        raise BadRequest(
            f"--password-file {file} cannot be read: {error}.", "Give a text file with one line."
        ) from None
    if len(password) < 8:
        raise BadRequest(
            f"The password in {file} has {len(password)} characters; the limit is at least 8.", "Lengthen it."
        )
    return password


def hosts_of(host: str, port: int) -> frozenset[str]:
    """The values of ``Host`` that mean this server. For an open bind: every name and address of the machine."""
    names = {"127.0.0.1", "localhost", "[::1]"}
    if host not in LOOPBACK:
        import psutil

        names |= {socket.gethostname().lower(), host.lower()}
        for addresses in psutil.net_if_addrs().values():
            for one in addresses:
                if one.family == socket.AF_INET:
                    names.add(one.address)
                elif one.family == socket.AF_INET6:
                    names.add(f"[{one.address.split('%')[0]}]")
    return frozenset(f"{name}:{port}" for name in names)


def _listen(host: str, port: int | None) -> socket.socket:
    """A bound socket. Without ``--port`` the next free one of a few is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    ports = [port] if port is not None else [*range(PORT, PORT + PORTS_TRIED), 0]
    for number in ports:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, number))
            listener.listen(128)
            return listener
        except OSError as error:
            listener.close()
            why = error
    raise BadRequest(f"{host}:{ports[0]} cannot be listened on: {why.strerror}.", "Choose another --port or --host.")


def _point_to_first(root: Path, browser: bool) -> int:
    """Another server works in this home: its address instead of a second one."""
    try:
        url = json.loads((root / "page.json").read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError):
        raise StudioError("Another page is just starting in this home.", "Try again in a moment.") from None
    print(f"Studio is open already: {url}", flush=True)  # noqa: T201 - this is the command's output
    if browser:
        webbrowser.open(url)
    return 0


def _run(making: _Making, listener: socket.socket, url: str, gate: Gate, root: Path, browser: bool) -> None:
    """Serve. The browser is opened at once, on a page that waits; the address is printed when programs can use it."""
    import uvicorn

    first = f"{url}?token={gate.token}" if gate.password is not None else url

    class Server(uvicorn.Server):
        asked_to_end: float | None = None

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """The first signal ends it within a second; one more in haste changes nothing, a late one forces it."""
            now = time.monotonic()
            if self.asked_to_end is None:
                self.asked_to_end, self.should_exit = now, True
            elif now - self.asked_to_end > PATIENCE_S:
                self.force_exit = True

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            (root / "page.json").write_text(json.dumps({"url": url, "pid": os.getpid()}), encoding="utf-8")
            if browser:
                threading.Thread(target=webbrowser.open, args=(first,), daemon=True).start()

    def ready() -> None:
        print(f"Studio: {first}\nCtrl-C ends the page; jobs that were not done go on next time.", flush=True)  # noqa: T201

    def failed() -> None:
        server.should_exit = True

    door = Door(making, making.frontend.beginning(), ready=ready, failed=failed)
    server = Server(
        uvicorn.Config(
            _behind_guard(door, making, gate), log_level="warning", access_log=False, lifespan="on",
            timeout_graceful_shutdown=1, server_header=False, ws="none", h11_max_incomplete_event_size=64 * 1024,
        )
    )  # fmt: skip
    logging.getLogger("uvicorn.error").addFilter(_is_no_farewell)
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets=[listener])
    (root / "page.json").unlink(missing_ok=True)
    if door.fault is not None:
        raise door.fault


def _is_no_farewell(record: logging.LogRecord) -> bool:
    """An open page holds a connection that is cut when the server ends: nothing that a person must read about."""
    cut = record.exc_info is not None and isinstance(record.exc_info[1], asyncio.CancelledError)
    return not cut and not str(record.msg).startswith("Cancel %s running task")
