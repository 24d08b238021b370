"""Natural texts: interleaved words, transcripts and translations as the corpus has them; scores on both forms."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from helpers.lm_corpus import settings
from unitweave.config.interleave import InterleaveSettings
from unitweave.config.lm import EvaluationSettings
from unitweave.config.recipe import parse_recipe
from unitweave.config.translate import DecodingSettings
from unitweave.core.manifest import Pair, write_manifest
from unitweave.core.text import normalize
from unitweave.lm.data.dataset import make_example
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.vocabulary import extend_tokenizer
from unitweave.lm.train.finetune import train_lm
from unitweave.pipeline import Run
from unitweave.score.asr.recognizers.moonshine import Moonshine
from unitweave.score.asr.transcripts import AsrTranscript
from unitweave.score.rows import References, SystemTexts, score_system
from unitweave.translate.constraints import Translation
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.translate.dev_evaluation import dev_evaluator, dev_scores
from unitweave.units.dataset import UnitRow, write_shard

SPANISH, ENGLISH = "¡Hola, Eva! Hoy es 21 de mayo.", "Hello, Eva. Today's the 21st of May – finally!"
UNITS = 12


def pair(name: str = "a", split: str = "train", source: str = SPANISH, target: str = ENGLISH, tgt: str = "en") -> Pair:
    texts = normalize(source, "es"), normalize(target, tgt), source, target
    return Pair(name, split, "es", tgt, f"{name}.wav", f"{name}-tgt.wav", *texts)


def row(name: str, side: str, text: str, language: str) -> UnitRow:
    words = normalize(text, language).split()
    ends = 3 * np.arange(1, len(words) + 1, dtype=np.int32)
    scores = np.linspace(0.5, 0.9, len(words), dtype=np.float32)
    return UnitRow(name, side, np.arange(int(ends[-1]), dtype=np.uint16) % UNITS, words, ends - 3, ends, scores)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("natural")
    pairs = [pair(f"p{i}", "train" if i < 6 else "dev") for i in range(8)]
    write_manifest(folder / "corpus", pairs)
    sides = [("src", SPANISH, "es"), ("tgt", ENGLISH, "en")]
    rows = [row(p.id, side, text, language) for p in pairs for side, text, language in sides]
    write_shard(folder / "units", 0, rows, {"codebook": "cb", "num_units": str(UNITS), "frame_rate": "50"})
    return folder


@pytest.mark.parametrize("language", ["en", "zh", "th"])
def test_natural_words_stand_for_the_frames_of_the_words_that_they_align_with(
    text_lm_folder: Path, language: str
) -> None:
    target = {"en": ENGLISH, "zh": "你好，Eva！今天21号。", "th": "สวัสดี Eva วันนี้"}[language]
    one = pair(target=target, tgt=language)
    rows = {("a", "src"): row("a", "src", SPANISH, "es"), ("a", "tgt"): row("a", "tgt", target, language)}
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    vocabulary = replace(extend_tokenizer(tokenizer, UNITS, [language, "es"], "cb"), texts="natural")
    tokens = WordTokens(tokenizer)
    example = make_example(one, rows, vocabulary, tokens, InterleaveSettings())
    assert example.source is not None and example.target is not None
    assert example.transcript is not None and example.translation is not None
    for speech, text, raw in (
        (example.source, example.transcript, SPANISH),
        (example.target, example.translation, target),
    ):
        assert text[1:].tolist() == speech.text.tolist() == tokens.text(raw).tolist()
        assert tokenizer.decode(text[1:]).strip() == raw
        assert speech.cuts[-1] == len(speech.units) and (np.diff(speech.cuts) > 0).all()
        assert len(speech.eligible) == len(speech.cuts) - 1
    said = [
        tokenizer.decode(example.source.text[a:b]).strip()
        for a, b in zip(example.source.text_cuts, example.source.text_cuts[1:], strict=False)
    ]
    assert said == ["¡Hola,", "Eva!", "Hoy", "es", "21", "de", "mayo."]
    normalized = make_example(one, rows, replace(vocabulary, texts="normalized"), tokens, InterleaveSettings())
    assert normalized.transcript is not None
    assert tokenizer.decode(normalized.transcript[1:]).strip() == "hola eva hoy es veintiuno de mayo"


def test_a_number_of_several_words_has_all_of_their_frames(text_lm_folder: Path) -> None:
    text = "Son 31 días"  # treinta y uno
    rows = {("a", "src"): row("a", "src", text, "es")}
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    vocabulary = replace(extend_tokenizer(tokenizer, UNITS, ["en", "es"], "cb"), texts="natural")
    example = make_example(pair(source=text), rows, vocabulary, WordTokens(tokenizer), InterleaveSettings())
    assert example.source is not None and example.source.cuts.tolist() == [0, 3, 12, 15]
    strict = InterleaveSettings(min_alignment_score=0.65)
    example = make_example(pair(source=text), rows, vocabulary, WordTokens(tokenizer), strict)
    assert example.source is not None and example.source.eligible.tolist() == [2], "as sure as its least sure word"


@pytest.mark.slow
def test_a_model_of_natural_texts_is_trained_evaluated_and_given_texts_as_they_are(
    corpus: Path, text_lm_folder: Path, tmp_path: Path
) -> None:
    chosen = settings(texts="natural", evaluation=EvaluationSettings(eval_steps=2, utterances=2))
    evaluator = dev_evaluator(corpus / "corpus", chosen.evaluation)
    train_lm(tmp_path, chosen, corpus / "corpus", corpus / "units", text_lm_folder, evaluator)
    assert '"natural_bleu"' in (tmp_path / "dev.jsonl").read_text()
    decoder = PhaseDecoder.load(tmp_path / "model")
    assert decoder.vocabulary.texts == "natural"
    given = ForcedPrefix(transcript="¿Son  3?", translation="Are there 3?")
    (result,) = decoder.translate([np.arange(8)], DecodingSettings(max_units_per_frame=0.1), [given])
    assert (result.transcript, result.translation) == ("¿Son 3?", "Are there 3?")


def test_scores_of_natural_texts_are_on_both_forms() -> None:
    pairs = [pair(f"p{i}") for i in range(3)]
    said = [Translation(transcript=SPANISH, translation=ENGLISH.lower()) for _ in pairs]
    scores = dev_scores(pairs, said, natural=True)
    assert scores["bleu"] == pytest.approx(100) and scores["wer"] == 0 and 0 < scores["natural_bleu"] < 90
    assert "natural_bleu" not in dev_scores(pairs, said)
    references = References(
        [p.id for p in pairs], [ENGLISH] * 3, [str(p.tgt_text) for p in pairs], [str(p.src_text) for p in pairs],
        language=["es"] * 3, natural=True,
    )  # fmt: skip
    heard = [AsrTranscript(p.id, ENGLISH, 2.0, 0.1) for p in pairs]
    recognizer = Moonshine.__new__(Moonshine)
    for translation, cased in ((ENGLISH, 100.0), (ENGLISH.lower(), scores["natural_bleu"])):
        written = SystemTexts([SPANISH] * 3, [translation] * 3, [[]] * 3, natural=True)
        row_, _ = score_system(heard, references, recognizer, written, samples=0)
        assert row_.text_bleu is not None and row_.natural_bleu is not None
        assert row_.text_bleu.score == pytest.approx(100) and row_.transcript_wer is not None
        assert row_.transcript_wer.score == 0 and row_.natural_bleu.score == pytest.approx(cased, abs=0.1)


def test_the_text_model_reads_what_its_systems_write(corpus: Path, tmp_path: Path) -> None:
    def sentences(**systems: dict[str, str]) -> list[str]:
        run = Run(tmp_path / "run", parse_recipe({"corpus": {"manifest": "x"}, "systems": systems}))
        run.layout = replace(run.layout, folder=corpus)
        return [text for one in run._sentences(0) for text in one.texts]

    natural, normalized = [SPANISH, ENGLISH], [normalize(SPANISH, "es"), normalize(ENGLISH, "en")]
    assert sentences(a={}) == normalized * 6
    assert sentences(a={"texts": "natural"}) == natural * 6
    assert sentences(a={"texts": "natural"}, b={}) == natural * 6 + normalized * 6
    assert sentences(a={"texts": "natural", "pretrained": "x"}, b={}) == normalized * 6
