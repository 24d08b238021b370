"""Pictures and sounds of the report as data URIs: spectrograms with their words, and players."""

import base64
import io
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random

import numpy as np
import soundfile

from unitweave.config.interleave import InterleaveSettings
from unitweave.core.audio import SAMPLE_RATE, encode_audio
from unitweave.core.scripts import join_words
from unitweave.interleaving.sequence import interleave_speech, prepare_speech
from unitweave.interleaving.spans import uniform_cuts
from unitweave.units.dataset import UnitRow

PIXELS_PER_SECOND = 100
HEIGHT = 96  # pixels of the spectrogram, 0 to 8 kHz


@dataclass(frozen=True)
class WordBox:
    """One word over the spectrogram, in percent of its width.

    Attributes:
        word: The word.
        left: Where its frames begin.
        width: Of its frames.
        score: Its alignment score, 0 to 1.
        sure: Whether it may stand as text.
        text: Whether the interleaved sequence holds its text, or mask.
        units: Unit tokens that it owns in the sequence.
        label: Pixels that its label needs.
        row: Row of its label below the picture; labels of a row do not overlap at `PIXELS_PER_SECOND`.
    """

    word: str
    left: float
    width: float
    score: float
    sure: bool
    text: bool
    units: int
    label: int = 0
    row: int = 0


def audio_uri(waveform: np.ndarray) -> str:
    """A float32 waveform [samples] at 16 kHz as a data URI: Ogg/Opus where this soundfile can, else WAV."""
    for container, subtype, mime in (("OGG", "OPUS", "audio/ogg"), ("WAV", "PCM_16", "audio/wav")):
        try:
            content = encode_audio(np.clip(waveform, -1.0, 1.0), SAMPLE_RATE, container, subtype)
        except (soundfile.SoundFileError, ValueError):
            continue
        return f"data:{mime};base64,{base64.b64encode(content).decode()}"
    raise RuntimeError("soundfile writes neither Opus nor WAV")


def spectrogram_uri(waveform: np.ndarray) -> str:
    """Log power spectrogram of [samples], 0 to 8 kHz over the last 70 dB, as a PNG data URI."""
    from matplotlib.image import imsave

    window, hop = 512, SAMPLE_RATE // PIXELS_PER_SECOND
    padded = np.pad(waveform, window // 2)
    frames = np.lib.stride_tricks.sliding_window_view(padded, window)[::hop]
    power = np.abs(np.fft.rfft(frames * np.hanning(window), axis=1)) ** 2  # [frames, 257]
    decibels = 10 * np.log10(power[:, 1:] + 1e-10).T[::-1]  # [256, frames], high frequencies on top
    rows = decibels.reshape(HEIGHT * 2 // 3, -1, decibels.shape[1]).mean(axis=1)  # [64, frames]
    buffer = io.BytesIO()
    imsave(buffer, rows, cmap="Greys", vmin=rows.max() - 70, vmax=rows.max(), format="png")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def word_boxes(
    row: UnitRow, ratio: float, settings: InterleaveSettings, deduplicate: bool, seconds: float | None = None
) -> list[WordBox]:
    """The words of one recording with their frames, and one draw of spans as a training makes it.

    Args:
        row: Units and aligned words.
        ratio: The text ratio; 0 on a side that is not interleaved.
        settings: How the training interleaves.
        deduplicate: Whether it merges repeated units.
        seconds: Length of the recording; None for that of its units at 50 a second.
    """
    tokens = [np.zeros(1, np.int32)] * len(row.words)
    speech = prepare_speech(row.units, row.starts, row.ends, row.scores, tokens, settings, deduplicate)
    _, spans = interleave_speech(speech, ratio, settings, 0, Random(0))
    drawn = {i for first, last in spans for i in range(first, last)}
    starts, ends, frames = row.starts, row.ends, max(1, len(row.units))
    if settings.boundaries == "uniform":
        cuts = uniform_cuts(len(row.words), len(row.units))
        starts, ends = cuts[:-1], cuts[1:]
    sure = set(speech.eligible.tolist())
    boxes = [
        WordBox(
            word,
            100.0 * float(starts[i]) / frames,
            100.0 * float(ends[i] - starts[i]) / frames,
            float(row.scores[i]),
            i in sure,
            i in drawn,
            int(speech.cuts[i + 1] - speech.cuts[i]),
        )
        for i, word in enumerate(row.words)
    ]
    return _in_rows(boxes, picture_width(seconds or frames / 50, boxes))


def picture_width(seconds: float, boxes: Sequence[WordBox]) -> int:
    """Pixels that a picture needs at least: for its seconds, and for the longest label."""
    return max(round(seconds * PIXELS_PER_SECOND), *(_label_pixels(box) for box in boxes), 100)


def _label_pixels(box: WordBox) -> int:
    # Letters of 11.5 pixels are 6 to 7 pixels wide, those of Chinese and the like as wide as high.
    wide = sum(unicodedata.east_asian_width(letter) in "WF" for letter in box.word)
    return round(7.2 * (len(box.word) - wide + (not box.sure)) + 12 * wide) + 8


def _in_rows(boxes: Sequence[WordBox], width: int) -> list[WordBox]:
    """Put each label into the first row where it does not cover another; none reaches beyond the picture."""
    ends: list[float] = []
    placed = []
    for box in boxes:
        pixels = _label_pixels(box)
        left = min(box.left * width / 100, width - pixels)
        row = next((i for i, end in enumerate(ends) if end <= left), len(ends))
        ends[row : row + 1] = [left + pixels]
        placed.append(replace(box, label=pixels, row=row))
    return placed


def interleaved_pieces(boxes: Sequence[WordBox], settings: InterleaveSettings) -> list[tuple[bool, str]]:
    """The interleaved sequence in words: (True, text) for a span of text, (False, "34 units") for speech between."""
    masked = settings.replace_with == "mask"
    pieces: list[tuple[bool, str]] = []
    units = 0
    for box in boxes:
        if box.text:
            if units:
                pieces.append((False, f"{units} units"))
                units = 0
            word = "▒" if masked else box.word
            if pieces and pieces[-1][0]:
                pieces[-1] = (True, join_words(f"{pieces[-1][1]} {word}"))
            else:
                pieces.append((True, word))
        else:
            units += box.units
    return [*pieces, (False, f"{units} units")] if units else pieces
