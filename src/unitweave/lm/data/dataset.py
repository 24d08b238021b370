"""From manifest and units to examples that can be interleaved."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.config.interleave import InterleaveSettings, Texts
from unitweave.core.errors import InputError
from unitweave.core.manifest import Manifest, Pair, read_manifest
from unitweave.core.natural import TextPiece, clean_text, natural_pieces, normalized_pieces
from unitweave.core.scripts import join_words
from unitweave.core.text import normalize
from unitweave.corpus.readers.text_table import read_parallel_text
from unitweave.interleaving.sequence import Example, Speech, prepare_speech
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.units.dataset import SIDES, UnitRow, read_units_metadata, unit_batches

TEXTS_AT_ONCE = 1000  # pairs whose texts are tokenized together


def make_examples(
    pairs: Sequence[Pair],
    rows: Mapping[tuple[str, str], UnitRow],
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> list[Example]:
    """The examples of several pairs; see `make_example`."""
    examples = []
    for first in range(0, len(pairs), TEXTS_AT_ONCE):
        batch = pairs[first : first + TEXTS_AT_ONCE]
        prepare_texts(batch, vocabulary, tokens)
        examples += [make_example(pair, rows, vocabulary, tokens, settings, deduplicate) for pair in batch]
    return examples


def make_example(
    pair: Pair,
    rows: Mapping[tuple[str, str], UnitRow],
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
        return None if row is None else pair_speech(pair, row, vocabulary, tokens, settings, deduplicate)

    texts = [pair_text(pair, side, vocabulary, tokens) for side in SIDES]
    return Example(speech("src"), speech("tgt"), *texts)


def pair_speech(
    pair: Pair,
    row: UnitRow,
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> Speech:
    """One recording of a pair as token ids; arguments as for `make_example`."""
    units = row.units.astype(np.int32) + vocabulary.unit_offset
    pieces = _pieces(pair, row.side, row.words, vocabulary.texts)
    groups, bounds = tokens.of_pieces([piece.text for piece in pieces])
    first = np.append(0, np.cumsum([piece.words for piece in pieces], dtype=np.int64))[bounds]
    words = _merged_words(row, first)
    return prepare_speech(units, *words, groups, settings, deduplicate)


def pair_text(pair: Pair, side: str, vocabulary: Vocabulary, tokens: WordTokens) -> np.ndarray | None:
    """Language tag and tokens, int32, of a pair's text on one side; None where there is none."""
    running = _running(pair, side, vocabulary.texts)
    if not running:
        return None
    language = vocabulary.languages[getattr(pair, f"{side}_lang")]
    return np.append(np.int32(language), tokens.text(running)).astype(np.int32)


def prepare_texts(pairs: Iterable[Pair], vocabulary: Vocabulary, tokens: WordTokens) -> None:
    """Encode the texts of pairs together, before they are asked for one by one."""
    tokens.prepare(_running(pair, side, vocabulary.texts) for pair in pairs for side in SIDES)


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


def all_languages(pairs: Sequence[Pair]) -> list[str]:
    """All language codes of the pairs, sorted."""
    return sorted({language for key in language_groups(pairs) for language in key})


def language_groups(pairs: Sequence[Pair]) -> dict[tuple[str, str], np.ndarray]:
    """Indices int64 of the pairs of each source and target language, in the order of the languages."""
    if isinstance(pairs, Manifest):
        names = pc.binary_join_element_wise(pairs.column("src_lang"), pairs.column("tgt_lang"), " ")
    else:
        names = pa.chunked_array([pa.array([f"{pair.src_lang} {pair.tgt_lang}" for pair in pairs], pa.string())])
    encoded = names.combine_chunks().dictionary_encode()
    keys, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return {(keys[i].split(" ")[0], keys[i].split(" ")[1]): np.flatnonzero(codes == i) for i in order}


def load_pairs(corpus: Path, units: Path, split: str) -> Manifest:
    """The pairs of a split that have units for every recording they have.

    Raises:
        InputError: There is no such pair.
    """
    pairs = read_manifest(corpus, split)
    ids: dict[str, list[pa.Array]] = {side: [] for side in SIDES}
    for batch in unit_batches(units, ["id", "side"]):
        for side in SIDES:
            ids[side].append(batch.filter(pc.equal(batch.column("side"), side)).column("id"))
    for side in SIDES:
        there = pc.is_in(pairs.column("id"), pa.chunked_array(ids[side], pa.string()).combine_chunks())
        pairs = pairs.where(pc.or_(pc.is_null(pairs.column(f"{side}_audio")), there))
    if not len(pairs):
        raise InputError(f"{corpus}: the {split} split has no utterance pair with units")
    return pairs


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
