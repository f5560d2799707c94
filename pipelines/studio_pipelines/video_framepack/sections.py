"""How a film is made of sections: how many, in which order, what each one sees, and which frames it settles.

Plain arithmetic, no torch. A section makes ``window`` latents, which are ``(window - 1) * factor + 1`` frames when they
are decoded alone (33), and each after the first one makes the film ``window * factor`` frames longer (36): where two
sections meet, 33 frames are blended. So a film of n sections has 36 n + 1 frames.

Two ways to order the sections. ``forward``: from the beginning, each seeing the past (FramePack-F1). ``inverted``: the
end first, each seeing the given picture and the future that is made already, which keeps a film from drifting away.

Source: "Packing Input Frame Context in Next-Frame Prediction Models for Video Generation" (arXiv 2504.12626), and
lllyasviel/FramePack at 97fe5dbe06ac1f337ece08935b1076a35eefeeb9 (``demo_gradio.py``, ``demo_gradio_f1.py``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sampling = Literal["forward", "inverted"]

HISTORY = (1, 2, 16)
"""How many past (or future) latents are seen at full, half and quarter detail; the nearest are the finest."""
KEPT = sum(HISTORY)


@dataclass(frozen=True)
class Indices:
    """The places in time, in latents, of what a section makes and of what it sees: for the rotary embedding.

    ``clean`` are the given picture and the nearest latent, at full detail.
    """

    latents: tuple[int, ...]
    clean: tuple[int, ...]
    history_2x: tuple[int, ...]
    history_4x: tuple[int, ...]


@dataclass(frozen=True)
class Schedule:
    """The sections of one film. Sections are numbered from 0 in the order in which they are made."""

    sections: int
    sampling: Sampling
    window: int = 9
    factor: int = 4

    @classmethod
    def of(cls, seconds: float, fps: float, sampling: Sampling, *, window: int = 9, factor: int = 4) -> Schedule:
        """As many sections as come nearest to ``seconds``, at least one."""
        return cls(max(1, round(seconds * fps / (window * factor))), sampling, window, factor)

    @property
    def new_frames(self) -> int:
        """By how many frames a section makes the film longer."""
        return self.window * self.factor

    @property
    def overlap(self) -> int:
        """How many frames of one section are blended with the next one's."""
        return (self.window - 1) * self.factor + 1

    @property
    def frames(self) -> int:
        """The frames of the whole film."""
        return self.sections * self.new_frames + 1

    def seconds(self, fps: float) -> float:
        """How long the film is."""
        return self.frames / fps

    def place(self, section: int) -> int:
        """Where in the film a section belongs: 0 is its beginning."""
        return section if self.sampling == "forward" else self.sections - 1 - section

    def in_time(self) -> list[int]:
        """The sections in the order of the film: in which their segments are joined."""
        return sorted(range(self.sections), key=self.place)

    def is_last(self, section: int) -> bool:
        """Whether this section is the one made last."""
        return section == self.sections - 1

    def settled(self, section: int) -> range:
        """The frames of the film that are final once this section is made, none for an inverted film's first one.

        The ``overlap`` frames beside them wait to be blended with the next section.
        """
        frames = self.frames
        if self.sampling == "forward":
            begin = self._waiting(section - 1).start if section else 0
            return range(begin, frames if self.is_last(section) else self._waiting(section).start)
        end = self._waiting(section - 1).stop if section else frames
        return range(0 if self.is_last(section) else self._waiting(section).stop, end)

    def waiting(self, section: int) -> range:
        """The frames that wait for the next section once this one is made; none after the last."""
        return range(0) if self.is_last(section) else self._waiting(section)

    def _waiting(self, section: int) -> range:
        if self.sampling == "forward":
            end = (section + 1) * self.new_frames + 1
            return range(end - self.overlap, end)
        begin = self.frames - self.overlap - section * self.new_frames
        return range(begin, begin + self.overlap)

    def shown(self, frames: range) -> tuple[int, int]:
        """Which sections, from 1 in the order of the film, these frames of it show: the first one and the last one.

        Those whose middle is among them; else the one in which they lie.
        """
        each = self.new_frames
        middles = [number for number in range(self.sections) if number * each + each // 2 in frames]
        inside = min(self.sections - 1, (frames.start + frames.stop) // 2 // each)
        return (middles[0] + 1, middles[-1] + 1) if middles else (inside + 1, inside + 1)

    def decoded(self, section: int) -> int:
        """How many latents are decoded for a section: its own, those of the section before, and the given picture's
        where the section touches it."""
        touches = section == 0 if self.sampling == "forward" else self.is_last(section)
        return self.window * (1 if section == 0 else 2) + int(touches)

    def paddings(self) -> list[int]:
        """For an inverted film: how many windows lie between the given picture and each section.

        Beyond four sections the distances repeat, as in the reference: the model was not trained on longer ones.
        """
        if self.sampling == "forward":
            return [0] * self.sections
        if self.sections > 4:
            return [3] + [2] * (self.sections - 3) + [1, 0]
        return list(reversed(range(self.sections)))

    def indices(self, section: int) -> Indices:
        """The layout in time: ``[1, padding, window, 1, 2, 16]`` inverted, ``[1, 16, 2, 1, window]`` forward."""
        one, two, four = HISTORY
        if self.sampling == "forward":
            picture, fourth, second, first, own = _split(1, four, two, one, self.window)
        else:
            padding = self.paddings()[section] * self.window
            picture, _, own, first, second, fourth = _split(1, padding, self.window, one, two, four)
        return Indices(own, picture + first, second, fourth)


def _split(*sizes: int) -> list[tuple[int, ...]]:
    """Consecutive runs of numbers of these lengths, from 0."""
    begins = [sum(sizes[:place]) for place in range(len(sizes))]
    return [tuple(range(begin, begin + size)) for begin, size in zip(begins, sizes, strict=True)]
