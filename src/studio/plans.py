"""What is planned with, as plain data: what a request needs, what a machine has, and how it will run.

A family describes its networks and stages in a ``Footprint``; a ``Budget`` with ``Rates`` says what there is; a
``Plan`` is what comes of it, with its explanation. No torch, nothing touches a disk.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


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
    bits; ``compiles``: a block may be compiled once for all of its kind. ``fp16``: it is known to be right also where
    it is computed in fp16, whose range is small; where a card has no bf16, any other is computed in 32 bits.
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
    fp16: bool = False


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
    half: Literal["bf16", "fp16", "none"] = "bf16"
    """The 16 bits in which a card computes; ``none``: 32 bits alone are quick and right."""
    wide_flops_per_s: float | None = Field(default=None, gt=0)
    """Operations a second at 32 bits of a card without bf16; ``None``: not known."""


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
