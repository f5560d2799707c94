"""The states in which ``screens.py`` looks at the page, and how to come to each.

empty    a fresh home                            refused  a value that cannot be, told before anything is queued
busy     while an answer, a picture, a film is made and a model comes     paused   the same, held back
done     results, opened, in a grid, with settings                        nothing  filters that leave nothing
failed   damaged weights, a worker killed twice, a cancelled job, a download that ends in nothing
large    models that are not here                no-fit   more than the machine has
foreign  a family from outside, with a viewer of its own
login    a page behind a password                lost     the server is gone
"""

from __future__ import annotations

import os
import re
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench_page import serving
from screens_eye import Eye
from screens_scene import COMES, FakeHub, Scene, damaged, foreign_family, kill_worker, offer, studio

TABS = ("text", "image", "video", "audio", "mesh", "jobs", "gallery", "models", "machine")
LARGE = {"text": "mistral-small-3.1-24b", "image": "qwen-image-2512", "video": "framepack-i2v-hy"}
STORY = "Write a long story about the sea and a ship, with every detail."
MISSING = "qwen3-4b"
PASSWORD = "seen by nobody"  # noqa: S105 - of a server that lives for a few pictures


def wait_until(what: Callable[[], object], limit_s: float = 300) -> None:
    end = time.monotonic() + limit_s
    while not what():
        if time.monotonic() > end:
            raise SystemExit(f"waited {limit_s:g} s for a state of the page that did not come")
        time.sleep(0.1)


def empty(scene: Scene) -> None:
    for tab in TABS:
        scene.shoot(tab, "empty")


def refused(scene: Scene) -> None:
    """A seed that is no number, a film without a picture, an answer longer than there is room."""

    def wrong_seed(eye: Eye) -> None:
        eye.page.locator("#tab-image .family .main-box textarea").locator("visible=true").fill("a red apple")
        seed = eye.page.locator("#tab-image .p-seed").locator("visible=true").locator("input, textarea").first
        seed.fill("lucky")
        _press(eye, "image")

    def too_long(eye: Eye) -> None:
        _open_fold(eye, "text")
        eye.page.locator("#tab-text .p-max_tokens input").first.fill("99999999")
        eye.say("Hello")
        eye.page.locator(".toast-body").first.wait_for()

    scene.shoot("image", "refused", wrong_seed)
    if "starter-video" in scene.known:
        scene.shoot("video", "refused", lambda eye: _press(eye, "video"))
    scene.shoot("text", "refused", too_long)
    for eye in scene.eyes:
        eye.again()


def _press(eye: Eye, tab: str) -> None:
    eye.page.locator(f"#tab-{tab} .go").locator("visible=true").click()
    eye.page.locator(".toast-body").first.wait_for()


def _open_fold(eye: Eye, tab: str, number: int = 0) -> None:
    fold = eye.page.locator(f"#tab-{tab} .fold").locator("visible=true").nth(number)
    if "open" not in (fold.locator("button").first.get_attribute("class") or ""):
        fold.locator("button").first.click()


def busy(scene: Scene) -> None:
    """What runs while it runs: an answer, a picture with another job behind it, a film, a download."""
    for eye in scene.eyes:
        eye.page.evaluate("localStorage.removeItem('studio-chat')")
        eye.say(STORY)
        eye.page.wait_for_selector(".turn.writing .prose")
        eye.shoot("text", "busy")
        eye.page.keyboard.press("Escape")
    job = scene.submit("starter-image", prompt="a red apple", steps=100, num_images=8)
    later = [scene.submit("starter-text", prompt=f"Later {n}.", max_tokens=5) for n in (1, 2)]
    scene.shoot("image", "busy", lambda eye: _doing(eye, "image"))
    scene.shoot("jobs", "busy", lambda eye: eye.page.wait_for_selector(".job.running"))
    scene.shoot("machine", "busy", lambda eye: eye.page.wait_for_selector(".loaded li"))
    scene.cancel(job, *later)
    if "starter-video" in scene.known:
        job = scene.submit("starter-video", image=scene.sprite(), prompt="bounces", seconds=6)
        scene.shoot("video", "busy", _film_begun)
        scene.cancel(job)
    scene.eyes[0].act(do="pull", id=COMES)
    scene.shoot("models", "busy", lambda eye: _of_text(eye, ".doing"))
    scene.eyes[0].act(do="stop-pull", id=COMES)


def _of_text(eye: Eye, what: str) -> None:
    eye.click("#tab-models [data-set^='kind=text']")
    eye.page.wait_for_selector(f"#tab-models {what}")


def _doing(eye: Eye, tab: str) -> None:
    eye.page.locator(f"#tab-{tab} .doing", has_text=re.compile(r"\d+/\d+")).first.wait_for()


def _film_begun(eye: Eye) -> None:
    """Its first section plays while the second is made."""
    _doing(eye, "video")
    eye.page.locator("#tab-video .film .chip").first.wait_for()


def paused(scene: Scene) -> None:
    """Asked for while nothing may run."""
    scene.eyes[0].act(do="pause")
    jobs = [scene.submit("starter-image", prompt=words) for words in ("a green apple", "a rocket")]
    for eye in scene.eyes:
        eye.page.evaluate("localStorage.removeItem('studio-chat')")
        eye.say("Are you there?")
        eye.page.wait_for_selector(".turn.writing")
        eye.shoot("text", "paused")
    for tab in ("image", "jobs", "machine"):
        scene.shoot(tab, "paused")
    scene.cancel(*jobs)
    for eye in scene.eyes:
        eye.go("text")
        eye.page.keyboard.press("Escape")
    scene.eyes[0].act(do="resume")


def done(scene: Scene) -> None:
    _fill(scene)
    for eye in scene.eyes:
        eye.go("models")
        eye.click("#tab-models [data-set^='kind=all']")
    for tab in ("text", "image", "video", "jobs", "gallery", "models", "machine"):
        scene.shoot(tab, "done", _newest_chat if tab == "text" else None)
    scene.shoot("jobs", "opened", lambda eye: eye.click("#tab-jobs .job.done .title"))
    for kind in ("image", "video", "text"):
        if kind != "video" or "starter-video" in scene.known:
            scene.shoot("gallery", f"opened-{kind}", lambda eye, kind=kind: _open_tile(eye, kind))
    scene.shoot("text", "settings", lambda eye: _open_fold(eye, "text"))
    scene.shoot("image", "settings", lambda eye: _open_fold(eye, "image"))
    scene.shoot("video", "settings", lambda eye: _open_fold(eye, "video"))
    for eye in scene.eyes:
        eye.again()
        eye.go("text")
        eye.shoot("text", "history", lambda eye=eye: _side(eye))
    _grid(scene)


def _fill(scene: Scene) -> None:
    """One result of each kind, as a person would make them."""
    for prompt, seed in (("a blue heart", 2), ("a green apple", 5), ("a rocket", 4), ("a red apple", 3)):
        made = scene.make("starter-image", prompt=prompt, seed=seed)
    picture = made["artefacts"][0]["file"]
    scene.make("starter-upscale", image=picture, scale=4)
    if "starter-video" in scene.known:
        scene.make("starter-video", image=picture, prompt="bounces", seconds=3.6, seed=3)
    scene.make("starter-text", prompt="A haiku about rain.", max_tokens=40, seed=2)
    eye = scene.eyes[0]
    _new_chat(eye)
    for number, words in enumerate(("What is a lighthouse? Two sentences.", "And who lives in it?")):
        eye.say(words)
        eye.page.locator(".turn.model .facts").nth(number).wait_for()


def _new_chat(eye: Eye) -> None:
    eye.go("text")
    if not eye.page.locator(".ideas").count():
        eye.click("[data-do=new]")
        eye.page.wait_for_selector(".ideas")


def _newest_chat(eye: Eye) -> None:
    eye.click(".past .title")
    eye.page.wait_for_selector(".turn.model .facts, .turn.model .trouble", state="attached")


def _failed_chat(eye: Eye) -> None:
    """The list of conversations is asked for every few seconds: the failed one is there, but not yet in its place."""
    while not eye.page.locator(".turn.model .trouble").count():
        eye.click(".past .title")
        eye.page.wait_for_timeout(1000)


def _open_tile(eye: Eye, kind: str) -> None:
    if not eye.page.locator(f"#tab-gallery .tile.{kind}.on").count():
        eye.click(f"#tab-gallery .tile.{kind}")
        eye.page.wait_for_selector(f"#tab-gallery .tile.{kind}.on")
    eye.page.wait_for_load_state("load")


def _side(eye: Eye) -> None:
    toggle = eye.page.locator(".side-toggle")
    if toggle.is_visible() and not eye.page.locator(".show-side").count():
        toggle.click()


def _grid(scene: Scene) -> None:
    """Steps against prompts, asked for in the first page as a person would."""
    eye = scene.eyes[0]
    eye.go("image")
    eye.page.locator("#tab-image .family .main-box textarea").locator("visible=true").fill("a red apple")
    eye.page.locator("#tab-image .grid-fold > button").locator("visible=true").click()
    for number, value, values in ((0, 1, "2, 4, 10"), (1, 2, "a red apple\na blue heart")):
        row = eye.page.locator("#tab-image .grid-axis").locator("visible=true").nth(number)
        name = ("", "Steps" if eye.language == "en" else "Étapes", "Prompt" if eye.language == "en" else "Description")
        row.locator("input").first.click()
        eye.page.locator("[role=option]", has_text=name[value]).first.click()
        row.locator("textarea").fill(values)
    eye.page.locator("#tab-image .grid-go").locator("visible=true").click()
    eye.page.locator("#tab-image .shown a[href*=sheet]").wait_for()
    scene.shoot("image", "grid")


def failed(scene: Scene) -> None:
    """Damaged weights, a film and an answer whose worker is killed twice, a download of nothing, a cancelled job."""
    first, models = scene.eyes[0], scene.server.home / "models"
    cancelled = scene.submit("starter-image", prompt="a yellow star", steps=100, num_images=8)
    wait_until(lambda: scene.job(cancelled)["state"] == "running")
    scene.cancel(cancelled)
    if "starter-video" in scene.known:
        job = scene.submit("starter-video", image=scene.sprite(), prompt="slides right", seconds=6)
        while scene.job(job)["state"] in ("queued", "running"):
            kill_worker(scene.server)
            time.sleep(0.5)
        scene.shoot("video", "failed", lambda eye: eye.page.wait_for_selector("#tab-video .trouble"))
    first.act(do="pause")
    kill_worker(scene.server)  # what is loaded already would not notice
    job = scene.submit("starter-upscale", image=scene.sprite())
    with damaged(list(models.rglob("realesr*.bin"))):
        first.act(do="resume")
        wait_until(lambda: scene.job(job)["state"] not in ("queued", "running"))
    _new_chat(first)
    first.say(STORY)
    while not first.page.locator(".turn.model .trouble").count():
        first.page.wait_for_timeout(500)
        kill_worker(scene.server)
    scene.shoot("text", "failed", _failed_chat)
    for tab in ("image", "jobs"):
        scene.shoot(tab, "failed", lambda eye, tab=tab: eye.page.wait_for_selector(f"#tab-{tab} .trouble"))
    first.act(do="pull", id=MISSING)
    scene.shoot("models", "failed", lambda eye: _of_text(eye, ".trouble"))


def nothing(scene: Scene) -> None:
    """Filters and words that leave nothing."""

    def seek(tab: str) -> Callable[[Eye], None]:
        def find(eye: Eye) -> None:
            eye.page.locator(f"#tab-{tab} input[type=search]").first.fill("zebra crossing", force=True)
            eye.page.wait_for_timeout(900)

        return find

    scene.shoot("gallery", "nothing", seek("gallery"))
    scene.shoot("models", "nothing", seek("models"))
    scene.shoot("jobs", "nothing", lambda eye: eye.click("#tab-jobs [data-set^='show=active']"))
    for eye in scene.eyes:
        eye.go("text")
        seek("text")(eye)
        eye.shoot("text", "nothing", lambda eye=eye: _side(eye))


def large(scene: Scene) -> None:
    for tab, model in LARGE.items():
        if model in scene.known:
            for eye in scene.eyes:
                eye.choose(tab, model)
                eye.shoot(tab, "large")


def no_fit(scene: Scene) -> None:
    """A request of a thousand GiB: its forecast, and what became of it when it was asked for all the same."""

    def want(eye: Eye) -> None:
        eye.choose("image", "paint")
        eye.page.locator("#tab-image .main-box textarea").locator("visible=true").fill("a barn")
        _open_fold(eye, "image")
        eye.page.locator("#tab-image .p-needs_gib input").locator("visible=true").first.fill("1000")
        eye.page.keyboard.press("Tab")
        eye.page.wait_for_selector("#tab-image .badge.no")

    scene.shoot("image", "no-fit", want)


def lost(scene: Scene) -> None:
    """What is on the screen stays, and it says that nobody answers."""
    for eye in scene.eyes:
        eye.again()
        for tab in ("text", "image", "jobs", "machine"):
            eye.go(tab)
            eye.page.wait_for_timeout(300)
    scene.server.process.terminate()
    scene.server.process.wait()
    for tab in ("text", "image", "jobs", "machine"):
        scene.shoot(tab, "lost", lambda eye: eye.page.wait_for_timeout(2500))


STATES: dict[str, Callable[[Scene], None]] = {
    "empty": empty, "refused": refused, "busy": busy, "paused": paused, "done": done, "failed": failed,
    "nothing": nothing, "large": large, "lost": lost,
    "foreign": lambda scene: scene.shoot("image", "foreign", lambda eye: eye.choose("image", "paint")),
    "no-fit": no_fit,
    "login": lambda scene: None,
}  # fmt: skip
_FOREIGN = ("foreign", "no-fit")
_OWN_SERVER = (*_FOREIGN, "login")


def shoot_all(models: Path, eyes: Sequence[Eye], states: Sequence[str]) -> None:
    """The states in the order in which a home comes to them."""
    hub = FakeHub().start()
    os.environ["HF_ENDPOINT"] = hub.url
    if any(state not in _OWN_SERVER for state in states):
        with studio(models, eyes) as scene:
            offer(hub)
            for state in [name for name in STATES if name in states and name not in _OWN_SERVER]:
                _run(scene, state)
    if any(state in _FOREIGN for state in states):
        with foreign_family() as folder, studio(models, eyes, more=[folder]) as scene:
            scene.make("paint", prompt="a barn", colour="green", side=64)
            for state in [name for name in _FOREIGN if name in states]:
                _run(scene, state)
    if "login" in states:
        _login(models, eyes)
    hub.stop()


def _run(scene: Scene, state: str) -> None:
    begun = time.monotonic()
    STATES[state](scene)
    print(f"{state}: {time.monotonic() - begun:.0f} s", flush=True)


def _login(models: Path, eyes: Sequence[Eye]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        secret = Path(folder) / "password"
        secret.write_text(PASSWORD)
        with serving(models, args=["--password-file", str(secret)]) as server:
            server.listening()
            for eye in eyes:
                eye.page.goto(server.url)
                eye.shoot("login", "empty")
                eye.page.fill("input", "a guess")
                eye.page.press("input", "Enter")
                eye.page.wait_for_selector("p")
                eye.shoot("login", "failed")
