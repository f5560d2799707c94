"""Which of diffusers' classes does what. Names only: nothing is imported here.

All classes of one row share their networks, so that a loaded model serves every row's mode. The rows are of
diffusers 0.42 (``pipelines/auto_pipeline.py`` and the classes themselves).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Task = Literal["text", "image", "inpaint", "edit"]


@dataclass(frozen=True)
class PipelineClass:
    """One architecture: its class for each task, and how it names things.

    ``guidance`` is the argument of classifier-free guidance, "" where the model knows none; ``negative``: whether it
    takes a negative prompt; ``flow``: trained for flow matching (its schedulers are others).
    """

    text: str = ""
    image: str = ""
    inpaint: str = ""
    edit: str = ""
    denoiser: str = "transformer"
    guidance: str = "guidance_scale"
    negative: bool = True
    flow: bool = True

    @property
    def tasks(self) -> tuple[Task, ...]:
        names: tuple[Task, ...] = ("text", "image", "inpaint", "edit")
        return tuple(task for task in names if getattr(self, task))


CLASSES: dict[str, PipelineClass] = {
    "StableDiffusionPipeline": PipelineClass(
        text="StableDiffusionPipeline",
        image="StableDiffusionImg2ImgPipeline",
        inpaint="StableDiffusionInpaintPipeline",
        denoiser="unet",
        flow=False,
    ),
    "StableDiffusionXLPipeline": PipelineClass(
        text="StableDiffusionXLPipeline",
        image="StableDiffusionXLImg2ImgPipeline",
        inpaint="StableDiffusionXLInpaintPipeline",
        denoiser="unet",
        flow=False,
    ),
    "StableDiffusion3Pipeline": PipelineClass(
        text="StableDiffusion3Pipeline",
        image="StableDiffusion3Img2ImgPipeline",
        inpaint="StableDiffusion3InpaintPipeline",
    ),
    "FluxPipeline": PipelineClass(
        text="FluxPipeline", image="FluxImg2ImgPipeline", inpaint="FluxInpaintPipeline", negative=False
    ),
    "Flux2KleinPipeline": PipelineClass(
        text="Flux2KleinPipeline", inpaint="Flux2KleinInpaintPipeline", edit="Flux2KleinPipeline", negative=False
    ),
    "ZImagePipeline": PipelineClass(
        text="ZImagePipeline", image="ZImageImg2ImgPipeline", inpaint="ZImageInpaintPipeline"
    ),
    "SanaSprintPipeline": PipelineClass(text="SanaSprintPipeline", image="SanaSprintImg2ImgPipeline", negative=False),
    "QwenImagePipeline": PipelineClass(
        text="QwenImagePipeline",
        image="QwenImageImg2ImgPipeline",
        inpaint="QwenImageInpaintPipeline",
        guidance="true_cfg_scale",
    ),
    "QwenImageEditPlusPipeline": PipelineClass(edit="QwenImageEditPlusPipeline", guidance="true_cfg_scale"),
    "ChromaPipeline": PipelineClass(
        text="ChromaPipeline", image="ChromaImg2ImgPipeline", inpaint="ChromaInpaintPipeline"
    ),
}

DIFFUSION_SCHEDULERS: dict[str, tuple[str, dict[str, object]]] = {
    "euler": ("EulerDiscreteScheduler", {}),
    "euler-a": ("EulerAncestralDiscreteScheduler", {}),
    "heun": ("HeunDiscreteScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpm++": ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver++"}),
    "dpm++-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
    "unipc": ("UniPCMultistepScheduler", {}),
    "lcm": ("LCMScheduler", {}),
    "pndm": ("PNDMScheduler", {"skip_prk_steps": True}),
}
FLOW_SCHEDULERS: dict[str, tuple[str, dict[str, object]]] = {
    "euler": ("FlowMatchEulerDiscreteScheduler", {}),
}
"""Which schedulers may be chosen, with what is set on them besides the model's own configuration."""
