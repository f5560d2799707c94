"""LoRA adapters: which files are meant, and whether they belong to a model. Headers only; attaching is ``lora_attach``.

An adapter adds to a matrix W (out, in) the product of B (out, rank) and A (rank, in). Published files name the
matrices as diffusers and peft do (``unet.down_blocks.0...lora_A.weight``), as kohya's scripts do
(``lora_unet_down_blocks_0_..._to_q.lora_down.weight``), or as the model's own authors did, with several matrices in
one. Where a name is one of the model's, both sides of the product are compared with it; where it is of another
naming, its inputs have to be inputs that the model has. The rest is seen when it is attached.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.plugin import GIB, BadRequest, BadWeights, format_bytes, nearest

WEIGHT_MAX = 4.0
MAX_BYTES = 4 * GIB
METADATA_KEY = "lora_adapter_metadata"

_SUFFIX = ".safetensors"
_PICKLES = (".ckpt", ".pt", ".pth", ".bin")
_NAME = re.compile(r"^[^\\:*?\"<>|]+$")
_FACTOR = re.compile(
    r"^(?P<name>.+?)(?:_lora|\.lora|\.lora_linear_layer)?[._](?:lora_)?(?P<side>A|B|down|up)(?:\.default)?\.weight$"
)
_OTHER_KINDS = {"hada_w1_a": "LoHa", "lokr_w1": "LoKr", "dora_scale": "DoRA", "magnitude_vector": "DoRA", "oft_": "OFT"}
_PREFIXES = (
    ("text_encoder_2", ("lora_te2_", "text_encoder_2.", "te2_")),
    ("text_encoder", ("lora_te1_", "lora_te_", "text_encoder.", "te1_")),
    ("", ("lora_unet_", "lora_transformer_", "unet.", "transformer.", "diffusion_model.", "base_model.model.")),
)
# What an adapter may say of itself besides its matrices; see peft's LoraConfig.
_SAID: dict[str, Any] = {"lora_alpha": (int, float), "alpha_pattern": dict, "use_rslora": bool}

Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class Adapter:
    """One adapter of a request."""

    name: str
    path: Path
    weight: float


def adapters_of(asked: list[str], folder: Path | None) -> list[Adapter]:
    """The files that ``name`` and ``name:weight`` mean. Raises ``BadRequest`` for what is not there."""
    found = [_adapter(text, folder) for text in asked]
    paths = [adapter.path for adapter in found]
    if twice := next((adapter for adapter in found if paths.count(adapter.path) > 1), None):
        raise BadRequest(f"--lora names {twice.name} twice.", "Name it once, with the weight that you want.")
    return found


def _adapter(asked: str, folder: Path | None) -> Adapter:
    name, _, written = asked.strip().partition(":")
    name = name.strip().removesuffix(_SUFFIX)
    try:
        weight = float(written) if written.strip() or ":" in asked else 1.0
    except ValueError:
        weight = math.nan
    if not math.isfinite(weight) or abs(weight) > WEIGHT_MAX:
        limits = f"a number from {-WEIGHT_MAX:g} to {WEIGHT_MAX:g}"
        raise BadRequest(f"--lora {asked}: the weight {written.strip()!r} is not {limits}.", "Write name:0.8")
    if not _NAME.match(name) or name.startswith("/") or ".." in name.split("/"):
        raise BadRequest(f"--lora {asked}: {name!r} is no name of an adapter.", "Write a name as in the folder loras.")
    return Adapter(name, _file(name, folder), weight)


def names_in(folder: Path | None) -> list[str]:
    """What may be asked for, as it is asked for."""
    return list(_named(folder)) if folder is not None else []


def _named(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob(f"*{_SUFFIX}") if path.is_file()) if folder.is_dir() else []
    return {path.relative_to(folder).as_posix().removesuffix(_SUFFIX): path for path in files}


def _file(name: str, folder: Path | None) -> Path:
    if folder is None:
        raise BadRequest(f"There is no home folder to look for the adapter {name!r} in.", "Leave out --lora.")
    named = _named(folder)
    if name in named:
        return named[name]
    same = [full for full in named if full.rpartition("/")[2] == name]
    if len(same) == 1:
        return named[same[0]]
    if same:
        raise BadRequest(f"There are {len(same)} adapters {name!r}.", f"Name one of: {', '.join(same)}.")
    others = (folder / f"{name}{suffix}" for suffix in _PICKLES)
    if (pickle := next((path for path in others if path.is_file()), None)) is not None:
        raise BadRequest(
            f"{pickle.name} is a pickle, which may run code when it is opened; only safetensors files are used.",
            "Get the adapter as .safetensors, or convert it on a machine that may be lost.",
        )
    raise BadRequest(f"There is no adapter {name!r} in {folder}.", nearest(name, named))


def check_adapters(asked: list[str], folder: Path | None, files: Mapping[str, Path], denoiser: str) -> list[Adapter]:
    """The adapters of a request, each compared with the model's files by role. Raises ``BadRequest`` or ``BadWeights``.

    ``denoiser``: the role of the network that denoises.
    """
    adapters = adapters_of(asked, folder)
    if adapters:
        networks = {role: shapes_in(files.get(role)) for role in (denoiser, "text_encoder", "text_encoder_2")}
        networks[""] = networks.pop(denoiser)
        for adapter in adapters:
            _check(adapter, networks)
    return adapters


def adapter_bytes(asked: list[str], folder: Path | None) -> int:
    """What the adapters of a request take on the card."""
    return sum(adapter.path.stat().st_size for adapter in adapters_of(asked, folder))


def read_header(path: Path) -> tuple[dict[str, Shape], dict[str, str]]:
    """Shapes of all tensors of a safetensors file, and what it says of itself. Raises ``BadWeights``."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="np") as file:  # maps the file and reads its header, which it checks
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        reason = _disguise(path) or " ".join(str(error).split())[:120]
        raise BadWeights(f"{path.name} is not a whole safetensors file: {reason}.", "Get the file again.") from error


def _disguise(path: Path) -> str:
    """What a file is instead of safetensors, where its first bytes tell."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(4)
        if head.startswith((b"\x80", b"PK\x03\x04")):
            return "it is a pickle, which may run code when it is opened"
    return ""


def shapes_in(place: Path | None) -> dict[str, Shape]:
    """Shapes of the weights in a network's folder or file; nothing where it is not safetensors."""
    if place is None:
        return {}
    files = sorted(place.glob(f"*{_SUFFIX}")) if place.is_dir() else [place] if place.suffix == _SUFFIX else []
    return {name: shape for file in files for name, shape in read_header(file)[0].items()}


def said_by(metadata: Mapping[str, str], path: Path) -> dict[str, dict[str, Any]]:
    """By network, the scales that diffusers writes beside an adapter's matrices: ``lora_alpha`` and the like.

    Everything else in it is left alone: ranks and names follow from the matrices, and other options of peft's
    ``LoraConfig`` would have code imported. Raises ``BadWeights`` for what cannot be a scale.
    """
    if METADATA_KEY not in metadata:
        return {}
    found: dict[str, dict[str, Any]] = {}
    try:
        content = json.loads(metadata[METADATA_KEY])
        for key, value in content.items():
            network, _, name = key.rpartition(".")
            if name in _SAID and value is not None:
                if not isinstance(value, _SAID[name]) or not _is_scale(value):
                    raise ValueError(f"{key} is {str(value)[:40]!r}")
                found.setdefault(network, {})[name] = value
    except (ValueError, AttributeError, RecursionError) as error:
        raise BadWeights(f"{path.name} says of itself what cannot be: {error}.", "Get the file again.") from error
    return found


def _is_scale(value: Any) -> bool:
    numbers = value.values() if isinstance(value, dict) else [value]
    return all(isinstance(number, int | float) and abs(number) <= 1e6 for number in numbers)


def _check(adapter: Adapter, networks: Mapping[str, Shapes]) -> None:
    size = adapter.path.stat().st_size
    if size > MAX_BYTES:
        raise BadRequest(
            f"The adapter {adapter.name} has {format_bytes(size)}; at most {format_bytes(MAX_BYTES)} are read.",
            "It may be a whole model: run it by its path.",
        )
    shapes, metadata = read_header(adapter.path)
    said_by(metadata, adapter.path)
    for key in shapes:
        if kind := next((kind for sign, kind in _OTHER_KINDS.items() if sign in key), None):
            raise BadRequest(f"{adapter.path.name} is a {kind}, which is not supported.", "Use an adapter of LoRA.")
    pairs = _pairs(shapes)
    if not pairs:
        raise BadRequest(
            f"{adapter.path.name} holds no LoRA: none of its {len(shapes)} tensors is half of a pair.",
            "Put adapters into the folder loras, whole models elsewhere.",
        )
    tables = {network: _table(found) for network, found in networks.items()}
    for network, name, down, up in pairs:
        if (problem := _problem(tables.get(network) or {}, name, down, up)) is not None:
            raise BadRequest(
                f"The adapter {adapter.name} is not made for this model: {problem}.", "Use one for this model."
            )


def _pairs(shapes: Shapes) -> list[tuple[str, str, Shape, Shape]]:
    """Network, flattened name, and the shapes of A and B of every matrix that the adapter changes."""
    sides: dict[str, dict[str, Shape]] = {}
    for key, shape in shapes.items():
        if (match := _FACTOR.match(key)) is not None and len(shape) >= 2:
            side = "down" if match["side"] in ("A", "down") else "up"
            sides.setdefault(match["name"], {})[side] = shape
    return [(*_placed(name), pair["down"], pair["up"]) for name, pair in sides.items() if len(pair) == 2]


def _placed(name: str) -> tuple[str, str]:
    """The network that a name speaks of ("" the one that denoises), and the rest of the name, flattened."""
    for network, prefixes in _PREFIXES:
        for prefix in prefixes:
            if name.startswith(prefix):
                return network, _flat(name.removeprefix(prefix))
    return "", _flat(name)


def _flat(name: str) -> str:
    return name.replace(".processor", "").replace(".", "_").removeprefix("text_model_")


def _table(shapes: Shapes) -> dict[str, Shape]:
    """Every matrix of a network by its flattened name."""
    weights = {name.removesuffix(".weight"): shape for name, shape in shapes.items() if name.endswith(".weight")}
    return {_flat(name): shape for name, shape in weights.items() if len(shape) >= 2}


def _problem(table: Mapping[str, Shape], name: str, down: Shape, up: Shape) -> str | None:
    """Why a pair cannot belong to a network, in a few words; ``None`` if it may, or the network is not known."""
    if not table:
        return None
    outputs, inputs = up[0], down[1]
    if (own := table.get(name)) is not None:
        if (outputs, inputs) == own[:2]:
            return None
        return f"{name} is {outputs}×{inputs} in it and {own[0]}×{own[1]} in the model"
    known = {shape[1] for shape in table.values()}
    if inputs in known:
        return None
    return f"{name} has {inputs} inputs, and the model no matrix with so many"
