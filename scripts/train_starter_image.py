"""Train the starter text-to-image model: emoji from English or French captions, on two CPU cores or on a GPU.

    python scripts/train_starter_image.py --minutes 85
    python scripts/train_starter_image.py --minutes 85 --resume      # after a cut
    python scripts/train_starter_image.py --steps 700 2700 9000 500  # the same weights every time on the same machine
    python scripts/train_starter_image.py --begin FOLDER --steps 0 0 9000 0  # only the sentences, on finished weights

Writes the pipeline in fp16 to the family's folder and a labelled sheet of samples to docs/. Needs the `train` extra.
On a machine that is busy with other work, OMP_WAIT_POLICY=PASSIVE keeps the threads from burning time at barriers.
"""

import argparse
import json
import os
import signal
import time
from pathlib import Path

import torch

from starter_image import data, look, models
from starter_image.stages import SHARES, Settings, Stopped, Trainer

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pipelines" / "studio_pipelines" / "image_diffusion" / "starter"
SHEET = ROOT / "docs" / "starter-image-sheet.png"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=85, help="time box; the number of steps follows from it")
    parser.add_argument(
        "--steps",
        type=int,
        nargs=4,
        metavar=("VAE", "DENOISER", "PHRASES", "DECODER"),
        help="fixed steps instead of measured ones",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    cache = Path.home() / ".cache" / "starter-image"
    parser.add_argument("--work", type=Path, default=cache, help="downloads and checkpoint")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the work folder")
    parser.add_argument("--begin", type=Path, help="a finished pipeline whose text encoder is to learn more sentences")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="where the pipeline goes")
    parser.add_argument("--sheet", type=Path, default=SHEET, help="where the sheet of samples goes")
    options = parser.parse_args(arguments)
    if options.begin and not options.resume and (not options.steps or any(options.steps[:2])):
        parser.error("--begin has an autoencoder and a denoiser already: give --steps 0 0 and the other two")
    return options


def look_at(trainer: Trainer) -> None:
    """An intermediate sheet beside the checkpoint; after the autoencoder's stage, its reconstructions."""
    if trainer.stage != "denoiser" or trainer.step:
        pictures = look.sample(trainer.pipeline(), look.PROMPTS, batch=10)
        look.sheet(pictures, look.PROMPTS, trainer.folder / f"sheet-{trainer.stage}-{trainer.step:06d}.png")
        return
    chosen = list(range(0, len(trainer.dataset.concepts), max(1, len(trainer.dataset.concepts) // 40)))[:40]
    scaling = trainer.vae.config.scaling_factor
    with torch.no_grad():
        decoded = trainer.vae.decode(trainer.latents[chosen].to(trainer.device) / scaling).sample
    labels = [trainer.dataset.concepts[i].en[0] for i in chosen]
    look.sheet(look.to_pictures(decoded), labels, trainer.folder / "sheet-vae.png")


def finish(trainer: Trainer, out: Path, sheet: Path) -> None:
    """Weights, preview factors, then a sheet drawn by the weights as they were written, not as they were in memory."""
    models.save_half(trainer.pipeline(), out)
    white = torch.ones(len(trainer.dataset.pictures), 3)
    pictures = data.on_background(trainer.dataset.pictures, white)
    factors, error = look.preview_factors(trainer.latents, pictures)
    factors = trainer.preview or factors
    (out / "preview.json").write_text(json.dumps(factors, indent=1) + "\n", encoding="utf-8")
    pipe = models.StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    look.sheet(look.sample(pipe, look.PROMPTS), look.PROMPTS, sheet)
    size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"wrote {out} ({size / 1e6:.1f} MB) and {sheet}; a preview by its factors is off by {error:.3f}", flush=True)


def main() -> None:
    options, start = parse(), time.monotonic()
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=options.device != "cpu")
    settings = Settings(seed=options.seed, device=options.device)
    dataset = data.load_dataset(options.work / "downloads", settings.shape.picture)
    print(f"{len(dataset.concepts)} concepts, {len(dataset.others)} other pictures for the autoencoder", flush=True)
    trainer = Trainer(dataset, settings, options.work)
    trainer.on_mark = look_at
    if options.begin:
        trainer.begin_from(options.begin)
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
        if trainer.stage == "vae":
            return
    finish(trainer, options.out, options.sheet)


if __name__ == "__main__":
    main()
