"""What Whisper itself makes of a run's test recordings: its own translation, and its word times beside the alignment's.

    python benchmarks/whisper.py RUN --model whisper-base [--out whisper.jsonl] [--device cuda]
    python benchmarks/whisper.py RUN --model whisper-base --word-times-only [--side tgt --out target.jsonl]

Writes a line of JSON for each recording, which a later call does not make again, and prints two markdown tables, each
for the recordings of people and of speech engines apart. The first has BLEU (sacrebleu 13a, both sides normalized) of
Whisper's translation task into English, which is one of the things that it was trained for. The second compares the
starts and ends of words in the run's units with those that transformers finds in Whisper's cross-attention, over the
words that its transcript and the corpus's have in common; and again over those of them whose alignment is sure enough
to be replaced by text. That is independent of CTC and of forced alignment, but not of the encoder's weights where the
run's encoder began as Whisper's.
"""

import argparse
import difflib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor, pipeline

from unitweave.config.interleave import InterleaveSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.languages import language_name
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.sequences import evenly_spaced
from unitweave.core.text import normalize
from unitweave.interleaving.spans import word_cuts
from unitweave.metrics.bleu import bleu
from unitweave.units.dataset import UnitRow, read_units, read_units_metadata, units_per_second


@dataclass(frozen=True)
class Recording:
    """One side of a pair: float32 [samples] at 16 kHz, its language and its normalized transcript."""

    pair: Pair
    audio: np.ndarray
    language: str
    text: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a run folder with a corpus and units")
    parser.add_argument("--model", default="whisper-base")
    parser.add_argument("--out", type=Path, default="whisper.jsonl", help="what Whisper makes of each recording")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--limit", type=int, default=1_000_000, help="at most so many recordings, spread over all")
    parser.add_argument("--window", type=int, default=30, help="seconds that recordings are padded to, for a slow CPU")
    parser.add_argument("--side", choices=("src", "tgt"), default="src", help="whose words are compared")
    parser.add_argument("--word-times-only", action="store_true", help="without the translation")
    options = parser.parse_args()
    at = RunLayout(options.run)
    pairs = [pair for pair in read_manifest(at.corpus, "test") if getattr(pair, f"{options.side}_audio")]
    pairs = evenly_spaced(pairs, options.limit)
    recordings = [read_side(pair, options.side) for pair in pairs]
    known = transcribe(options, recordings)
    of_engine = [pair.id.startswith(f"{pair.src_lang}_test_") for pair in pairs]
    groups = {
        "speech engines": [i for i, made in enumerate(of_engine) if made],
        "people": [i for i, made in enumerate(of_engine) if not made],
    }
    if not options.word_times_only:
        print("| recordings | utterances | BLEU of Whisper's own translation |\n| --- | ---: | ---: |")
        for name, chosen in groups.items():
            if chosen:
                made = [known[pairs[i].id]["translation"] for i in chosen]
                print(f"| {name} | {len(chosen)} | {bleu(made, [str(pairs[i].tgt_text) for i in chosen])[0]} |\n")
    words = [[(word, start, end) for word, start, end in known[pair.id]["words"]] for pair in pairs]
    units = read_units(at.units, [pair.id for pair in pairs], (options.side,))
    rate = units_per_second(read_units_metadata(at.units))
    print("| recordings | words in both | share of all | edge | median, ms | 90 % | mean | within 50 ms | 100 ms |")
    print("| --- | ---: | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    for name, chosen in groups.items():
        total = sum(len(recordings[i].text.split()) for i in chosen)
        for least in (0.0, InterleaveSettings().min_alignment_score):
            both = [
                times
                for i in chosen
                if (row := units.get((pairs[i].id, options.side)))
                for times in in_common(row, words[i], rate, least)
            ]
            if both:
                print_differences(f"{name}, score {least:g} and more" if least else name, np.array(both), total)


def transcribe(options: argparse.Namespace, recordings: Sequence[Recording]) -> dict[str, dict[str, Any]]:
    """What Whisper makes of each recording, by id, as the lines of `options.out` have it."""
    known = {line["id"]: line for line in map(json.loads, options.out.open())} if options.out.exists() else {}
    left = [one for one in recordings if one.pair.id not in known]
    model, processor = load_whisper(options.model, options.device, options.window)
    with options.out.open("a", encoding="utf-8") as out:
        for first in range(0, len(left), options.batch):
            batch = left[first : first + options.batch]
            made = [""] * len(batch) if options.word_times_only else translate(model, processor, batch)
            for one, translation, own in zip(
                batch, made, word_times(model, processor, [one.audio for one in batch], batch[0].language), strict=True
            ):
                line = {"id": one.pair.id, "reference": one.pair.tgt_text, "translation": translation}
                known[one.pair.id] = line | {"source": one.text, "words": own}
                out.write(json.dumps(known[one.pair.id], ensure_ascii=False) + "\n")
            out.flush()
    return known


def read_side(pair: Pair, side: str) -> Recording:
    """The recording, language and transcript of one side of a pair."""
    if side == "src":
        return Recording(pair, read_audio(str(pair.src_audio)), pair.src_lang, str(pair.src_text))
    return Recording(pair, read_audio(str(pair.tgt_audio)), pair.tgt_lang, str(pair.tgt_text))


def print_differences(name: str, times: np.ndarray, total: int) -> None:
    """Four rows of the table; `times` in seconds [words, 2 (ours, theirs), 4 edges] as `in_common` gives them."""
    for column, edge in enumerate(("start", "end", "start of its units", "end of its units")):
        ms = 1000 * (times[:, 0, column] - times[:, 1, column])
        median, most = np.percentile(np.abs(ms), (50, 90))
        near = " | ".join(f"{100 * np.mean(np.abs(ms) <= limit + 1e-6):.0f} %" for limit in (50, 100))
        print(
            f"| {name} | {len(ms)} | {100 * len(ms) / total:.0f} % | {edge} | {median:.0f} | {most:.0f} | "
            f"{np.mean(ms):+.0f} | {near} |"
        )


def translate(model: Any, processor: Any, batch: Sequence[Recording]) -> list[str]:
    """Whisper's English translation of each recording, normalized; greedy."""
    audio = [one.audio for one in batch]
    features = processor(audio, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features.to(model.device)
    tokens = model.generate(features, task="translate", language=language_name(batch[0].language).lower())
    return [normalize(text, "en") for text in processor.batch_decode(tokens, skip_special_tokens=True)]


def load_whisper(name: str, device: str, window: int = 30) -> tuple[Any, Any]:
    """Whisper and its processor; with a shorter window it takes less than 30 s at a time, and less computing."""
    processor = WhisperProcessor.from_pretrained(name)
    model = WhisperForConditionalGeneration.from_pretrained(name).to(device).eval()
    if window < 30:
        encoder, frames = model.model.encoder, 50 * window
        model.config.max_source_positions = encoder.max_source_positions = frames
        encoder.embed_positions = torch.nn.Embedding.from_pretrained(encoder.embed_positions.weight[:frames])
        processor.feature_extractor.n_samples = SAMPLE_RATE * window
        processor.feature_extractor.nb_max_frames = 2 * frames
    return model, processor


def word_times(
    model: Any, processor: Any, batch: Sequence[np.ndarray], language: str
) -> list[list[tuple[str, float, float]]]:
    """Whisper's transcript of each recording: normalized words with start and end in seconds."""
    processor.tokenizer.pad_token = processor.tokenizer.pad_token or processor.tokenizer.eos_token  # for the batches
    recognize = pipeline(
        "automatic-speech-recognition", model=model, tokenizer=processor.tokenizer,
        feature_extractor=processor.feature_extractor, device=model.device,
    )  # fmt: skip
    results = recognize(
        [{"raw": audio, "sampling_rate": SAMPLE_RATE} for audio in batch],
        batch_size=len(batch), return_timestamps="word",
        generate_kwargs={"task": "transcribe", "language": language_name(language).lower(), "max_new_tokens": 128},
    )  # fmt: skip
    found = []
    for result in results:
        own = []
        for chunk in result["chunks"]:
            start, end = chunk["timestamp"]
            text = normalize(chunk["text"], language).replace(" ", "")
            if text and start is not None and end is not None:
                own.append((text, float(start), float(end)))
        found.append(own)
    return found


def in_common(
    row: UnitRow, theirs: Sequence[tuple[str, float, float]], rate: float, least: float
) -> list[tuple[list[float], list[float]]]:
    """Edges in seconds, ours and theirs, of the words in both; accents do not count.

    Ours are the word's frames and then the units that it owns in training, theirs its start and end twice.

    Args:
        row: Our alignment.
        theirs: Whisper's words.
        rate: Frames a second.
        least: Lowest score of our alignment that counts.
    """
    cuts = word_cuts(row.starts, row.ends, len(row.units))
    ours = np.stack([row.starts, row.ends, cuts[:-1], cuts[1:]], axis=1) / rate
    matcher = difflib.SequenceMatcher(
        None, [plain(word) for word in row.words], [plain(word) for word, _, _ in theirs], autojunk=False
    )
    return [
        (ours[i + k].tolist(), [*theirs[j + k][1:], *theirs[j + k][1:]])
        for i, j, size in matcher.get_matching_blocks()
        for k in range(size)
        if row.scores[i + k] >= least
    ]


def plain(word: str) -> str:
    """A word without accents on its vowels."""
    return word.translate(str.maketrans("áéíóúü", "aeiouu"))


if __name__ == "__main__":
    main()
