"""Units are exact: alone or in any batch, on any number of threads, killed and resumed, they are the same."""

import random
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.processes import Program
from helpers.units_corpus import tiny_model, waveform, write_corpus, write_encoder
from unitweave.config.units import ExtractionSettings
from unitweave.core.audio import read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest, write_manifest
from unitweave.units.dataset import read_units
from unitweave.units.encoder import encode, load_encoder
from unitweave.units.error_rates import transcribe
from unitweave.units.extract import extract_units
from unitweave.units.extractor import UnitExtractor
from unitweave.units.features import extract_features
from unitweave.units.forward import CpuForward
from unitweave.units.front_end import FrontEnd
from unitweave.units.inference import EncoderInference, padded_length
from unitweave.units.sampling import batches_by_length, list_recordings
from unitweave.units.train_encoder import Reading, SpeechDataset
from unitweave.vocoder.crops import find_recordings, load_crop

pytestmark = pytest.mark.slow

SETTINGS = ExtractionSettings(shard_size=3, batch_seconds=4.0)

FBANK = FrontEnd("fbank", 160)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_encoder(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"), 20)


@pytest.fixture(scope="module")
def shards(corpus: Path, models: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("units")
    extract_units(folder, SETTINGS, corpus, *models)
    return contents(folder)


def contents(folder: Path) -> dict[str, bytes]:
    """Names and bytes of all files in a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("positions", ["rotary", "relative_key"])
def test_the_forward_pass_on_a_cpu_is_that_of_transformers(positions: str) -> None:
    model, _ = tiny_model(positions)
    forward = CpuForward(model)
    for samples in (800, 5_000, 11_111, 30_000):
        (features,) = extract_features([waveform(samples, samples)])
        (first, last), log_probs = forward(features, [1, 2])
        expected, ctc = encode(model, FBANK.batch([features], len(features)), [1, 2])
        for ours, theirs in ((first, expected[0]), (last, expected[1]), (log_probs, ctc)):
            assert torch.allclose(ours, theirs[0], atol=1e-4, rtol=1e-4)


def test_units_are_equal_to_the_last_in_hundreds_of_random_batches(models: tuple[Path, Path]) -> None:
    extractor = UnitExtractor.load(*models)
    rng = random.Random(0)
    waves = [waveform(i, rng.randrange(600, 16_000)) for i in range(24)]
    texts = ["una casa", "dog", None, "the perro duerme"] * 6
    alone = [extractor.extract([wave], [text])[0] for wave, text in zip(waves, texts, strict=True)]
    assert len({unit for units, _ in alone for unit in units}) > 10, "the test would be empty with one unit"
    for _ in range(300):
        batch = rng.sample(range(24), rng.randrange(1, 9))
        together = extractor.extract([waves[i] for i in batch], [texts[i] for i in batch])
        for i, (units, words) in zip(batch, together, strict=True):
            assert np.array_equal(units, alone[i][0])
            assert (words is None) == (alone[i][1] is None)
            if words and alone[i][1]:
                assert np.array_equal(words.starts, alone[i][1].starts)
                assert np.array_equal(words.scores, alone[i][1].scores)


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_units_do_not_depend_on_the_number_of_threads(models: tuple[Path, Path], threads: int) -> None:
    extractor = UnitExtractor.load(*models)
    waves = [waveform(i, 4_000 + 1_111 * i) for i in range(6)]
    expected = [extractor.extract([wave])[0][0] for wave in waves]
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(threads)
        found = extractor.extract(waves)
        assert torch.get_num_threads() == threads, "the caller's own setting is left as it was"
    finally:
        torch.set_num_threads(before)
    assert all(np.array_equal(units, other) for (units, _), other in zip(found, expected, strict=True))


def test_batches_for_a_gpu_have_one_shape_per_length_and_equal_the_cpu() -> None:
    model, _ = tiny_model()
    features = extract_features([waveform(i, 3_000 + 2_500 * i) for i in range(8)])
    batched, single = EncoderInference(model, FBANK, batched=True), EncoderInference(model, FBANK)
    expected = single(features, [2])
    shapes: dict[int, set] = {}
    model.register_forward_pre_hook(
        lambda _, args, kwargs: shapes.setdefault(kwargs["input_features"].shape[1], set()).add(
            kwargs["input_features"].shape[0]
        ),
        with_kwargs=True,
    )
    together = batched(features, [2])
    for one, ((hidden,), log_probs), ((other,), ctc) in zip(features, together, expected, strict=True):
        assert len(one) == len(hidden) <= padded_length(len(one))
        assert torch.allclose(hidden, other, atol=1e-4) and torch.allclose(log_probs, ctc, atol=1e-4)
        ((again,), _) = batched([one], [2])[0]
        assert torch.equal(hidden, again)
    assert all(len(rows) == 1 for rows in shapes.values()), "one number of rows for each length"


def test_bf16_changes_few_units(models: tuple[Path, Path]) -> None:
    waves = [waveform(i, 16_000) for i in range(8)]
    exact, fast = UnitExtractor.load(*models), UnitExtractor.load(*models, precision="bf16")
    pairs = zip(exact.extract(waves), fast.extract(waves), strict=True)
    differing = [np.mean(units != other) for (units, _), (other, _) in pairs]
    assert 0 <= np.mean(differing) < 0.1


def test_shards_have_every_recording_once_and_in_order(
    corpus: Path, models: tuple[Path, Path], shards: dict[str, bytes], tmp_path: Path
) -> None:
    assert sorted(shards) == [f"units-{n:05d}.parquet" for n in range(7)]
    for name, content in shards.items():
        (tmp_path / name).write_bytes(content)
    rows = read_units(tmp_path)
    items = list_recordings(read_manifest(corpus))
    assert list(rows) == [(item.id, item.side) for item in items]
    extractor = UnitExtractor.load(*models)
    from unitweave.core.audio import read_audio

    for item in items[::7]:
        (units, words), row = extractor.extract([read_audio(item.audio)], [item.text])[0], rows[item.id, item.side]
        assert words is not None and row.words == str(item.text).split()
        assert np.array_equal(units, row.units) and np.array_equal(words.ends, row.ends)


@pytest.mark.parametrize("changed", [{"workers": 3}, {"batch_seconds": 1.5}, {"batch_seconds": 60.0, "workers": 1}])
def test_shards_are_the_same_bytes_whatever_the_workers_and_batches(
    changed: dict, corpus: Path, models: tuple[Path, Path], shards: dict[str, bytes], tmp_path: Path
) -> None:
    settings = ExtractionSettings(**(vars(SETTINGS) | changed))
    extract_units(tmp_path, settings, corpus, *models)
    assert settings.in_fingerprint() == SETTINGS.in_fingerprint()
    assert contents(tmp_path) == shards


@pytest.mark.processes
def test_killed_at_random_moments_the_result_is_the_same_bytes(
    corpus: Path, models: tuple[Path, Path], shards: dict[str, bytes], tmp_path: Path
) -> None:
    out = tmp_path / "units"
    program = (
        "from pathlib import Path; from unitweave.config.units import ExtractionSettings\n"
        "from unitweave.units.extract import extract_units\n"
        "settings = ExtractionSettings(shard_size=3, batch_seconds=4.0)\n"
        f"extract_units(Path({str(out)!r}), settings, *map(Path, {[str(corpus), *map(str, models)]!r}))"
    )
    rng = random.Random(0)
    kills = 0
    for _ in range(3):
        before = len(list(out.glob("units-*")))
        process = Program(program, tmp_path)
        while process.code is None and len(list(out.glob("units-*"))) == before:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.send(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        for path in out.glob("units-*"):
            assert path.read_bytes() == shards[path.name], "a shard is whole or is not there"
    assert kills
    extract_units(out, SETTINGS, corpus, *models)
    assert contents(out) == shards


def test_units_of_another_codebook_are_not_taken_for_ours(
    corpus: Path, models: tuple[Path, Path], shards: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "units").mkdir()
    (tmp_path / "units/units-00000.parquet").write_bytes(shards["units-00000.parquet"])
    other = write_encoder(tmp_path, clusters=8)
    with pytest.raises(InputError, match="another codebook"):
        extract_units(tmp_path / "units", SETTINGS, corpus, *other)


def test_a_shard_of_other_recordings_is_extracted_again_and_a_further_one_refused(
    corpus: Path, models: tuple[Path, Path], shards: dict[str, bytes], tmp_path: Path
) -> None:
    for name in ("units-00001.parquet", "units-00002.parquet"):
        (tmp_path / name).write_bytes(shards["units-00001.parquet"])
    extract_units(tmp_path, SETTINGS, corpus, *models)
    assert contents(tmp_path) == shards
    (tmp_path / "units-00007.parquet").write_bytes(shards["units-00001.parquet"])
    with pytest.raises(
        InputError, match=r"units-00007\.parquet: the corpus has only 7 shards of units; delete this file"
    ):
        extract_units(tmp_path, SETTINGS, corpus, *models)


def test_a_recording_without_a_frame_is_skipped_and_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 4)
    write_audio(corpus / "audio/001_src.wav", waveform(0, 300))
    pairs = [replace(p, src_seconds=300 / 16_000) if p.id == "u001" else p for p in read_manifest(corpus)]
    write_manifest(corpus, pairs)
    outcome = extract_units(tmp_path / "units", SETTINGS, corpus, *models)
    assert outcome.skipped == [{"id": "u001/src", "reason": "shorter than one frame"}]
    assert outcome.counts["recordings"] == 7


def test_an_unreadable_recording_is_named(models: tuple[Path, Path], tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", 4)
    (corpus / "audio/002_tgt.wav").write_bytes(b"no audio")
    with pytest.raises(InputError, match="002_tgt"):
        extract_units(tmp_path / "units", SETTINGS, corpus, *models)


def test_a_recording_cut_after_the_corpus_was_built_is_named_wherever_it_is_read(
    models: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus = write_corpus(tmp_path / "corpus", 4)
    extract_units(tmp_path / "units", SETTINGS, corpus, *models)
    path = corpus / "audio/002_tgt.wav"
    write_audio(path, read_audio(path)[: len(read_audio(path)) // 2])
    recordings = list_recordings(read_manifest(corpus))
    encoder = load_encoder(models[0])
    for read in (
        lambda: extract_units(tmp_path / "again", SETTINGS, corpus, *models),
        lambda: transcribe(encoder, recordings),
        lambda: [SpeechDataset(recordings, encoder)[Reading(i)] for i in range(len(recordings))],
        lambda: [load_crop(one, 0, 8) for one in find_recordings(corpus, tmp_path / "units", "tgt", "train")[0]],
    ):
        with pytest.raises(InputError, match=r"002_tgt\.wav: changed after the corpus was built"):
            read()


def test_batches_hold_every_recording_once_within_the_bound(corpus: Path) -> None:
    items = list_recordings(read_manifest(corpus))
    batches = batches_by_length(items.seconds, 4.0)
    assert sorted(i for batch in batches for i in batch) == list(range(len(items)))
    assert all(len(batch) * max(items[i].seconds for i in batch) <= 4.0 for batch in batches if len(batch) > 1)


def test_two_gpus_of_a_process_make_the_shards_of_one(
    corpus: Path, models: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GPUs' part is played by the CPU, with batches as they have them."""
    used: list[int] = []

    class Batched(EncoderInference):
        def __init__(self, model: torch.nn.Module, front_end: FrontEnd, precision: str) -> None:
            super().__init__(model, front_end, precision, batched=True)

        def __call__(self, features: list, layers: list) -> list:
            used.append(id(self.model))
            return super().__call__(features, layers)

    monkeypatch.setattr("unitweave.units.extractor.EncoderInference", Batched)
    for count in (1, 2):
        used.clear()
        monkeypatch.setattr("unitweave.units.extract.local_devices", lambda count=count: [torch.device("cpu")] * count)
        extract_units(tmp_path / str(count), SETTINGS, corpus, *models)
        assert len(set(used)) == count
    assert contents(tmp_path / "1") == contents(tmp_path / "2")
