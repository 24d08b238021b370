"""Text tokens of running text, and of the words in it."""

import itertools
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import PreTrainedTokenizerBase

if TYPE_CHECKING:
    import pyarrow as pa


class WordTokens:
    """Text tokens of running text, and of each of its words.

    A text is tokenized as a whole, as the language model knows text; a word has the tokens that it has there, so that
    an interleaved span has the same tokens as the same words in the transcript. A tokenizer that puts no space of its
    own before a text gets one: a text stands within a sequence.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer, self.prefix = tokenizer, space_before(tokenizer)
        self._cache: dict[str, Any] = {}
        # The words that were encoded alone: tokens one after the other, and where each word's end.
        self._words: pa.StringArray | None = None
        self._ids, self._ends = np.empty(0, np.int32), np.zeros(1, np.int64)

    def __call__(self, words: Sequence[str]) -> list[np.ndarray]:
        """Token ids, int32, of each of the words of a text, which are given without spaces.

        A token that reaches over several words belongs to the first of them.
        """
        tokens, bounds = self.of_pieces([(" " if i else "") + word for i, word in enumerate(words)])
        result = [np.empty(0, np.int32)] * len(words)
        for group, first in zip(tokens, bounds[:-1], strict=True):
            result[first] = group
        return result

    def text(self, text: str) -> np.ndarray:
        """Token ids, int32, of a running text."""
        return np.array(self._encoded(text)[0], dtype=np.int32) if text else np.empty(0, np.int32)

    def of_pieces(self, pieces: Sequence[str]) -> tuple[list[np.ndarray], list[int]]:
        """Token ids of the pieces of a text, where pieces that share a token are taken together.

        Args:
            pieces: Pieces that add up to the text.

        Returns:
            Token ids, int32, of each group of pieces, and the first piece of each group, with the number of pieces at
            the end.
        """
        if not pieces:
            return [], [0]
        ids, spans = self._encoded("".join(pieces))
        if spans is None:  # a tokenizer without positions
            return [self._alone(piece, i == 0) for i, piece in enumerate(pieces)], [*range(len(pieces) + 1)]
        ends = np.cumsum([len(piece) for piece in pieces]) + len(self.prefix)
        first_of, last_of = _places(np.array(spans, dtype=np.int64).reshape(-1, 2), ends)
        whole = np.ones(len(pieces), dtype=bool)  # whether a group begins with the piece
        for first, last in zip(first_of.tolist(), last_of.tolist(), strict=True):
            whole[first + 1 : last + 1] = False
        bounds = [*np.flatnonzero(whole).tolist(), len(pieces)]
        cuts = np.searchsorted(first_of, bounds)
        tokens = np.array(ids, dtype=np.int32)
        return [tokens[a:b] for a, b in itertools.pairwise(cuts)], bounds

    @property
    def word_by_word(self) -> bool:
        """Whether no token reaches over a space, so that a text has the tokens of its words, each with its space."""
        split = self.tokenizer.backend_tokenizer.pre_tokenizer if self.tokenizer.is_fast else None
        if split is None:
            return False
        pieces = split.pre_tokenize_str(f"{self.prefix}ab cd éf")
        return len(pieces) == 3 and self._encode(["ab cd éf"])[0][0] == [
            token for word in ("ab", "cd", "éf") for token in self._encode([word])[0][0]
        ]

    def alone(self, words: "pa.StringArray") -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Token ids of words, each with the space before it; the empty word has none. Each word is encoded once.

        Args:
            words: Words, none of them twice.

        Returns:
            Token ids, int32, of these and other words; where each of these begins in them, and where it ends: int64
            [words].
        """
        import pyarrow as pa  # and with it pandas: half a second that translation does not need
        import pyarrow.compute as pc

        if self._words is None:
            self._words = pa.array([], pa.string())
        new = words.filter(pc.invert(pc.is_in(words, self._words)))
        if len(new):
            ids_alone = [ids if word else [] for word, ids in zip(new.to_pylist(), self._ids_alone(new), strict=True)]
            sizes = np.fromiter(map(len, ids_alone), np.int64, len(ids_alone))
            flat = np.fromiter(itertools.chain.from_iterable(ids_alone), np.int32, int(sizes.sum()))
            self._words = pa.concat_arrays([self._words, new])
            self._ids = np.concatenate([self._ids, flat])
            self._ends = np.concatenate([self._ends, self._ends[-1] + np.cumsum(sizes)])
        at = pc.index_in(words, self._words).to_numpy(zero_copy_only=False)
        return self._ids, self._ends[at], self._ends[at + 1]

    def _ids_alone(self, words: "pa.StringArray") -> list[list[int]]:
        texts = [self.prefix + word for word in words.to_pylist()]
        if self.tokenizer.is_fast:  # transformers would make five more lists of each encoding
            encoded = self.tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            return [encoding.ids for encoding in encoded]
        return [ids for ids, _ in self._encode(texts)]

    def prepare(self, texts: Iterable[str]) -> None:
        """Encode these running texts together, which is faster; those of the call before are forgotten."""
        new = [text for text in dict.fromkeys(texts) if text]
        self._cache = dict(zip(new, self._encode(new), strict=True)) if new else {}

    def _encoded(self, text: str) -> tuple[list[int], list[tuple[int, int]] | None]:
        cached = self._cache.get(text)
        return cached if cached is not None else self._encode([text])[0]

    def _encode(self, texts: Sequence[str]) -> list[tuple[list[int], list[tuple[int, int]] | None]]:
        exact = self.tokenizer.is_fast
        encoded = self.tokenizer(
            [self.prefix + text for text in texts], add_special_tokens=False, return_offsets_mapping=exact
        )
        return list(zip(encoded["input_ids"], encoded["offset_mapping"] if exact else [None] * len(texts), strict=True))

    def _alone(self, piece: str, first: bool) -> np.ndarray:
        text = (self.prefix if first else "") + piece if self.prefix else piece.strip()
        return np.array(self.tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)


def space_before(tokenizer: PreTrainedTokenizerBase) -> str:
    """What stands before a running text: a space, or nothing where the tokenizer puts one there itself (Llama 2)."""
    tokens = tokenizer.convert_ids_to_tokens(tokenizer("a", add_special_tokens=False)["input_ids"])
    return "" if tokens and tokens[0].startswith(("▁", "Ġ")) else " "


def _places(spans: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last piece that each token reaches into.

    Args:
        spans: int64 [tokens, 2]: the characters that each token stands for; empty for a space of the tokenizer's own.
        ends: int64 [pieces]: where each piece ends.
    """
    last = len(ends) - 1
    first_of = np.minimum(np.searchsorted(ends, spans[:, 0], side="right"), last)
    last_of = np.minimum(np.searchsorted(ends, np.maximum(spans[:, 1] - 1, spans[:, 0]), side="right"), last)
    first_of = np.maximum.accumulate(first_of)
    return first_of, np.maximum(last_of, first_of)
