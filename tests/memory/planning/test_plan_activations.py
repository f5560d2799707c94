"""Activations without weights: the same bytes as in a real run, kept on disk, found in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import partial
from pathlib import Path

import planning_models
import pytest
from planning_models import DUAL, SINGLE, hunyuan_block, hunyuan_vae, llama_layer, probe, vae_tile

from studio.errors import StudioError
from studio.memory import activations
from studio.memory.activations import Make, measure, measured, resolve
from studio.pipeline import Footprint, Network, Probe, Stage, Variant
from studio.units import GIB, MIB

TINY: dict[str, Make] = {
    "dual": partial(hunyuan_block, "dual", 96, "float32", 4, 16),
    "single": partial(hunyuan_block, "single", 96, "float32", 4, 16),
    "dual bf16": partial(hunyuan_block, "dual", 200, "bfloat16", 2, 16),
    "vae": partial(vae_tile, 64, "float32", (32, 64)),
    "vae bf16": partial(vae_tile, 48, "bfloat16", (32, 64, 64)),
    "llama": partial(llama_layer, 300),
}


@pytest.mark.parametrize("name", TINY)
def test_fake_tensors_give_the_bytes_and_operations_of_a_real_run(name: str) -> None:
    fake, real = measure(TINY[name]), measure(TINY[name], fake=False)
    assert fake == real
    assert fake.peak_bytes > 0
    assert fake.flops > 0


def test_the_watch_sees_what_is_freed() -> None:
    import torch

    class Chain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1024))

        def forward(self, value: torch.Tensor) -> torch.Tensor:
            for _ in range(10):
                value = value + self.weight  # the one before is freed once this is made
            return value

    # Alive at once: the input, one sum and the next. The weight does not count.
    assert measure(lambda: (Chain(), (torch.zeros(1024),))).peak_bytes == 3 * 4096


@pytest.mark.filterwarnings("ignore")
def test_torchs_own_record_of_its_allocator_agrees_within_a_tenth() -> None:
    """The profiler sees every allocation of the real run, also inside an operation, where the watch cannot look."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    for kind in ("dual", "single"):
        make = partial(hunyuan_block, kind, 2_000, "float32", 8, 32)
        foreseen = measure(make).peak_bytes
        with torch.no_grad():
            block, args = make()
            with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
                block(*args)
        kineto = seen.profiler
        assert kineto is not None
        changes = [event for event in kineto.kineto_results.events() if event.name() == "[memory]"]
        live = peak = 0
        for event in sorted(changes, key=lambda event: event.start_ns()):
            live += event.nbytes()
            peak = max(peak, live)
        inputs = sum(tensor.nbytes for tensor in activations._tensors(args))
        assert foreseen == pytest.approx(peak + inputs, rel=0.1), kind


def test_a_block_of_framepack_at_18_400_tokens_is_foreseen_without_its_weights() -> None:
    dual = measure(partial(hunyuan_block, "dual", 18_400))
    single = measure(partial(hunyuan_block, "single", 18_400))
    # At the widest the single block holds its input twice (apart and joined), the norm, q, k, v and the MLP's
    # 12,288 values before and after GELU, joined to the attention's 3,072: some 18 to 20 widths of 3,072 in bf16.
    width = (18_400 + 256) * 3_072 * 2
    assert 15 * width < single.peak_bytes < 21 * width
    assert dual.peak_bytes < single.peak_bytes
    # Two operations a weight and token, and 4 a width and pair of tokens for the attention.
    tokens = 18_400 + 256
    for block, found in ((SINGLE, single), (DUAL, dual)):
        weights = block.params - block.plain
        if block is DUAL:  # half of its matrices are for the text
            weights = weights // 2 - 6 * 3_072**2
        matrices = 2.0 * weights * tokens
        assert found.flops == pytest.approx(matrices + 4.0 * 3_072 * tokens**2, rel=0.12)


def test_decoding_with_hunyuans_vae_takes_what_it_took_on_a_card() -> None:
    """On an H100 decoding 18 latents at 640 x 640 took 15.2 GiB whole and 2.6 GiB in tiles of 256 pixels."""
    whole, tile = measure(partial(hunyuan_vae, 640)), measure(partial(hunyuan_vae, 256))
    assert whole.peak_bytes / GIB == pytest.approx(15.2, rel=0.02)
    assert tile.peak_bytes / GIB == pytest.approx(2.6, rel=0.1)  # one tile, without what is put together so far


def test_results_are_kept_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(planning_models.__file__).parent))
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")
    wanted = [probe("dual", 1_000), probe("single", 1_000)]
    first = measured(wanted, tmp_path)
    assert list(first.values()) == [measure(partial(hunyuan_block, kind, 1_000)) for kind in ("dual", "single")]
    again: list[Probe] = []

    def here(probes: list[Probe]) -> list[activations.Measured]:
        again.extend(probes)
        return [measure(activations.made_by(one)) for one in probes]

    monkeypatch.setattr(activations, "run_apart", here)
    assert measured(wanted, tmp_path) == first
    assert again == []
    path = tmp_path / f"{activations.key_of(wanted[0])}.json"
    for broken in ("", "{}", '{"peak_bytes": -1, "flops": 1}', '{"peak_bytes": "1", "flops": 1}'):
        path.write_text(broken)
        assert measured(wanted, tmp_path) == first
    assert again == [wanted[0]] * 4


def test_what_a_result_depends_on_is_in_its_name() -> None:
    one = probe("dual", 1_000)
    other = [probe("single", 1_000), probe("dual", 1_001), Probe(make="elsewhere:block", arguments=one.arguments)]
    keys = {activations.key_of(each) for each in (one, *other)}
    assert len(keys) == 4
    assert activations.key_of(probe("dual", 1_000, count=20)) == activations.key_of(one)  # the same block


def test_probes_add_up_to_a_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(planning_models.__file__).parent))
    variant = Variant(flops=5.0, activation_bytes=MIB, probes=(probe("dual", 500, 20), probe("single", 500, 40)))
    footprint = Footprint(
        networks=(Network(name="net", params=10),), stages=(Stage(name="run", network="net", variants=(variant,)),)
    )
    [found] = resolve(footprint, tmp_path).stages[0].variants
    dual, single = (measure(partial(hunyuan_block, kind, 500)) for kind in ("dual", "single"))
    assert found.flops == 5 + 20 * dual.flops + 40 * single.flops
    assert found.activation_bytes == max(dual.peak_bytes, single.peak_bytes)
    assert found.probes == ()


def test_a_probe_that_fails_says_so_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(StudioError, match=r"could not be foreseen: .*no_such_module") as caught:
        measured([Probe(make="no_such_module:block")], tmp_path)
    assert "\n" not in caught.value.what
    assert list(tmp_path.iterdir()) == []


def test_planning_itself_never_loads_torch() -> None:
    code = (
        "import sys, studio.core, studio.memory.activations, studio.memory.planner, studio.shapes;"
        "import json; print(json.dumps([name for name in ('torch', 'diffusers', 'llama_cpp') if name in sys.modules]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert json.loads(done.stdout) == []
