"""Whole sentences around a name: a person writes "draw me a cat, please", not "a cat".

Causal text encoders lean on the first word. One that has only ever seen captions begin with an article draws
something arbitrary after any other word. So the text encoder is shown the names inside sentences: put together from
the lists below, from words of other emoji and from invented ones. The measure's phrasings and their words
(`data.EN_HELD_OUT` and the others) are left out, which a test checks.
"""

import random
import re

from . import data

EN_ASK = """
make / show / give / create / generate / render / paint / sketch / print / design / find / bring / send / can you
make / could you create / would you paint / will you show us / let us see / try to make / help us design / go and
paint / now make / just create / hey, show / we need / they need / she needs / give me / make me / show me / paint
me / bring me / get me / let me see / i need / i like / i love / i am looking for / i am thinking of / i was hoping
for
"""
EN_MEDIUM = """
a painting of / a sketch of / a cartoon of / a symbol of / an artwork of / a logo of / a render of / a portrait of /
a poster of / a print of / the shape of / a close-up of / a view of / a cute version of / a pixel art of / a
watercolour of / clip art of / a doodle of / a badge with / a stamp with / a card with / a page with / a scene with
/ a background with / a design with / a toy shaped like / something like / nothing but / only / simply
"""
EN_WHO = """
he / she / they / somebody / a man / a woman / my friend / his brother / her sister / the teacher / the boss / a
stranger / everybody / nobody / one of us / an artist / the old lady / the boy next door / my cousin / uncle bob
"""
EN_DID = """
has / had / got / bought / found / finds / sees / likes / loves / wants to see / carries / brought / dreams of /
thinks about / talks about / remembers / forgot / lost / sold / made / painted / is looking at / is waiting for /
waits beside / runs after / points at / stands before / asks for / took a photo of / cannot forget / knows about
"""
EN_BEFORE = """
this is / here is / there is / that was / look at / see / once there was / my favourite thing is / today it is /
what about / how about / imagine / behold / everything about / the story of / a song about / a poem about / facts
about / news of / instead of that, / first of all, / next to me is / inside the box is / all you need is / the
answer is / guess what: / title: / subject: / topic: / image: / hello, / okay, / well, / so,
"""
EN_ADJECTIVES = """
beautiful / lovely / funny / pretty / little / simple / old / new / nice / small / large / huge / giant / cute /
perfect / strange / ugly / clean / dirty / modern / ancient / cheap / expensive / plastic / soft / heavy / magic /
famous / typical / realistic / fat / thin / tall / bright / dark / sleepy / fresh / very nice / really old / rather
small / super cute / most beautiful
"""
EN_AFTER = """
in the garden / at night / in the morning / in the kitchen / at the office / in front of everything / under the sky
/ near the road / on the floor / on a shelf / in a box / in a room / in the street / in the distance / on the left /
on top / from above / in the middle / in the corner / for the party / for my brother / for you / in summer / in
winter / in paris / at home / at work / over there / next to nothing / without anything else
"""
EN_END = """
thank you / thanks a lot / now / today / tonight / quickly / once more / again / with nothing else / in colour /
drawn by hand / in a simple style / on white / very detailed / and nothing else / that looks good / digital art / in
3d / high quality / best quality / soft light / sharp focus / minimal / cartoon style / for kids / isolated /
centred / no background / no text / is what we like / is all i need / is great / is fun / would be nice / looks good
/ was here / came back / is mine
"""
FR_ASK = """
fais / montre / donne / crée / génère / peins / trouve / apporte / envoie / imprime / fais-moi / montre-moi /
peins-moi / donne-moi / trouve-moi / montrez-nous / faites / peux-tu faire / peux-tu montrer / veux-tu peindre / tu
peux créer / il faut créer / essaie de faire / il nous faut / j'ai besoin de voir / je cherche / j'aime / j'adore /
je pense à / je veux / on veut / nous cherchons / fais donc / allez, montre
"""
FR_MEDIUM = """
une peinture avec / un croquis avec / un symbole pour / une affiche avec / un logo avec / un portrait avec / une
carte avec / un timbre avec / une page avec / une scène avec / un fond avec / un jouet en forme de / quelque chose
comme / rien que / seulement / juste / la forme de / le style de / un gros plan sur / une vue sur / une version
mignonne de
"""
FR_WHO = """
il / elle / on / quelqu'un / un homme / une femme / mon ami / son frère / sa sœur / le professeur / le patron / un
inconnu / personne / un artiste / la vieille dame / le garçon d'à côté / ma cousine / mon oncle
"""
FR_DID = """
a / avait / achète / a acheté / trouve / a trouvé / voit / aime / adore / veut voir / porte / rêve d'avoir / pense à
/ parle avec / se rappelle / oublie / a perdu / a vendu / a fait / a peint / regarde / attend / court après / montre
/ demande / prend en photo / connaît
"""
FR_BEFORE = """
voici / voilà / c'est / c'était / ceci est / regarde / regardez / il y a / il était une fois / ma chose préférée est
/ aujourd'hui c'est / et pourquoi pas / imagine / imaginez / l'histoire avec / une chanson sur / un poème sur / tout
sur / d'abord, / à côté de moi, / dans la boîte il y a / la réponse est / devine : / titre : / sujet : / thème : /
bonjour, / bon, / alors, / eh bien,
"""
FR_ADJECTIVES = """
petit / petite / grand / grande / beau / belle / joli / jolie / vieux / vieille / nouveau / gros / grosse / bon /
très beau / très belle / tout petit / toute petite / énorme / magnifique / drôle de / simple / vrai / vraie
"""
FR_ADJECTIVES_AFTER = """
magnifique / énorme / mignon / mignonne / simple / moderne / ancien / ancienne / parfait / parfaite / bizarre /
propre / sale / cassé / cassée / lourd / léger / magique / célèbre / réaliste / en plastique / en bois / très beau /
vraiment vieux / trop mignon / typique / frais / doux
"""
FR_AFTER = """
dans le jardin / la nuit / le matin / dans la cuisine / au bureau / devant tout le monde / sous le ciel / au bord de
la route / par terre / sur une étagère / dans une assiette / dans une boîte / dans une pièce / dans la rue / au loin
/ à gauche / en haut / vu d'en haut / au milieu / dans un coin / pour la fête / pour mon frère / pour toi / en été /
en hiver / à paris / à la maison / au travail / là-bas
"""
FR_END = """
merci / merci beaucoup / maintenant / aujourd'hui / ce soir / vite / encore une fois / et rien de plus / en couleurs
/ dessiné à la main / dans un style simple / sur du blanc / très détaillé / qui est beau / art numérique / en 3d /
haute qualité / lumière douce / minimaliste / style dessin animé / pour les enfants / isolé / centré / sans fond /
sans texte / c'est ce que j'aime / c'est tout / serait bien / est revenu / est à moi
"""
SYLLABLES = """
ba be bi bo bu ca co da de di do fa fi fo ga go la le li lo ma me mi mo na ne ni no pa pe pi po ra re ri ro sa se si so
ta te ti to va ve vi vo cha che tion ment ing er ed ly eau oux ille
"""
EN_DETERMINERS = ("the", "my", "your", "his", "her", "our", "their", "this", "that", "some", "one", "another", "every")
FR_DETERMINERS = (
    "le",
    "la",
    "les",
    "mon",
    "ma",
    "mes",
    "ton",
    "ta",
    "son",
    "sa",
    "notre",
    "leur",
    "ce",
    "cette",
    "chaque",
)
EN_COUNTS = ("two", "three", "four", "five", "many", "several", "some", "a lot of", "2", "3", "10")
FR_COUNTS = ("deux", "trois", "quatre", "cinq", "plusieurs", "quelques", "beaucoup de", "2", "3", "10")
MARKS = ("", "", "", "", ".", "!", " !", "?", "...", ",")
# Words so common that the measure's phrasings cannot do without them.
COMMON = """
a an the of on in it is me my our we with for and would like i could have has to at picture un une le la les de du des l
d ma mon nous avec sur et au tout qui te s il près en je tu moi grand vu
"""


def _pieces(text: str) -> list[str]:
    return [" ".join(piece.split()) for piece in text.split(" / ")]


def _lists(**texts: str) -> dict[str, list[str]]:
    return {name: _pieces(text.replace("\n", " ")) for name, text in texts.items()}


LISTS = {
    "en": _lists(
        ask=EN_ASK, medium=EN_MEDIUM, who=EN_WHO, did=EN_DID, before=EN_BEFORE, adjective=EN_ADJECTIVES,
        after=EN_AFTER, end=EN_END,
    ),
    "fr": _lists(
        ask=FR_ASK, medium=FR_MEDIUM, who=FR_WHO, did=FR_DID, before=FR_BEFORE, adjective=FR_ADJECTIVES,
        behind=FR_ADJECTIVES_AFTER, after=FR_AFTER, end=FR_END,
    ),
}  # fmt: skip


def words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_]{2,}", text.lower())


def measured_words() -> frozenset[str]:
    """The words of the measure's phrasings that training must not know, the commonest excepted."""
    frames = (*data.EN_HELD_OUT, *data.FR_HELD_OUT, *data.EN_SENTENCES, *data.FR_SENTENCES)
    return frozenset(word for frame in frames for word in words(re.sub(r"{\w+}", " ", frame))) - set(COMMON.split())


def several(name: str) -> str:
    """A rough plural, in either language: what it ends with is all that the encoder must learn to overlook."""
    if name.endswith(("s", "x", "z")):
        return name
    return f"{name[:-1]}ies" if re.search(r"[^aeiou]y$", name) else f"{name}s"


class Fillers:
    """Writes the sentences; `words` is the vocabulary of all emoji less our concepts' names and the measure's words."""

    def __init__(self, dataset: data.Dataset) -> None:
        self.syllables = SYLLABLES.split()
        names = [name for concept in dataset.concepts for name in (*concept.en, *concept.fr)]
        tags = [tag for concept in dataset.concepts for tag in (*concept.en_tags, *concept.fr_tags)]
        self.kept_out = {word for text in (*names, *tags) for word in words(text)} | measured_words()
        found = {word for text in dataset.words for word in words(text)}
        self.words = sorted(found - self.kept_out) or ["thing"]
        # Parts of those words, so that the pieces of a word that was never seen have been seen in others.
        self.parts = sorted({word[i : i + 4] for word in self.words for i in range(len(word) - 2)})

    def word(self, chance: random.Random) -> str:
        """A word of the vocabulary, or an invented one; never one that is kept out."""
        while True:
            kind = chance.random()
            if kind < 0.5:
                return chance.choice(self.words)
            pieces = self.syllables if kind < 0.7 else self.parts
            invented = "".join(chance.choice(pieces) for _ in range(chance.randint(1, 3)))
            if invented not in self.kept_out:
                return invented

    def some(self, chance: random.Random, most: int) -> str:
        return " ".join(self.word(chance) for _ in range(chance.randint(1, most)))

    def caption(self, concept: data.Concept, chance: random.Random) -> str:
        """One caption in four is as the denoiser learned it; the others are sentences around a name."""
        if chance.random() < 0.25:
            return data.caption(concept, chance)
        language = chance.choice(("en", "fr"))
        names = concept.en if language == "en" else concept.fr
        name = names[0] if chance.random() < 0.6 else chance.choice(names)
        middle = self.named(name, language, chance)
        kind = chance.random()
        front = self.front(language, chance) if kind < 0.8 else ""
        back = self.back(language, chance) if kind > 0.45 else ""
        text = f"{front} {middle}{back}".strip() + chance.choice(MARKS)
        return text if len(text) < 110 else middle  # the encoder reads 30 pieces; the name must be among them

    def named(self, name: str, language: str, chance: random.Random) -> str:
        """The name with its article, another one, none, an adjective, or in the plural."""
        articles = data.EN_ARTICLES if language == "en" else data.FR_ARTICLES
        bare = data.without_article(name, articles)
        article = name[: len(name) - len(bare)].strip()
        kind = chance.random()
        if kind < 0.35:
            return name
        if kind < 0.45:
            return bare
        if kind < 0.55:
            counts = EN_COUNTS if language == "en" else FR_COUNTS
            return f"{chance.choice(counts)} {several(bare)}" if chance.random() < 0.7 else several(bare)
        if kind < 0.75:
            article = chance.choice(EN_DETERMINERS if language == "en" else FR_DETERMINERS)
        if kind > 0.65:
            adjective = self.adjective("adjective", language, chance)
            if language == "fr" and chance.random() < 0.5:
                return f"{article} {bare} {self.adjective('behind', language, chance)}".strip()
            return f"{article} {adjective} {bare}".strip()
        return f"{article} {bare}".strip()

    def adjective(self, kind: str, language: str, chance: random.Random) -> str:
        return chance.choice(LISTS[language][kind]) if chance.random() < 0.7 else self.word(chance)

    def front(self, language: str, chance: random.Random) -> str:
        """What stands before the name."""
        lists, kind = LISTS[language], chance.random()
        if kind < 0.25:
            return self.some(chance, 6)
        if kind < 0.5:
            ask = chance.choice(lists["ask"])
            return f"{ask} {chance.choice(lists['medium'])}" if chance.random() < 0.5 else ask
        if kind < 0.65:
            return chance.choice(lists["medium"])
        if kind < 0.8:
            did = chance.choice(lists["did"]) if chance.random() < 0.7 else self.some(chance, 2)
            return f"{chance.choice(lists['who'])} {did}"
        before = chance.choice(lists["before"])
        return before if chance.random() < 0.7 else f"{self.some(chance, 2)} {before}"

    def back(self, language: str, chance: random.Random) -> str:
        """What stands after the name, with its comma or space."""
        lists, kind = LISTS[language], chance.random()
        if kind < 0.3:
            text = self.some(chance, 5)
        elif kind < 0.6:
            text = chance.choice(lists["after"])
        elif kind < 0.85:
            text = chance.choice(lists["end"])
        else:
            text = f"{chance.choice(lists['after'])} {chance.choice(lists['end'])}"
        return chance.choice((" ", " ", ", ")) + text
