"""The guard alone, in front of an application that counts what reaches it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.errors import BadRequest
from studio.ui.guard import COOKIE, Gate, Guard
from studio.ui.server import hosts_of, read_password, serve

HOST = "127.0.0.1:7860"
ORIGIN = f"http://{HOST}"


class Behind:
    """What the guard protects: it notes each request and reads its body."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.seen.append(f"{scope['method']} {scope['path']}")
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        headers = [(b"content-type", b"text/plain"), (b"access-control-allow-origin", b"*")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": str(size).encode()})


@pytest.fixture
def behind() -> Behind:
    return Behind()


@pytest.fixture
def open_gate(behind: Behind) -> TestClient:
    return TestClient(Guard(behind, Gate(hosts_of("127.0.0.1", 7860))), base_url=ORIGIN, follow_redirects=False)


@pytest.fixture
def gate() -> Gate:
    return Gate(hosts_of("127.0.0.1", 7860), "correct horse")


@pytest.fixture
def shut(behind: Behind, gate: Gate) -> Iterator[TestClient]:
    yield TestClient(Guard(behind, gate), base_url=ORIGIN, follow_redirects=False)


ROUTES = [
    ("GET", "/"), ("GET", "/fr/"), ("GET", "/config"), ("GET", "/studio/live/jobs"), ("POST", "/studio/do"),
    ("POST", "/gradio_api/queue/join"), ("GET", "/gradio_api/queue/data"), ("POST", "/gradio_api/run/run"),
    ("POST", "/gradio_api/call/run"), ("POST", "/gradio_api/upload"), ("GET", "/gradio_api/file=/tmp/x.png"),
    ("GET", "/gradio_api/heartbeat/abc"), ("GET", "/studio/artefact/abc-1"), ("GET", "/assets/index.js"),
]  # fmt: skip

HOSTILE: list[tuple[dict[str, str], int]] = [
    ({"host": "evil.com:7860", "origin": "http://evil.com:7860"}, 421),
    ({"host": "localhost.evil.com:7860"}, 421),
    ({"host": "127.0.0.1:7861"}, 421),
    ({"host": "127.0.0.1"}, 421),
    ({"host": "127.0.0.1:7860@evil.com"}, 421),
    ({"origin": "null"}, 403),
    ({"origin": "http://evil.com"}, 403),
    ({"origin": "http://127.0.0.1:9999"}, 403),
    ({"origin": "https://127.0.0.1:7860"}, 403),
    ({"sec-fetch-site": "cross-site"}, 403),
    ({"sec-fetch-site": "same-site"}, 403),
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_hostile_pages_get_nothing(open_gate: TestClient, behind: Behind, method: str, path: str) -> None:
    for headers, status in HOSTILE:
        answer = open_gate.request(method, path, headers=headers)
        assert answer.status_code == status, headers
    assert behind.seen == []


@pytest.mark.parametrize(("method", "path"), [route for route in ROUTES if route[0] == "POST"])
def test_bodies_that_a_form_can_send_are_refused(open_gate: TestClient, behind: Behind, method: str, path: str) -> None:
    kinds = ["text/plain", "application/x-www-form-urlencoded", "application/json+x", ""]
    if "upload" not in path:
        kinds.append("multipart/form-data; boundary=x")
    for kind in kinds:
        assert open_gate.post(path, content=b"{}", headers={"content-type": kind}).status_code == 403, kind
    assert behind.seen == []


def test_what_the_page_asks_for_passes(open_gate: TestClient, behind: Behind) -> None:
    for method, path in ROUTES:
        kind = "multipart/form-data; boundary=x" if "upload" in path else "application/json"
        headers = {"origin": ORIGIN, "sec-fetch-site": "same-origin", "content-type": kind}
        assert open_gate.request(method, path, headers=headers, content=b"{}").status_code == 200, path
    assert len(behind.seen) == len(ROUTES)


@pytest.mark.parametrize(
    "path",
    [
        "/docs", "/openapi.json", "/monitoring", "/gradio_api/vibe-edit/", "/gradio_api/proxy=http://evil.com/",
        "/gradio_api/file=http://evil.com/x", "/gradio_api/dev/reload", "/gradio_api/process_recording", "/login",
        "/studio/../secrets", "/studio/artefact/../../etc/passwd", "/studio/artefact/..%2f..%2fetc", "/studio//do",
        "/studio/live/C:\\x", "/fr/docs", "/de/", "/gradio_api/stream/x",
    ],
)  # fmt: skip
def test_other_paths_do_not_exist(open_gate: TestClient, behind: Behind, path: str) -> None:
    scope_path = path.replace("%2f", "/")
    app = open_gate.app
    status = _ask_raw(app, scope_path)
    assert status == 404
    assert behind.seen == []


def _ask_raw(app: Any, path: str) -> int:
    """The status for a request whose path no client has tidied up."""
    return _drive(app, path, [(b"host", HOST.encode())])


def _drive(app: Any, path: str, headers: list[tuple[bytes, bytes]]) -> int:
    """The status of an answer that waits for nothing: a refusal."""
    sent: list[dict[str, Any]] = []

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": headers}
    with pytest.raises(StopIteration):
        app(scope, None, send).send(None)
    return int(sent[0]["status"])


def test_two_hosts_or_origins_are_none(open_gate: TestClient, behind: Behind) -> None:
    for name, status in ((b"host", 421), (b"origin", 403)):
        ours = {b"host": HOST.encode(), b"origin": ORIGIN.encode()}
        headers = [(b"host", ours[b"host"]), (name, ours[name]), (name, b"evil.com")]
        assert _drive(open_gate.app, "/", headers) == status
    assert behind.seen == []


def test_large_bodies_are_refused(open_gate: TestClient, behind: Behind) -> None:
    headers = {"content-type": "application/json", "content-length": "9000000"}
    assert open_gate.post("/studio/do", content=b"{}", headers=headers).status_code == 413
    assert behind.seen == []


def test_headers_of_every_answer(open_gate: TestClient) -> None:
    headers = open_gate.get("/").headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert "access-control-allow-origin" not in headers
    assert headers["x-content-type-options"] == "nosniff"
    assert "sandbox" in open_gate.get("/studio/artefact/abc-1").headers["content-security-policy"]
    assert open_gate.get("/").headers["content-security-policy"] != policy  # a nonce is used once


@pytest.mark.parametrize(("method", "path"), ROUTES)
def test_without_the_password_there_is_nothing(shut: TestClient, behind: Behind, method: str, path: str) -> None:
    kind = "multipart/form-data; boundary=x" if "upload" in path else "application/json"
    for extra in ({}, {"cookie": f"{COOKIE}=guess"}, {"authorization": "Bearer wrong horse"}):
        headers = {"content-type": kind, **extra}
        assert shut.request(method, path, headers=headers, content=b"{}").status_code == 401
        if extra.get("authorization"):
            break
    assert behind.seen == []


def test_the_token_opens_once(shut: TestClient, gate: Gate, behind: Behind) -> None:
    token = gate.token
    assert token not in repr(gate)
    first = shut.get("/", params={"token": token})
    assert first.status_code == 303
    assert first.headers["location"] == "/"
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert shut.get("/").status_code == 200  # the client kept the cookie
    shut.cookies.clear()
    assert shut.get("/", params={"token": token}).status_code == 401
    assert behind.seen == ["GET /"]


def test_the_password_opens_the_page_and_programs(shut: TestClient, behind: Behind) -> None:
    assert shut.post("/studio/login", data={"password": "wrong"}).status_code == 401
    assert shut.get("/config", headers={"authorization": "Bearer correct horse"}).status_code == 200
    assert shut.post("/studio/login", data={"password": "correct horse"}).status_code == 303
    assert shut.get("/studio/live/jobs").status_code == 200
    assert behind.seen == ["GET /config", "GET /studio/live/jobs"]


def test_guessing_is_slowed_down(shut: TestClient) -> None:
    answers = [shut.post("/studio/login", data={"password": f"guess {number}"}).status_code for number in range(12)]
    assert answers[0] == 401
    assert answers[-1] == 429
    assert shut.post("/studio/login", data={"password": "correct horse"}).status_code == 429


def test_the_form_speaks_the_browser_s_language(shut: TestClient) -> None:
    assert "Mot de passe" in shut.get("/", headers={"accept-language": "fr-FR,fr;q=0.9,en;q=0.5"}).text
    assert "Password" in shut.get("/", headers={"accept-language": "en"}).text


def test_websockets_are_closed(open_gate: TestClient, behind: Behind) -> None:
    from starlette.websockets import WebSocketDisconnect

    with pytest.raises(WebSocketDisconnect), open_gate.websocket_connect("/gradio_api/queue/join"):
        pass
    assert behind.seen == []


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4"])  # noqa: S104 - refused
def test_an_open_bind_needs_a_password(host: str, tmp_path: Any) -> None:
    with pytest.raises(BadRequest, match="password") as refused:
        serve(tmp_path / "home", host, 0, browser=False, password_file=None)
    assert refused.value.exit_code == 2
    assert not (tmp_path / "home").exists()


def test_passwords_come_from_a_file(tmp_path: Any) -> None:
    file = tmp_path / "password"
    with pytest.raises(BadRequest, match="cannot be read"):
        read_password(file)
    file.write_text("short\n")
    with pytest.raises(BadRequest, match="5 characters"):
        read_password(file)
    file.write_text("long enough\n")
    assert read_password(file) == "long enough"


def test_an_open_bind_knows_its_own_names() -> None:
    names = hosts_of("0.0.0.0", 80)  # noqa: S104 - compared, not bound
    assert "127.0.0.1:80" in names
    assert not any("evil" in name for name in names)
    assert hosts_of("127.0.0.1", 80) == {"127.0.0.1:80", "localhost:80", "[::1]:80"}
