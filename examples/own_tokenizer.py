"""A speech tokenizer and a vocoder of your own: 25 units a second, each the pitch band of 40 ms of sound.

A toy in place of a real tokenizer, small enough to read: what counts are the two functions that a recipe names.

    units:
      tokenizer: own_tokenizer:load_tokenizer
      tokenizer_options: {bands: 40}
    vocoder:
      function: own_tokenizer:load_vocoder
      options: {bands: 40}
      sample_rate: 24000

They are imported from the folder in which unitweave is started, or from an installed package.
"""

from collections.abc import Callable, Sequence

import numpy as np

from unitweave.units.tokenizer import SpeechTokens

FRAME_RATE = 25.0
SAMPLES = 640  # at 16 kHz, of a frame
RANGE = (80.0, 4000.0)  # Hz, from the first band to the last


class BandTokenizer:
    """The unit of a frame is the band of its strongest frequency; unit 0 is silence."""

    frame_rate = FRAME_RATE

    def __init__(self, bands: int) -> None:
        self.num_units = bands + 1
        self.edges = np.geomspace(*RANGE, bands)

    def tokenize(self, waveforms: Sequence[np.ndarray]) -> list[SpeechTokens]:
        """Units of each waveform, float32 [samples] at 16 kHz; the features are the frames' spectra."""
        return [self._one(waveform) for waveform in waveforms]

    def _one(self, waveform: np.ndarray) -> SpeechTokens:
        frames = waveform[: len(waveform) // SAMPLES * SAMPLES].reshape(-1, SAMPLES)
        spectra = np.abs(np.fft.rfft(frames * np.hanning(SAMPLES)))  # [frames, 321], 25 Hz apart
        strongest = spectra[:, 3:].argmax(axis=1) + 3 if len(frames) else np.zeros(0, int)
        loud = np.sqrt((frames**2).mean(axis=1)) > 1e-3
        units = np.where(loud, 1 + np.searchsorted(self.edges[1:], strongest * FRAME_RATE), 0)
        return SpeechTokens(units, spectra.astype(np.float32))


def load_tokenizer(bands: int = 40) -> BandTokenizer:
    """What `units.tokenizer` names: a real one would load its checkpoint here."""
    return BandTokenizer(bands)


def load_vocoder(bands: int = 40, sample_rate: int = 24_000) -> Callable[[np.ndarray, str | None], np.ndarray]:
    """What `vocoder.function` names: a function from units [frames] and a speaker to a waveform [samples]."""
    pitch = np.append(0.0, np.geomspace(*RANGE, bands))
    hop = round(sample_rate / FRAME_RATE)

    def synthesize(units: np.ndarray, speaker: str | None) -> np.ndarray:
        frequency = np.repeat(pitch[units], hop)
        wave = np.sin(2 * np.pi * np.cumsum(frequency) / sample_rate) * (frequency > 0)
        return (0.1 * wave).astype(np.float32)

    return synthesize
