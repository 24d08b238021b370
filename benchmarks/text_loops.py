"""What it does to the dev split that texts in a loop are ended: text BLEU, transcript WER and unfinished texts.

    python benchmarks/text_loops.py FOLDER TRIAL [TRIAL ...]

For each trial of an experiment's folder, the dev split is decoded to text twice: with the rule (`translate/loops.py`)
and without. Utterances of speech engines and of people are also counted apart, where there are both.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from unitweave.config.translate import DecodingSettings
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.translate import loops
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.translate.dev_evaluation import dev_scores
from unitweave.units.dataset import read_units


def parts_of(pairs: Sequence[Pair]) -> dict[str, list[int]]:
    """Which of the pairs there are in all, and of speech engines and of people where there are both."""
    of_engine = [pair.id.startswith((f"{pair.src_lang}_dev_", f"{pair.src_lang}_train_")) for pair in pairs]
    parts = {"all": list(range(len(pairs)))}
    if any(of_engine) and not all(of_engine):
        parts["speech engines"] = [i for i in parts["all"] if of_engine[i]]
        parts["people"] = [i for i in parts["all"] if not of_engine[i]]
    return parts


def main() -> None:
    """Print a row for each trial, way of decoding and part of the split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("trials", nargs="+")
    options = parser.parse_args()
    at = RunLayout(options.folder)
    manifest = read_manifest(at.corpus, "dev")
    rows = read_units(at.units, manifest.column("id"), ("src",))
    pairs = [pair for pair in manifest if (pair.id, "src") in rows]
    sources = [rows[pair.id, "src"].units for pair in pairs]
    prefixes = [ForcedPrefix(target_language=pair.tgt_lang) for pair in pairs]
    parts = parts_of(pairs)
    print("| trial | loops | utterances | text BLEU | transcript WER | unfinished |")
    print("| --- | --- | ---: | ---: | ---: | ---: |")
    rule = loops.PHRASE_LOOP
    for trial in options.trials:
        decoder = PhaseDecoder.load(at.lm(trial) / "model", torch.device("cpu"))
        natural = decoder.vocabulary.texts == "natural"
        for name, length in (("go on", 1_000_000), ("are ended", rule)):
            loops.PHRASE_LOOP = length
            found = decoder.translate(sources, DecodingSettings(batch_size=64, text_only=True), prefixes)
            for part, chosen in parts.items():
                scores = dev_scores([pairs[i] for i in chosen], [found[i] for i in chosen], natural)
                cut = sum(not found[i].complete for i in chosen)
                counted = f"{len(chosen)} ({part})"
                print(
                    f"| {trial} | {name} | {counted} | {scores['bleu']:.1f} | {scores['wer']:.1f} | {cut} |", flush=True
                )


if __name__ == "__main__":
    main()
