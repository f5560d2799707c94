"""Films to look at: sampled with diffusers' own pipeline, laid out as labelled sheets."""

from pathlib import Path

import torch
from diffusers import HunyuanVideoFramepackPipeline
from PIL import Image, ImageDraw

from starter_image.look import label_font, to_pictures

from .framewise import framewise

STEPS = 8
TEMPLATE = {"template": "{}", "crop_start": 0}


@torch.no_grad()
def sample(
    pipe: HunyuanVideoFramepackPipeline,
    picture: Image.Image,
    prompt: str,
    sections: int,
    seed: int = 0,
    output: str = "pt",
) -> torch.Tensor:
    """One film of so many sections: RGB (T, 3, H, W) in 0..1, T = 36 * sections + 1; or its latents."""
    width, height = picture.size
    made = pipe(
        image=picture,
        prompt=prompt,
        prompt_template=TEMPLATE,
        width=width,
        height=height,
        num_frames=33 * sections,  # this class counts sections by the window of 33 frames
        num_inference_steps=STEPS,
        guidance_scale=1.0,
        sampling_type="vanilla",
        max_sequence_length=32,
        generator=torch.Generator().manual_seed(seed),
        output_type=output,
    ).frames
    return made[-1] if output == "latent" else made[0]


@torch.no_grad()
def quick(pipe: HunyuanVideoFramepackPipeline, picture: Image.Image, prompt: str) -> torch.Tensor:
    """Every fourth frame of one section, each decoded alone, which is quick: (10, 3, H, W) in 0..1."""
    latents = sample(pipe, picture, prompt, 1, output="latent")[0].transpose(0, 1)[:, :, None]
    with framewise(pipe.vae):
        return pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample[:, :, 0].clamp(-1, 1) / 2 + 0.5


def sheet(films: list[torch.Tensor], labels: list[str], path: Path, every: int = 6, zoom: int = 1) -> None:
    """A row for each film (T, 3, H, W in 0..1), a column for every sixth frame, the caption above the row."""
    shown = [film[::every] for film in films]
    side, bar = shown[0].shape[-1] * zoom + 4, 16
    page = Image.new("RGB", (max(map(len, shown)) * side + 4, len(films) * (side + bar)), "#e8e8e8")
    draw, font = ImageDraw.Draw(page), label_font()
    for row, (film, label) in enumerate(zip(shown, labels, strict=True)):
        top = row * (side + bar)
        draw.text((4, top + 2), label, fill="black", font=font)
        for column, picture in enumerate(to_pictures(film * 2 - 1)):
            enlarged = picture.resize((side - 4, side - 4), Image.Resampling.LANCZOS)
            page.paste(enlarged, (column * side + 4, top + bar))
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path, optimize=True)
