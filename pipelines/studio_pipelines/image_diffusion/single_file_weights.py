"""The weights of a model in one file, under the names that diffusers and transformers use.

The file is mapped and its tensors are renamed and cut by diffusers' own converters; nothing is read before a network's
weights are laid into memory. What a GGUF holds in fewer bits is turned back into numbers one tensor at a time, then.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from studio.plugin import BadWeights

State = dict[str, Tensor]
_INSIDE = "model.diffusion_model."
_ENCODERS = {
    # By the component: prefixes of OpenAI's CLIP as transformers has it, and of OpenCLIP.
    "text_encoder": (("cond_stage_model.transformer.", "conditioner.embedders.0.transformer."), ""),
    "text_encoder_2": ((), "conditioner.embedders.1.model."),
}


class SingleFile:
    """One open file. ``weights_of`` gives the state of a component, ``None`` if the file does not hold it."""

    def __init__(self, path: Path) -> None:
        from safetensors import SafetensorError

        self.path = path
        try:
            self._state = _gguf(path) if path.suffix == ".gguf" else _mapped(path)
        except (SafetensorError, ValueError, OSError) as error:
            reason = " ".join(str(error).split())[:160]
            raise BadWeights(f"{path.name} cannot be read: {reason}.", "Get the file again.") from error

    def weights_of(self, name: str, build: Callable[[], nn.Module]) -> State | None:
        """The weights of a component of this name; ``build`` makes its empty module, whose names are wanted.

        Raises ``BadWeights`` where the converter of its class does not understand the file.
        """
        # Old checkpoints hold the numbers of positions too, some of them rounded to 16 bits.
        held = {key: value for key, value in self._held(name).items() if not key.endswith("position_ids")}
        if not held:
            return None
        with torch.device("meta"):
            module = build()
        if set(module.state_dict()) <= set(held):
            return {key: _lazy(value) for key, value in held.items()}  # by diffusers' names already
        try:
            found = self._converted(name, module, held)
        except (KeyError, IndexError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:120]
            raise BadWeights(
                f"{self.path.name} does not hold a {type(module).__name__} as its base has it: {reason}.",
                "Give it another base.",
            ) from error
        return {key: _lazy(value) for key, value in found.items()}

    def _held(self, name: str) -> State:
        """The tensors of one component; those that denoise without their prefix."""
        if name in ("unet", "transformer"):
            inside = {k.removeprefix(_INSIDE): v for k, v in self._state.items() if k.startswith(_INSIDE)}
            known = ("first_stage_model.", "vae.", "cond_stage_model.", "conditioner.", "text_encoders.", "model_ema.")
            return inside or {key: value for key, value in self._state.items() if not key.startswith(known)}
        if name == "vae":
            return {key: value for key, value in self._state.items() if key.startswith(("first_stage_model.", "vae."))}
        clip, open_clip = _ENCODERS.get(name, ((), ""))
        prefixes = (*clip, open_clip) if open_clip else clip
        return {key: value for key, value in self._state.items() if prefixes and key.startswith(prefixes)}

    def _converted(self, name: str, module: Any, held: State) -> State:
        from diffusers.loaders import single_file_utils as convert
        from diffusers.loaders.single_file_model import SINGLE_FILE_LOADABLE_CLASSES

        if name == "unet":
            held = {f"{_INSIDE}{key}": value for key, value in held.items()}
        if name in _ENCODERS:
            open_clip = _ENCODERS[name][1]
            if open_clip and any(key.startswith(open_clip) for key in held):
                found = convert.convert_open_clip_checkpoint(module, held, prefix=open_clip)
            else:
                found = convert.convert_ldm_clip_checkpoint(held)
            if not hasattr(module, "text_model"):  # as transformers 5 has it
                found = {key.removeprefix("text_model."): value for key, value in found.items()}
            return dict(found)
        table: Any = SINGLE_FILE_LOADABLE_CLASSES
        mapping = table.get(type(module).__name__, {}).get("checkpoint_mapping_fn")
        if mapping is None:
            raise ValueError(f"diffusers has no converter for {type(module).__name__}")
        return dict(mapping(checkpoint=dict(held), config=dict(module.config)))


def _mapped(path: Path) -> State:
    from safetensors.torch import load_file

    return load_file(str(path))  # tensors over the mapped file: read when used


def _gguf(path: Path) -> State:
    """As diffusers' ``load_gguf_checkpoint``, but mapped instead of read."""
    from diffusers.quantizers.gguf.utils import SUPPORTED_GGUF_QUANT_TYPES, GGUFParameter
    from gguf import GGMLQuantizationType, GGUFReader

    found: State = {}
    for tensor in GGUFReader(str(path), mode="c").tensors:
        kind, data = tensor.tensor_type, torch.from_numpy(tensor.data)
        if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
            found[tensor.name] = data
        elif kind in SUPPORTED_GGUF_QUANT_TYPES:
            found[tensor.name] = GGUFParameter(data, quant_type=kind)
        else:
            raise ValueError(f"{tensor.name} is stored as {kind.name}, which diffusers does not know")
    return found


def _lazy(value: Tensor) -> Tensor:
    return _Dequantised(value) if hasattr(value, "quant_type") else value


class _Dequantised(Tensor):
    """A tensor of the shape and type that a GGUF parameter has in numbers, made anew by every operation on it."""

    _packed: Any

    @staticmethod
    def __new__(cls, packed: Any) -> _Dequantised:
        return torch.Tensor._make_wrapper_subclass(cls, torch.Size(packed.quant_shape), dtype=torch.bfloat16)

    def __init__(self, packed: Any) -> None:
        self._packed = packed

    @classmethod
    def __torch_dispatch__(  # type: ignore[override, unused-ignore]
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        def plain(value: Any) -> Any:
            return value._numbers() if isinstance(value, cls) else value

        return func(*tree_map(plain, args), **tree_map(plain, dict(kwargs or {})))

    def _numbers(self) -> Tensor:
        from diffusers.quantizers.gguf.utils import GGML_QUANT_SIZES, dequantize_functions

        kind = self._packed.quant_type
        block, stored = GGML_QUANT_SIZES[kind]  # numbers in a block, and its bytes
        blocks = self._packed.as_tensor().detach().contiguous().view(torch.uint8).reshape(-1, stored)
        # In 32 bits: diffusers' own function would round to 16 of another kind on the way.
        functions: Any = dequantize_functions
        found: Tensor = functions[kind](blocks, block, stored, torch.float32)
        return found.reshape(self.shape).to(torch.bfloat16)
