"""What kinds of errors an encoder's CTC output makes, and what a bias against the blank or a beam search would change.

    python benchmarks/ctc.py CORPUS ENCODER [--fold-accents] [--beam 16] [--lm-texts SOURCE ...] [--whisper MODEL]

Transcripts of the dev and the test split, both sides. For the best path with each bias, which is subtracted from the
blank's log-probability, and for a beam search with a character language model, whose weight and bias the dev split
chooses, prints the character error rate in its parts (substituted, inserted, deleted characters) and the word error
rate; then, of the best path without a bias, the characters that are deleted most often. With --whisper a Whisper model
transcribes the test recordings as well, with its own decoder, for comparison.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jiwer

from unitweave.core.audio import read_audio
from unitweave.core.manifest import read_manifest
from unitweave.core.text import normalize
from unitweave.score.asr.recognizers import load_recognizer
from unitweave.units.ctc_beam import BeamSearch
from unitweave.units.encoder import load_encoder
from unitweave.units.error_rates import SearchTrial, folded, map_outputs, transcribed_recordings

BIASES = (0.0, 0.5, 1.0, 1.5, 2.0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("encoder", type=Path, help="a folder of an encoder")
    parser.add_argument("--fold-accents", action="store_true", help="compare without acute accents and diaereses")
    parser.add_argument("--beam", type=int, default=16, help="width of the search; 0: none")
    parser.add_argument("--lm-texts", type=Path, nargs="+", default=[], help="further texts: corpora, or tables")
    parser.add_argument("--whisper", default="", help="folder or hub name of a Whisper model")
    options = parser.parse_args()
    encoder = load_encoder(options.encoder)
    plain = folded if options.fold_accents else str
    outputs = {}
    for split in ("dev", "test"):
        items = transcribed_recordings(read_manifest(options.corpus, split), 30.0)
        for item, log_probs in map_outputs(encoder, items, lambda *found: found):
            outputs.setdefault((split, item.language), []).append((plain(item.text), log_probs))
    languages = sorted({language for _, language in outputs})
    searches = {}
    if options.beam:
        trial = SearchTrial(options.corpus, languages, options.beam, options.lm_texts, plain, 30.0)
        searches = trial.searches(encoder)
    print("| split | language | recordings | decoding | CER | substituted | inserted | deleted | WER |")
    print("| --- | --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |")
    deleted: dict[str, Counter[str]] = {}
    for (split, language), own in outputs.items():
        decoders = {f"best path, blank -{bias:g}": BeamSearch(1, blank_bias=bias) for bias in BIASES}
        if search := searches.get(language):
            name = f"beam of {search.width}, LM {search.lm_weight:g}, blank -{search.blank_bias:g}"
            decoders[name] = search
        references = [reference for reference, _ in own]
        for name, decode in decoders.items():
            texts = [plain(decode(log_probs, encoder.vocabulary)) for _, log_probs in own]
            print(f"| {split} | {language} | {len(own)} | {name} | {rates(references, texts)} |", flush=True)
            if split == "test" and not decode.blank_bias and not decode.lm:
                deleted[language] = deleted_characters(references, texts)
    if options.whisper:
        recognizer = load_recognizer("whisper", options.whisper)
        items = transcribed_recordings(read_manifest(options.corpus, "test"), 30.0)
        for language in languages:
            own = [item for item in items if item.language == language]
            written = recognizer.transcribe([read_audio(item.audio) for item in own], language)
            texts = [plain(normalize(text, language)) for text in written]
            references = [plain(item.text or "") for item in own]
            print(f"| test | {language} | {len(own)} | Whisper | {rates(references, texts)} |", flush=True)
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
