"""The small process in which a model file's chat template runs. Started as a script by ``template.py``.

A chat template is a program from a stranger: Jinja's sandbox has had holes (llama-cpp-python CVE-2024-34359), and
even inside it a loop or ``'a' * 200000000`` takes all time or memory. So it gets a process of its own with no
environment, a limit on memory, no right to write files, and a parent that kills it after two seconds. Reads one
JSON object a line, answers with one. Follows what Transformers gives to templates:
https://github.com/huggingface/transformers/blob/main/src/transformers/utils/chat_template_utils.py
"""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

MEMORY_BYTES = 512 * 1024**2
OUTPUT_MAX = 8_000_000


def limit_resources() -> None:
    """Memory, processes, open and written files; only where the system knows such limits (not on Windows)."""
    try:
        import resource
    except ImportError:
        return
    limits = {"RLIMIT_AS": MEMORY_BYTES, "RLIMIT_FSIZE": 0, "RLIMIT_NOFILE": 16, "RLIMIT_CORE": 0}
    for name, value in limits.items():
        kind = getattr(resource, name, None)
        if kind is not None:
            try:
                resource.setrlimit(kind, (value, value))
            except (ValueError, OSError):  # macOS refuses RLIMIT_AS; the parent's clock remains
                continue


class Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what to train on; here it only wraps its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2's own declaration

    def parse(self, parser: Parser) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def raise_exception(message: str) -> None:
    """What templates call to refuse a conversation."""
    raise jinja2.TemplateError(str(message))


class Calendar:
    """The day that the request names, at midnight: the same request must give the same prompt at any hour."""

    def __init__(self) -> None:
        self.day = datetime(2000, 1, 1)
        self.asked = False

    def strftime_now(self, form: str) -> str:
        """The day as the template wants it written; remembers that it was asked for."""
        self.asked = True
        return self.day.strftime(form)


def tojson(value: object, ensure_ascii: bool = False, indent: int | None = None, **options: Any) -> str:
    """Plain JSON; Jinja's own filter escapes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, **options)


def environment(calendar: Calendar) -> ImmutableSandboxedEnvironment:
    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = calendar.strftime_now
    return env


def answer(env: ImmutableSandboxedEnvironment, compiled: dict[str, jinja2.Template], request: dict[str, Any]) -> str:
    """Do one request: keep the templates of ``compile``, or ``render`` one of them."""
    for name, source in request.get("compile", {}).items():
        compiled[name] = env.from_string(source)
    if "render" not in request:
        return ""
    parts, size = [], 0
    for part in compiled[request["render"]].generate(**request["values"]):
        size += len(part)
        if size > OUTPUT_MAX:
            raise ValueError(f"it writes more than {OUTPUT_MAX:,} characters")
        parts.append(part)
    return "".join(parts)


def main() -> None:
    limit_resources()
    calendar = Calendar()
    env = environment(calendar)
    compiled: dict[str, jinja2.Template] = {}
    reply: dict[str, Any]
    for line in sys.stdin.buffer:
        try:
            request = json.loads(line)
            calendar.day, calendar.asked = datetime.fromisoformat(request["day"]), False
            reply = {"text": answer(env, compiled, request), "dated": calendar.asked}
        except MemoryError:
            reply = {"error": "it needs more memory than a template may have"}
        except RecursionError:
            reply = {"error": "it is nested too deeply"}
        except Exception as error:  # noqa: BLE001 - whatever a stranger's program raises is an answer, too
            reply = {"error": f"{str(error)[:300] or type(error).__name__}"}
        sys.stdout.buffer.write(json.dumps(reply).encode() + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main()
