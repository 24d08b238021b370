"""What kinds of errors an encoder's CTC output makes, and what a bias against the blank would change.

    python benchmarks/ctc.py CORPUS ENCODER [--fold-accents]

Greedy transcripts of the dev and the test split, both sides. For each bias, which is subtracted from the blank's
log-probability, prints the character error rate in its parts (substituted, inserted, deleted characters) and the word
error rate; then, without a bias, the characters that are deleted most often.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jiwer
import numpy as np

from unitweave.core.manifest import read_manifest
from unitweave.units.encoder import load_encoder
from unitweave.units.error_rates import folded, transcribed_recordings
from unitweave.units.inference import EncoderInference
from unitweave.units.reading import read_features

BIASES = (0.0, 0.5, 1.0, 1.5, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("encoder", type=Path, help="a folder of an encoder")
    parser.add_argument("--fold-accents", action="store_true", help="compare without acute accents and diaereses")
    options = parser.parse_args()
    model, vocabulary, front_end = load_encoder(options.encoder)
    inference = EncoderInference(model, front_end)
    plain = folded if options.fold_accents else str
    print("| split | language | recordings | bias | CER | substituted | inserted | deleted | WER |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    deleted: dict[str, Counter[str]] = {}
    for split in ("dev", "test"):
        items = list(transcribed_recordings(read_manifest(options.corpus, split), 30.0))
        paths = [inference(read_features(front_end, [item]), [])[0][1].numpy() for item in items]
        for language in sorted({item.language for item in items}):
            own = [i for i, item in enumerate(items) if item.language == language]
            references = [plain(items[i].text) for i in own]
            for bias in BIASES:
                offset = np.zeros(len(vocabulary.tokens), np.float32)
                offset[vocabulary.blank] = bias
                texts = [plain(vocabulary.decode((paths[i] - offset).argmax(-1).tolist())) for i in own]
                print(f"| {split} | {language} | {len(own)} | {bias:g} | {rates(references, texts)} |", flush=True)
                if not bias and split == "test":
                    deleted[language] = deleted_characters(references, texts)
    for language, counts in deleted.items():
        total = sum(counts.values())
        most = ", ".join(f"{c if c != ' ' else 'space'} {100 * n / total:.0f} %" for c, n in counts.most_common(5))
        print(f"\n{language}, test: of the deleted characters {most}")


def rates(references: Sequence[str], texts: Sequence[str]) -> str:
    """Cells of the table: CER, its parts, and WER, in percent."""
    found = jiwer.process_characters(list(references), list(texts))
    total = found.hits + found.substitutions + found.deletions
    parts = (found.substitutions + found.insertions + found.deletions, found.substitutions, found.insertions)
    cells = [*parts, found.deletions]
    words = jiwer.wer(list(references), list(texts))
    return " | ".join([*(f"{100 * cell / total:.1f}" for cell in cells), f"{100 * words:.1f}"])


def deleted_characters(references: Sequence[str], texts: Sequence[str]) -> Counter[str]:
    """How often each character of the references is missing."""
    found = jiwer.process_characters(list(references), list(texts))
    counts: Counter[str] = Counter()
    for reference, chunks in zip(found.references, found.alignments, strict=True):
        for chunk in chunks:
            if chunk.type == "delete":
                counts.update(reference[chunk.ref_start_idx : chunk.ref_end_idx])
    return counts


if __name__ == "__main__":
    main()
