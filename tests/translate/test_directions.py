"""Several directions in one model: the target language is chosen, follows from the source, or is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.languages import language_names
from unitweave.corpus.tasks import check_directions
from unitweave.lm.model.vocabulary import Vocabulary, extend_model, extend_tokenizer
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.translate.step_attention import use_step_attention
from unitweave.translate.vllm import EngineDecoder, Request

NUM_UNITS = 12
SHORT = DecodingSettings(max_text_tokens_per_second=2.0, max_units_per_frame=0.5)
SOURCES = [np.random.default_rng(i).integers(0, NUM_UNITS, size=n) for i, n in enumerate((20, 9, 14))]


@pytest.fixture(scope="module")
def base(text_lm_folder: Path) -> PhaseDecoder:
    """A tiny model of random weights with the tags of three languages."""
    torch.manual_seed(5)
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    model = AutoModelForCausalLM.from_pretrained(text_lm_folder, dtype=torch.float32)
    vocabulary = extend_tokenizer(tokenizer, NUM_UNITS, ["en", "es", "fr"], "book")
    extend_model(model, vocabulary, seed=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    use_step_attention(model)
    return PhaseDecoder(model, tokenizer, vocabulary)


def trained_on(base: PhaseDecoder, *directions: str, **more: object) -> PhaseDecoder:
    pairs = [tuple(direction.split("-")) for direction in directions]
    return PhaseDecoder(base.model, base.tokenizer, replace(base.vocabulary, directions=pairs, **more))  # type: ignore[arg-type]


def targets(decoder: PhaseDecoder, *prefixes: ForcedPrefix | None, **settings: object) -> list[tuple[str, str]]:
    results = decoder.translate(SOURCES[: len(prefixes)], replace(SHORT, **settings), prefixes)  # type: ignore[arg-type]
    return [(one.language, one.target_language) for one in results]


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("direction", ["es-en", "en-es", "es-fr", "en-en"])
def test_a_model_of_one_direction_always_speaks_its_target(base: PhaseDecoder, direction: str, beams: int) -> None:
    decoder = trained_on(base, direction)
    found = targets(decoder, None, ForcedPrefix(language=direction[:2]), None, num_beams=beams)
    assert [target for _, target in found] == [direction[3:]] * 3 and found[1][0] == direction[:2]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ES", "spa", "es-MX", "es_419", "Spanish", " es "])
def test_a_language_may_be_called_as_people_call_it(base: PhaseDecoder, name: str) -> None:
    decoder = trained_on(base, "es-en", "en-es", "es-fr")
    found = targets(decoder, ForcedPrefix(language=name, target_language="fra"), ForcedPrefix(target_language=name))
    assert found[0] == ("es", "fr") and found[1][1] == "es"
    assert targets(decoder, ForcedPrefix(language="en"), target_language=name) == [("en", "es")]
    with pytest.raises(InputError, match="must be one of en, es"):
        targets(decoder, ForcedPrefix(language="Klingon"))


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_where_each_source_language_has_one_target_it_follows_from_it(base: PhaseDecoder, beams: int) -> None:
    decoder = trained_on(base, "es-en", "en-fr", "fr-es")
    given = [ForcedPrefix(language=code) for code in ("es", "en", "fr")]
    assert targets(decoder, *given, num_beams=beams) == [("es", "en"), ("en", "fr"), ("fr", "es")]
    follows = {"es": "en", "en": "fr", "fr": "es"}
    assert all(follows[source] == target for source, target in targets(decoder, None, None, None, num_beams=beams))


@pytest.mark.slow
@pytest.mark.parametrize("beams", [1, 3])
def test_a_choice_of_targets_has_to_be_made_and_each_row_has_its_own(base: PhaseDecoder, beams: int) -> None:
    decoder = trained_on(base, "es-en", "es-fr", "en-es")
    for prefix in (None, ForcedPrefix(language="es")):
        with pytest.raises(InputError, match="from es this model translates into en, fr"):
            targets(decoder, prefix)
    assert targets(decoder, ForcedPrefix(language="en"), num_beams=beams) == [("en", "es")]
    chosen = [ForcedPrefix(target_language=code) for code in ("fr", "en")]
    found = targets(decoder, *chosen, None, target_language="fr", num_beams=beams)
    assert [target for _, target in found] == ["fr", "en", "fr"], "the setting is the default of those that name none"
    with pytest.raises(InputError, match="target_language: must be one of en, es, fr"):
        targets(decoder, ForcedPrefix(target_language="de"))
    with pytest.raises(InputError, match="target_language: must be one of en"):
        targets(trained_on(base, "es-en"), ForcedPrefix(target_language="es"))


@pytest.mark.slow
def test_given_texts_are_normalized_in_their_own_language(base: PhaseDecoder) -> None:
    spanish = ForcedPrefix(translation="El 3 de mayo cuesta 1.234,5")
    (result,) = trained_on(base, "en-es").translate(SOURCES[:1], SHORT, [spanish])
    assert result.translation == "el tres de mayo cuesta mil doscientos treinta y cuatro coma cinco"
    (result,) = trained_on(base, "es-en").translate(SOURCES[:1], SHORT, [ForcedPrefix("Tengo 3", "I have 1.5")])
    assert (result.transcript, result.translation) == ("tengo tres", "i have one point five")


def test_a_given_text_of_unclear_language_is_refused_only_where_the_language_matters(base: PhaseDecoder) -> None:
    decoder = trained_on(base, "es-en", "fr-en")
    assert decoder.translate(SOURCES[:1], SHORT, [ForcedPrefix("Hola, amigo")])[0].transcript == "hola amigo"
    with pytest.raises(InputError, match="language: name the language of the transcript"):
        decoder.translate(SOURCES[:1], SHORT, [ForcedPrefix("Tengo 3")])


def test_models_of_earlier_versions_go_into_english(base: PhaseDecoder, tmp_path: Path) -> None:
    base.vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path).directions == [("es", "en"), ("fr", "en")]
    trained_on(base, "es-fr", "en-en").vocabulary.save(tmp_path)
    assert Vocabulary.load(tmp_path).directions == [("es", "fr"), ("en", "en")]
    (tmp_path / "unitweave.json").write_text((tmp_path / "unitweave.json").read_text().replace('"fr"\n', '"xx"\n'))
    with pytest.raises(InputError, match="damaged"):
        Vocabulary.load(tmp_path)


def test_a_model_without_texts_cannot_choose_and_is_not_trained_where_it_would_have_to(base: PhaseDecoder) -> None:
    check_directions([("es", "en"), ("en", "es")], {"direct": 1.0})
    check_directions([("es", "en"), ("es", "fr")], {"s2st": 1.0})
    with pytest.raises(InputError, match="this corpus translates es into en, fr"):
        check_directions([("es", "fr"), ("es", "en")], {"direct": 0.5, "s2st": 0.5})
    direct = trained_on(base, "es-en", tasks=["direct"])
    assert len(direct.translate(SOURCES[:1], SHORT, [ForcedPrefix(target_language="en")])) == 1
    with pytest.raises(InputError, match="must be one of en"):
        direct.translate(SOURCES[:1], SHORT, [ForcedPrefix(target_language="fr")])


def test_an_engine_keeps_to_the_targets_too(base: PhaseDecoder, tmp_path: Path) -> None:
    decoder = trained_on(base, "es-en", "es-fr", "en-es", "fr-es")
    base.tokenizer.save_pretrained(tmp_path)
    decoder.vocabulary.save(tmp_path)

    def generate(requests: list[Request]) -> list[list[int]]:
        return [[request.allowed[0]] if not request.stop else [request.stop[0]] for request in requests]

    engine = EngineDecoder(tmp_path, generate)
    (first,) = engine.translate(SOURCES[:1])
    assert (first.language, first.target_language) == ("en", "es")
    assert [one.target_language for one in engine.translate(SOURCES[:2], ["fr", "en"])] == ["fr", "en"]
    with pytest.raises(InputError, match="must be one of en, es, fr"):
        engine.translate(SOURCES[:1], ["de"])


def test_names_of_languages() -> None:
    assert language_names(["en", "es", "pt-BR"]) == "English, Spanish and Portuguese"
    assert (language_names(["xx"]), language_names([])) == ("xx", "")
