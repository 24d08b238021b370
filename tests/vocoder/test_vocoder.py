"""The unit vocoder: shapes, batches, streams, what it refuses."""

import json
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from unitweave.core.errors import InputError
from unitweave.core.sequences import deduplicate
from unitweave.training.module_checkpoints import load_modules, save_modules
from unitweave.vocoder.base import Vocoder as AnyVocoder
from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.durations import DurationPredictor, DurationStream
from unitweave.vocoder.excitation import Position, pulse_train
from unitweave.vocoder.model import UnitVocoder
from unitweave.vocoder.pitch import track_pitch
from unitweave.vocoder.synthesis import SpeechStream
from unitweave.vocoder.synthesis import TrainedVocoder as Vocoder

SMALL = {"dim": 32, "hidden": 48, "layers": 2, "fine_layers": 1, "hifigan_channels": 64}
KINDS = {
    "vocos": {"generator": "vocos"},
    "vocos-plain": {"generator": "vocos", "excitation": "none"},
    "hifigan": {"generator": "hifigan"},
}


@pytest.fixture(params=KINDS)
def model(request: pytest.FixtureRequest) -> UnitVocoder:
    return small_model(**KINDS[request.param])


def small_model(**options: object) -> UnitVocoder:
    """Random weights, large enough that speech comes out and that a wrong neighbor would be heard."""
    torch.manual_seed(0)
    model = UnitVocoder(UnitVocoderConfig(num_units=50, codebook="book", **SMALL | options)).eval()  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.generator.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10.0 if options["generator"] == "hifigan" and parameter[0].numel() == 1 else 1.5)
        if options["generator"] == "vocos":
            model.generator.head.bias.add_(2.0)
    return model


def some_units(frames: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 50, frames)


def loudness(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))


def test_every_unit_becomes_320_samples(model: UnitVocoder) -> None:
    waveform = model(torch.from_numpy(some_units(17))[None])
    assert waveform.shape == (1, 17 * 320) and waveform.dtype == torch.float32
    assert loudness(waveform.detach().numpy()) > 1e-3


@pytest.mark.slow
def test_an_utterance_sounds_the_same_alone_and_in_a_batch(model: UnitVocoder) -> None:
    units = [some_units(frames, seed=frames) for frames in (70, 9, 33, 1)]
    together = Vocoder(model).synthesize(units)
    for row, batched in zip(units, together, strict=True):
        with torch.inference_mode():
            alone = model(torch.from_numpy(row)[None])[0].numpy()
        assert batched.shape == alone.shape
        np.testing.assert_allclose(batched, alone, atol=1e-4)


def test_samples_beyond_an_utterance_are_silent(model: UnitVocoder) -> None:
    units = torch.from_numpy(some_units(30)).repeat(2, 1)
    waveform = model(units, lengths=torch.tensor([30, 12]))
    assert not waveform[1, 12 * 320 :].any() and waveform[0, 12 * 320 :].any()


@pytest.mark.slow
@pytest.mark.parametrize("chunk", [7, 50])
def test_a_stream_gives_the_samples_of_the_whole_utterance(model: UnitVocoder, chunk: int) -> None:
    vocoder, units = Vocoder(model), some_units(165)
    chunks = list(vocoder.stream(iter(units.tolist()), chunk_frames=chunk))
    assert all(len(piece) == chunk * 320 for piece in chunks[:-1])
    np.testing.assert_allclose(np.concatenate(chunks), vocoder.synthesize([units])[0], atol=1e-4)


def test_a_chunk_is_spoken_as_soon_as_its_context_is_known() -> None:
    vocoder = Vocoder(small_model(generator="vocos"))
    taken = 0

    def source() -> object:
        nonlocal taken
        for unit in some_units(200):
            taken += 1
            yield int(unit)

    next(vocoder.stream(source(), chunk_frames=10))  # type: ignore[arg-type]
    assert taken == 10 + vocoder.model.context_frames


def test_no_unit_beyond_the_context_changes_a_sample(model: UnitVocoder) -> None:
    context, middle = model.context_frames, 60
    units = torch.from_numpy(some_units(120))[None]
    f0 = torch.full((1, 120), 120.0)
    changed = units.clone()
    changed[:, middle + context + 1 :] = 0
    first, second = model.generate(units, f0=f0)[0], model.generate(changed, f0=f0)[0]
    until = (middle + 1) * 320
    torch.testing.assert_close(first[:, :until], second[:, :until], atol=1e-5, rtol=0)
    assert (first[:, until:] - second[:, until:]).abs().max() > 1e-3


def test_saved_and_loaded_it_says_the_same(model: UnitVocoder, tmp_path: Path) -> None:
    model.save_pretrained(tmp_path)
    again = UnitVocoder.from_pretrained(tmp_path)
    units = torch.from_numpy(some_units(20))[None]
    assert torch.equal(model(units), again(units))
    assert again.config == model.config


def test_units_of_another_codebook_are_refused(tmp_path: Path) -> None:
    small_model(generator="vocos").save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"codebook book, not of other"):
        AnyVocoder.from_pretrained(tmp_path, codebook="other")


def test_folders_without_a_vocoder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        AnyVocoder.from_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(InputError, match="not the configuration of a unit vocoder"):
        AnyVocoder.from_pretrained(tmp_path)
    small_model(generator="vocos").save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(InputError, match=r"damaged or cut off .*; train the vocoder again"):
        AnyVocoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("wrong", [50, -1])
def test_units_outside_the_codebook_are_refused(wrong: int) -> None:
    vocoder = Vocoder(small_model(generator="vocos"))
    with pytest.raises(InputError, match=f"utterance 1: unit {wrong} is outside the codebook of 50 units"):
        vocoder.synthesize([some_units(5), np.array([3, wrong])])
    with pytest.raises(InputError, match=f"unit {wrong} is outside"):
        list(vocoder.stream([3, wrong]))
    with pytest.raises(InputError, match=f"unit {wrong} is outside"):
        vocoder.model(torch.tensor([[3, wrong]]))


def test_an_utterance_without_units_is_silence_of_no_length() -> None:
    first, second = Vocoder(small_model(generator="vocos")).synthesize([np.zeros(0, np.int64), some_units(4)])
    assert first.shape == (0,) and second.shape == (4 * 320,)


def test_speakers_sound_different_and_unknown_ones_are_refused() -> None:
    vocoder, units = Vocoder(small_model(generator="vocos", speakers=["ann", "bob"])), some_units(20)
    ann, bob = (vocoder.synthesize([units], speaker=name)[0] for name in ("ann", "bob"))
    assert np.abs(ann - bob).max() > 1e-2
    assert np.array_equal(vocoder.synthesize([units])[0], ann), "the first one, where none is named"
    with pytest.raises(InputError, match="must be one of ann, bob"):
        vocoder.synthesize([units], speaker="eve")
    with pytest.raises(InputError, match="single voice"):
        Vocoder(small_model(generator="vocos")).synthesize([units], speaker="ann")


def test_removed_repetitions_come_back_with_predicted_durations() -> None:
    units = np.array([4, 4, 4, 7, 9, 9])
    runs, frames = deduplicate(units)
    assert runs.tolist() == [4, 7, 9] and frames.tolist() == [3, 1, 2]
    model = small_model(generator="vocos", durations=True)
    with torch.no_grad():
        model.durations.out.weight.zero_()
        model.durations.out.bias.fill_(float(np.log(3)))
    assert len(Vocoder(model).synthesize([runs], deduplicated=True)[0]) == 3 * 3 * 320
    with pytest.raises(InputError, match="no duration predictor"):
        Vocoder(small_model(generator="vocos")).synthesize([runs], deduplicated=True)


def test_the_pulse_train_is_the_sum_of_all_harmonics() -> None:
    time = torch.arange(3200, dtype=torch.float64) / 16_000
    made = pulse_train(torch.full((1, 10), 125.0), 320, 16_000, Position())[0]
    harmonics = torch.stack([torch.cos(2 * torch.pi * k * 125.0 * time) for k in range(1, 65)]).sum(dim=0)
    torch.testing.assert_close(made.double(), harmonics * (2 / 64) ** 0.5, atol=2e-3, rtol=1e-3)


def test_the_phase_of_a_gliding_pulse_train_follows_its_pitch_without_a_jump() -> None:
    f0 = torch.tensor([[100.0, 200.0, 150.0, 4000.0, 4000.0]], dtype=torch.float64)
    following = torch.cat([f0[:, 1:], f0[:, -1:]], dim=1)
    pitch = torch.lerp(f0[..., None], following[..., None], torch.arange(320, dtype=torch.float64) / 320).flatten()
    cycles = torch.cumsum(pitch, 0) / 16_000 - pitch / 16_000  # passed before each sample
    # Around 100 Hz each of some dozens of harmonics has its phase; a slip of a hundredth of a cycle would show.
    number = torch.floor(8000 / f0)[0].repeat_interleave(320)
    harmonic = torch.arange(1, 81)[:, None]
    expected = (torch.cos(2 * torch.pi * harmonic * cycles) * (harmonic <= number)).sum(0) * torch.sqrt(2 / number)
    torch.testing.assert_close(pulse_train(f0, 320, 16_000, Position())[0].double(), expected, atol=5e-3, rtol=1e-2)


def test_pitch_of_a_gliding_tone_is_tracked_and_noise_has_none() -> None:
    f0 = torch.linspace(100, 180, 60)[None]
    tone = 0.1 * pulse_train(f0, 320, 16_000, Position())
    found, voiced = track_pitch(tone)
    assert voiced[:, 3:-3].float().mean() > 0.9
    assert ((found - f0)[:, 3:-3].abs() / f0[:, 3:-3]).max() < 0.02
    hiss = 0.1 * torch.randn(1, 19_200, generator=torch.Generator().manual_seed(0))
    assert track_pitch(hiss)[1].float().mean() < 0.2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[]", "damaged"),
        ('{"num_units": 8', "not readable as JSON"),
        ("{}", "not the configuration"),
        ({"dim": "wide"}, "not the weights"),
        ({"num_units": 1_000_000_000}, "not the weights"),
        ({"upsample": 0}, "damaged"),
        ({"layers": 3}, "not the weights"),
    ],
)
def test_a_damaged_vocoder_configuration_is_named(tmp_path: Path, content: str | dict, words: str) -> None:
    UnitVocoder(UnitVocoderConfig(num_units=8, dim=16, hidden=24, layers=1, fine_layers=1)).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(json.loads(path.read_text()) | content))
    with pytest.raises(InputError, match=words):
        UnitVocoder.from_pretrained(tmp_path)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.9])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, fraction: float) -> None:
    model = torch.nn.Linear(4, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    save_modules(tmp_path, {"model": model}, {"generator": optimizer})
    load_modules(tmp_path, {"model": model}, {"generator": optimizer})
    with pytest.raises(InputError, match="damaged or of another model"):
        load_modules(tmp_path, {"model": torch.nn.Linear(4, 5)}, {"generator": optimizer})
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(InputError, match=r"state\.safetensors: damaged or cut off .*; delete it"):
        load_modules(tmp_path, {"model": model}, {"generator": optimizer})


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 40])
def test_durations_of_a_stream_are_those_of_the_whole_and_come_two_units_later(count: int) -> None:
    torch.manual_seed(0)
    durations = small_model(generator="vocos", durations=True).durations
    assert durations is not None and durations.context_runs == 2
    for parameter in durations.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.nn.init.constant_(durations.out.bias, 1.0)
    units = np.random.default_rng(count).integers(0, 20, count)
    stream = DurationStream(durations)
    early = [stream.push(unit) for unit in units.tolist()]
    assert early[:2] == [[], []][:count] and all(early[2:])
    assert [*chain(*early), *stream.flush()[0]] == durations.expand(units).tolist()


@pytest.mark.slow
def test_a_stream_without_repetitions_begins_early_and_gives_the_samples_of_the_whole() -> None:
    torch.manual_seed(0)
    model = small_model(generator="vocos", durations=True)
    assert model.durations is not None
    torch.nn.init.constant_(model.durations.out.bias, 1.5)
    vocoder = Vocoder(model)
    units = np.random.default_rng(0).integers(0, 20, 200)
    (whole,) = vocoder.synthesize([units], deduplicated=True)
    taken = 0

    def source() -> Iterator[int]:
        nonlocal taken
        for unit in units.tolist():
            taken += 1
            yield unit

    stream = vocoder.stream(source(), chunk_frames=10, deduplicated=True)
    first = next(stream)
    assert taken < len(units) / 2
    np.testing.assert_allclose(np.concatenate([first, *stream]), whole, atol=1e-5)


def test_speech_that_pauses_goes_on_from_its_context_and_does_not_click() -> None:
    vocoder = Vocoder(small_model(generator="vocos"))
    units, half, fade = some_units(120).tolist(), 60, 80
    stream = SpeechStream(vocoder, 25, fade_samples=fade)
    before = np.concatenate([*stream.push(units[:half]), *stream.flush()])
    after = np.concatenate([*stream.push(units[half:]), *stream.flush()])
    (whole,) = vocoder.synthesize([np.array(units)])
    assert len(before) == half * 320 and len(before) + len(after) == len(whole)
    assert before[0] == before[-1] == after[0] == after[-1] == 0
    # Before the pause only what its context reaches differs, after it only what the missing end has shifted.
    context = vocoder.model.context_frames * 320
    np.testing.assert_allclose(before[fade:-context], whole[fade : half * 320 - context], atol=1e-4)
    # Without the units before the pause it would be other speech.
    (alone,) = vocoder.synthesize([np.array(units[half:])])
    reach = slice(fade, 6 * 320)
    assert (
        np.abs(after[reach] - whole[half * 320 :][reach]).mean()
        < 0.5 * np.abs(alone[reach] - whole[half * 320 :][reach]).mean()
    )


@pytest.mark.parametrize("deduplicated", [False, True])
def test_a_pause_before_units_that_are_known_changes_no_sample(deduplicated: bool) -> None:
    torch.manual_seed(0)
    model = small_model(generator="vocos", durations=deduplicated)
    if model.durations is not None:
        for parameter in model.durations.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        torch.nn.init.constant_(model.durations.out.bias, 1.0)
    vocoder = Vocoder(model)
    units = deduplicate(some_units(120))[0].tolist()
    (whole,) = vocoder.synthesize([np.array(units)], deduplicated=deduplicated)
    stream = SpeechStream(vocoder, 25, deduplicated=deduplicated)
    made = []
    for first, last in pairwise([0, 1, 30, 33, len(units)]):
        made += [*stream.push(units[first:last]), *stream.flush(units[last:])]
        assert stream.flush(units[last:]) == []
    np.testing.assert_allclose(np.concatenate(made), whole, atol=1e-4)


def test_faster_speech_leaves_out_repeated_frames_and_no_unit() -> None:
    vocoder = Vocoder(small_model(generator="vocos"))
    units = np.repeat(some_units(40), 5).tolist()
    spoken: list[int] = []

    def frames(speed: float) -> list[int]:
        stream = SpeechStream(vocoder, 10_000)
        stream.speed = speed
        stream.push(units)
        spoken[:] = stream._held
        return list(spoken)

    assert frames(1.0) == units
    for speed in (1.1, 1.5, 2.0):
        kept = frames(speed)
        assert len(units) / speed <= len(kept) <= len(units) / speed + 3
        assert list(deduplicate(kept)[0]) == list(deduplicate(units)[0])


@pytest.mark.parametrize("stops", [[7], [3, 4, 20], [1, 2, 3]])
def test_durations_of_a_stream_that_pauses_lose_no_unit(stops: list[int]) -> None:
    torch.manual_seed(0)
    predictor = DurationPredictor(50)
    units = deduplicate(some_units(30))[0].tolist()
    stream, found = DurationStream(predictor), []
    for at, unit in enumerate(units):
        found += stream.push(unit)
        if at in stops:
            found += stream.flush()[0]
            assert found[-1] == unit and stream.flush() == ([], [])
    found += stream.flush()[0]
    assert list(deduplicate(found)[0]) == units
    context = predictor.context_runs
    expected, lengths = predictor.expand(np.array(units)).tolist(), deduplicate(found)[1]
    right = deduplicate(expected)[1]
    far = [i for i in range(len(units)) if all(not stop - context < i <= stop for stop in stops)]
    assert [lengths[i] for i in far] == [right[i] for i in far]
