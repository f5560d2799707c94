"""What is known of a job, put together from its events. The page asks again and again; each asks only for news."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from pathlib import Path

from studio.core import Studio
from studio.events import Artefact, Done, Event, Failed, Preview, Progress, Queued, Token
from studio.jobs.model import JobRow

KEPT = 200


@dataclass
class Story:
    """The events of one attempt so far, as a person wants to see them."""

    seen: int = 0
    thinking: str = ""
    answer: str = ""
    progress: Progress | None = None
    preview: Preview | None = None
    previews: int = 0
    clips: dict[str, tuple[int, Preview]] = field(default_factory=dict)
    """Previews that are pieces of a film, by file name, with the number of the one that was last written there: each
    stays, unlike a picture that the next one replaces."""
    artefacts: list[Artefact] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What the person should know of how it was done."""
    done: Done | None = None
    failed: Failed | None = None

    def add(self, number: int, event: Event) -> None:
        if isinstance(event, Queued):  # a new attempt: what came before is void, but for the parts that are kept
            clips = {name: clip for name, clip in self.clips.items() if clip[1].parts and Path(clip[1].path).is_file()}
            self.__dict__.update(Story(clips=clips, previews=self.previews).__dict__)
        elif isinstance(event, Token):
            if event.channel == "thinking":
                self.thinking += event.text
            else:
                self.answer += event.text
        elif isinstance(event, Progress):
            self.progress = event
        elif isinstance(event, Preview):
            self.preview, self.previews = event, self.previews + 1
            if event.media_type.startswith("video/"):
                self.clips[Path(event.path).name] = (self.previews, event)
        elif isinstance(event, Artefact):
            self.artefacts.append(event)
        elif isinstance(event, Done):
            self.done = event
        elif isinstance(event, Failed):
            self.failed = event
        else:
            self.notes.append(event.text)
        self.seen = number

    @property
    def parts(self) -> tuple[list[int], int]:
        """Which parts of the result there are to look at, in its order, and how many it has; ``([], 0)``: no parts."""
        pieces = [preview for _, preview in self.clips.values() if preview.parts]
        shown = {number for one in pieces for number in range(one.part, one.last_part + 1)}
        return sorted(shown), pieces[0].parts if pieces else 0

    @property
    def text(self) -> str:
        """What was written: as it was stored, or as far as it came."""
        made = next((one for one in self.artefacts if one.media_type in ("text/plain", "application/json")), None)
        try:
            return made.text if made else self.answer
        except OSError:  # deleted by the person
            return self.answer

    @property
    def info(self) -> dict[str, object]:
        return dict(self.artefacts[0].info) if self.artefacts else {}


class Stories:
    """The stories of the jobs that somebody looked at lately."""

    def __init__(self, studio: Studio) -> None:
        self._studio = studio
        self._known: OrderedDict[str, Story] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, job: JobRow) -> Story:
        with self._lock:
            story = self._known.setdefault(job.id, Story())
            self._known.move_to_end(job.id)
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
            if (job.attempt and not (job.ended and (story.done or story.failed))) or job.state == "queued":
                for number, event in self._studio.queue.events(job.id, story.seen):
                    story.add(number, event)
            elif not story.seen:
                for number, event in self._studio.queue.events(job.id):
                    story.add(number, event)
            return story
