"""Each way to go wrong is a parameter; the work itself is real files with real bytes."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.plugin import Artefact, Context, Event, Params, Pipeline, Progress, StudioError, input_file

Fault = Literal[
    "none", "segfault", "exit", "hang", "raise", "memory", "plain", "sysexit", "outside", "quiet", "noise", "network"
]  # fmt: skip


class FaultyParams(Params):
    prompt: str = Field(default="x", max_length=100_000, description="Stands in every output.")
    fault: Fault = Field(default="none", description="What goes wrong.")
    attempts: int = Field(default=99, ge=0, le=99, description="It goes wrong up to this attempt.")
    fault_after: int = Field(default=0, ge=0, le=20, description="It goes wrong once this many outputs are made.")
    outputs: int = Field(default=1, ge=0, le=20, description="How many files are made.")
    size_bytes: int = Field(default=0, ge=0, le=10**8, description="Each output is filled up to this size.")
    picture: bool = Field(default=False, description="Make pictures instead of texts.")
    image: Annotated[Path, input_file("image/png")] | None = Field(default=None, description="A picture to read.")
    journal: str = Field(default="", description="A file that gets one line for each time the work was begun.")
    wait_after: int = Field(default=0, ge=0, le=20, description="Wait once this many outputs are made.")
    keep: bool = Field(default=False, description="Note each attempt in the working folder, and keep that.")
    wait_for: str = Field(default="", description="Wait until this file exists.")


class Faulty(Pipeline[FaultyParams]):
    task = "text->text"
    Params = FaultyParams

    def generate(self, params: FaultyParams, ctx: Context) -> Iterator[Event]:
        if params.journal:
            with Path(params.journal).open("a") as file:
                file.write(f"{os.getpid()} {ctx.attempt} {params.prompt}\n")
        if params.keep:
            with (ctx.workdir / "attempts").open("a") as file:
                file.write(f"{ctx.attempt}")
            ctx.keep()
        yield Progress(phase="begun", done=1, total=1)
        if params.wait_for and params.wait_after == 0:
            yield from self.wait(params, ctx)
        if ctx.attempt <= params.attempts and not params.fault_after:
            yield from self.go_wrong(params)
        for number in range(1, params.outputs + 1):
            yield self.make(params, ctx, number)
            if number == params.fault_after and ctx.attempt <= params.attempts:
                yield from self.go_wrong(params)
            if params.wait_for and params.wait_after == number:
                yield from self.wait(params, ctx)

    def wait(self, params: FaultyParams, ctx: Context) -> Iterator[Event]:
        """Progress is made by the file, not by the clock."""
        pause = threading.Event()
        while not Path(params.wait_for).exists():
            ctx.check()
            pause.wait(0.01)
        yield Progress(phase="waited", done=1, total=1)

    def make(self, params: FaultyParams, ctx: Context, number: int) -> Artefact:
        if params.picture:
            from PIL import Image

            path = ctx.new_file("image/png")
            Image.new("RGB", (8, 8), (number, 0, 0)).save(path)
            return Artefact(path=str(path), media_type="image/png")
        text = f"{params.prompt} {number}"
        if params.keep:
            text += " attempts " + (ctx.workdir / "attempts").read_text()
        if params.image is not None:
            text += f" {params.image.stat().st_size}"
        return ctx.save(text.ljust(params.size_bytes), "text/plain")

    def go_wrong(self, params: FaultyParams) -> Iterator[Event]:
        if params.fault == "segfault":
            ctypes.string_at(0)
        elif params.fault == "exit":
            os._exit(7)
        elif params.fault == "hang":  # native, deaf to SIGTERM, and no other thread of this process runs any more
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            ctypes.PyDLL(None).sleep(600)
        elif params.fault == "raise":
            raise ValueError("a bug\nin two lines")
        elif params.fault == "memory":
            raise MemoryError
        elif params.fault == "plain":
            raise StudioError("The moon is not in the sky.", "Wait for the night.")
        elif params.fault == "sysexit":
            sys.exit(3)
        elif params.fault == "noise":
            print("not an event")
            os.write(1, b'{"event": "done"}\n\x00\xff\n')
        elif params.fault == "network":
            with socket.create_connection(("127.0.0.1", int(params.prompt)), timeout=5) as connection:
                connection.send(b"secrets")
        elif params.fault == "outside":
            yield Artefact(path="/etc/hostname", media_type="text/plain")
        elif params.fault == "quiet":
            yield Artefact(path=str(Path(params.wait_for)), media_type="text/plain")
