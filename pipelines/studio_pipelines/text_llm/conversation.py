"""From a request to the prompt that the model reads: its turns, its template, its thinking.

Templates differ in what they take. Some want the content of a turn as text, some as a list of parts, some refuse a
system turn. Each way is tried until one keeps the last turn's text (and the place of every picture).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studio.plugin import BadWeights

from .params import TextParams
from .template import PLAIN_STOP, TemplateFailed, TemplateProcess, render_chatml, render_plain
from .thinking import FORMATS, Format, State, detect, state_after, without_thinking

Turn = dict[str, Any]
DEFAULT_TEMPLATE = "tokenizer.chat_template"


@dataclass(frozen=True)
class Prompt:
    """The text to evaluate, where the model will start to write, and stops that the format needs."""

    text: str
    state: State
    pictures: tuple[Path, ...] = ()
    stops: tuple[str, ...] = ()
    day: str = ""
    """The day that the template wrote into it; empty if none."""


@dataclass(frozen=True)
class Words:
    """What of a vocabulary the prompt needs."""

    bos: str
    eos: str
    chatml: bool


def thinking_format(setting: str, templates: dict[str, str]) -> Format | None:
    """The format that the catalogue names, or the one that the file's template speaks of."""
    name = detect(templates.get(DEFAULT_TEMPLATE, "")) if setting == "auto" else setting
    if name != "none" and name not in FORMATS:
        raise BadWeights(f"The catalogue gives the thinking format {name!r}.", f"Known: none, {', '.join(FORMATS)}.")
    return FORMATS.get(name)


def turns_of(params: TextParams, fmt: Format | None, marker: str) -> tuple[list[Turn], tuple[Path, ...]]:
    """The conversation as templates see it. Every picture is a ``marker`` before the text of its turn."""
    turns: list[Turn] = []
    pictures: list[Path] = []
    if params.system:
        turns.append({"role": "system", "content": params.system})
    for turn in params.messages:
        said = without_thinking(fmt, turn.content) if turn.role == "assistant" else turn.content
        turns.append({"role": turn.role, "content": (marker + "\n") * len(turn.images) + said})
        pictures += turn.images
    turns.append({"role": "user", "content": (marker + "\n") * len(params.images) + params.prompt})
    return turns, (*pictures, *params.images)


def _with_parts(turns: list[Turn]) -> list[Turn]:
    return [{**turn, "content": [{"type": "text", "text": turn["content"]}]} for turn in turns]


def _without_system(turns: list[Turn]) -> list[Turn]:
    """The system text at the head of the first user turn, for templates that know only two roles."""
    system = "\n\n".join(turn["content"] for turn in turns if turn["role"] == "system")
    rest = [dict(turn) for turn in turns if turn["role"] != "system"]
    first = next(turn for turn in rest if turn["role"] == "user")
    first["content"] = f"{system}\n\n{first['content']}"
    return rest


def _render(process: TemplateProcess, words: Words, turns: list[Turn], params: TextParams, marker: str) -> str:
    switch = {"on": True, "off": False}.get(params.thinking)
    values: dict[str, Any] = {
        "add_generation_prompt": True, "bos_token": words.bos, "eos_token": words.eos, "tools": None,
    }  # fmt: skip
    if switch is not None:
        # Four names for one switch: Qwen 3 and GLM; DeepSeek 3.1 and Granite; Command A; gpt-oss, which has no off.
        values |= {"enable_thinking": switch, "thinking": switch, "reasoning": switch}
        values["reasoning_effort"] = "medium" if switch else "low"
    ways = [turns, _with_parts(turns)]
    if any(turn["role"] == "system" for turn in turns):
        ways += [_without_system(turns), _with_parts(_without_system(turns))]
    count = sum(turn["content"].count(marker) for turn in turns) if marker else 0
    first_text, failure = "", None
    for way in ways:
        try:
            text = process.render(DEFAULT_TEMPLATE, {**values, "messages": way}, params.date or "")
        except TemplateFailed as error:
            failure = failure or error
            if error.fatal:
                break
            continue
        if turns[-1]["content"].strip() in text and (not marker or text.count(marker) == count):
            return text
        first_text = first_text or text
    if first_text and not count:
        return first_text  # a template may rewrite what it is given
    raise failure or TemplateFailed("The model's chat template has no place for pictures.", "Leave out the images.")


def build_prompt(
    params: TextParams, process: TemplateProcess | None, words: Words, fmt: Format | None, marker: str = ""
) -> Prompt:
    """The prompt of a request. Without a template: ChatML if the vocabulary has it, else turns by name."""
    if params.completion:
        return Prompt(params.prompt, "answer")
    turns, pictures = turns_of(params, fmt, marker)
    if process is None:
        text = render_chatml(turns) if words.chatml else render_plain(turns)
        return Prompt(text, state_after(fmt, text), pictures, () if words.chatml else (PLAIN_STOP,))
    text = _render(process, words, turns, params, marker)
    day = process.day if process.dated else ""
    state = state_after(fmt, text)
    if fmt is None or fmt.harmony:
        return Prompt(text, state, pictures, day=day)
    if params.thinking == "off" and state != "after":
        # No switch in this template: close the thinking ourselves, as Qwen 3's template does.
        text += f"\n{fmt.close}\n\n" if state == "thinking" else f"{fmt.open}\n\n{fmt.close}\n\n"
    elif params.thinking == "on" and state == "start" and params.json_schema is not None:
        # The model would have to open it against the grammar, so it is opened for the model.
        text += fmt.open + "\n"
    return Prompt(text, state_after(fmt, text), pictures, day=day)
