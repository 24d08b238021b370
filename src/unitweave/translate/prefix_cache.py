"""Keys and values of an utterance that outlive its decoding, for the next one that begins with some of the same tokens.

A live utterance is decoded again and again: most of its units stay as they were, its texts stay up to a place, and its
speech goes on from them. With a causal model the keys and values of equal beginnings are equal, so only what follows is
computed. Layers that forget (sliding windows) cannot be cut back; models with those compute everything.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from transformers import DynamicCache, PretrainedConfig

from unitweave.translate.cache import GrowingLayer, growing_cache


@dataclass(frozen=True)
class PrefixCache:
    """What was computed for one utterance.

    Attributes:
        tokens: Token ids whose keys and values these are, from the beginning of the prompt on.
        decoded: Token ids that followed the prompt.
        layers: Keys and values of each layer, [heads, tokens, size].
    """

    tokens: tuple[int, ...]
    decoded: tuple[int, ...]
    layers: tuple[tuple[Tensor, Tensor], ...] = field(repr=False)

    def shared(self, ids: Sequence[int]) -> int:
        """How many tokens the ids have in common from their beginning on, less one so that something is left to do."""
        pairs = zip(self.tokens, ids[:-1], strict=False)
        return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))

    def guess(self, decoded: Sequence[int], translation: int, target: int) -> tuple[int, ...]:
        """The texts that may follow, if they follow as they did before.

        Args:
            decoded: What has been decoded this time.
            translation: The marker behind which a translation begins, with its tag.
            target: The marker that ends it.

        Returns:
            Token ids: the rest of all texts where nothing has changed yet, all of the translation where it begins.
        """
        rest: tuple[int, ...] = ()
        if self.decoded[: len(decoded)] == tuple(decoded):
            rest = self.decoded[len(decoded) :]
        elif len(decoded) > 1 and decoded[-2] == translation and translation in self.decoded:
            rest = self.decoded[self.decoded.index(translation) + 2 :]
        return rest[: rest.index(target) + 1] if target in rest else rest


def keep(
    cache: DynamicCache, row: int, mask: Tensor, tokens: Sequence[int], decoded: Sequence[int]
) -> PrefixCache | None:
    """The keys and values of one row of a batch; None where the model's layers forget.

    Args:
        cache: Of the batch.
        row: Which row.
        mask: int64 [tokens in the cache]; 0 is padding.
        tokens: Ids of the prompt and of what followed; those in the cache come first.
        decoded: The latter.
    """
    if not _can_be_cut(cache):
        return None
    places = mask.nonzero().flatten()
    layers = tuple((layer.keys[row][:, places], layer.values[row][:, places]) for layer in cache.layers)
    return PrefixCache(tuple(tokens[: len(places)]), tuple(decoded), layers)


def reuse(
    config: PretrainedConfig, prompts: Sequence[Sequence[int]], kept: Sequence[PrefixCache | None]
) -> tuple[DynamicCache, list[int]]:
    """A batch's cache with what earlier decodings have computed of its prompts.

    Args:
        config: Of the model.
        prompts: Token ids of each row.
        kept: What was kept of each row's utterance.

    Returns:
        The cache, each row padded on the left, and how many tokens of each prompt it holds.
    """
    cache = growing_cache(config)
    counts = [entry.shared(prompt) if entry else 0 for entry, prompt in zip(kept, prompts, strict=True)]
    example = next((entry for entry, count in zip(kept, counts, strict=True) if entry and count), None)
    if example is None or not _can_be_cut(cache):
        return cache, [0] * len(prompts)
    width = max(counts)
    for number, layer in enumerate(cache.layers):
        both = []
        for part in (0, 1):
            like = example.layers[number][part]
            joined = like.new_zeros(len(prompts), like.shape[0], width, like.shape[2])
            for row, (entry, count) in enumerate(zip(kept, counts, strict=True)):
                if entry and count:
                    joined[row, :, width - count :] = entry.layers[number][part][:, :count]
            both.append(joined)
        layer.update(*both)
    return cache, counts


def _can_be_cut(cache: DynamicCache) -> bool:
    return all(isinstance(layer, GrowingLayer) for layer in cache.layers)


def padded(rows: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids, padded on the left: ids and mask, int64 [rows, longest]."""
    longest = max(map(len, rows))
    ids, mask = torch.zeros(2, len(rows), longest, dtype=torch.long)
    for i, row in enumerate(rows):
        ids[i, longest - len(row) :] = torch.tensor(row, dtype=torch.long)
        mask[i, longest - len(row) :] = 1
    return ids.to(device), mask.to(device)
