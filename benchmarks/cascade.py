"""A cascade on a corpus of any make: `python benchmarks/cascade.py CORPUS RECIPE NAME --out FOLDER [--limit 75]`

RECIPE is a YAML file with `score: {cascades: {NAME: ...}}` as in docs/scoring.md. The cascade translates the test split
into FOLDER (outputs.jsonl and audio/; a second call resumes), and the script prints text BLEU, ASR-BLEU and transcript
WER on normalized text, accents aside in the last: the row beside models that were trained.
"""

import argparse
import unicodedata
from pathlib import Path

import jiwer
import numpy as np

from unitweave.config.recipe import load_recipe
from unitweave.core.audio import read_audio
from unitweave.core.manifest import read_manifest
from unitweave.core.records import json_lines
from unitweave.core.sequences import evenly_spaced
from unitweave.core.text import normalize
from unitweave.metrics.bleu import bleu
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.score.cascade import check_cascade, translate_by_cascade


def plain(text: str) -> str:
    """A text without the accents of its letters."""
    return "".join(c for c in unicodedata.normalize("NFD", text) if not unicodedata.combining(c))


def main() -> None:
    """Translate and print one row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("name")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--source", help="only recordings in this language")
    parser.add_argument("--limit", type=int, default=1_000_000)
    options = parser.parse_args()
    recipe = load_recipe(options.recipe)
    settings = recipe.score.cascades[options.name]
    pairs = [p for p in read_manifest(options.corpus, "test") if p.src_audio and p.tgt_text]
    pairs = evenly_spaced([p for p in pairs if options.source in (None, p.src_lang)], options.limit)
    check_cascade(options.name, settings, {(pair.src_lang, pair.tgt_lang) for pair in pairs})
    options.out.mkdir(parents=True, exist_ok=True)
    translate_by_cascade(options.out, settings, recipe.translate, pairs)
    lines = {line["id"]: line for line in json_lines(options.out / "outputs.jsonl")}
    made = [lines[pair.id] for pair in pairs]
    recognizer = load_recognizer(*choose_recognizer("auto", "", {pair.tgt_lang for pair in pairs}))
    silence = np.zeros(1600, np.float32)
    heard: list[str] = []
    for pair, line in zip(pairs, made, strict=True):
        audio = read_audio(options.out / line["audio"]) if line["audio"] else silence
        heard += recognizer.transcribe([audio], pair.tgt_lang)
    written = [normalize(line["translation"], pair.tgt_lang) for pair, line in zip(pairs, made, strict=True)]
    said = [recognizer.clean_hypothesis(text, pair.tgt_lang) for pair, text in zip(pairs, heard, strict=True)]
    cleaned = [recognizer.clean_reference(str(pair.tgt_text), pair.tgt_lang) for pair in pairs]
    spoken = [plain(str(pair.src_text)) for pair in pairs]
    transcripts = [plain(normalize(r["transcript"], p.src_lang)) or "-" for p, r in zip(pairs, made, strict=True)]
    print("| cascade | utterances | text BLEU | ASR-BLEU | transcript WER |\n|---| ---: | ---: | ---: | ---: |")
    print(
        f"| {options.name} | {len(pairs)} | {bleu(written, [str(pair.tgt_text) for pair in pairs])[0].score:.1f} | "
        f"{bleu(said, cleaned)[0].score:.1f} | {100 * jiwer.wer(spoken, transcripts):.1f} |"
    )


if __name__ == "__main__":
    main()
