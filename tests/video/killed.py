"""Run a film and kill it at one moment of every section: ``python killed.py HOME JOB MOMENTS``.

Each attempt is a process of its own, forked from one that has imported the libraries and done nothing, and it is killed
with SIGKILL by itself, at an exact place in the code. ``MOMENTS`` is a list in JSON of [section, moment]. One line of
JSON is printed for each attempt: the sections that were denoised in it, and how it ended.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path


def attempt(home: Path, job: str, section: int | None, moment: str, journal: Path) -> None:
    """Work the job off; die at ``moment`` of ``section``."""
    import torch

    from studio import Studio
    from studio_pipelines.video_framepack.filming import _Filming
    from studio_pipelines.video_framepack.kept import Kept

    torch.set_num_threads(1)
    write_latents, write_state = Kept.write_latents, Kept.write_state

    def die(at: int, when: str) -> None:
        if (at, when) == (section, moment):
            os.kill(os.getpid(), signal.SIGKILL)

    def latents(self: Kept, number: int | None, held: torch.Tensor) -> None:
        write_latents(self, number, held)
        if number is not None:
            with journal.open("a") as file:
                file.write(f"{number}\n")
            die(number, "denoised")

    def state(self: Kept, number: int, held: dict[str, torch.Tensor]) -> None:
        die(number - 1, "segment")
        write_state(self, number, held)
        die(number - 1, "state")

    step = _Filming.step

    def stepped(self: _Filming, number: int, done: int, total: int) -> None:
        step(self, number, done, total)
        if done == 1:
            die(number, "step")

    _Filming.step = stepped  # type: ignore[method-assign]
    Kept.write_latents, Kept.write_state = latents, state  # type: ignore[method-assign]
    with Studio(home, executor="inline") as studio:
        studio.work()
        for _ in studio.jobs.get(job).events():
            pass


def main() -> None:
    import torch
    import transformers  # noqa: F401 - what takes long is imported once, here
    from diffusers import HunyuanVideoFramepackPipeline  # noqa: F401

    torch.set_num_threads(1)
    home, job, moments = Path(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
    for number, (section, moment) in enumerate([*moments, [None, ""]]):
        journal = home / f"journal-{number}"
        child = os.fork()
        if child == 0:
            code = 1
            try:
                attempt(home, job, section, moment, journal)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        made = [int(line) for line in journal.read_text().split()] if journal.exists() else []
        ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)
        print(json.dumps({"denoised": made, "ended": ended}), flush=True)


if __name__ == "__main__":
    main()
