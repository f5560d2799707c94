"""The networks of one loaded model, each brought to the device when it is called, as its plan says.

A family builds its networks empty and puts them into the library's own pipeline. ``Networks`` wraps the methods that
such a pipeline calls (``forward``; a VAE's ``encode`` and ``decode``): a call brings the network's weights to the
device, whole or streamed, and where the plan wants it the network that was there before goes. So every class of
diffusers runs as it is, without knowing of any of this.

Running out of memory costs one call: what else is there goes, the network goes one rung down (fewer blocks on the
device, smaller tiles), and that call alone is repeated. ``notes`` says what was changed.
"""

from __future__ import annotations

import functools
import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import torch
from torch import nn

from studio.errors import StudioError
from studio.memory.heap import trim_heap
from studio.memory.network_tiles import Tiles
from studio.memory.slab_cache import trim_cache
from studio.memory.slabs import REST, Slabs, Source, load_slabs, streamed_names
from studio.memory.storage import Storage
from studio.memory.stream_blocks import empty_module
from studio.memory.streaming import streamed
from studio.units import GIB, MIB

log = logging.getLogger(__name__)

RETRIES = 2
"""How often a call is repeated after it ran out of memory."""

LARGE_BUFFER = 1 * MIB
"""A larger buffer holds no statistics."""

CACHE_BYTES = 100 * GIB
"""How much converted weights may take on the disk; what was not used for longest goes first."""


@dataclass(frozen=True)
class Part:
    """One network of a model: how to build it (without weights) and where its weights are.

    ``source`` is what ``load_slabs`` takes; ``dtype`` the type to compute with (``None``: as stored); ``methods`` are
    those that a pipeline calls. ``names`` gives, for the built module, the file's names of its parameters where they
    differ.
    """

    name: str
    build: Callable[[], nn.Module]
    source: Source
    dtype: torch.dtype | None = None
    methods: tuple[str, ...] = ("forward",)
    names: Callable[[nn.Module], Mapping[str, str]] | None = None


@dataclass
class _Network:
    part: Part
    module: nn.Module
    slabs: Slabs
    resident: int
    tiles: Tiles
    wanted: Mapping[str, Any]
    inside: int = 0
    stack: ExitStack = field(default_factory=ExitStack)
    open: bool = False


class Networks(Mapping[str, nn.Module]):
    """The modules of one model by name, with their weights in host memory or on disk; a context manager.

    ``settings`` are those of a ``Plan``: with ``free_after_use`` only the networks stay on the device of which it says
    ``stays``. ``tiles`` is the size, in pixels, of the tiles in which a VAE works (``None``: it works on the whole),
    ``cache`` a folder for weights in fewer bits. Raises ``BadWeights`` where files and classes do not belong together,
    ``DoesNotFit`` where memory cannot be had.
    """

    def __init__(
        self,
        parts: Sequence[Part],
        settings: Mapping[str, Any],
        device: torch.device | str,
        *,
        tiles: Mapping[str, int | None] | None = None,
        cache: Path | None = None,
        loaded: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        self.device = torch.device(device)
        if self.device.type == "cuda" and self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self.notes: list[str] = []
        self._alone, self._crowded = bool(settings.get("free_after_use")), False
        self._cache = cache
        self._networks: dict[str, _Network] = {}
        self._ran = ""
        try:
            for number, part in enumerate(parts):
                loaded(number, len(parts))
                network = self._load(part, settings.get("networks", {}).get(part.name, {}))
                network.tiles.set((tiles or {}).get(part.name))
                self._networks[part.name] = network
                trim_heap()  # each of the reading threads has kept some
            if self._cache is not None:
                trim_cache(self._cache / "weights", CACHE_BYTES)
        except BaseException:
            self.close()
            raise

    def __getitem__(self, name: str) -> nn.Module:
        return self._networks[name].module

    def __iter__(self) -> Iterator[str]:
        return iter(self._networks)

    def __len__(self) -> int:
        return len(self._networks)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def use(self, name: str) -> Iterator[nn.Module]:
        """Within this context the network is on the device, and others do not take its place."""
        network = self._networks[name]
        network.inside += 1
        try:
            self._bring(network)
            yield network.module
        finally:
            network.inside -= 1

    def release(self) -> None:
        """Give the device's memory back; the weights stay in host memory, so the next call is quick."""
        for network in self._networks.values():
            self._send_home(network)
        _empty_cache(self.device)
        trim_heap()

    def settle(self) -> None:
        """After a request, ended well or not: what the plan does not keep on the device goes."""
        if self._alone:
            for network in self._networks.values():
                if not self._stays(network):
                    self._send_home(network)
            _empty_cache(self.device)
            trim_heap()

    def _stays(self, network: _Network) -> bool:
        """Whether the plan keeps a network on the device, and nothing has run out of memory since."""
        return not self._crowded and bool(network.wanted.get("stays"))

    def close(self) -> None:
        """Give all memory back. May be called twice."""
        self.release()
        for network in self._networks.values():
            network.slabs.close()
            for method in (*network.part.methods, "to"):
                network.module.__dict__.pop(method, None)
        self._networks.clear()
        gc.collect()
        _empty_cache(self.device)
        trim_heap()

    @property
    def on_device(self) -> list[str]:
        """The networks that are on the device now."""
        return [name for name, network in self._networks.items() if network.open]

    def adapt(self, settings: Mapping[str, Any], tiles: Mapping[str, int | None] | None = None) -> bool:
        """Take another plan for the same weights: other numbers of resident blocks, other tiles. ``False`` if weights
        would have to be read again, because their precision or their place changes."""
        wanted = {name: settings.get("networks", {}).get(name, {}) for name in self._networks}
        if not all(self._adapts(network, wanted[name]) for name, network in self._networks.items()):
            return False
        self.release()
        self._alone, self._crowded = bool(settings.get("free_after_use")), False
        for name, network in self._networks.items():
            network.wanted = wanted[name]
            network.resident = self._resident(network.slabs, wanted[name])
            network.tiles.set((tiles or {}).get(name))
        return True

    def _adapts(self, network: _Network, wanted: Mapping[str, Any]) -> bool:
        same = ("precision", "compiled", "computing")
        if any(network.wanted.get(key) != wanted.get(key) for key in same):
            return False
        if bool(network.wanted.get("blocks")) != bool(wanted.get("blocks")):
            return False
        needed = self._in_memory(network.module, wanted)
        held = {name for name in network.slabs.layouts if network.slabs.in_memory(name)}
        return set(network.slabs.layouts if needed is None else needed) <= held

    def _in_memory(self, module: nn.Module, wanted: Mapping[str, Any]) -> list[str] | None:
        """Which groups are kept in memory: what the planner counted there. ``None``: all of them."""
        blocks = None if wanted.get("blocks", 0) else ()
        if wanted.get("disk_bytes"):
            return []
        if self.device.type == "cpu" or "resident" not in wanted or wanted.get("all_in_memory"):
            return None
        return streamed_names(module, int(wanted["resident"]), blocks)

    def _resident(self, slabs: Slabs, wanted: Mapping[str, Any]) -> int:
        count = len(slabs.blocks)
        if self.device.type == "cpu" and slabs.storage == "plain" and all(map(slabs.in_memory, slabs.layouts)):
            return count  # used where they lie
        return min(count, int(wanted.get("resident", count)))

    def _load(self, part: Part, wanted: Mapping[str, Any]) -> _Network:
        module = empty_module(part.build, part.dtype)
        names = part.names(module) if part.names else {}
        slabs = load_slabs(
            part.source,
            module,
            blocks=None if wanted.get("blocks", 0) else (),
            dtype=part.dtype,
            storage=_storage(str(wanted.get("precision", "bf16")), str(wanted.get("computing", ""))),
            memory=self._in_memory(module, wanted),
            pinned=self.device.type == "cuda",
            rename=lambda name: names.get(name, name),
            cache=self._cache / "weights" if self._cache is not None else None,
        )
        network = _Network(part, module, slabs, self._resident(slabs, wanted), Tiles(module), wanted)
        _set_buffers(module, slabs, self.device)
        _mark(module, self.device)
        if wanted.get("compiled"):
            _compile(module, slabs.blocks)
        for method in part.methods:
            setattr(module, method, self._wrapped(network, getattr(module, method)))
        # Which type a network computes in is planned: no pipeline moves an autoencoder to 32 bits and back.
        module.__dict__["to"] = lambda *_, **__: module
        return network

    def _wrapped(self, network: _Network, method: Callable[..., Any]) -> Callable[..., Any]:
        dtype = network.part.dtype

        @functools.wraps(method)
        def call(*args: Any, **kwargs: Any) -> Any:
            if network.inside:
                return method(*args, **kwargs)  # a VAE's forward that calls its own encode
            if dtype and args and isinstance(args[0], torch.Tensor) and args[0].is_floating_point():
                args = (args[0].to(dtype), *args[1:])  # pictures or latents of a network of other arithmetic
            return self._call(network, functools.partial(method, *args, **kwargs))

        return call

    def _call(self, network: _Network, work: Callable[[], Any]) -> Any:
        """Run with the network on the device; out of memory, go one rung down and run again."""
        for attempt in range(RETRIES + 1):
            try:
                with self.use(network.part.name):
                    return work()
            except Exception as error:  # what counts as out of memory has many types
                if not is_out_of_memory(error):
                    raise
                if attempt == RETRIES:
                    raise MemoryError(f"{network.part.name} ran out of memory, also with less of it there") from error
                log.warning("%s ran out of memory: %s", network.part.name, " ".join(str(error).split())[:300])
            # Outside of the handler: the error's traceback holds the tensors of the call that failed.
            self._lower(network, last=attempt == RETRIES - 1)
        raise AssertionError("unreachable")

    def _lower(self, network: _Network, *, last: bool) -> None:
        """One rung down: alone on the device, then smaller tiles or half the resident blocks; at last the least."""
        self.release()
        gc.collect()
        before = network.resident
        what = network.tiles.lower(least=last)
        if not what and before and not self._in_place(network):
            network.resident = 0 if last else before // 2
            what = f"{network.resident} of {len(network.slabs.blocks)} blocks on the device instead of {before}"
        self._alone = self._crowded = True
        what = what or "nothing else on the device"
        self.notes.append(f"{network.part.name} ran out of memory and went on with {what}.")

    def _in_place(self, network: _Network) -> bool:
        """On a processor, plain weights in memory are used where they lie: fewer resident blocks would save nothing."""
        slabs = network.slabs
        return self.device.type == "cpu" and slabs.storage == "plain" and all(map(slabs.in_memory, slabs.layouts))

    def _bring(self, network: _Network) -> None:
        if self._alone:
            for other in self._networks.values():
                if other is not network and not other.inside and not self._stays(other):
                    self._send_home(other)
        if network.part.name != self._ran:
            self._ran = network.part.name
            trim_heap()  # what the one before has left there does not fit this one's tensors
        if network.open:
            return
        stream = streamed(network.module, slabs=network.slabs, device=self.device, resident=network.resident)
        network.stack.enter_context(stream)
        network.open = True

    def _send_home(self, network: _Network) -> None:
        if network.open:
            network.open = False
            network.stack.close()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory could not be had: the card's, CUDA's own libraries', or the system's."""
    if isinstance(error, StudioError):
        return False
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = str(error)
    signs = ("out of memory", "can't allocate memory", "ALLOC_FAILED", "not enough memory")
    return isinstance(error, RuntimeError) and any(sign in words for sign in signs)


def _storage(precision: str, computing: str) -> Storage | Literal["half"]:
    if precision == "bf16" and computing == "fp32":
        return "half"
    names: dict[str, Storage] = {"int8": "int8", "fp8": "fp8", "nf4": "nf4"}
    return names.get(precision, "plain")


def _set_buffers(module: nn.Module, slabs: Slabs, device: torch.device) -> None:
    """Buffers that come from the files. Small ones (a batch norm's statistics) are also read outside of calls: they
    stay on the device. Large ones (a table of positions) are where the slabs have them, and there while a call runs."""
    entries = {entry.name: entry for entry in slabs.layouts[REST].entries}
    found = [entries[name] for name, _ in module.named_buffers() if name in entries]
    if not found:
        return
    in_place = slabs.in_memory(REST) and device.type == "cpu"
    stored = slabs.stored(REST) if slabs.in_memory(REST) else None
    if stored is None and any(entry.size_bytes <= LARGE_BUFFER for entry in found):
        stored = torch.empty(slabs.layouts[REST].stored_bytes, dtype=torch.uint8)
        slabs.read_into(REST, stored)
    for entry in found:
        owner, _, attribute = entry.name.rpartition(".")
        dtype: torch.dtype = getattr(torch, entry.dtype)
        if stored is None or (entry.size_bytes > LARGE_BUFFER and not in_place):
            value = torch.empty(entry.shape, dtype=dtype, device="meta")
        else:
            data = stored[entry.offset : entry.offset + entry.size_bytes]
            view = data.view(dtype).view(entry.shape)
            value = view if in_place else view.clone().to(device)
        module.get_submodule(owner)._buffers[attribute] = value


def _mark(module: nn.Module, device: torch.device) -> None:
    """Say where the module computes, in the way that diffusers asks: its parameters are nowhere between calls."""
    from accelerate.hooks import ModelHook

    hook = ModelHook()
    hook.execution_device = device
    module._hf_hook = hook


def _compile(module: nn.Module, blocks: Sequence[str]) -> None:
    """Compile the forward of each block: one graph for all blocks of a kind."""
    for name in blocks:
        block = module.get_submodule(name)
        block.forward = torch.compile(block.forward)


def _empty_cache(device: torch.device) -> None:
    if device.type == "cuda":
        with suppress(RuntimeError):  # a poisoned context: the worker is about to be replaced
            torch.cuda.empty_cache()
