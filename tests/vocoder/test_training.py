"""Training of the unit vocoder: it learns, it resumes to the digit, it names what it cannot use."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from helpers.processes import command, run_ranks
from unitweave.cli import main
from unitweave.config.vocoder import VocoderSettings, VocoderTraining
from unitweave.core.audio import write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.core.manifest import Pair, write_manifest
from unitweave.core.stage import FORMAT
from unitweave.units.dataset import UnitRow, write_shard
from unitweave.vocoder import train as train_module
from unitweave.vocoder.crops import draw_batch, find_recordings
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.train import train_vocoder

pytestmark = pytest.mark.slow

TINY = VocoderSettings(
    segment_frames=16, dim=16, intermediate_dim=24, layers=1, fine_layers=1, hifigan_channels=32,
    discriminator_channels=2,
    training=VocoderTraining(
        steps=4, batch_size=2, save_steps=1, warmup_ratio=0.5, optimizer="muon", learning_rate=2e-3, precision="fp32"
    ),
)  # fmt: skip


def changed(**changes: object) -> VocoderSettings:
    """TINY with other values, of the vocoder's or its training's keys."""
    training = {name: changes.pop(name) for name in list(changes) if name in vars(TINY.training)}
    return replace(TINY, **changes, training=replace(TINY.training, **training))  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six utterances in which the unit decides the pitch: a harmonic tone of 100 to 170 Hz."""
    folder = tmp_path_factory.mktemp("data")
    generator, pairs, rows = np.random.default_rng(0), [], []
    empty = np.zeros(0, np.int32)
    for i in range(6):
        units = np.repeat(generator.integers(0, 8, 6), 8).astype(np.uint16)
        phase = np.cumsum(np.repeat(100 + 10.0 * units, 320)) / 16_000
        tone = sum(np.cos(2 * np.pi * k * phase) / k for k in range(1, 12)) * 0.1
        write_audio(folder / f"{i}.wav", np.append(tone, np.zeros(200)).astype(np.float32))
        split = "dev" if i == 5 else "train"
        pairs.append(Pair(f"u{i}", split, "fr", "en", None, str(folder / f"{i}.wav"), None, "a", speaker="ab"[i % 2]))
        rows.append(UnitRow(f"u{i}", "tgt", units, [], empty, empty, empty.astype(np.float32)))
    write_manifest(folder, pairs)
    write_shard(folder / "units", 0, rows, {"codebook": "book", "num_units": "8", "frame_rate": "50"})
    return folder


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def test_the_pitch_and_spectrum_of_units_are_learnt(data: Path, tmp_path: Path) -> None:
    own = {"dim": 32, "intermediate_dim": 48, "learning_rate": 5e-3, "save_steps": 1000}
    before = train_vocoder(tmp_path / "a", changed(**own, warmup_ratio=1.0, steps=1), data, data / "units").counts
    after = train_vocoder(tmp_path / "b", changed(**own, warmup_ratio=0.084, steps=60), data, data / "units").counts
    assert after["dev_mel_distance"] < 0.6 * before["dev_mel_distance"]
    model = UnitVocoder.from_pretrained(tmp_path / "b")
    with torch.inference_mode():
        pitch = model.generate(torch.tensor([[0] * 16, [7] * 16]))[1]
    assert pitch is not None and pitch[1, 8] > 1.2 * pitch[0, 8]


@pytest.mark.parametrize(
    "options", [{"adversarial_start_step": 2}, {"duration_predictor": True, "multi_speaker": True}]
)
@pytest.mark.cpu
def test_a_killed_training_resumed_equals_an_uninterrupted_one(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object]
) -> None:
    settings = changed(**options)
    train_vocoder(tmp_path / "whole", settings, data, data / "units")
    step = train_module._Trainer._train_step

    def killed_in_the_fourth_step(self: train_module._Trainer, batch: object) -> dict[str, float]:
        if self.step == 3:
            raise KeyboardInterrupt
        return step(self, batch)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(train_module._Trainer, "_train_step", killed_in_the_fourth_step)
        with pytest.raises(KeyboardInterrupt):
            train_vocoder(tmp_path / "killed", settings, data, data / "units")
    assert not (tmp_path / "killed" / "model.safetensors").exists()
    outcome = train_vocoder(tmp_path / "killed", settings, data, data / "units")
    whole, resumed = weights(tmp_path / "whole"), weights(tmp_path / "killed")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    assert outcome.obsolete == (tmp_path / "killed" / "checkpoints",), "which the stage removes"


def test_segments_longer_than_every_utterance_are_the_utterances(data: Path, tmp_path: Path) -> None:
    for name, frames in (("whole", 48), ("more", 10**9)):
        train_vocoder(tmp_path / name, changed(segment_frames=frames, steps=2), data, data / "units")
    whole, more = weights(tmp_path / "whole"), weights(tmp_path / "more")
    assert all(torch.equal(whole[name], more[name]) for name in whole)


@pytest.mark.cpu
def test_a_training_does_not_depend_on_what_its_process_trained_before(data: Path, tmp_path: Path) -> None:
    settings = changed(adversarial_start_step=1, precision="fp32", steps=2)
    train_vocoder(tmp_path / "alone", settings, data, data / "units")
    AcceleratorState._reset_state()
    Accelerator(mixed_precision="bf16", gradient_accumulation_steps=4)  # as the training of a language model leaves it
    train_vocoder(tmp_path / "after", settings, data, data / "units")
    alone, after = weights(tmp_path / "alone"), weights(tmp_path / "after")
    assert all(torch.equal(alone[name], after[name]) for name in alone)


def test_hifigan_trains_with_discriminators_in_bf16(data: Path, tmp_path: Path) -> None:
    settings = changed(generator="hifigan", steps=2, adversarial_start_step=1, precision="bf16")
    counts = train_vocoder(tmp_path, settings, data, data / "units").counts
    assert np.isfinite(counts["dev_mel_distance"])
    assert UnitVocoder.from_pretrained(tmp_path).config.generator == "hifigan"


def test_segments_hold_the_samples_of_their_units(data: Path) -> None:
    recordings, _ = find_recordings(data, data / "units", "tgt", "train")
    ends = np.cumsum([len(recording.units) for recording in recordings])
    batch = draw_batch(recordings, ends, step=3, batch=8, frames=16, seed=0)
    same = draw_batch(recordings, ends, step=3, batch=8, frames=16, seed=0)
    other = draw_batch(recordings, ends, step=4, batch=8, frames=16, seed=0)
    assert torch.equal(batch.waveform, same.waveform) and not torch.equal(batch.waveform, other.waveform)
    frames = batch.waveform.reshape(8, 16, 320)
    crossings = ((frames[..., 1:] > 0) & (frames[..., :-1] <= 0)).float().sum(-1)
    assert crossings.shape == batch.units.shape
    for unit in (0, 7):  # 100 Hz against 170 Hz: 2 periods a frame against 3.4
        assert (batch.units == unit).any()
        assert abs(float(crossings[batch.units == unit].mean()) - 0.02 * (100 + 10 * unit)) < 0.5


def test_beginnings_of_utterances_are_learnt_from_as_often_as_their_middles(data: Path) -> None:
    recordings, _ = find_recordings(data, data / "units", "tgt", "train")
    ends = np.cumsum([len(recording.units) for recording in recordings])
    batch = draw_batch(recordings, ends, step=0, batch=400, frames=16, seed=0)
    firsts = sum(
        any(torch.equal(row, torch.from_numpy(recording.units[:16].astype(np.int64))) for recording in recordings)
        for row in batch.units
    )
    assert 0.1 < firsts / 400 < 0.3  # 8 of 48 frames have their segment moved to the beginning
    inside = batch.loss_mask[:, 4:-4]
    assert inside.all() and 0.1 < float(batch.loss_mask[:, 0].mean()) < 0.35


def test_utterances_without_units_are_listed_with_the_reason(data: Path, tmp_path: Path) -> None:
    extra = Pair("lonely", "train", "fr", "en", None, str(data / "0.wav"), None, "a")
    mute = Pair("mute", "train", "fr", "en", None, None, None, "a")
    kept = Pair("u0", "train", "fr", "en", None, str(data / "0.wav"), None, "a")
    write_manifest(tmp_path, [extra, mute, kept])
    outcome = train_vocoder(tmp_path / "out", changed(steps=1), tmp_path, data / "units")
    assert outcome.skipped == [{"id": "lonely", "reason": "no units"}, {"id": "mute", "reason": "no audio"}]
    assert outcome.counts["utterances"] == 1


def test_nothing_to_train_on_is_an_error_in_one_line(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no training utterance has both audio and units on the side 'src'"):
        train_vocoder(tmp_path, replace(TINY, side="src"), data, data / "units")


def test_units_that_do_not_belong_to_the_recording_are_an_error(data: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "short.wav", np.ones(3200, np.float32) * 0.1)
    write_manifest(tmp_path, [Pair("u0", "train", "fr", "en", None, str(tmp_path / "short.wav"), None, "a")])
    with pytest.raises(InputError, match=r"short\.wav: 48 units but only 10 frames of audio \(utterance u0\)"):
        train_vocoder(tmp_path / "out", changed(steps=1), tmp_path, data / "units")


def test_units_without_their_repetitions_are_an_error(data: Path, tmp_path: Path) -> None:
    write_audio(tmp_path / "long.wav", np.ones(320 * 60, np.float32) * 0.1)
    write_manifest(tmp_path, [Pair("u0", "train", "fr", "en", None, str(tmp_path / "long.wav"), None, "a")])
    with pytest.raises(InputError, match=r"long\.wav: only 48 units for 60 frames of audio \(utterance u0\)"):
        train_vocoder(tmp_path / "out", changed(steps=1), tmp_path, data / "units")


@pytest.mark.processes
@pytest.mark.cpu
def test_two_processes_train_together_as_one(data: Path, tmp_path: Path) -> None:
    recipe = {"corpus": {"manifest": str(data)}, "vocoder": asdict(changed(steps=12, batch_size=4))}
    runs = [tmp_path / "one", tmp_path / "two"]
    for run in runs:
        shutil.copytree(data, run / "corpus")
        shutil.copytree(data / "units", run / "units")
        for stage in ("corpus", "units"):
            write_json(run / stage / "stage.json", {"format": FORMAT, "status": "done", "fingerprint": stage})
        (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    assert main(["vocoder", "train", str(runs[0])]) == 0
    ranks = run_ranks(command("vocoder", "train", runs[1]), tmp_path)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].printed
    # Not to the digit: the spectral loss is a ratio over a process's share, and the mean of ratios is another one.
    one, two = (json.loads((run / "vocoder/stage.json").read_text())["counts"]["dev_mel_distance"] for run in runs)
    assert abs(one - two) < 0.02 * one
    assert not (runs[1] / "vocoder/checkpoints").exists()
