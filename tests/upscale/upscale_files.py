"""Pictures to enlarge, weights in ncnn's two files, and one call from a picture to its result."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from studio.plugin import Artefact, Context, Event, ModelSpec, Plan
from studio_pipelines.image_upscale.architecture import Architecture
from studio_pipelines.image_upscale.family import ImageUpscale
from studio_pipelines.image_upscale.params import UpscaleParams

COMPACT = Architecture(network="compact", depth=16)
SMALL = {"compact": Architecture(network="compact", depth=1), "rrdb": Architecture(network="rrdb", depth=1)}


def wave(width: int, height: int) -> np.ndarray[Any, Any]:
    """(height, width, 3) of bytes: gentle waves with a hard edge, the same on every machine."""
    y, x = np.mgrid[0:height, 0:width]
    values = [(x * 7 + y * 3) % 256, (x * x + 5 * y) % 256, np.where(x + y > width // 2, 230, 20)]
    return np.stack(values, axis=2).astype(np.uint8)


def drawing(side: int) -> Image.Image:
    """Flat shapes with smooth outlines, as an icon has them."""
    large = Image.new("RGB", (4 * side, 4 * side), (240, 235, 220))
    draw = ImageDraw.Draw(large)
    unit = side / 16
    draw.ellipse(
        [8 * unit, 8 * unit, 56 * unit, 56 * unit], fill=(220, 60, 50), outline=(40, 20, 20), width=int(2 * unit)
    )
    draw.polygon([(20 * unit, 44 * unit), (32 * unit, 14 * unit), (44 * unit, 44 * unit)], fill=(250, 210, 60))
    draw.line([4 * unit, 60 * unit, 60 * unit, 52 * unit], fill=(30, 60, 160), width=int(2 * unit))
    return large.resize((side, side), Image.Resampling.LANCZOS)


def saved(image: Image.Image, path: Path, **options: Any) -> Path:
    image.save(path, **options)
    return path


def write_ncnn(folder: Path, architecture: Architecture, *, seed: int = 0, half: bool = True) -> dict[str, Path]:
    """Random weights of an architecture as ncnn stores them; the result looks like a washed-out picture."""
    random = np.random.default_rng(seed)
    lines, blobs = ["Input input 0 1 data"], []
    names = iter(range(10_000))
    for out, into in architecture.convolutions:
        number = next(names)
        lines.append(f"Convolution conv_{number} 1 1 a{number} b{number} 0={out} 1=3 4=1 5=1 6={9 * out * into}")
        weights = random.normal(0, (2 / (9 * into)) ** 0.5, (out, into, 3, 3))
        tag = 0x01306B47 if half else 0
        blobs += [tag.to_bytes(4, "little"), weights.astype("<f2" if half else "<f4").tobytes()]
        blobs.append(random.normal(0, 0.01, out).astype("<f4").tobytes())
        if architecture.slopes and number < architecture.slopes:
            lines.append(f"PReLU act_{number} 1 1 b{number} c{number} 0=64")
            blobs.append(random.uniform(0.1, 0.3, 64).astype("<f4").tobytes())
    folder.mkdir(parents=True, exist_ok=True)
    files = {"param": folder / "model.param", "weights": folder / "model.bin"}
    files["param"].write_text("\n".join(["7767517", f"{len(lines)} {len(lines)}", *lines]) + "\n")
    files["weights"].write_bytes(b"".join(blobs))
    return files


def spec_of(architecture: Architecture) -> ModelSpec:
    return ModelSpec(id="tiny", pipeline="image-upscale", settings=architecture.model_dump())


class Loaded:
    """A loaded upscaler that enlarges a file in one call, in tiles of ``tile``."""

    def __init__(self, files: dict[str, Path], architecture: Architecture, folder: Path, tile: int = 512) -> None:
        self.folder = folder
        self.pipeline = ImageUpscale(spec_of(architecture), files)
        self.pipeline.load(Plan(model="tiny", settings={"variants": {"upscale": f"tiles of {tile}"}}))

    def events(self, image: Path, scale: int = 4, ctx: Context | None = None) -> list[Event]:
        params = UpscaleParams.model_validate({"image": image, "scale": scale})
        work = ctx or Context(Path(tempfile.mkdtemp(dir=self.folder)))
        return list(self.pipeline.generate(params, work))

    def make(self, image: Path, scale: int = 4) -> Image.Image:
        """The result, read back from its file."""
        artefact = self.events(image, scale)[-1]
        assert isinstance(artefact, Artefact)
        made = Image.open(io.BytesIO(Path(artefact.path).read_bytes()))
        assert (made.format, made.size) == ("PNG", (artefact.info["width"], artefact.info["height"]))
        return made


def furthest(one: Image.Image, other: Image.Image) -> int:
    """The largest difference of a value, of 255."""
    assert one.mode == other.mode and one.size == other.size
    return int(np.abs(np.asarray(one, int) - np.asarray(other, int)).max())


def noise_db(made: Image.Image, truth: Image.Image) -> float:
    """The peak signal-to-noise ratio in dB."""
    error = np.mean((np.asarray(made, float) - np.asarray(truth, float)) ** 2)
    return float(10 * np.log10(255**2 / error))
