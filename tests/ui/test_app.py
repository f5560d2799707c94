"""The whole application in this process: pieces of the page, buttons, files, and a foreign family's form."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from studio.core import Studio
from studio.errors import JobFailed
from studio.events import Artefact
from studio.pipeline import Phase, Plan
from studio.ui.fits import Forecast
from studio.ui.house import House
from studio.ui.i18n import words_of
from studio.ui.tabs.make import pull_box
from studio.ui.view import forecast_line, push, sign
from studio.units import THIN
from toolbox import until

# Gradio leaves an event loop behind when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def painted(studio: Studio) -> Artefact:
    [made] = studio.run("paint", prompt="a <b>barn</b>", colour="green", seed=5)
    return made


def do(client: TestClient, **asked: Any) -> Any:
    return client.post("/studio/do", json=asked)


def live(client: TestClient, piece: str, language: str = "") -> str:
    answer = client.get(f"{language}/studio/live/{piece}")
    assert answer.status_code == 200, answer.text
    assert int(answer.headers["x-next-ms"]) >= 100
    return str(answer.text)


def test_both_pages_come_dressed(client: TestClient) -> None:
    for path, language in (("/", "en"), ("/fr/", "fr")):
        page = client.get(path, headers={"accept-language": language, "accept": "text/html"})
        assert page.status_code == 200
        assert f'lang="{language}"' in page.text
        assert "studio/style.css" in page.text
        assert "studio/widget/knob/frame.js" in page.text
        nonce = re.search(r"'nonce-([\w-]+)'", page.headers["content-security-policy"])
        assert nonce is not None
        scripts = re.findall(r"<script[^>]*>", page.text)
        assert scripts
        assert all(f'nonce="{nonce[1]}"' in script for script in scripts)
        loaded = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"(https?:)?//", page.text)
        assert loaded == []


def test_the_browser_s_language_chooses_the_page(client: TestClient) -> None:
    wants = {"accept": "text/html", "accept-language": "fr-CA,fr;q=0.9,en;q=0.4"}
    assert client.get("/", headers=wants).headers["location"] == "/fr/"
    assert client.get("/", headers={**wants, "cookie": "studio_language=en"}).status_code == 200
    assert client.get("/", headers={"accept-language": "fr"}).status_code == 200  # a program is not sent elsewhere
    chosen = client.get("/studio/language/fr")
    assert chosen.headers["location"] == "/fr/"
    assert "studio_language=fr" in chosen.headers["set-cookie"]
    assert client.get("/studio/language/xx").status_code == 404
    client.cookies.clear()


def test_pieces_are_sent_again_only_when_they_changed(client: TestClient, painted: Artefact) -> None:
    first = client.get("/studio/live/jobs")
    again = client.get("/studio/live/jobs", headers={"x-tag": first.headers["x-tag"]})
    assert again.status_code == 204
    assert client.get("/studio/live/nothing").status_code == 404


def test_a_result_shows_with_its_family_s_own_viewer(client: TestClient, painted: Artefact) -> None:
    html = live(client, "result?tab=image")
    assert f'<paint-frame src="studio/artefact/{painted.id}">' in html
    assert "a &lt;b&gt;barn&lt;/b&gt;" in html
    assert "<b>barn" not in html
    script = client.get("/studio/widget/knob/frame.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "customElements" in script.text
    assert client.get("/studio/widget/knob/../page.py").status_code == 404
    assert client.get("/studio/widget/knob/page.py").status_code == 404


def test_jobs_and_gallery_speak_both_languages(client: TestClient, painted: Artefact) -> None:
    assert "done" in live(client, "jobs")
    assert "terminée" in live(client, "jobs", "/fr")
    assert "Recipe" in live(client, f"gallery?item={painted.id}")
    assert "Recette" in live(client, f"gallery?item={painted.id}", "/fr")


def test_a_button_is_called_by_what_it_shows() -> None:
    assert 'aria-label="Again, The same &quot;seed&quot;"' in push("b", "Again", title='The same "seed"')
    assert 'aria-label="1:1, 64 × 64"' in push("shape", "<i style='width:26px'></i><small>1:1</small>", title="64 × 64")
    assert 'aria-label="Stop (Escape)"' in push("b", "Stop", title="Stop (Escape)")
    assert 'aria-label="Close"' in push("b icon", "×", title="Close")
    assert 'aria-label="Copy"' in push("b icon", sign("copy"), title="Copy")


def test_the_gallery_tells_what_was_asked_for(client: TestClient, painted: Artefact) -> None:
    html = live(client, f"gallery?item={painted.id}")
    assert '<p class="asked">a &lt;b&gt;barn&lt;/b&gt;' in html
    assert f"seed {painted.recipe['seed']}" in html


def test_what_was_deleted_is_gone_from_its_tab_too(client: TestClient, studio: Studio, painted: Artefact) -> None:
    do(client, do="again", artefact=painted.id)
    newest = studio.jobs.find(limit=1)[0]
    [made] = studio.jobs.get(newest.id).result()
    assert f"job={newest.id}" in live(client, "result?tab=image")
    do(client, do="delete", artefact=made.id)
    html = live(client, "result?tab=image")
    assert f"job={newest.id}" not in html
    assert f"studio/artefact/{painted.id}" in html


def test_files_come_by_id_only(client: TestClient, studio: Studio, painted: Artefact) -> None:
    whole = client.get(f"/studio/artefact/{painted.id}")
    assert whole.headers["content-type"] == "image/png"
    assert whole.content == Path(painted.path).read_bytes()
    assert "sandbox" in whole.headers["content-security-policy"]
    assert client.get(f"/studio/thumb/{painted.id}").headers["content-type"] == "image/webp"
    for name in ("..%2f..%2fetc%2fpasswd", "%2e%2e", "etc", "C:%5Cx", "a%00b"):
        assert client.get(f"/studio/artefact/{name}").status_code == 404, name
        assert client.get(f"/studio/input/{name}").status_code == 404, name
        assert client.get(f"/studio/thumb/{name}").status_code == 404, name
    assert client.get(f"/gradio_api/file={studio.home.database}").status_code in (403, 404)
    assert client.get("/gradio_api/file=/etc/passwd").status_code in (403, 404)


def test_many_ask_for_one_new_thumbnail_at_once(client: TestClient, studio: Studio, painted: Artefact) -> None:
    place = studio.made.thumbnail(painted.id)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            place.unlink(missing_ok=True)
            asked = list(pool.map(lambda _: client.get(f"/studio/thumb/{painted.id}"), range(8)))
            assert [one.status_code for one in asked] == [200] * 8
            assert len({one.content for one in asked}) == 1


def test_a_preview_that_came_too_late_is_nothing_and_no_fault(
    client: TestClient, studio: Studio, painted: Artefact
) -> None:
    [job] = [row.id for row in studio.jobs.find(states=["done"]) if row.id in Path(painted.path).name]
    late = client.get(f"/studio/preview/{job}?n=3")
    assert (late.status_code, late.content) == (204, b"")
    assert client.get("/studio/preview/no-such-job").status_code == 404


def test_the_same_again_from_an_artefact(client: TestClient, studio: Studio, painted: Artefact) -> None:
    assert do(client, do="again", artefact=painted.id).status_code == 200
    newest = studio.jobs.find(limit=1)[0]
    [made] = studio.jobs.get(newest.id).result()
    assert made.content_sha256 == painted.content_sha256


def test_the_queue_is_ordered_cancelled_and_retried(client: TestClient, studio: Studio) -> None:
    studio.queue.pause(True)
    ids = [studio.submit("paint", prompt=f"number {number}").id for number in range(3)]

    def order() -> list[str]:
        waiting = sorted(studio.queue.find(states=["queued"]), key=lambda row: (-row.priority, row.position))
        return [row.id for row in waiting if row.id in ids]

    assert order() == ids
    do(client, do="up", id=ids[2])
    assert order() == [ids[0], ids[2], ids[1]]
    do(client, do="down", id=ids[0])
    assert order() == [ids[2], ids[0], ids[1]]
    do(client, do="first", id=ids[1])
    assert order() == [ids[1], ids[2], ids[0]]
    do(client, do="up", id=ids[2])
    assert order() == [ids[2], ids[1], ids[0]]
    do(client, do="cancel", id=ids[0])
    assert studio.queue.get(ids[0]).state == "cancelled"
    assert do(client, do="up", id=ids[0]).status_code == 400
    assert "Paused" in live(client, "status")
    do(client, do="retry", id=ids[0])
    do(client, do="resume")
    for job in ids:
        assert len(studio.jobs.get(job).result()) == 1


def test_a_failure_says_what_and_the_way_out(client: TestClient, studio: Studio) -> None:
    job = studio.submit("faulty", fault="plain")
    until("the end", lambda: studio.queue.get(job.id).ended)
    html = live(client, "jobs?show=trouble")
    assert "The moon is not in the sky." in html
    assert "Wait for the night." in html


def test_unknown_actions_and_bodies_are_refused(client: TestClient) -> None:
    assert do(client, do="explode").status_code == 400
    assert do(client, do="cancel").status_code == 400
    assert do(client, do="cancel", id="nothing-like-it").status_code == 404
    assert do(client, do="delete", artefact="../../etc").status_code == 404
    assert do(client, do="delete-chat", chat="../x").status_code == 404
    assert client.post("/studio/do", content=b"[1]", headers={"content-type": "application/json"}).status_code == 400


def test_deleting_removes_the_file_the_recipe_and_the_thumbnail(client: TestClient, studio: Studio) -> None:
    [made] = studio.run("paint", prompt="to go", colour="blue")
    client.get(f"/studio/thumb/{made.id}")
    thumb = studio.made.thumbnail(made.id)
    assert thumb.is_file()
    assert do(client, do="delete", artefact=made.id).status_code == 200
    assert not Path(made.path).exists()
    assert not Path(made.path + ".recipe.json").exists()
    assert not thumb.exists()
    assert client.get(f"/studio/artefact/{made.id}").status_code == 404


def test_a_thousand_artefacts_come_in_pages(client: TestClient, studio: Studio, painted: Artefact) -> None:
    job = studio.queue.get(painted.id.rsplit("-", 1)[0])
    with studio.database.write():
        for number in range(100, 1100):
            copy = painted.model_copy(update={"id": f"{job.id}-{number}"})
            studio.artefacts.record(copy, job_id=job.id, number=number)
    count, page = studio.made.find("image/%", "", 60, 960)
    assert count >= 1000
    assert len(page) == min(60, count - 960)
    html = live(client, "gallery?kind=image&page=3")
    assert html.count("data-key=") == 60
    assert html.count('loading="lazy"') == 60
    assert "181–240" in html
    assert "data-key=" in live(client, "gallery?kind=image&page=900")  # its last ones were deleted meanwhile
    assert live(client, "gallery?kind=audio").count("data-key=") == 0
    assert "data-key=" in live(client, "gallery?q=barn")
    assert "data-key=" not in live(client, "gallery?q=ba%25n")


def test_a_model_that_is_not_here_offers_its_download(client: TestClient) -> None:
    html = live(client, "need?model=starter-text")
    assert 'data-do="pull"' in html
    cards = live(client, "models?q=starter-text")
    assert "Apache-2.0" in cards
    assert 'data-do="pull"' in cards


def test_sizes_are_estimated_and_a_notice_is_told_before_a_download(studio: Studio) -> None:
    say, house = words_of("fr"), House(studio)
    spec = studio.models.get("sdxl")
    assert house.size(spec, say).startswith("≈ 6,5 Gio")
    assert spec.source is not None
    told = spec.model_copy(update={"source": spec.source.model_copy(update={"notice": "Not for <everybody>."})})
    html = pull_box(house, told, say)
    assert "Not for &lt;everybody&gt;." in html
    assert 'data-sure="Not for &lt;everybody&gt;.' in html


def test_what_a_tab_offers_begins_with_the_smallest_that_begins_with_words(studio: Studio) -> None:
    house = House(studio)
    names = [spec.id for spec in house.models("text") if studio.models.files(spec.id) is None]
    assert names.index("starter-text") < names.index("pixtral-12b") < names.index("open-nsfw")
    missing = [spec for spec in house.models("text") if house.chats_with(spec) and spec.id in names]
    sizes = [spec.about_bytes for spec in missing if (house.task(spec) or "").startswith("text")]
    assert None not in sizes
    assert sizes == sorted(sizes)


def test_what_a_picker_keeps_to_itself_is_nothing_to_send_a_film_to(studio: Studio) -> None:
    house = House(studio)
    asked_for = [one.name for one in house.files_asked_for(studio.models.get("starter-video"))]
    assert asked_for == ["image", "last_image", "sound"]
    assert "film" in [one.name for one in studio.fields("starter-video")]
    assert "starter-video" in [target.model for target in house.targets.of("image/png")]
    assert "starter-video" not in [target.model for target in house.targets.of("video/mp4")]


def test_cards_speak_the_language(client: TestClient, studio: Studio) -> None:
    assert "Fits small cards" in live(client, "models?q=sdxl")
    french = live(client, "models?q=sdxl", "/fr")
    assert "Tient sur de petites cartes" in french
    assert "Fits small cards" not in french
    notice = live(client, "need?model=framepack-i2v-hy", "/fr")
    assert "ne doit pas y être utilisé" in notice
    translated = [spec.id for spec in studio.models if spec.card and spec.card.fr]
    assert len(translated) >= 25


def test_a_loaded_model_s_forecast_leaves_its_loading_out(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    house, say = House(studio), words_of("en")
    phases = (Phase(name="load", seconds=60.0), Phase(name="draw", seconds=2.0))
    forecast = Forecast("fits", Plan(model="paint", peak_ram_bytes=1, seconds=62.0, phases=phases))
    monkeypatch.setattr(studio.queue, "note", {"loaded": [{"model": "another"}]}.get)
    assert "1 min 2 s" in forecast_line(house, forecast, say, "paint").replace(THIN, " ")
    monkeypatch.setattr(studio.queue, "note", {"loaded": [{"model": "paint"}]}.get)
    line = forecast_line(house, forecast, say, "paint").replace(THIN, " ")
    assert "2.0 s" in line and "1 min" not in line


def test_what_does_not_fit_is_said_and_can_be_tried_anyway(client: TestClient, studio: Studio) -> None:
    house = House(studio)
    line = forecast_line(house, house.fits.ask("paint", {"needs_gib": 1000}), words_of("en"), "paint")
    assert "does not fit" in line
    assert "1000" in line or "1,000" in line
    job = studio.submit("paint", prompt="much", needs_gib=1000)
    with pytest.raises(JobFailed):
        job.result()
    html = live(client, "jobs?show=trouble")
    assert "It needs 1000 GiB." in html
    assert "--run-anyway" not in html
    assert f'data-do="anyway" data-id="{job.id}"' in html
    assert do(client, do="anyway", id=job.id).json() == {"said": "Queued."}
    [tried] = studio.jobs.find(limit=1)
    until("its end", lambda: studio.queue.get(tried.id).ended)
    assert (tried.params, studio.queue.get(tried.id).state) == (job.row.params, "done")
    assert "This does not fit, and runs anyway." in live(client, f"result?tab=image&job={tried.id}")


def test_the_machine_tells_what_it_has(client: TestClient) -> None:
    html = live(client, "machine", "/fr")
    assert "Mémoire" in html
    assert 'data-do="pause"' in html


def test_a_foreign_family_has_a_complete_form(client: TestClient) -> None:
    """Found in the page's own description, as the browser gets it."""
    for path, labels in (
        ("/", {"Prompt", "Colour", "Side", "Copies", "Frame", "Knob Tilt en"}),
        ("/fr/", {"Sujet", "Couleur", "Côté", "Copies", "Frame", "Knob Tilt fr", "Graine"}),
    ):
        config = client.get(f"{path}config").json()
        shown = {part["props"].get("label") for part in config["components"]}
        assert labels <= shown
        kinds = {part["props"].get("label"): part["type"] for part in config["components"]}
        assert kinds["Couleur" if "fr" in path else "Colour"] in ("radio", "dropdown")
        assert kinds["Frame"] == "checkbox"


def test_only_named_endpoints_are_public(client: TestClient) -> None:
    info = client.get("/gradio_api/info").json()
    assert set(info["named_endpoints"]) == {"/run", "/submit", "/job", "/cancel", "/plan", "/models", "/files"}
    assert info["unnamed_endpoints"] == {}
