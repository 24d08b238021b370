"""How well does a run translate and speak what its language model has not met, the test split aside?

`python benchmarks/unused_pairs.py RUN` takes the dev split and some of the training pairs that `lm.train_pairs` leaves
out (encoder, vocoder and text LM have met those). It prints text BLEU, ASR-BLEU, agreement WER (what a system wrote
against what the recognizer heard) and the WER of the transcripts of every system of the run, and where both speech
engines and people are among them, of each: for choices that must not be made on the test split.
"""

import argparse
from pathlib import Path

import jiwer
import sacrebleu

from text_loops import parts_of
from unitweave.config.recipe import load_recipe
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.natural import comparable_text
from unitweave.core.sequences import evenly_spaced
from unitweave.lm.data.subset import choose_subset
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.training.devices import resolve_device
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.dev_evaluation import dev_scores
from unitweave.units.dataset import read_units
from unitweave.vocoder.base import Vocoder, at_16khz

BATCH = 64


def unused_pairs(run: RunLayout, train_pairs: float, count: int) -> list[Pair]:
    """The dev split, and `count` training pairs that the language model was not trained on."""
    train = list(read_manifest(run.corpus, "train"))
    used = {pair.id for pair in choose_subset(train, train_pairs)}
    return [*read_manifest(run.corpus, "dev"), *evenly_spaced([pair for pair in train if pair.id not in used], count)]


def main() -> None:
    """Print a table: one row for each system, or for each of its parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--pairs", type=int, default=140, help="training pairs beside the dev split")
    parser.add_argument("--systems", nargs="+", help="these systems only")
    arguments = parser.parse_args()
    run = RunLayout(arguments.run)
    recipe = load_recipe(run.recipe)
    pairs = unused_pairs(run, recipe.lm.train_pairs or 1, arguments.pairs)
    units = read_units(run.units, [pair.id for pair in pairs])
    language = pairs[0].tgt_lang
    recognizer = load_recognizer(*choose_recognizer("auto", "", {language}))
    parts = parts_of(pairs)
    print(f"{len(pairs)} pairs\n\n| | utterances | text BLEU | ASR-BLEU | agreement WER | transcript WER |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for system in arguments.systems or sorted(path.parent.name for path in (arguments.run / "lm").glob("*/model")):
        decoder = PhaseDecoder.load(run.lm(system) / "model", resolve_device("cpu"))
        vocoder = Vocoder.from_pretrained(run.vocoder, decoder.vocabulary.codebook, resolve_device("cpu"))
        natural = decoder.vocabulary.texts == "natural"
        outputs, heard = [], []
        for first in range(0, len(pairs), BATCH):
            sources = [units[pair.id, "src"].units for pair in pairs[first : first + BATCH]]
            outputs += (translations := decoder.translate(sources, recipe.translate))
            speech = vocoder.synthesize([t.units for t in translations], None, decoder.vocabulary.deduplicate)
            heard += recognizer.transcribe([at_16khz(waveform, vocoder.sample_rate) for waveform in speech], language)
        heard = [recognizer.clean_hypothesis(text, language) for text in heard]
        wanted = [recognizer.clean_reference(pair.tgt_text or "", language) for pair in pairs]
        written = [comparable_text(output.translation, language, natural) for output in outputs]
        written = [recognizer.clean_reference(text, language) or "-" for text in written]
        for part, chosen in parts.items():
            texts = dev_scores([pairs[i] for i in chosen], [outputs[i] for i in chosen], natural)
            scores = (
                texts["bleu"],
                sacrebleu.corpus_bleu([heard[i] for i in chosen], [[wanted[i] for i in chosen]]).score,
                100 * jiwer.wer([written[i] for i in chosen], [heard[i] for i in chosen]),
                texts["wer"],
            )
            row = f"| {system} | {len(chosen)} ({part}) | " + " | ".join(f"{score:.1f}" for score in scores)
            print(row + " |", flush=True)


if __name__ == "__main__":
    main()
