"""The bytes and operations of one block or tile at its real shapes, without weights and without a card.

A probe is called with fake tensors (``torch._subclasses.FakeTensorMode``): they have a shape, a type and a device, but
no content, so a block of any size runs in milliseconds on any machine. A dispatch mode watches every operation and adds
up the storages that are alive; ``torch.utils.flop_counter`` counts operations. The same watch over real tensors gives
the same bytes, which the tests show.

It runs in a process of its own, ``python -m studio.memory.activations``, because the control process stays free of
torch; results are kept in one JSON file for each probe, named by all that they depend on. Those of the shipped
catalogue's models at their own defaults come with Studio (``studio.memory.shipped``).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import psutil

from studio.errors import StudioError
from studio.memory.shipped import shipped
from studio.plans import Footprint, Probe, Stage, Variant
from studio.version import installed

LIBRARIES = ("torch", "diffusers", "transformers", "studio-workstation")
"""Another version of these may take other memory."""

LONGEST_S = 300
LONGEST_LOW_S = 3600
"""At low priority it may wait long for a processor."""

_FORMAT = 3


@dataclass(frozen=True)
class Measured:
    """What a probe found: the most bytes alive at once beside its weights, its inputs included, and operations.

    ``processor_bytes``: the same where there is no card. There oneDNN convolves in a layout of its own
    (https://uxlfoundation.github.io/oneDNN, "Memory Format Propagation"; torch's tensors come in the plain one): first
    the input and the weights exist twice, then, when those copies are gone, the result. Kernels of one element need no
    copy; a transposed convolution holds its result three times. So seen with torch 2.13 on a processor with AVX-512.
    """

    peak_bytes: int
    flops: float
    processor_bytes: int


class Watch:
    """Adds up the storages that are alive. ``known`` ones (weights) are not counted."""

    def __init__(self) -> None:
        self.live_bytes = 0
        self.peak_bytes = 0
        self.processor_bytes = 0
        self._seen: weakref.WeakSet[Any] = weakref.WeakSet()

    def skip(self, tensors: Iterable[Any]) -> None:
        """These storages exist already, and are somebody else's."""
        for tensor in tensors:
            self._seen.add(tensor.untyped_storage())

    def count(self, tensors: Iterable[Any]) -> None:
        """Count the storages of ``tensors`` until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage in self._seen:
                continue
            self._seen.add(storage)
            size = storage.nbytes()
            self.live_bytes += size
            weakref.finalize(storage, self._freed, size)
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.processor_bytes = max(self.processor_bytes, self.live_bytes)

    def convolved(self, image: Any, weight: Any, result: Any, *, transposed: bool) -> None:
        """Right now a processor holds copies besides: image (batch, channels, *size), weight (out, in, *kernel)."""
        if math.prod(weight.shape[2:]) == 1:
            return
        taken, given = _bytes(image) + _bytes(weight), _bytes(result)
        copies = 2 * given if transposed else max(taken, given)
        self.processor_bytes = max(self.processor_bytes, self.live_bytes + copies)

    def _freed(self, size: int) -> None:
        self.live_bytes -= size


def _bytes(tensor: Any) -> int:
    return int(tensor.numel() * tensor.element_size())


Make = Callable[[], tuple[Callable[..., Any], Sequence[Any]]]
"""Returns a module (or a method of one) and the arguments of one call; no random numbers are drawn in the call."""


def measure(make: Make, *, fake: bool = True) -> Measured:
    """Build and call what ``make`` returns, and watch it. ``fake=False`` runs it for real.

    Fake tensors are on the processor: its attention, like the cards' flash and efficient kernels, never holds the
    matrix of all pairs of tokens, and torch without CUDA can index no tensor on a card.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu

    def attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
        return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]

    watch, counter = Watch(), FlopCounterMode(display=False, custom_mapping={attention: attention_flops})
    with torch.no_grad(), torch.device("meta" if fake else "cpu"):
        call, args = make()
    with torch.no_grad(), FakeTensorMode() if fake else nullcontext():
        if fake:
            args = _without_content(call, args)
        watch.count(_tensors(args))
        with counter, _dispatch(watch):
            result = call(*args)
        watch.count(_tensors(result))
    return Measured(watch.peak_bytes, float(counter.get_total_flops()), watch.processor_bytes)


def _without_content(call: Callable[..., Any], args: Sequence[Any]) -> Sequence[Any]:
    """Give what was built without storage a fake one: the module in place, the arguments as new ones."""
    import torch
    from torch.utils._pytree import tree_map_only

    made: dict[int, Any] = {}

    def placed(tensor: Any) -> Any:
        if id(tensor) not in made:
            made[id(tensor)] = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype)
        return made[id(tensor)]

    owner = getattr(call, "__self__", call)
    for module in owner.modules() if isinstance(owner, torch.nn.Module) else ():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(placed(parameter), requires_grad=False)
        for name, buffer in module._buffers.items():
            module._buffers[name] = None if buffer is None else placed(buffer)
    result: tuple[Any, ...] = tree_map_only(torch.Tensor, placed, tuple(args))
    return result


def _tensors(values: Any) -> list[Any]:
    """All tensors anywhere in nested containers."""
    import torch
    from torch.utils._pytree import tree_leaves

    return [leaf for leaf in tree_leaves(values) if isinstance(leaf, torch.Tensor)]


def _dispatch(watch: Watch) -> Any:
    """A mode that sees every operation below autograd. What an operation takes in without our having seen it made
    (weights, buffers) is not counted."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    convolution = torch.ops.aten.convolution.default

    class Dispatch(TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            watch.skip(_tensors((args, kwargs)))
            result = func(*args, **(kwargs or {}))
            watch.count(_tensors(result))
            if func is convolution:
                watch.convolved(args[0], args[1], result, transposed=args[6])
            return result

    return Dispatch()  # type: ignore[no-untyped-call]


# -- the cache, and the process of its own -----------------------------------------------------------------------


Run = Callable[[list[Probe]], list[Measured]]
"""Measures probes, somewhere."""


def resolve(
    footprint: Footprint, folder: Path, *, here: bool = False, run: Run | None = None, near: bool = False
) -> Footprint:
    """The footprint with every probe replaced by what it measures; ``folder`` keeps results for the next time.

    ``here``: in this process, which is about to import torch anyway, instead of in one of its own; ``run`` measures in
    some other way what is not known. ``near``: what was shipped stands also for other versions of the libraries.
    """
    probes = [probe for stage in footprint.stages for variant in stage.variants for probe in variant.probes]
    if not probes:
        return footprint
    found = measured(probes, folder, run or (run_here if here else None), near=near)
    stages = tuple(_resolved(stage, found) for stage in footprint.stages)
    return footprint.model_copy(update={"stages": stages})


def _resolved(stage: Stage, found: dict[str, Measured]) -> Stage:
    def known(variant: Variant) -> Variant:
        results = [(probe, found[key_of(probe)]) for probe in variant.probes]
        peaks = [round(probe.share * result.peak_bytes) for probe, result in results]
        in_memory = [round(probe.share * result.processor_bytes) for probe, result in results]
        return variant.model_copy(
            update={
                "flops": variant.flops + sum(probe.count * result.flops for probe, result in results),
                "activation_bytes": max([variant.activation_bytes, *peaks]),
                "processor_bytes": max([variant.processor_bytes, *in_memory]),
                "probes": (),
            }
        )

    return stage.model_copy(update={"variants": tuple(known(variant) for variant in stage.variants)})


def key_of(probe: Probe) -> str:
    """All that a result depends on, as a sha256: the function, its arguments and the libraries' versions."""
    versions = {name: installed(name) for name in LIBRARIES}
    text = json.dumps([_FORMAT, probe.make, probe.arguments, versions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def measured(
    probes: Iterable[Probe], folder: Path, run: Run | None = None, *, near: bool = False
) -> dict[str, Measured]:
    """What each probe found, by ``key_of``: from ``folder``, as shipped, the rest by a ``run``, which is kept."""
    wanted = {key_of(probe): probe for probe in probes}
    found: dict[str, Measured] = {}
    for key, probe in wanted.items():
        result = _read(folder / f"{key}.json") or _sound(shipped(probe.make, probe.arguments, near=near))
        if result is not None:
            found[key] = result
    missing = [key for key in wanted if key not in found]
    if missing:
        for key, result in zip(missing, (run or run_apart)([wanted[key] for key in missing]), strict=True):
            found[key] = result
            _write(folder / f"{key}.json", result)
    return found


def _read(path: Path) -> Measured | None:
    """A kept result; ``None`` if there is none or it cannot be read (it is then made again)."""
    try:
        return _sound(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError):
        return None


def _sound(content: Any) -> Measured | None:
    """A result that was written down, if it can be one."""
    try:
        peak, flops, processor = content["peak_bytes"], content["flops"], content["processor_bytes"]
    except (KeyError, TypeError):
        return None
    sound = type(peak) is int and type(processor) is int and 0 <= peak <= processor
    return Measured(peak, float(flops), processor) if sound and type(flops) in (int, float) and flops >= 0 else None


def _write(path: Path, result: Measured) -> None:
    """Whole or not at all: another process may be reading."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, suffix=".part")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(asdict(result), file)
    Path(name).replace(path)


def run_here(probes: list[Probe]) -> list[Measured]:
    """In this process: imports torch."""
    return [measure(made_by(probe)) for probe in probes]


def run_apart(probes: list[Probe], *, low: bool = False) -> list[Measured]:
    """In a process of its own; at low priority for what nobody waits for."""
    request = json.dumps([probe.model_dump(mode="json") for probe in probes])
    command = [sys.executable, "-W", "ignore", "-m", "studio.memory.activations", *(["--low"] if low else [])]
    longest_s = LONGEST_LOW_S if low else LONGEST_S
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=longest_s, check=False)
    except subprocess.TimeoutExpired:
        raise StudioError(f"Foreseeing the memory of {probes[0].make} took more than {longest_s} s.") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
        raise StudioError(f"The memory that this takes could not be foreseen: {last[:300]}", "See: studio doctor")
    return [Measured(**one) for one in json.loads(done.stdout.splitlines()[-1])]


def made_by(probe: Probe) -> Make:
    """The function that a probe names, with its arguments."""
    module, _, name = probe.make.partition(":")
    return partial(getattr(import_module(module), name), **probe.arguments)


def main() -> None:
    """Probes as a JSON list on standard input; what they found as the last line of standard output."""
    if "--low" in sys.argv[1:]:
        psutil.Process().nice(getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 19))  # Windows has classes
    probes = [Probe.model_validate(one) for one in json.load(sys.stdin)]
    sys.stdout.write(json.dumps([asdict(result) for result in run_here(probes)]) + "\n")


if __name__ == "__main__":
    main()
