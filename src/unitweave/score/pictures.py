"""Pictures and sounds of the report as data URIs: spectrograms with their words, and players."""

import base64
import io
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import soundfile

from unitweave.core.audio import SAMPLE_RATE
from unitweave.interleaving.spans import draw_spans, word_cuts
from unitweave.units.dataset import FRAME_RATE, UnitRow

PIXELS_PER_FRAME = 2
HEIGHT = 96  # pixels of the spectrogram, 0 to 8 kHz


@dataclass(frozen=True)
class WordBox:
    """One word over the spectrogram, in percent of its width; `text`: the interleaved sequence holds its text."""

    word: str
    left: float
    width: float
    score: float
    text: bool
    units: int


def audio_uri(waveform: np.ndarray) -> str:
    """A float32 waveform [samples] at 16 kHz as a data URI: Ogg/Opus where this soundfile can, else WAV."""
    # Through a file with a name: libsndfile writes to a buffer by callbacks into Python, and an interrupt in one of
    # them is swallowed and leaves a sound that is cut off.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "sound"
        for container, subtype, mime in (("OGG", "OPUS", "audio/ogg"), ("WAV", "PCM_16", "audio/wav")):
            try:
                soundfile.write(str(path), np.clip(waveform, -1.0, 1.0), SAMPLE_RATE, subtype, format=container)
            except (soundfile.SoundFileError, ValueError):
                continue
            return f"data:{mime};base64,{base64.b64encode(path.read_bytes()).decode()}"
    raise RuntimeError("soundfile writes neither Opus nor WAV")


def spectrogram_uri(waveform: np.ndarray) -> str:
    """Log power spectrogram of [samples], 0 to 8 kHz over the last 70 dB, as a PNG data URI."""
    from matplotlib.image import imsave

    window, hop = 512, SAMPLE_RATE // (FRAME_RATE * PIXELS_PER_FRAME)
    padded = np.pad(waveform, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2  # [frames, 257]
    decibels = 10 * np.log10(power[:, 1:] + 1e-10).T[::-1]  # [256, frames], high frequencies on top
    rows = decibels.reshape(HEIGHT * 2 // 3, -1, decibels.shape[1]).mean(axis=1)  # [64, frames]
    buffer = io.BytesIO()
    imsave(buffer, rows, cmap="Greys", vmin=rows.max() - 70, vmax=rows.max(), format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def word_boxes(row: UnitRow, ratio: float, seed: int = 0, span_length: float = 3.0) -> list[WordBox]:
    """The words of one recording with their frames, and one draw of spans at text ratio `ratio`."""
    frames = max(1, len(row.units))
    drawn = {
        i for first, last in draw_spans(len(row.words), ratio, span_length, Random(seed)) for i in range(first, last)
    }
    cuts = word_cuts(np.asarray(row.starts), np.asarray(row.ends), frames)
    return [
        WordBox(
            word,
            100.0 * row.starts[i] / frames,
            100.0 * (row.ends[i] - row.starts[i]) / frames,
            float(row.scores[i]),
            i in drawn,
            int(cuts[i + 1] - cuts[i]),
        )
        for i, word in enumerate(row.words)
    ]


def interleaved_pieces(boxes: Sequence[WordBox]) -> list[tuple[bool, str]]:
    """The interleaved sequence in words: (True, text) for a span of text, (False, "34 units") for speech between."""
    pieces: list[tuple[bool, str]] = []
    units = 0
    for box in boxes:
        if box.text:
            if units:
                pieces.append((False, f"{units} units"))
                units = 0
            if pieces and pieces[-1][0]:
                pieces[-1] = (True, f"{pieces[-1][1]} {box.word}")
            else:
                pieces.append((True, box.word))
        else:
            units += box.units
    return [*pieces, (False, f"{units} units")] if units else pieces
