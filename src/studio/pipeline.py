"""The whole plugin contract on one page: ``Params``, ``Context``, ``Plan``, ``Pipeline``.

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
from typing import Any, ClassVar, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import core_schema

from studio.errors import Cancelled, NoSpace
from studio.events import Artefact, Event
from studio.media import extension
from studio.spec import ModelSpec
from studio.units import format_bytes

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


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Phase(_Frozen):
    """One phase of a run (load, denoise, decode ...) and the most it holds at once. ``token_bytes``: of a phase that
    writes tokens, what is read for each, on the card and in memory."""

    name: str
    vram_bytes: int = 0
    ram_bytes: int = 0
    seconds: float | None = None
    token_bytes: tuple[int, int] | None = None


Precision = Literal["fp32", "bf16", "int8", "fp8", "nf4"]
"""How weights are stored, best first; the computation is in the first two. fp16 counts as bf16."""


class Block(_Frozen):
    """``count`` blocks of one kind in a row. ``rows`` of their matrices have a scale each at 8 bits; ``plain``
    parameters (norms, biases) stay as they are. ``rows=0``: not known, one in 2,048 parameters is taken."""

    kind: str
    params: int = Field(ge=1)
    count: int = Field(default=1, ge=1)
    rows: int = Field(default=0, ge=0)
    plain: int = Field(default=0, ge=0)


class Network(_Frozen):
    """One network of a model, as the planner sees it. What ``blocks`` leave of ``params`` always lies on the card.

    ``stored`` is the best precision it runs in, and that of its files unless ``filed`` says so. ``streams``: its
    blocks may be copied to the card one after the other while it computes; ``quantises``: they may be stored in fewer
    bits; ``compiles``: a block may be compiled once for all of its kind.
    """

    name: str
    params: int = Field(ge=1)
    class_name: str = ""
    blocks: tuple[Block, ...] = ()
    stored: Precision = "bf16"
    filed: Precision | None = None
    streams: bool = True
    quantises: bool = True
    compiles: bool = False


class Probe(_Frozen):
    """A part that is run without weights to learn its bytes and operations: one block, one tile.

    ``make`` names a function, ``"package.module:function"``, that takes ``arguments`` (plain data) and returns
    ``(callable, args)``: it is called in a process of its own where tensors have shapes but no content. The result
    is kept by both, so ``arguments`` must hold everything that it depends on. ``count``: calls in one pass;
    ``share``: how much of the found bytes counts, where the part that runs is smaller than the probe and alike.
    """

    make: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    count: int = Field(default=1, ge=1)
    share: float = Field(default=1.0, gt=0, le=1)


class Variant(_Frozen):
    """One way to compute a stage: whole or in tiles. ``flops`` and ``activation_bytes`` (most at once) are of one
    pass; what ``probes`` find is added to the former and compared with the latter. ``processor_bytes``: the most at
    once where there is no card, if that is more. ``loss``: 0 for the best result; each 1 costs as much quality as
    8 bits instead of 16 for the whole model."""

    name: str = ""
    flops: float = Field(default=0, ge=0)
    activation_bytes: int = Field(default=0, ge=0)
    processor_bytes: int = Field(default=0, ge=0)
    loss: float = Field(default=0, ge=0)
    probes: tuple[Probe, ...] = ()


class Stage(_Frozen):
    """``network`` runs ``calls`` times (steps x guidance) in each of ``rounds`` (sections of a film), then leaves
    the card. ``held_bytes`` stay on the card beside it (latents, embeddings), ``ram_bytes`` in memory (frames).
    Networks whose stages have more than one round come back to the card, so all of each stays in memory."""

    name: str
    network: str
    calls: int = Field(default=1, ge=1)
    rounds: int = Field(default=1, ge=1)
    variants: tuple[Variant, ...] = Field(default=(Variant(),), min_length=1)
    held_bytes: int = Field(default=0, ge=0)
    ram_bytes: int = Field(default=0, ge=0)


class Footprint(_Frozen):
    """What a request needs: bytes per phase, and the files on disk. ``None`` seconds: not known.
    A family that names ``networks`` and ``stages`` is planned by the engine; any other plans itself."""

    phases: tuple[Phase, ...] = ()
    disk_bytes: int = 0
    networks: tuple[Network, ...] = ()
    stages: tuple[Stage, ...] = ()
    process_bytes: int = 0
    """Memory of the executing process without any network, on a processor; 0: by the family's ``libraries``."""
    start_s: float = 0.0
    """Seconds until that process has imported what it needs; 0: by the family's ``libraries``."""


class Rates(_Frozen):
    """How fast a machine is, sustained: operations a second at 16 bits on the planned device, bytes a second from
    pinned memory to the card, within the card (or within memory, without a card), and from the disk."""

    flops_per_s: float = Field(gt=0)
    bus_bytes_per_s: float = Field(gt=0)
    device_bytes_per_s: float = Field(gt=0)
    disk_bytes_per_s: float = Field(gt=0)
    measured: bool = False
    attention: str = "sdpa"
    """The attention kernel of torch that such a device has: flash, efficient, or sdpa for whatever there is."""


class Budget(_Frozen):
    """What a plan may use now: the free bytes after margins or the user's caps, and the processor's threads.
    ``imagined``: for a machine that is not this one. ``rates=None``: the defaults of a small card."""

    vram_bytes: int = 0
    ram_bytes: int = 0
    threads: int = 1
    imagined: bool = False
    rates: Rates | None = None


class Row(_Frozen):
    """One line of a plan's explanation: what, where it lies, how precise, how large, how long, and why so."""

    phase: str
    what: str
    where: str = ""
    precision: str = ""
    size_bytes: int = 0
    seconds: float | None = None
    why: str = ""


Prefer = Literal["balanced", "speed", "quality"]


class Plan(_Frozen):
    """How a request will run. ``settings`` are the family's own choices (layers on the card, context length).

    A loaded pipeline is used again without loading when ``model`` and ``settings`` are equal; ``told`` are the
    settings in words. When ``fits`` is false, the figures are of the ``nearest`` thing that would. ``estimated``: the
    seconds, from typical rates and not from measured ones; ``basis`` says in words where they come from.
    ``vram_room_bytes`` and ``ram_room_bytes`` are what there was to plan with."""

    model: str
    device: str = "cpu"
    peak_vram_bytes: int = 0
    peak_ram_bytes: int = 0
    disk_bytes: int = 0
    seconds: float | None = None
    phases: tuple[Phase, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    told: tuple[str, ...] = ()
    vram_room_bytes: int = 0
    ram_room_bytes: int = 0
    prefer: Prefer = "balanced"
    fits: bool = True
    estimated: bool = False
    basis: str = ""
    imagined: bool = False
    rows: tuple[Row, ...] = ()
    nearest: str = ""


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
