"""Real models in llama.cpp: what streams is what is saved, nothing depends on what was asked before."""

from __future__ import annotations

import gc
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import text_models
from text_harness import BUDGET, Loaded

from studio.plugin import (
    BadRequest,
    BadWeights,
    Budget,
    Cancelled,
    Context,
    DoesNotFit,
    ModelSpec,
    Progress,
    StudioError,
    Token,
)
from studio_pipelines.text_llm.family import TextLLM
from studio_pipelines.text_llm.llama import Llama
from studio_pipelines.text_llm.params import TextParams

Load = Callable[..., Loaded]
THINKS = "{# <think> </think> #}" + text_models.CHATML
OPENS = text_models.CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")


def test_the_starter_answers(starter_gguf: Path, load: Load) -> None:
    answer = load(starter_gguf, thinking="none").ask("What is two plus two?", max_tokens=24)
    assert answer.text.strip()
    assert len([event for event in answer.events if isinstance(event, Token)]) > 3
    info = answer.info
    assert info["context"] == 8192
    assert 0 < info["completion_tokens"] <= 24
    assert info["prompt_tokens"] > 20
    assert info["ttft_s"] > 0
    assert info["tokens_per_s"] > 1
    assert info["finish_reason"] in ("stop", "length")
    assert answer.artefact.media_type == "text/plain"


def test_the_same_seed_gives_the_same_text_and_another_another(tiny_gguf: Path, load: Load) -> None:
    model = load(tiny_gguf)
    texts = [model.ask("Hi", seed=seed, temperature=1.5).text for seed in (1, 1, 2, 2**32 - 1, 2**32 - 1, 0, 0)]
    assert texts[0] == texts[1] != texts[2]
    assert texts[3] == texts[4], "llama.cpp reads the last seed as 'any'"
    assert texts[5] == texts[6] != texts[0]


def conversation(turns: int, words: int) -> list[dict[str, str]]:
    told = [("user", "assistant")[n % 2] for n in range(turns)]
    return [{"role": role, "content": f"Turn {n}. " + "tide and sand " * words} for n, role in enumerate(told)]


def as_messages(turns: list[dict[str, str]]) -> Any:
    return TextParams.model_validate_json(json.dumps({"prompt": "x", "messages": turns})).messages


def warm_and_cold(model: Path, load: Load, words: int, seeds: tuple[int, ...], **params: Any) -> int:
    """Ask a third turn in a loaded model that has seen the first two, and in a fresh one; gives the tokens reused."""
    history = conversation(4, words)
    warm, reused = load(model), 0
    for seed in seeds:
        warm.ask(history[0]["content"], seed=seed, max_tokens=9, **params)
        warm.ask(history[2]["content"], messages=as_messages(history[:2]), seed=seed, max_tokens=17, **params)
        third = {"messages": as_messages(history), "seed": seed, "max_tokens": 24, **params}
        hot = warm.ask("And now?", **third)
        cold = load(model).ask("And now?", **third)
        assert hot.text == cold.text
        assert hot.said("answer") == cold.said("answer")
        assert cold.info["reused_tokens"] == 0
        assert hot.info["reused_tokens"] % warm.plan.settings["n_batch"] == 0
        reused += hot.info["reused_tokens"]
    return reused


@pytest.mark.parametrize("temperature", [0.0, 1.2])
def test_a_warm_turn_equals_a_cold_one(tiny_gguf: Path, load: Load, temperature: float) -> None:
    assert warm_and_cold(tiny_gguf, load, 8, (1, 2, 3), temperature=temperature) > 0


def test_a_warm_turn_of_the_starter_equals_a_cold_one(starter_gguf: Path, load: Load) -> None:
    assert warm_and_cold(starter_gguf, load, 20, (1, 2), temperature=1.0) > 0


def test_scores_after_reuse_are_the_same_to_the_bit(starter_gguf: Path) -> None:
    """Stronger than equal text. Reused without regard to chunks, scores of this prompt differ by up to 0.7."""
    settings = {"n_ctx": 1024, "n_gpu_layers": 0, "type_k": "f16", "type_v": "f16", "n_batch": 64, "n_ubatch": 64}
    llama = Llama(starter_gguf, {**settings, "n_threads": 1})

    def scores(tokens: list[int]) -> np.ndarray:
        assert list(llama.read_prompt(tokens, lambda: None))[-1] == len(tokens)
        return np.ctypeslib.as_array(llama.lib.llama_get_logits_ith(llama.ctx, -1), shape=(llama.n_vocab,)).copy()

    try:
        tokens = llama.tokenize("The tide and the sand are old friends. " * 20, False)
        cold = scores(tokens)
        llama.clear()
        scores(tokens[:100])
        for token in tokens[100:110]:  # an answer that the next prompt quotes
            llama.evaluate([token])
        warm = scores(tokens)
        assert np.array_equal(cold, warm)
        assert len(llama.kept) == len(tokens) // 64 * 64
    finally:
        llama.close()
        llama.close()


def test_a_quantised_cache_is_exact_too(tiny_gguf: Path, load: Load) -> None:
    assert warm_and_cold(tiny_gguf, lambda path: load(path, kv_cache="q8_0"), 8, (5,)) > 0


def test_a_sliding_window_reads_again_and_is_exact(tmp_path: Path, load: Load) -> None:
    path = text_models.random_model(tmp_path / "swa.gguf", arch="gemma3", layers=6)
    assert warm_and_cold(path, load, 30, (1, 2), temperature=0.8) == 0


def test_a_prompt_read_half_and_cancelled_leaves_no_trace(tiny_gguf: Path, load: Load, tmp_path: Path) -> None:
    prompt, count = "long " * 250, iter(range(10**6))
    model = load(tiny_gguf)
    cancelled = Context(tmp_path, cancelled=lambda: next(count) > 6)
    with pytest.raises(Cancelled):
        model.ask(prompt, ctx=cancelled)
    assert model.ask(prompt, seed=3).text == load(tiny_gguf).ask(prompt, seed=3).text


def test_a_long_prompt_tells_how_far_it_is(tiny_gguf: Path, load: Load) -> None:
    steps = [event for event in load(tiny_gguf).ask("word " * 100).events if isinstance(event, Progress)]
    assert [step.done for step in steps] == sorted(step.done for step in steps)
    assert steps[-1].done == steps[-1].total > 500
    assert {step.phase for step in steps} == {"prompt"}
    assert len(steps) >= 4


def test_a_prompt_longer_than_the_context_names_both_numbers(tiny_gguf: Path, load: Load) -> None:
    model = load(tiny_gguf, context=512)
    with pytest.raises(StudioError, match=r"The prompt is 1,0\d\d tokens; the context holds 512\.") as caught:
        model.ask("0123456789" * 100)
    assert "--context" in caught.value.hint
    assert model.pipeline._session._llama.cells == 0, "nothing was evaluated"
    assert model.ask("Hi").info["prompt_tokens"] < 60


def test_the_end_of_the_context_ends_the_answer(say: Callable[..., Loaded], load: Load, tiny_gguf: Path) -> None:
    model = load(tiny_gguf, context=256)
    answer = model.ask("0" * 200, max_tokens=100, temperature=2.0, seed=4)
    info = answer.info
    if info["finish_reason"] == "length":
        assert info["prompt_tokens"] + info["completion_tokens"] == 256
    assert info["prompt_tokens"] + info["completion_tokens"] <= 256
    assert say("abc").ask("Hi", max_tokens=2).info["finish_reason"] == "length"
    assert say("abc").ask("Hi").info["finish_reason"] == "stop"


def test_cancelling_works_while_the_prompt_is_read_and_while_text_is_written(
    starter_gguf: Path, load: Load, tmp_path: Path
) -> None:
    model = load(starter_gguf)
    for delay, prompt in ((0.3, "A long prompt. " * 400), (1.0, "Tell me a very long story.")):
        asked: list[bool] = []

        def cancelled(asked: list[bool] = asked, until: float = time.perf_counter() + delay) -> bool:
            asked.append(time.perf_counter() > until)
            return asked[-1]

        with pytest.raises(Cancelled):
            model.ask(prompt, ctx=Context(tmp_path, cancelled=cancelled), max_tokens=4000, seed=8, temperature=2.0)
        # An evaluation that is under way may ask again for each of its threads, but nothing new is begun.
        assert asked.count(True) <= 3 and len(asked) > 3
    assert model.ask("Hi", max_tokens=4).text


def test_cancelling_works_in_the_middle_of_one_evaluation(starter_gguf: Path) -> None:
    """A thousand tokens in one piece take six seconds here; nobody waits for them."""
    settings = {"n_ctx": 2048, "n_gpu_layers": 0, "type_k": "f16", "type_v": "f16", "n_batch": 1024, "n_ubatch": 1024}
    llama = Llama(starter_gguf, {**settings, "n_threads": 1})
    began = time.perf_counter()

    def check() -> None:
        if time.perf_counter() - began > 0.3:
            raise Cancelled

    try:
        with pytest.raises(Cancelled):
            list(llama.read_prompt(llama.tokenize("word " * 1000, False), check))
        assert llama.kept == []
    finally:
        llama.close()


def test_thinking_streams_apart_and_is_not_in_the_artefact(say: Callable[..., Loaded]) -> None:
    answer = say("<think>hm</think> OK", template=THINKS).ask("Hi", temperature=0.0)
    assert answer.said("thinking") == "hm"
    assert answer.text == "OK"
    assert answer.info["thinking_tokens"] >= 2
    opened = say("hm</think> OK", template=OPENS).ask("Hi", temperature=0.0)
    assert (opened.said("thinking"), opened.text) == ("hm", "OK")


def test_thinking_off_closes_what_the_template_opens(say: Callable[..., Loaded]) -> None:
    answer = say("OK", template=OPENS, after="\n").ask("Hi", temperature=0.0, thinking="off")
    assert (answer.said("thinking"), answer.text) == ("", "OK")
    unknown = say("OK", template=THINKS, after="\n").ask("Hi", temperature=0.0, thinking="off")
    assert (unknown.said("thinking"), unknown.text) == ("", "OK")


def test_control_tokens_are_never_shown(say: Callable[..., Loaded]) -> None:
    assert say("a<think>b</think>c").ask("Hi", temperature=0.0).text == "abc"


def test_a_character_of_several_tokens_comes_whole(say: Callable[..., Loaded]) -> None:
    answer = say("né🙂!").ask("Hi", temperature=0.0)
    assert answer.text == "né🙂!"
    assert [event.text for event in answer.events if isinstance(event, Token)] == ["n", "é", "🙂", "!"]


def test_a_stop_text_that_spans_tokens_ends_the_answer(say: Callable[..., Loaded]) -> None:
    answer = say("abcdef").ask("Hi", temperature=0.0, stop=["cd", "x"])
    assert answer.text == "ab"
    assert answer.info["finish_reason"] == "stop"
    assert say("abcdef").ask("Hi", temperature=0.0, stop=["fg"]).text == "abcdef"


def test_the_first_token_is_added_once(tmp_path: Path, load: Load) -> None:
    """By the template if it writes one, else by the vocabulary if it wants one."""
    counts = []
    for bos, start in ((False, ""), (True, ""), (True, "{{ bos_token }}"), (False, "{{ bos_token }}")):
        path = text_models.random_model(tmp_path / "b.gguf", bos=bos, template=start + text_models.CHATML)
        counts.append(load(path).ask("Hi").info["prompt_tokens"])
    assert [count - counts[0] for count in counts] == [0, 1, 1, 1]


def test_a_completion_has_no_template(say: Callable[..., Loaded], load: Load, tiny_gguf: Path) -> None:
    answer = say("xyz", after="Q").ask("Q", completion=True, temperature=0.0)
    assert answer.text == "xyz"
    assert answer.info["prompt_tokens"] == 1


def test_a_file_without_a_template_speaks_chatml_where_its_vocabulary_does(say: Callable[..., Loaded]) -> None:
    answer = say("OK", template=None).ask("Hi", temperature=0.0)
    assert answer.text == "OK"
    assert answer.info["prompt_tokens"] == len("<user\nHi>\n<assistant\n")


def test_another_file_without_a_template_has_turns_by_name(say: Callable[..., Loaded]) -> None:
    """It ends where it begins to speak for the user."""
    specials = ("<|endoftext|>", "<pad>", "<|im_end|>")
    answer = say(" OK\nUser:", after=":", template=None, specials=specials).ask("Hi", temperature=0.0)
    assert answer.text == " OK"
    assert answer.info["prompt_tokens"] == len("User: Hi\n\nAssistant:")


SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "legs": {"enum": [2, 4, 6]},
        "kind": {"$ref": "#/$defs/legs"},
    },
    "required": ["name", "legs", "kind"],
    "$defs": {"legs": {"type": "boolean"}},
}


def test_an_answer_is_held_to_its_schema(tiny_gguf: Path, load: Load) -> None:
    """A model of random weights has no wish to write JSON; the grammar makes it."""
    model = load(tiny_gguf)
    for seed in range(6):
        answer = model.ask("An animal", json_schema=SCHEMA, seed=seed, temperature=1.0, max_tokens=400)
        found = json.loads(answer.text)
        assert answer.artefact.media_type == "application/json"
        assert list(found) == ["name", "legs", "kind"]
        assert found["legs"] in (2, 4, 6)
        assert isinstance(found["kind"], bool), "a definition and a property of one name are two things"
        # Bytes that are no UTF-8 are shown as a mark each; llama.cpp counts them in its own way.
        assert len(found["name"]) <= 12 or "\ufffd" in found["name"]


def test_json_comes_after_thinking(say: Callable[..., Loaded]) -> None:
    model = say("hm</think>[]", template=OPENS)
    answer = model.ask("Hi", temperature=0.0, json_schema={"type": "array", "items": {"type": "null"}, "maxItems": 1})
    assert answer.said("thinking") == "hm"
    assert json.loads(answer.text) in ([], [None])


def test_a_thought_before_json_is_left_to_the_model_or_asked_for(say: Callable[..., Loaded]) -> None:
    request: dict[str, Any] = {
        "temperature": 0.0,
        "json_schema": {"type": "array", "items": {"type": "null"}, "maxItems": 1},
    }
    for script, thinking, thought in (
        ("<think>hm</think>[]", "auto", "hm"),
        ("OK", "auto", ""),
        ("hm</think>[]", "on", "hm"),
        ("OK", "off", ""),
    ):
        answer = say(script, template=THINKS).ask("Hi", thinking=thinking, **request)
        assert answer.said("thinking") == thought
        assert json.loads(answer.text) in ([], [None])


def test_earlier_thinking_does_not_go_back_into_the_prompt(say: Callable[..., Loaded]) -> None:
    model, counts = say("OK", template=THINKS), []
    for said in ("<think>a long thought</think>\n\nYes.", "Yes."):
        turns = [{"role": "user", "content": "Well?"}, {"role": "assistant", "content": said}]
        counts.append(model.ask("Hi", messages=as_messages(turns), temperature=0.0).info["prompt_tokens"])
    assert counts[0] == counts[1]


def test_json_that_was_cut_off_fails_and_says_so(tiny_gguf: Path, load: Load) -> None:
    with pytest.raises(StudioError, match=r"cut off after 3 tokens") as caught:
        load(tiny_gguf).ask("x", json_schema=SCHEMA, max_tokens=3)
    assert "--max-tokens" in caught.value.hint


def test_the_plan_does_not_depend_on_the_prompt() -> None:
    spec = ModelSpec.model_validate(
        {
            "id": "m",
            "pipeline": "text-llm",
            "components": {"model": {"class": "llama", "params": 8_000_000_000, "bytes": {"q4": 4_900_000_000}}},
        }
    )
    model = TextLLM(spec)
    model.uses_card = lambda: True  # type: ignore[method-assign]
    budget = Budget(vram_bytes=12 * 2**30, ram_bytes=16 * 2**30, threads=3)
    one = model.plan(TextParams(prompt="x", seed=1), budget)
    two = model.plan(TextParams(prompt="y" * 5000, seed=2, max_tokens=9, temperature=0.1), budget)
    assert one == two
    assert one.device == "cuda"
    assert one.settings["n_threads"] == 3
    assert one.settings["n_gpu_layers"] > 8
    assert 0 < one.peak_vram_bytes <= budget.vram_bytes
    model.uses_card = lambda: False  # type: ignore[method-assign]
    assert model.plan(TextParams(prompt="x"), budget).device == "cpu"
    with pytest.raises(DoesNotFit):
        model.plan(TextParams(prompt="x"), Budget(ram_bytes=2**30))


def test_llama_cpp_never_sees_a_file_that_fails_the_check(
    tiny_gguf: Path, tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(tiny_gguf.read_bytes()[:-1000])
    model = TextLLM(ModelSpec(id="tiny", pipeline="text-llm"), {"model": torn})
    plan = TextLLM(ModelSpec(id="tiny", pipeline="text-llm"), {"model": tiny_gguf}).plan(TextParams(prompt="x"), BUDGET)
    with caplog.at_level(logging.DEBUG), pytest.raises(BadWeights, match=r"torn\.gguf is not a usable GGUF file"):
        model.load(plan)
    assert "llama_model_loader" not in caplog.text


def test_a_sound_header_over_a_model_that_llama_cpp_refuses_is_one_line(tmp_path: Path, load: Load) -> None:
    path = text_models.random_model(tmp_path / "odd.gguf")
    data = path.read_bytes()
    path.write_bytes(data.replace(b"blk.1.ffn_up.weight", b"blk.1.ffn_xx.weight"))
    with pytest.raises(BadWeights, match=r"llama\.cpp cannot load odd\.gguf: .+\.$"):
        load(path)


def test_nothing_is_printed(tiny_gguf: Path, load: Load, capfd: pytest.CaptureFixture[str]) -> None:
    load(tiny_gguf).ask("Hi")
    assert capfd.readouterr() == ("", "")


def test_unloading_gives_everything_back(starter_gguf: Path, tmp_path: Path) -> None:
    process = psutil.Process()
    sizes = []
    for _ in range(5):
        model = Loaded({"model": starter_gguf}, tmp_path)
        model.ask("Hi", max_tokens=3)
        children = process.children()
        model.pipeline.unload()
        model.pipeline.unload()
        assert children
        assert not set(children) & set(process.children()), "the template's process lives on"
        gc.collect()
        sizes.append(process.memory_info().rss)
    assert sizes[-1] - sizes[1] < 40 * 2**20
    with pytest.raises(StudioError, match="not loaded"):
        model.ask("Hi")


def test_pictures_for_a_blind_model_are_refused_in_the_plan(tiny_gguf: Path, tmp_path: Path) -> None:
    model = TextLLM(ModelSpec(id="tiny", pipeline="text-llm"), {"model": tiny_gguf})
    with pytest.raises(BadRequest, match="tiny cannot see"):
        model.plan(TextParams(prompt="x", images=[tmp_path / "a.png"]), BUDGET)
