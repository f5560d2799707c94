"""Programs: ``gradio_client`` runs every installed modality by named endpoints, against a real server."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from page_server import Page, StartPage

from studio.ui.house import modality_of_media
from toolbox import until

README = Path(__file__).resolve().parents[2] / "README.md"
TORCH = ("torch", "diffusers", "transformers", "llama_cpp")


@pytest.fixture(scope="module")
def client(page: Page) -> Any:
    from gradio_client import Client

    return Client(page.url, verbose=False, analytics_enabled=False)


def test_text_is_made_by_the_starter_model(client: Any, page: Page) -> None:
    params = {"prompt": "Name a colour.", "max_tokens": 8, "seed": 3, "temperature": 0}
    made = client.predict("starter-text", params, api_name="/run")
    assert made["state"] == "done"
    assert made["text"].strip()
    [artefact] = made["artefacts"]
    assert httpx.get(page.url + artefact["url"]).text == made["text"]
    assert client.predict(made["job"], api_name="/job")["text"] == made["text"]


ASKED: dict[str, dict[str, Any]] = {
    "starter-text": {"prompt": "Name a colour.", "max_tokens": 4, "seed": 3},
    "starter-image": {"prompt": "a red apple", "steps": 2, "seed": 3},
    "starter-upscale": {"image": "PICTURE", "scale": 2},
    "open-nsfw": {"image": "PICTURE"},
    "starter-video": {"image": "PICTURE", "prompt": "bounces", "seconds": 1.2, "steps": 2, "seed": 3},
}
"""A request for every model that comes with this project; a new one must be added here."""


@pytest.mark.parametrize("model", ASKED)
def test_every_installed_modality_by_named_endpoint(client: Any, page: Page, tmp_path: Path, model: str) -> None:
    from gradio_client import handle_file
    from PIL import Image

    known = {one["id"]: one for one in client.predict(api_name="/models")}
    ours = {name for name, one in known.items() if one["proof"] == "weights" and not name.startswith("realesrgan")}
    assert ours - {"paint", "toy", "faulty"} <= set(ASKED)
    assert known[model]["installed"]
    picture = tmp_path / "mine.png"
    Image.new("RGB", (48, 32), (200, 30, 30)).save(picture)
    asked = {name: handle_file(picture) if value == "PICTURE" else value for name, value in ASKED[model].items()}
    made = client.predict(model, asked, api_name="/run")
    assert (made["state"], made["error"]) == ("done", "")
    gives = known[model]["task"].partition("->")[2]
    [artefact] = made["artefacts"]
    sent = httpx.get(page.url + artefact["url"])
    assert sent.status_code == 200
    assert sent.headers["content-type"].split(";")[0] == artefact["media_type"]
    assert modality_of_media(artefact["media_type"]) == gives
    assert len(sent.content) == Path(artefact["file"]).stat().st_size


def test_every_modality_has_the_same_endpoint(client: Any, page: Page) -> None:
    made = client.predict("paint", {"prompt": "a door", "colour": "blue"}, api_name="/run")
    [url] = client.predict(made["job"], api_name="/files")
    assert httpx.get(page.url + url).headers["content-type"] == "image/png"
    assert {"starter-text", "paint"} <= {model["id"] for model in client.predict(api_name="/models")}
    assert client.predict("paint", {}, api_name="/plan")["fits"] is True


def readme(language: str) -> str:
    """What the README shows for a page that runs."""
    [found] = re.findall(
        rf"^```{language} the-page-runs\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return str(found)


def test_the_readme_s_program_runs(page: Page, client: Any) -> None:
    code = readme("python").replace("http://127.0.0.1:7860/", page.url)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    first, job = done.stdout.splitlines()
    assert first.startswith("done image/png studio/artefact/")
    until("the larger picture", lambda: client.predict(job, api_name="/job")["state"] == "done", 60)


def test_the_readme_s_requests_are_answered(page: Page) -> None:
    """As curl sends them."""
    ask, listen = (shlex.split(line, comments=True) for line in readme("bash").splitlines())
    url, kind, body = ask[2], ask[4], ask[6]
    name, value = kind.split(": ")
    answer = httpx.post(url.replace("http://127.0.0.1:7860/", page.url), headers={name: value}, content=body)
    event = answer.json()["event_id"]
    url = listen[2].replace("http://127.0.0.1:7860/", page.url).replace("EVENT_ID", event)
    lines = httpx.get(url, timeout=120).text.splitlines()
    assert "event: complete" in lines
    [made] = json.loads(lines[lines.index("event: complete") + 1].removeprefix("data: "))
    assert made["state"] == "done" and made["text"]


def test_a_bad_request_is_one_line(client: Any) -> None:
    with pytest.raises(Exception, match="starter-text has no parameter 'promt'"):
        client.predict("starter-text", {"promt": "x"}, api_name="/run")


def test_a_job_is_queued_and_cancelled(client: Any, tmp_path: Path) -> None:
    job = client.predict("paint", {"prompt": "x", "wait_for": str(tmp_path / "never")}, api_name="/submit")["job"]
    assert client.predict(job, api_name="/cancel")["cancelled"] is True
    assert client.predict(job, api_name="/job")["state"] == "cancelled"


def test_the_server_s_process_holds_no_torch(page: Page) -> None:
    maps = Path(f"/proc/{page.process.pid}/maps")
    if not maps.exists():
        pytest.skip("only Linux tells which libraries a process holds")
    libraries = maps.read_text()
    assert "libpython" in libraries or "python" in libraries
    for name in ("libtorch", "libllama", "libggml", "/pandas/"):  # the last one: a table of all events at each event
        assert name not in libraries


def test_building_the_page_imports_no_torch(tmp_path: Path) -> None:
    code = (
        "import sys; from studio.core import Studio; from studio.ui.guard import Gate;"
        "from studio.ui.server import build_app, hosts_of; from starlette.testclient import TestClient\n"
        f"with Studio({str(tmp_path)!r}, executor='inline') as studio:\n"
        "    app = build_app(studio, Gate(hosts_of('127.0.0.1', 1)))\n"
        "    with TestClient(app, base_url='http://127.0.0.1:1') as client:\n"
        "        assert 'gradio_config' in client.get('/').text and 'gradio_config' in client.get('/fr/').text\n"
        f"print([name for name in {TORCH!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "[]"


def test_a_password_guards_programs_too(start_page: StartPage, tmp_path: Path) -> None:
    word = tmp_path / "password"
    word.write_text("correct horse battery\n")
    page = start_page("--password-file", str(word))
    address, _, token = page.url.partition("?token=")
    assert token
    assert httpx.get(address + "config").status_code == 401
    assert httpx.get(address + "studio/live/jobs").status_code == 401
    right = {"authorization": "Bearer correct horse battery"}
    assert httpx.get(address + "config", headers=right).status_code == 200
    with httpx.Client(follow_redirects=False) as browser:
        assert browser.get(page.url).status_code == 303
        assert browser.get(address).status_code == 200
    assert httpx.get(page.url).status_code == 401
    logged = "".join(file.read_text() for file in (page.home / "logs").glob("*") if file.is_file())
    assert token not in logged
    assert page.log.read_text().count(token) == 1  # printed once, for the person who started it


def test_a_second_start_points_to_the_first(page: Page) -> None:
    command = [sys.executable, "-m", "studio.cli.main", "ui", "--no-browser"]
    environment = {**os.environ, "STUDIO_HOME": str(page.home)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 0
    assert page.url in done.stdout


def test_an_open_bind_exits_with_2(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "studio.cli.main", "ui", "--no-browser", "--host", "0.0.0.0"]  # noqa: S104
    environment = {**os.environ, "STUDIO_HOME": str(tmp_path / "home")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, check=False)
    assert done.returncode == 2
    assert "password" in done.stderr
