"""Translation, scoring and extraction of a tiny run, in this process or in several."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from helpers.units_corpus import write_corpus, write_encoder
from unitweave.config.score import ScoreSettings
from unitweave.config.translate import TranslateSettings
from unitweave.config.units import ExtractionSettings
from unitweave.score.asr import transcripts
from unitweave.score.asr.recognizers import moonshine
from unitweave.score.score import score_run
from unitweave.translate.stage import translate_split
from unitweave.units.extract import extract_units

SCORING = ScoreSettings(mos=[], examples=2, bootstrap_samples=10, randomization_trials=10)


class SamplesCounted:
    """Writes the number of samples in words, in place of a recognizer."""

    signature = "counter"

    @classmethod
    def load(cls, model: str, device: str) -> "SamplesCounted":
        return cls()

    @staticmethod
    def identity(model: str) -> str:
        return "counter"

    @staticmethod
    def supported_languages(model: str) -> frozenset[str] | None:
        return None

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        return [" ".join(str(len(waveform))) for waveform in waveforms]

    def normalization(self, language: str) -> str:
        return "none"

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        return text

    def clean_reference(self, text: str, language: str = "en") -> str:
        return text


def prepare(folder: Path) -> None:
    """What extraction reads; the rest is the run's."""
    write_corpus(folder / "recordings", 8)
    write_encoder(folder)


def translate(run: Path, out: Path, **changes: object) -> dict[str, object]:
    limits = {"max_text_tokens_per_second": 1.0, "max_units_per_frame": 0.2, "batch_size": 2, "shard_size": 4}
    settings = TranslateSettings(**(limits | changes))  # type: ignore[arg-type]
    parts = (run / "corpus", run / "units", run / "lm/scheduled/model", run / "vocoder")
    return translate_split(out, settings, *parts).counts


def everything(run: Path, inputs: Path, out: Path) -> None:
    """All three stages, into `out`."""
    moonshine.Moonshine = SamplesCounted  # type: ignore[assignment, misc]
    transcripts.BATCH = 4
    translate(run, out / "translate")
    outputs = {"scheduled": out / "translate"}
    score_run(out / "score", SCORING, run / "corpus", run / "units", run / "vocoder", outputs)
    settings = ExtractionSettings(shard_size=3, batch_seconds=4.0)
    extract_units(out / "units", settings, inputs / "recordings", inputs / "encoder", inputs / "codebook")


def script(*paths: Path) -> str:
    """A program for a launcher."""
    arguments = ", ".join(f"Path({str(path)!r})" for path in paths)
    return (
        "from pathlib import Path\n"
        "from unitweave.core.distributed import process_group\n"
        "from helpers.shared_stages import everything\n"
        f"with process_group(): everything({arguments})\n"
    )
