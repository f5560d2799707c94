"""``ModelSpec``: what the catalogue says of one model. Plain data, no code, no torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from studio.errors import BadRequest
from studio.units import french_spaces

_HEX40 = r"^[0-9a-f]{40}$"
_HEX64 = r"^[0-9a-f]{64}$"
_REPO = r"^[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*$"
_KEBAB = r"^[a-z0-9]+([.-][a-z0-9]+)*$"

S = TypeVar("S", bound=BaseModel)


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ModelFile(_Data):
    """One file of a model, by its path inside the source. ``None`` means: not known to us.

    ``repo``, at ``revision``, is where it lies if not in the source's own repository: some models share encoders.
    """

    path: str = Field(min_length=1)
    bytes: int | None = Field(default=None, ge=1)
    sha256: str | None = Field(default=None, pattern=_HEX64)
    repo: str | None = Field(default=None, pattern=_REPO)
    revision: str | None = Field(default=None, pattern=_HEX40)


class Source(_Data):
    """Where a model's files come from: exactly one of ``repo`` (the hub), ``pypi``, ``folder``, or ``package`` (an
    installed Python package that holds them, such as a family with a starter model).

    ``revision`` is a full commit, or ``None`` where none is known to us: the first pull then locks the commit
    that it finds. ``files`` maps a role that the family understands (``model``, ``mmproj``) to a file. ``notice`` is
    what everybody must be told before the download: where the licence does not hold, say.
    """

    repo: str | None = Field(default=None, pattern=_REPO)
    revision: str | None = Field(default=None, pattern=_HEX40)
    pypi: str | None = Field(default=None, pattern=r"^[\w.-]+==[\w.]+$")
    folder: str | None = None
    package: str | None = Field(default=None, pattern=r"^[a-z_][\w.]*$")
    files: dict[str, ModelFile] = Field(min_length=1)
    licence: str
    gated: bool = False
    notice: str = ""

    @model_validator(mode="after")
    def _one_place(self) -> Source:
        if sum(place is not None for place in (self.repo, self.pypi, self.folder, self.package)) != 1:
            raise ValueError("a source names exactly one of repo, pypi, folder, package")
        for role, file in self.files.items():
            if file.repo is None and file.revision is not None:
                raise ValueError(f"the file {role} has a revision but no repo of its own")
            if file.repo is not None and self.repo is None:
                raise ValueError(f"the file {role} has a repo of its own, but its source is none")
            if file.repo is not None and file.repo == self.repo:
                raise ValueError(f"the file {role} has the source's own repo: leave it out")
        if all(file.repo is not None for file in self.files.values()):
            raise ValueError("no file lies in the source's own repo")
        self.by_repo()
        return self

    def by_repo(self) -> list[Source]:
        """One source for each repository, its own first; just itself where there is only one.

        Raises ``ValueError`` for a repository at two revisions.
        """
        others = dict.fromkeys(file.repo for file in self.files.values() if file.repo is not None)
        if not others:
            return [self]
        found = []
        for repo in (None, *others):
            files = {role: file for role, file in self.files.items() if file.repo == repo}
            revisions = {file.revision for file in files.values()} if repo else {self.revision}
            if len(revisions) > 1:
                raise ValueError(f"{repo} is named at two revisions")
            own = {role: file.model_copy(update={"repo": None, "revision": None}) for role, file in files.items()}
            found.append(self.model_copy(update={"repo": repo or self.repo, "revision": revisions.pop(), "files": own}))
        return found


class Component(_Data):
    """One network of a model. ``params`` counts parameters; ``bytes`` maps a precision to its size."""

    params: int = Field(ge=1)
    bytes: dict[str, int] = Field(default_factory=dict)
    class_name: str = Field(alias="class")


class CardWords(_Data):
    """The sentences of a card in another language; ``notice`` is the source's."""

    good_at: str
    limits: str
    notice: str = ""
    examples: tuple[str, ...] = ()


class Card(_Data):
    """What a person wants to know before choosing the model; ``fr``: in French, where somebody translated it.

    ``examples`` are prompts to begin with; in French only for a model that reads it.
    """

    languages: tuple[str, ...]
    good_at: str
    limits: str
    examples: tuple[str, ...] = ()
    fr: CardWords | None = None


class ModelSpec(_Data):
    """One entry of ``models.yaml``.

    ``proof`` says what was shown of it by this project: ``weights`` (ran with its own weights), ``shape`` (built
    at full size with random weights and run under a cap), ``tiny`` (its class ran at tiny size), ``none``.
    ``settings`` are constants of the family for this model (its thinking format, its context length);
    ``defaults`` are values of the family's ``Params``; ``task`` says what this model does where it differs from its
    family (one that sees, say). ``base`` is another entry, whose files, settings, defaults and components this one has
    unless it brings its own: for a single file that lacks configurations and tokenizers.
    """

    id: str = Field(pattern=_KEBAB)
    pipeline: str = Field(pattern=_KEBAB)
    base: str | None = Field(default=None, pattern=_KEBAB)
    source: Source | None = None
    components: dict[str, Component] = Field(default_factory=dict)
    defaults: dict[str, Any] = Field(default_factory=dict)
    settings: dict[str, Any] = Field(default_factory=dict)
    task: str | None = Field(default=None, pattern=r"^[a-z0-9+]+->[a-z0-9+]+$")
    card: Card | None = None
    proof: Literal["weights", "shape", "tiny", "none"] = "none"

    def checked_settings(
        self, kind: type[S], problem: Callable[[S], str] = lambda settings: "", **from_defaults: str
    ) -> S:
        """The entry's ``settings`` as the family reads them. Raises ``BadRequest`` with the entry and the key.

        ``problem`` says what contradicts itself in settings that are each well-formed. ``guidance="guidance_scale"``:
        where the entry sets no guidance, the one of its defaults is meant.
        """
        own = {name: self.defaults.get(value) for name, value in from_defaults.items()}
        values = {**{name: value for name, value in own.items() if value is not None}, **self.settings}
        try:
            settings = kind.model_validate(values)
            wrong = problem(settings)
        except ValidationError as error:
            first = error.errors()[0]
            wrong = f"settings.{'.'.join(map(str, first['loc']))}: {first['msg']}"
        if wrong:
            raise BadRequest(f"The catalogue entry {self.id}: {wrong}.", "Mend it.")
        return settings

    def words(self, language: str) -> CardWords | None:
        """The card and the notice in a language, in English where they are not translated."""
        if self.card is None:
            return None
        if language == "fr" and self.card.fr is not None:
            fr = self.card.fr
            return CardWords(
                good_at=french_spaces(fr.good_at),
                limits=french_spaces(fr.limits),
                notice=french_spaces(fr.notice),
                examples=fr.examples or self.card.examples,
            )
        notice = self.source.notice if self.source else ""
        return CardWords(good_at=self.card.good_at, limits=self.card.limits, notice=notice, examples=self.card.examples)

    @property
    def licence(self) -> str:
        return self.source.licence if self.source else "unknown"

    @property
    def download_bytes(self) -> int | None:
        """The size of all files, or ``None`` when one of them is not known."""
        if self.source is None:
            return 0
        sizes = [file.bytes for file in self.source.files.values()]
        return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)

    @property
    def about_bytes(self) -> int | None:
        """The size of all files, by that of the networks in them where the files' is not known; ``None``: no idea."""
        known = self.download_bytes
        if known is not None:
            return known
        parts = [max(part.bytes.values(), default=0) for part in self.components.values()]
        return sum(parts) if parts and all(parts) else None
