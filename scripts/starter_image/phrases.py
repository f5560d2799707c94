"""Words around a caption that mean nothing to the model: a person writes "draw me a cat, please", not "a cat".

Causal text encoders lean on the first word. One that has only ever seen captions begin with an article draws
something arbitrary after any other word. So the last part of the training puts common words, words of other
emoji and invented ones before and after the names. The words of the measure's phrasings are left out.
"""

import random
import re

from . import data

EN_LEADS = """
make / show / give / create / generate / render / paint / sketch / can you make / could you create / let us
see / here is / this is / look at / find / we need / they like / my favourite thing is / once there was / one
/ some / the / my / your / this / that / a cartoon of / a painting of / a sketch of / a symbol of / an artwork
of / a beautiful / a lovely / a funny / a pretty / a little / a simple / a shiny / an old / a new / one single
/ a very nice / high quality picture of
"""
FR_LEADS = """
fais / montre / donne / crée / génère / peins / peux-tu faire / voici / c'est / regarde / trouve / il nous
faut / ils aiment / ma chose préférée est / il était une fois / le / la / les / mon / ma / mes / ce / cette /
notre / une peinture avec / un croquis avec / un symbole pour / un beau / une belle / un petit / une petite /
un grand / une grande / un vieux / un joli / une jolie / un très beau / une très belle / image de bonne
qualité avec
"""
EN_ENDS = """
on a table / in the garden / at night / in the morning / thank you / now / today / with nothing else / in
colour / drawn by hand / in a simple style / on white / in the middle / very detailed / and nothing else /
that looks good / digital art / in 3d
"""
FR_ENDS = """
sur une table / dans le jardin / la nuit / le matin / merci / maintenant / aujourd'hui / et rien de plus / en
couleurs / dessiné à la main / dans un style simple / sur du blanc / au milieu / très détaillé / qui est beau
/ art numérique / en 3d
"""
SYLLABLES = """
ba be bi bo bu ca co da de di do fa fi fo ga go la le li lo ma me mi mo na ne ni no pa pe pi po ra re ri ro sa se si so
ta te ti to va ve vi vo cha che tion ment ing er ed ly eau oux ille
"""


def _pieces(text: str) -> list[str]:
    return [" ".join(piece.split()) for piece in text.split("/")]


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


class Fillers:
    """Chooses the words; the vocabulary is that of all emoji less our concepts' names and the measure's phrasings."""

    def __init__(self, dataset: data.Dataset) -> None:
        self.syllables = SYLLABLES.split()
        frames = [*data.EN_HELD_OUT, *data.FR_HELD_OUT]
        names = [name for concept in dataset.concepts for name in (*concept.en, *concept.fr)]
        tags = [tag for concept in dataset.concepts for tag in (*concept.en_tags, *concept.fr_tags)]
        kept_out = {word for text in (*frames, *names, *tags) for word in _words(text)}
        self.words = sorted({word for text in dataset.words for word in _words(text)} - kept_out) or ["thing"]

    def some(self, chance: random.Random, most: int) -> str:
        """A few words of the vocabulary, some of them invented, so that every piece of a word is met."""
        words = []
        for _ in range(chance.randint(1, most)):
            invented = "".join(chance.choice(self.syllables) for _ in range(chance.randint(1, 3)))
            words.append(invented if chance.random() < 0.4 else chance.choice(self.words))
        return " ".join(words)

    def caption(self, concept: data.Concept, chance: random.Random) -> str:
        """Two captions in three get words before, after or on both sides; the others stay as they were."""
        if chance.random() < 0.33:
            return data.caption(concept, chance)
        english = chance.random() < 0.5
        names = concept.en if english else concept.fr
        name = names[0] if chance.random() < 0.5 else chance.choice(names)
        articles = data.EN_ARTICLES if english else data.FR_ARTICLES
        bare = data.without_article(name, articles)
        leads, ends = (EN_LEADS, EN_ENDS) if english else (FR_LEADS, FR_ENDS)
        before = chance.choice(_pieces(leads)) if chance.random() < 0.5 else self.some(chance, 4)
        after = chance.choice(_pieces(ends)) if chance.random() < 0.5 else self.some(chance, 3)
        where = chance.random()
        middle = bare if chance.random() < 0.3 else name
        comma = chance.choice(("", "", ","))
        if where < 0.6:
            return f"{before} {middle}"
        return f"{middle}{comma} {after}" if where < 0.75 else f"{before} {middle}{comma} {after}"
