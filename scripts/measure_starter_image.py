"""How often does the starter text-to-image model draw what the caption says?

A small classifier learns the real pictures, never a drawn one, and then names what the model draws for captions in
phrasings that training never saw. The same pictures against shuffled captions are the baseline. Writes
`benchmarks/starter_image.json`.

    python scripts/measure_starter_image.py
"""

import argparse
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image

from starter_image import data, judge, look

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pipelines" / "studio_pipelines" / "image_diffusion" / "starter"
RESULT = ROOT / "benchmarks" / "starter_image.json"


def tensor(pictures: list[Image.Image]) -> torch.Tensor:
    """Pictures -> (B, 3, H, W) in -1..1."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


@torch.no_grad()
def scores(model: judge.Judge, pictures: torch.Tensor) -> torch.Tensor:
    return torch.cat([model(part) for part in pictures.split(100)])


def compare(model: judge.Judge, drawn: torch.Tensor, wanted: torch.Tensor) -> dict[str, object]:
    """Against the right captions and against the same captions moved on by one, so that none stays in its place."""
    found = scores(model, drawn)
    return {**judge.hits(found, wanted), "shuffled_captions": judge.hits(found, wanted.roll(1))}


def held_out(
    pipe: StableDiffusionPipeline,
    model: judge.Judge,
    concepts: list[data.Concept],
    seeds: int,
    frames: tuple[list[str], list[str]],
    order: int = 0,
) -> dict[str, object]:
    """Fifty captions in phrasings that training did not know; ``order`` shuffles which concepts they are about."""
    captions, wanted = judge.held_out_captions(concepts, 50, frames, order)
    drawn = torch.cat([tensor(look.sample(pipe, captions, seed=seed + 1, batch=25)) for seed in range(seeds)])
    english = torch.arange(len(captions)).repeat(seeds) % 2 == 0
    every = wanted.repeat(seeds)
    return {
        **compare(model, drawn, every),
        "english": judge.hits(scores(model, drawn[english]), every[english]),
        "french": judge.hits(scores(model, drawn[~english]), every[~english]),
        "captions": captions,
        "pictures": len(drawn),
    }


def plain_names(
    pipe: StableDiffusionPipeline, model: judge.Judge, concepts: list[data.Concept], real: torch.Tensor
) -> dict[str, object]:
    """Every concept once by its plain name in each language: training saw these captions."""
    wanted, answer, missed = torch.arange(len(concepts)), {}, {}
    for language in ("en", "fr"):
        names = [getattr(concept, language)[0] for concept in concepts]
        drawn = tensor(look.sample(pipe, names, seed=100, batch=25))
        found = scores(model, drawn)
        answer[language] = judge.hits(found, wanted)
        missed[language] = [name for name, row, i in zip(names, found, wanted, strict=True) if i not in row.topk(5)[1]]
        if language == "en":
            # How near a drawing is to the picture that it was learned from, and to the nearest of all others.
            gaps = torch.stack([(real - picture).abs().mean((1, 2, 3)) / 2 for picture in drawn])
            own = gaps.diagonal().clone()
            other = (gaps + torch.eye(len(gaps)) * 9).amin(1)
            answer["pixel_difference_0_to_1"] = {
                "to_its_training_picture_median": round(float(own.median()), 4),
                "to_the_nearest_other_median": round(float(other.median()), 4),
                "nearest_is_its_training_picture": round(float((own < other).float().mean()), 4),
            }
    return {**answer, "missed_in_top5": missed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path.home() / ".cache" / "starter-image"
    parser.add_argument("--work", type=Path, default=cache, help="downloads")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--judge-steps", type=int, default=900)
    parser.add_argument("--seeds", type=int, default=4)
    options = parser.parse_args()

    command = "python scripts/measure_starter_image.py"
    pipe = StableDiffusionPipeline.from_pretrained(options.weights, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    dataset = data.load_dataset(options.work / "downloads", pipe.unet.config.sample_size * pipe.vae_scale_factor)
    real = data.on_background(dataset.pictures, torch.ones(len(dataset.pictures), 3))
    model = judge.train(real, options.judge_steps)
    with torch.no_grad():
        rebuilt = torch.cat([pipe.vae(part).sample.clamp(-1, 1) for part in real.split(50)])
    everything = torch.arange(len(real))
    disturbed = judge.disturb(real, torch.Generator().manual_seed(99))
    result = {
        "what": "starter-image: does a classifier, trained on the real pictures alone, find the caption's concept?",
        "command": f"{command} --judge-steps {options.judge_steps} --seeds {options.seeds}",
        "machine": {"processor": "CPU", "cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "sha256": {
            str(path.relative_to(options.weights)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(options.weights.rglob("*.safetensors"))
        },
        "settings": {"steps": look.STEPS, "guidance_scale": look.GUIDANCE, "scheduler": type(pipe.scheduler).__name__},
        "concepts": len(dataset.concepts),
        "chance_top1": round(1 / len(dataset.concepts), 4),
        "judge": {
            "on_real_pictures_disturbed": judge.hits(scores(model, disturbed), everything),
            "on_real_pictures_through_the_autoencoder": judge.hits(scores(model, rebuilt), everything),
        },
        "autoencoder_mean_difference_0_to_1": round(float((rebuilt - real).abs().mean()) / 2, 4),
        "held_out_phrasings": held_out(
            pipe, model, dataset.concepts, options.seeds, (data.EN_HELD_OUT, data.FR_HELD_OUT)
        ),
        "held_out_sentences": held_out(
            pipe, model, dataset.concepts, options.seeds, (data.EN_SENTENCES, data.FR_SENTENCES), order=1
        ),
        "plain_names": plain_names(pipe, model, dataset.concepts, real),
    }
    options.result.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
