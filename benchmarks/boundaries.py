"""How far the CTC word boundaries are from those that eSpeak itself tells, as a markdown table.

    python benchmarks/boundaries.py --run RUN [--limit 100] [--voice es+f3]

The encoder of RUN aligns test sentences of its corpus, spoken anew by eSpeak, whose events say when each word
begins. Nothing else in unitweave looks at such timings. A boundary is where one word ends and the next begins: the
aligned one is half way between the two words' frames. Differences are in milliseconds; a frame has 20.
"""

import argparse
import ctypes
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soxr

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.manifest import read_manifest
from unitweave.corpus.embedded import engines as speech

WORD, END_OF_LIST = 1, 0


class Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),  # milliseconds
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", ctypes.c_longlong),
    )


def speak(texts: list[str], voice: str) -> list[tuple[np.ndarray, list[float]]]:
    """Each text's waveform [samples] at 16 kHz and the seconds at which its words begin."""
    library, _, rate = speech._espeak()
    assert library.espeak_SetVoiceByName(voice.encode()) == 0, f"there is no voice {voice!r}"
    pieces: list[bytes] = []
    begins: list[float] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(Event))
    def collect(samples: int | None, number: int, events: "ctypes._Pointer[Event]") -> int:
        if samples and number > 0:
            pieces.append(ctypes.string_at(samples, number * 2))
        i = 0
        while events[i].type != END_OF_LIST:
            if events[i].type == WORD:
                begins.append(events[i].audio_position / 1000)
            i += 1
        return 0

    library.espeak_SetSynthCallback(collect)
    spoken = []
    for text in texts:
        pieces.clear()
        begins.clear()
        data = text.encode() + b"\0"
        library.espeak_Synth(data, ctypes.c_size_t(len(data)), 0, 1, 0, 1, None, None)
        waveform = np.frombuffer(b"".join(pieces), np.int16).astype(np.float32) / 32768
        waveform = soxr.resample(waveform, rate, SAMPLE_RATE, quality="HQ")
        spoken.append((waveform * (speech.PEAK / np.abs(waveform).max()), list(begins)))
    return spoken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--voice", default="es+f3")
    options = parser.parse_args()
    pairs = read_manifest(options.run / "corpus", "test")
    texts = [pair.src_text for pair in pairs if pair.src_lang == options.voice[:2] and pair.src_text][: options.limit]
    # A process of its own, so that eSpeak and torch do not share one.
    with tempfile.TemporaryDirectory() as folder:
        made = f"{folder}/spoken.npz"
        subprocess.run([sys.executable, __file__, "--child", made, options.voice, *texts], check=True)
        arrays = np.load(made)
        spoken = [(arrays[f"waveform{i}"], arrays[f"begins{i}"]) for i in range(len(texts))]

    from unitweave.units.extractor import UnitExtractor

    extractor = UnitExtractor.load(options.run / "encoder/model", options.run / "codebook")
    differences, left_out, words = [], 0, 0
    for text, (waveform, begins) in zip(texts, spoken, strict=True):
        ((_, frames),) = extractor.extract([waveform], [text])
        if frames is None or len(frames.starts) != len(begins):
            left_out += 1  # eSpeak takes some words together, as "de la"
            continue
        words += len(begins)
        between = (frames.ends[:-1] + frames.starts[1:]) / 2 / 50
        differences.append(1000 * (between - begins[1:]))
    off = np.concatenate(differences)
    print(
        f"{len(texts)} sentences in the voice {options.voice}; {left_out} left out, in which eSpeak tells other words\n"
    )
    print("| boundaries | mean | median of the absolute | 90 % of the absolute | within 50 ms |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    absolute = np.abs(off)
    print(
        f"| {len(off)} | {off.mean():+.0f} ms | {np.median(absolute):.0f} ms | {np.percentile(absolute, 90):.0f} ms "
        f"| {100 * np.mean(absolute <= 50):.0f} % |"
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        made, voice, *texts = sys.argv[2:]
        arrays = {}
        for i, (waveform, begins) in enumerate(speak(texts, voice)):
            arrays |= {f"waveform{i}": waveform, f"begins{i}": np.array(begins)}
        np.savez(made, **arrays)
    else:
        main()
