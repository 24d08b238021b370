"""How far confidence tells speech that a run's encoder knows from other speech: `python benchmarks/confidence.py RUN`.

Needs the corpus, encoder, codebook and units of a run from Spanish. A language model that does not understand writes a
fluent transcript all the same; here it is the best of 200 transcripts of the training data, a stricter test.
"""

import random
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from unitweave.core.audio import read_audio
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import read_manifest
from unitweave.corpus.embedded.engines import Voice, synthesize
from unitweave.units.align import utterance_score
from unitweave.units.dataset import read_units
from unitweave.units.extractor import UnitExtractor

FRENCH = ("Bonjour, comment allez-vous ?", "Je voudrais une table.", "Le train part à huit heures.", "Où est la gare ?")
GERMAN = (
    "Guten Morgen, wie geht es Ihnen?",
    "Ich möchte einen Tisch.",
    "Der Zug fährt um acht.",
    "Wo ist der Bahnhof?",
)
UTTERANCES, TRANSCRIPTS = 16, 200


def main(run: Path) -> None:
    """Print a table: lowest, median and highest confidence of each kind of recording."""
    at = RunLayout(run)
    extractor = UnitExtractor.load(at.encoder_model, at.codebook)
    pairs, rows = read_manifest(at.corpus), read_units(at.units)
    train, test = ([pair for pair in pairs if pair.split == split] for split in ("train", "test"))
    known = [rows[pair.id, "src"] for pair in train if (pair.id, "src") in rows]
    reached = float(np.percentile([utterance_score(row.words, row.scores) for row in known], 5))
    print(f"nineteen of twenty training recordings reach {reached:.3f}\n")
    others = random.Random(0).sample([str(pair.src_text) for pair in train], TRANSCRIPTS)
    chosen = test[:: max(1, len(test) // UTTERANCES)][:UTTERANCES]
    own = [read_audio(str(pair.src_audio)) for pair in chosen]
    true = [str(pair.src_text) for pair in chosen]
    wrong = [_one_wrong(text, others[i]) for i, text in enumerate(true)]
    rng = np.random.default_rng(0)
    noise = [(0.1 * rng.standard_normal(16_000 * seconds)).astype(np.float32) for seconds in (1, 2, 3)]
    show(extractor, "test recordings, their own transcripts", own, [[text] for text in true])
    show(extractor, "test recordings, one word wrong", own, [[text] for text in wrong])
    for decibels in (20, 10, 0):
        noisy = [_with_noise(one, decibels, rng) for one in own]
        show(extractor, f"test recordings in white noise, {decibels} dB", noisy, [[text] for text in true])
    for name, recordings in (
        ("English, the corpus's own voice", [read_audio(str(pair.tgt_audio)) for pair in chosen]),
        ("French, eSpeak", [synthesize(text, Voice("f", "espeak", "fr")) for text in FRENCH]),
        ("German, Pico", [synthesize(text, Voice("g", "pico", "de-DE")) for text in GERMAN]),
        ("white noise", noise),
        ("test recordings backwards", [one[::-1].copy() for one in own]),
    ):
        show(extractor, f"{name}, best of {TRANSCRIPTS}", recordings, [others] * len(recordings))


def show(extractor: UnitExtractor, name: str, recordings: Sequence[np.ndarray], texts: Sequence[Sequence[str]]) -> None:
    """A row of the table: for each recording the best confidence that one of its texts reaches."""
    best = []
    for (_, log_probs), some in zip(extractor.encode(recordings), texts, strict=True):
        frames = extractor.align([log_probs] * len(some), some)
        best.append(max(utterance_score(text.split(), f.scores) for text, f in zip(some, frames, strict=True) if f))
    print(f"| {name} | {len(best)} | {min(best):.3f} | {float(np.median(best)):.3f} | {max(best):.3f} |", flush=True)


def _one_wrong(text: str, other: str) -> str:
    words = text.split()
    words[len(words) // 2] = other.split()[-1]
    return " ".join(words)


def _with_noise(samples: np.ndarray, decibels: float, rng: np.random.Generator) -> np.ndarray:
    level = np.sqrt((samples**2).mean()) * 10 ** (-decibels / 20)
    return (samples + level * rng.standard_normal(len(samples))).astype(np.float32)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
