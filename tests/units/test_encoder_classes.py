"""Every speech encoder of transformers that can carry a CTC head: training, codebook, units, and what is refused."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    MODEL_MAPPING,
    ASTConfig,
    ASTModel,
    AutoFeatureExtractor,
    AutoModelForCTC,
    HubertModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperModel,
)

import unitweave.units.error_rates as rates
import unitweave.units.train_encoder as module
from helpers.encoders import random_checkpoint
from helpers.units_corpus import WORDS, waveform, write_corpus
from unitweave.cli import main
from unitweave.config.training import EncoderTraining
from unitweave.config.units import CodebookSettings, EncoderSettings, ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.units.dataset import read_units, read_units_metadata
from unitweave.units.encoder import CharacterVocabulary, SpeechEncoder, encode, load_encoder
from unitweave.units.estimate import plan
from unitweave.units.extract import extract_units
from unitweave.units.extractor import UnitExtractor
from unitweave.units.front_end import MODEL_TYPES
from unitweave.units.inference import EncoderInference
from unitweave.units.initial_encoder import check_initial_encoder, initial_encoder
from unitweave.units.probe import probe_layers
from unitweave.units.sampling import list_recordings
from unitweave.units.train_codebook import train_codebook
from unitweave.units.train_encoder import train_encoder

KINDS = (*MODEL_TYPES, "wav2vec2+layer", "hubert+layer", "wavlm+layer")
CODEBOOK = CodebookSettings(num_units=8, layer=2, max_frames=500, max_iterations=2)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 6)


def encoder_of(folder: Path, kind: str) -> SpeechEncoder:
    random_checkpoint(folder / kind, kind)
    vocabulary = CharacterVocabulary.from_texts(WORDS)
    encoder, _ = initial_encoder(EncoderSettings(pretrained=str(folder / kind)), vocabulary)
    encoder.model.eval()
    return encoder


def settings_of(folder: Path, steps: int = 2, **further: object) -> EncoderSettings:
    training = EncoderTraining(steps=steps, learning_rate=1e-3, save_steps=1)
    return EncoderSettings(pretrained=str(folder), batch_seconds=6, training=training, **further)


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_each_class_trains_and_makes_units_that_company_and_threads_leave_alone(
    corpus: Path, tmp_path: Path, kind: str
) -> None:
    random_checkpoint(tmp_path / "hub", kind)
    result = train_encoder(tmp_path / "encoder", settings_of(tmp_path / "hub"), corpus)
    assert {"wer_es", "cer_en"} <= set(result.counts)
    train_codebook(tmp_path / "codebook", CODEBOOK, corpus, tmp_path / "encoder/model")
    for name, settings in (
        ("one", ExtractionSettings(workers=1)),
        ("two", ExtractionSettings(workers=2, batch_seconds=2.0)),
    ):
        extract_units(tmp_path / name, settings, corpus, tmp_path / "encoder/model", tmp_path / "codebook")
    assert (tmp_path / "one/units-00000.parquet").read_bytes() == (tmp_path / "two/units-00000.parquet").read_bytes()
    rate = 25 if kind.startswith("sew") else 50
    assert read_units_metadata(tmp_path / "one")["frame_rate"] == str(rate)
    extractor = UnitExtractor.load(tmp_path / "encoder/model", tmp_path / "codebook")
    for row in read_units(tmp_path / "one").values():
        assert len(row.starts) == len(row.words) and row.ends.max(initial=0) <= len(row.units)
        assert (row.starts[1:] >= row.ends[:-1]).all() and (row.ends >= row.starts).all()
    for samples in (800, 5_000, 11_111, 16_000):
        ((units, _),) = extractor.extract([waveform(1, samples)])
        assert len(units) == extractor.front_end.num_frames(samples) > 0
        assert abs(len(units) - samples / 16_000 * rate) <= 2


@pytest.mark.slow
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "whisper"])
def test_hidden_states_and_output_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    encoder = encoder_of(tmp_path, kind)
    encoder.model.save_pretrained(tmp_path / "saved")
    theirs = AutoModelForCTC.from_pretrained(tmp_path / "saved").eval()
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / kind)
    for samples in (5_000, 12_345):
        wave = waveform(samples, samples)
        with torch.inference_mode():
            inputs = extractor(wave, sampling_rate=16_000, return_tensors="pt")
            expected = theirs(**inputs, output_hidden_states=True)
        ((hidden, log_probs),) = EncoderInference(encoder.model, encoder.front_end)(
            encoder.front_end.extract([wave]), [1, 2]
        )
        assert len(log_probs) == encoder.front_end.ctc_frames(samples)
        for ours, reference in zip(hidden, expected.hidden_states[1:], strict=True):
            torch.testing.assert_close(ours, reference[0, : len(ours)], atol=2e-3, rtol=1e-3)
        reference = expected.logits.log_softmax(-1)[0, : len(log_probs)]
        torch.testing.assert_close(log_probs, reference, atol=5e-3, rtol=1e-3)


@pytest.mark.slow
def test_whisper_is_transformers_encoder_at_30_seconds_and_its_windows_join(tmp_path: Path) -> None:
    whisper = random_checkpoint(tmp_path / "again", "whisper").encoder
    encoder = encoder_of(tmp_path, "whisper")
    extractor = AutoFeatureExtractor.from_pretrained(tmp_path / "whisper")
    inference, wave = EncoderInference(encoder.model, encoder.front_end), waveform(1, 30 * 16_000)
    with torch.inference_mode():
        features = extractor(wave, sampling_rate=16_000, return_tensors="pt").input_features
        expected = whisper(features, output_hidden_states=True).hidden_states
    (own,) = encoder.front_end.extract([wave])
    torch.testing.assert_close(own.T, features[0])
    (((first, last), _),) = inference([own], [1, 2])
    torch.testing.assert_close(first, expected[1][0])
    torch.testing.assert_close(last, expected[2][0])
    for seconds in (30.02, 41.3, 70.0, 95.51):
        samples = round(seconds * 16_000)
        long = encoder.front_end.extract([waveform(2, samples)])[0]
        (((hidden,), log_probs),) = inference([long], [2])
        assert len(hidden) == len(log_probs) == encoder.front_end.num_frames(samples)
        (((start,), _),) = inference([long[:3000]], [2])
        torch.testing.assert_close(hidden[:1400], start[:1400])


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_batches_for_a_gpu_equal_single_recordings(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unitweave.units.inference._BATCH_FRAMES", 1024)  # else each batch is padded to minutes
    encoder = encoder_of(tmp_path, kind)
    features = encoder.front_end.extract([waveform(i, 4_000 + 2_777 * i) for i in range(5)])
    batched = EncoderInference(encoder.model, encoder.front_end, batched=True)
    together = batched(features, [1, 2])
    for one, (hidden, log_probs) in zip(features, together, strict=True):
        inputs = encoder.front_end.batch([one], len(one), mask=False)
        with torch.inference_mode():
            alone = encoder.model(**inputs, output_hidden_states=True)
        for ours, reference in zip(hidden, alone.hidden_states[1:], strict=True):
            torch.testing.assert_close(ours, reference[0, : len(ours)], atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(log_probs, alone.logits.log_softmax(-1)[0], atol=5e-3, rtol=1e-3)
    for i, result in enumerate(together):
        ((hidden, log_probs),) = batched([features[i]], [1, 2])
        assert torch.equal(hidden[1], result[0][1]) and torch.equal(log_probs, result[1])


@pytest.mark.slow
def test_an_interrupted_fine_tuning_of_whisper_goes_on_to_the_same_weights(corpus: Path, tmp_path: Path) -> None:
    before = random_checkpoint(tmp_path / "hub", "whisper").encoder.state_dict()
    settings = settings_of(tmp_path / "hub", 3, head_learning_rate=1e-2, freeze_layers=1)
    train_encoder(tmp_path / "whole", settings, corpus)

    def stop(self: object, args: object, state: object, control: object, **_: object) -> None:
        if state.global_step == 2:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module.MeterCallback, "on_step_end", stop)
        with pytest.raises(KeyboardInterrupt):
            train_encoder(tmp_path / "halves", settings, corpus)
    train_encoder(tmp_path / "halves", settings, corpus)
    one, two = (load_encoder(tmp_path / name / "model")[0].state_dict() for name in ("whole", "halves"))
    assert all(torch.equal(value, two[name]) for name, value in one.items())
    moved = {name for name, value in before.items() if not torch.equal(value, one[f"encoder.{name}"])}
    assert any(name.startswith("layers.1.") for name in moved)
    assert not any(name.startswith(("conv", "layers.0.", "embed")) for name in moved)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hubert", "sew", "whisper"])
def test_layers_are_probed_and_costs_planned(corpus: Path, tmp_path: Path, kind: str) -> None:
    random_checkpoint(tmp_path / "hub", kind)
    train_encoder(tmp_path / "encoder", settings_of(tmp_path / "hub", 1), corpus)
    rows = probe_layers(corpus, tmp_path / "encoder/model", CODEBOOK)
    assert [row.layer for row in rows] == [1, 2] and all(row.perplexity > 1 for row in rows)
    assert "| H100" in plan(settings_of(tmp_path / "hub"))


def test_the_costs_of_an_encoder_of_unknown_shape_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "| H100" in plan(settings_of(Path("facebook/w2v-bert-2.0")))
    with pytest.raises(InputError, match="somebody/hubert: could not load the configuration of the speech encoder"):
        plan(settings_of(Path("somebody/hubert")))


def test_convolutions_over_the_waveform_stay_unless_they_are_to_be_trained(tmp_path: Path) -> None:
    random_checkpoint(tmp_path / "hub", "hubert")
    for frozen in (True, False):
        settings = settings_of(tmp_path / "hub", freeze_convolutions=frozen)
        model = initial_encoder(settings, CharacterVocabulary.from_texts(WORDS))[0].model
        convolutions = list(model.hubert.feature_extractor.parameters())
        assert convolutions and all(weight.requires_grad != frozen for weight in convolutions)
        assert model.lm_head.weight.requires_grad


def test_what_is_no_encoder_with_frames_is_refused_in_one_line(corpus: Path, tmp_path: Path) -> None:
    ASTModel(ASTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8)).save_pretrained(
        tmp_path / "ast"
    )
    with pytest.raises(InputError, match=r"that can carry a CTC head, one of .*hubert.* \(got audio-spectrogram-tr"):
        train_encoder(tmp_path / "a", settings_of(tmp_path / "ast"), corpus)
    random_checkpoint(tmp_path / "hub", "hubert")
    Wav2Vec2FeatureExtractor(sampling_rate=8_000).save_pretrained(tmp_path / "hub")
    with pytest.raises(InputError, match=r"at 16000 Hz .*at 8000 Hz"):
        train_encoder(tmp_path / "b", settings_of(tmp_path / "hub"), corpus)
    (tmp_path / "hub/preprocessor_config.json").unlink()
    with pytest.raises(InputError, match=r"has no preprocessor_config\.json, .*do_normalize"):
        train_encoder(tmp_path / "c", settings_of(tmp_path / "hub"), corpus)
    config = json.loads((tmp_path / "hub/config.json").read_text())
    (tmp_path / "hub/config.json").write_text(json.dumps(config | {"model_type": "nonsense"}))
    with pytest.raises(InputError) as refused:
        train_encoder(tmp_path / "d", settings_of(tmp_path / "hub"), corpus)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("kind", "changes", "message"),
    [
        (
            "wav2vec2",
            {"conv_stride": [50, 80, 80], "conv_kernel": [50, 80, 80]},
            "has 0.05 frames a second .* need 4 to",
        ),
        ("wav2vec2", {"conv_stride": [5, 0, 8]}, "conv_stride and conv_kernel must be 1 or more"),
        (
            "wav2vec2-bert",
            {"feature_projection_input_dim": 80},
            "takes features of 80 values .* but w2v-BERT's have 160",
        ),
    ],
)
def test_an_encoder_without_usable_frames_is_refused_when_it_is_loaded(
    kind: str, changes: dict, message: str, tmp_path: Path
) -> None:
    random_checkpoint(tmp_path / "hub", kind)
    config = json.loads((tmp_path / "hub/config.json").read_text())
    (tmp_path / "hub/config.json").write_text(json.dumps(config | changes))
    with pytest.raises(InputError, match=message):
        initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))


@pytest.mark.parametrize(("width", "bias"), [(24, True), (32, False), (32, True)])
def test_an_output_layer_of_any_kind_may_come_with_a_checkpoint(width: int, bias: bool, tmp_path: Path) -> None:
    folder = tmp_path / "hub"
    random_checkpoint(folder, "wav2vec2")
    tensors = {f"wav2vec2.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    tensors["lm_head.weight"] = torch.full((4, width), 7.0)
    tensors |= {"lm_head.bias": torch.full((4,), 3.0)} if bias else {}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "vocab.json").write_text(json.dumps({"A": 1, "|": 2, "eng": {"a": 0}, "b": 99}))
    vocabulary = CharacterVocabulary.from_texts(WORDS)
    head = initial_encoder(settings_of(folder), vocabulary)[0].model.lm_head
    row = vocabulary.ids["a"]
    assert bool((head.weight[row] == 7).all()) == (width == 32), "behind an adapter it was trained on something else"
    assert width != 32 or head.bias[row] == (3 if bias else 0)


@pytest.mark.parametrize("kind", MODEL_TYPES)
def test_a_folder_of_each_class_without_an_output_layer_passes_the_checks_before_a_run(
    kind: str, tmp_path: Path
) -> None:
    random_checkpoint(tmp_path / "hub", kind)  # some have no vocab_size: w2v-BERT 2.0, Conformer
    rate = check_initial_encoder(EncoderSettings(pretrained=str(tmp_path / "hub")), layer=2)
    assert rate == (25 if kind.startswith("sew") else 50)


@pytest.mark.parametrize("shards", [False, True])
def test_blank_delimiter_and_letters_keep_their_rows_whatever_they_are_called(shards: bool, tmp_path: Path) -> None:
    vocabulary = CharacterVocabulary.from_texts(WORDS)
    config = random_checkpoint(tmp_path / "base", "wav2vec2").config
    config.vocab_size, config.pad_token_id = len(vocabulary.tokens), 5  # the same number, but another alphabet
    model = Wav2Vec2ForCTC(config)
    with torch.no_grad():
        model.lm_head.weight.copy_(torch.arange(config.vocab_size)[:, None].expand_as(model.lm_head.weight))
    model.save_pretrained(tmp_path / "hub", max_shard_size="30KB" if shards else "1GB")
    assert (tmp_path / "hub/model.safetensors.index.json").exists() == shards
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hub")
    alphabet = {"[UNK]": 4, "[PAD]": 5, "_": 1, "a": 2, "D": 3}
    (tmp_path / "hub/vocab.json").write_text(json.dumps({"eng": alphabet, "spa": {"a": 7}}))  # as MMS has it
    (tmp_path / "hub/tokenizer_config.json").write_text(json.dumps({"target_lang": "eng", "word_delimiter_token": "_"}))
    weight = initial_encoder(settings_of(tmp_path / "hub"), vocabulary)[0].model.lm_head.weight
    for token, row in {"<pad>": 5, "|": 1, "a": 2, "d": 3}.items():
        assert (weight[vocabulary.ids[token]] == row).all(), token
    assert weight[vocabulary.ids["e"]].abs().max() < 1, "new, and not that of another character"
    (tmp_path / "hub/vocab.json").unlink()
    assert initial_encoder(settings_of(tmp_path / "hub"), vocabulary)[0].model.lm_head.weight.abs().max() < 1


def test_whispers_encoder_may_have_been_saved_without_the_model_around_it(tmp_path: Path) -> None:
    encoder = random_checkpoint(tmp_path / "hub", "whisper").encoder
    encoder.save_pretrained(tmp_path / "hub")
    loaded, extractor = initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))
    loaded.model.save_pretrained(tmp_path / "saved")
    loaded.vocabulary.save(tmp_path / "saved")
    extractor.save_pretrained(tmp_path / "saved")
    for model in (loaded.model, load_encoder(tmp_path / "saved").model):
        state = model.encoder.state_dict()
        assert all(torch.equal(weight, state[name]) for name, weight in encoder.state_dict().items())


def test_a_hubert_whose_positions_are_normalized_over_time_is_computed_one_by_one(tmp_path: Path) -> None:
    config = random_checkpoint(tmp_path / "base", "hubert+layer").config
    config.conv_pos_batch_norm = True  # as mHuBERT's
    model = HubertModel(config).eval()
    model.encoder.pos_conv_embed.batch_norm.running_mean.fill_(1.0)
    model.save_pretrained(tmp_path / "hub")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hub")
    encoder, _ = initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))
    (features,) = encoder.front_end.extract([waveform(1, 9_000)])
    (((hidden,), _),) = EncoderInference(encoder.model.eval(), encoder.front_end, batched=True)([features], [2])
    with torch.inference_mode():
        expected = model(features.T, output_hidden_states=True).hidden_states[2][0]
    torch.testing.assert_close(hidden, expected)


def test_an_adapter_of_w2v_bert_and_what_goes_with_it_are_left_out(tmp_path: Path) -> None:
    random_checkpoint(tmp_path / "hub", "wav2vec2-bert")
    config = json.loads((tmp_path / "hub/config.json").read_text())
    changes = {"add_adapter": True, "use_intermediate_ffn_before_adapter": True}
    (tmp_path / "hub/config.json").write_text(json.dumps(config | changes))
    encoder, _ = initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))
    encoder.model.save_pretrained(tmp_path / "saved")
    ((_, log_probs),) = EncoderInference(encoder.model.eval(), encoder.front_end)(
        encoder.front_end.extract([waveform(1, 16_000)]), [1]
    )
    assert len(log_probs) == encoder.front_end.num_frames(16_000)


@pytest.mark.parametrize("positions", [1, 20, 150, 200])
def test_a_whisper_of_few_positions_takes_a_recording_in_short_windows(positions: int, tmp_path: Path) -> None:
    config = random_checkpoint(tmp_path / "base", "whisper").config
    config.max_source_positions = positions
    WhisperModel(config).save_pretrained(tmp_path / "hub")
    encoder, _ = initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))
    inference = EncoderInference(encoder.model.eval(), encoder.front_end)
    (features,) = encoder.front_end.extract([waveform(1, 9 * 16_000)])
    (((hidden,), log_probs),) = inference([features], [2])
    assert len(hidden) == len(log_probs) == encoder.front_end.num_frames(9 * 16_000) == 450
    windows = encoder.front_end.windows(len(features))
    kept = [range(w.start // 2 + w.first, w.start // 2 + w.last) for w in windows]
    assert [frame for frames in kept for frame in frames] == list(range(450))


@pytest.mark.parametrize("kind", ["wav2vec2-conformer", "wav2vec2-bert"])
@pytest.mark.parametrize("positions", ["rotary", "relative"])
def test_positions_are_those_of_the_batch_whatever_was_computed_before_or_beside_it(
    kind: str, positions: str, tmp_path: Path
) -> None:
    config = random_checkpoint(tmp_path / "base", kind).config
    config.position_embeddings_type, config.max_source_positions = positions, 8
    MODEL_MAPPING[type(config)](config).save_pretrained(tmp_path / "hub")
    Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "hub")
    encoder, extractor = initial_encoder(settings_of(tmp_path / "hub"), CharacterVocabulary.from_texts(WORDS))
    model, front_end = encoder.model.eval(), encoder.front_end
    inputs = front_end.batch(front_end.extract([waveform(1, 9_000)]))
    table = model.base_model.encoder.embed_positions
    before = {name: id(value) for name, value in (vars(table) | table._buffers).items()}
    encode(model, inputs, [1])  # as an evaluation does, in inference mode
    assert {name: id(value) for name, value in (vars(table) | table._buffers).items()} == before, "nothing is kept"
    model(**inputs, labels=torch.ones(1, 2).long()).loss.backward()
    model.save_pretrained(tmp_path / "saved")
    encoder.vocabulary.save(tmp_path / "saved")
    extractor.save_pretrained(tmp_path / "saved")
    loaded = copy.deepcopy(load_encoder(tmp_path / "saved").model)
    for one, two in zip(encode(model, inputs, [1, 2])[0], encode(loaded, inputs, [1, 2])[0], strict=True):
        assert torch.equal(one, two)
    assert loaded.base_model.encoder.embed_positions.forward.args[0] is loaded.base_model.encoder.embed_positions


def test_recordings_that_whisper_cannot_take_at_once_are_not_trained_on(tmp_path: Path) -> None:
    seconds = {"a": 30.0, "b": 30.1, "c": 0.03}
    pairs = [Pair(id, "train", "es", "en", "a.wav", None, "casa", "house", src_seconds=n) for id, n in seconds.items()]
    write_manifest(tmp_path, pairs)
    items = list_recordings(read_manifest(tmp_path))
    for kind, names in (("whisper", ["a"]), ("hubert", ["a", "b"])):
        usable, too_short = module._long_enough(items, encoder_of(tmp_path, kind).front_end)
        assert [item.id for item in usable] == names and [item.id for item in too_short] == ["c"]


@pytest.mark.slow
def test_encoders_are_compared_on_the_same_recordings(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        encoder = encoder_of(tmp_path, "hubert")
        encoder.model.save_pretrained(tmp_path / f"{name}/encoder/model")
        encoder.vocabulary.save(tmp_path / f"{name}/encoder/model")
        Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / f"{name}/encoder/model")

    def outputs(encoder, items, function):  # "esta roja", where the text is "está roja"
        rows = np.log(np.eye(len(encoder.vocabulary.tokens))[encoder.vocabulary.encode("esta roja")] + 1e-3)
        return [function(replace(item, text="está roja"), rows) for item in items]

    monkeypatch.setattr(rates, "map_outputs", outputs)
    command = ["units", "error-rates", str(corpus), str(tmp_path / "a"), str(tmp_path / "b"), "--split", "dev"]
    assert main(command) == 0
    shown = capsys.readouterr().out
    assert "Recordings: en 1, es 1" in shown and "| encoder | CER EN | WER EN | CER ES | WER ES |" in shown
    assert shown.count("| 11.1 | 50.0 | 11.1 | 50.0 |") == 2
    assert main([*command, "--fold-accents"]) == 0
    assert capsys.readouterr().out.count("| 0.0 | 0.0 | 0.0 | 0.0 |") == 2
    assert main([*command[:-1], "test"]) == 2
    assert "no recording with a transcript in the test split" in capsys.readouterr().err
    assert main([*command[:-1], "train", "--beam", "4", "--lm-texts", str(corpus)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("a, beam of 4 (en LM 0.") == 1 and shown.count("| 11.1 | 50.0 | 11.1 | 50.0 |") >= 2
    assert main([*command, "--beam", "8"]) == 2
    assert "its settings are chosen on the dev split" in capsys.readouterr().err
    assert main([*command[:-1], "train", "--lm-texts", str(corpus)]) == 2
    assert "--lm-texts: needs --beam" in capsys.readouterr().err
