"""The trainer of the starter film model, at toy size: real classes, three painted squares, a few steps."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cut_training import trained
from diffusers import AutoencoderKL, HunyuanVideoFramepackPipeline

import train_starter_video as script
from starter_video import captions, framewise, history, look, models, scenes
from starter_video.stages import Settings, Trainer

SHAPE = models.Shape(
    side=32, vae=(8, 8, 16), groups=4, heads=2, head=16, axes=(4, 6, 6), single=1, text_width=16, vocabulary=450, eye=8
)
SETTINGS = Settings(shape=SHAPE, scenes=4, picture_batch=2, batch=2, film_batch=1, film_latents=2)
STEPS = {"pictures": 3, "motion": 4, "again": 2, "films": 3}


@pytest.fixture(scope="module")
def squares() -> scenes.Sprites:
    pictures = torch.zeros(3, 4, 32, 32, dtype=torch.uint8)
    for channel in range(3):
        pictures[channel, [channel, 3], 8:24, 8:24] = 255
    return scenes.Sprites(pictures, (["a red square"], ["un carré rouge"]))


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Sums in another order are other sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    pipe = trainer.pipeline()
    names = ("vae", "transformer", "text_encoder", "text_encoder_2", "image_encoder")
    return {f"{name}.{key}": value for name in names for key, value in getattr(pipe, name).state_dict().items()}


@pytest.fixture(scope="module")
def whole(squares: scenes.Sprites, tmp_path_factory: pytest.TempPathFactory) -> Trainer:
    folder = tmp_path_factory.mktemp("whole")
    return trained(lambda: Trainer(squares, None, SETTINGS, folder), STEPS)


@pytest.fixture(scope="module")
def scene(squares: scenes.Sprites) -> scenes.Scene:
    return scenes.make_scene(squares.pictures, torch.Generator().manual_seed(3))


def test_a_resumed_run_ends_with_the_same_weights(whole: Trainer, squares: scenes.Sprites, tmp_path: Path) -> None:
    cut = trained(lambda: Trainer(squares, None, SETTINGS, tmp_path), STEPS, cuts=(1, 5, 8, 11))
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys()
    assert [key for key, value in expected.items() if not torch.equal(value, found[key])] == []


def test_the_result_makes_films_of_whole_sections(whole: Trainer, tmp_path: Path) -> None:
    script.finish(whole, tmp_path / "out", tmp_path / "sheet.png", sections=1)
    assert (tmp_path / "sheet.png").stat().st_size > 1000
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    picture = script.pictures_of(whole.sprites.pictures, 1)[0]
    assert look.sample(pipe, picture, "slides right", 2).shape == (73, 3, 32, 32)


def test_a_checkpoint_of_other_settings_is_refused(whole: Trainer, squares: scenes.Sprites) -> None:
    with pytest.raises(SystemExit, match="other settings"):
        Trainer(squares, None, Settings(shape=SHAPE, scenes=4, seed=1), whole.folder).load()


def test_the_plan_follows_from_the_time_box(squares: scenes.Sprites, tmp_path: Path) -> None:
    trainer = Trainer(squares, None, SETTINGS, tmp_path)
    fresh = [p.clone() for p in trainer.transformer.parameters()]
    trainer.make_plan(minutes=1)
    assert trainer.plan.keys() == STEPS.keys() and min(trainer.plan.values()) > 0
    assert all(torch.equal(a, b) for a, b in zip(fresh, trainer.transformer.parameters(), strict=True))


def test_the_picture_latent_is_not_a_draw(whole: Trainer, scene: scenes.Scene) -> None:
    picture = scenes.film(scene, "still", [0])[:, :, None]
    posterior = whole.vae.encode(picture).latent_dist
    assert posterior.std.max() < 1e-3
    assert torch.allclose(posterior.mean[:, :, 0], whole.encode(picture[:, :, 0]), atol=1e-5)


def test_weights_of_the_picture_autoencoder_do_the_same_on_single_frames() -> None:
    """Away from the border, which one class fills with zeros and the other with its neighbours."""
    torch.manual_seed(0)
    pictures = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=SHAPE.vae,
        norm_num_groups=SHAPE.groups,
        sample_size=96,
        mid_block_add_attention=True,
    ).eval()
    vae = models.build_vae(SHAPE)
    models.from_pictures(vae, pictures)
    latent = torch.randn(1, 4, 12, 12)
    with torch.no_grad():
        # The kernels are turned by half a circle.
        expected = pictures.decode(latent.flip(-1, -2)).sample.flip(-1, -2)
        found = vae.decode(latent[:, :, None]).sample[:, :, 0]
    assert expected.shape == found.shape == (1, 3, 48, 48)
    middle = (..., slice(20, 28), slice(20, 28))
    assert (expected - found)[middle].abs().mean() < 0.2 * expected[middle].std()


def test_one_frame_needs_the_last_place_in_time_only() -> None:
    torch.manual_seed(0)
    vae = models.build_vae(SHAPE)
    with torch.no_grad():
        frame = torch.randn(1, 3, 1, 32, 32)
        expected = vae(frame).sample
        with framewise.framewise(vae):
            found = vae(frame).sample
        assert torch.allclose(expected, found, atol=1e-4)
        assert torch.equal(vae(frame).sample, expected)


@pytest.mark.parametrize("motion", captions.MOTIONS)
def test_every_motion_begins_with_the_picture_and_comes_back_after_a_section(motion: str, scene: scenes.Scene) -> None:
    first, middle, last = scenes.film(scene, motion, [0, 12, scenes.PERIOD])
    assert torch.allclose(first, last, atol=1e-4)
    assert (torch.allclose(first, middle, atol=1e-4)) == (motion == "still")


@pytest.mark.parametrize(
    ("motion", "rows", "columns"), [("right", 0, 1), ("left", 0, -1), ("up", -1, 0), ("down", 1, 0), ("bounces", -1, 0)]
)
def test_a_motion_goes_where_it_says(motion: str, rows: int, columns: int) -> None:
    sprite = torch.zeros(4, 64, 64)
    sprite[:, 28:36, 28:36] = 1
    moved = scenes.film(scenes.Scene(sprite, torch.zeros(3, 64, 64)), motion, [0, 4])[:, 0] + 1
    first, later = ((frame > 0.5).nonzero().double().mean(0) for frame in moved)
    gone = (later - first).round()
    assert gone.sign().tolist() == [rows, columns]


def test_history_holds_what_came_before_and_nothing_else(whole: Trainer) -> None:
    films = torch.arange(10.0)[None, None, :, None, None, None].expand(2, 8, 10, 4, 8, 8)
    lengths = set()
    for seed in range(12):
        chance = random.Random(seed)  # noqa: S311
        batch = history.sections(films + 1, [0, 1], chance, torch.Generator().manual_seed(seed))
        assert batch.first.flatten().unique().tolist() == [1]
        assert batch.target[0, 0, :, 0, 0].tolist() == list(range(2, 11))
        lengths |= {int((past[0, :, 0, 0] != 0).sum()) for past in batch.past}
    assert lengths == {1, 10, 19}


def test_every_caption_names_one_motion_only() -> None:
    owners: dict[str, str] = {}
    for motion, languages in captions.PHRASES.items():
        for phrase in (text for phrases in languages for text in phrases):
            assert owners.setdefault(phrase, motion) == motion
    chance = random.Random(0)  # noqa: S311
    texts = {captions.caption("spins", (["a cat"], ["un chat"]), chance) for _ in range(200)}
    assert {"spins", "a cat spins", "un chat tourne"} <= texts
    assert all("{" not in text for text in texts)


def test_the_vocabulary_is_the_same_every_time(whole: Trainer) -> None:
    again = models.build_tokenizers(captions.all_phrases(whole.sprites.subjects), SHAPE)
    for first, second in zip(whole.tokenizers, again, strict=True):
        assert first.get_vocab() == second.get_vocab()
        assert first("slides right").input_ids == second("slides right").input_ids
    assert whole.tokenizers[0]("日本").input_ids  # an unknown sign is no error
