"""The chat template of a model file is a stranger's program: it may fail, it may not harm or hang anything."""

from __future__ import annotations

import datetime
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import text_models

from studio.plugin import BadWeights, StudioError
from studio_pipelines.text_llm.template import TemplateFailed, TemplateProcess, render_chatml, render_plain

TURNS = [{"role": "user", "content": "Hi"}]
VALUES: dict[str, Any] = {"messages": TURNS, "add_generation_prompt": True, "bos_token": "<s>", "eos_token": "</s>"}
Make = Callable[..., TemplateProcess]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[TemplateProcess] = []

    def do(template: str, seconds: float = 2.0) -> TemplateProcess:
        made.append(TemplateProcess({"t": template, "good": "[{{ messages[0]['content'] }}]"}, "m.gguf", seconds))
        return made[-1]

    yield do
    for one in made:
        one.close()
        one.close()


def test_what_templates_use_is_there(make: Make) -> None:
    process = make(
        "{{ bos_token }}{% for m in messages %}\n"
        "    {%- if loop.index > 5 %}{% break %}{% endif %}\n"
        "    {% if m['role'] == 'user' %}\n"
        "U:{{ m['content'] | trim }}\n"
        "    {% endif %}\n"
        "{% endfor %}{% generation %}{{ {'a': 'é<b>'} | tojson }}{% endgeneration %}"
        "{{ strftime_now('%Y') }}{{ tools is none }}{{ enable_thinking is defined }}{{ eos_token }}"
    )
    year = datetime.datetime.now().year
    text = process.render("t", {**VALUES, "tools": None})
    assert text == f'<s>U:Hi\n{{"a": "é<b>"}}{year}TrueFalse</s>'


def test_the_day_is_pinned_and_told(make: Make) -> None:
    process = make("{{ strftime_now('%d %b %Y %H:%M:%S') }}")
    assert process.render("t", VALUES, "2024-07-26") == "26 Jul 2024 00:00:00"
    assert process.dated
    assert process.render("t", VALUES).startswith(datetime.date.today().strftime("%d %b %Y"))
    process.render("good", VALUES)
    assert not process.dated


HOSTILE = {
    "globals": "{{ lipsum.__globals__['os'].popen('touch CANARY').read() }}",
    "globals by filter": "{{ (lipsum|attr('__globals__'))['os'].system('touch CANARY') }}",
    "subclasses": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "cycler": "{{ cycler.__init__.__globals__.os.popen('touch CANARY').read() }}",
    "loops": "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3,
    "long output": "{% for a in range(99999) %}{{ 'aaaaaaaaaa' * 1000 }}{% endfor %}",
    "memory": "{% set n = namespace(x='a' * 10000000) %}{% for a in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}",
    "big power": "{{ 9 ** (9 ** 9) }}",
    "recursion": "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "raises": "{{ raise_exception('Roles must\\n alternate') }}",
    "mutates": "{{ messages.append(1) }}",
    "undefined": "{{ nothing.at.all }}",
    "syntax": "{% if %}",
    "folded": "{{ 'a' * 200000000 }}",
    "nested brackets": "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_is_one_error_and_the_next_request_works(
    make: Make, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    process = make(HOSTILE[name])
    with pytest.raises(StudioError, match=r"^The chat template of m\.gguf") as caught:
        process.render("t", VALUES)
    assert "\n" not in caught.value.what
    if name in ("loops", "big power"):
        assert "took longer than 2 s" in caught.value.what, "the limit that is promised"
    assert not list(tmp_path.iterdir()), "the canary was touched"
    good = TemplateProcess({"good": "[{{ messages[0]['content'] }}]"}, "m.gguf")
    try:
        assert good.render("good", VALUES) == "[Hi]"
    finally:
        good.close()


def test_after_a_killed_child_the_same_process_object_answers_again(make: Make) -> None:
    process = make("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}", seconds=0.5)
    with pytest.raises(TemplateFailed, match=r"took longer than 0\.5 s"):
        process.render("t", VALUES)
    assert process.pid is None
    assert process.render("good", VALUES) == "[Hi]"
    assert process.pid is not None
    psutil.Process(process.pid).kill()  # as the system does when memory runs out
    psutil.Process(process.pid).wait(5)
    assert process.render("good", VALUES) == "[Hi]"


@pytest.mark.skipif(sys.platform != "linux", reason="reads the limits from /proc")
def test_the_child_has_no_secrets_and_little_memory(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "secret")
    process = make("x")
    process.render("good", VALUES)
    assert process.pid is not None
    folder = Path("/proc", str(process.pid))
    assert "secret" not in (folder / "environ").read_text()
    assert "536870912" in next(line for line in (folder / "limits").read_text().splitlines() if "address space" in line)


def test_closing_ends_the_child(make: Make) -> None:
    process = make("x")
    process.render("good", VALUES)
    child = psutil.Process(process.pid)
    process.close()
    assert not child.is_running()
    assert psutil.Process(os.getpid()).is_running()


def test_a_template_that_cannot_be_compiled_is_refused_before_the_model_loads(
    load: Callable[..., Any], tmp_path: Path
) -> None:
    path = text_models.random_model(tmp_path / "bad.gguf", template="{{ 'a' * 200000000 }}")
    with pytest.raises(BadWeights, match=r"The chat template of bad\.gguf"):
        load(path)


def test_formats_for_files_without_a_template() -> None:
    turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi"}]
    assert render_chatml(turns).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")
    assert render_plain(turns) == "Be kind.\n\nUser: Hi\n\nAssistant:"
