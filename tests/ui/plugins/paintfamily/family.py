"""Paints one colour, with every kind of parameter that a form can show."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from studio.plugin import (
    GIB,
    Artefact,
    Budget,
    Context,
    DoesNotFit,
    Event,
    Params,
    Phase,
    Pipeline,
    Plan,
    Preview,
    Progress,
    input_file,
)


class PaintParams(Params):
    prompt: str = Field(
        min_length=1, max_length=200, description="What to paint.", json_schema_extra={"widget": "text"}
    )
    colour: Literal["red", "green", "blue"] = Field(default="red", description="The colour.")
    side: int = Field(default=32, ge=8, le=64, description="Pixels of a side.", json_schema_extra={"group": "size"})
    tilt: float | None = Field(
        default=None, ge=-1, le=1, description="How tilted.", json_schema_extra={"group": "style", "widget": "knob"}
    )
    copies: int = Field(default=1, ge=1, le=4, description="How many.", json_schema_extra={"group": "style"})
    frame: bool = Field(default=False, description="With a frame.", json_schema_extra={"advanced": True})
    words: list[str] = Field(default=[], max_length=4, description="Words.", json_schema_extra={"advanced": True})
    image: Annotated[Path, input_file("image/png")] | None = Field(default=None, description="A picture to cover.")
    needs_gib: int = Field(
        default=0, ge=0, le=10**6, description="What it says that it needs.", json_schema_extra={"advanced": True}
    )
    wait_for: str = Field(default="", description="Wait until this file exists.", json_schema_extra={"advanced": True})


class Paint(Pipeline[PaintParams]):
    task = "text->image"
    Params = PaintParams

    def plan(self, params: PaintParams, budget: Budget) -> Plan:
        needed = params.needs_gib * GIB
        if needed > budget.ram_bytes:
            raise DoesNotFit(f"It needs {params.needs_gib} GiB.", "Ask for less.")
        return Plan(model=self.spec.id, peak_ram_bytes=needed, phases=(Phase(name="load", ram_bytes=needed),))

    def generate(self, params: PaintParams, ctx: Context) -> Iterator[Event]:
        from PIL import Image

        pause = threading.Event()
        for number in range(1, params.copies + 1):
            picture = Image.new("RGB", (params.side, params.side), params.colour)
            preview = ctx.workdir / "preview.png"
            picture.resize((8, 8)).save(preview)
            yield Preview(path=str(preview), media_type="image/png")
            yield Progress(phase="paint", done=number - 0.5, total=params.copies, eta_s=1.0)
            while params.wait_for and not Path(params.wait_for).exists():
                ctx.check()
                pause.wait(0.02)
            path = ctx.new_file("image/png")
            picture.save(path)
            yield Artefact(path=str(path), media_type="image/png")
