"""Features equal those of transformers' extractor, and depend on nothing but the waveform."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import SeamlessM4TFeatureExtractor

from helpers.units_corpus import waveform
from unitweave.units.features import extract_features, num_frames

EXTRACTOR = SeamlessM4TFeatureExtractor()


def reference(samples: np.ndarray) -> torch.Tensor:
    """What transformers makes of one waveform, without the padded frame."""
    made = EXTRACTOR(samples, sampling_rate=16_000, return_tensors="pt")
    return made.input_features[0, : int(made.attention_mask.sum())]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31), st.integers(720, 40_000))
def test_features_equal_those_of_transformers(seed: int, samples: int) -> None:
    wave = waveform(seed, samples)
    (ours,), theirs = extract_features([wave]), reference(wave)
    assert ours.shape == theirs.shape == (num_frames(samples), 160)
    # Of a few mel frames a band may hardly vary; divided by its deviation, its rounding in float32 is no longer small.
    assert torch.allclose(ours, theirs, atol=1e-4 if samples > 4_000 else 1e-3)


def test_an_offset_and_a_wide_dynamic_range_cost_no_precision() -> None:
    quiet = np.random.default_rng(0).normal(0, 1e-4, 30_000).astype(np.float32)
    time = np.arange(30_000) / 16_000
    vowel = np.float32((0.6 + 0.3 * np.sin(2 * np.pi * 3 * time)) * np.sin(2 * np.pi * 150 * time))
    for wave in (quiet + np.float32(0.3), vowel + quiet, np.concatenate([vowel, quiet])):
        assert torch.allclose(extract_features([wave])[0], reference(wave), atol=1e-4)


def test_long_recordings_are_taken_in_pieces_without_a_seam() -> None:
    wave = waveform(0, 16_000 * 25)  # 2,498 mel frames
    assert torch.allclose(extract_features([wave])[0], reference(wave), atol=1e-4)


def test_features_of_a_waveform_are_the_same_in_any_company() -> None:
    waves = [waveform(i, 3_000 + 977 * i) for i in range(12)]
    together = extract_features(waves)
    assert all(torch.equal(one, extract_features([wave])[0]) for one, wave in zip(together, waves, strict=True))


@pytest.mark.parametrize(("samples", "frames"), [(0, 0), (399, 0), (400, 0), (559, 0), (560, 1), (719, 1), (880, 2)])
def test_short_waveforms_have_the_frames_that_num_frames_says(samples: int, frames: int) -> None:
    assert num_frames(samples) == frames
    assert extract_features([np.zeros(samples, np.float32)])[0].shape == (frames, 160)


def test_silence_gives_zeros() -> None:
    assert extract_features([np.zeros(16_000, np.float32)])[0].abs().max() < 1e-3
