"""What a model needs and what is chosen for a budget: arithmetic, checked by hand and against llama.cpp's own."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import text_models
from hypothesis import given, settings
from hypothesis import strategies as st

from studio.plugin import GIB, MIB, BadRequest, BadWeights, Budget, DoesNotFit
from studio_pipelines.text_llm.gguf_file import GgufFile, Skipped, Tensor, Value, read_gguf
from studio_pipelines.text_llm.sizing import (
    Choice,
    Shape,
    choices,
    choose,
    compute_bytes,
    guessed_shape,
    need,
    shape_of,
)


def made_up(arch: str = "llama", layers: int = 32, **meta: Value) -> GgufFile:
    """The header of Llama 3.1 8B at about 4.5 bits: 32 layers, 8 KV heads of 128, 128 k trained."""
    head: dict[str, Value] = {
        "general.architecture": arch, f"{arch}.block_count": layers, f"{arch}.embedding_length": 4096,
        f"{arch}.context_length": 131072, f"{arch}.attention.head_count": 32, f"{arch}.attention.head_count_kv": 8,
        "tokenizer.ggml.tokens": Skipped(8, 128256),
    }  # fmt: skip
    head |= {f"{arch}.{key.replace('__', '.')}": value for key, value in meta.items()}
    tensors = [Tensor("token_embd.weight", (4096, 128256), 12, 0, 295_501_824)]
    tensors += [Tensor(f"blk.{n}.ffn_up.weight", (1,), 12, 0, 130_000_000) for n in range(layers)]
    tensors += [
        Tensor("output.weight", (4096, 128256), 14, 0, 430_940_160),
        Tensor("output_norm.weight", (1,), 0, 0, 16384),
    ]
    return GgufFile(Path("8b.gguf"), 3, head, tuple(tensors), 0, 5_000_000_000)


EIGHT = shape_of(made_up())


def at(vram: float, ram: float = 16, **asked: Any) -> Choice:
    given_ = {"asked": None, "kv": "auto", "gpu_layers": None, **asked}
    return choose(EIGHT, Budget(vram_bytes=int(vram * GIB), ram_bytes=int(ram * GIB)), **given_)[0]


def test_bytes_of_an_8b_model() -> None:
    assert EIGHT.layers == 32
    assert EIGHT.layer_bytes == (130_000_000,) * 32
    assert EIGHT.kv_bytes(1, "f16") == 32 * 8 * 128 * 2 * 2  # 128 KiB a token
    assert EIGHT.kv_bytes(8192, "f16") == 1 * GIB
    assert EIGHT.kv_bytes(8192, "q8_0") == 8192 * 32 * 2048 * 34 // 32
    assert EIGHT.kv_bytes(8192, "q4_0") == 8192 * 32 * 2048 * 18 // 32
    assert EIGHT.weight_bytes == 32 * 130_000_000 + 295_501_824 + 430_940_160 + 16384


def test_choices_for_an_8b_model_on_usual_cards() -> None:
    assert at(24) == Choice(32768, "f16", 33)
    assert at(12) == Choice(32768, "f16", 33)
    assert at(8) == Choice(16384, "f16", 33)
    assert at(6) == Choice(8192, "f16", 33)
    assert at(5.5) == Choice(8192, "q8_0", 33)
    assert at(5).gpu_layers == 33
    assert at(5).kv != "q4_0"
    assert 0 < at(4).gpu_layers < 32
    assert at(4).context == 8192
    assert at(0.2) == Choice(8192, "f16", 0)
    assert at(0, ram=16) == Choice(32768, "f16", 0)


def test_what_is_asked_for_is_kept() -> None:
    assert at(24, asked=5000) == Choice(5120, "f16", 33)
    assert at(24, asked=100_000).context == 100_096
    assert at(24, kv="q4_0").kv == "q4_0"
    assert at(24, gpu_layers=10).gpu_layers == 10
    assert at(24, gpu_layers=0).gpu_layers == 0
    assert at(24, gpu_layers=999).gpu_layers == 33


def test_odd_heads_have_no_quantised_cache() -> None:
    odd = shape_of(made_up(attention__key_length=80, attention__value_length=80))
    choice, _ = choose(odd, Budget(ram_bytes=16 * GIB), asked=None, kv="auto", gpu_layers=None)
    assert choice.kv == "f16"
    with pytest.raises(BadRequest, match="cannot be q8_0"):
        choose(odd, Budget(ram_bytes=16 * GIB), asked=None, kv="q8_0", gpu_layers=None)


def test_more_context_than_trained_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"200,000 tokens is more than the 131,072"):
        at(24, asked=200_000)


def test_layers_for_a_card_that_is_not_there_are_refused() -> None:
    with pytest.raises(BadRequest, match="there is none"):
        at(0, gpu_layers=5)


def test_what_does_not_fit_names_the_nearest_that_does() -> None:
    with pytest.raises(DoesNotFit) as caught:
        at(0, ram=3)
    assert "2,048 tokens" in caught.value.what
    assert "there are 3.0 GiB of memory" in caught.value.what
    assert "smaller" in caught.value.hint
    with pytest.raises(DoesNotFit) as caught:
        at(8, asked=131072, kv="f16", gpu_layers=33)
    assert "--context 16384 --kv-cache f16" in caught.value.hint


budgets = st.integers(0, 40 * GIB)


@settings(max_examples=300, deadline=None)
@given(vram=budgets, ram=budgets, more_vram=budgets, more_ram=budgets)
def test_more_memory_never_gives_a_worse_choice(vram: int, ram: int, more_vram: int, more_ram: int) -> None:
    def rank(vram: int, ram: int) -> float:
        order = list(choices(EIGHT, None, "auto", None, True))
        try:
            choice, cost = choose(EIGHT, Budget(vram_bytes=vram, ram_bytes=ram), asked=None, kv="auto", gpu_layers=None)
        except DoesNotFit:
            return len(order)
        assert cost.vram <= vram
        assert cost.ram <= ram
        return order.index(choice)

    assert rank(vram + 1 + more_vram, ram + more_ram) <= rank(vram + 1, ram)


@settings(max_examples=200, deadline=None)
@given(size=st.integers(10 * MIB, 60 * GIB), context=st.sampled_from([2048, 8192, 131072]))
def test_a_guess_before_the_download_is_of_the_right_size(size: int, context: int) -> None:
    shape = guessed_shape(size, context)
    assert 0.85 * size < shape.weight_bytes <= 1.01 * size
    assert need(shape, Choice(2048, "f16", 0)).ram > size * 0.85


def test_heads_by_layer_windows_and_explicit_head_sizes() -> None:
    heads = [8] * 16 + [0] * 16
    assert shape_of(made_up(attention__head_count_kv=heads)).kv_bytes(1, "f16") == EIGHT.kv_bytes(1, "f16") // 2
    wide = made_up("gemma3", attention__key_length=256, attention__value_length=256, attention__sliding_window=1024)
    shape = shape_of(wide)
    assert shape.windowed.count(False) == 32 // 6
    per_token = 8 * 512 * 2
    assert shape.kv_bytes(32768, "f16") == 5 * per_token * 32768 + 27 * per_token * 1280
    assert shape.kv_bytes(32768, "f16", 512) == 5 * per_token * 32768 + 27 * per_token * 1536
    listed = made_up("new", attention__sliding_window=512, attention__sliding_window_pattern=[True, False] * 16)
    assert shape_of(listed).windowed == (True, False) * 16
    unknown = made_up("other", attention__sliding_window=512)
    assert shape_of(unknown).kv_bytes(32768, "f16") == EIGHT.kv_bytes(32768, "f16")


@pytest.mark.parametrize(
    "wrong", [{"block_count": 0}, {"block_count": 10**9}, {"attention__head_count_kv": [1, 2]}, {"context_length": "x"}]
)
def test_impossible_numbers_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadWeights):
        shape_of(made_up(**wrong))


def test_a_tied_output_is_counted_on_the_card() -> None:
    tied = made_up()
    tied = replace(tied, tensors=tuple(one for one in tied.tensors if one.name != "output.weight"))
    shape = shape_of(tied)
    assert shape.output_bytes == 295_501_824
    assert need(shape, Choice(2048, "f16", 33)).vram > sum(shape.layer_bytes) + 295_501_824


@pytest.mark.parametrize("kv", ["f16", "q8_0", "q4_0"])
def test_llama_cpp_allocates_what_was_computed(
    tiny_gguf: Path, load: Callable[..., Any], caplog: pytest.LogCaptureFixture, kv: str
) -> None:
    """KV to the byte, scratch never less than llama.cpp takes. Its log is the witness."""
    shape: Shape = shape_of(read_gguf(tiny_gguf))
    with caplog.at_level(logging.INFO, "studio_pipelines.text_llm.llama"):
        one = load(tiny_gguf, kv_cache=kv, context=2048)
    sizes = dict(re.findall(r"CPU (KV|compute) buffer size = +([\d.]+) MiB", caplog.text))
    assert float(sizes["KV"]) == pytest.approx(shape.kv_bytes(2048, kv) / MIB, abs=0.005)  # type: ignore[arg-type]
    assert float(sizes["compute"]) <= compute_bytes(shape, Choice(2048, kv, 0)) / MIB  # type: ignore[arg-type]
    assert one.plan.settings["type_v"] == kv


def test_a_sliding_window_is_counted_as_llama_cpp_allocates_it(
    tmp_path: Path, load: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = text_models.random_model(tmp_path / "swa.gguf", arch="gemma3", layers=6, context=4096)
    shape = shape_of(read_gguf(path))
    with caplog.at_level(logging.INFO, "studio_pipelines.text_llm.llama"):
        load(path, context=4096)
    sizes = [float(size) for size in re.findall(r"CPU KV buffer size = +([\d.]+) MiB", caplog.text)]
    assert len(sizes) == 2
    assert 0.9 * shape.kv_bytes(4096, "f16") / MIB <= sum(sizes) <= shape.kv_bytes(4096, "f16") / MIB + 0.01


def test_the_starter_takes_no_more_memory_than_its_plan_says(starter_gguf: Path, load: Callable[..., Any]) -> None:
    import psutil

    process = psutil.Process()
    before = process.memory_info().rss
    one = load(starter_gguf)
    one.ask("Tell me about the sea. " * 30, max_tokens=20)
    assert process.memory_info().rss - before < one.plan.peak_ram_bytes
