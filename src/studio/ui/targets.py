"""Where a result can go: the installed models that take such a file. Found from their parameters, none by name."""

from __future__ import annotations

import time
from dataclasses import dataclass

from studio.ui.house import MODALITIES, House, modality_of, modality_of_media

_KEPT_S = 5.0


@dataclass(frozen=True)
class Target:
    """``field`` of ``model`` takes the file. ``direct``: it needs nothing else and gives something of the same kind;
    ``enlarges``: and that is larger."""

    modality: str
    model: str
    field: str
    direct: bool
    enlarges: bool


class Targets:
    """Remembered for a few seconds: the answer changes only when a model comes or goes."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._known: dict[str, tuple[float, list[Target]]] = {}

    def of(self, media_type: str) -> list[Target]:
        """Everything that takes such a file, model by model, the largest models last."""
        then, found = self._known.get(media_type, (-_KEPT_S, []))
        if time.monotonic() - then > _KEPT_S:
            found = list(self._find(media_type))
            self._known[media_type] = (time.monotonic(), found)
        return found

    def direct(self, media_type: str) -> Target | None:
        """The best model that changes such a file without being told how; one that enlarges before any other."""
        found = [target for target in self.of(media_type) if target.direct]
        return max(found, key=lambda target: target.enlarges, default=None)

    def tabs(self, media_type: str) -> list[str]:
        """The other tabs in which such a file can be used."""
        own = modality_of_media(media_type)
        found = {target.modality for target in self.of(media_type) if not target.direct}
        return [tab for tab in MODALITIES if tab in found and tab not in (own, "text")]

    def _find(self, media_type: str) -> list[Target]:
        house, found = self._house, []
        for modality in MODALITIES:
            for spec in house.models(modality):
                if house.studio.models.files(spec.id) is None:
                    continue
                taking = next((one for one in house.files_asked_for(spec) if media_type in one.accept), None)
                if taking is None:
                    continue
                fields = house.studio.fields(spec.id)
                needs = [one.name for one in fields if one.required]
                same = modality_of(house.task(spec) or "") == modality_of_media(media_type)
                direct = same and needs == [taking.name]
                scales = direct and any(one.name == "scale" for one in fields)
                found.append(Target(modality, spec.id, taking.name, direct, scales))
        return found
