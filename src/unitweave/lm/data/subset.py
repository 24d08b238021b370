"""A part of the training pairs, nested: less is always part of more."""

import hashlib
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from unitweave.core.errors import InputError
from unitweave.core.languages import check_amounts
from unitweave.core.manifest import Manifest, Pair


def train_subset(pairs: Manifest, amount: float | None) -> Manifest:
    """The part of training pairs that `choose_subset` chooses; all of them where `amount` is None."""
    if amount is None:
        return pairs
    chosen = pa.array([pair.id for pair in choose_subset(pairs, amount)], pa.string())
    return pairs.where(pc.is_in(pairs.column("id"), chosen))


def choose_subset(pairs: Sequence[Pair], amount: float | Mapping[str, float], seed: int = 0) -> list[Pair]:
    """The training pairs of an amount, in the manifest's order; dev and test stay whole.

    Args:
        pairs: Pairs of all splits.
        amount: Up to 1 a fraction of each language's training pairs, above 1 a number of them; or language -> amount.
        seed: Another one chooses other pairs.

    An utterance's place in the queue is a hash of its id and the seed, so that the 8 % of a language
    are among its 30 %. Raises InputError when a language is not named or has fewer pairs.
    """
    if amount == 1:
        return list(pairs)
    queues: dict[str, list[Pair]] = {}
    for pair in pairs:
        if pair.split == "train":
            queues.setdefault(pair.src_lang, []).append(pair)
    if isinstance(amount, Mapping):
        check_amounts(amount, queues)
    chosen: set[str] = set()
    for language, queue in queues.items():
        wanted = amount[language] if isinstance(amount, Mapping) else amount
        number = max(1, round(wanted * len(queue))) if wanted <= 1 else round(wanted)
        if number > len(queue):
            raise InputError(f"{number} training pairs in {language!r} requested, but the corpus has only {len(queue)}")
        queue.sort(key=lambda pair: hashlib.sha256(f"{seed} {pair.id}".encode()).digest())
        chosen |= {pair.id for pair in queue[:number]}
    return [pair for pair in pairs if pair.split != "train" or pair.id in chosen]
