"""CTC training of the encoder: error rates on the way, early stopping, what the settings say, and its estimate."""

import json
from pathlib import Path

import pytest
import torch
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from units_corpus import write_corpus
from unitweave.commands.units import plan as plan_command
from unitweave.core.errors import InputError
from unitweave.units import train_encoder as module
from unitweave.units.encoder import CharacterVocabulary, SmallEncoder, load_encoder
from unitweave.units.error_rates import Heard, Recording, a_few, rates_of
from unitweave.units.estimate import GPUS, estimate
from unitweave.units.train_encoder import EncoderSettings, LengthBatches, _initial_model, train_encoder

TINY = SmallEncoder(hidden_size=32, layers=2, heads=2, feed_forward=64, conv_kernel=5)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 12)


def settings_of(**changes: object) -> EncoderSettings:
    return EncoderSettings(**({"shape": TINY, "steps": 4, "batch_seconds": 8, "precision": "fp32"} | changes))


def test_error_rates_come_every_few_steps_and_at_the_end(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    seen = []
    original = module.EncoderTrainer.evaluate

    def noted(self: module.EncoderTrainer, *args: object, **kwargs: object) -> dict[str, float]:
        metrics = original(self, *args, **kwargs)
        seen.append((self.state.global_step, metrics))
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EncoderTrainer, "evaluate", noted)
        outcome = train_encoder(tmp_path, settings_of(evaluate_every=2), corpus)
    assert [step for step, _ in seen] == [2, 4]
    assert {"eval_wer_es", "eval_cer_en", "eval_wer"} <= set(seen[0][1])
    for language in ("es", "en"):
        assert outcome.counts[f"wer_{language}"] == seen[-1][1][f"eval_wer_{language}"], "the saved model is the last"
    assert not (tmp_path / "checkpoints").exists()


def test_training_stops_when_the_error_rate_does_and_keeps_the_best(corpus: Path, tmp_path: Path) -> None:
    rates = iter([90.0, 50.0, 60.0, 70.0, 10.0])
    weights = {}

    def falling(self: module.EncoderTrainer, *_: object, **__: object) -> dict[str, float]:
        metrics = {"eval_wer": next(rates)}
        weights[metrics["eval_wer"]] = self.model.lm_head.weight.detach().clone()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EncoderTrainer, "evaluate", falling)
        outcome = train_encoder(tmp_path, settings_of(steps=10, evaluate_every=1, patience=2), corpus)
    assert outcome.counts["steps"] == 4
    assert torch.equal(load_encoder(tmp_path / "model")[0].lm_head.weight, weights[50.0])


def test_an_interrupted_training_goes_on_to_the_same_encoder(corpus: Path, tmp_path: Path) -> None:
    settings = settings_of(steps=6, checkpoint_every=2, spec_augment=True, layerdrop=0.5)
    train_encoder(tmp_path / "whole", settings, corpus)

    class Stop(Exception):
        pass

    def stop(self: object, args: object, state: object, control: object, **_: object) -> None:
        if state.global_step == 3:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.MeterCallback, "on_step_end", stop)
        with pytest.raises(Stop):
            train_encoder(tmp_path / "halves", settings, corpus)
    assert (tmp_path / "halves/checkpoints/checkpoint-2").exists()
    train_encoder(tmp_path / "halves", settings, corpus)
    whole, halves = (load_encoder(tmp_path / name / "model")[0].state_dict() for name in ("whole", "halves"))
    assert all(torch.allclose(whole[key], halves[key], atol=1e-6) for key in whole)


def test_layerdrop_spec_augment_and_infinities_are_what_the_settings_say(corpus: Path, tmp_path: Path) -> None:
    pretrained = tmp_path / "pretrained"
    config = Wav2Vec2BertConfig(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, vocab_size=5
    )
    Wav2Vec2BertForCTC(config).save_pretrained(pretrained)
    settings = settings_of(pretrained=str(pretrained), steps=1, gradient_checkpointing=True, layerdrop=0.25)
    train_encoder(tmp_path / "a", settings, corpus)
    written = json.loads((tmp_path / "a/model/config.json").read_text())
    assert written["ctc_zero_infinity"] and not written["apply_spec_augment"] and written["layerdrop"] == 0.25
    train_encoder(tmp_path / "b", settings_of(steps=1, spec_augment=True, mask_time=0.1), corpus)
    written = json.loads((tmp_path / "b/model/config.json").read_text())
    assert written["apply_spec_augment"] and written["mask_time_prob"] == 0.1 and written["layerdrop"] == 0.0


def test_characters_that_the_pretrained_encoder_knew_keep_their_output_rows(corpus: Path, tmp_path: Path) -> None:
    train_encoder(tmp_path / "first", settings_of(steps=1), corpus)
    first, characters = load_encoder(tmp_path / "first/model")
    others = CharacterVocabulary([*characters.tokens[:3], "ç", *reversed(characters.tokens[3:])])  # one more, reordered
    second = _initial_model(settings_of(pretrained=str(tmp_path / "first/model")), others)
    for token, row in characters.ids.items():
        assert torch.equal(second.lm_head.weight[others.ids[token]], first.lm_head.weight[row])
        assert torch.equal(second.lm_head.bias[others.ids[token]], first.lm_head.bias[row])
    assert second.lm_head.weight[others.ids["ç"]].any()


def test_patience_without_evaluations_is_refused(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="evaluate_every"):
        train_encoder(tmp_path, settings_of(patience=3), corpus)


def test_batches_are_of_similar_lengths_within_the_bound() -> None:
    seconds = [0.5 + (7 * i % 50) / 5 for i in range(200)]
    batches = LengthBatches(seconds, 30.0, seed=1)
    for epoch in range(3):
        batches.set_epoch(epoch)
        found = list(batches)
        assert sorted(i for batch in found for i in batch) == list(range(200))
        for batch in found:
            longest, shortest = max(seconds[i] for i in batch), min(seconds[i] for i in batch)
            assert longest * len(batch) <= 30.0 + 1e-6 or len(batch) == 1
            assert longest - shortest < 3.0


def test_error_rates_are_per_language_and_a_few_are_spread() -> None:
    heard = [Heard("es", "una casa", "una casa"), Heard("en", "the dog", "the dot"), Heard("en", "a b", "")]
    assert rates_of(heard) == {"wer_en": 75.0, "cer_en": 40.0, "wer_es": 0.0, "cer_es": 0.0}
    items = [Recording(str(i), "es" if i % 3 else "en", "", "", 1.0) for i in range(30)]
    chosen = a_few(items, 5)
    assert [item.id for item in chosen if item.language == "en"] == ["0", "6", "12", "18", "24"]
    assert len(a_few(items, 100)) == 30


def test_the_estimate_counts_parameters_and_follows_the_settings(capsys: pytest.CaptureFixture) -> None:
    paper = EncoderSettings(pretrained="facebook/w2v-bert-2.0", batch_seconds=160, gradient_checkpointing=True)
    found = estimate(paper)
    assert 570e6 < found.parameters < 620e6  # the model card says 580 M without the CTC head
    assert found.states == pytest.approx(18 * found.parameters / 2**30)
    free = estimate(EncoderSettings(pretrained="facebook/w2v-bert-2.0", batch_seconds=160))
    assert free.memory > found.memory and free.flop < found.flop
    assert found.hours(GPUS[-1]) < found.hours(GPUS[0])
    plan_command(["paper-encoder"])
    table = capsys.readouterr().out
    assert all(gpu.name in table for gpu in GPUS)
    plan_command(["paper-encoder", "--encoder.batch_seconds", "80"])
    assert capsys.readouterr().out != table
