"""How a family brings widgets of its own to the page: one object for each, named by an entry point.

    [project.entry-points."studio.widgets"]
    camera-path = "studio_orbit.page:CameraPath"

The object may have any of these; what it lacks is not asked for:

``widget``      the name that a parameter gives in ``json_schema_extra={"widget": "camera-path"}``
``component``   ``component(field, language) -> gradio component`` that draws such a parameter; its value goes to
                the parameter as it is
``picker``      ``picker(field, model, language) -> str``: HTML over the plain component of such a parameter, which is
                then hidden but keeps the value, so that a restored recipe is shown as well. The widget's script reads
                and writes it: the text box of the parameter NAME is ``.family .p-NAME textarea`` (the nearest
                ``.family``), and so are those of other parameters that it wants to follow. After writing, dispatch an
                ``input`` event. A list has one item a line; empty lines count unless all are empty
``follows``     names of parameters that the picker's script reads: they are drawn above it, not in the fold, because
                what lies in a fold that was never opened is not in the page
``keeps``       names of parameters that the picker shows in its own way: they are in the page, but hidden
``media_type``  what it can show: ``"model/gltf-binary"``, or ``"model/*"``
``html``        ``html(url, info, language) -> str`` that shows the file at ``url``, for the result and the gallery
``again``       ``again(made, language) -> list[(label, params)]``: ways to make a result once more with some parameters
                changed; each is a button under it, or one of a list if there are many, that opens its settings with
                ``params`` in place. ``made`` is the ``Artefact``; an empty list where it is not this family's
``folder``      a ``pathlib.Path`` whose ``.js`` and ``.css`` files the page loads (the scripts as modules), served
                under ``studio/widget/NAME/``

The module may import Gradio; it is imported by the page only, never by the engine or the worker. The page's content
policy holds for it: no inline script, nothing from outside. The result of ``html`` is trusted, so escape what is not
yours.
"""

from __future__ import annotations

import logging
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from studio.events import Artefact
from studio.forms import FieldSpec
from studio.spec import ModelSpec

GROUP = "studio.widgets"
log = logging.getLogger(__name__)


class Widgets:
    """All widgets that installed families bring. One that cannot be imported is left out and said in ``faults``."""

    def __init__(self) -> None:
        self._known: dict[str, Any] = {}
        self.faults: list[str] = []
        for point in entry_points(group=GROUP):
            try:
                found = point.load()
                self._known[point.name] = found() if isinstance(found, type) else found
            except Exception as error:
                log.exception("the widget %s cannot be loaded", point.name)
                self.faults.append(f"The widget {point.name} cannot be loaded: {error}.")

    def component(self, field: FieldSpec, language: str) -> Any:
        """The Gradio component for a parameter, or ``None`` if no family brings one for it."""
        for widget in self._known.values():
            if field.widget and getattr(widget, "widget", "") == field.widget and hasattr(widget, "component"):
                return widget.component(field, language)
        return None

    def picker(self, field: FieldSpec, model: ModelSpec, language: str) -> str | None:
        """HTML to choose a parameter's value with, or ``None`` if no family brings any for it."""
        for widget in self._known.values():
            if field.widget and getattr(widget, "widget", "") == field.widget and hasattr(widget, "picker"):
                return str(widget.picker(field, model, language))
        return None

    def beside(self, field: FieldSpec) -> tuple[frozenset[str], frozenset[str]]:
        """The parameters that a field's picker ``follows`` and ``keeps``."""
        for widget in self._known.values():
            if field.widget and getattr(widget, "widget", "") == field.widget and hasattr(widget, "picker"):
                return frozenset(getattr(widget, "follows", ())), frozenset(getattr(widget, "keeps", ()))
        return frozenset(), frozenset()

    def again(self, made: Artefact, language: str) -> list[tuple[str, dict[str, Any]]]:
        """Other ways to make a result, of all families; a fault in one is logged and leaves the others."""
        ways: list[tuple[str, dict[str, Any]]] = []
        for name, widget in self._known.items():
            try:
                ways += widget.again(made, language) if hasattr(widget, "again") else []
            except Exception:
                log.exception("the widget %s: a bug", name)
        return ways

    def html(self, media_type: str, url: str, info: dict[str, Any], language: str) -> str | None:
        """How to show a file, or ``None`` if the page's own way must do."""
        for widget in self._known.values():
            shown = getattr(widget, "media_type", "")
            if shown and shown in (media_type, media_type.split("/")[0] + "/*") and hasattr(widget, "html"):
                return str(widget.html(url, info, language))
        return None

    def folder(self, name: str) -> Path | None:
        folder = getattr(self._known.get(name), "folder", None)
        return Path(folder) if folder else None

    def assets(self) -> list[str]:
        """``NAME/FILE`` of every script and style sheet."""
        return [
            f"{name}/{file.name}"
            for name in self._known
            if (folder := self.folder(name)) is not None
            for file in sorted(folder.iterdir())
            if file.suffix in (".js", ".css")
        ]
