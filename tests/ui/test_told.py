"""What the engine says is said in French on the French page: every sentence of the source, and what a person meets."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from sentences import constants, phases, sentences
from starlette.testclient import TestClient

from studio.core import Studio
from studio.errors import BadRequest, JobFailed, StudioError
from studio.forms import field_specs
from studio.memory.plan_machine import card_rates
from studio.memory.plan_request import forecast
from studio.memory.planner import plan
from studio.plans import Block, Budget, Footprint, Network, Stage, Variant
from studio.registry import Registry
from studio.ui.fits import Forecast, verdict_of
from studio.ui.house import House
from studio.ui.house import teller_of as page_teller
from studio.ui.i18n import words_of
from studio.ui.told import Teller, Template, files_of, read, templates_of
from studio.ui.view import forecast_line, phase_name, refused
from studio.units import GIB, MIB, THIN

# Gradio leaves an event loop behind when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

NOT_MET = {
    "17 To run it anyway: --run-anyway": "the page takes it out and shows a button",
    "17 needs at least 17 of memory; 17 are left": "the beginning of a sentence that stands there as a whole",
    "17 needs at least 17 on the card; 17 are left..": "read from the two ways of one function as if they were one",
    "The chat template of 17 17.": "its ends are read where they are given",
}
"""What the reading of the source makes up, and nobody is told."""

TAKES_APART = re.compile(r"(?<=[.?!]) (?=\S)")


def teller_of(*families: str) -> Teller:
    """With the sentences of the page and of some families."""
    return Teller(templates_of(map(read, files_of(map(Registry().module_of, families)))))


@pytest.fixture(scope="module")
def teller() -> Teller:
    files = files_of(map(Registry().module_of, ("image-diffusion", "text-llm")))
    labels = {"steps": "Étapes", "max_tokens": "Longueur maximale", "image": "Image de départ"}
    return Teller(templates_of(map(read, files)), labels, {"auto": "automatique", "blur": "flouter"})


def own_files() -> list[Path]:
    root = Path(__file__).parents[2]
    return sorted([*root.glob("src/**/messages_??.yaml"), *root.glob("pipelines/**/messages_??.yaml")])


def test_every_sentence_of_the_source_has_its_french() -> None:
    """In the page's file, or in that of its own family."""
    found, tellers, missing = sentences(), {"": teller_of()}, []
    assert len(found) > 600
    for name in Registry().names():
        module = Registry().module_of(name).replace(".", "/")
        tellers[module.rpartition("/")[0] + "/"] = teller_of(name)
    for one in found:
        teller = tellers[max((folder for folder in tellers if one.file.startswith(folder)), key=len)]
        parts = [part for part in TAKES_APART.split(one.text) if re.search("[a-z]", part)]
        if one.text not in NOT_MET and not teller.knows(one.text) and not all(map(teller.knows, parts)):
            missing.append(f"{one.file}:{one.line}: {one.text}")
    assert not missing, "no French in any messages_fr.yaml (17 stands for a value):\n" + "\n".join(missing)


FOR_THE_COMMAND_LINE = re.compile(r"studio (run|chat|jobs|models|doctor|batch|plan) ?|(?<![\w-])--[a-z]|\bFILE\b")
NO_OTHER_WAY = ("llama-gguf-split --merge", "To run it anyway: --run-anyway")


@pytest.mark.parametrize("language", ["en", "fr"])
def test_the_page_names_no_flag_and_no_command(language: str) -> None:
    """With the labels of each family, as the page knows them where it knows the model."""
    tellers = {"": page_teller([], {}, language)}
    for name in Registry().names():
        module = Registry().module_of(name)
        labels = {one.name: one.label for one in field_specs(Registry().get(name).Params, language)}
        tellers[module.replace(".", "/").rpartition("/")[0] + "/"] = page_teller([module], labels, language)
    left = []
    for one in sentences():
        said = tellers[max((folder for folder in tellers if one.file.startswith(folder)), key=len)](one.text)
        if FOR_THE_COMMAND_LINE.search(said) and not said.endswith(NO_OTHER_WAY):
            left.append(f"{one.file}:{one.line}: {said}")
    assert not left, "\n".join(left)


@pytest.mark.parametrize(
    ("english", "said"),
    [
        ("steps is 0; the limit is at least 1.", "“Steps” is 0; the limit is at least 1."),
        ("max_tokens has 0 characters; the limit is at least 1.", "“Longest answer” is empty."),
        ("starter-text needs the parameter 'image'.", "starter-text needs “Starting image”."),
        ("image: 'max_tokens --steps.png' is a broken picture.",
         "“Starting image”: 'max_tokens --steps.png' is a broken picture."),
        ("words.0 is 7: input should be a valid string.", "“Words”.0 is 7: input should be a valid string."),
        ("Give --steps 4 or more; --no-tiled helps. See max_tokens.",
         "Give “Steps” 4 or more; --no-tiled helps. See “Longest answer”."),
        ("The steps are many, and image is a word.", "The steps are many, and image is a word."),
        ("Steps is empty.", "“Steps” is empty."),
        ("The message is empty. See: studio run starter-text --help", "The message is empty."),
        ("It would fit with 10.2 GiB free.", "It would fit with 10.2 GiB free."),
        ("", ""),
    ],
)  # fmt: skip
def test_the_english_page_calls_parameters_by_their_labels(english: str, said: str) -> None:
    labels = {"steps": "Steps", "max_tokens": "Longest answer", "image": "Starting image", "words": "Words"}
    assert page_teller([], labels, "en")(english) == said


def test_every_phase_has_its_french() -> None:
    say, teller = words_of("fr"), teller_of(*Registry().names())
    found = phases()
    assert {"load", "denoise", "upscale"} <= found
    unknown = [one for one in found if not say.has(f"phase.{one}") and not teller.knows(one.capitalize())]
    assert not unknown


def test_no_template_has_outlived_its_sentence() -> None:
    source = constants().lower()
    outlived = []
    for file in own_files():
        for english, french in read(file).items():
            words = [part for part in Template.of(english, french).literals if len(part.strip(" .:;")) > 3]
            if not all(_in_source(part, source) for part in words) and english not in SAID_BY_LIBRARIES:
                outlived.append(f"{file.parent.name}: {english}")
    assert not outlived, "\n".join(outlived)


def _in_source(part: str, source: str) -> bool:
    """Some value of the template may be a word of the source, so the pieces between its spaces count too."""
    return part.strip().lower() in source or all(word.strip(".,:;()'`").lower() in source for word in part.split())


BEGINNINGS = (
    "Input ", "String ", "Dictionary ", "[Errno ", "List ", "Invalid ", "Extra ", "Field ", "Month ", "month ", "day ",
)  # fmt: skip
SAID_BY_LIBRARIES = {english for file in own_files() for english in read(file) if english.startswith(BEGINNINGS)} | {
    "No such file or directory", "Permission denied", "Is a directory", "Not a directory", "File name too long",
    "No space left on device", "Input/output error", "Connection refused",
}  # fmt: skip
"""pydantic's words and the system's."""


def test_no_sentence_stands_twice_in_a_file_and_each_is_well_formed() -> None:
    for file in own_files():
        node = yaml.compose(file.read_text(encoding="utf-8"))
        names = [name.value for name, _ in node.value]
        assert len(names) == len(set(names)), [name for name in names if names.count(name) > 1]
        for english, french in read(file).items():
            template = Template.of(english, french)
            assert " ;" not in template.french, english
            assert not french or english.endswith(".") <= french.endswith((".", "?")), english


@pytest.mark.parametrize(
    ("english", "french"),
    [
        ("steps is 0; the limit is at least 1.", "« Étapes » vaut 0 ; le minimum est 1."),
        ("other is 2.5; the limit is at most 1,000.", "other vaut 2,5 ; le maximum est 1 000."),
        ("steps is 2.5: input should be a valid integer.", "« Étapes » vaut 2,5 : un nombre entier est attendu."),
        ("image: 'a.png' is a broken picture.", "« Image de départ » : l'image « a.png » est abîmée."),
        ("--image: a.png is a broken picture.", "« Image de départ » : l'image a.png est abîmée."),
        ("There is no model 'sdxxl'.", "Il n'y a pas de modèle « sdxxl »."),
        ("Did you mean a, b or c?", "Vouliez-vous dire a, b ou c ?"),
        ("Choose one of: auto, blur, hub.", "Choisissez parmi : automatique, flouter, hub."),
        ("Try a smaller --max-tokens.", "Try a smaller --max-tokens."),
        (
            "Give a larger --max-tokens or --context, or a smaller schema.",
            "Augmentez « Longueur maximale » ou --context, ou prenez un schéma plus petit.",
        ),
        (
            "It would fit with 10.2 GiB free on the card (there are 7.5 GiB) and 3.0 GiB of free memory"
            " (there are none).",
            "Cela tiendrait avec 10,2 Gio libres sur la carte (il y a 7,5 Gio) et 3,0 Gio de mémoire libre"
            " (il n'y en a pas).",
        ),
        (
            "a.gguf is not a usable GGUF file: it is empty.",
            "a.gguf n'est pas un fichier GGUF utilisable : il est vide.",
        ),
        ("Nobody wrote this down. The message is empty.", "Nobody wrote this down. Le message est vide."),
        ("The message is empty. Write something.", "Le message est vide. Écrivez quelque chose."),
        (
            "m.gguf is not a usable GGUF file: tensor 't' starts at 8, not a multiple of 32.",
            "m.gguf n'est pas un fichier GGUF utilisable : le tenseur « t » commence à 8, qui n'est pas un multiple"
            " de 32.",
        ),
        ("a.yaml: a: There is no model 'b'.", "a.yaml : a : Il n'y a pas de modèle « b »."),
        ("A stranger says: no.", "A stranger says: no."),
        ("", ""),
    ],
)
def test_a_sentence_and_its_values_are_said_in_french(teller: Teller, english: str, french: str) -> None:
    assert teller(english).replace(THIN, " ") == french


def test_what_a_person_wrote_stays_as_it_is(teller: Teller) -> None:
    said = teller("There is no file 'It would fit with a or b. Try again.'.")
    assert said == f"Il n'y a pas de fichier «{THIN}It would fit with a or b. Try again.{THIN}»."
    assert teller("Letter to Bob, 8 of memory.png cannot be read as a picture.").startswith(
        "Letter to Bob, 8 of memory"
    )


def test_the_most_literal_template_is_taken() -> None:
    teller = Teller(templates_of([{"{a} is {b}.": "lâche", "{a} is empty.": "juste"}, {"{a} is empty.": "autre"}]))
    assert teller("The box is empty.") == "juste"
    assert teller("The box is full.") == "lâche"


def test_a_template_whose_french_names_another_value_is_refused() -> None:
    with pytest.raises(ValueError, match="places"):
        Template.of("{a} is empty.", "{b} est vide.")
    with pytest.raises(ValueError, match="places"):
        Template.of("{a} and {a}.", "{a}.")


@pytest.mark.parametrize(
    "piece", [". A", " is ", "'", ": ", " or ", "17,", "× ", "--a ", "; ", "{x}", "\0", "is empty. ", "\n"]
)
def test_a_long_text_of_anybody_comes_to_an_end(teller: Teller, piece: str) -> None:
    text = (piece * 10_000)[:10_000]
    assert len(teller(text)) >= 9_000
    assert len(teller(text[:490])) >= 100
    assert len(teller(f"{text} is empty.")) >= 9_000
    assert len(teller(f"There is no model {text}.")) >= 9_000


# -- what a person meets, by the functions that the page calls -------------------------------------------------------


def test_a_failed_job_is_told_in_french_in_the_list_and_on_its_tab(studio: Studio, client: TestClient) -> None:
    job = studio.submit("paint", prompt="much", needs_gib=1000)
    with pytest.raises(JobFailed, match="It needs 1000 GiB"):  # Python and the command line stay English
        job.result()
    for piece in ("jobs?show=trouble", f"result?tab=image&job={job.id}"):
        french = client.get(f"/fr/studio/live/{piece}").text
        assert f"Il faut 1000{THIN}Gio." in french
        assert "Demandez moins." in french
        assert "It needs" not in french
        assert "It needs 1000 GiB." in client.get(f"/studio/live/{piece}").text
    assert studio.queue.get(job.id).error == "It needs 1000 GiB."


def test_a_refused_form_is_told_in_french(studio: Studio) -> None:
    house, say = House(studio), words_of("fr")
    for params, told in (
        ({"prompt": "a", "side": 7}, "« Côté » vaut 7 ; le minimum est 8. Donnez un nombre entier de 8 à 64."),
        ({"prompt": "a", "side": "x"}, "« Côté » vaut « x » : un nombre entier est attendu."),
        ({"prompt": ""}, "« Sujet » est vide."),
        (
            {"prompt": "a", "colour": "pink"},
            "« Couleur » vaut « pink » : les valeurs possibles sont « red », « green »",
        ),
        ({"prompt": "a", "sides": 9}, "paint n'a pas de paramètre « sides ». Vouliez-vous dire side ou copies ?"),
    ):
        with pytest.raises(BadRequest) as caught:
            studio.submit("paint", **params)
        said = refused(house, caught.value, say, "paint").message.replace(THIN, " ")
        assert said.startswith(told), said
    with pytest.raises(BadRequest) as caught:
        studio.submit("paint", prompt="a", side=7)
    english = refused(house, caught.value, words_of("en"), "paint").message
    assert english.startswith("“Side” is 7; the limit is at least 8. Give a whole number from 8 to 64.<")


def test_what_does_not_fit_is_told_in_french(studio: Studio) -> None:
    house, say, spec = House(studio), words_of("fr"), studio.models.get("sdxl")
    pipeline = studio.family(spec)(spec, {})
    budget = Budget(vram_bytes=GIB, ram_bytes=600 * MIB, threads=4)
    plan = forecast(pipeline, pipeline.Params.model_validate({"prompt": "a"}), budget)
    line = forecast_line(house, Forecast(verdict_of(plan), plan), say, spec.id).replace(THIN, " ")
    assert "Cela tiendrait avec" in line
    assert "Gio" in line
    assert not re.search(r"\b(the|of|on|are|would|needs|GiB|MiB)\b", re.sub("<[^>]*>", " ", line))


def test_a_button_that_cannot_do_what_it_should_says_so_in_french(client: TestClient) -> None:
    answer = client.post("/fr/studio/do", json={"do": "cancel", "id": "f" * 12})
    assert (answer.status_code, answer.json()["error"].replace(THIN, " ")) == (
        404, "Il n'y a pas de tâche « ffffffffffff ». La liste est dans l'onglet Tâches.",
    )  # fmt: skip
    assert (
        client.post("/studio/do", json={"do": "cancel", "id": "f" * 12}).json()["error"].startswith("There is no job")
    )


def test_phases_and_unknown_families_are_no_trouble(studio: Studio) -> None:
    house, say = House(studio), words_of("fr")
    assert phase_name(house, "load", say) == "Chargement du modèle"
    assert phase_name(house, "paint", say) == "Peinture"
    assert phase_name(house, "second_pass", say) == "Second pass"
    assert house.told(say, "The message is empty.", model="no-such-model") == "Le message est vide."
    assert isinstance(refused(house, StudioError("Unheard of."), say), Exception)


def test_the_reasons_in_a_plan_are_french_however_many_stand_together(teller: Teller) -> None:
    """Each network's, of a model on cards with and without bf16."""
    shapes = {"text_encoder": 120_000_000, "unet": 2_500_000_000, "vae": 80_000_000}
    blocks = (Block(kind="block", params=30_000_000, count=60),)
    networks = tuple(
        Network(name=name, params=params, blocks=blocks if name == "unet" else (), fp16=name == "unet")
        for name, params in shapes.items()
    )
    work = Variant(flops=6e12, activation_bytes=GIB)
    runs = [("encode", "text_encoder", 1), ("encode-image", "vae", 1), ("denoise", "unet", 30), ("decode", "vae", 1)]
    stages = tuple(Stage(name=name, network=network, calls=calls, variants=(work,)) for name, network, calls in runs)
    whys = set()
    for capability in ((8, 6), (7, 5)):
        for card in (4, 6, 8, 24):
            room = Budget(vram_bytes=card * GIB, ram_bytes=24 * GIB, rates=card_rates(card * GIB, capability))
            whys |= {row.why for row in plan(Footprint(networks=networks, stages=stages), room).rows}
    assert any("brought there from" in why and "no bf16" in why for why in whys)
    assert any("networks that stay" in why for why in whys)
    english = re.compile(r"\b(brought|there|from|would|take|stay|copied|passes of|with loading)\b")
    assert [why for why in whys if english.search(teller(why))] == []
