"""The tiny Stable Diffusion models as one file in the layout of their authors' code, and a network as GGUF.

The names are those that diffusers' own converters read (``loaders/single_file_utils.py``), written the other way round.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import image_models
import torch
from safetensors.torch import save_file

State = dict[str, torch.Tensor]
_RESNET = {
    "norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
    "conv2": "out_layers.3", "conv_shortcut": "skip_connection",
}  # fmt: skip
_UNET = {
    "conv_in": "input_blocks.0.0", "time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
    "conv_norm_out": "out.0", "conv_out": "out.2", "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}  # fmt: skip


def write_single(kind: str, folder: Path, file: Path) -> Path:
    """The tiny model ``sd`` or ``sdxl`` of ``folder`` as one safetensors file."""
    pipe = image_models.load(folder)
    state = {f"model.diffusion_model.{key}": value for key, value in unet(pipe.unet).items()}
    state |= {f"first_stage_model.{key}": value for key, value in vae(pipe.vae).items()}
    clip = "cond_stage_model.transformer." if kind == "sd" else "conditioner.embedders.0.transformer."
    state |= {clip + _clip(key): value for key, value in pipe.text_encoder.state_dict().items()}
    if kind == "sdxl":
        second = open_clip(pipe.text_encoder_2)
        state |= {f"conditioner.embedders.1.model.{key}": value for key, value in second.items()}
    save_file({key: value.contiguous().clone() for key, value in state.items()}, file)
    return file


def _clip(key: str) -> str:
    return key if key.startswith(("text_model.", "text_projection")) else f"text_model.{key}"


def unet(module: Any) -> State:
    """A UNet of levels with ``layers_per_block`` layers each, all counted through: LDM's ``openaimodel.py``."""
    layers = module.config.layers_per_block
    return {_unet_key(key, layers): value for key, value in module.state_dict().items()}


def _unet_key(key: str, layers: int) -> str:
    head, _, last = key.rpartition(".")
    if head in _UNET:
        return f"{_UNET[head]}.{last}"
    if match := re.match(r"down_blocks\.(\d+)\.(resnets|attentions|downsamplers)\.(\d+)\.(.*)", key):
        level, kind, number, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "downsamplers":
            return f"input_blocks.{(level + 1) * (layers + 1)}.0.op.{rest.removeprefix('conv.')}"
        return f"input_blocks.{1 + level * (layers + 1) + number}.{_inner(kind, rest)}"
    if match := re.match(r"up_blocks\.(\d+)\.(resnets|attentions|upsamplers)\.(\d+)\.(.*)", key):
        level, kind, number, rest = int(match[1]), match[2], int(match[3]), match[4]
        if kind == "upsamplers":  # after the attention, where there is one
            place = 2 if level == 0 else 1
            return f"output_blocks.{level * (layers + 1) + layers}.{place}.{rest}"
        return f"output_blocks.{level * (layers + 1) + number}.{_inner(kind, rest)}"
    match = re.match(r"mid_block\.(resnets|attentions)\.(\d+)\.(.*)", key)
    assert match is not None, key
    place = 1 if match[1] == "attentions" else 2 * int(match[2])
    return f"middle_block.{place}.{_resnet(match[3]) if match[1] == 'resnets' else match[3]}"


def _inner(kind: str, rest: str) -> str:
    return f"0.{_resnet(rest)}" if kind == "resnets" else f"1.{rest}"


def _resnet(rest: str) -> str:
    name, _, last = rest.partition(".")
    return f"{_RESNET[name]}.{last}"


def vae(module: Any) -> State:
    levels = len(module.config.block_out_channels)
    found: State = {}
    for key, value in module.state_dict().items():
        new = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets\.(\d+)", r"down.\1.block.\2", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        for level in range(levels):
            new = new.replace(f"up_blocks.{level}.resnets.", f"up.{levels - 1 - level}.block.")
            new = new.replace(f"up_blocks.{level}.upsamplers.0", f"up.{levels - 1 - level}.upsample")
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda match: f"mid.block_{int(match[1]) + 1}", new)
        new = new.replace("mid_block.attentions.0", "mid.attn_1")
        if "mid.attn_1" in new:
            for ours, theirs in (("group_norm", "norm"), ("to_q", "q"), ("to_k", "k"), ("to_v", "v")):
                new = new.replace(f"attn_1.{ours}.", f"attn_1.{theirs}.")
            new = new.replace("to_out.0", "proj_out")
            value = value[:, :, None, None] if value.ndim == 2 else value  # convolutions there
        found[new] = value
    return found


def open_clip(module: Any) -> State:
    state = {key.removeprefix("text_model."): value for key, value in module.state_dict().items()}
    found = {
        "positional_embedding": state.pop("embeddings.position_embedding.weight"),
        "token_embedding.weight": state.pop("embeddings.token_embedding.weight"),
        "text_projection": state.pop("text_projection.weight").T,
        "ln_final.weight": state.pop("final_layer_norm.weight"),
        "ln_final.bias": state.pop("final_layer_norm.bias"),
    }
    state.pop("embeddings.position_ids", None)
    for number in range(module.config.num_hidden_layers):
        own, other = f"encoder.layers.{number}", f"transformer.resblocks.{number}"
        for last in ("weight", "bias"):
            parts = [state.pop(f"{own}.self_attn.{name}_proj.{last}") for name in "qkv"]
            found[f"{other}.attn.in_proj_{last}"] = torch.cat(parts)
            for ours, theirs in (
                ("self_attn.out_proj", "attn.out_proj"), ("layer_norm1", "ln_1"), ("layer_norm2", "ln_2"),
                ("mlp.fc1", "mlp.c_fc"), ("mlp.fc2", "mlp.c_proj"),
            ):  # fmt: skip
                found[f"{other}.{theirs}.{last}"] = state.pop(f"{own}.{ours}.{last}")
    assert not state, sorted(state)
    return found


def z_image(module: Any) -> State:
    """Its authors' names: one matrix for query, key and value."""
    state = dict(module.state_dict())
    for key in [key for key in state if key.endswith(".attention.to_q.weight")]:
        head = key.removesuffix("to_q.weight")
        state[f"{head}qkv.weight"] = torch.cat([state.pop(f"{head}to_{name}.weight") for name in "qkv"])
    names = {
        "all_final_layer.2-1.": "final_layer.", "all_x_embedder.2-1.": "x_embedder.", "to_out.0.": "out.",
        "norm_k.": "k_norm.", "norm_q.": "q_norm.",
    }  # fmt: skip
    found: State = {}
    for key, value in state.items():
        for ours, theirs in names.items():
            key = key.replace(ours, theirs) if ".attention." in key or "all_" in ours else key
        found[key] = value
    return found


def write_gguf(state: State, file: Path, *, architecture: str, kind: Any) -> Path:
    """The matrices whose rows ``kind`` can hold in that quantisation, the rest in 32 bits."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFWriter, quants

    writer = GGUFWriter(str(file), architecture)
    for name, value in state.items():
        data = value.float().contiguous().numpy()
        if data.ndim == 2 and data.shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 and "norm" not in name:
            writer.add_tensor(name, quants.quantize(data, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, data, raw_dtype=GGMLQuantizationType.F32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file
