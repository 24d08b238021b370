"""A corpus of random units and short texts, and settings of a training of seconds, for the tests of the LM."""

import itertools
from pathlib import Path

import numpy as np

from unitweave.config.interleave import ScheduleSettings
from unitweave.config.lm import EvaluationSettings, LmSettings
from unitweave.config.training import LmTraining
from unitweave.core.manifest import Pair, write_manifest
from unitweave.units.dataset import UnitRow, write_shard

UNITS = 12
TEXTS = {
    "es": ["el perro duerme", "la casa roja", "donde está la estación", "sí"],
    "de": ["der hund schläft", "das rote haus", "wo ist der bahnhof", "ja"],
    "en": ["the dog sleeps", "the red house", "where is the station", "yes"],
}


def made_up_corpus(
    folder: Path,
    languages: tuple[str, ...] = ("es",),
    codebook: str = "cb",
    units: int = UNITS,
    unsure: int = 0,
    targets: tuple[str, ...] = ("en",),
) -> Path:
    """A corpus with `corpus` and `units` in `folder`: eight training and two dev pairs for each direction.

    Of the source's words, the first `unsure` ones of each recording have the alignment score 0; with -1 none is sure
    on either side.
    """
    rng = np.random.default_rng(0)
    pairs, rows = [], []
    for language, into in itertools.product(languages, targets):
        for i in range(10):
            name = f"{language}{i}" if into == "en" else f"{language}-{into}{i}"
            split = "train" if i < 8 else "dev"
            source, target = TEXTS[language][i % 4], TEXTS[into][i % 4]
            pairs.append(Pair(name, split, language, into, f"{name}.wav", f"{name}-{into}.wav", source, target))
            for side, text in (("src", source), ("tgt", target)):
                words = text.split()
                ends = np.cumsum(rng.integers(2, 6, size=len(words))).astype(np.int32)
                starts = np.append(0, ends[:-1]).astype(np.int32)
                spoken = rng.integers(0, units, size=int(ends[-1])).astype(np.uint16)
                scores = np.full(len(words), float(unsure >= 0), np.float32)
                scores[: max(0, unsure) if side == "src" else 0] = 0
                rows.append(UnitRow(name, side, spoken, words, starts, ends, scores))
    write_manifest(folder / "corpus", pairs)
    write_shard(folder / "units", 0, rows, {"codebook": codebook, "num_units": str(units), "frame_rate": "50"})
    return folder


def settings(**changes: object) -> LmSettings:
    training = {
        "steps": 2,
        "batch_size": 4,
        "learning_rate": 1e-3,
        "logging_steps": 1,
        "precision": "fp32",
        "report_to": [],
    }
    training |= changes.pop("training", {})  # type: ignore[arg-type]
    base = {"evaluation": EvaluationSettings(eval_steps=0), "schedule": ScheduleSettings(stair_steps=1)}
    return LmSettings(**(base | changes), training=LmTraining(**training))
