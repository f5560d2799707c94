"""What all parts of the page share: the engine, the conversations, the downloads, and which family belongs where."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from studio.core import Studio
from studio.errors import StudioError
from studio.forms import FieldSpec, field_specs
from studio.spec import ModelSpec
from studio.ui.chats import ChatStore
from studio.ui.fits import Fits
from studio.ui.hook import Widgets
from studio.ui.i18n import Words, choices_of
from studio.ui.pulls import Pulls
from studio.ui.story import Stories
from studio.ui.told import Teller, files_of, read, templates_of
from studio.ui.told_en import FILE, EnglishTeller

if TYPE_CHECKING:
    from studio.ui.targets import Targets

log = logging.getLogger(__name__)

MODALITIES = ("text", "image", "video", "audio", "mesh")
"""The tabs in which things are made; ``mesh`` is called 3D on the page."""

_MAKES = {
    "text": "text", "json": "text", "image": "image", "video": "video", "audio": "audio", "speech": "audio",
    "sound": "audio", "music": "audio", "mesh": "mesh", "3d": "mesh", "shape": "mesh",
}  # fmt: skip


def teller_of(modules: list[str], labels: Mapping[str, str], language: str) -> Teller:
    """Says what the engine says as the page of this language does; ``modules``: those of the families."""
    if language == "en":
        return EnglishTeller(templates_of(map(read, files_of(modules, FILE)), str), labels)
    return Teller(templates_of(map(read, files_of(modules))), labels, choices_of(language))


def modality_of(task: str) -> str:
    """The tab of a task: by what comes out, but what listens belongs to sound. Text where nobody knows better."""
    takes, _, gives = task.partition("->")
    made = _MAKES.get(gives, "text")
    heard = any(_MAKES.get(part) == "audio" for part in takes.split("+"))
    return "audio" if made == "text" and heard else made


def modality_of_media(media_type: str) -> str:
    kind = media_type.split("/")[0]
    return {"image": "image", "video": "video", "audio": "audio", "model": "mesh"}.get(kind, "text")


def about_bytes(spec: ModelSpec) -> int:
    """For an order by size: what nobody knows the size of comes last."""
    return sys.maxsize if spec.about_bytes is None else spec.about_bytes


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
    _tellers: dict[tuple[str, str], Teller] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.chats = ChatStore(self.studio.home.root / "chats")
        self.stories = Stories(self.studio)
        self.pulls = Pulls(self.studio)
        self.fits = Fits(self.studio)
        self.widgets = Widgets()
        self.faults = [*self.studio.catalogue.faults, *self.widgets.faults]

    def is_loaded(self, model: str) -> bool:
        """Whether the worker holds this model now."""
        return any(held["model"] == model for held in self.studio.queue.note("loaded") or [])

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

    def told(self, say: Words, *sentences: str, model: str = "") -> str:
        """What the engine says, in the page's language. ``model``: whose parameters it may name, by their labels."""
        said = [one for one in sentences if one]
        spec = self.studio.catalogue.specs.get(model)
        known = spec is not None and spec.pipeline in self.studio.registry.names()
        teller = self._teller(spec.pipeline if spec is not None and known else "", say.language)
        return " ".join(filter(None, map(teller, said)))

    def _teller(self, family: str, language: str) -> Teller:
        """With the sentences of the page and of the family; those of all families where it is not known."""
        if (family, language) not in self._tellers:
            registry = self.studio.registry
            modules = [registry.module_of(one) for one in ([family] if family else registry.names())]
            try:
                fields = field_specs(registry.get(family).Params, language) if family else ()
            except StudioError:
                fields = ()
            labels = {one.name: one.label for one in fields}
            self._tellers[family, language] = teller_of(modules, labels, language)
        return self._tellers[family, language]

    def models(self, modality: str) -> list[ModelSpec]:
        """The models of a tab: those on this machine first, what begins with words, small ones before large ones."""
        found = {spec.id: task for spec in self.studio.models if (task := self.task(spec))}

        def place(spec: ModelSpec) -> tuple[bool, bool, int]:
            here, takes = self.studio.models.files(spec.id) is not None, found[spec.id].split("->")[0]
            return not here, "text" not in takes.split("+"), about_bytes(spec)

        wanted = [self.studio.models.get(name) for name, task in found.items() if modality_of(task) == modality]
        return sorted(wanted, key=place)

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
        return f"≈ {say.size(spec.about_bytes)}" if spec.about_bytes else ""

    def files_asked_for(self, spec: ModelSpec) -> list[FieldSpec]:
        """The files that a person gives by hand: not those that a picker of the family keeps to itself."""
        fields = self.studio.fields(spec.id)
        kept = frozenset[str]().union(*(self.widgets.beside(one)[1] for one in fields))
        return [one for one in fields if one.kind == "file" and one.name not in kept]

    def chats_with(self, spec: ModelSpec) -> bool:
        """Whether the model takes a conversation."""
        return "messages" in self.studio.family(spec).Params.model_fields


def _all_files(path: Path) -> list[Path]:
    return [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
