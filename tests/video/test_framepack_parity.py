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
from framepack_loop import SEED, SIZE, Undecoded, asked, film, frames_of, latents_of, loaded, moving, picture

from studio_pipelines.video_framepack.assemble import Assembled
from studio_pipelines.video_framepack.encoding import stream
from studio_pipelines.video_framepack.request import FilmRequest
from studio_pipelines.video_framepack.sampling import Loop
from studio_pipelines.video_framepack.sections import Sampling

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
    return moving(tmp_path_factory.mktemp("framepack"))


@pytest.fixture(scope="module")
def fed(folder: Path) -> Fed:
    return Fed(folder)


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


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
@pytest.mark.parametrize("sections", [1, 2, 3, 4, 5, 6])
def test_latents_are_the_pipelines(resident: Assembled, fed: Fed, sampling: Sampling, sections: int) -> None:
    request = asked(sampling, sections)
    theirs = fed(request, output_type="latent")[-1]
    assert torch.equal(latents_of(film(Undecoded(resident, request)), request.schedule), theirs)


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


@pytest.mark.parametrize("sampling", ["forward", "inverted"])
def test_guidance_by_a_negative_prompt_is_the_pipelines(resident: Assembled, fed: Fed, sampling: Sampling) -> None:
    request = asked(sampling, 2, negative_prompt="a dog", true_cfg_scale=3.0, guidance_scale=6.0)
    plain = asked(sampling, 2, guidance_scale=6.0)
    ours = latents_of(film(Undecoded(resident, request)), request.schedule)
    assert torch.equal(ours, fed(request, output_type="latent")[-1])
    assert not torch.equal(ours, latents_of(film(Undecoded(resident, plain)), request.schedule))


def test_a_last_frame_is_the_pipelines(resident: Assembled, fed: Fed) -> None:
    request = asked("inverted", 3, last_image=picture(4))
    ours = latents_of(film(Undecoded(resident, request)), request.schedule)
    assert torch.equal(ours, fed(request, output_type="latent")[-1])
    assert not torch.equal(ours, latents_of(film(Undecoded(resident, asked("inverted", 3))), request.schedule))


def test_unipc_is_the_pipelines_when_it_is_given_that_scheduler(resident: Assembled, fed: Fed) -> None:
    """UniPC over the noise levels that the reference takes: shifted by the number of tokens (36 here)."""
    from diffusers import UniPCMultistepScheduler

    request = asked("forward", 2, sampler="unipc", steps=4)
    own, shift = fed.pipe.scheduler, float(np.exp(0.5 + (36 - 256) * (1.15 - 0.5) / (4096 - 256)))
    fed.pipe.scheduler = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )
    try:
        theirs = fed(request, output_type="latent")[-1]
    finally:
        fed.pipe.scheduler = own
    assert torch.equal(latents_of(film(Undecoded(resident, request)), request.schedule), theirs)
