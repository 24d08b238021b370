"""Settings of scoring."""

from dataclasses import dataclass, field
from typing import Literal

from unitweave.config.types import NonNegativeInt, Settings


@dataclass
class ScoreSettings(Settings):
    """How the translated speech is scored."""

    recognizer: Literal["auto", "moonshine", "fairseq", "whisper"] = "auto"
    """Speech recognizer with its text normalization: moonshine (offline, English), fairseq (wav2vec 2.0, English) or
    whisper; auto: moonshine for English, a multilingual Whisper for other target languages."""
    recognizer_model: str = ""
    """Folder or hub name of another checkpoint for the recognizer; empty: its own."""
    device: str = "auto"
    """Where a hub recognizer and UTMOS run: auto, cpu, cuda, ..."""
    bootstrap_samples: NonNegativeInt = 1000
    """Resamples for the 95 % intervals; 0 or 1: no intervals."""
    randomization_trials: NonNegativeInt = 10000
    """Trials of the approximate randomization test of each system against the first; 0: no test."""
    mos: list[Literal["dnsmos", "utmos"]] = field(default_factory=lambda: ["dnsmos"])
    """MOS predictors; one that is not installed is skipped."""
    mos_utterances: NonNegativeInt = 20
    """Utterances whose MOS is predicted, evenly spread over the test set; 0: all of them."""
    ceilings: bool = True
    """Also transcribe the reference speech and the resynthesized reference units."""
    examples: NonNegativeInt = 8
    """Utterances kept as audio for the report."""
