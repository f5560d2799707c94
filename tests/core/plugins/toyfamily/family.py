"""The smallest family that really makes something: a Markov chain over a few sentences."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from pydantic import Field

from studio.plugin import Context, Event, Params, Pipeline, Plan, Token

TEXT = "the sea is calm and the moon is high and a light on the coast is gone and the sea is wide and a ship is gone"


class ToyParams(Params):
    prompt: str = Field(default="the", max_length=9_000, description="The last word of it begins the walk.")
    words: int = Field(default=12, ge=1, le=100_000, description="How many words to write.")


class Toy(Pipeline[ToyParams]):
    task = "text->text"
    Params = ToyParams

    def load(self, plan: Plan) -> None:
        words = TEXT.split()
        self.followers = {word: [b for a, b in itertools.pairwise(words) if a == word] for word in words}

    def generate(self, params: ToyParams, ctx: Context) -> Iterator[Event]:
        chance = random.Random(params.seed)  # noqa: S311 - nothing here is secret
        word = (params.prompt.split() or ["the"])[-1]
        written: list[str] = []
        for _ in range(params.words):
            ctx.check()  # lets a cancelled job stop
            word = chance.choice(self.followers.get(word) or ["the"])
            written.append(word)
            yield Token(text=word + " ")
        yield ctx.save(" ".join(written), "text/plain")
