"""What all parts of the page share: the engine, the conversations, the downloads, and which family belongs where."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from studio.core import Studio
from studio.errors import StudioError
from studio.spec import ModelSpec
from studio.ui.chats import ChatStore
from studio.ui.fits import Fits
from studio.ui.hook import Widgets
from studio.ui.pulls import Pulls
from studio.ui.story import Stories

if TYPE_CHECKING:
    from studio.ui.i18n import Words
    from studio.ui.targets import Targets

log = logging.getLogger(__name__)

MODALITIES = ("text", "image", "video", "audio", "mesh")
"""The tabs in which things are made; ``mesh`` is called 3D on the page."""

_MAKES = {
    "text": "text", "json": "text", "image": "image", "video": "video", "audio": "audio", "speech": "audio",
    "sound": "audio", "music": "audio", "mesh": "mesh", "3d": "mesh", "shape": "mesh",
}  # fmt: skip


def modality_of(task: str) -> str:
    """The tab of a task: by what comes out, but what listens belongs to sound. Text where nobody knows better."""
    takes, _, gives = task.partition("->")
    made = _MAKES.get(gives, "text")
    heard = any(_MAKES.get(part) == "audio" for part in takes.split("+"))
    return "audio" if made == "text" and heard else made


def modality_of_media(media_type: str) -> str:
    kind = media_type.split("/")[0]
    return {"image": "image", "video": "video", "audio": "audio", "model": "mesh"}.get(kind, "text")


@dataclass
class House:
    """One for each server."""

    studio: Studio
    chats: ChatStore = field(init=False)
    stories: Stories = field(init=False)
    pulls: Pulls = field(init=False)
    fits: Fits = field(init=False)
    widgets: Widgets = field(init=False)
    faults: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chats = ChatStore(self.studio.home.root / "chats")
        self.stories = Stories(self.studio)
        self.pulls = Pulls(self.studio)
        self.fits = Fits(self.studio)
        self.widgets = Widgets()
        self.faults = [*self.studio.catalogue.faults, *self.widgets.faults]

    def task(self, spec: ModelSpec) -> str | None:
        """What the model makes of what; ``None`` if its family cannot be imported, which is said once."""
        try:
            family = self.studio.family(spec)  # imported even where the entry names a task: its form is needed
            return spec.task or family.task
        except StudioError as error:
            if str(error) not in self.faults:
                self.faults.append(str(error))
                log.warning("%s", error)
            return None

    def models(self, modality: str) -> list[ModelSpec]:
        """The models of a tab: those on this machine first, small ones before large ones."""
        found = [spec for spec in self.studio.models if (task := self.task(spec)) and modality_of(task) == modality]
        here = {spec.id: self.studio.models.files(spec.id) is not None for spec in found}
        return sorted(found, key=lambda spec: (not here[spec.id], spec.download_bytes or 0))

    @cached_property
    def targets(self) -> Targets:
        from studio.ui.targets import Targets

        return Targets(self)

    def size(self, spec: ModelSpec, say: Words) -> str:
        """The size of a model's files in words, from its parameters where the files are not known; "" for none."""
        known = self.studio.models.size_bytes(spec.id)
        if known is None and (files := self.studio.models.files(spec.id)):
            # A file that is pinned by itself lies in a folder that is named as well: each counts once.
            known = sum(one.stat().st_size for one in {one for path in files.values() for one in _all_files(path)})
        if known is not None:
            return say.size(known) if known else ""
        parts = [max(part.bytes.values(), default=0) for part in spec.components.values()]
        return f"≈ {say.size(sum(parts))}" if parts and all(parts) else ""

    def chats_with(self, spec: ModelSpec) -> bool:
        """Whether the model takes a conversation."""
        return "messages" in self.studio.family(spec).Params.model_fields


def _all_files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
