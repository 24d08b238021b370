"""CTC training of the encoder: error rates on the way, early stopping, what the settings say, and its estimate."""

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from helpers.processes import command, run_ranks
from helpers.units_corpus import write_corpus
from unitweave.cli import main
from unitweave.config.training import EncoderTraining
from unitweave.config.units import EncoderSettings, SmallEncoder
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.core.stage import FORMAT
from unitweave.training.hardware import GPUS
from unitweave.units import features as fbank
from unitweave.units import train_encoder as module
from unitweave.units.encoder import CharacterVocabulary, load_encoder
from unitweave.units.error_rates import Transcript, error_rates_by_language, subsample
from unitweave.units.estimate import estimate
from unitweave.units.front_end import FrontEnd
from unitweave.units.initial_encoder import initial_encoder
from unitweave.units.sampling import list_recordings
from unitweave.units.train_encoder import LengthBatches, Reading, SpeechDataset, train_encoder

pytestmark = pytest.mark.slow

TINY = SmallEncoder(
    hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, conv_depthwise_kernel_size=5
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 12)


def settings_of(**changes: object) -> EncoderSettings:
    """Tiny settings; changes are of the encoder's or its training's keys."""
    training = {name: changes.pop(name) for name in list(changes) if name in vars(EncoderTraining())}
    training = {"steps": 4, "precision": "fp32"} | training
    own = EncoderSettings()
    return replace(own, **({"shape": TINY, "batch_seconds": 8} | changes), training=replace(own.training, **training))


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
        outcome = train_encoder(tmp_path, settings_of(eval_steps=2), corpus)
    assert [step for step, _ in seen] == [2, 4]
    assert {"eval_wer_es", "eval_cer_en", "eval_wer"} <= set(seen[0][1])
    for language in ("es", "en"):
        assert outcome.counts[f"wer_{language}"] == seen[-1][1][f"eval_wer_{language}"], "the saved model is the last"
    assert outcome.obsolete == (tmp_path / "checkpoints",), "which the stage removes"


def test_training_stops_when_the_error_rate_does_and_keeps_the_best(corpus: Path, tmp_path: Path) -> None:
    rates = iter([90.0, 50.0, 60.0, 70.0, 10.0])
    weights = {}

    def falling(self: module.EncoderTrainer, *_: object, **__: object) -> dict[str, float]:
        metrics = {"eval_wer": next(rates)}
        weights[metrics["eval_wer"]] = self.model.lm_head.weight.detach().cpu().clone()
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EncoderTrainer, "evaluate", falling)
        outcome = train_encoder(tmp_path, settings_of(steps=10, eval_steps=1, early_stopping_patience=2), corpus)
    assert outcome.counts["steps"] == 4
    assert torch.equal(load_encoder(tmp_path / "model")[0].lm_head.weight, weights[50.0])


def test_an_interrupted_training_goes_on_to_the_same_encoder(corpus: Path, tmp_path: Path) -> None:
    settings = settings_of(steps=6, save_steps=2, spec_augment=True, layerdrop=0.5, speed_perturbation=0.1)
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


def test_going_on_in_a_later_epoch_sees_the_batches_that_an_uninterrupted_training_sees(
    corpus: Path, tmp_path: Path
) -> None:
    seen: list[torch.Tensor] = []
    original = module.EncoderTrainer.training_step

    def noted(self: module.EncoderTrainer, model: object, inputs: dict, *rest: object) -> torch.Tensor:
        if (tmp_path / "stop").exists() and self.state.global_step == 7:
            raise KeyboardInterrupt
        seen.append(inputs["labels"].clone())
        return original(self, model, inputs, *rest)

    settings = settings_of(steps=9, batch_seconds=5, gradient_accumulation_steps=2, save_steps=5, spec_augment=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EncoderTrainer, "training_step", noted)
        train_encoder(tmp_path / "whole", settings, corpus)
        whole = list(seen)
        (tmp_path / "stop").touch()
        with pytest.raises(KeyboardInterrupt):
            train_encoder(tmp_path / "halves", settings, corpus)
        (tmp_path / "stop").unlink()
        seen.clear()
        train_encoder(tmp_path / "halves", settings, corpus)
    assert len(whole) == 18, "every step has its two batches"
    assert all(torch.equal(a, b) for a, b in zip(seen, whole[10:], strict=True))
    one, two = (load_encoder(tmp_path / name / "model")[0].state_dict() for name in ("whole", "halves"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_patience_survives_an_interruption(corpus: Path, tmp_path: Path) -> None:
    rates = {1: 50.0, 2: 60.0, 3: 70.0, 4: 80.0}

    def rising(self: module.EncoderTrainer, *_: object, **__: object) -> dict[str, float]:
        metrics = {"eval_wer": rates.get(self.state.global_step, 10.0)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    class Stop(Exception):
        pass

    def stop(self: object, args: object, state: object, control: object, **_: object) -> None:
        if state.global_step == 3:
            raise Stop

    settings = settings_of(steps=10, eval_steps=1, early_stopping_patience=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.EncoderTrainer, "evaluate", rising)
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(module.MeterCallback, "on_step_end", stop)
            with pytest.raises(Stop):
                train_encoder(tmp_path, settings, corpus)
        assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["checkpoint-1", "checkpoint-2"]
        best = load_file(tmp_path / "checkpoints/checkpoint-1/model.safetensors")
        assert train_encoder(tmp_path, settings, corpus).counts["steps"] == 4
        moved = tmp_path.rename(tmp_path.with_name("moved"))  # killed before its stage was done, and moved
        assert train_encoder(moved, settings, corpus).counts["steps"] == 4
    kept = load_encoder(moved / "model")[0].state_dict()
    assert all(torch.equal(kept[key], best[key]) for key in best)


@pytest.mark.processes
@pytest.mark.cpu
def test_two_processes_train_the_encoder_together(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(corpus, run / "corpus")
    write_json(run / "corpus/stage.json", {"format": FORMAT, "status": "done", "fingerprint": "corpus"})
    encoder = {"shape": vars(TINY), "batch_seconds": 4, "layerdrop": 0.5, "eval_steps": 2}
    encoder["training"] = {"steps": 4, "precision": "fp32", "gradient_checkpointing": True}
    (run / "recipe.yaml").write_text(yaml.safe_dump({"corpus": {"manifest": "x"}, "encoder": encoder}))
    ranks = run_ranks(command("units", "train-encoder", run), tmp_path)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].printed
    assert json.loads((run / "encoder/stage.json").read_text())["status"] == "done"
    assert "".join(rank.printed for rank in ranks).count("encoder: step 4: ") == 1
    assert sorted(path.name for path in (run / "encoder").iterdir()) == ["model", "stage.json"]


def test_recordings_that_are_all_too_long_are_no_missing_ones(corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no recording with a transcript lasts at most encoder.max_seconds \(0.1\)"):
        train_encoder(tmp_path, settings_of(max_seconds=0.1), corpus)


def test_missing_weights_are_refused(corpus: Path, tmp_path: Path) -> None:
    train_encoder(tmp_path / "b", settings_of(steps=1), corpus)
    weights = load_file(tmp_path / "b/model/model.safetensors")
    weights.pop(next(key for key in weights if "layers.1." in key))
    save_file(weights, tmp_path / "b/model/model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match="lacks weights of a wav2vec2-bert model"):
        train_encoder(tmp_path / "c", settings_of(pretrained=str(tmp_path / "b/model")), corpus)


def test_recordings_without_known_seconds_are_named(corpus: Path, tmp_path: Path) -> None:
    write_manifest(tmp_path, [replace(pair, src_seconds=0.0, tgt_seconds=0.0) for pair in read_manifest(corpus)])
    with pytest.raises(InputError, match="fewer frames than characters"):
        train_encoder(tmp_path / "out", settings_of(), tmp_path)


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
    train_encoder(tmp_path / "b", settings_of(steps=1, spec_augment=True, mask_time_prob=0.1), corpus)
    written = json.loads((tmp_path / "b/model/config.json").read_text())
    assert written["apply_spec_augment"] and written["mask_time_prob"] == 0.1 and written["layerdrop"] == 0.0


def test_characters_that_the_pretrained_encoder_knew_keep_their_output_rows(corpus: Path, tmp_path: Path) -> None:
    train_encoder(tmp_path / "first", settings_of(steps=1), corpus)
    first, characters, _ = load_encoder(tmp_path / "first/model")
    others = CharacterVocabulary([*characters.tokens[:3], "ç", *reversed(characters.tokens[3:])])  # one more, reordered
    second = initial_encoder(settings_of(pretrained=str(tmp_path / "first/model")), others)[0].model
    for token, row in characters.ids.items():
        assert torch.equal(second.lm_head.weight[others.ids[token]], first.lm_head.weight[row])
        assert torch.equal(second.lm_head.bias[others.ids[token]], first.lm_head.bias[row])
    assert second.lm_head.weight[others.ids["ç"]].any()
    # An alphabet in capitals, as wav2vec 2.0's; entries that are no rows play no part.
    vocabulary = {token.upper(): row for token, row in characters.ids.items() if len(token) == 1}
    (tmp_path / "first/model/vocab.json").write_text(json.dumps(vocabulary | {"ç": True, "x": -1, "y": "z"}))
    third = initial_encoder(settings_of(pretrained=str(tmp_path / "first/model")), others)[0].model
    assert torch.equal(third.lm_head.weight[others.ids["a"]], first.lm_head.weight[characters.ids["a"]])


def test_accents_are_folded_in_training_and_an_accent_that_the_output_lacks_is_its_letter(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 4)
    pairs = [replace(pair, src_text="cañón está", tgt_text="tré über") for pair in read_manifest(corpus)]
    write_manifest(corpus, pairs)
    result = train_encoder(tmp_path / "encoder", settings_of(steps=1, fold_accents=True), corpus)
    vocabulary = load_encoder(tmp_path / "encoder/model").vocabulary
    assert {"ñ", "a", "e", "o", "u"} <= set(vocabulary.tokens) and not set("óáéü") & set(vocabulary.tokens)
    assert vocabulary.encode("cañón está über ж") == vocabulary.encode("cañon esta uber ж")
    assert vocabulary.encode("ж") == [vocabulary.unknown]
    assert result.counts["characters"] == 3 + len(set("cañonestrub"))


def test_batches_are_of_similar_lengths_within_the_bound() -> None:
    seconds = [0.5 + (7 * i % 50) / 5 for i in range(200)]
    batches = LengthBatches(seconds, 30.0, seed=1, total=1)
    for epoch in range(3):
        found = batches.epoch(epoch)
        assert sorted(place for batch in found for place, _ in batch) == list(range(200))
        assert {speed for batch in found for _, speed in batch} == {1.0}
        for batch in found:
            longest, shortest = max(seconds[i] for i, _ in batch), min(seconds[i] for i, _ in batch)
            assert longest * len(batch) <= 30.0 + 1e-6 or len(batch) == 1
            assert longest - shortest < 3.0


def test_the_stream_of_batches_is_the_same_for_any_number_of_processes_and_wherever_it_goes_on() -> None:
    seconds = [0.5 + random.Random(i).random() * 10 for i in range(100)]
    whole = list(LengthBatches(seconds, 22.5, 1, total=90))
    assert len({len(LengthBatches(seconds, 22.5, 1, 1).epoch(e)) for e in range(3)}) > 1, "or this shows nothing"
    epochs = [batch for e in range(3) for batch in LengthBatches(seconds, 22.5, 1, 1).epoch(e)]
    assert whole[: len(epochs)] == epochs[:90] and len(whole) == 90
    assert list(LengthBatches(seconds, 22.5, 1, 90, first=71)) == whole[71:]
    shares = [list(LengthBatches(seconds, 22.5, 1, 45, rank=rank, processes=2)) for rank in (0, 1)]
    assert [batch for pair in zip(*shares, strict=True) for batch in pair] == whole


def test_speeds_are_drawn_anew_in_each_epoch_and_batches_are_as_long_as_their_slowed_recordings() -> None:
    seconds = [0.5 + random.Random(i).random() * 10 for i in range(300)]
    batches = LengthBatches(seconds, 22.5, 1, total=200, speed_perturbation=0.2)
    epochs = [{place: speed for batch in batches.epoch(e) for place, speed in batch} for e in range(2)]
    for speeds in epochs:
        assert speeds.keys() == set(range(300))
        assert all(0.8 <= speed <= 1.2 for speed in speeds.values())
        assert min(speeds.values()) < 0.85 and max(speeds.values()) > 1.15
    assert sum(epochs[0][place] == epochs[1][place] for place in range(300)) == 0
    for batch in batches.epoch(0):
        assert max(seconds[i] / speed for i, speed in batch) * len(batch) <= 22.5 + 1e-6 or len(batch) == 1
    resumed = LengthBatches(seconds, 22.5, 1, 200, first=130, speed_perturbation=0.2)
    assert list(resumed) == list(batches)[130:]


def test_a_recording_that_is_read_faster_is_shorter_and_higher(tmp_path: Path) -> None:
    tone = np.sin(2 * np.pi * 1000 * np.arange(16_000) / 16_000).astype(np.float32) * 0.3
    soundfile.write(tmp_path / "tone.wav", tone, 16_000)
    pairs = [Pair("a", "train", "es", "en", str(tmp_path / "tone.wav"), None, "un tono", None, src_seconds=1.0)]
    write_manifest(tmp_path, pairs)
    items = list_recordings(read_manifest(tmp_path))
    encoder, _ = initial_encoder(settings_of(), CharacterVocabulary.from_texts(["un tono"]))
    dataset = SpeechDataset(items, encoder._replace(front_end=FrontEnd("waveform", convolutions=((400, 320),))))
    for speed in (0.9, 1.0, 1.1):
        sample = dataset[Reading(0, speed)]
        waveform = sample["features"][:, 0].numpy()
        assert len(waveform) == pytest.approx(16_000 / speed, abs=1)
        spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
        assert spectrum.argmax() * 16_000 / len(waveform) == pytest.approx(1000 * speed, abs=2)
        assert sample["labels"] == encoder.vocabulary.encode("un tono")


@pytest.mark.parametrize("perturbation", [0.0, 0.5])
def test_recordings_must_be_long_enough_at_the_fastest_speed(tmp_path: Path, perturbation: float) -> None:
    soundfile.write(tmp_path / "short.wav", np.zeros(4_800, np.float32), 16_000)  # 0.3 s, some 14 frames
    pairs = [Pair("a", "train", "es", "en", str(tmp_path / "short.wav"), None, "doce signos!", None, src_seconds=0.3)]
    write_manifest(tmp_path, pairs)
    front_end = FrontEnd("fbank", fbank.FEATURE_SIZE)
    kept, short = module._long_enough(list_recordings(read_manifest(tmp_path)), front_end, perturbation)
    assert (len(kept), len(short)) == ((0, 1) if perturbation else (1, 0))


def test_error_rates_are_per_language_and_a_few_are_spread(tmp_path: Path) -> None:
    found = [
        Transcript("es", "una casa", "una casa"),
        Transcript("en", "the dog", "the dot"),
        Transcript("en", "a b", ""),
    ]
    assert error_rates_by_language(found) == {"wer_en": 75.0, "cer_en": 40.0, "wer_es": 0.0, "cer_es": 0.0}
    languages = ["es" if i % 3 else "en" for i in range(30)]
    write_manifest(
        tmp_path, [Pair(str(i), "dev", code, "en", "x.wav", *[None] * 3) for i, code in enumerate(languages)]
    )
    items = list_recordings(read_manifest(tmp_path))
    chosen = subsample(items, 5)
    assert [item.id for item in chosen if item.language == "en"] == ["0", "6", "12", "18", "24"]
    assert len(subsample(items, 100)) == 30
    assert len(subsample(items[:0], 5)) == 0, "a small table may have no dev split"


def test_the_estimate_counts_parameters_and_follows_the_settings(capsys: pytest.CaptureFixture) -> None:
    training = replace(EncoderSettings().training, gradient_checkpointing=True)
    paper = EncoderSettings(pretrained="facebook/w2v-bert-2.0", batch_seconds=160, training=training)
    found = estimate(paper)
    assert 570e6 < found.parameters < 620e6  # the model card says 580 M without the CTC head
    assert found.states == pytest.approx(18 * found.parameters / 2**30)
    free = estimate(EncoderSettings(pretrained="facebook/w2v-bert-2.0", batch_seconds=160))
    assert free.memory > found.memory and free.flop < found.flop
    assert found.hours(GPUS["h200"]) < found.hours(GPUS["rtx3090"])
    assert main(["units", "plan", "paper-encoder"]) == 0
    table = capsys.readouterr().out
    assert all(gpu.name in table for gpu in GPUS.values())
    assert main(["units", "plan", "paper-encoder", "--encoder.batch_seconds", "80"]) == 0
    assert capsys.readouterr().out != table
