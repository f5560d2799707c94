"""The whole plugin contract on one page: ``Params``, ``Context``, ``Pipeline``; what is planned with is in ``plans``.

Adding a family means one subclass of ``Pipeline`` and one entry point in the group ``studio.pipelines``.
Nothing here imports torch or touches a disk; a family does so inside ``load`` and ``generate``.
"""

from __future__ import annotations

import errno
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from studio.errors import Cancelled, NoSpace
from studio.events import Artefact, Event
from studio.media import extension
from studio.plans import (
    Block,
    Budget,
    Footprint,
    Network,
    Phase,
    Plan,
    Precision,
    Prefer,
    Probe,
    Rates,
    Row,
    Stage,
    Variant,
)
from studio.spec import ModelSpec
from studio.units import format_bytes

__all__ = [
    "KEPT", "MAX_SEED", "Block", "Budget", "Context", "Footprint", "InputFile", "Network", "P", "Params", "Phase",
    "Pipeline", "Plan", "Precision", "Prefer", "Probe", "Rates", "Row", "Stage", "Variant", "beside_result",
    "input_file",
]  # fmt: skip

MAX_SEED = 2**32 - 1
KEPT = "kept"
"""The name of the file by which ``Context.keep`` marks a folder."""


def beside_result(cache: Path, content_sha256: str) -> Path:
    """A folder for what belongs to results of this content (latents, say): it goes when the last of them is deleted."""
    return cache / "results" / content_sha256


class Params(BaseModel):
    """Base of every family's parameters: frozen, strict, unknown names refused.

    Every field has a description and bounds. ``json_schema_extra`` may hold hints for the faces: ``label``
    (else the name in words), ``group``, ``widget``, ``unit``, ``advanced``. French labels: ``fr.yaml`` of the family.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_SEED,
        description="Start of the random numbers; the same seed gives the same result. Drawn when left out.",
        json_schema_extra={"group": "seed", "widget": "seed"},
    )


@dataclass(frozen=True)
class InputFile:
    """Marks a parameter as a file: ``image: Annotated[Path, input_file("image/png", "image/jpeg")]``.

    When a request is accepted the core checks the file by its first bytes, copies it into the store under its
    sha256 and puts that path into the parameters, so a queued job outlives the original file.
    """

    accept: tuple[str, ...]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.with_info_after_validator_function(self._adopt, handler(source))

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {**handler(schema), "widget": "file", "accept": list(self.accept)}

    def _adopt(self, path: Path, info: core_schema.ValidationInfo) -> Path:
        """Hand the file to the core while a request is validated; elsewhere do nothing."""
        adopt = (info.context or {}).get("adopt")
        return path if adopt is None else adopt(path, self.accept, info.field_name or "file")


def input_file(*accept: str) -> InputFile:
    """The mark of a file parameter that takes these media types."""
    return InputFile(accept)


class Context:
    """What a running job may ask of the house: whether to stop, where to write, how often it was begun.
    ``workdir`` belongs to this job alone and outlives a crash: a family that can resume leaves its state there."""

    def __init__(self, workdir: Path, *, cancelled: Callable[[], bool] = lambda: False, attempt: int = 1) -> None:
        self.workdir = workdir
        self.attempt = attempt
        self._cancelled = cancelled
        self._count = 0

    def check(self) -> None:
        """Raise ``Cancelled`` if somebody cancelled this job. Call it between steps."""
        if self._cancelled():
            raise Cancelled

    def keep(self) -> None:
        """What is in ``workdir`` is worth going on from: keep it for a while even if the job fails, for its retry."""
        (self.workdir / KEPT).touch()

    def new_file(self, media_type: str) -> Path:
        """A path in ``workdir`` for the next output of this type."""
        self._count += 1
        return self.workdir / f"output-{self._count}{extension(media_type)}"

    def save(self, content: str | bytes, media_type: str, **info: Any) -> Artefact:
        """Write one output and return the event to yield for it. Text is written as UTF-8."""
        path = self.new_file(media_type)
        data = content.encode() if isinstance(content, str) else content
        try:
            path.write_bytes(data)
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            free = format_bytes(shutil.disk_usage(self.workdir).free)
            raise NoSpace(
                f"No space for an output: {format_bytes(len(data))} are needed, {free} are free.",
                f"Free some space on the disk of {self.workdir}, then run it again.",
            ) from error
        return self.made(path, media_type, **info)

    def made(self, path: Path, media_type: str, **info: Any) -> Artefact:
        """The event to yield for an output that was written to a path of ``new_file``."""
        return Artefact(path=str(path), media_type=media_type, info=info)


P = TypeVar("P", bound=Params)


class Pipeline(ABC, Generic[P]):
    """One model family. Weights exist only between ``load()`` and ``unload()``.

    ``files`` maps the roles of ``spec.source.files`` to local paths; it is empty when only a form is drawn or
    a plan is made before the download. ``__init__`` is cheap: no torch, no disk.
    """

    task: ClassVar[str]
    """From what to what, by media: ``"text->image"``."""

    makes: ClassVar[tuple[str, ...]] = ()
    """The media types of its results; none: those that a parameter ``format`` names by their suffixes, or any."""

    Params: ClassVar[type[Params]]
    """The parameters of this family, declared once; every face derives from them."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """The distributions whose versions belong in a recipe, because another version may give another result."""

    uses_card: Callable[[], bool] = staticmethod(lambda: True)
    """Whether the installed libraries can use a card; taken as given when a card is imagined."""

    adapters: Path | None = None
    """The user's folder of LoRA adapters, set by the engine; ``None`` where there is no home."""

    cache: Path | None = None
    """Where converted weights may be kept, set by the engine; it may be emptied any time. What only helps to make more
    of a finished result lies in ``beside_result(cache, content_sha256)``."""

    beside: Callable[[str], Mapping[str, Path] | None] = staticmethod(lambda model: None)
    """The files of another model of the catalogue that this one uses, ``None`` if they are not here; set by the
    engine."""

    def __init__(self, spec: ModelSpec, files: Mapping[str, Path] | None = None) -> None:
        self.spec = spec
        self.files = dict(files or {})

    @classmethod
    def entry_for(cls, path: Path, known: Mapping[str, ModelSpec]) -> ModelSpec | None:
        """A catalogue entry for a model file that is run by its path, over ``known`` entries; ``None``: not mine.

        Raises ``BadRequest`` in one line for a file that is this family's but cannot be run. Headers only.
        """
        return None

    def offers(self) -> Mapping[str, Sequence[Any]]:
        """Values that suit this model, by parameter, for faces to show; others stay allowed.

        The names of files that are here, say. Under ``width``: pairs of width and height, the model's own first.
        """
        return {}

    def preflight(self, params: P) -> None:
        """Refuse, before it is queued, what only the model's files can tell: a corrupt file, a context too long.

        Raises ``BadRequest`` or ``BadWeights``. Runs in the control process: headers only, no heavy import.
        """

    def footprint(self, params: P) -> Footprint:
        """Bytes per phase for this request, by arithmetic over the catalogue or file headers."""
        return Footprint(disk_bytes=self.spec.download_bytes or 0)

    def plan(self, params: P, budget: Budget) -> Plan:
        """How to run this request within ``budget``. Raises ``DoesNotFit`` with the nearest thing that would."""
        footprint = self.footprint(params)
        return Plan(
            model=self.spec.id,
            peak_vram_bytes=max((phase.vram_bytes for phase in footprint.phases), default=0),
            peak_ram_bytes=max((phase.ram_bytes for phase in footprint.phases), default=0),
            disk_bytes=footprint.disk_bytes,
            phases=footprint.phases,
        )

    def load(self, plan: Plan) -> None:
        """Bring the weights where ``plan`` says. Called once before any number of ``generate``."""

    @abstractmethod
    def generate(self, params: P, ctx: Context) -> Iterator[Event]:
        """Do the work: yield ``Progress``, ``Token``, ``Preview`` and ``Artefact``; the engine adds the rest."""

    def adapt(self, plan: Plan) -> bool:
        """Go on under another plan for the same model without reading its weights again. ``False``: load anew."""
        return False

    def park(self) -> bool:
        """Give the card back but keep what can be brought back quickly. ``False``: nothing could be kept; unload.

        Called between two ``generate``, perhaps twice. The next ``generate`` brings back what it needs by itself, as
        the plan of ``load`` says; meanwhile at most that plan's memory is held, and nothing on the card.
        """
        return False

    def unload(self) -> None:
        """Give all memory back. May be called twice."""
