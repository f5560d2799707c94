"""The upscaling family: Real-ESRGAN's networks over tiles. This module is light; torch is imported by ``load``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from studio.plugin import (
    BadWeights,
    Context,
    Event,
    Footprint,
    Network,
    Pipeline,
    Plan,
    Probe,
    Progress,
    Stage,
    StudioError,
    Variant,
)

from . import pictures
from .architecture import COLOURS, Architecture, architecture_of
from .ncnn import scan
from .params import UpscaleParams
from .pictures import Shape
from .tiles import MARGIN, grid

STAGE = "upscale"
NETWORK = "upscaler"
TYPICAL = Shape(512, 512)
"""A picture that is not here yet: a plan is asked for without one, or an earlier step of a batch makes it."""


class ImageUpscale(Pipeline[UpscaleParams]):
    """Enlarges a picture two, three or four times and draws in what is lost in enlarging."""

    task = "image->image"
    makes = ("image/png",)
    Params = UpscaleParams
    libraries = ("torch", "numpy", "pillow")

    _enlarger: Any = None
    _size = 0

    @property
    def architecture(self) -> Architecture:
        return architecture_of(self.spec)

    def preflight(self, params: UpscaleParams) -> None:
        """The picture can be read and is not too large; the weights are whole and of this network."""
        self._check_weights()
        if params.image.is_file():
            pictures.check(params.image, params.scale)

    def footprint(self, params: UpscaleParams) -> Footprint:
        """One network in one stage; a variant for each size of tiles, measured by a probe."""
        network = self.architecture
        shape = pictures.look(params.image, params.scale) if params.image.is_file() else TYPICAL
        passes = 2 if shape.alpha else 1
        pixels = shape.width * shape.height
        made = pixels * params.scale**2 * (COLOURS + passes - 1)
        return Footprint(
            networks=(
                Network(
                    name=NETWORK, params=network.params, class_name=network.network,
                    stored="fp32", streams=False, quantises=False,
                ),
            ),
            stages=(
                Stage(
                    name=STAGE,
                    network=NETWORK,
                    variants=tuple(
                        _variant(network, size, shape, passes)
                        for size in _sizes(network, params.tile, max(shape.width, shape.height))
                    ),
                    # The picture and its layers, the result, and the result once more while it is written.
                    ram_bytes=4 * COLOURS * pixels + 2 * made,
                ),
            ),
            disk_bytes=self.spec.download_bytes or 0,
        )  # fmt: skip

    def load(self, plan: Plan) -> None:
        """Read the weights, check them and bring them to the device; the plan says how large a tile may be."""
        from . import network
        from .enlarge import Enlarger

        self.unload()
        self._check_weights()
        made = network.load(self.architecture, self.files["param"], self.files["weights"])
        self._enlarger = Enlarger(made, plan.device, self.architecture.overlap)
        self._size = _size_of(plan.settings["variants"][STAGE])

    def generate(self, params: UpscaleParams, ctx: Context) -> Iterator[Event]:
        """Tile by tile, then one PNG."""
        if self._enlarger is None:
            raise StudioError(f"{self.spec.id} is not loaded.", "Call load() first.")
        from . import pixels

        picture = pixels.read(params.image, params.scale)
        made = self._enlarger.canvas(picture, params.scale)
        for done, total in self._enlarger.enlarge(picture, params.scale, self._size, made, ctx.check):
            yield Progress(phase=STAGE, done=done, total=total)
        height, width = made.shape[:2]
        yield ctx.save(pixels.write(made, picture.profile), "image/png", width=width, height=height)

    def unload(self) -> None:
        """Free the network."""
        enlarger, self._enlarger = self._enlarger, None
        if enlarger is not None:
            enlarger.close()

    def _check_weights(self) -> None:
        if "param" not in self.files or "weights" not in self.files:
            raise BadWeights(f"{self.spec.id} lacks its weights.", f"Fetch them: studio models pull {self.spec.id}")
        scan(self.files["param"], self.files["weights"], self.architecture)


def _sizes(network: Architecture, asked: int | None, longest: int) -> list[int]:
    """Sizes of tiles to choose from: the one that is asked for, or those of the network up to the first that holds
    the whole picture."""
    if asked is not None:
        return [asked]
    whole = [size for size in network.tiles if size >= longest]
    return [size for size in network.tiles if size <= min(whole, default=network.tiles[0])]


def _variant(network: Architecture, size: int, shape: Shape, passes: int) -> Variant:
    """The probe is always a whole square of this size, so that a few probes serve all pictures; it counts as often as
    its area goes into that of all tiles, and of its bytes the share counts that the largest tile has of its area."""
    side = size + 2 * network.overlap
    tiles = grid(shape.width, shape.height, size)
    windows = [tile.widened(network.overlap, shape.width, shape.height, MARGIN) for tile in tiles]
    areas = [window.width * window.height for window in windows]
    arguments = {"network": network.network, "depth": network.depth, "pixels": side}
    count = max(1, round(passes * sum(areas) / side**2))
    share = min(1.0, max(areas) / side**2)
    probe = Probe(make=f"{__package__}.network:probe", arguments=arguments, count=count, share=share)
    return Variant(name=f"tiles of {size}", probes=(probe,))


def _size_of(variant: str) -> int:
    return int(variant.rpartition(" ")[2])
