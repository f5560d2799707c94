"""The chat template of a model file, rendered at arm's length, and the plain formats for files without one.

``TemplateProcess`` keeps one child process (``template_child``) per loaded model. It answers within two seconds
or is killed; the next request starts another. Templates are compiled there before llama.cpp opens the file.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from studio.plugin import BadWeights, StudioError

SECONDS = 2.0
START_SECONDS = 20.0
REPLY_MAX = 64_000_000
_CHILD = Path(__file__).with_name("template_child.py")


class TemplateFailed(StudioError):
    """The template refused the conversation, failed, or took too long (``fatal``: trying again is no use)."""

    def __init__(self, what: str, hint: str = "", *, fatal: bool = False) -> None:
        super().__init__(what, hint)
        self.fatal = fatal


class TemplateProcess:
    """The templates of one model file, by name, in a process of their own. Not for several threads at once."""

    def __init__(self, templates: Mapping[str, str], file_name: str, seconds: float = SECONDS) -> None:
        self._templates = dict(templates)
        self._file_name = file_name
        self._seconds = seconds
        self._child: subprocess.Popen[bytes] | None = None
        self.day = date.today().isoformat()
        self.dated = False

    @property
    def pid(self) -> int | None:
        return self._child.pid if self._child else None

    def compile(self) -> None:
        """Have every template compiled; raises ``BadWeights`` for one that cannot be."""
        try:
            self._ask({})
        except TemplateFailed as error:
            raise BadWeights(error.what, "Choose another file of this model.") from error

    def render(self, name: str, values: Mapping[str, Any], day: str = "") -> str:
        """The prompt that template ``name`` makes of ``values`` on ``day`` (ISO; today). ``dated``: it used the day."""
        self.day = day or date.today().isoformat()
        return self._ask({"render": name, "values": dict(values)})

    def close(self) -> None:
        """End the child. May be called twice."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe:
                pipe.close()

    def _ask(self, request: dict[str, Any]) -> str:
        if self._child is None or self._child.poll() is not None:
            self._start()
        return self._exchange(request, self._seconds) if request else ""

    def _start(self) -> None:
        self.close()
        # -P: this folder stays off the child's path, where its modules would hide others. Of the environment the
        # child gets nothing that could be a secret.
        environment = {name: os.environ[name] for name in ("SYSTEMROOT", "TZ") if name in os.environ}
        self._child = subprocess.Popen(
            [sys.executable, "-P", "-X", "utf8", str(_CHILD)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment,
        )  # fmt: skip
        # An empty request first, so that a slow start of Python is not counted against the template.
        self._exchange({}, START_SECONDS)
        self._exchange({"compile": self._templates}, self._seconds)

    def _exchange(self, request: dict[str, Any], seconds: float) -> str:
        child = self._child
        line = json.dumps({**request, "day": self.day}).encode() + b"\n"
        reply: list[bytes] = []

        def talk() -> None:
            try:
                if child and child.stdin and child.stdout:
                    child.stdin.write(line)
                    child.stdin.flush()
                    reply.append(child.stdout.readline(REPLY_MAX))
            except (OSError, ValueError):  # the child died, or was killed below
                reply.append(b"")

        # A thread, because pipes cannot be waited for on Windows; killing the child ends it.
        thread = threading.Thread(target=talk, daemon=True)
        thread.start()
        thread.join(seconds)
        if thread.is_alive():
            if child:
                child.kill()
            thread.join()
            self.close()
            raise self._failed(f"took longer than {seconds:g} s", fatal=True)
        if not reply or not reply[0].endswith(b"\n"):
            self.close()
            raise self._failed("ended the process that it ran in", fatal=True)
        answer = json.loads(reply[0])
        if "error" in answer:
            raise self._failed(f"failed: {_one_line(answer['error'])}")
        self.dated = bool(answer["dated"])
        return str(answer["text"])

    def _failed(self, why: str, *, fatal: bool = False) -> TemplateFailed:
        what = f"The chat template of {self._file_name} {why}."
        return TemplateFailed(what, "Change the conversation, or use `completion`.", fatal=fatal)


def _one_line(text: str) -> str:
    plain = "".join(char if char.isprintable() else " " for char in text)
    return " ".join(plain.split())[:200].rstrip(".") or "it gave no reason"


def render_chatml(messages: list[dict[str, Any]]) -> str:
    """ChatML: for a file without a template whose vocabulary has ``<|im_start|>``."""
    turns = [f"<|im_start|>{turn['role']}\n{turn['content']}<|im_end|>\n" for turn in messages]
    return "".join(turns) + "<|im_start|>assistant\n"


def render_plain(messages: list[dict[str, Any]]) -> str:
    """For any other file: turns by name, as base models have seen in transcripts."""
    names = {"user": "User: ", "assistant": "Assistant: ", "system": ""}
    return "".join(f"{names[turn['role']]}{turn['content']}\n\n" for turn in messages) + "Assistant:"


PLAIN_STOP = "\nUser:"
