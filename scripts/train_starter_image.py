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
import time
from pathlib import Path

import torch

import starter_training
from starter_image import data, look, models
from starter_image.stages import Settings, Trainer

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pipelines" / "studio_pipelines" / "image_diffusion" / "starter"
SHEET = ROOT / "docs" / "starter-image-sheet.png"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    stages = ("VAE", "DENOISER", "PHRASES", "DECODER")
    parser = starter_training.parser(__doc__, "starter-image", 85, stages, WEIGHTS, SHEET)
    parser.add_argument("--begin", type=Path, help="a finished pipeline whose text encoder is to learn more sentences")
    options: argparse.Namespace = parser.parse_args(arguments)
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
    starter_training.prepare(options)
    settings = Settings(seed=options.seed, device=options.device)
    dataset = data.load_dataset(options.work / "downloads", settings.shape.picture)
    print(f"{len(dataset.concepts)} concepts, {len(dataset.others)} other pictures for the autoencoder", flush=True)
    trainer = Trainer(dataset, settings, options.work)
    trainer.on_mark = look_at
    if options.begin:
        trainer.begin_from(options.begin)
    if starter_training.train(trainer, options, start):
        finish(trainer, options.out, options.sheet)


if __name__ == "__main__":
    main()
