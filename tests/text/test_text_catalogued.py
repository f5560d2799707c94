"""What the catalogue says of a model before its download, held against what its file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studio.catalogue import builtin_file, read_models
from studio.plugin import GIB, BadRequest, Budget, ModelSpec
from studio_pipelines.text_llm.catalogued import catalogued_shape, settings_of
from studio_pipelines.text_llm.family import TextLLM, read_checked
from studio_pipelines.text_llm.params import TextParams
from studio_pipelines.text_llm.sizing import shape_of

SPECS = {spec.id: spec for spec in read_models(builtin_file()) if spec.pipeline == "text-llm"}


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_every_entry_has_sound_settings_and_a_plan(spec: ModelSpec) -> None:
    assert settings_of(spec).layers
    plan = TextLLM(spec).plan(TextParams(prompt="x", context=2048), Budget(ram_bytes=64 * GIB, threads=4))
    size = sum(file.bytes or 0 for file in spec.source.files.values()) if spec.source else 0
    assert size <= plan.peak_ram_bytes <= max(1.3 * size, size + GIB) or spec.download_bytes is None


def test_the_starter_is_as_its_entry_says(starter_gguf: Path) -> None:
    told, found = catalogued_shape(SPECS["starter-text"]), shape_of(read_checked(starter_gguf))
    for name in ("layers", "kv_values", "trained_context", "width", "vocabulary", "window"):
        assert getattr(told, name) == getattr(found, name), name
    assert told.weight_bytes == pytest.approx(found.weight_bytes, rel=0.25)


def test_windows_and_the_other_heads_of_global_layers() -> None:
    """Gemma 4: five layers in six see 1,024 tokens; each sixth sees all, with one head of 512."""
    shape = catalogued_shape(SPECS["gemma-4-12b"])
    assert shape.windowed.count(False) == 8
    assert shape.kv_values[5] == 2 * 1 * 512
    assert shape.kv_values[0] == 2 * 8 * 256


def entry(**settings: Any) -> ModelSpec:
    return SPECS["qwen3-8b"].model_copy(update={"settings": settings})


@pytest.mark.parametrize("settings", [{"thinking": "aloud"}, {"layer": 3}, {"context": 0}])
def test_a_wrong_setting_is_one_line(settings: dict[str, Any]) -> None:
    with pytest.raises(BadRequest, match="qwen3-8b"):
        settings_of(entry(**settings))


@pytest.mark.parametrize(("switch", "words"), [("on", "detailed thinking on"), ("off", "detailed thinking off")])
def test_a_thinking_switch_in_the_system_turn(switch: Any, words: str) -> None:
    told = TextLLM(SPECS["nemotron-nano-8b"])._told(TextParams(prompt="x", system="Be brief.", thinking=switch))
    assert told.system == f"{words}\n\nBe brief."
    assert told.thinking == "auto"
    untouched = TextParams(prompt="x")
    assert TextLLM(SPECS["nemotron-nano-8b"])._told(untouched) is untouched
