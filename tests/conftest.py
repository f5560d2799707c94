"""Homes, the command line, and two families in packages of their own, as a third party would install them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from studio.core import Studio
from toolbox import Cli, install_family

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = Path(__file__).parent / "core" / "plugins"

# The same examples each time: a change is judged by what it changes. HYPOTHESIS_PROFILE=default looks for others.
settings.register_profile("same", derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

# The other tests that need the starter models read the same variable.
os.environ.setdefault("STUDIO_TEST_MODELS", str(ROOT / ".cache" / "test-home" / "models"))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home, also for the processes that a test starts."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("STUDIO_HOME", str(folder))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    return folder


@pytest.fixture
def starter_home(home: Path) -> Path:
    """A home with the starter models, which ``make test`` gets once for all tests."""
    models = Path(os.environ["STUDIO_TEST_MODELS"]).absolute()
    if not (models / "locks" / "starter-text.json").is_file():
        pytest.fail(f"The starter model is not in {models}: run make test, which gets it.", pytrace=False)
    (home / "models").symlink_to(models, target_is_directory=True)
    return home


@pytest.fixture(scope="session")
def plugin_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The packages ``toyfamily`` and ``faultyfamily`` as pip would leave them: code and metadata."""
    folder = tmp_path_factory.mktemp("site-packages")
    for package, name, value in (
        ("toyfamily", "toy", "toyfamily.family:Toy"),
        ("faultyfamily", "faulty", "faultyfamily.family:Faulty"),
    ):
        shutil.copytree(PLUGINS / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        install_family(folder, package, {name: value})
    return folder


@pytest.fixture
def plugins(plugin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Makes both packages visible, here and in every process that a test starts."""
    monkeypatch.syspath_prepend(str(plugin_folder))
    monkeypatch.setenv("PYTHONPATH", str(plugin_folder))
    return plugin_folder


@pytest.fixture
def studio(home: Path, plugins: Path) -> Iterator[Studio]:
    """The engine with a worker process, and the families ``toy`` and ``faulty``."""
    with Studio(home) as studio:
        yield studio


@pytest.fixture
def inline(home: Path, plugins: Path) -> Iterator[Studio]:
    """The engine in this process: quicker, for what does not depend on the worker."""
    with Studio(home, executor="inline") as studio:
        yield studio


@pytest.fixture
def cli(home: Path) -> Cli:
    """The real command line in a process of its own: ``cli("run", "toy", "--seed", "1")``."""

    def run(*args: str | Path, code: int | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "studio.cli.main", *map(str, args)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload]
        assert code is None or done.returncode == code, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done  # type: ignore[no-any-return]

    return run


@pytest.fixture
def start(home: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts a process that the test may kill or interrupt; what is left of it goes at the end of the test."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # a shell's background job, deaf to Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    started: list[subprocess.Popen[str]] = []

    def run(*args: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, *map(str, args)],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip
        started.append(process)
        return process

    yield run
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
