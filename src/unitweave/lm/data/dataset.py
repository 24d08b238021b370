"""From manifest and units to examples that can be interleaved."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from unitweave.config.interleave import InterleaveSettings, Texts
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.natural import TextPiece, clean_text, natural_pieces, normalized_pieces
from unitweave.core.scripts import join_words
from unitweave.core.text import normalize
from unitweave.corpus.readers.text_table import read_parallel_text
from unitweave.interleaving.sequence import Example, Speech, prepare_speech
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.units.dataset import UnitRow, read_units, read_units_metadata

_TEXTS_AT_ONCE = 1000  # pairs whose texts are tokenized together


def make_examples(
    pairs: Sequence[Pair],
    rows: dict[tuple[str, str], UnitRow],
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> list[Example]:
    """The examples of several pairs; see `make_example`."""
    examples = []
    for first in range(0, len(pairs), _TEXTS_AT_ONCE):
        some = pairs[first : first + _TEXTS_AT_ONCE]
        tokens.prepare(_running(pair, side, vocabulary.texts) for pair in some for side in ("src", "tgt"))
        examples += [make_example(pair, rows, vocabulary, tokens, settings, deduplicate) for pair in some]
    return examples


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
        pieces = _pieces(pair, side, row.words, vocabulary.texts)
        groups, bounds = tokens.of_pieces([piece.text for piece in pieces])
        first = np.append(0, np.cumsum([piece.words for piece in pieces], dtype=np.int64))[bounds]
        words = _merged_words(row, first)
        return prepare_speech(units, *words, groups, settings, deduplicate)

    def text(side: str) -> np.ndarray | None:
        running = _running(pair, side, vocabulary.texts)
        if not running:
            return None
        language = vocabulary.languages[getattr(pair, f"{side}_lang")]
        return np.append(np.int32(language), tokens.text(running)).astype(np.int32)

    return Example(speech("src"), speech("tgt"), text("src"), text("tgt"))


def running_text(normalized: str, raw: str | None, texts: Texts) -> str:
    """A text as the language model reads it.

    Args:
        normalized: The normalized text.
        raw: The text as the corpus has it; None where there is none, and the normalized one has to do.
        texts: Which of them is wanted.
    """
    return clean_text(raw) if texts == "natural" and raw and normalized else join_words(normalized)


def _running(pair: Pair, side: str, texts: Texts) -> str:
    return running_text(getattr(pair, f"{side}_text") or "", getattr(pair, f"{side}_text_raw"), texts)


def _pieces(pair: Pair, side: str, words: Sequence[str], texts: Texts) -> list[TextPiece]:
    """The pieces of a recording's text, which stand for its aligned words."""
    raw = getattr(pair, f"{side}_text_raw")
    if texts == "natural" and raw and words:
        pieces = natural_pieces(raw, getattr(pair, f"{side}_lang"))
        if sum(piece.words for piece in pieces) == len(words):
            return pieces
    return normalized_pieces(" ".join(words))


def _merged_words(row: UnitRow, first: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts, ends and scores of groups of aligned words; a group is as sure as its least sure word.

    Args:
        row: The aligned words.
        first: int64 [groups + 1]: the first word of each group, and the number of words.
    """
    if len(first) == len(row.words) + 1:
        return row.starts, row.ends, row.scores
    aligned = np.where(row.ends > row.starts, row.scores, 0).astype(np.float32)
    return row.starts[first[:-1]], row.ends[first[1:] - 1], np.minimum.reduceat(aligned, first[:-1])


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
            raw = row.src_text, row.tgt_text
            pairs.append(Pair(f"text-{number}", "train", row.src_lang, row.tgt_lang, None, None, source, target, *raw))
    return pairs


def codebook_identity(units: Path) -> tuple[str, int]:
    """Fingerprint and size of the codebook that the units were made with."""
    metadata = read_units_metadata(units)
    return metadata["codebook"], int(metadata["num_units"])
