"""Where somebody speaks in a recording of any length: Silero's voice activity detector, from the package silero-vad."""

import functools
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import torch

from unitweave.config.translate import SegmentationSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError

WINDOW = 512  # samples at 16 kHz: one probability every 32 ms


def _silero() -> Any:
    """The package silero_vad, which sets torch's number of threads when it is imported; that is put back."""
    threads = torch.get_num_threads()
    try:
        import silero_vad

        silero_vad.get_speech_timestamps_from_probs  # noqa: B018  # older versions lack it
    except (ImportError, AttributeError):
        raise InputError("cutting recordings needs silero-vad 6.2.3 or newer: pip install -U silero-vad") from None
    finally:
        torch.set_num_threads(threads)
    return silero_vad


class SpeechDetector:
    """Silero's detector at 16 kHz."""

    def __init__(self) -> None:
        """Raises InputError where silero-vad is missing or too old."""
        self._model = _silero().load_silero_vad()

    @torch.inference_mode()
    def probabilities(self, blocks: Iterable[np.ndarray]) -> list[float]:
        """The probability of speech in each window of 32 ms of a recording.

        Args:
            blocks: The recording, as blocks of float32 [samples] at 16 kHz. No more than one of them is kept.
        """
        self._model.reset_states()
        found: list[float] = []
        rest = np.zeros(0, np.float32)
        for block in blocks:
            rest = np.concatenate([rest, block])
            whole = len(rest) // WINDOW * WINDOW
            found += self._run(rest[:whole])
            rest = rest[whole:]
        return found + self._run(np.pad(rest, (0, -len(rest) % WINDOW)))

    @torch.inference_mode()
    def probability(self, window: np.ndarray) -> float:
        """The probability of speech in the next window of a stream, float32 [512]; the model keeps the past."""
        return float(self._model(torch.from_numpy(window), SAMPLE_RATE).item())

    def _run(self, samples: np.ndarray) -> list[float]:
        windows = torch.from_numpy(samples.reshape(-1, WINDOW))
        return [self._model(window, SAMPLE_RATE).item() for window in windows]


@functools.cache
def _shared_detector() -> tuple[SpeechDetector, threading.Lock]:
    """One detector for all short recordings of this process; it is for one thread at a time."""
    return SpeechDetector(), threading.Lock()


def find_speech(waveform: np.ndarray, name: str, threshold: float = 0.5) -> tuple[float, float]:
    """The seconds in which a short recording's speech begins and ends.

    Args:
        waveform: float32 [samples] at 16 kHz.
        name: What the error calls the recording.
        threshold: Probability of speech.

    Raises:
        InputError: Nobody speaks in it.
    """
    detector, lock = _shared_detector()
    with lock:
        spoken = np.flatnonzero(np.array(detector.probabilities([waveform])) >= threshold)
    if not len(spoken):
        raise InputError(f"{name}: no speech found in this recording")
    seconds = len(waveform) / SAMPLE_RATE
    return float(spoken[0] * WINDOW / SAMPLE_RATE), float(min((spoken[-1] + 1) * WINDOW / SAMPLE_RATE, seconds))


def find_spans(waveform: np.ndarray, settings: SegmentationSettings) -> list[tuple[int, int]]:
    """Samples [start, end) of each utterance of a recording in memory."""
    detector, lock = _shared_detector()
    with lock:
        return speech_spans(detector.probabilities([waveform]), settings)


def speech_spans(probabilities: Sequence[float], settings: SegmentationSettings) -> list[tuple[int, int]]:
    """Samples [start, end) of each utterance, in order and without overlap, by the package's own rules.

    Args:
        probabilities: The probability of speech in each window of 32 ms.
        settings: Thresholds and lengths.
    """
    timestamps = _silero().get_speech_timestamps_from_probs(
        list(probabilities),
        sampling_rate=SAMPLE_RATE,
        threshold=settings.threshold,
        min_speech_duration_ms=1000 * settings.min_speech_seconds,
        max_speech_duration_s=settings.max_speech_seconds,
        min_silence_duration_ms=1000 * settings.min_silence_seconds,
        speech_pad_ms=1000 * settings.speech_pad_seconds,
    )
    return [(int(span["start"]), int(span["end"])) for span in timestamps]


def cut_out(blocks: Iterable[np.ndarray], spans: Sequence[tuple[int, int]]) -> Iterator[np.ndarray]:
    """The samples of each span, in order, of a recording given as blocks; keeps no more than a span and a block."""
    waiting = list(spans)
    held: list[np.ndarray] = []
    first = seen = 0  # samples before the first held block; samples read so far
    for block in blocks:
        held.append(block)
        seen += len(block)
        while waiting and waiting[0][1] <= seen:
            yield _between(held, first, waiting.pop(0))
        keep_from = waiting[0][0] if waiting else seen
        while held and first + len(held[0]) <= keep_from:
            first += len(held.pop(0))
    for span in waiting:  # the last window may reach beyond the end
        yield _between(held, first, span)


def _between(held: Sequence[np.ndarray], first: int, span: tuple[int, int]) -> np.ndarray:
    samples = np.concatenate(held) if held else np.zeros(0, np.float32)
    return samples[max(0, span[0] - first) : max(0, span[1] - first)].copy()
