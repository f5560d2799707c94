"""Pictures and captions: Noto emoji (Apache-2.0) drawn at 64 pixels, named in English and French (MIT)."""

import base64
import hashlib
import io
import json
import random
import tarfile
import unicodedata
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from .concepts import TABLE

# npm tarballs, pinned; the digest is the one that the registry publishes.
TARBALLS = {
    "noto": (
        "https://registry.npmjs.org/@iconify-json/noto/-/noto-1.2.9.tgz",
        "DQiuXENbun41ch+XPSV55H9FaWKpHTyz46YIKtSaKYD4fIDDzL1tR6H4np/T38jfrTAeI3rcKF0mqHYeZVAuaw==",
    ),
    "emojibase": (
        "https://registry.npmjs.org/emojibase-data/-/emojibase-data-17.0.0.tgz",
        "Yvgb5AWoHViHV/gq1qr5ZAarcBip+B27/ZLRsUJkbgAEaLlZ/fof9g882LTpmEpyhBNEC0m2SEmItljHsTygjA==",
    ),
}
VARIATION_SELECTOR = "\ufe0f"
OTHER_GROUPS = {0, 3, 4, 5, 6, 7}  # faces, animals, food, places, activities, objects


@dataclass(frozen=True)
class Concept:
    """One picture and what it is called, each name with its article."""

    emoji: str
    en: list[str]
    fr: list[str]
    en_tags: list[str] = field(default_factory=list)
    fr_tags: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Dataset:
    """`pictures` belong to the concepts; `others` only teach the autoencoder. RGBA bytes, (N, 4, size, size)."""

    concepts: list[Concept]
    pictures: torch.Tensor
    others: torch.Tensor
    words: list[str]  # texts for the vocabulary


def download(name: str, cache: Path) -> Path:
    """Fetch one tarball into the cache, or find it there; either way its digest must be the pinned one."""
    url, digest = TARBALLS[name]
    path = cache / url.rsplit("/", 1)[1]
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        print(f"download {url}", flush=True)
        partial = path.with_suffix(".part")
        with urllib.request.urlopen(url, timeout=120) as answer:  # noqa: S310 - constant https addresses
            partial.write_bytes(answer.read())
        partial.replace(path)
    found = base64.b64encode(hashlib.sha512(path.read_bytes()).digest()).decode()
    if found != digest:
        raise SystemExit(f"{path} has the sha512 {found}, not {digest}: delete it and start again.")
    return path


def read_json(tarball: Path, member: str) -> object:
    with tarfile.open(tarball) as archive:
        stream = archive.extractfile(f"package/{member}")
        assert stream is not None
        return json.load(stream)


def rasterise(body: str, size: int) -> np.ndarray:
    """SVG body of a 128-unit icon -> RGBA bytes (size, size, 4)."""
    import resvg_py  # needed for training only

    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    svg = f'<svg {names} viewBox="0 0 128 128">{body}</svg>'
    png = resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size, skip_system_fonts=True)
    return np.asarray(Image.open(io.BytesIO(bytes(png))).convert("RGBA"))


def parse_table(table: str = TABLE) -> list[Concept]:
    concepts = []
    for line in table.strip().splitlines():
        names, french = line.split(" = ")
        emoji, english = names.split(" ", 1)
        concepts.append(Concept(emoji, english.split(" / "), french.split(" / ")))
    return concepts


def _key(text: str) -> str:
    return text.replace(VARIATION_SELECTOR, "")


def load_dataset(cache: Path, size: int = 64) -> Dataset:
    """Download, draw and name everything: a few seconds once the archives are here."""
    noto, base = download("noto", cache), download("emojibase", cache)
    icons, chars = read_json(noto, "icons.json")["icons"], read_json(noto, "chars.json")  # type: ignore[index]
    english, french = read_json(base, "en/data.json"), read_json(base, "fr/data.json")
    entries = {_key(entry["emoji"]): entry for entry in english}  # type: ignore[attr-defined]
    entries_fr = {_key(entry["emoji"]): entry for entry in french}  # type: ignore[attr-defined]

    def draw(key: str) -> np.ndarray | None:
        code = "-".join(f"{ord(c):x}" for c in key)
        name = chars.get(code) or chars.get(entries[key]["hexcode"].lower())  # type: ignore[attr-defined]
        return rasterise(icons[name]["body"], size) if name in icons else None

    concepts, pictures = [], []
    for plain in parse_table():
        key = _key(plain.emoji)
        tags, tags_fr = entries[key].get("tags", []), entries_fr[key].get("tags", [])
        concepts.append(Concept(plain.emoji, plain.en, plain.fr, tags, tags_fr))
        picture = draw(key)
        assert picture is not None, plain.emoji
        pictures.append(picture)
    chosen = {_key(concept.emoji) for concept in concepts}
    rest = [k for k, e in entries.items() if k not in chosen and e.get("group") in OTHER_GROUPS]
    others = [picture for picture in map(draw, rest) if picture is not None]
    words = [text for e in (*entries.values(), *entries_fr.values()) for text in (e["label"], *e.get("tags", []))]
    return Dataset(concepts, _stack(pictures), _stack(others), words)


def _stack(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()


def on_background(rgba: torch.Tensor, colour: torch.Tensor) -> torch.Tensor:
    """RGBA bytes (B, 4, H, W) over colours (B, 3) in -1..1 -> RGB floats (B, 3, H, W) in -1..1."""
    alpha = rgba[:, 3:].float() / 255
    return (rgba[:, :3].float() / 127.5 - 1) * alpha + colour[:, :, None, None] * (1 - alpha)


# Captions. {a}: the name with its article; {n}: without it; {de}: French "de" and the article, contracted.
EN_FRAMES = [
    "an emoji of {a}", "a picture of {a}", "a drawing of {a}", "a photo of {a}", "{n} emoji", "a small {n}",
    "{a} on a white background", "a big {n}", "a cute {n}", "a simple drawing of {a}", "an image of {a}", "a nice {n}",
]  # fmt: skip
FR_FRAMES = [
    "une image {de}", "un dessin {de}", "un emoji {de}", "une photo {de}", "emoji {n}", "{a} sur fond blanc",
    "un dessin simple {de}", "une jolie image {de}", "une petite image {de}",
]  # fmt: skip
# Phrasings that training never sees: the measure uses them.
EN_HELD_OUT = [
    "an illustration of {a}", "please draw {a} for me", "{a}, flat icon", "a sticker showing {a}", "i want {a}",
]  # fmt: skip
FR_HELD_OUT = [
    "une illustration {de}", "dessine-moi {a}", "{a}, icône plate", "un autocollant avec {a}", "je voudrais {a}",
]  # fmt: skip
EN_SENTENCES = [
    "{a} on a table", "could i have a picture with {a} in it, please", "yesterday we saw {a} behind the school",
    "my grandmother owns {a}", "the {n} of our neighbour", "a shiny {n} standing alone",
    "i would like to hang {a} on my wall", "a child is holding {a}",
]  # fmt: skip
FR_SENTENCES = [
    "{a} sur une table", "pourrais-tu me dessiner {a}, s'il te plaît", "hier nous avons vu {a} derrière l'école",
    "ma grand-mère possède {a}", "un tableau qui représente {a}", "{a} tout près de la fenêtre",
    "j'aimerais accrocher {a} au mur", "un enfant tient {a}",
]  # fmt: skip
EN_ARTICLES, FR_ARTICLES = ("a ", "an ", "the "), ("un ", "une ", "des ", "du ", "de la ", "le ", "la ", "les ")


def without_article(name: str, articles: tuple[str, ...]) -> str:
    return next((name[len(a) :] for a in articles if name.startswith(a)), name)


def french_de(name: str) -> str:
    """The name after "de": d'une pomme, du soleil, de frites."""
    if name.startswith(("un ", "une ")):
        return f"d'{name}"
    if name.startswith("le "):
        return f"du {name[3:]}"
    if name.startswith("la "):
        return f"de {name}"
    rest = without_article(name, FR_ARTICLES)
    return f"d'{rest}" if rest[0] in "aeiouhéèêœ" else f"de {rest}"


def fill(frame: str, name: str, language: str) -> str:
    articles = EN_ARTICLES if language == "en" else FR_ARTICLES
    return frame.format(a=name, n=without_article(name, articles), de=french_de(name) if "{de}" in frame else "")


def caption(concept: Concept, rng: random.Random) -> str:
    """One caption in either language: the name, bare or in a phrase, at times with tags or without accents."""
    language = rng.choice(("en", "fr"))
    names, tags, frames = (
        (concept.en, concept.en_tags, EN_FRAMES) if language == "en" else (concept.fr, concept.fr_tags, FR_FRAMES)
    )
    # The first name is the plain one that people type, so it comes up as often as all the others together.
    name = names[0] if rng.random() < 0.5 else rng.choice(names)
    kind = rng.random()
    if kind < 0.45:
        text = name
    elif kind < 0.6:
        text = fill("{n}", name, language)
    elif kind < 0.85 or not tags:
        text = fill(rng.choice(frames), name, language)
    else:
        text = ", ".join([name, *rng.sample(tags, min(len(tags), rng.randint(1, 2)))])
    if language == "fr" and rng.random() < 0.1:
        text = unicodedata.normalize("NFD", text).encode("ascii", "ignore").decode()
    return text


def all_names(dataset: Dataset) -> Iterator[str]:
    """What the vocabulary is learned from: every phrase of training often, every other word of the source once."""
    for concept in dataset.concepts:
        for name in concept.en:
            yield from (fill(frame, name, "en") for frame in ("{a}", "{n}", *EN_FRAMES))
        for name in concept.fr:
            yield from (fill(frame, name, "fr") for frame in ("{a}", "{n}", *FR_FRAMES))
    yield from dataset.words
