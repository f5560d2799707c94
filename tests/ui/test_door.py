"""The first moment: a page that waits, files that need no Gradio, and a start that fails."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from browsing import Tab
from page_server import StartPage
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from studio.ui.bundle import Bundle, Frontend
from studio.ui.door import Door
from studio.ui.dress import Dress

HTML = {"accept": "text/html,application/xhtml+xml"}


class Slow:
    """Pages that are made when the test says so."""

    def __init__(self) -> None:
        self.go, self.begun, self.made, self.open = threading.Event(), threading.Event(), [], []
        self.fault: Exception | None = None

    def routes(self) -> Starlette:
        assert self.go.wait(30)
        if self.fault:
            raise self.fault
        return Starlette(routes=[Route("/studio/x", lambda request: PlainTextResponse("ours"))])

    def page(self, language: str) -> Starlette:
        self.made.append(language)

        @asynccontextmanager
        async def life(_app: Starlette) -> Any:
            self.open.append(language)
            yield
            self.open.remove(language)

        async def answer(request: Request) -> Response:
            if "text/html" in request.headers["accept"]:
                return HTMLResponse(f'<html lang="en"><head><i></i></head>page in {language}')
            return PlainTextResponse(f"page in {language}")

        return Starlette(routes=[Route("/{rest:path}", answer)], lifespan=life)


@contextmanager
def opened(slow: Slow, **told: Any) -> Iterator[TestClient]:
    door = Door(slow, ["assets/a.js", "assets/b.css"], **told)

    def beginning(language: str) -> str | None:
        begins = door.beginning(language)
        slow.begun.set()
        return begins

    dress = Dress(door, lambda: ["knob/knob.js"], beginning)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await (
            dress({**scope, "state": {"nonce": "once"}}, receive, send)
            if scope["type"] == "http"
            else door(scope, receive, send)
        )

    with TestClient(app, "http://127.0.0.1:1", raise_server_exceptions=False) as client:
        yield client


def test_a_browser_is_answered_at_once_and_a_program_waits() -> None:
    slow, told = Slow(), []
    with opened(slow, ready=lambda: told.append("ready")) as client:
        answers: dict[str, httpx.Response] = {}

        def ask(path: str, headers: dict[str, str]) -> None:
            answers[path] = client.get(path, headers=headers)

        french = {"accept-language": "fr"}
        asked = {"/fr/config": {}, "/studio/x": {}, "/fr/": {**HTML, **french}}
        threads = [threading.Thread(target=ask, args=one) for one in asked.items()]
        for thread in threads:
            thread.start()
        assert slow.begun.wait(30)
        assert answers == {}
        assert told == []
        assert slow.made == []
        slow.go.set()
        for thread in threads:
            thread.join(30)
        assert {answers[path].text for path in ("/fr/config", "/studio/x")} == {"ours", "page in fr"}
        beginning, page = answers["/fr/"].text.split("<head><i></i>")
        assert '<html lang="fr">' in beginning
        assert "La page se prépare" in beginning
        assert 'href="assets/a.js"' in beginning
        assert 'knob.js"></script></head>page in fr' in page
        assert answers["/fr/"].headers["cache-control"] == "no-store"
        assert all("once" in tag for tag in re.findall("<script.*?>", answers["/fr/"].text))
        assert client.get("/fr/studio/ready").status_code == 204
        assert "La page se prépare" not in client.get("/fr/", headers=HTML | french).text
        assert slow.made == ["fr"]  # nobody asked for the English one
        assert client.get("/config").text == "page in en"
        assert told == ["ready"]
        assert slow.open == ["fr", "en"]
    assert slow.open == []


def test_without_a_browser_the_english_page_is_made() -> None:
    slow, ready = Slow(), threading.Event()
    slow.go.set()
    with opened(slow, ready=ready.set):
        assert ready.wait(30)
        assert slow.made == ["en"]


def test_what_cannot_be_made_ends_the_server() -> None:
    slow, failed = Slow(), threading.Event()
    slow.fault = ModuleNotFoundError("no gradio")
    slow.go.set()
    door = Door(slow, [], failed=failed.set)
    with TestClient(door, "http://127.0.0.1:1", raise_server_exceptions=False) as client:
        assert failed.wait(30)
        assert door.fault is slow.fault
        assert client.get("/config").status_code == 500


def test_a_browser_that_opens_it_too_early_comes_to_the_page_without_a_second_load(
    browser: Any, start_page: StartPage
) -> None:
    tab = Tab(browser, start_page(ready=False))
    shown = tab.open()
    assert shown.locator(".starting").count() == 1
    assert not shown.locator(".starting").is_visible()
    assert shown.evaluate("performance.getEntriesByType('navigation')[0].type") == "navigate"
    assert shown.evaluate("document.compatMode") == "CSS1Compat"
    shown.fill("#chat-box textarea", "Say hello.")
    shown.press("#chat-box textarea", "Enter")
    shown.locator(".turn.model .facts").wait_for()
    loaded = set(Frontend().beginning())
    asked = shown.evaluate("performance.getEntriesByType('resource').map((one) => new URL(one.name).pathname.slice(1))")
    assert {name for name in asked if name.startswith("assets/")} - loaded == set(), "DRAWN lacks what the page has"
    tab.context.close()
    assert tab.complaints == []


def test_a_start_that_was_cut_off_is_waited_for(browser: Any, start_page: StartPage) -> None:
    first = start_page(ready=False)
    tab = Tab(browser, first)
    tab.page.goto(first.url, wait_until="commit")
    tab.page.wait_for_selector(".starting")
    first.process.kill()
    first.process.wait(30)
    start_page("--port", first.url.rsplit(":", 1)[1].rstrip("/"), home=first.home)
    tab.page.wait_for_selector("#chat-box textarea")
    assert not tab.page.locator(".starting").is_visible()
    tab.context.close()


@pytest.fixture
def files() -> TestClient:
    missing = Starlette(routes=[])
    return TestClient(Bundle(missing, Frontend()), "http://127.0.0.1:1")


def test_scripts_come_from_memory_and_may_be_kept(files: TestClient) -> None:
    frontend = Frontend()
    begins = frontend.beginning()
    assert {Path(name).suffix for name in begins} == {".js", ".css"}
    for name in begins:
        for prefix in ("/", "/fr/"):
            answer = files.get(prefix + name)
            assert answer.status_code == 200
            place = frontend.get(name)
            assert place is not None
            assert answer.content == place.read_bytes()
            assert "immutable" in answer.headers["cache-control"]
    script = begins[0]
    assert re.match("text/javascript", files.get("/" + script).headers["content-type"])


@pytest.mark.parametrize(
    "path",
    ["/assets/../index.html", "/assets/%2e%2e/index.html", "/assets/", "/assets//etc/passwd", "/static/nothing.js"],
)
def test_nothing_else_comes_with_them(files: TestClient, path: str) -> None:
    assert files.get(path).status_code == 404


def test_ctrl_c_twice_in_haste_ends_a_page_that_is_open_without_a_word(start_page: StartPage) -> None:
    page = start_page()
    with httpx.stream("GET", f"{page.url}gradio_api/heartbeat/somebody", timeout=60) as open_page:
        assert open_page.status_code == 200
        for _ in range(2):
            os.killpg(page.process.pid, signal.SIGINT)
            time.sleep(0.2)  # the haste of a hand
        assert page.process.wait(30) == 0
    said = page.log.read_text()
    assert said.startswith(f"Studio: {page.url}")
    assert "Traceback" not in said and "ERROR" not in said, said
    assert not (page.home / "page.json").exists()
