"""How bytes come from host memory into a device slot: on CUDA by a copy stream beside the computation, else at once.

A slot has two events. ``free``: the computation that used it has been passed on the compute stream, so the copy stream
may overwrite it. ``ready``: its bytes have arrived, so the compute stream may use them. The host waits for neither.
"""

from __future__ import annotations

from concurrent.futures import Future

import torch
from torch import Tensor

from studio.memory.slab_memory import Slab


class Slot:
    """Device memory for one streamed block at a time: ``data`` is uint8 of (``size_bytes``,).

    ``staging_bytes``: the largest block that comes from a file; on CUDA it passes through pinned memory of that size.
    """

    def __init__(self, size_bytes: int, device: torch.device, *, staging_bytes: int = 0) -> None:
        with torch.inference_mode(False):
            self.data = torch.empty(size_bytes, dtype=torch.uint8, device=device)
        on_card = device.type == "cuda"
        self.staging = Slab(staging_bytes) if staging_bytes and on_card else None
        if self.staging is not None:
            self.staging.pin()
        self.block: int | None = None
        self.active = False
        self.pending: Future[None] | None = None
        self.free = torch.cuda.Event() if on_card else None  # type: ignore[no-untyped-call]
        self.ready = torch.cuda.Event() if on_card else None  # type: ignore[no-untyped-call]

    @property
    def busy(self) -> bool:
        """Whether the feeder's thread is still bringing something here."""
        return self.pending is not None and not self.pending.done()

    def close(self) -> None:
        """Give the staging memory back, once the last copy out of it is done. May be called twice."""
        if self.staging is not None and self.ready is not None:
            self.ready.synchronize()
            self.staging.close()
            self.staging = None


class Lane:
    """Copies into slots of one device, in the order asked for."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def copy(self, slot: Slot, source: Tensor) -> None:
        """Bring ``source`` (uint8, host) to the front of the slot, once the slot is free."""
        place = slot.data[: source.numel()]
        if self._stream is None or slot.free is None or slot.ready is None:
            place.copy_(source)
            return
        with torch.cuda.stream(self._stream):
            self._stream.wait_event(slot.free)
            place.copy_(source, non_blocking=True)
            slot.ready.record(self._stream)

    def await_staging(self, slot: Slot) -> None:
        """Wait until the last copy out of the slot's staging memory is done, so that it may be filled anew."""
        if slot.ready is not None:
            slot.ready.synchronize()

    def before_use(self, slot: Slot) -> None:
        """Make the computation that follows wait for the slot's bytes."""
        if slot.ready is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.ready)

    def after_use(self, slot: Slot) -> None:
        """Let the copy stream overwrite the slot once the computation so far is done."""
        if slot.free is not None:
            slot.free.record(torch.cuda.current_stream(self._device))

    def finish(self) -> None:
        """Wait for everything under way, so that memory can be freed."""
        if self._stream is not None:
            self._stream.synchronize()
            torch.cuda.current_stream(self._device).synchronize()
