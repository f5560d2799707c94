"""ncnn's two files: read exactly, refused in one line when they are not what the network needs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from upscale_files import COMPACT, SMALL, spec_of, wave, write_ncnn

from studio.catalogue import builtin_file, read_models
from studio.plugin import BadWeights
from studio_pipelines.image_upscale import network
from studio_pipelines.image_upscale.architecture import Architecture, architecture_of
from studio_pipelines.image_upscale.family import ImageUpscale
from studio_pipelines.image_upscale.ncnn import read_tensors, scan
from studio_pipelines.image_upscale.params import UpscaleParams

ENTRIES = [spec for spec in read_models(builtin_file()) if spec.pipeline == "image-upscale"]


def test_the_starter_computes_what_ncnn_computes(starter_files: dict[str, Path]) -> None:
    """``ncnn_32x24.png`` was made by ncnn 1.0.20261020 itself, on a processor with 32-bit numbers, from the same files
    and ``wave(32, 24)``; it is rounded, so 1/255 is the closest that can be asked."""
    made = network.load(COMPACT, starter_files["param"], starter_files["weights"])
    pixels = torch.from_numpy(wave(32, 24)).permute(2, 0, 1)[None].float() / 255
    with torch.inference_mode():
        found = (made(pixels)[0].clamp(0, 1) * 255).round().permute(1, 2, 0).numpy()
    wanted = np.asarray(Image.open(Path(__file__).with_name("ncnn_32x24.png")).convert("RGB"), float)
    assert found.shape == (96, 128, 3) and np.abs(found - wanted).max() <= 1
    assert found.std() > 30, "a flat picture would prove nothing"


@pytest.mark.parametrize("spec", ENTRIES, ids=lambda spec: spec.id)
def test_a_catalogue_entry_names_the_network_as_it_is(spec: object) -> None:
    architecture = architecture_of(spec)  # type: ignore[arg-type]
    with torch.device("meta"):
        built = network.build(architecture)
    component = spec.components["upscaler"]  # type: ignore[attr-defined]
    assert sum(one.numel() for one in built.parameters()) == architecture.params == component.params
    convolutions = [one for one in built.modules() if isinstance(one, torch.nn.Conv2d)]
    assert tuple((one.out_channels, one.in_channels) for one in convolutions) == architecture.convolutions


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("half", [True, False])
def test_what_is_written_is_read(tmp_path: Path, name: str, half: bool) -> None:
    files = write_ncnn(tmp_path, SMALL[name], half=half)
    tensors = read_tensors(files["weights"], scan(files["param"], files["weights"], SMALL[name]))
    random = np.random.default_rng(0)
    out, into = SMALL[name].convolutions[0]
    wanted = random.normal(0, (2 / (9 * into)) ** 0.5, (out, into, 3, 3)).astype("f2" if half else "f4")
    assert torch.equal(tensors[0], torch.from_numpy(wanted).float())
    made = network.load(SMALL[name], files["param"], files["weights"])
    assert all(torch.equal(one, other) for one, other in zip(made.state_dict().values(), tensors, strict=True))


def param(change: Callable[[str], str]) -> Callable[[dict[str, Path]], None]:
    def apply(files: dict[str, Path]) -> None:
        files["param"].write_text(change(files["param"].read_text()))

    return apply


def weights(change: Callable[[bytes], bytes]) -> Callable[[dict[str, Path]], None]:
    def apply(files: dict[str, Path]) -> None:
        files["weights"].write_bytes(change(files["weights"].read_bytes()))

    return apply


FAULTS = {
    "no magic": (param(lambda text: text.replace("7767517", "7767518")), "does not begin with 7767517"),
    "empty": (param(lambda text: ""), "does not begin with 7767517"),
    "magic alone": (param(lambda text: "7767517\n"), "says nothing"),
    "a line too few": (param(lambda text: text[: text.rindex("Convolution")]), r"has \d+ layers and says \d+"),
    "no number": (param(lambda text: text.replace("1 1 a0 b0", "one 1 a0 b0")), "a layer that cannot be read"),
    "counts below 0": (param(lambda text: text.replace("1 1 a0 b0", "-1 1 a0 b0")), "a layer that cannot be read"),
    "another kernel": (param(lambda text: text.replace("1=3", "1=5", 1)), "has 5.0 where conv_0 should have 3"),
    "another size": (param(lambda text: text.replace("6=1728", "6=9999999999")), "should have 1728"),
    "8 bits": (param(lambda text: text.replace("6=1728", "6=1728 8=1")), "has 1.0 where conv_0 should have 0"),
    "another layer": (param(lambda text: text.replace("Input", "Softmax")), "'Softmax', which no Real-ESRGAN has"),
    "cut": (weights(lambda data: data[:-7]), "but its layers take"),
    "cut early": (weights(lambda data: data[:5000]), "ends before conv_2"),
    "no bytes": (weights(lambda data: b""), "ends before conv_0"),
    "longer": (weights(lambda data: data + b"1234"), "but its layers take"),
    "8-bit numbers": (weights(lambda data: b"\x38\x4b\x0d\x00" + data[4:]), "has the storage 0x000d4b38 at conv_0"),
    "a pickle": (weights(lambda data: b"\x80\x04" + data[2:]), "has the storage"),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_file_is_refused_in_one_line(tmp_path: Path, fault: str) -> None:
    files = write_ncnn(tmp_path, SMALL["compact"])
    spoil, words = FAULTS[fault]
    spoil(files)
    params = UpscaleParams.model_validate({"image": tmp_path / "none.png"})
    with pytest.raises(BadWeights, match=words) as caught:
        ImageUpscale(spec_of(SMALL["compact"]), files).preflight(params)
    assert "\n" not in caught.value.what and "model." in caught.value.what and caught.value.hint


def test_numbers_that_are_none_are_refused(tmp_path: Path) -> None:
    files = write_ncnn(tmp_path, SMALL["rrdb"])
    data = files["weights"].read_bytes()
    files["weights"].write_bytes(data[:-4] + np.float32("nan").tobytes())
    with pytest.raises(BadWeights, match="has numbers at conv_20 that are none"):
        network.load(SMALL["rrdb"], files["param"], files["weights"])


@pytest.mark.parametrize(("of", "wanted"), [("compact", "rrdb"), ("rrdb", "compact")])
def test_files_of_another_network_are_refused(small_files: dict[str, dict[str, Path]], of: str, wanted: str) -> None:
    with pytest.raises(BadWeights):
        scan(small_files[of]["param"], small_files[of]["weights"], SMALL[wanted])
    deeper = Architecture(network=of, depth=2)
    with pytest.raises(BadWeights, match=r"should have|too early"):
        scan(small_files[of]["param"], small_files[of]["weights"], deeper)


def test_missing_files_are_told(tmp_path: Path) -> None:
    files = {"param": tmp_path / "a.param", "weights": tmp_path / "a.bin"}
    with pytest.raises(BadWeights, match=r"a\.param cannot be read"):
        scan(files["param"], files["weights"], COMPACT)
    with pytest.raises(BadWeights, match="studio models pull tiny"):
        ImageUpscale(spec_of(COMPACT)).preflight(UpscaleParams.model_validate({"image": tmp_path / "x.png"}))


@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 400), change=st.binary(min_size=1, max_size=6))
def test_no_damage_to_the_text_is_more_than_a_refusal(
    small_files: dict[str, dict[str, Path]], tmp_path_factory: pytest.TempPathFactory, position: int, change: bytes
) -> None:
    text = small_files["compact"]["param"].read_bytes()
    file = tmp_path_factory.mktemp("damaged") / "damaged.param"
    file.write_bytes(text[:position] + change + text[position + len(change) :])
    try:
        found = scan(file, small_files["compact"]["weights"], SMALL["compact"])
    except BadWeights as error:
        assert "\n" not in error.what
    else:
        assert [one.shape for one in found][:2] == [(64, 3, 3, 3), (64,)]
