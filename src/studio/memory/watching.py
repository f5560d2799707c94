"""What a job really takes in the process that executes it: seconds by phase, and peaks of memory.

The peak of memory is the kernel's own (``VmHWM``, set back at the start of the job); where there is no such thing, a
thread looks every 50 ms. A process keeps memory that earlier models used, so a peak is told only of a process that
never held another one. On a card: the most that torch reserved, and what the driver counts for this process besides
(CUDA's context, llama.cpp's buffers, which stay the same while a model is loaded). torch is never imported for it.
**The lines for a card have not run on one yet.**
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from studio.events import Artefact, Event, Note, Progress
from studio.memory.calibration import Run, rates_id
from studio.memory.plan_measured import Drawn
from studio.memory.plan_search import CONTEXT_BYTES
from studio.plans import Plan
from studio.units import KIB

ALIASES = {"step": "denoise"}
"""Names that families give to a phase of the planner."""
FEWEST_TOKENS = 8
"""A shorter answer says too little of a model's speed."""
SAMPLE_S = 0.05


class Clock:
    """Sorts the seconds of ``generate`` by phase, as the events tell them.

    What passes before an event belongs to the phase that the event is about; before the first event of a phase that
    has done nothing yet, to the phase before. After the last unit of a phase nothing is known until the next one.
    ``noted``: the pipeline said that something was not as planned. ``remembered``: the phases of which an earlier
    request had done at least a part.
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.tokens = 0
        self.noted = False
        self.remembered: set[str] = set()
        self._writing_s = 0.0
        self._mark = time.perf_counter()
        self._phase, self._over = "", True

    def take(self, event: Event, now: float | None = None) -> None:
        """One event of a pipeline, as it comes."""
        self.noted = self.noted or (isinstance(event, Note) and not event.usual)
        if isinstance(event, Artefact):
            self._told(event.info)
        if not isinstance(event, Progress):
            return
        now = time.perf_counter() if now is None else now
        phase = ALIASES.get(event.phase, event.phase)
        if event.remembered:
            self.remembered.add(phase)
        owner = phase if phase == self._phase or event.done > 0 else ("" if self._over else self._phase)
        if owner:
            self.seconds[owner] = self.seconds.get(owner, 0.0) + now - self._mark
        self._mark, self._phase = now, phase
        self._over = 0 < event.total <= event.done

    def finish(self, now: float | None = None) -> None:
        """The pipeline is done: a phase that was not over lasted until now."""
        if not self._over:
            now = time.perf_counter() if now is None else now
            self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._mark

    def _told(self, info: Mapping[str, Any]) -> None:
        """A model that writes tells its tokens and their pace: more exact than any clock outside."""
        count, pace = info.get("completion_tokens"), info.get("tokens_per_s")
        if isinstance(count, int) and isinstance(pace, int | float) and pace > 0:
            self.tokens += count
            self._writing_s += count / pace

    @property
    def writing_s(self) -> float:
        return self._writing_s


def stages_of(
    drawn: Drawn, clock: Clock, generate_s: float, load_s: float | None
) -> tuple[dict[str, tuple[float, float]], float]:
    """Pairs of predicted and measured seconds by the plan's phases, and the seconds that belong to none.

    Phases of which no event told share what is left, by what was predicted for them; numbered ones ("encode-2") share
    what is told of them together. What was remembered says nothing of how long it takes to do. An answer shorter than
    planned is compared with its part of the prediction; a very short one is left out.
    """
    predicted = {phase.name: phase.seconds for phase in drawn.raw.phases if phase.seconds}
    found = {}
    if load_s is not None and "load" in predicted:
        found["load"] = (predicted["load"], load_s)
    stages = {name: seconds for name, seconds in predicted.items() if name != "load"}
    if drawn.tokens and len(stages) == 1:
        [(name, seconds)] = stages.items()
        if clock.tokens < FEWEST_TOKENS:
            return found, 0.0
        found[name] = (seconds * clock.tokens / drawn.tokens, clock.writing_s)
        return found, max(0.0, generate_s - clock.writing_s)
    told = {name: seconds for name, seconds in clock.seconds.items() if name in stages}
    groups = {name: _together(stages, name, told) for name in (*told, *clock.remembered)}
    for name, measured in told.items():
        if name not in clock.remembered:
            whole = sum(groups[name].values())
            found |= {one: (seconds, measured * seconds / whole) for one, seconds in groups[name].items()}
    rest = max(0.0, generate_s - sum(told.values()))
    grouped = {one for group in groups.values() for one in group}
    silent = {name: seconds for name, seconds in stages.items() if name not in grouped}
    whole = sum(silent.values())
    found |= {name: (seconds, rest * seconds / whole) for name, seconds in silent.items()}
    return found, 0.0 if silent or not stages else rest


def _together(stages: Mapping[str, float], name: str, told: Mapping[str, float]) -> dict[str, float]:
    """The phase of that name and its numbered ones, as far as they are not told of by themselves."""
    return {
        one: seconds
        for one, seconds in stages.items()
        if one == name or (one not in told and re.fullmatch(rf"{re.escape(name)}-\d+", one))
    }


class Peaks:
    """The most memory that this process uses within the ``with`` block, with what its children use at the end: ``ram``
    and, if it uses a card, ``vram``."""

    def __init__(self, *, card: bool) -> None:
        self.ram: int | None = None
        self.vram: int | None = None
        self._card = card
        self._sampler: _Sampler | None = None

    def __enter__(self) -> Self:
        if not _reset_high_water():
            self._sampler = _Sampler()
            self._sampler.start()
        if (cuda := _cuda()) is not None:
            cuda.reset_peak_memory_stats()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        sampler, self._sampler = self._sampler, None
        own = _high_water() if sampler is None else sampler.stop()
        self.ram = None if own is None else own + _children()
        self.vram = _card_peak() if self._card and kind is None else None


def run_of(
    drawn: Drawn,
    clock: Clock,
    *,
    generate_s: float,
    load_s: float | None,
    vram: int | None = None,
    ram: int | None = None,
) -> Run:
    """The record of a job. ``load_s`` is ``None`` where the model was there already; peaks, where they cannot be told.

    Memory that is pinned or streamed from mapped files is no honest part of a process's size, so that no peak is kept.
    """
    stages, other = stages_of(drawn, clock, generate_s, load_s)
    return Run(
        cold=load_s is not None,
        rates=rates_id(drawn.rates),
        stages=stages,
        other_s=other,
        vram=(drawn.raw.peak_vram_bytes, vram) if vram and drawn.raw.peak_vram_bytes else None,
        ram=(drawn.raw.peak_ram_bytes, ram) if ram and drawn.raw.peak_ram_bytes and _in_ram(drawn.plan) else None,
    )


def _in_ram(plan: Plan) -> bool:
    networks: Mapping[str, Mapping[str, Any]] = plan.settings.get("networks", {})
    return not any(held.get("pinned_bytes") or held.get("disk_bytes") for held in networks.values())


# -- memory ------------------------------------------------------------------------------------------------------


def _reset_high_water() -> bool:
    """Let the kernel count this process's peak anew (Linux; proc(5), clear_refs)."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return _high_water() is not None


def _high_water() -> int | None:
    """The most bytes of memory this process has had since then."""
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * KIB
    return None


def _children() -> int:
    """What the processes that this one has started take now (a text model's templates are rendered in one)."""
    import psutil

    sizes = []
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            sizes.append(int(child.memory_info().rss))
    return sum(sizes)


class _Sampler(threading.Thread):
    """Looks at this process's memory until it is stopped."""

    def __init__(self) -> None:
        super().__init__(name="studio-memory", daemon=True)
        self._ended = threading.Event()
        self._most = 0

    def run(self) -> None:
        import psutil

        process = psutil.Process()
        while True:
            self._most = max(self._most, process.memory_info().rss)
            if self._ended.wait(SAMPLE_S):
                return

    def stop(self) -> int | None:
        self._ended.set()
        self.join()
        return self._most or None


def own_memory() -> tuple[int | None, int | None]:
    """The bytes that this process takes now of the card and of memory, its children's included; ``None``: not known.

    Pages of mapped files do not count: the system counts them as free, for it can read them again.
    """
    import psutil

    sizes = []
    for one in (psutil.Process(), *psutil.Process().children(recursive=True)):
        with suppress(psutil.Error):
            taken = one.memory_info()
            sizes.append(int(getattr(taken, "private", taken.rss - getattr(taken, "shared", 0))))
    return _card_now() or _torch_now(), sum(sizes) or None


def _torch_now() -> int | None:
    """What torch alone has of the card, where the driver does not tell; ``None`` if it has none."""
    cuda = _cuda()
    reserved = int(cuda.memory_reserved()) if cuda is not None else 0
    return CONTEXT_BYTES + reserved if reserved else None


def _cuda() -> Any:
    """``torch.cuda`` if something else has imported and begun it, else ``None``."""
    torch = sys.modules.get("torch")
    cuda = getattr(torch, "cuda", None)
    return cuda if cuda is not None and cuda.is_initialized() else None


def _card_peak() -> int | None:
    """What this process took of the card at most; ``None`` if it took nothing, or nobody can tell."""
    cuda, whole = _cuda(), _card_now()
    if cuda is None:
        return whole
    reserved = int(cuda.max_memory_reserved())
    if not reserved:
        return whole
    besides = CONTEXT_BYTES if whole is None else max(0, whole - int(cuda.memory_reserved()))
    return besides + reserved


def _card_now() -> int | None:
    """The driver's count for this process. It cannot be told on Windows, nor inside some containers."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    try:
        first = pynvml.nvmlDeviceGetHandleByIndex(0)
        mine = [one for one in pynvml.nvmlDeviceGetComputeRunningProcesses(first) if one.pid == os.getpid()]
        return next((int(one.usedGpuMemory) for one in mine if one.usedGpuMemory), None)
    except pynvml.NVMLError:
        return None
    finally:
        pynvml.nvmlShutdown()
