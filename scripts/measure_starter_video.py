"""Does the starter film model move a picture as asked, and does the picture stay itself?

Films of five sections from pictures that training never saw (emoji by another hand, Fluent), for each of the eight
motions. Each film is compared with the films that the eight motions would truly give (`nearest`: the asked one is the
nearest), the middle of what is drawn is followed from frame to frame, and the last frames are compared with the given
picture and with another one. Writes `benchmarks/starter_video.json`.

    python scripts/measure_starter_video.py
"""

import argparse
import hashlib
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import torch
from diffusers import HunyuanVideoFramepackPipeline

from starter_image.look import to_pictures
from starter_video import captions, look, scenes

ROOT = Path(__file__).resolve().parent.parent
WEIGHTS = ROOT / "pipelines" / "studio_pipelines" / "video_framepack" / "starter"
RESULT = ROOT / "benchmarks" / "starter_video.json"
PERIOD = scenes.PERIOD
COMMAND = "python scripts/measure_starter_video.py"


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    """Mean absolute difference of films or pictures in 0..1."""
    return float((a - b).abs().mean())


def middles(film: torch.Tensor, ground: torch.Tensor) -> torch.Tensor:
    """Where what is drawn has its middle: (T, 3, H, W) -> rows and columns as angles on a round of 72 pixels, (T, 2).

    What leaves on one side comes back on the other, so the mean is that of directions on a circle.
    """
    weight = (film - ground).abs().sum(1)  # (T, H, W)
    weight = torch.where(weight > 0.15, weight, 0)
    side = film.shape[-1]
    turn = torch.arange(side) / (side + scenes.GAP) * 2 * torch.pi
    rows, columns = weight.sum(2), weight.sum(1)
    angles = [torch.atan2((part * turn.sin()).sum(1), (part * turn.cos()).sum(1)) for part in (rows, columns)]
    return torch.stack(angles, 1)


def off_course(film: torch.Tensor, true: torch.Tensor, ground: torch.Tensor) -> float:
    """Mean distance in pixels between the middles of the film and of the true one, over all frames."""
    side = film.shape[-1] + scenes.GAP
    turn = middles(film, ground) - middles(true, ground)
    turn = torch.atan2(turn.sin(), turn.cos())  # the short way round
    return float((turn / (2 * torch.pi) * side).square().sum(1).sqrt().mean())


def measure(pipe: HunyuanVideoFramepackPipeline, chosen: list[scenes.Scene], sections: int) -> list[dict[str, object]]:
    rows, frames = [], list(range(sections * PERIOD + 1))
    for number, scene in enumerate(chosen):
        true = {m: scenes.film(scene, m, frames) / 2 + 0.5 for m in captions.MOTIONS}
        picture = to_pictures(scenes.film(scene, "still", [0]))[0]
        another = scenes.film(chosen[(number + 1) % len(chosen)], "still", [0])[0] / 2 + 0.5
        for motion in captions.MOTIONS:
            prompt = (captions.PLAIN, captions.PLAIN_FR)[number % 2][motion]
            film = look.sample(pipe, picture, prompt, sections, seed=number)
            gaps = {m: gap(film[1:], expected[1:]) for m, expected in true.items()}
            late = {m: gap(film[-PERIOD:], expected[-PERIOD:]) for m, expected in true.items()}
            rows.append(
                {
                    "motion": motion,
                    "language": ("en", "fr")[number % 2],
                    "nearest": min(gaps, key=gaps.__getitem__),
                    "nearest_in_last_section": min(late, key=late.__getitem__),
                    "difference": gaps[motion],
                    "difference_in_first_section": gap(film[1 : PERIOD + 1], true[motion][1 : PERIOD + 1]),
                    "difference_in_last_section": late[motion],
                    "difference_of_a_still_film": gap(true["still"][1:], true[motion][1:]),
                    "off_course_pixels": off_course(film, true[motion], scene.ground),
                    "last_frame_to_given": gap(film[-1], true["still"][0]),
                    "last_frame_to_another": gap(film[-1], another),
                }
            )
        print(f"{number + 1} of {len(chosen)} pictures", flush=True)
    return rows


def summary(rows: list[dict[str, object]]) -> dict[str, object]:
    def mean(key: str) -> float:
        return round(sum(float(row[key]) for row in rows) / len(rows), 4)  # type: ignore[arg-type]

    def share(hits: list[bool]) -> float:
        return round(sum(hits) / len(hits), 4)

    return {
        "films": len(rows),
        "asked_motion_is_nearest": share([row["nearest"] == row["motion"] for row in rows]),
        "and_in_the_last_section": share([row["nearest_in_last_section"] == row["motion"] for row in rows]),
        "last_frame_is_nearer_to_the_given_picture": share(
            [row["last_frame_to_given"] < row["last_frame_to_another"] for row in rows]  # type: ignore[operator]
        ),
        "mean": {key: mean(key) for key in rows[0] if isinstance(rows[0][key], float)},
    }


def shuffled(rows: list[dict[str, object]]) -> float:
    """How often the nearest motion is that of another film's caption: moved on by one, so that none stays."""
    asked = [row["motion"] for row in rows]
    hits = [row["nearest"] == other for row, other in zip(rows, asked[1:] + asked[:1], strict=True)]
    return round(sum(hits) / len(hits), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path.home() / ".cache" / "starter-video", help="downloads")
    parser.add_argument("--weights", type=Path, default=WEIGHTS)
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--sections", type=int, default=5)
    options = parser.parse_args()

    pipe = HunyuanVideoFramepackPipeline.from_pretrained(options.weights, dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    held_out = scenes.load_held_out(options.work / "downloads", options.pictures)
    random_ = torch.Generator().manual_seed(99)
    chosen = [scenes.make_scene(held_out[i : i + 1], random_) for i in range(options.pictures)]
    rows = measure(pipe, chosen, options.sections)
    result = {
        "what": "starter-video: films from pictures never seen in training, against the films that were asked for",
        "command": f"{COMMAND} --pictures {options.pictures} --sections {options.sections}",
        "machine": {"processor": "CPU", "cores": os.cpu_count(), "system": platform.system()},
        "versions": {name: version(name) for name in ("torch", "diffusers", "transformers")},
        "sha256": {
            str(path.relative_to(options.weights)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(options.weights.rglob("*.safetensors"))
        },
        "settings": {"steps": look.STEPS, "sections": options.sections, "frames": options.sections * PERIOD + 1},
        "chance_nearest": round(1 / len(captions.MOTIONS), 4),
        "differences": "mean absolute difference of all pixels, 0 to 1",
        "all": summary(rows),
        "nearest_is_the_motion_of_a_shuffled_caption": shuffled(rows),
        "by_motion": {m: summary([row for row in rows if row["motion"] == m]) for m in captions.MOTIONS},
        "by_language": {lang: summary([row for row in rows if row["language"] == lang]) for lang in ("en", "fr")},
    }
    options.result.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main()
