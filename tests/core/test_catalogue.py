"""``models.yaml`` is data: every entry is checked, unknown keys and tags are refused."""

from __future__ import annotations

import functools
from collections import Counter
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from studio.catalogue import Catalogue, builtin_file, read_models
from studio.download.choose import is_glob
from studio.errors import BadRequest, NotFound, nearest
from studio.forms import validate
from studio.registry import Registry
from studio.spec import ModelSpec

SPECS = read_models(builtin_file())
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)


@functools.cache
def registry() -> Registry:
    return Registry()


@each
def test_family_and_defaults(spec: ModelSpec) -> None:
    params = registry().get(spec.pipeline).Params
    assert set(spec.defaults) <= set(params.model_fields)
    needed = {name: "x" for name, field in params.model_fields.items() if field.is_required()}
    checked = validate(params, {**needed, **spec.defaults}, model=spec.id)
    assert {name: getattr(checked, name) for name in spec.defaults} == spec.defaults


@each
def test_a_person_can_choose_by_it(spec: ModelSpec) -> None:
    assert spec.source is not None and spec.source.licence.strip() not in ("", "unknown")
    assert spec.card is not None and spec.card.languages and spec.card.good_at and spec.card.limits
    assert spec.proof in ("weights", "shape", "tiny", "none")
    # What lies in a package of ours is named by folder as well; its weights are pinned one by one.
    files = [file for file in spec.source.files.values() if not (spec.source.package and is_glob(file.path))]
    assert spec.proof != "weights" or all(file.sha256 for file in files)
    assert spec.components, "its networks are named, so that a plan can be made before the download"


@each
def test_it_is_written_with_its_proof(spec: ModelSpec) -> None:
    rows = yaml.safe_load(builtin_file().read_text(encoding="utf-8"))
    [row] = [row for row in rows if row["id"] == spec.id]
    assert "proof" in row and "licence" in row["source"]


def test_no_id_and_no_file_stands_twice() -> None:
    assert [name for name, count in Counter(spec.id for spec in SPECS).items() if count > 1] == []
    hashes = Counter(file.sha256 for spec in SPECS if spec.source for file in spec.source.files.values() if file.sha256)
    assert [digest for digest, count in hashes.items() if count > 1] == []


GOOD = {
    "id": "a-model",
    "pipeline": "text-llm",
    "source": {"repo": "a/b", "revision": "0" * 40, "files": {"model": {"path": "m.gguf"}}, "licence": "MIT"},
}


@pytest.mark.parametrize(
    ("change", "place"),
    [
        ({"colour": "red"}, "colour"),
        ({"id": "Not Kebab"}, "id"),
        ({"id": "../escape"}, "id"),
        ({"id": None}, "id"),
        ({"proof": "promised"}, "proof"),
        ({"source": {**GOOD["source"], "speed": 1}}, "source.speed"),  # type: ignore[dict-item]
        ({"source": {**GOOD["source"], "revision": "main"}}, "source.revision"),  # type: ignore[dict-item]
        ({"source": {**GOOD["source"], "pypi": "x==1"}}, "source"),  # type: ignore[dict-item]
        ({"source": {**GOOD["source"], "files": {}}}, "source.files"),  # type: ignore[dict-item]
        ({"source": {k: v for k, v in GOOD["source"].items() if k != "licence"}}, "source.licence"),  # type: ignore[attr-defined]
        ({"components": {"model": {"params": -1, "class": "x"}}}, "components.model.params"),
        ({"card": {"languages": ["en"], "good_at": "all"}}, "card.limits"),
    ],
)
def test_a_bad_entry_names_file_entry_and_key(tmp_path: Path, change: dict[str, object], place: str) -> None:
    file = tmp_path / "models.yaml"
    file.write_text(yaml.safe_dump([GOOD, {**GOOD, "id": "b-model", **change}]))
    with pytest.raises(BadRequest) as caught:
        read_models(file)
    assert str(file) in caught.value.what and f": {place}: " in caught.value.what
    file.write_text(yaml.safe_dump([GOOD]))
    assert [spec.id for spec in read_models(file)] == ["a-model"]


@pytest.mark.parametrize(
    "text",
    [
        "- !!python/object/apply:os.system ['touch canary']",
        "- !!python/name:os.system",
        "- {id: x, pipeline: !function studio.catalogue.read_models}",
        "- id: [unclosed",
        "id: x",
        "just text",
        "- 7",
        "- [1, 2]",
        "\x00",
    ],
)
def test_tags_and_other_shapes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "models.yaml"
    file.write_text(text)
    with pytest.raises(BadRequest) as caught:
        read_models(file)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "canary").exists()


def test_an_empty_file_is_an_empty_list(tmp_path: Path) -> None:
    file = tmp_path / "models.yaml"
    file.write_text("# nothing yet\n")
    assert read_models(file) == []


def test_not_found_offers_the_nearest() -> None:
    with pytest.raises(NotFound, match=r"There is no model 'starter-txt'\. Did you mean starter-text"):
        Catalogue(registry()).get("starter-txt")
    with pytest.raises(NotFound, match=r"There is no pipeline 'txt-llm'\. Did you mean text-llm"):
        registry().get("txt-llm")
    assert nearest("zzz", []) == "There are: none."
    assert nearest("zzz", ["abc", "def"]) == "There are: abc, def."
    assert nearest("zzz", "abcdefghi") == "There are, among others: a, b, c, d, e, f, g, h."


def test_a_file_of_the_users_own_is_a_model(tmp_path: Path) -> None:
    file = tmp_path / "My Model_7B.Q4.gguf"
    file.write_bytes(b"GGUF")
    spec = Catalogue(registry()).get(str(file))
    assert (
        spec.id.startswith("local.my-model-7b-q4") and spec.source is not None and spec.source.folder == str(tmp_path)
    )
    with pytest.raises(NotFound):
        Catalogue(registry()).get(str(tmp_path / "other.gguf"))


def test_specs_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        SPECS[0].id = "other"
