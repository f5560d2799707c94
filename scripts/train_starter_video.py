"""Train the starter video model: a small FramePack on generated films of moving pictures, on a processor or a GPU.

    python scripts/train_starter_video.py --minutes 80
    python scripts/train_starter_video.py --minutes 80 --resume      # after a cut
    python scripts/train_starter_video.py --steps 120 2400 900 300   # the same weights every time on the same machine

Writes the pipeline in fp16 to the family's folder and a labelled sheet of films to docs/. Needs the `train` extra.
On a machine that is busy with other work, OMP_WAIT_POLICY=PASSIVE keeps the threads from burning time at barriers.
"""

import argparse
import os
import signal
import time
from pathlib import Path

import torch
from diffusers import AutoencoderKL, HunyuanVideoFramepackPipeline
from PIL import Image

from starter_image.look import to_pictures
from starter_video import captions, look, models, scenes
from starter_video.stages import SHARES, Settings, Stopped, Trainer

ROOT = Path(__file__).resolve().parent.parent
FAMILIES = ROOT / "pipelines" / "studio_pipelines"
BEGIN = FAMILIES / "image_diffusion" / "starter" / "vae"
WEIGHTS = FAMILIES / "video_framepack" / "starter"
SHEET = ROOT / "docs" / "starter-video-sheet.png"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=80, help="time box; the number of steps follows from it")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=4,
        metavar=("PICTURES", "MOTION", "AGAIN", "FILMS"),
        help="fixed steps instead of measured ones",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cache = Path.home() / ".cache" / "starter-video"
    parser.add_argument("--work", type=Path, default=cache, help="downloads, latents and checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the pipeline goes")
    parser.add_argument("--sheet", type=Path, default=SHEET, help="where the sheet of films goes")
    return parser.parse_args(arguments)


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
    if trainer.stage not in SHARES or (trainer.stage == "films" and trainer.step):
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
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=options.device != "cpu")
    settings = Settings(seed=options.seed, device=options.device)
    sprites = scenes.load_sprites(options.work / "downloads", settings.shape.side)
    begin = AutoencoderKL.from_pretrained(BEGIN, dtype=torch.float32)
    trainer = Trainer(sprites, begin, settings, options.work)
    trainer.on_mark = look_at
    if options.resume:
        trainer.load()
        print(f"resumed: {trainer.stage}, step {trainer.step} of {trainer.plan}", flush=True)
    elif options.steps:
        trainer.plan = dict(zip(SHARES, options.steps, strict=True))
    else:
        trainer.make_plan(options.minutes)
    trainer.deadline = start + options.minutes * 60
    print(f"steps: {trainer.plan}", flush=True)
    trainer.save()
    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, trainer.interrupt)
    try:
        trainer.run()
    except Stopped:
        print(f"stopped at {trainer.stage}, step {trainer.step}; go on with --resume", flush=True)
        if trainer.stage == "pictures":
            return
    finish(trainer, options.out, options.sheet)


if __name__ == "__main__":
    main()
