"""What fewer bits do to pictures: the starter image model's UNet in fp8, int8 and nf4 against 32 bits, same seeds.

Each picture is compared with the one of the same words and seed in 32 bits: PSNR (dB) and SSIM (Wang et al., 2004,
https://doi.org/10.1109/TIP.2003.819861; means over 8 x 8 windows of the grey pictures), medians over all. For scale,
the same of another seed. Writes ``benchmarks/quantised_pictures.json``.

    python scripts/measure_quantised.py [--seeds 2] [--steps 20]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from PIL import Image

from studio import hardware
from studio.catalogue import Catalogue
from studio.download import ModelStore
from studio.events import Artefact
from studio.memory.footprint import LOSS
from studio.pipeline import Context, Plan
from studio.registry import Registry
from studio.store.home import Home

ROOT = Path(__file__).resolve().parents[1]
WORDS = ("a red apple", "a blue heart", "a cat", "a green tree", "a yellow star", "a house", "a car", "the sun")
PRECISIONS = ("fp32", "int8", "fp8", "nf4")
BLOCKS = 9
"""Any number above 0: the engine finds the UNet's blocks itself."""


def pictures(precision: str, seeds: range, steps: int, folder: Path) -> dict[tuple[str, int], np.ndarray]:
    """Every word with every seed: (height, width, rgb) in 8 bits."""
    home = Home(folder)
    catalogue, models, registry = Catalogue(Registry(), home.root), ModelStore(home.models, offline=True), Registry()
    spec = catalogue.get("starter-image")
    family = registry.get(spec.pipeline)
    pipeline = family(spec, catalogue.files(spec, models.installed) or {})
    networks: dict[str, Any] = {"unet": {"precision": precision, "blocks": BLOCKS, "resident": BLOCKS}}
    pipeline.load(Plan(model=spec.id, settings={"networks": networks, "variants": {}}))
    found = {}
    for word in WORDS:
        for seed in seeds:
            params = family.Params(prompt=word, seed=seed, steps=steps, preview_every=0, width=64, height=64)
            for event in pipeline.generate(params, Context(Path(tempfile.mkdtemp(dir=folder)))):
                if isinstance(event, Artefact):
                    found[word, seed] = np.asarray(Image.open(event.path).convert("RGB"))
    pipeline.unload()
    return found


def psnr(one: np.ndarray, other: np.ndarray) -> float:
    error = float(np.mean((one.astype(float) - other.astype(float)) ** 2))
    return 99.0 if error == 0 else 10 * float(np.log10(255**2 / error))


def ssim(one: np.ndarray, other: np.ndarray) -> float:
    """Over windows of 8 x 8 grey pixels, every fourth place."""
    grey = [picture.astype(float).mean(axis=2) for picture in (one, other)]
    a, b = (np.lib.stride_tricks.sliding_window_view(picture, (8, 8))[::4, ::4] for picture in grey)
    mean_a, mean_b = a.mean(axis=(2, 3)), b.mean(axis=(2, 3))
    var_a, var_b = a.var(axis=(2, 3)), b.var(axis=(2, 3))
    both = (a * b).mean(axis=(2, 3)) - mean_a * mean_b
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    score = (2 * mean_a * mean_b + c1) * (2 * both + c2) / ((mean_a**2 + mean_b**2 + c1) * (var_a + var_b + c2))
    return float(score.mean())


def compared(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    return {
        "psnr_db": round(statistics.median(psnr(*pair) for pair in pairs), 2),
        "worst_psnr_db": round(min(psnr(*pair) for pair in pairs), 2),
        "ssim": round(statistics.median(ssim(*pair) for pair in pairs), 4),
        "worst_ssim": round(min(ssim(*pair) for pair in pairs), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--sheet", type=Path, help="also write a sheet of all pictures: a row for each precision")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        made = {kind: pictures(kind, range(options.seeds), options.steps, Path(scratch)) for kind in PRECISIONS}
    exact = made["fp32"]
    rows = {kind: compared([(exact[key], made[kind][key]) for key in exact]) for kind in PRECISIONS[1:]}
    other = [(exact[word, seed], exact[word, (seed + 1) % options.seeds]) for word, seed in exact]
    result = {
        "what": "the starter image model's UNet in fewer bits against 32: pictures of the same words and seeds",
        "command": f"python scripts/measure_quantised.py --seeds {options.seeds} --steps {options.steps}",
        "machine": hardware.probe().processor,
        "when": time.strftime("%Y-%m-%d"),
        "busy": f"load average {psutil.getloadavg()[0]:.1f}",
        "pictures": len(exact),
        "against_32_bits": rows,
        "another_seed": compared(other) if options.seeds > 1 else None,
        "planner_loss": {kind: LOSS[kind] for kind in PRECISIONS},  # type: ignore[index]
    }
    (ROOT / "benchmarks" / "quantised_pictures.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    for kind, row in rows.items():
        print(f"{kind:5} PSNR {row['psnr_db']:.1f} dB, SSIM {row['ssim']:.3f}, worst {row['worst_psnr_db']:.1f} dB")
    if options.sheet:
        side = [np.concatenate([made[kind][word, 0] for word in WORDS], axis=1) for kind in PRECISIONS]
        sheet = Image.fromarray(np.concatenate(side))
        sheet.resize((2 * sheet.width, 2 * sheet.height), Image.Resampling.NEAREST).save(options.sheet)


if __name__ == "__main__":
    main()
