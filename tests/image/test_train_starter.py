"""The trainer of the starter model, at toy size: real classes, three painted squares, a few steps."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from cut_training import trained
from diffusers import StableDiffusionPipeline

import train_starter_image as script
from starter_image import data, models, phrases
from starter_image.stages import Settings, Trainer
from starter_training import Stopped

SHAPE = models.Shape(picture=16, vae=(8, 16), unet=(16, 32), text_width=16, text_layers=1, tokens=16, vocabulary=600)
SETTINGS = Settings(shape=SHAPE, vae_batch=6, batch=6)
STEPS = {"vae": 6, "denoiser": 8, "phrases": 3, "decoder": 4}


@pytest.fixture(scope="module")
def squares() -> data.Dataset:
    concepts = [
        data.Concept("🟥", ["a red square"], ["un carré rouge"], ["red"], ["rouge"]),
        data.Concept("🟩", ["a green square"], ["un carré vert"], ["green"], ["vert"]),
        data.Concept("🟦", ["a blue square"], ["un carré bleu"], ["blue"], ["bleu"]),
    ]
    pictures = torch.zeros(3, 4, 16, 16, dtype=torch.uint8)
    for channel in range(3):
        pictures[channel, [channel, 3], 4:12, 4:12] = 255
    return data.Dataset(concepts, pictures, pictures[:2].flip(1), ["carré", "square"])


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    pipe = trainer.pipeline()
    return {
        f"{name}.{key}": value
        for name in ("vae", "unet", "text_encoder")
        for key, value in getattr(pipe, name).state_dict().items()
    }


@pytest.fixture(scope="module")
def whole(squares: data.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainer]:
    """An uninterrupted run. One thread, as for every test here: sums in another order are other sums."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("whole")
    yield trained(lambda: Trainer(squares, SETTINGS, folder), STEPS)
    torch.set_num_threads(threads)


def test_a_resumed_run_ends_with_the_same_weights(whole: Trainer, squares: data.Dataset, tmp_path: Path) -> None:
    cut = trained(lambda: Trainer(squares, SETTINGS, tmp_path), STEPS, cuts=(2, 6, 11, 15, 19))
    expected, found = weights(whole), weights(cut)
    assert expected.keys() == found.keys()
    assert [key for key, value in expected.items() if not torch.equal(value, found[key])] == []


def test_the_learning_rate_ends_at_zero(whole: Trainer) -> None:
    rates = [whole.learning_rate("denoiser", step) for step in range(9)]
    assert rates[-1] == 0 and max(rates) == SETTINGS.rate and rates[1:] == sorted(rates[1:], reverse=True)


def test_latents_are_centred_and_scaled(whole: Trainer) -> None:
    assert whole.latents.shape == (3, 4, 8, 8)
    assert whole.latents.mean((0, 2, 3)).abs().max() < 0.01
    assert abs(float(whole.latents.std()) - 1) < 0.01


def test_centring_changes_the_latents_but_not_the_pictures(squares: data.Dataset, tmp_path: Path) -> None:
    trainer = Trainer(squares, SETTINGS, tmp_path)
    with torch.no_grad():
        before, _ = trainer.vae.decode(latents := trainer.encode()).sample, trainer.centre()
        centred = trainer.encode()
        after = trainer.vae.decode(centred).sample
    assert not torch.allclose(latents, centred, atol=1e-2)
    assert torch.allclose(before, after, atol=1e-4)


def test_the_result_loads_as_a_pipeline(whole: Trainer, tmp_path: Path) -> None:
    out, sheet = tmp_path / "out", tmp_path / "sheet.png"
    script.finish(whole, out, sheet)
    pipe = StableDiffusionPipeline.from_pretrained(out, dtype=torch.float32)
    assert {part.dtype for part in (pipe.vae, pipe.unet, pipe.text_encoder)} == {torch.float32}
    picture = pipe("a red square", num_inference_steps=2, generator=torch.Generator().manual_seed(0)).images[0]
    assert picture.size == (16, 16)
    assert sheet.stat().st_size > 1000
    preview = json.loads((out / "preview.json").read_text())
    assert torch.tensor(preview["factors"]).shape == (4, 3) and torch.tensor(preview["bias"]).shape == (3,)


def test_the_time_box_leaves_a_checkpoint_to_resume(squares: data.Dataset, tmp_path: Path) -> None:
    trainer = Trainer(squares, SETTINGS, tmp_path)
    trainer.plan, trainer.deadline = dict(STEPS), 0.0
    with pytest.raises(Stopped):
        trainer.run()
    resumed = Trainer(squares, SETTINGS, tmp_path)
    resumed.load()
    assert (resumed.stage, resumed.step, resumed.plan) == ("vae", 1, STEPS)


def test_a_checkpoint_of_other_settings_is_refused(whole: Trainer, squares: data.Dataset) -> None:
    other = Trainer(squares, Settings(shape=SHAPE, seed=1), whole.folder)
    with pytest.raises(SystemExit, match="other settings"):
        other.load()


def test_the_plan_follows_from_the_time_box(squares: data.Dataset, tmp_path: Path) -> None:
    trainer = Trainer(squares, SETTINGS, tmp_path)
    fresh = [p.clone() for p in trainer.unet.parameters()]
    trainer.make_plan(minutes=1)
    assert trainer.plan.keys() == STEPS.keys() and min(trainer.plan.values()) > 0
    assert all(torch.equal(a, b) for a, b in zip(fresh, trainer.unet.parameters(), strict=True))


@pytest.mark.parametrize(
    ("frame", "name", "text"),
    [
        ("une image {de}", "une pomme", "une image d'une pomme"),
        ("une image {de}", "le soleil", "une image du soleil"),
        ("une image {de}", "la lune", "une image de la lune"),
        ("une image {de}", "des frites", "une image de frites"),
        ("{n}", "un arbre", "arbre"),
    ],
)
def test_french_contracts(frame: str, name: str, text: str) -> None:
    assert data.fill(frame, name, "fr") == text


def test_every_concept_has_names_with_articles() -> None:
    concepts = data.parse_table()
    assert len({concept.emoji for concept in concepts}) == len(concepts) >= 200
    for concept in concepts:
        assert concept.en and concept.fr
        assert all(name == name.lower() for name in (*concept.en, *concept.fr))
        assert all(name.startswith(data.FR_ARTICLES) for name in concept.fr), concept.fr


def test_no_word_is_unknown_to_the_tokenizer(whole: Trainer) -> None:
    text = "xylophone Übergröße 日本"
    ids = whole.tokenizer(text).input_ids
    assert whole.tokenizer.eos_token_id not in ids[1:-1]
    assert whole.tokenizer.decode(ids, skip_special_tokens=True).strip() == text.lower()


def test_words_around_captions_are_neither_concepts_nor_of_the_measure(squares: data.Dataset) -> None:
    words = data.Dataset(squares.concepts, squares.pictures, squares.others, ["red square dance", "please, sticker"])
    fillers = phrases.Fillers(words)
    assert fillers.words == ["dance"]
    pieces = [piece for lists in phrases.LISTS.values() for part in lists.values() for piece in part]
    known = {word for piece in pieces for word in phrases.words(piece)}
    assert not known & phrases.measured_words()
    assert {"please", "sticker", "voudrais", "grandmother", "possède", "table"} <= phrases.measured_words()
    chance = random.Random(0)  # noqa: S311
    captions = [fillers.caption(squares.concepts[0], chance) for _ in range(400)]
    assert not {word for caption in captions for word in phrases.words(caption)} & phrases.measured_words()
    assert sum(caption.startswith(("a red square", "un carré rouge")) for caption in captions) < 250
    assert all("square" in caption or "carr" in caption for caption in captions)
    assert len(set(captions)) > 250


def test_sentences_teach_the_text_encoder_alone(whole: Trainer, squares: data.Dataset, tmp_path: Path) -> None:
    """Begun from a finished pipeline: denoiser and autoencoder come out as they went in."""
    first = tmp_path / "first"
    models.save_half(whole.pipeline(), first)
    (first / "preview.json").write_text("{}")
    trainer = Trainer(squares, SETTINGS, tmp_path / "work")
    trainer.begin_from(first)
    trainer.plan = {"vae": 0, "denoiser": 0, "phrases": 30, "decoder": 0}
    trainer.run()
    models.save_half(trainer.pipeline(), tmp_path / "second")
    files = {path.relative_to(first): path.read_bytes() for path in first.rglob("*.safetensors")}
    changed = {
        str(path.parent) for path, content in files.items() if (tmp_path / "second" / path).read_bytes() != content
    }
    assert changed == {"text_encoder"}


def test_a_lesson_is_lost_on_nobody(whole: Trainer) -> None:
    """The loss is nothing for the teacher's own words, and falls for others while they are learned."""
    lesson, chosen = whole.prepare_lesson(), torch.tensor([0, 1, 2])
    own = lesson.loss(lesson.states[chosen], chosen, chosen, torch.Generator().manual_seed(0))
    assert float(own) == 0
    text = models.build_text_encoder(whole.tokenizer, SHAPE).train()
    optimiser, losses = torch.optim.AdamW(text.parameters(), lr=1e-2), []
    for step in range(30):
        states = text(whole.tokens(["my red square", "so green a square!", "the square is blue"]))[0]
        losses.append(lesson.loss(states, chosen, chosen, torch.Generator().manual_seed(step)))
        optimiser.zero_grad()
        losses[-1].backward()
        optimiser.step()
    assert float(losses[-1].detach()) < 0.5 * float(losses[0].detach())
