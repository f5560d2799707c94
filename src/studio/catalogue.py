"""``models.yaml`` files to ``ModelSpec`` objects. YAML is data here: no tags, no code, unknown keys refused.

Entries come from four places, and an id is taken once: the file that comes with Studio, a ``models.yaml`` in the
top package of an installed family, the user's own ``models.yaml`` in the home folder, and - for a family that no
entry names - an entry without files under the family's own name.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import ValidationError

from studio.errors import BadRequest, NotFound, StudioError, nearest
from studio.registry import Registry
from studio.spec import ModelFile, ModelSpec, Source

_PACKAGE = Path(__file__).parent
_FILES = (".gguf", ".safetensors")


def builtin_file() -> Path:
    """``models.yaml`` lies in the wheel, or at the top of a checkout."""
    packed = _PACKAGE / "models.yaml"
    return packed if packed.exists() else _PACKAGE.parents[1] / "models.yaml"


class Catalogue:
    """All known models. ``specs`` keeps the order of the files; ``faults`` are the files that were left out."""

    def __init__(self, registry: Registry, home: Path | None = None) -> None:
        self.specs: dict[str, ModelSpec] = {}
        self.faults: list[str] = []
        self._registry = registry
        origin: dict[str, Path] = {}
        for file in self._files(registry, home):
            try:
                specs = read_models(file)
                if twice := [spec.id for spec in specs if spec.id in origin]:
                    where = f"The model id {twice[0]!r} stands in {origin[twice[0]]} and in {file}"
                    raise BadRequest(f"{where}.", "Rename one.")
            except BadRequest as error:
                if file == builtin_file():
                    raise
                self.faults.append(str(error))  # one bad file must not take the other models away
                continue
            for spec in specs:
                self.specs[spec.id] = spec
                origin[spec.id] = file
        self.specs = {name: spec for name, spec in self.specs.items() if self._has_base(spec)}
        named = {spec.pipeline for spec in self.specs.values()}
        for name in registry.names():
            if name not in named and name not in self.specs:
                self.specs[name] = _implicit(registry, name)

    @staticmethod
    def _files(registry: Registry, home: Path | None) -> Iterator[Path]:
        yield builtin_file()
        packages = {registry.module_of(name).split(".")[0] for name in registry.names()}
        for package in sorted(packages):
            found = importlib.util.find_spec(package)  # of a top package: imports nothing
            for folder in (found.submodule_search_locations or []) if found else []:
                if (file := Path(folder) / "models.yaml").exists():
                    yield file
        if home is not None and (file := home / "models.yaml").exists():
            yield file

    def get(self, name: str) -> ModelSpec:
        """The entry of that id, or of a model file by its path. ``NotFound`` offers the nearest ids."""
        if name in self.specs:
            return self._whole(self.specs[name])
        if name.endswith(_FILES) and os.path.isfile(name):  # noqa: PTH113 - false for any impossible name, too
            return self._local(Path(name).resolve())
        hint = " ".join([nearest(name, self.specs), *(f"Left out: {fault}" for fault in self.faults)])
        raise NotFound(f"There is no model {name!r}.", hint)

    def files(self, spec: ModelSpec, find: Callable[[ModelSpec], Mapping[str, Path] | None]) -> dict[str, Path] | None:
        """Role to path of a model's own files and, where it has none for a role, of the entry it is based on."""
        below = {} if spec.base is None else find(self.specs[spec.base])
        own = find(spec)
        return None if below is None or own is None else {**below, **own}

    def _whole(self, spec: ModelSpec) -> ModelSpec:
        """The entry with what its base gives it."""
        if spec.base is None:
            return spec
        base = self.specs[spec.base]
        changed = {key: {**getattr(base, key), **getattr(spec, key)} for key in ("settings", "defaults", "components")}
        return spec.model_copy(update={**changed, "task": spec.task or base.task, "card": spec.card or base.card})

    def _has_base(self, spec: ModelSpec) -> bool:
        """Whether an entry's base is an entry of the same family that needs none itself; else it is a fault."""
        base = None if spec.base is None else self.specs.get(spec.base)
        if spec.base is None or (base is not None and base.base is None and base.pipeline == spec.pipeline):
            return True
        self.faults.append(f"The entry {spec.id}: its base {spec.base!r} is no {spec.pipeline} model by itself.")
        return False

    def _local(self, path: Path) -> ModelSpec:
        """A model file of the user's own, used in place: the first family that knows it says how."""
        for name in self._registry.names():
            try:
                family = self._registry.get(name)
            except StudioError:
                continue  # a broken package must not take the user's files away
            if (spec := family.entry_for(path, self.specs)) is not None:
                return self._whole(spec)
        if path.suffix == ".gguf":
            return _local_gguf(path)
        raise NotFound(f"No family knows what {path.name} is.", "Name a model of the catalogue: studio models list")

    def lasting_name(self, name: str) -> str:
        """``name`` as a stored request holds it: a file by its whole path, since any process may run the job."""
        return name if name in self.specs else str(Path(name).resolve())


def read_models(file: Path) -> list[ModelSpec]:
    """The entries of one file. ``BadRequest`` names the file, the entry and the key."""
    try:
        rows = yaml.safe_load(file.read_text(encoding="utf-8")) or []
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise BadRequest(f"{file} is not valid YAML: {' '.join(str(error).split())}", "Mend it.") from error
    if not isinstance(rows, list):
        raise BadRequest(f"{file} must be a list of models.", "Start each entry with '- id: ...'.")
    return [_entry(file, number, row) for number, row in enumerate(rows, 1)]


def _entry(file: Path, number: int, row: object) -> ModelSpec:
    try:
        return ModelSpec.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        name = row.get("id", number) if isinstance(row, dict) else number
        place = ".".join(str(part) for part in first["loc"])
        raise BadRequest(f"{file}, entry {name}: {place}: {first['msg']}", "Mend that key.") from error


def _implicit(registry: Registry, name: str) -> ModelSpec:
    """A family that no entry names is a model of that name, without files."""
    try:
        return ModelSpec(id=name, pipeline=name)
    except ValidationError as error:
        raise BadRequest(
            f"{registry.module_of(name)} offers a pipeline {name!r}: only small letters, digits, - and . are allowed.",
            "Rename its entry point.",
        ) from error


def _local_gguf(path: Path) -> ModelSpec:
    """A model file of the user's own, used in place; with its eyes if they lie beside it as ``mmproj*.gguf``.

    Place, size and time are in the id: another file, or the file changed, is not the model that is loaded.
    """
    stat = path.stat()
    stamp = hashlib.sha256(f"{path} {stat.st_size} {stat.st_mtime_ns}".encode()).hexdigest()[:8]
    name = "-".join(re.findall(r"[a-z0-9]+", path.stem.lower())) or "model"
    files = {"model": ModelFile(path=path.name, bytes=stat.st_size or None)}
    others = [other for other in path.parent.glob("*.gguf") if other != path]
    if len(others) == 1 and others[0].name.startswith("mmproj"):
        files["mmproj"] = ModelFile(path=others[0].name, bytes=others[0].stat().st_size or None)
    return ModelSpec(
        id=f"local.{name}.{stamp}",
        pipeline="text-llm",
        source=Source(folder=str(path.parent), files=files, licence="unknown"),
        settings={"thinking": "auto"},
    )
