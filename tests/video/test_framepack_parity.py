"""Our loop against ``HunyuanVideoFramepackPipeline`` (diffusers 0.42.1), on tiny networks of the real classes.

Latents and frames are equal to the bit: both sampling orders, one to six sections, weights resident and streamed. What
we do otherwise, and how the comparison allows for it:

* Random numbers. The pipeline draws the picture's latent and then all sections' noise from one generator; ours come
  from (seed, section), so that a film can go on anywhere. The pipeline is given our generators (``Fed``).
* Length. The pipeline counts sections by their 33 frames, we by the 36 that each makes the film longer, as the
  reference does. It is asked for 33 frames a section.
* ``last_image_latents`` is ignored by the pipeline unless there is a ``last_image``, which it encodes again; it also
  computes the mean of both pictures' embeddings and does not use it. We take the last picture's latent, as it does, and
  the first one's embedding.
* Pictures. The pipeline stretches them to the size; we cut their middle out, as the reference does. They have the size
  here.
* After the last section of an inverted film the pipeline's latents have the first frame's in front, as ours do.
* Not in the pipeline: prompts by section, a step cache, UniPC.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import framepack_models
import numpy as np
import pytest
import torch
from PIL import Image

from studio.plugin import ModelSpec
from studio_pipelines.video_framepack.assemble import Assembled, assemble
from studio_pipelines.video_framepack.catalogued import settings_of
from studio_pipelines.video_framepack.encoding import stream
from studio_pipelines.video_framepack.request import FilmRequest
from studio_pipelines.video_framepack.sampling import Loop, Section, State
from studio_pipelines.video_framepack.sections import Sampling, Schedule

SIZE = framepack_models.SIZE
SEED, STEPS = 11, 2
NAMES = {"forward": "vanilla", "inverted": "inverted_anti_drifting"}
RESIDENT: Mapping[str, Any] = {}
STREAMED = {
    "networks": {
        "transformer": {"precision": "fp32", "blocks": 4, "resident": 1, "disk_bytes": 1},
        "text_encoder": {"precision": "fp32", "blocks": 4, "resident": 0, "disk_bytes": 1},
    },
    "free_after_use": True,
}
"""All from the disk: on a processor, what is in memory is used where it lies."""


class Fed:
    """The bare pipeline, given the random numbers of our sections, in the order in which it asks for them."""

    def __init__(self, folder: Path, seed: int = SEED) -> None:
        from diffusers import HunyuanVideoFramepackPipeline

        pipe: Any = HunyuanVideoFramepackPipeline.from_pretrained(folder, local_files_only=True)
        pipe.set_progress_bar_config(disable=True)
        for part in pipe.components.values():
            if isinstance(part, torch.nn.Module):  # as image_models.load: what alone moves the last bits is made alike
                for parameter in part.requires_grad_(False).parameters():
                    parameter.data = parameter.data.clone()
        self.pipe, self.seed = pipe, seed
        self._noise, self._pictures = pipe.prepare_latents, pipe.prepare_image_latents
        self.drawn: list[int | str] = []
        pipe.prepare_latents = self._feed(self._noise, [0, 1, 2, 3, 4, 5])
        pipe.prepare_image_latents = self._feed(self._pictures, ["image", "last_image"])

    def _feed(self, method: Callable[..., Any], parts: list[Any]) -> Callable[..., Any]:
        def fed(*args: Any, **kwargs: Any) -> Any:
            part = parts[sum(one in parts for one in self.drawn)]
            self.drawn.append(part)
            return method(*args, **{**kwargs, "generator": stream(self.seed, part)})

        return fed

    def __call__(self, request: FilmRequest, **options: Any) -> Any:
        self.drawn.clear()
        schedule = request.schedule
        return self.pipe(
            image=request.image, last_image=request.last_image, prompt=request.prompts[0],
            negative_prompt=request.negative_prompt if request.guided else None,
            height=request.height, width=request.width, num_frames=schedule.sections * schedule.overlap,
            latent_window_size=schedule.window, num_inference_steps=request.steps,
            true_cfg_scale=request.true_cfg_scale, guidance_scale=request.guidance_scale,
            prompt_template=framepack_models.TEMPLATE, max_sequence_length=64,
            sampling_type=NAMES[schedule.sampling], **options,
        ).frames  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("framepack")
    pipe = framepack_models.framepack()
    with torch.no_grad():
        # Random layers of these sizes hardly move anything; films of which every part tells need larger ones.
        for parameter in pipe.transformer.parameters():
            parameter.mul_(2.0)
    pipe.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def fed(folder: Path) -> Fed:
    return Fed(folder)


def loaded(folder: Path, plan: Mapping[str, Any], **settings: Any) -> Assembled:
    entry = framepack_models.catalogue_entry(folder)
    entry["settings"] = {**entry["settings"], **settings}
    files = {path.name: path for path in folder.iterdir() if path.is_dir()}
    return assemble(files, settings_of(ModelSpec.model_validate(entry)), plan, torch.device("cpu"))


@pytest.fixture(scope="module", params=[RESIDENT, STREAMED], ids=["resident", "streamed"])
def model(folder: Path, request: pytest.FixtureRequest) -> Iterator[Assembled]:
    made = loaded(folder, request.param)
    yield made
    made.close()


@pytest.fixture(scope="module")
def resident(folder: Path) -> Iterator[Assembled]:
    made = loaded(folder, RESIDENT)
    yield made
    made.close()


def picture(seed: int = 3) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), np.uint8)
    return Image.fromarray(pixels).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def asked(sampling: Sampling, sections: int, **more: Any) -> FilmRequest:
    values: dict[str, Any] = {
        "schedule": Schedule(sections, sampling), "width": SIZE, "height": SIZE, "prompts": ("a red cat",) * sections,
        "seed": SEED, "steps": STEPS, "guidance_scale": 10.0, "image": picture(),
    }  # fmt: skip
    return FilmRequest(**{**values, **more})


def film(loop: Loop, state: State | None = None) -> list[Section]:
    """All sections that are left."""
    state, made = state or loop.begin(), []
    while state.section < loop.request.schedule.sections:
        made.append(loop.section(state))
        state = made[-1].state
    return made


def frames_of(made: list[Section], schedule: Schedule) -> np.ndarray:
    return np.concatenate([made[number].settled for number in schedule.in_time()])


def latents_of(made: list[Section], schedule: Schedule) -> torch.Tensor:
    """All latents of a film in time order, its first frame's in front."""
    start = made[0].state.tensors["start"]
    return torch.cat([start, *(made[number].latents for number in schedule.in_time())], dim=2)


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2, 3, 4, 5, 6])
def test_latents_are_the_pipelines(resident: Assembled, fed: Fed, sampling: Sampling, sections: int) -> None:
    request = asked(sampling, sections)
    theirs = fed(request, output_type="latent")[-1]
    assert torch.equal(latents_of(film(Loop(resident, request)), request.schedule), theirs)


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 3])
def test_frames_are_the_pipelines(model: Assembled, fed: Fed, sampling: Sampling, sections: int) -> None:
    """Decoded section by section, blended and rounded: resident, and streamed with networks that take turns."""
    request = asked(sampling, sections)
    theirs = np.stack([np.asarray(frame) for frame in fed(request, output_type="pil")[0]])
    ours = frames_of(film(Loop(model, request)), request.schedule)
    assert ours.shape == (36 * sections + 1, SIZE, SIZE, 3)
    assert np.array_equal(ours, theirs)
    assert len(np.unique(ours)) > 50, "a film in which there is something to compare"
