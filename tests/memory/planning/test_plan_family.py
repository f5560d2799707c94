"""A family that names its networks and a probe is planned by the engine: one function, no ``plan`` of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from studio.core import Studio
from studio.units import GIB
from toolbox import Cli, install_family

FAMILY = '''
"""A film family at tiny size, whose block is diffusers' own."""

from pydantic import Field

from studio.pipeline import Block, Footprint, Network, Params, Pipeline, Probe, Stage, Variant


class FilmParams(Params):
    prompt: str = Field(min_length=1, description="What it shows.")
    width: int = Field(default=512, ge=64, le=2048, description="Pixels.")


class Film(Pipeline[FilmParams]):
    task = "text->video"
    Params = FilmParams

    def footprint(self, params):
        tokens = (params.width // 16) ** 2
        probe = Probe(make="filmfamily.family:block", arguments={"tokens": tokens}, count=60)
        network = Network(
            name="transformer", params=8_700_000_000, class_name="HunyuanVideoTransformerBlock",
            blocks=(Block(kind="single", params=141_591_808, count=60),),
        )
        step = Variant(probes=(probe,))
        return Footprint(
            networks=(network,), disk_bytes=2 * network.params,
            stages=(Stage(name="denoise", network="transformer", calls=25, variants=(step,)),),
        )

    def generate(self, params, ctx):
        yield ctx.save("", "text/plain")


def block(tokens):
    import torch
    from diffusers.models.transformers.transformer_hunyuan_video import HunyuanVideoSingleTransformerBlock

    made = HunyuanVideoSingleTransformerBlock(24, 128, 4.0, qk_norm="rms_norm").to(torch.bfloat16)
    states = [torch.randn(1, size, 3072, dtype=torch.bfloat16) for size in (tokens, 256)]
    return made, (*states, torch.randn(1, 3072, dtype=torch.bfloat16))
'''


@pytest.fixture
def film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "site"
    (folder / "filmfamily").mkdir(parents=True)
    (folder / "filmfamily" / "__init__.py").write_text('"""A family."""\n')
    (folder / "filmfamily" / "family.py").write_text(FAMILY)
    install_family(folder, "filmfamily", {"film": "filmfamily.family:Film"})
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_a_family_with_a_probe_is_planned_and_remembered(home: Path, film: None, cli: Cli) -> None:
    limits = {"vram_bytes": 6 * GIB, "ram_bytes": 48 * GIB}
    with Studio(home, executor="inline") as studio:
        small, large = (studio.forecast("film", width=width, **limits) for width in (128, 2048))
        kept = sorted((home / "cache" / "activations").glob("*.json"))
        assert small.fits and large.fits
        assert len(kept) == 2
        assert studio.forecast("film", width=2048, prompt="Other words.", **limits) == large
        assert len(list((home / "cache" / "activations").glob("*.json"))) == 2
    if not small.imagined:
        return  # this machine's own card decides
    step = {"small": json.loads(kept[0].read_text()), "large": json.loads(kept[1].read_text())}
    assert step["small"] != step["large"]
    assert small.seconds is not None and large.seconds is not None
    assert large.seconds > 4 * small.seconds  # 16,384 tokens instead of 64
    # Few tokens: the bus is the floor, so fewer bits. Many: computing hides the copying of 16 bits.
    assert small.settings["networks"]["transformer"]["precision"] != "bf16"
    assert large.settings["networks"]["transformer"]["precision"] == "bf16"
    assert large.peak_vram_bytes <= 6 * GIB
    shown = cli("plan", "film", "--width", "2048", "--vram", "6", "--ram", "48", code=0).stdout
    assert "the copying is hidden" in shown
    assert "transformer, " in shown
    told = json.loads(cli("plan", "film", "--width", "128", "--vram", "1", "--ram", "48", "--json", code=1).stdout)
    assert told["nearest"].startswith("It would fit with "), "the refusal's own words say the same and are left out"
    assert "memory" not in told["nearest"], "of that there is enough"
