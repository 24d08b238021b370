"""Which words does a system not say as it wrote them? `python benchmarks/spoken_words.py RUN` of a finished run.

Each word of a translation, or of the reference for the two ceilings, is looked up in what the recognizer heard. The
words are grouped by how often the training pairs have them. Below the table stands how many sentences were heard
exactly as the reference, and from which systems. Reads RUN/score/utterances.jsonl.
"""

import json
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import jiwer

from unitweave.config.recipe import load_recipe
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import read_manifest
from unitweave.lm.data.subset import choose_subset

LIMITS = (0, 8, 20, 60, 200)  # occurrences from which a group of words begins


def group(occurrences: int) -> int:
    """The index in LIMITS of the group of a word."""
    return max(i for i, limit in enumerate(LIMITS) if occurrences >= limit)


def main(run: Path) -> None:
    """Print a table: one row for each system and ceiling, a column for each group of words."""
    recipe = load_recipe(RunLayout(run).recipe)
    training = choose_subset(read_manifest(RunLayout(run).corpus, "train"), recipe.lm.train_pairs or 1)
    occurrences = Counter(word for pair in training for word in str(pair.tgt_text).split())
    words: dict[str, Counter[int]] = {}
    wrong: dict[str, Counter[int]] = {}
    exact: Counter[tuple[str, ...]] = Counter()
    first: dict[tuple[str, ...], str] = {}
    with (RunLayout(run).score / "utterances.jsonl").open(encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            outputs = {name: output for name, output in row["outputs"].items() if "translation" in output}
            right = tuple(n for n, o in outputs.items() if o["asr_normalized"] == row["reference"])
            exact[right] += 1
            first.setdefault(right, row["id"])
            for system, output in row["outputs"].items():
                wanted = output.get("translation") or row["reference"]
                for chunk in jiwer.process_words(wanted, output["asr_normalized"]).alignments[0]:
                    said = [group(occurrences[w]) for w in wanted.split()[chunk.ref_start_idx : chunk.ref_end_idx]]
                    words.setdefault(system, Counter()).update(said)
                    if chunk.type != "equal":
                        wrong.setdefault(system, Counter()).update(said)
    titles = [f"{low} to {high - 1}" for low, high in pairwise(LIMITS)] + [f"{LIMITS[-1]} or more"]
    print(
        f"share of the words not heard (number of words), by their occurrences in the {len(training)} training pairs\n"
    )
    print("| | " + " | ".join(titles) + " |\n|---|" + " ---: |" * len(titles))
    for system, counts in words.items():
        missed = wrong.get(system, Counter())
        cells = [f"{100 * missed[i] / counts[i]:.0f} % ({counts[i]})" if counts[i] else "" for i in range(len(LIMITS))]
        print(f"| {system} | " + " | ".join(cells) + " |")
    print("\nsentences heard exactly as the reference (the first of them):")
    for systems, count in exact.most_common():
        print(f"- {count} ({first[systems]}) from {' and '.join(systems) or 'none'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
