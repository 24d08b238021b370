"""From manifest and units to examples that can be interleaved."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from transformers import PreTrainedTokenizerBase

from unitweave.config.interleave import InterleaveSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.text import normalize
from unitweave.corpus.readers.text_table import read_parallel_text
from unitweave.interleaving.sequence import Example, Speech, prepare_speech
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.units.dataset import UnitRow, read_units, read_units_metadata


class WordTokens:
    """Text tokens of words, each encoded once, with the space before it.

    A text is the concatenation of its words' tokens, so that an interleaved span has the same tokens as the
    same words in the transcript.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._known: dict[str, np.ndarray] = {}

    def __call__(self, words: Sequence[str]) -> list[np.ndarray]:
        """Token ids, int32, of each word."""
        new = [word for word in dict.fromkeys(words) if word not in self._known]
        if new:
            encoded = self.tokenizer([" " + word for word in new], add_special_tokens=False)["input_ids"]
            self._known |= {word: np.array(ids, dtype=np.int32) for word, ids in zip(new, encoded, strict=True)}
        return [self._known[word] for word in words]

    def text(self, text: str) -> np.ndarray:
        """Token ids, int32, of a whole normalized text."""
        tokens = self(text.split())
        return np.concatenate(tokens) if tokens else np.empty(0, np.int32)


def make_examples(
    pairs: Sequence[Pair],
    rows: dict[tuple[str, str], UnitRow],
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> list[Example]:
    """The examples of several pairs; see `make_example`."""
    return [make_example(pair, rows, vocabulary, tokens, settings, deduplicate) for pair in pairs]


def make_example(
    pair: Pair,
    rows: dict[tuple[str, str], UnitRow],
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> Example:
    """Make the example of one pair. Sides without audio or text are None.

    Args:
        pair: An utterance pair.
        rows: Units and word frames of the recordings, by pair id and side.
        vocabulary: Where units and language tags are.
        tokens: Encodes the words.
        settings: Which words may be interleaved.
        deduplicate: Whether repeated units are merged.
    """

    def speech(side: str) -> Speech | None:
        row = rows.get((pair.id, side))
        if row is None:
            return None
        units = row.units.astype(np.int32) + vocabulary.unit_offset
        return prepare_speech(units, row.starts, row.ends, row.scores, tokens(row.words), settings, deduplicate)

    def text(language: str, text: str | None) -> np.ndarray | None:
        if not text:
            return None
        return np.append(np.int32(vocabulary.languages[language]), tokens.text(text)).astype(np.int32)

    return Example(speech("src"), speech("tgt"), text(pair.src_lang, pair.src_text), text(pair.tgt_lang, pair.tgt_text))


def all_languages(pairs: Iterable[Pair]) -> list[str]:
    """All language codes of the pairs, sorted."""
    return sorted({language for pair in pairs for language in (pair.src_lang, pair.tgt_lang)})


def load_pairs(corpus: Path, units: Path, split: str) -> tuple[list[Pair], dict[tuple[str, str], UnitRow]]:
    """The pairs of a split that have units for every recording they have, and all units.

    Raises:
        InputError: There is no such pair.
    """
    rows = read_units(units)
    pairs = [
        pair
        for pair in read_manifest(corpus, split)
        if (not pair.src_audio or (pair.id, "src") in rows) and (not pair.tgt_audio or (pair.id, "tgt") in rows)
    ]
    if not pairs:
        raise InputError(f"{corpus}: the {split} split has no utterance pair with units")
    return pairs, rows


def read_extra_text(path: Path) -> list[Pair]:
    """A table of parallel text as pairs without recordings, normalized as transcripts are."""
    pairs = []
    for number, row in enumerate(read_parallel_text(path), start=1):
        source, target = normalize(row.src_text, row.src_lang), normalize(row.tgt_text, row.tgt_lang)
        if source and target:
            pairs.append(Pair(f"text-{number}", "train", row.src_lang, row.tgt_lang, None, None, source, target))
    return pairs


def codebook_identity(units: Path) -> tuple[str, int]:
    """Fingerprint and size of the codebook that the units were made with."""
    metadata = read_units_metadata(units)
    return metadata["codebook"], int(metadata["num_units"])
