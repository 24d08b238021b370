"""Sound as Python programs hold it: integers, channels, rates, bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile

from helpers.serving import speech
from unitweave.core.errors import InputError
from unitweave.corpus.samples import as_waveform

SOUND = speech(0.5)


def test_samples_of_every_kind_are_the_same_waveform(tmp_path: Path) -> None:
    file = io.BytesIO()
    soundfile.write(file, SOUND, 16_000, format="WAV", subtype="FLOAT")
    (tmp_path / "a.wav").write_bytes(file.getvalue())
    for recording, tolerance in (
        (SOUND, 0.0),
        (SOUND.astype(np.float64), 0.0),
        (SOUND.tolist(), 0.0),
        (np.round(SOUND * 32768).astype(np.int16), 2e-5),
        (np.round(SOUND.astype(np.float64) * 2**31).astype(np.int32), 1e-6),
        (np.round(SOUND * 128 + 128).astype(np.uint8), 5e-3),
        (np.stack([SOUND, SOUND]), 1e-7),
        (np.stack([SOUND, SOUND], axis=1), 1e-7),
        ((SOUND, 16_000), 0.0),
        (file.getvalue(), 0.0),
        (tmp_path / "a.wav", 0.0),
        (str(tmp_path / "a.wav"), 0.0),
    ):
        found = as_waveform(recording)
        assert found.dtype == np.float32 and found.shape == SOUND.shape
        assert np.abs(found - SOUND).max() <= tolerance
    assert as_waveform(SOUND) is SOUND or np.shares_memory(as_waveform(SOUND), SOUND)
    assert len(as_waveform((SOUND, 8_000))) == pytest.approx(2 * len(SOUND), abs=2)
    quiet = np.full(8_000, 3, np.int16)
    assert np.abs(as_waveform(quiet)).max() == pytest.approx(3 / 32768), (
        "and no integer is full scale for being the largest"
    )


@pytest.mark.parametrize(
    ("recording", "message"),
    [
        (np.full(8_000, np.nan, np.float32), "the recording: the audio has values that are not numbers"),
        (np.full((2, 8_000), np.inf), "values that are not numbers"),
        (np.zeros((2, 3, 8_000)), "sound must be samples"),
        ({"array": 1}, "sound must be samples"),
        (b"", "no bytes"),
        (Path("nowhere.wav"), "no such audio file"),
    ],
)
def test_what_is_no_sound_is_one_line(recording: object, message: str) -> None:
    with pytest.raises(InputError, match=message) as refused:
        as_waveform(recording)
    assert "\n" not in str(refused.value)
