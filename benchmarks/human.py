"""The tables of docs/human.md, from the record of that experiment in results/human.

    python benchmarks/human.py [results/human]

The translations of people's recordings are there as texts; of the speech engines' sentences, which are under the GPL,
only what corpus BLEU and WER add up. Intervals are over the utterances (1,000 resamples; SACREBLEU_SEED sets the seed).
"""

import csv
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from unitweave.metrics.bleu import bleu_of_counts, sentence_counts
from unitweave.metrics.intervals import bootstrap_seed
from unitweave.metrics.significance import difference

ACCENTS = str.maketrans("áéíóúü", "aeiouu")  # the subtitles have none
Counts = dict[str, np.ndarray]  # system -> what a score adds up, [utterances, columns]


def main() -> None:
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "results/human")
    people = [json.loads(line) for line in (folder / "people.jsonl").read_text(encoding="utf-8").splitlines()]
    systems = [key for key in people[0] if key.startswith("gemma_")]
    whole = [line for line in people if all(line[system]["complete"] for system in systems)]
    parts = {
        "speech engines": read_engines(folder / "engines.csv"),
        "people": read_people(people),
        "people, lines that all finish": read_people(whole),
    }
    if any(line["whisper"] for line in people) and not all(line["whisper"] for line in people):
        parts["people, lines that Whisper had"] = read_people([line for line in people if line["whisper"]])
    print("| recordings | system | utterances | text BLEU | WER of the transcript | words right |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    for part, (texts, words) in parts.items():
        for system, counts in texts.items():
            heard = ["", ""]
            if system in words:
                _, number, right = words[system].sum(0)
                heard = [interval(words[system], error_rate), f"{100 * right / number:.0f} %"]
            row = [part, system, str(len(counts)), interval(counts, bleu_of_counts), *heard]
            print(f"| {' | '.join(row)} |")
    print("\n| recordings | data | BLEU | WER | finding on BLEU, and on WER |\n| --- | --- | ---: | ---: | --- |")
    for part, (texts, words) in parts.items():
        for data, seed in (("all", 2), ("fifth", 1)):
            ours, theirs = (f"gemma_{data}_{system}_400_s{seed}" for system in ("scheduled", "baseline"))
            by_bleu = difference({seed: texts[ours]}, {seed: texts[theirs]})
            drawn = resampled(np.hstack([words[ours], words[theirs]]))
            by_wer = [error_rate(both[:3]) - error_rate(both[3:]) for both in drawn]
            by = error_rate(words[ours].sum(0)) - error_rate(words[theirs].sum(0))
            low, high = np.percentile(by_wer, (2.5, 97.5))
            print(
                f"| {part} | {data} | {by_bleu.mean:+.1f} [{by_bleu.low:+.1f}, {by_bleu.high:+.1f}] | "
                f"{by:+.1f} [{low:+.1f}, {high:+.1f}] | "
                f"{by_bleu.verdict(1)}, {'indicated' if low > 0 or high < 0 else 'open'} |"
            )

    print("\n| id | Spanish | subtitle | baseline | scheduled | Whisper |\n| --- | --- | --- | --- | --- | --- |")
    for line in people[::15]:
        made = [line[f"gemma_all_{system}_400_s2"]["translation"] for system in ("baseline", "scheduled")]
        print(f"| {' | '.join([line['id'], line['source'], line['reference'], *made, line['whisper'] or ''])} |")


def read_engines(path: Path) -> tuple[Counts, Counts]:
    """BLEU's counts, and word errors, words and words that are right, of each system."""
    texts: dict[str, list[list[int]]] = {}
    words: dict[str, list[list[int]]] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for system, _, *numbers in list(csv.reader(file))[1:]:
            texts.setdefault(system, []).append([int(number) for number in numbers[:10]])
            if all(numbers[10:]):
                words.setdefault(system, []).append([int(number) for number in numbers[10:]])
    return {k: np.array(v) for k, v in texts.items()}, {k: np.array(v) for k, v in words.items()}


def read_people(lines: Sequence[dict[str, Any]]) -> tuple[Counts, Counts]:
    """The same, counted."""
    references = [line["reference"] for line in lines]
    systems = [key for key in lines[0] if key.startswith("gemma_") or key == "cascade"]
    texts = {s: sentence_counts([line[s]["translation"] for line in lines], references) for s in systems}
    if all(line["whisper"] for line in lines):
        texts["whisper"] = sentence_counts([line["whisper"] for line in lines], references)
    words = {s: np.array([word_errors(line["source"], line[s]["transcript"]) for line in lines]) for s in systems}
    return texts, words


def word_errors(reference: str, hypothesis: str) -> tuple[int, int, int]:
    """Errors, words of the reference, and those that are right; accents do not count."""
    found = jiwer.process_words(reference.translate(ACCENTS), hypothesis.translate(ACCENTS))
    return found.substitutions + found.deletions + found.insertions, len(reference.split()), found.hits


def error_rate(counts: np.ndarray) -> float:
    """Errors in percent of the words."""
    return float(100 * counts[0] / counts[1])


def resampled(counts: np.ndarray) -> np.ndarray:
    """Sums over 1,000 resamples of the utterances, [1000, columns]."""
    rng = np.random.default_rng(bootstrap_seed())
    return counts[rng.integers(0, len(counts), (1000, len(counts)))].sum(axis=1)


def interval(counts: np.ndarray, score: Callable[[np.ndarray], float]) -> str:
    """A score and its 95 % interval, as the tables have it."""
    low, high = np.percentile([score(one) for one in resampled(counts)], (2.5, 97.5))
    return f"{score(counts.sum(0)):.1f} [{low:.1f}, {high:.1f}]"


if __name__ == "__main__":
    main()
