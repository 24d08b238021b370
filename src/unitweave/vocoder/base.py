"""What every vocoder does, whoever made it: units in, waveform out, at its own sampling rate and frame rate."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import soxr
import torch

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object
from unitweave.core.functions import untrusted

CONFIG_FILE = "config.json"


def at_16khz(waveform: np.ndarray, sample_rate: int) -> np.ndarray:
    """A vocoder's waveform [samples] at `sample_rate` Hz as recognizers and aligners take it."""
    if sample_rate == SAMPLE_RATE or not len(waveform):
        return waveform
    return np.asarray(soxr.resample(waveform, sample_rate, SAMPLE_RATE, quality="HQ"), dtype=np.float32)


class Vocoder(ABC):
    """Turns units into speech.

    Attributes:
        num_units: Size of the codebook.
        codebook: Fingerprint of the codebook whose units it takes.
        frame_rate: Units a second.
        sample_rate: Of its waveforms, in Hz.
        speakers: Names of its voices; empty for a single one.
        predicts_durations: Whether it takes units without repetitions.
    """

    def __init__(
        self,
        num_units: int,
        codebook: str,
        frame_rate: float,
        sample_rate: int,
        speakers: Sequence[str] = (),
        predicts_durations: bool = False,
    ) -> None:
        self.num_units, self.codebook = num_units, codebook
        self.frame_rate, self.sample_rate = frame_rate, sample_rate
        self.speakers, self.predicts_durations = list(speakers), predicts_durations

    @abstractmethod
    def synthesize(
        self, units: Sequence[np.ndarray], speaker: str | None = None, deduplicated: bool = False
    ) -> list[np.ndarray]:
        """Synthesize utterances.

        Args:
            units: Units, int [frames], of each utterance; an empty array gives an empty waveform.
            speaker: One of the speakers; None takes the first, or the only voice.
            deduplicated: The units have no repetitions, and the vocoder predicts how long each lasts. Durations that
                are known are given as repetitions.

        Returns:
            float32 [samples] at `sample_rate` of each utterance, in the same order.

        Raises:
            InputError: A unit is outside the codebook, there is no such speaker, or durations cannot be predicted.
        """

    def stream(
        self, units: Iterable[int], chunk_frames: int = 50, speaker: str | None = None, deduplicated: bool = False
    ) -> Iterator[np.ndarray]:
        """Synthesize units as they come, with the samples that `synthesize` gives for the whole utterance.

        A vocoder that cannot begin before the end makes the whole utterance then, and gives it in chunks.
        """
        (waveform,) = self.synthesize([np.fromiter(units, np.int64)], speaker, deduplicated)
        step = max(1, round(chunk_frames * self.sample_rate / self.frame_rate))
        yield from (waveform[first : first + step] for first in range(0, len(waveform), step))

    def open_stream(
        self, chunk_frames: int = 50, speaker: str | None = None, deduplicated: bool = False, fade_samples: int = 0
    ) -> "PhraseStream":
        """Begin speech of which units come bit by bit, for live translation.

        Args:
            chunk_frames: Frames of a chunk.
            speaker: As in `synthesize`.
            deduplicated: As in `synthesize`.
            fade_samples: Samples that fade in after a pause and out before it.
        """
        return PhraseStream(self, speaker, deduplicated, fade_samples)

    def frame_counts(self, units: np.ndarray, deduplicated: bool = False) -> np.ndarray:
        """How many frames each unit lasts, int [units]: one, unless the vocoder can tell."""
        return np.ones(len(units), np.int64)

    @abstractmethod
    def save_pretrained(self, folder: Path) -> None:
        """Write config.json, and the weights as safetensors, into `folder`."""

    @staticmethod
    def from_pretrained(
        folder: Path,
        codebook: str | None = None,
        device: str | torch.device = "cpu",
        trust_functions: bool = False,
    ) -> "Vocoder":
        """Load a vocoder of any kind from the folder that `save_pretrained` wrote.

        Args:
            folder: The folder; its config.json says which kind it is.
            codebook: Fingerprint of the units that it is to take; None skips the check.
            device: Where it computes.
            trust_functions: Whether a vocoder that is a Python function may be imported and called. False for folders
                from elsewhere, which must not choose the code that runs here.

        Raises:
            InputError: The folder holds no vocoder, one of other units, or a file is missing or damaged.
        """
        folder = Path(folder)
        record = read_json_object(folder / CONFIG_FILE)
        kind = record.get("generator")
        vocoder: Vocoder
        if kind == "fairseq":
            from unitweave.vocoder.fairseq import FairseqVocoder

            vocoder = FairseqVocoder.load(folder, device)
        elif kind == "function":
            if not trust_functions:
                raise InputError(untrusted(folder, f"vocoder.function {record.get('function')}"))
            from unitweave.vocoder.function import FunctionVocoder

            vocoder = FunctionVocoder.load(folder)
        else:
            from unitweave.vocoder.synthesis import TrainedVocoder

            vocoder = TrainedVocoder.load(folder, device)
        vocoder.check_codebook(codebook, folder)
        return vocoder

    def check_codebook(self, codebook: str | None, name: Path | str) -> None:
        """Raise InputError unless its units are those of the codebook; None skips the check."""
        if codebook is not None and codebook != self.codebook:
            same = "; if they are the same units, give both 'units import' the same --codebook"
            remedy = same if codebook.startswith("imported-") else ""
            raise InputError(
                f"{name}: trained on units of codebook {self.codebook}, not of {codebook}; train another{remedy}"
            )

    def checked(self, units: np.ndarray, name: str) -> np.ndarray:
        """The units as int64 [frames]. Raises InputError where they are no units of the codebook."""
        units = np.asarray(units)
        if units.ndim != 1 or (units.size and not np.issubdtype(units.dtype, np.integer)):
            raise InputError(f"vocoder: {name}: units must be a one-dimensional array of integers")
        wrong = units[(units < 0) | (units >= self.num_units)]
        if wrong.size:
            raise InputError(f"vocoder: {name}: unit {wrong[0]} is outside the codebook of {self.num_units} units")
        return units.astype(np.int64)

    def speaker_index(self, name: str | None) -> int | None:
        """The place of a speaker, the first one's for None; None where there is a single voice. Raises InputError."""
        if not self.speakers:
            if name is not None:
                raise InputError(f"the vocoder has a single voice, no speaker {name!r}")
            return None
        if name is not None and name not in self.speakers:
            raise InputError(f"speaker must be one of {', '.join(self.speakers)} (got {name!r})")
        return 0 if name is None else self.speakers.index(name)


class PhraseStream:
    """The speech of units that come bit by bit, from a vocoder that makes whole phrases: those between two flushes.

    Attributes:
        speed: How much faster than its units a stream should speak; streams that only know whole phrases do not.
    """

    def __init__(self, vocoder: Vocoder, speaker: str | None, deduplicated: bool, fade_samples: int) -> None:
        self.speed = 1.0
        self._make: Callable[[np.ndarray], list[np.ndarray]] = lambda units: vocoder.synthesize(
            [units], speaker, deduplicated
        )
        self._fade_samples = fade_samples
        self._units: list[int] = []

    def push(self, units: Iterable[int]) -> list[np.ndarray]:
        """Take in units; returns the chunks, float32 at the vocoder's sampling rate, that no later unit can change."""
        self._units += units
        return []

    def flush(self, following: Sequence[int] = ()) -> list[np.ndarray]:
        """The rest, as if no unit followed, or these, as far as the vocoder can make use of them."""
        if not self._units:
            return []
        (waveform,) = self._make(np.asarray(self._units, np.int64))
        self._units = []
        fade = min(self._fade_samples, len(waveform) // 2)
        if fade:
            waveform = waveform.copy()
            waveform[:fade] *= np.linspace(0, 1, fade, dtype=np.float32)
            waveform[-fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
        return [waveform]
