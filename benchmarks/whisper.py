"""What Whisper itself makes of a run's test recordings: its own translation, and its word times beside the alignment's.

    python benchmarks/whisper.py RUN --model whisper-base [--out whisper.jsonl] [--device cuda]

Prints two markdown tables, each for the recordings of people and of speech engines apart. The first has BLEU (sacrebleu
13a, both sides normalized) of Whisper's translation task into English, which is one of the things that it was trained
for. The second compares the starts and ends of words in the run's units with those that transformers finds in Whisper's
cross-attention, over the words that its transcript and the corpus's have in common. That is independent of CTC and of
forced alignment, but not of the encoder's weights where the run's encoder began as Whisper's.
"""

import argparse
import difflib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.languages import language_name
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.text import normalize
from unitweave.metrics.bleu import bleu
from unitweave.units.dataset import UnitRow, read_units, read_units_metadata, units_per_second


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with a corpus and units")
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--out", type=Path, help="file of JSON lines: what Whisper wrote for each recording")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=16)
    options = parser.parse_args()
    at = RunLayout(options.run)
    pairs = list(read_manifest(at.corpus, "test"))
    audio = [read_audio(str(pair.src_audio), expected_seconds=pair.src_seconds) for pair in pairs]
    processor = WhisperProcessor.from_pretrained(options.model)
    model = WhisperForConditionalGeneration.from_pretrained(options.model).to(options.device).eval()
    translations = translate(model, processor, pairs, audio, options.batch)
    of_engine = [pair.id.startswith(f"{pair.src_lang}_test_") for pair in pairs]
    groups = {
        "speech engines": [i for i, made in enumerate(of_engine) if made],
        "people": [i for i, made in enumerate(of_engine) if not made],
    }
    print("| recordings | utterances | BLEU of Whisper's own translation |\n| --- | ---: | ---: |")
    for name, chosen in groups.items():
        if chosen:
            found, _ = bleu([translations[i] for i in chosen], [str(pairs[i].tgt_text) for i in chosen])
            print(f"| {name} | {len(chosen)} | {found} |", flush=True)
    words = word_times(model, processor, pairs, audio, options.batch)
    if options.out:
        lines = [
            {
                "id": pair.id,
                "reference": pair.tgt_text,
                "translation": translation,
                "source": pair.src_text,
                "words": own,
            }
            for pair, translation, own in zip(pairs, translations, words, strict=True)
        ]
        options.out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    units = read_units(at.units, [pair.id for pair in pairs], ("src",))
    rate = units_per_second(read_units_metadata(at.units))
    print(
        "\n| recordings | words in both | share of all | edge | median difference, ms | mean | within 50 ms | 100 ms |"
    )
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: |")
    for name, chosen in groups.items():
        total = sum(len(str(pairs[i].src_text).split()) for i in chosen)
        found_words = [both for i in chosen if (key := (pairs[i].id, "src")) in units
                       for both in in_common(units[key], words[i], rate)]  # fmt: skip
        for edge, column in (("start", 0), ("end", 1)):
            if found_words:
                ms = 1000 * np.array([ours[column] - theirs[column] for ours, theirs in found_words])
                near = [f"{100 * np.mean(np.abs(ms) <= limit):.0f} %" for limit in (50, 100)]
                print(
                    f"| {name} | {len(ms)} | {100 * len(ms) / total:.0f} % | {edge} | {np.median(np.abs(ms)):.0f} | "
                    f"{np.mean(ms):+.0f} | {' | '.join(near)} |"
                )


def translate(model: Any, processor: Any, pairs: Sequence[Pair], audio: Sequence[np.ndarray], batch: int) -> list[str]:
    """Whisper's English translation of each recording, normalized; greedy."""
    found = []
    for first in range(0, len(audio), batch):
        some = list(audio[first : first + batch])
        features = processor(some, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features.to(model.device)
        tokens = model.generate(features, task="translate", language=language_name(pairs[first].src_lang).lower())
        found += processor.batch_decode(tokens, skip_special_tokens=True)
    return [normalize(text, "en") for text in found]


def word_times(
    model: Any, processor: Any, pairs: Sequence[Pair], audio: Sequence[np.ndarray], batch: int
) -> list[list[tuple[str, float, float]]]:
    """Whisper's transcript of each recording: normalized words with start and end in seconds."""
    processor.tokenizer.pad_token = processor.tokenizer.pad_token or processor.tokenizer.eos_token  # for the batches
    recognize = pipeline(
        "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor, device=model.device,
    )  # fmt: skip
    language = language_name(pairs[0].src_lang).lower()
    results = recognize(
        [{"raw": one, "sampling_rate": SAMPLE_RATE} for one in audio],
        batch_size=batch, return_timestamps="word", generate_kwargs={"task": "transcribe", "language": language},
    )  # fmt: skip
    found = []
    for pair, result in zip(pairs, results, strict=True):
        own = []
        for chunk in result["chunks"]:
            start, end = chunk["timestamp"]
            text = normalize(chunk["text"], pair.src_lang).replace(" ", "")
            if text and start is not None and end is not None:
                own.append((text, float(start), float(end)))
        found.append(own)
    return found


def in_common(
    row: UnitRow, theirs: Sequence[tuple[str, float, float]], rate: float
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """(start, end) in seconds of the words in both, ours and theirs; accents do not count."""
    ours = [plain(word) for word in row.words]
    matcher = difflib.SequenceMatcher(None, ours, [plain(word) for word, _, _ in theirs], autojunk=False)
    return [
        ((row.starts[i + k] / rate, row.ends[i + k] / rate), theirs[j + k][1:])
        for i, j, size in matcher.get_matching_blocks()
        for k in range(size)
    ]


def plain(word: str) -> str:
    """A word without accents on its vowels."""
    return word.translate(str.maketrans("áéíóúü", "aeiouu"))


if __name__ == "__main__":
    main()
