"""A film at work: section after section, each shown and kept before the next one begins. Runs in the worker."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from studio.film_plugin import write_segment
from studio.plugin import Context, Event, NoSpace, Note, Preview, Progress

from .assemble import Assembled
from .kept import Kept
from .request import FilmRequest
from .sampling import Loop, State
from .space import free_bytes, needed_bytes, no_space

Emit = Callable[[Event], None]


@dataclass
class Pace:
    """How long things took in this run, and what is left by that measure.

    ``decoding``: how many times as long as its denoising a section's decoding is foreseen to take, until one is seen.
    """

    steps: int
    sections: int
    decoding: float = 0.0
    denoise_s: float = 0.0
    done_steps: int = 0
    decode_s: float = 0.0
    decoded: int = 0

    def section_s(self, step: int) -> float | None:
        """Seconds that are left of a section after ``step`` of its steps; ``None`` before the first one."""
        if not self.done_steps:
            return None
        step_s = self.denoise_s / self.done_steps
        decode_s = self.decode_s / self.decoded if self.decoded else self.decoding * self.steps * step_s
        return (self.steps - step) * step_s + decode_s

    def film_s(self, section: int, step: int) -> float | None:
        """Seconds that are left of the film within ``section``, counted from 0."""
        this, whole = self.section_s(step), self.section_s(0)
        return None if this is None or whole is None else this + (self.sections - 1 - section) * whole


def film(
    model: Assembled,
    request: FilmRequest,
    kept: Kept,
    fps: int,
    ctx: Context,
    emit: Emit,
    whole: int = 0,
    decoding: float = 0.0,
) -> list[str]:
    """Make what is not made yet of all sections; afterwards ``kept.segments()`` is the film.

    ``whole``: that many sections were laid out from an earlier film, with latents and segments. ``decoding``: as
    planned, for the time left (``Pace``).

    Returns what the engine had to change for want of memory. Raises ``NoSpace`` with the bytes that the rest needs;
    what is finished stays.
    """
    model.networks.notes.clear()
    pace = Pace(request.steps, request.schedule.sections, decoding)
    filming = _Filming(model, request, kept, fps, ctx, emit, pace)
    filming.loop = Loop(model, request, check=ctx.check, step=filming.step, keep=filming.keep)
    filming.run(whole)
    return filming.told


@dataclass
class _Filming:
    """One request at work."""

    model: Assembled
    request: FilmRequest
    kept: Kept
    fps: int
    ctx: Context
    emit: Emit
    pace: Pace
    told: list[str] = field(default_factory=list)
    passed_over: int = 0
    loop: Loop = field(init=False)
    _begun: float = 0.0

    def run(self, whole: int) -> None:
        count = self.request.schedule.sections
        found = self.kept.state()
        if found is not None and found[0]:
            number = self.request.schedule.place(found[0]) + 1
            what = f"section {number} of {count}" if found[0] < count else "joining the sections"
            self.emit(Note(text=f"Goes on with {what}."))
        if found is not None and found[0] == count:
            return
        self.emit(Progress(phase="encode", done=0, total=1))
        conditions = self.loop.encode()
        state = State(*found) if found is not None else self._begun_from(whole)
        self.emit(Progress(phase="encode", done=1, total=1, remembered=conditions.remembered))
        while state.section < count:
            state = self._section(state)
        if self.passed_over:
            # Also for the forecasts, which know how many it usually is and learn nothing from this film.
            every = self.pace.steps * self.pace.sections
            self.emit(Note(text=f"{self.passed_over} of {every} steps were passed over."))

    def _begun_from(self, whole: int) -> State:
        """The state of a film of which nothing is made, or ``whole`` sections of an earlier one."""
        if self.request.schedule.sampling == "inverted" and self.pace.sections > 1:
            self.emit(Note(text="The end of the film is made first, its beginning last.", usual=True))
        start = self.kept.latents(None)
        latents = [held for section in range(whole) if (held := self.kept.latents(section)) is not None]
        state = self.loop.resume(whole, latents, start) if whole else self.loop.begin(start)
        self.kept.write_latents(None, state.tensors["start"])
        if whole:
            self.kept.write_state(whole, state.tensors)
            # Also for the forecasts, which learn nothing from a run that made less than was planned.
            self.emit(Note(text=f"{whole} of {self.pace.sections} sections stay as they were."))
            self._show(whole)
        return state

    def _show(self, sections: int) -> None:
        """The segments of an earlier film, in the order in which they were made."""
        for section in range(sections):
            if frames := self.request.schedule.settled(section):
                self._piece(section, frames)

    def _piece(self, section: int, frames: range) -> None:
        """A segment to look at, and which sections of the film its frames are."""
        first, last = self.request.schedule.shown(frames)
        path = str(self.kept.segment_path(section))
        self.emit(Preview(path=path, media_type="video/mp4", part=first, last_part=last, parts=self.pace.sections))

    def _section(self, state: State) -> State:
        """One section: denoised, decoded, on the disk, shown."""
        section = state.section
        if free_bytes(self.ctx.workdir) < needed_bytes(self.request, section):
            raise no_space(self.request, section, self.ctx.workdir)
        self.ctx.check()
        self._begun = time.perf_counter()
        try:
            kept = self.kept.latents(section)
            if kept is not None:
                self._decoding(section)
            made = self.loop.section(state, latents=kept)
            self.passed_over += len(made.skipped)
            if len(made.settled):
                write_segment(self.kept.segment_path(section), made.settled, self.fps)
            self.kept.write_state(section + 1, made.state.tensors)
            if len(made.waiting):  # to look at: the next section blends them with its own and writes them anew
                write_segment(self.kept.segment_path(section + 1), made.waiting, self.fps)
        except NoSpace as error:
            raise no_space(self.request, section, self.ctx.workdir) from error
        self.pace.decode_s += time.perf_counter() - self._begun
        self.pace.decoded += 1
        self._tell()
        self._progress("decode", section, 1, 1, self.pace.steps)
        schedule = self.request.schedule
        for number, frames in ((section, schedule.settled(section)), (section + 1, schedule.waiting(section))):
            if frames:
                self._piece(number, frames)
        return made.state

    # -- what the loop calls -------------------------------------------------------------------------------------

    def step(self, section: int, done: int, total: int) -> None:
        """After each denoising step; 0 before the first one."""
        now = time.perf_counter()
        if done:
            self.pace.denoise_s += now - self._begun
            self.pace.done_steps += 1
        self._begun = now
        self._tell()
        self._progress("denoise", section, done, total, done)

    def keep(self, section: int, latents: torch.Tensor) -> None:
        """Between denoising and decoding: a crash from here on costs the decoding only."""
        self.kept.write_latents(section, latents)
        self._decoding(section)

    def _decoding(self, section: int) -> None:
        self._begun = time.perf_counter()
        self._progress("decode", section, 0, 1, self.pace.steps)
        self.ctx.check()

    # -- telling -------------------------------------------------------------------------------------------------

    def _progress(self, phase: str, section: int, done: int, total: int, step: int) -> None:
        film_s, section_s = self.pace.film_s(section, step), self.pace.section_s(step)
        over = phase == "decode" and done == total
        if over and film_s is not None and section_s is not None:
            film_s, section_s = film_s - section_s, 0.0
        self.emit(
            Progress(
                phase=phase,
                done=done,
                total=total,
                eta_s=film_s,
                part=section + 1,
                parts=self.pace.sections,
                part_eta_s=section_s,
                backwards=self.request.schedule.sampling == "inverted",
            )
        )

    def _tell(self) -> None:
        """What the engine had to change for want of memory, as it happens."""
        for sentence in self.model.networks.notes[len(self.told) :]:
            self.told.append(sentence)
            self.emit(Note(text=sentence))
