"""What the starter model is asked for: one of eight motions, in English or French, with or without a subject."""

import random
import unicodedata
from collections.abc import Iterator

# {s} is the subject with its article; phrases without it stand alone.
PHRASES: dict[str, tuple[list[str], list[str]]] = {
    "right": (
        ["slides right", "{s} slides right", "slides to the right", "{s} slides to the right", "moves right",
         "{s} moves to the right", "goes right", "{s} goes to the right", "sliding right", "from left to right"],
        ["glisse vers la droite", "{s} glisse vers la droite", "glisse à droite", "{s} glisse à droite",
         "va vers la droite", "{s} va à droite", "se déplace vers la droite", "de gauche à droite"],
    ),
    "left": (
        ["slides left", "{s} slides left", "slides to the left", "{s} slides to the left", "moves left",
         "{s} moves to the left", "goes left", "{s} goes to the left", "sliding left", "from right to left"],
        ["glisse vers la gauche", "{s} glisse vers la gauche", "glisse à gauche", "{s} glisse à gauche",
         "va vers la gauche", "{s} va à gauche", "se déplace vers la gauche", "de droite à gauche"],
    ),
    "up": (
        ["slides up", "{s} slides up", "slides upwards", "{s} moves up", "moves up", "goes up", "{s} goes up",
         "rises", "{s} rises", "sliding up"],
        ["glisse vers le haut", "{s} glisse vers le haut", "monte", "{s} monte", "va vers le haut",
         "{s} va vers le haut", "se déplace vers le haut"],
    ),
    "down": (
        ["slides down", "{s} slides down", "slides downwards", "{s} moves down", "moves down", "goes down",
         "{s} goes down", "falls", "{s} falls", "sliding down"],
        ["glisse vers le bas", "{s} glisse vers le bas", "descend", "{s} descend", "va vers le bas",
         "{s} va vers le bas", "tombe", "{s} tombe"],
    ),
    "bounces": (
        ["bounces", "{s} bounces", "bounces up and down", "{s} bounces up and down", "jumps", "{s} jumps", "hops",
         "{s} hops", "bouncing"],
        ["rebondit", "{s} rebondit", "saute", "{s} saute", "fait des bonds", "{s} fait des bonds", "bondit"],
    ),
    "spins": (
        ["spins", "{s} spins", "turns", "{s} turns", "rotates", "{s} rotates", "spins around", "{s} turns around",
         "spinning"],
        ["tourne", "{s} tourne", "tourne sur lui-même", "{s} tourne sur place", "pivote", "{s} pivote",
         "fait un tour"],
    ),
    "pulses": (
        ["grows and shrinks", "{s} grows and shrinks", "pulses", "{s} pulses", "gets bigger and smaller",
         "{s} gets bigger and smaller", "grows", "{s} grows", "shrinks", "{s} shrinks"],
        ["grandit et rétrécit", "{s} grandit et rétrécit", "grossit et rapetisse", "{s} grossit et rapetisse",
         "grandit", "{s} grandit", "rétrécit", "{s} rétrécit"],
    ),
    "still": (
        ["stands still", "{s} stands still", "does not move", "{s} does not move", "still", "stays", "{s} stays",
         "nothing moves", ""],
        ["ne bouge pas", "{s} ne bouge pas", "reste immobile", "{s} reste immobile", "immobile", "rien ne bouge"],
    ),
}  # fmt: skip
MOTIONS = tuple(PHRASES)
PLAIN = {
    "right": "slides right", "left": "slides left", "up": "slides up", "down": "slides down", "bounces": "bounces",
    "spins": "spins", "pulses": "grows and shrinks", "still": "stands still",
}  # fmt: skip
PLAIN_FR = {motion: phrases[1][0] for motion, phrases in PHRASES.items()}
EN_ANY = ["it", "the sprite", "the picture", "the object", "this"]
FR_ANY = ["il", "elle", "l'image", "l'objet", "ça"]


def caption(motion: str, subjects: tuple[list[str], list[str]], chance: random.Random) -> str:
    """One caption for the motion. `subjects`: English and French names with their articles."""
    language = chance.randrange(2)
    text = chance.choice(PHRASES[motion][language])
    names, common = subjects[language], (EN_ANY, FR_ANY)[language]
    if "{s}" in text:
        text = text.format(s=chance.choice(names if names and chance.random() < 0.6 else common))
    if chance.random() < 0.1:
        text = text.capitalize()
    if language and chance.random() < 0.1:
        text = unicodedata.normalize("NFD", text).encode("ascii", "ignore").decode()
    return text


def all_phrases(subjects: tuple[list[str], list[str]]) -> Iterator[str]:
    """What the vocabularies are learned from: every phrase often, every subject once."""
    for phrases in PHRASES.values():
        for language, common in ((0, EN_ANY), (1, FR_ANY)):
            for text in phrases[language]:
                yield from (text.format(s=name) for name in common)
    yield from subjects[0]
    yield from subjects[1]
