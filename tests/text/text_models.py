"""Tiny models written byte by byte for these tests: real GGUF files that the real llama.cpp loads.

``random_model`` has random weights, for what must hold of any model. ``scripted_model`` is a Markov chain in the
shape of a transformer: its layers add nothing, embeddings are one-hot, and the output matrix maps each token to
the one after it in a script. It says exactly what a test wants, one token at a time.
"""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from gguf import GGUFWriter, TokenType

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
END = "<|im_end|>"


def byte_letters() -> dict[int, str]:
    """GPT-2's letters for the 256 bytes."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters, extra = {byte: chr(byte) for byte in plain}, 0
    for byte in range(256):
        if byte not in letters:
            letters[byte] = chr(256 + extra)
            extra += 1
    return letters


def vocabulary(specials: tuple[str, ...] = SPECIALS) -> list[str]:
    return [*specials, *(byte_letters()[byte] for byte in range(256))]


def _writer(
    path: Path, tokens: list[str], specials: int, template: str | None, context: int, arch: str = "llama"
) -> GGUFWriter:
    writer = GGUFWriter(path, arch)
    writer.add_context_length(context)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10000.0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types([TokenType.CONTROL] * specials + [TokenType.NORMAL] * (len(tokens) - specials))
    writer.add_token_merges(["! !"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(2)
    if template is not None:
        writer.add_chat_template(template)
    return writer


def _blocks(writer: GGUFWriter, layers: int, width: int, kv_width: int, inner: int, make: object) -> None:
    for layer in range(layers):
        name = f"blk.{layer}."
        for norm in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"{name}{norm}.weight", np.ones(width, np.float32))
        shapes = {
            "attn_q": (width, width), "attn_k": (kv_width, width), "attn_v": (kv_width, width),
            "attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width),
            "ffn_down": (width, inner),
        }  # fmt: skip
        for tensor, shape in shapes.items():
            writer.add_tensor(f"{name}{tensor}.weight", make(shape))  # type: ignore[operator]


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def random_model(
    path: Path,
    *,
    template: str | None = CHATML,
    context: int = 2048,
    layers: int = 2,
    arch: str = "llama",
    bos: bool = False,
) -> Path:
    """``arch`` "gemma3" has a sliding window of 64 tokens in five layers of six."""
    rng = np.random.default_rng(7)
    tokens = vocabulary()
    writer = _writer(path, tokens, len(SPECIALS), template, context, arch)
    writer.add_add_bos_token(bos)
    width, heads, kv_heads, inner = 64, 2, 1, 96
    writer.add_block_count(layers)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    if arch == "llama":
        writer.add_rope_dimension_count(width // heads)
    else:
        writer.add_sliding_window(64)
        writer.add_key_length(width // heads)
        writer.add_value_length(width // heads)
        for layer in range(layers):
            for norm, size in (
                ("attn_q_norm", 32),
                ("attn_k_norm", 32),
                ("post_attention_norm", 64),
                ("post_ffw_norm", 64),
            ):
                writer.add_tensor(f"blk.{layer}.{norm}.weight", np.ones(size, np.float32))

    def make(shape: tuple[int, int]) -> np.ndarray:
        return rng.normal(0, 0.2, shape).astype(np.float32)

    writer.add_tensor("token_embd.weight", rng.normal(0, 1, (len(tokens), width)).astype(np.float32))
    _blocks(writer, layers, width, width // heads * kv_heads, inner, make)
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", rng.normal(0, 0.3, (len(tokens), width)).astype(np.float32))
    _finish(writer)
    return path


def script_tokens(text: str, specials: tuple[str, ...] = SPECIALS) -> list[int]:
    """``text`` as tokens: special tokens whole, everything else byte by byte. Each may occur only once."""
    found: list[int] = []
    while text:
        special = next((one for one in specials if text.startswith(one)), None)
        if special:
            found.append(specials.index(special))
            text = text[len(special) :]
        else:
            found += [len(specials) + byte for byte in text[0].encode()]
            text = text[1:]
    assert len(set(found)) == len(found), "a Markov chain cannot say a token twice"
    return found


def scripted_model(
    path: Path, script: str, *, after: str = "\n", template: str | None = CHATML, specials: tuple[str, ...] = SPECIALS
) -> Path:
    """Says ``script`` after the token ``after`` (the end of the usual prompt), then ends.

    If the script ends with ``after`` it starts again instead.
    """
    tokens = vocabulary(specials)
    width, heads = 288, 4
    writer = _writer(path, tokens, len(specials), template, 4096)
    writer.add_block_count(1)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(32)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_rope_dimension_count(width // heads)
    embedding = np.zeros((len(tokens), width), np.float32)
    embedding[np.arange(len(tokens)), np.arange(len(tokens))] = 1
    output = np.zeros((len(tokens), width), np.float32)
    chain = [*script_tokens(after, specials), *script_tokens(script, specials), specials.index(END)]
    nexts: dict[int, int] = {}
    for here, there in pairwise(chain):
        nexts.setdefault(here, there)
    for here, there in nexts.items():
        output[there, here] = 2
    writer.add_tensor("token_embd.weight", embedding)
    _blocks(writer, 1, width, width, 32, lambda shape: np.zeros(shape, np.float32))
    writer.add_tensor("output_norm.weight", np.ones(width, np.float32))
    writer.add_tensor("output.weight", output)
    _finish(writer)
    return path


def tiny_mmproj(path: Path, *, width: int = 32, out: int = 64, size: int = 28, patch: int = 14) -> Path:
    """A CLIP encoder of one layer with LLaVA's two-layer projector, random weights."""
    rng = np.random.default_rng(11)
    writer = GGUFWriter(path, "clip")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "mlp")
    writer.add_bool("clip.use_gelu", True)
    for key, value in {
        "image_size": size, "patch_size": patch, "embedding_length": width, "feed_forward_length": 48,
        "projection_dim": out, "block_count": 2, "attention.head_count": 2,
    }.items():  # fmt: skip
        writer.add_uint32(f"clip.vision.{key}", value)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-5)
    writer.add_array("clip.vision.image_mean", [0.5, 0.5, 0.5])
    writer.add_array("clip.vision.image_std", [0.5, 0.5, 0.5])

    def put(name: str, *shape: int) -> None:
        writer.add_tensor(name, rng.normal(0, 0.3, shape).astype(np.float32))

    put("v.class_embd", width)
    put("v.patch_embd.weight", width, 3, patch, patch)
    put("v.position_embd.weight", (size // patch) ** 2 + 1, width)
    for norm in ("pre_ln", "post_ln", *(f"blk.{layer}.ln{n}" for layer in range(2) for n in (1, 2))):
        put(f"v.{norm}.weight", width)
        put(f"v.{norm}.bias", width)
    for layer in range(2):
        for name, rows, columns in (
            ("attn_q", width, width), ("attn_k", width, width), ("attn_v", width, width), ("attn_out", width, width),
            ("ffn_up", 48, width), ("ffn_down", width, 48),
        ):  # fmt: skip
            put(f"v.blk.{layer}.{name}.weight", rows, columns)
            put(f"v.blk.{layer}.{name}.bias", rows)
    for index, columns in (("0", width), ("2", out)):
        put(f"mm.{index}.weight", out, columns)
        put(f"mm.{index}.bias", out)
    _finish(writer)
    return path
