"""Train the starter video model: a small FramePack on generated films of moving pictures, on a processor or a GPU.

    python scripts/train_starter_video.py --minutes 80
    python scripts/train_starter_video.py --minutes 80 --resume      # after a cut
    python scripts/train_starter_video.py --steps 120 2400 900 300   # the same weights every time on the same machine

Writes the pipeline in fp16 to the family's folder and a labelled sheet of films to docs/. Needs the `train` extra.
On a machine that is busy with other work, OMP_WAIT_POLICY=PASSIVE keeps the threads from burning time at barriers.
"""

import argparse
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, HunyuanVideoFramepackPipeline
from PIL import Image

import starter_training
from starter_image.look import to_pictures
from starter_video import captions, look, models, scenes
from starter_video.stages import Settings, Trainer

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ROOT / "pipelines" / "studio_pipelines"
BEGIN = FAMILIES / "image_diffusion" / "starter" / "vae"
WEIGHTS = FAMILIES / "video_framepack" / "starter"
SHEET = ROOT / "docs" / "starter-video-sheet.png"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    stages = ("PICTURES", "MOTION", "AGAIN", "FILMS")
    parser = starter_training.parser(__doc__, "starter-video", 80, stages, WEIGHTS, SHEET)
    options: argparse.Namespace = parser.parse_args(arguments)
    return options


def pictures_of(sprites: torch.Tensor, count: int) -> list[Image.Image]:
    """First frames of scenes that training did not draw."""
    random_ = torch.Generator().manual_seed(4321)
    frames = [scenes.film(scenes.make_scene(sprites, random_), "still", [0]) for _ in range(count)]
    return to_pictures(torch.cat(frames))


def look_at(trainer: Trainer) -> None:
    """An intermediate sheet beside the checkpoint: every motion once."""
    if trainer.stage == "motion" and not trainer.step:
        pictures = to_pictures(torch.cat([scenes.film(scene, "still", [0]) for scene in trainer.scenes[:8]]))
        trainer.watch()
        with torch.no_grad():
            decoded = trainer.vae.decode(trainer.latents[:8, 0, :5].transpose(1, 2).to(trainer.device)).sample
        films = [torch.cat([as_film(p), d.transpose(0, 1) / 2 + 0.5]) for p, d in zip(pictures, decoded, strict=True)]
        look.sheet(films, ["autoencoder"] * 8, trainer.folder / "sheet-pictures.png", every=1)
        return
    if trainer.stage not in trainer.shares or (trainer.stage == "films" and trainer.step):
        return
    pictures = pictures_of(trainer.sprites.pictures, len(captions.MOTIONS))
    pipe, prompts = trainer.pipeline(), list(captions.PLAIN.values())
    films = [look.quick(pipe, picture, prompt) for picture, prompt in zip(pictures, prompts, strict=True)]
    look.sheet(films, prompts, trainer.folder / f"sheet-{trainer.stage}-{trainer.step:06d}.png", every=1)


def as_film(picture: Image.Image) -> torch.Tensor:
    """A picture as a film of one frame, (1, 3, H, W) in 0..1."""
    values = torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8)
    return values.view(1, picture.height, picture.width, 3).permute(0, 3, 1, 2) / 255


def finish(trainer: Trainer, out: Path, sheet: Path, sections: int = 5) -> None:
    """The weights, then a sheet made by the weights as they were written, not as they were in memory."""
    models.save_half(trainer.pipeline(), out)
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(out, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    pairs = zip(captions.PLAIN.values(), captions.PLAIN_FR.values(), strict=True)
    prompts = [pair[number % 2] for number, pair in enumerate(pairs)]  # English and French in turn
    pictures = pictures_of(trainer.sprites.pictures, len(prompts))
    films = [look.sample(pipe, picture, prompt, sections) for picture, prompt in zip(pictures, prompts, strict=True)]
    look.sheet(films, prompts, sheet, every=12)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"wrote {out} ({size / 1e6:.1f} MB) and {sheet}", flush=True)


def main() -> None:
    options, start = parse(), time.monotonic()
    starter_training.prepare(options)
    settings = Settings(seed=options.seed, device=options.device)
    sprites = scenes.load_sprites(options.work / "downloads", settings.shape.side)
    begin = AutoencoderKL.from_pretrained(BEGIN, dtype=torch.float32)
    trainer = Trainer(sprites, begin, settings, options.work)
    trainer.on_mark = look_at
    if starter_training.train(trainer, options, start):
        finish(trainer, options.out, options.sheet)


if __name__ == "__main__":
    main()
