"""Amounts of training speech: nested parts of one corpus, so that less data is always part of more."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from unitweave.core.manifest import Pair, read_manifest, read_metadata, write_manifest
from unitweave.core.stage import StageResult
from unitweave.lm.data.subset import choose_subset


def write_subset(
    folder: Path, corpus: Path, amount: float | Mapping[str, float], train_pairs: float | None = None
) -> StageResult:
    """A manifest in `folder` with a part of the training pairs of `corpus`; the recordings stay where they are.

    What is counted is what a language model gets of it, which takes no more than `train_pairs` (`lm.train_pairs`).
    """
    pairs = choose_subset(read_manifest(corpus), amount)
    write_manifest(folder, pairs, read_metadata(corpus))
    return StageResult(counts=count_training(pairs if train_pairs is None else choose_subset(pairs, train_pairs)))


def count_training(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Training pairs and hours of source speech by language."""
    amounts: dict[str, dict[str, float]] = {}
    for pair in pairs:
        if pair.split == "train":
            counts = amounts.setdefault(pair.src_lang, {"pairs": 0, "hours": 0.0})
            counts["pairs"] += 1
            counts["hours"] += pair.src_seconds / 3600
    return {language: {"pairs": v["pairs"], "hours": round(v["hours"], 4)} for language, v in sorted(amounts.items())}
