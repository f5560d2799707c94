"""Attaching LoRA adapters to a loaded model, and taking them off again.

Keys are converted by diffusers' own ``lora_state_dict`` of the model's class and layers injected by peft, as diffusers'
``load_lora_weights`` does, with two differences: of what a file says of itself only scales are believed (peft's
``LoraConfig`` can name modules to import), and a matrix that the model does not have is an error instead of a line in
the log. The network's own weights are not touched, so that nothing needs to be on the device: the adapter's tensors
follow when the network is brought there. Taken off, the model is what it was, to the bit.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from studio.plugin import BadWeights

from .lora import Adapter, read_header, said_by

State = dict[str, Tensor]


@dataclass
class Attached:
    """The adapters that a loaded model carries now, by the names that peft knows them under."""

    names: dict[tuple[Path, int, int], str] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)


def attach(pipeline: Any, attached: Attached, adapters: list[Adapter], on_device: list[str]) -> list[dict[str, Any]]:
    """Have the model carry exactly these adapters with their weights; those it carries already stay.

    ``on_device`` are the networks whose weights are on the device now. Returns each adapter's name, weight and sha256
    for the recipe. Raises ``BadWeights`` for a file that does not belong to the model, which then carries none.
    """
    wanted = {_identity(adapter.path): adapter for adapter in adapters}
    if set(attached.names) - set(wanted):
        detach(pipeline, attached)
    if not adapters:
        return []
    try:
        for identity, adapter in wanted.items():
            if identity not in attached.names:
                _load(pipeline, attached, identity, adapter)
        pipeline.set_adapters([attached.names[one] for one in wanted], [one.weight for one in adapters])
    except BaseException:
        detach(pipeline, attached)
        raise
    for name, network in _networks(pipeline).items():
        if name in on_device:
            _move(network, pipeline._execution_device)
    return [
        {"name": adapter.name, "weight": adapter.weight, "sha256": attached.sha256[attached.names[identity]]}
        for identity, adapter in wanted.items()
    ]


def detach(pipeline: Any, attached: Attached) -> None:
    """Take all adapters off. May be called twice."""
    pipeline.unload_lora_weights()
    attached.names.clear()
    attached.sha256.clear()


def send_home(networks: Mapping[str, nn.Module]) -> None:
    """Bring the adapters' tensors back to host memory, where the networks' own weights are."""
    for network in networks.values():
        _move(network, torch.device("cpu"))


def _identity(path: Path) -> tuple[Path, int, int]:
    """Another file under the same name is another adapter."""
    facts = path.stat()
    return path, facts.st_size, facts.st_mtime_ns


def _networks(pipeline: Any) -> dict[str, nn.Module]:
    found = {name: getattr(pipeline, name, None) for name in pipeline._lora_loadable_modules}
    return {name: network for name, network in found.items() if network is not None}


def _load(pipeline: Any, attached: Attached, identity: tuple[Path, int, int], adapter: Adapter) -> None:
    from safetensors.torch import load

    said = said_by(read_header(adapter.path)[1], adapter.path)
    data = adapter.path.read_bytes()
    name = f"adapter_{len(attached.names)}"
    attached.names[identity], attached.sha256[name] = name, hashlib.sha256(data).hexdigest()
    try:
        state, alphas = _converted(pipeline, load(data))
    except (ValueError, KeyError, IndexError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise _foreign(adapter, f"its names are not understood ({reason})") from error
    networks = _networks(pipeline)
    if strangers := sorted({key for key in state if key.split(".")[0] not in networks}):
        raise _foreign(adapter, f"it changes {strangers[0]}")
    for prefix, network in networks.items():
        own = {key.removeprefix(f"{prefix}."): value for key, value in state.items() if key.startswith(f"{prefix}.")}
        scales = {key.removeprefix(f"{prefix}."): v for key, v in alphas.items() if key.startswith(f"{prefix}.")}
        if own:
            try:
                _inject(network, own, scales, said.get(prefix, {}), name)
            except (ValueError, KeyError, RuntimeError) as error:
                reason = " ".join(str(error).split())[:160]
                raise _foreign(adapter, f"{prefix} does not take it ({reason})") from error


def _foreign(adapter: Adapter, why: str) -> BadWeights:
    return BadWeights(f"The adapter {adapter.name} is not made for this model: {why}.", "Use one for this model.")


def _converted(pipeline: Any, state: State) -> tuple[State, dict[str, float]]:
    """Keys as diffusers names them, and alphas by key, where the converter has not multiplied them in already."""
    options: dict[str, Any] = {}
    if hasattr(pipeline, "text_encoder_2") and hasattr(pipeline, "unet"):
        options["unet_config"] = pipeline.unet.config
    found = type(pipeline).lora_state_dict(state, return_alphas=True, **options)
    parts = found if isinstance(found, tuple) else (found, None)
    alphas = parts[1] if len(parts) > 1 and parts[1] else {}
    return dict(parts[0]), {key: float(value) for key, value in alphas.items()}


def _inject(network: nn.Module, state: State, alphas: dict[str, float], said: dict[str, Any], name: str) -> None:
    """Put one adapter's layers into one network. Raises ``ValueError`` if any of its tensors has no place there."""
    from diffusers import ModelMixin
    from diffusers.utils import (
        convert_state_dict_to_diffusers,
        convert_state_dict_to_peft,
        convert_unet_state_dict_to_peft,
        get_peft_kwargs,
    )
    from peft import LoraConfig, inject_adapter_in_model

    denoiser = isinstance(network, ModelMixin)
    if not denoiser:
        state = convert_state_dict_to_peft(convert_state_dict_to_diffusers(state))
        if not hasattr(network, "text_model"):  # as transformers 5 has it
            state = {key.removeprefix("text_model."): value for key, value in state.items()}
    elif "lora_A" not in next(iter(state)):
        state = convert_unet_state_dict_to_peft(state)
    modules = dict(network.named_modules())
    if lost := sorted({key for key in state if key.split(".lora_")[0] not in modules}):
        raise ValueError(f"it has no {lost[0].split('.lora_')[0]}")
    # "^": without it peft takes the name of one layer for the end of another's.
    ranks = {f"^{key}": value.shape[1] for key, value in state.items() if "lora_B" in key and value.ndim > 1}
    options = get_peft_kwargs(
        ranks, alphas, state, is_unet=denoiser, model_state_dict=network.state_dict(), adapter_name=name
    )
    config = LoraConfig(**{**options, **said})
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Already found a .peft_config.")  # a second adapter is meant
        inject_adapter_in_model(config, network, adapter_name=name, state_dict=state, low_cpu_mem_usage=True)
    network._hf_peft_config_loaded = True  # type: ignore[assignment]
    # Not by peft's own function, which moves them to where the layer's weight is: on meta, while it is not in use.
    placed = {_named(key, name): value.to(_dtype(network, key)) for key, value in state.items()}
    if unexpected := network.load_state_dict(placed, strict=False, assign=True).unexpected_keys:
        raise ValueError(f"it has no {unexpected[0]}")
    for key, value in _tensors(network):
        if value.is_meta:
            raise ValueError(f"{key} is missing in the file")
        value.requires_grad_(False)


def _named(key: str, adapter: str) -> str:
    """``layer.lora_A.weight`` as peft names it in the network: ``layer.lora_A.adapter.weight``."""
    head, _, last = key.rpartition(".")
    return f"{head}.{adapter}.{last}"


def _dtype(network: nn.Module, key: str) -> torch.dtype:
    """The type that the layer computes in."""
    layer: Any = network.get_submodule(key.split(".lora_")[0])
    dtype: torch.dtype = layer.get_base_layer().weight.dtype
    return dtype


def _tensors(network: nn.Module) -> Iterator[tuple[str, nn.Parameter]]:
    """The adapters' own tensors."""
    return ((key, value) for key, value in network.named_parameters() if ".lora_" in key)


def _move(network: nn.Module, device: torch.device) -> None:
    for _, value in _tensors(network):
        value.data = value.data.to(device)
