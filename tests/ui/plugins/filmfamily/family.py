"""Films of plain colours, made section by section, with everything that the page can do with such a family."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from studio.film_plugin import join, write_segment
from studio.plugin import Context, Event, Params, Pipeline, Preview, Progress, input_file

FRAMES, FPS = 36, 30
COLOURS = ((200, 40, 40), (40, 200, 40), (40, 40, 200), (200, 200, 40))


class FilmParams(Params):
    prompt: str = Field(default="", max_length=200, description="What happens.", json_schema_extra={"widget": "text"})
    section_prompts: list[str] = Field(
        default=[], max_length=9, description="One a section.", json_schema_extra={"widget": "sections"}
    )
    image: Annotated[Path, input_file("image/png")] = Field(description="The first picture.")
    seconds: float = Field(default=3.6, ge=0.1, le=9, description="How long.", json_schema_extra={"unit": "s"})
    width: int | None = Field(default=None, ge=32, le=256, description="Width.", json_schema_extra={"group": "size"})
    height: int | None = Field(default=None, ge=32, le=256, description="Height.", json_schema_extra={"group": "size"})
    wait_for: str = Field(
        default="", description="Wait for this file before each section but the first.",
        json_schema_extra={"advanced": True},
    )  # fmt: skip
    backwards: bool = Field(default=False, description="The end first.", json_schema_extra={"advanced": True})
    film: Annotated[Path, input_file("video/mp4")] | None = Field(
        default=None, description="A film of which a part is made again.", json_schema_extra={"advanced": True}
    )
    from_section: int | None = Field(
        default=None, ge=1, le=9, description="From here on.", json_schema_extra={"advanced": True}
    )


class Film(Pipeline[FilmParams]):
    task = "image->video"
    Params = FilmParams

    def offers(self) -> Mapping[str, Sequence[Any]]:
        return {"width": ((64, 64), (96, 64), (64, 96))}

    def generate(self, params: FilmParams, ctx: Context) -> Iterator[Event]:
        import numpy as np

        pause, made = threading.Event(), {}
        count = max(1, round(params.seconds * FPS / FRAMES))
        size = (params.height or 64, params.width or 64, 3)
        places = [ctx.workdir / f"segment-{number + 1:04}.mp4" for number in range(count)]
        for number in range(count):
            yield Progress(
                phase="denoise", done=1, total=2, part=number + 1, parts=count, part_eta_s=4.0, eta_s=12.0,
                backwards=params.backwards,
            )  # fmt: skip
            while number and params.wait_for and not Path(f"{params.wait_for}{number}").exists():
                ctx.check()
                pause.wait(0.02)
            at = count - 1 - number if params.backwards else number
            frames = np.full((FRAMES, *size), COLOURS[at % len(COLOURS)], np.uint8)
            made[at] = write_segment(places[at], frames, FPS)
            told = {"part": at + 1, "last_part": at + 1, "parts": count} if params.backwards else {}
            yield Preview(path=str(places[at]), media_type="video/mp4", **told)
        path = ctx.new_file("video/mp4")
        join([made[at].path for at in range(count)], path, FPS)
        yield ctx.made(path, "video/mp4", sections=count, sampling="forward", fps=FPS)
