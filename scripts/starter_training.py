"""What training a starter model is, whatever it learns: stages of steps, a time box, a checkpoint to go on from.

Each step draws its batch from a generator seeded with (seed, stage, step) alone. So a run that was cut and resumed goes
through exactly the batches of an uninterrupted one, and ends with the same weights.
"""

import argparse
import os
import signal
import statistics
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

import torch
from torch import nn

CHECKPOINT_S = 120.0
SAY_S = 15.0


class Stopped(Exception):
    """The time box or a signal ended the run; the checkpoint is written."""


class Training(ABC):
    """The plan, the place in it, and the files. A trainer brings the parts, and what a step of each stage is."""

    shares: ClassVar[dict[str, float]]  # of the time box, by stage in the order of the run
    reserve: ClassVar[float]  # of the time box, kept for what is no step
    watched: ClassVar[tuple[str, ...]]  # the stages that are looked at on the way

    def __init__(self, settings: Any, folder: Path, pictures: int) -> None:
        self.settings, self.folder, self.pictures = settings, folder, pictures
        self.checkpoint = folder / "checkpoint.pt"
        self.device = torch.device(settings.device)
        self.plan: dict[str, int] = {}
        self.stage, self.step, self.losses = next(iter(self.shares)), 0, dict.fromkeys(self.shares, 0.0)
        self.deadline, self.stop_after, self.interrupted = float("inf"), -1, False
        self.on_mark: Callable[[Self], None] | None = None
        self.learned: list[nn.Parameter] = []
        self.ema: list[torch.Tensor] = []  # of `learned`
        self.optimisers: dict[str, torch.optim.Optimizer] = {}

    @abstractmethod
    def build(self) -> None:
        """Fresh parts, the same for the same seed."""

    @property
    @abstractmethod
    def stages(self) -> dict[str, Callable[[int], float]]:
        """What a step of each stage is: from its number to its loss."""

    @abstractmethod
    def parts(self) -> dict[str, nn.Module]:
        """The networks that a resumed run needs."""

    @abstractmethod
    def learning_rate(self, stage: str, step: int) -> float:
        """It rises for a moment, then falls straight to zero after the last step."""

    def optimisers_of(self, stage: str) -> list[torch.optim.Optimizer]:
        """Those that take a step in a stage."""
        return [self.optimisers[stage]]

    # --- the plan ---------------------------------------------------------------------------------------------------

    def share_out(self, minutes: float, seconds: dict[str, float]) -> None:
        """The steps that a time box has room for, by the seconds of a step."""
        usable = minutes * 60 * (1 - self.reserve)
        self.plan = {stage: max(1, int(usable * share / seconds[stage])) for stage, share in self.shares.items()}
        print("measured: " + ", ".join(f"{name} {s:.2f} s a step" for name, s in seconds.items()), flush=True)

    # --- one step ---------------------------------------------------------------------------------------------------

    def generator(self, stage: int, step: int) -> torch.Generator:
        return torch.Generator().manual_seed((self.settings.seed * 8 + stage) * 10_000_019 + step)

    def update(self, stage: str, step: int, loss: torch.Tensor, parameters: list[nn.Parameter]) -> float:
        """One step of the stage's optimisers."""
        optimisers, rate = self.optimisers_of(stage), self.learning_rate(stage, step)
        for optimiser in optimisers:
            for group in optimiser.param_groups:
                group["lr"] = rate * group.get("boost", 1.0)
            optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        for optimiser in optimisers:
            optimiser.step()
        return float(loss.detach())

    def average(self, step: int, first: int = 0) -> None:
        """Of the learned parameters, from the ``first`` on."""
        with torch.no_grad():
            decay = min(self.settings.ema, (step + 1) / (step + 10))
            torch._foreach_lerp_(self.ema[first:], [p.detach() for p in self.learned[first:]], 1 - decay)

    # --- the run ----------------------------------------------------------------------------------------------------

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        self.interrupted = True

    def run_stage(self, stage: str) -> None:
        """From where it is to the stage's end. Raises `Stopped` at the time box or a signal."""
        take, total, first, start = self.stages[stage], self.plan[stage], self.step, time.monotonic()
        said = saved = start
        while self.step < total:
            loss = take(self.step)
            self.losses[stage] = loss if not self.step else 0.98 * self.losses[stage] + 0.02 * loss
            self.step += 1
            now = time.monotonic()
            if now - said > SAY_S or self.step == total:
                left = (now - start) / (self.step - first) * (total - self.step) / 60
                place = f"{stage:9}{self.step:6d} of {total}"
                print(f"{place}  loss {self.losses[stage]:.4f}  {left:5.1f} min left", flush=True)
                said = now
            if now - saved > CHECKPOINT_S:
                self.save()
                saved = now
            if stage in self.watched and self.step < total and self.step % max(1, total // 6) == 0:
                self.mark()
            if self.interrupted or now > self.deadline or self.step_number() == self.stop_after:
                self.save()
                raise Stopped

    def step_number(self) -> int:
        """Counted over all stages."""
        names = list(self.shares)
        return self.step + sum(self.plan[name] for name in names[: names.index(self.stage)])

    def mark(self) -> None:
        if self.on_mark is not None:
            self.on_mark(self)

    # --- files ------------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs."""
        return {
            "settings": self.settings.as_dict(),
            "pictures": self.pictures,
            "plan": self.plan,
            "place": [self.stage, self.step],
            "losses": self.losses,
            "models": {name: part.state_dict() for name, part in self.parts().items()},
            "ema": self.ema,
            "optimisers": {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()},
        }

    def save(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        write_whole(self.state(), self.checkpoint)

    def load(self) -> dict[str, Any]:
        """Go on from the checkpoint. Ends the program if it was begun with other settings."""
        state: dict[str, Any] = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        found, ours = dict(state["settings"]), self.settings.as_dict()
        found.pop("device"), ours.pop("device")
        if found != ours or state["pictures"] != self.pictures:
            raise SystemExit(f"{self.checkpoint} was begun with other settings: {found}. Start without --resume.")
        self.plan, self.losses = state["plan"], state["losses"]
        self.stage, self.step = state["place"]
        for name, part in self.parts().items():
            part.load_state_dict(state["models"][name])
        with torch.no_grad():
            for average, value in zip(self.ema, state["ema"], strict=True):
                average.copy_(value)
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state["optimisers"][name])
        return state


def write_whole(content: object, path: Path) -> None:
    """Written beside and then renamed, so that a cut never leaves half a file."""
    partial = path.with_suffix(".part")
    torch.save(content, partial)
    partial.replace(path)


def median_s(step: Callable[[int], float], numbers: range) -> float:
    """The seconds that a step takes."""

    def timed(number: int) -> float:
        start = time.monotonic()
        step(number)
        return time.monotonic() - start

    return statistics.median(timed(number) for number in numbers)


# --- the command ----------------------------------------------------------------------------------------------------


def parser(doc: str | None, name: str, minutes: float, stages: tuple[str, ...], out: Path, sheet: Path) -> Any:
    """The flags of every trainer. `name` is that of its folder in the user's cache."""
    made = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=minutes, help="time box; the number of steps follows from it")
    made.add_argument("--steps", type=int, nargs=len(stages), metavar=stages, help="fixed steps, not measured ones")
    made.add_argument("--seed", type=int, default=0)
    made.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    made.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--work", type=Path, default=Path.home() / ".cache" / name, help="downloads and checkpoint")
    made.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    made.add_argument("--out", type=Path, default=out, help="where the pipeline goes")
    made.add_argument("--sheet", type=Path, default=sheet, help="where the sheet of samples goes")
    return made


def prepare(options: argparse.Namespace) -> None:
    """Before anything is drawn at random."""
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=options.device != "cpu")


def train(trainer: Any, options: argparse.Namespace, start: float) -> bool:
    """Run the plan, a new one or that of the checkpoint. `False`: stopped before there is anything to look at."""
    if options.resume:
        trainer.load()
        print(f"resumed: {trainer.stage}, step {trainer.step} of {trainer.plan}", flush=True)
    elif options.steps:
        trainer.plan = dict(zip(trainer.shares, options.steps, strict=True))
    else:
        trainer.make_plan(options.minutes)
    trainer.deadline = start + options.minutes * 60
    print(f"steps: {trainer.plan}", flush=True)
    trainer.save()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, trainer.interrupt)
    try:
        trainer.run()
    except Stopped:
        print(f"stopped at {trainer.stage}, step {trainer.step}; go on with --resume", flush=True)
        return trainer.stage != next(iter(trainer.shares))
    return True
