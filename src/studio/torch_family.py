"""The frame of a family whose loaded model is one object over ``Networks``. Light: torch is imported by ``load``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from studio.errors import StudioError
from studio.pipeline import P, Pipeline
from studio.plans import Plan

if TYPE_CHECKING:
    import torch


class TorchFamily(Pipeline[P]):
    """A family over torch. What ``assemble`` makes lives from ``load`` to ``unload``: a ``torch_plugin.Loaded``."""

    _model: Any = None
    _plan: Plan | None = None

    @abstractmethod
    def assemble(self, settings: Mapping[str, Any], device: torch.device) -> Any:
        """Read the networks as a plan's ``settings`` say; nothing is on the device before it is called."""

    @property
    def model(self) -> Any:
        """The loaded model. Raises ``StudioError`` if there is none."""
        if self._model is None:
            raise StudioError(f"{self.spec.id} is not loaded.", "Call load() first.")
        return self._model

    def load(self, plan: Plan) -> None:
        """Read the networks as planned; nothing is on the card before it is called."""
        import torch

        self.unload()
        self._model, self._plan = self.assemble(plan.settings, torch.device(plan.device)), plan

    def planned_s(self, phase: str) -> float | None:
        """The seconds that the plan foresees for a phase, all its rounds together; ``None`` where it does not say."""
        phases = self._plan.phases if self._plan is not None else ()
        return next((one.seconds for one in phases if one.name == phase), None)

    def adapt(self, plan: Plan) -> bool:
        """Other sizes need other numbers of resident blocks, or tiles: the weights stay where they are."""
        if self._model is None or not self._model.adapt(plan.settings):
            return False
        self._plan = plan
        return True

    def park(self) -> bool:
        """Give the card back; the weights stay in memory."""
        if self._model is None:
            return False
        self._model.park()
        return True

    def unload(self) -> None:
        """Free all networks."""
        model, self._model = self._model, None
        if model is not None:
            model.close()
