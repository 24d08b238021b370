"""Amounts of training speech: nested parts of one corpus, so that less data is always part of more."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, read_metadata, write_manifest
from unitweave.core.stage import StageResult


def choose_subset(pairs: Sequence[Pair], amount: float | Mapping[str, float], seed: int = 0) -> list[Pair]:
    """The training pairs of an amount, in the manifest's order; dev and test stay whole.

    Args:
        amount: Up to 1 a fraction of each language's training pairs, above 1 a number of them; or language -> amount.

    An utterance's place in the queue is a hash of its id and the seed, so that the 8 % of a language
    are among its 30 %. Raises InputError when a language is not named or has fewer pairs.
    """
    queues: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.split == "train":
            queues.setdefault(pair.src_lang, []).append(pair)
    if isinstance(amount, Mapping):
        for language in sorted(set(amount) ^ set(queues)):
            missing = "the corpus has none of it" if language in amount else "no amount is given for it"
            raise InputError(f"training data in {language!r}: {missing}")
    chosen: set[str] = set()
    for language, queue in queues.items():
        wanted = amount[language] if isinstance(amount, Mapping) else amount
        number = max(1, round(wanted * len(queue))) if wanted <= 1 else round(wanted)
        if number > len(queue):
            raise InputError(f"{number} training pairs in {language!r} requested, but the corpus has only {len(queue)}")
        queue.sort(key=lambda pair: hashlib.sha256(f"{seed} {pair.id}".encode()).digest())
        chosen |= {pair.id for pair in queue[:number]}
    return [pair for pair in pairs if pair.split != "train" or pair.id in chosen]


def write_subset(folder: Path, corpus: Path, amount: float | Mapping[str, float]) -> StageResult:
    """A manifest in `folder` with a part of the training pairs of `corpus`; the recordings stay where they are."""
    pairs = choose_subset(read_manifest(corpus), amount)
    write_manifest(folder, pairs, read_metadata(corpus))
    return StageResult(counts=count_training(pairs))


def count_training(pairs: Sequence[Pair]) -> dict[str, dict[str, float]]:
    """Training pairs and hours of source speech by language."""
    found: dict[str, dict[str, float]] = {}
    for pair in pairs:
        if pair.split == "train":
            own = found.setdefault(pair.src_lang, {"pairs": 0, "hours": 0.0})
            own["pairs"] += 1
            own["hours"] += pair.src_seconds / 3600
    return {language: {"pairs": v["pairs"], "hours": round(v["hours"], 4)} for language, v in sorted(found.items())}
