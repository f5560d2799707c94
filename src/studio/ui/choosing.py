"""Which model a tab shows: the one chosen last in this browser, else what suits the machine as it is now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gradio as gr

from studio.spec import ModelSpec
from studio.ui.house import House
from studio.ui.i18n import Words
from studio.ui.tabs.make import QUIET, Maker, first_model, model_choices, model_note

_SECRET = "studio"  # noqa: S105 - BrowserState encrypts; which model was chosen is no secret


def follow_choosers(
    house: House, say: Words, demo: gr.Blocks, makers: Iterable[tuple[Maker, Any]], done: Any
) -> list[Follower]:
    """Show the form of the chosen model's family, its note and its own defaults. ``makers``: each with its tab.
    ``done``: a box that is filled when the page shows what it begins with.

    The page is drawn once, but models come and go: what it begins with is decided when it is opened, and again when a
    tab is looked at whose model is missing and was not asked for.
    """
    followers = [Follower(house, say, maker, tab) for maker, tab in makers if maker.chooser is not None]

    def opened(*values: str) -> dict[Any, Any]:
        updates: dict[Any, Any] = {done: "yes"}
        for one, model, kept in zip(followers, values[::2], values[1::2], strict=True):
            updates.update(one.opened(model, kept))
        return updates

    inputs = [value for one in followers for value in (one.maker.chooser, one.kept)]
    demo.load(opened, inputs, [done, *(place for one in followers for place in one.places)], **QUIET)
    return followers


class Follower:
    """One tab's chooser and what follows it."""

    def __init__(self, house: House, say: Words, maker: Maker, tab: Any) -> None:
        self.house, self.say, self.maker = house, say, maker
        self.first = maker.chooser.value
        self.kept = gr.BrowserState("", storage_key=f"studio-model-{maker.modality}", secret=_SECRET)
        own = (name for name in maker.groups if name in maker.forms)
        self.families = {name: maker.groups[name] for name in own if name not in ("talk", "make")}
        places = [maker.groups[name] for name in ("talk", "side", "make") if name in maker.groups]
        self.outputs = [maker.note, *self.families.values(), *places]
        self.outputs += [one for form in maker.forms.values() for one in (*form.components, *form.pickers)]
        self.places = [maker.chooser, *self.outputs]
        # Chosen twice in quick succession: the last choice counts, whether or not the first one has been answered.
        again: dict[str, Any] = {"trigger_mode": "always_last", **QUIET}
        maker.chooser.input(self.chosen, maker.chooser, [self.kept, *self.outputs], **again)
        tab.select(self.seen, [maker.chooser, self.kept], self.places, **QUIET)
        maker.chooser.focus(self.choices, None, maker.chooser, **QUIET)

    def chosen(self, model: str) -> dict[Any, Any]:
        return {self.kept: model, **self.show(model)}

    def opened(self, model: str, kept: str) -> dict[Any, Any]:
        """What the page begins with."""
        wanted = kept if self.is_here(kept) else model if self.is_here(model) else self._suits() or model
        return self.moved(model, wanted)

    def seen(self, model: str, kept: str) -> dict[Any, Any]:
        """What a tab shows that is looked at: a model may be here since, and there may be new adapters."""
        unasked = model == self.first and model != kept
        wanted = self._suits() or model if unasked and not self.is_here(model) else model
        found = self.moved(model, wanted)
        return found if wanted != model or not wanted else {**found, **self._offers(wanted)}

    def choices(self) -> Any:
        return gr.update(choices=model_choices(self.house, self.maker.modality, self.say))

    def show(self, model: str) -> dict[Any, Any]:
        maker, spec = self.maker, self.house.studio.models.get(model)
        updates: dict[Any, Any] = {maker.note: model_note(self.house, model, self.say)}
        for name, group in self.families.items():
            updates[group] = gr.update(visible=name == spec.pipeline)
        if "talk" in maker.groups:
            talks = self.house.chats_with(spec)
            updates[maker.groups["talk"]] = gr.update(visible=talks)
            updates[maker.groups["side"]] = gr.update(visible=talks)
            updates[maker.groups["make"]] = gr.update(visible=not talks)
        form = maker.forms[spec.pipeline]
        own = _own_defaults(self.house, spec)
        moved = {form.at(one.name) for one in form.fields if one.name in own}
        updates.update((place, new) for place, new in form.updates({}, spec.defaults).items() if place in moved)
        return {**updates, **self._offers(model)}

    def moved(self, model: str, wanted: str) -> dict[Any, Any]:
        if wanted == model:
            return {self.maker.chooser: self.choices()}
        offered = model_choices(self.house, self.maker.modality, self.say)
        return {self.maker.chooser: gr.update(choices=offered, value=wanted), **self.show(wanted)}

    def _offers(self, model: str) -> dict[Any, Any]:
        form = self.maker.forms[self.house.studio.models.get(model).pipeline]
        return form.follow(self.house, model, self.say.language)

    def _suits(self) -> str | None:
        found = first_model(self.house, self.maker.modality)
        return found if self.is_here(found) else None

    def is_here(self, model: str | None) -> bool:
        known = bool(model) and model in {spec.id for spec in self.house.models(self.maker.modality)}
        return known and self.house.studio.models.files(str(model)) is not None


def _own_defaults(house: House, spec: ModelSpec) -> set[str]:
    """The parameters for which some model of the family brings a default of its own."""
    return {name for other in house.studio.models if other.pipeline == spec.pipeline for name in other.defaults}
