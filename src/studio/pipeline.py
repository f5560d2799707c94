"""The whole plugin contract on one page: ``Params``, ``Context``, ``Plan``, ``Pipeline``.

Adding a family means one subclass of ``Pipeline`` and one entry point in the group ``studio.pipelines``.
Nothing here imports torch or touches a disk; a family does so inside ``load`` and ``generate``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from studio.errors import Cancelled
from studio.events import Artefact, Event
from studio.media import extension
from studio.spec import ModelSpec

MAX_SEED = 2**32 - 1


class Params(BaseModel):
    """Base of every family's parameters: frozen, strict, unknown names refused.

    Every field has a description and bounds. ``json_schema_extra`` may hold hints for the faces: ``group``,
    ``widget``, ``unit``, ``advanced``. French labels live in a ``fr.yaml`` beside the family.
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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phase(_Frozen):
    """One phase of a run (load, denoise, decode ...) and the most it holds at once."""

    name: str
    vram_bytes: int = 0
    ram_bytes: int = 0
    seconds: float | None = None


class Footprint(_Frozen):
    """What a request needs: bytes per phase, and the files on disk. ``None`` seconds: not known."""

    phases: tuple[Phase, ...] = ()
    disk_bytes: int = 0


class Budget(_Frozen):
    """What a plan may use now: the free bytes after margins or the user's caps, and the processor's threads."""

    vram_bytes: int = 0
    ram_bytes: int = 0
    threads: int = 1


class Plan(_Frozen):
    """How a request will run. ``settings`` are the family's own choices (layers on the card, context length).

    A loaded pipeline is used again without loading when ``model`` and ``settings`` are equal.
    """

    model: str
    device: str = "cpu"
    peak_vram_bytes: int = 0
    peak_ram_bytes: int = 0
    disk_bytes: int = 0
    seconds: float | None = None
    phases: tuple[Phase, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)


class Context:
    """What a running job may ask of the house: whether to stop, where to write, how often it was begun.

    ``workdir`` belongs to this job alone and outlives a crash: a family that can resume leaves its state there.
    """

    def __init__(self, workdir: Path, *, cancelled: Callable[[], bool] = lambda: False, attempt: int = 1) -> None:
        self.workdir = workdir
        self.attempt = attempt
        self._cancelled = cancelled
        self._count = 0

    def check(self) -> None:
        """Raise ``Cancelled`` if somebody cancelled this job. Call it between steps."""
        if self._cancelled():
            raise Cancelled

    def new_file(self, media_type: str) -> Path:
        """A path in ``workdir`` for the next output of this type."""
        self._count += 1
        return self.workdir / f"output-{self._count}{extension(media_type)}"

    def save(self, content: str | bytes, media_type: str, **info: Any) -> Artefact:
        """Write one output and return the event to yield for it. Text is written as UTF-8."""
        path = self.new_file(media_type)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return Artefact(path=str(path), media_type=media_type, info=info)


P = TypeVar("P", bound=Params)


class Pipeline(ABC, Generic[P]):
    """One model family. Weights exist only between ``load()`` and ``unload()``.

    ``files`` maps the roles of ``spec.source.files`` to local paths; it is empty when only a form is drawn or
    a plan is made before the download. ``__init__`` is cheap: no torch, no disk.
    """

    task: ClassVar[str]
    """From what to what, by media: ``"text->image"``."""

    Params: ClassVar[type[Params]]
    """The parameters of this family, declared once; every face derives from them."""

    libraries: ClassVar[tuple[str, ...]] = ()
    """The distributions whose versions belong in a recipe, because another version may give another result."""

    def __init__(self, spec: ModelSpec, files: Mapping[str, Path] | None = None) -> None:
        self.spec = spec
        self.files = dict(files or {})

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

    def unload(self) -> None:
        """Give all memory back. May be called twice."""
