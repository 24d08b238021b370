"""train_lm on a made-up corpus: every setting that changes what is trained, on models of a few thousand weights."""

import json
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, BloomConfig, BloomForCausalLM

from helpers.lm_corpus import made_up_corpus, settings
from unitweave.config.interleave import InterleaveSettings
from unitweave.config.lm import EvaluationSettings, LoraSettings
from unitweave.config.training import LossWeights, LrScheduler
from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.interleaving.sequence import Example, prepare_speech
from unitweave.lm.data.text import MultilingualSentence, TextDataset
from unitweave.lm.model.lora import add_lora
from unitweave.lm.model.start import cooccurring_tokens, extend_for, load_causal_lm, start_vocabulary
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.finetune import train_lm
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.translate.dev_evaluation import choose, dev_evaluator, dev_scores

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_corpus(tmp_path_factory.mktemp("data"))


def train(folder: Path, data: Path, text_lm: Path, **changes: object):
    torch.set_num_threads(1)
    chosen = settings(**changes)
    evaluator = dev_evaluator(data / "corpus", chosen.evaluation)
    return train_lm(folder, chosen, data / "corpus", data / "units", text_lm, evaluator)


def test_the_dev_split_is_decoded_and_scored_per_language_without_changing_the_training(
    tmp_path: Path, text_lm_folder: Path
) -> None:
    data = made_up_corpus(tmp_path / "data", ("es", "de"))
    looked = EvaluationSettings(eval_steps=1, utterances=3, examples=2)
    train(tmp_path / "plain", data, text_lm_folder)
    train(tmp_path / "looked", data, text_lm_folder, evaluation=looked, training={"report_to": ["tensorboard"]})
    entries = [json.loads(line) for line in (tmp_path / "looked/dev.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [1, 2]
    assert {"bleu", "wer", "bleu_es-en", "wer_es-en", "bleu_de-en", "wer_de-en"} <= set(entries[0])
    assert len(entries[0]["examples"]) == 2 and entries[0]["examples"][0]["reference"]
    assert list((tmp_path / "looked/tensorboard").glob("events*")) and not (tmp_path / "plain/tensorboard").exists()
    one, other = ((tmp_path / n / "model/model.safetensors").read_bytes() for n in ("plain", "looked"))
    assert one == other
    assert len((tmp_path / "looked/log.jsonl").read_text().splitlines()) == 2, "steps are logged beside the scores"


def test_the_dev_subset_has_every_language_and_scores_are_those_of_sacrebleu_and_jiwer() -> None:
    pairs = [Pair(f"{x}{i}", "dev", x, "en", None, None, "a b", f"c d e {i}") for x in ("es", "de") for i in range(9)]
    chosen = choose(pairs, 5)
    assert [p.src_lang for p in chosen] == ["de"] * 3 + ["es"] * 2 and chosen == choose(pairs, 5)
    from unitweave.translate.decode import Translation

    said = [Translation(transcript="a b", translation=str(p.tgt_text)) for p in chosen]
    assert dev_scores(chosen, said)["wer"] == 0 and dev_scores(chosen, said)["bleu"] == pytest.approx(100)
    said[0].transcript = "a x"
    assert dev_scores(chosen, said)["wer"] == pytest.approx(10) and dev_scores(chosen, said)["wer_es-en"] == 0


def test_lora_trains_the_new_rows_and_the_merged_model_is_an_ordinary_one(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    train(tmp_path / "x", data, text_lm_folder, lora=LoraSettings(rank=2, alpha=4), training={"learning_rate": 1e-2})
    before = AutoModelForCausalLM.from_pretrained(text_lm_folder)
    after = AutoModelForCausalLM.from_pretrained(tmp_path / "x/model")
    vocabulary = Vocabulary.load(tmp_path / "x/model")
    assert type(after) is type(before)
    old, new = before.get_input_embeddings().weight, after.get_input_embeddings().weight
    assert torch.equal(old, new[: vocabulary.text_size]), "the text's rows stay as they were"
    first, second = (m.model.layers[0].self_attn.q_proj.weight for m in (before, after))
    assert not torch.equal(first, second)
    assert torch.linalg.matrix_rank(first - second, rtol=1e-3) <= 2
    start = train(tmp_path / "y", data, text_lm_folder, lora=LoraSettings(rank=2), training={"learning_rate": 1e-9})
    untrained = AutoModelForCausalLM.from_pretrained(tmp_path / "y/model").get_input_embeddings().weight
    assert not torch.allclose(untrained[vocabulary.text_size :], new[vocabulary.text_size :], atol=1e-4)
    assert start.counts["parameters"] == sum(p.numel() for p in after.parameters())


def test_a_model_with_adapters_decodes_while_it_is_trained(text_lm_folder: Path) -> None:
    model, tokenizer = load_causal_lm(str(text_lm_folder))
    tokenizer, vocabulary = start_vocabulary(model, tokenizer, 8, ["en", "es"], "book", False, None)
    extend_for(model, vocabulary, "mean", 0, [])
    add_lora(model, vocabulary, LoraSettings(rank=2), False)
    settings = DecodingSettings(max_units_per_frame=0.1, max_text_tokens_per_second=1.0)
    (found,) = PhaseDecoder(model, tokenizer, vocabulary).translate([np.arange(8)], settings)
    assert found.language in ("en", "es")


def test_lora_on_weights_frozen_in_bf16_trains(
    tmp_path: Path, data: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unitweave.lm.train.finetune.use_bf16", lambda precision: True)
    monkeypatch.setattr("unitweave.training.trainer.use_bf16", lambda precision: True)
    train(tmp_path / "x", data, text_lm_folder, lora=LoraSettings(rank=2))
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "x/model", dtype="auto").dtype == torch.bfloat16


@pytest.mark.parametrize("tasks", [{"direct": 1.0}, {"asr": 1.0}, {"s2tt": 1.0, "s2st": 0.0}])
def test_what_a_model_was_trained_on_decides_how_it_decodes(
    tmp_path: Path, data: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch, tasks: dict[str, float]
) -> None:
    """A direct model has no texts to score on the way; one of asr or s2tt has nothing but texts."""
    said: list[str] = []
    monkeypatch.setattr("unitweave.translate.dev_evaluation.echo", said.append)
    train(tmp_path, data, text_lm_folder, tasks=tasks, evaluation=EvaluationSettings(eval_steps=1))
    trained = next(iter(tasks))
    assert Vocabulary.load(tmp_path / "model").tasks == [trained]
    (result,) = PhaseDecoder.load(tmp_path / "model").translate(
        [np.arange(9)], DecodingSettings(max_units_per_frame=0.1)
    )
    if trained == "direct":
        (line,) = said
        assert "dev split is not decoded" in line and not (tmp_path / "dev.jsonl").exists()
        assert len(result.units) and (result.language, result.transcript, result.translation) == ("", "", "")
        return
    scores = json.loads((tmp_path / "dev.jsonl").read_text().splitlines()[0])
    assert scores["wer"] >= 0 and ("bleu" in scores) == (trained == "s2tt")
    assert not len(result.units) and result.language


def test_a_model_of_before_tasks_were_kept_says_its_texts(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    train(tmp_path, data, text_lm_folder, tasks={"s2st": 2.0, "asr": 1.0})
    content = json.loads((tmp_path / "model/unitweave.json").read_text())
    assert content.pop("tasks") == ["s2st", "asr"]
    (tmp_path / "model/unitweave.json").write_text(json.dumps(content))
    (result,) = PhaseDecoder.load(tmp_path / "model").translate(
        [np.arange(9)], DecodingSettings(max_units_per_frame=0.1)
    )
    assert result.language in ("en", "es")


def test_a_model_that_does_not_say_how_long_a_sequence_may_be_needs_max_tokens(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    BloomForCausalLM(BloomConfig(vocab_size=len(tokenizer), hidden_size=32, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "bloom"
    )
    tokenizer.save_pretrained(tmp_path / "bloom")
    with pytest.raises(InputError, match="max_tokens: set it"):
        train(tmp_path / "x", data, text_lm_folder, pretrained=str(tmp_path / "bloom"))


def test_extra_text_is_mixed_in_as_translation_and_brings_its_languages(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    table = tmp_path / "extra.tsv"
    table.write_text("src_lang\ttgt_lang\tsrc_text\ttgt_text\nfr\ten\tLe chien dort.\tThe dog sleeps.\n")
    outcome = train(tmp_path / "x", data, text_lm_folder, extra_text=str(table), extra_text_ratio=0.5)
    assert outcome.counts["extra text"] == 1
    assert "fr" in Vocabulary.load(tmp_path / "x/model").languages
    table.write_text("src_lang\ttgt_lang\tsrc_text\ttgt_text\nfr\ten\t\tThe dog sleeps.\n")
    with pytest.raises(InputError, match="row 1: no src_text"):
        train(tmp_path / "y", data, text_lm_folder, extra_text=str(table))


@pytest.mark.parametrize(("sources", "targets"), [(("es",), ("de", "en")), (("en",), ("en",))])
def test_a_model_learns_the_directions_of_its_corpus_and_is_evaluated_in_each(
    tmp_path: Path, text_lm_folder: Path, sources: tuple[str, ...], targets: tuple[str, ...]
) -> None:
    data = made_up_corpus(tmp_path / "data", sources, targets=targets)
    train(tmp_path / "x", data, text_lm_folder, evaluation=EvaluationSettings(eval_steps=2, utterances=4))
    decoder = PhaseDecoder.load(tmp_path / "x/model")
    assert decoder.vocabulary.directions == [(sources[0], target) for target in targets]
    (line,) = (tmp_path / "x/dev.jsonl").read_text().splitlines()
    assert len(targets) == 1 or {f"bleu_es-{target}" for target in targets} <= json.loads(line).keys()
    for target in targets:
        (result,) = decoder.translate(
            [np.arange(8)], DecodingSettings(max_units_per_frame=0.1), [ForcedPrefix(target_language=target)]
        )
        assert result.target_language == target


@pytest.mark.parametrize("sentence", [({"en": "hello"}, {"en": "hi"}), ({"es": "hola"}, {"fr": "salut", "en": "hi"})])
def test_the_text_model_learns_any_direction_and_the_target_comes_last(
    text_lm_folder: Path, sentence: tuple[dict[str, str], dict[str, str]]
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    dataset = TextDataset([MultilingualSentence(*sentence)], tokenizer, 40, seed=1)
    said = {tokenizer.decode(one.ids, skip_special_tokens=True) for one in dataset.sequences(0)}
    (source,) = sentence[0].values()
    both = {tuple(line.strip() for line in text.splitlines()) for text in said if text.count(chr(10)) == 1}
    assert {(source, target) for target in sentence[1].values()} <= both
    assert not any(text and text[0] in sentence[1].values() and text[-1] == source for text in both)


def test_sequences_longer_than_the_limit_are_dropped_with_a_reason_or_cut(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    dropped = train(tmp_path / "x", data, text_lm_folder, max_tokens=40)
    assert dropped.skipped and "more than max_tokens 40" in dropped.skipped[0]["reason"]
    assert dropped.counts["pairs"] == 8 - len(dropped.skipped)
    cut = train(tmp_path / "y", data, text_lm_folder, max_tokens=40, overlong="truncate")
    assert cut.counts["pairs"] == 8 and cut.counts["truncated"] == len(dropped.skipped) and not cut.skipped
    with pytest.raises(InputError, match="no training pair is left"):
        train(tmp_path / "z", data, text_lm_folder, max_tokens=16)


def test_training_goes_on_from_a_unitweave_model_and_takes_new_languages(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    train(tmp_path / "x", data, text_lm_folder)
    more = made_up_corpus(tmp_path / "more", ("de",))
    first = tmp_path / "x/model"
    train(tmp_path / "y", more, text_lm_folder, pretrained=str(first), training={"learning_rate": 1e-9})
    old, new = Vocabulary.load(first), Vocabulary.load(tmp_path / "y/model")
    assert new.unit_offset == old.unit_offset and new.markers == old.markers
    assert new.languages == old.languages | {"de": old.size}
    before, after = (
        AutoModelForCausalLM.from_pretrained(f).get_input_embeddings().weight for f in (first, tmp_path / "y/model")
    )
    torch.testing.assert_close(before[: old.size], after[: old.size], atol=1e-6, rtol=0)
    said = PhaseDecoder.load(tmp_path / "y/model").translate([np.arange(9)], DecodingSettings(max_units_per_frame=0.1))
    assert said[0].language in new.languages


def test_units_of_another_codebook_are_refused_before_data_is_loaded(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    train(tmp_path / "x", data, text_lm_folder)
    name = str(tmp_path / "x/model")
    for other, message in (
        (made_up_corpus(tmp_path / "a", codebook="another"), "codebook another|of another"),
        (made_up_corpus(tmp_path / "b", units=20), "12 units, and the run's has 20"),
    ):
        (other / "corpus/manifest.parquet").unlink()
        with pytest.raises(InputError, match=message):
            train(tmp_path / "y", other, text_lm_folder, pretrained=name)
    with pytest.raises(InputError, match="deduplicate: false"):
        train(tmp_path / "z", data, text_lm_folder, pretrained=name, deduplicate=True)


def test_a_step_in_which_nothing_weighs_anything_changes_nothing(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    tasks = {"s2st": 1e-9, "asr": 1.0}  # practically never the one that the weights are for
    train(tmp_path, data, text_lm_folder, tasks=tasks, training={"loss_weights": LossWeights(0, 0, 0, 1)})
    weights = load_file(tmp_path / "model/model.safetensors")
    assert all(bool(weight.isfinite().all()) for weight in weights.values())


def test_a_logger_that_is_not_installed_is_refused(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    with pytest.raises(InputError, match="wandb is not installed"):
        train(tmp_path / "x", data, text_lm_folder, training={"report_to": ["wandb"]})


@pytest.mark.parametrize("name", get_args(LrScheduler))
def test_a_learning_rate_schedule_that_is_offered_works(
    tmp_path: Path, data: Path, text_lm_folder: Path, name: str
) -> None:
    train(tmp_path, data, text_lm_folder, training={"lr_scheduler_type": name, "steps": 1})


def test_units_start_at_the_text_of_the_words_that_they_occur_in() -> None:
    """Unit 1 is spoken in word 7 alone, unit 2 in word 8 alone, unit 0 everywhere."""
    vocabulary = Vocabulary(10, 10, 4, "cb", {"source": 14}, {"en": 15})
    tokens = [np.array([7], np.int32), np.array([8], np.int32)]
    speech = prepare_speech(
        np.array([11, 10, 11, 12, 10, 12]), np.array([0, 3]), np.array([3, 6]), np.ones(2), tokens, InterleaveSettings()
    )
    found = cooccurring_tokens([Example(speech, speech, None, None)] * 4, vocabulary)
    assert [list(tokens) for tokens in found[1:]] == [[7], [8], []]


def test_aligned_rows_and_a_trimmed_vocabulary_train(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    train(tmp_path / "x", data, text_lm_folder, embedding_init="aligned", trim_vocabulary=True)
    folder = tmp_path / "x/model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    vocabulary = Vocabulary.load(folder)
    assert vocabulary.text_size < len(AutoTokenizer.from_pretrained(text_lm_folder))
    assert len(tokenizer) == vocabulary.size <= model.config.vocab_size
    assert tokenizer.convert_tokens_to_ids("<|unit_3|>") == vocabulary.unit_offset + 3
    assert model.config.bos_token_id == tokenizer.bos_token_id == vocabulary.begin
