"""The training examples of a corpus as Arrow columns, in files that all processes and loader workers map.

Everything is computed for some ten thousand recordings at once; an example becomes an object when a step draws it. Half
a million pairs take seconds to prepare, and next to no memory of a process' own.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.config.interleave import InterleaveSettings
from unitweave.core.distributed import on_main
from unitweave.core.files import atomic_path
from unitweave.core.manifest import Manifest
from unitweave.core.scripts import join_words
from unitweave.core.sequences import run_starts
from unitweave.interleaving.sequence import Example, Speech
from unitweave.lm.data.dataset import TEXTS_AT_ONCE, pair_speech, pair_text, prepare_texts
from unitweave.lm.data.sizes import Sizes
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.units.dataset import SIDES, list_column, rows_from_table, unit_batches

FOLDER = "examples"  # in a stage's folder, while it is being done
_PAIRS_AT_ONCE = 50_000
_SPEECH, _TEXTS, _ROWS = "speech.arrow", "texts.arrow", "recordings.npy"
_Columns = dict[str, tuple[np.ndarray, np.ndarray]]  # name -> flat values, offsets [rows + 1]
_Mapped = list[list[tuple[np.ndarray, memoryview]]]  # the same of each record batch


class ExampleTable(Sequence[Example]):
    """The examples of the pairs of a manifest, in its order, out of mapped files."""

    def __init__(self, folder: Path, unit_offset: int) -> None:
        """See the class.

        Args:
            folder: What `prepare_examples` wrote.
            unit_offset: Token id of unit 0.
        """
        self._folder, self._unit_offset = folder, unit_offset
        self._speech_firsts, self._speech = _mapped(folder / _SPEECH)
        self._texts_firsts, self._texts = _mapped(folder / _TEXTS)
        # As memoryviews of a plain array: one that knows of its file takes many times as long.
        self._sources, self._targets = (row.data for row in np.load(folder / _ROWS, mmap_mode="r").view(np.ndarray))
        self._pairs: np.ndarray | None = None  # which of the pairs, where not all

    def __len__(self) -> int:
        return len(self._sources) if self._pairs is None else len(self._pairs)

    def __getitem__(self, index: int) -> Example:  # type: ignore[override]
        if not 0 <= index < len(self):
            raise IndexError(index)
        pair = index if self._pairs is None else int(self._pairs[index])
        number = bisect_right(self._texts_firsts, pair) - 1
        row = pair - self._texts_firsts[number]
        # A text has its language tag at least: without a token there is none.
        (first, at), (second, to) = self._texts[number]
        transcript, translation = first[at[row] : at[row + 1]], second[to[row] : to[row + 1]]
        return Example(
            self._of_recording(self._sources[pair]),
            self._of_recording(self._targets[pair]),
            transcript if len(transcript) else None,
            translation if len(translation) else None,
        )

    def __getstate__(self) -> dict[str, Any]:
        """For a worker that is no fork of this process: it maps the files itself."""
        return {"folder": self._folder, "unit_offset": self._unit_offset, "pairs": self._pairs}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"], state["unit_offset"])  # type: ignore[misc]
        self._pairs = state["pairs"]

    def take(self, kept: np.ndarray) -> "ExampleTable":
        """The examples of some of the pairs."""
        part = object.__new__(ExampleTable)
        part.__dict__ |= self.__dict__ | {"_pairs": kept if self._pairs is None else self._pairs[kept]}
        return part

    def _of_recording(self, recording: int) -> Speech | None:
        if recording < 0:
            return None
        number = bisect_right(self._speech_firsts, recording) - 1
        row = recording - self._speech_firsts[number]
        end = row + 1
        (units, a), (cuts, b), (text, c), (text_cuts, d), (eligible, e) = self._speech[number]
        return Speech(
            np.add(units[a[row] : a[end]], self._unit_offset, dtype=np.int32),
            cuts[b[row] : b[end]],
            text[c[row] : c[end]],
            text_cuts[d[row] : d[end]],
            eligible[e[row] : e[end]],
        )


def load_examples(
    folder: Path,
    pairs: Manifest,
    units: Path,
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> tuple[ExampleTable, Sizes]:
    """The examples of pairs: the main process writes them into `folder`, and all processes map them.

    Args:
        folder: What is left there from before is written anew.
        pairs: Utterance pairs.
        units: Folder of the units.
        vocabulary: Where units and language tags are.
        tokens: Encodes the words.
        settings: Which words may be interleaved.
        deduplicate: Whether repeated units are merged.
    """

    def write() -> Sizes:
        with atomic_path(folder, durable=False) as temporary:
            temporary.mkdir()
            return prepare_examples(pairs, units, tokens, vocabulary, settings, deduplicate, temporary)

    sizes = on_main(write)
    return ExampleTable(folder, vocabulary.unit_offset), sizes


def prepare_examples(
    pairs: Manifest,
    units: Path,
    tokens: WordTokens | None,
    vocabulary: Vocabulary | None,
    settings: InterleaveSettings,
    deduplicate: bool = False,
    folder: Path | None = None,
) -> Sizes:
    """Compute the examples of pairs, and write them where a folder is given.

    Args:
        pairs: Utterance pairs.
        units: Folder of the units.
        tokens: Encodes the texts; without it each word counts as one token, and texts are left out.
        vocabulary: Where units and language tags are; None without `tokens`.
        settings: Which words may be interleaved.
        deduplicate: Whether repeated units are merged.
        folder: Where to write.
    """
    ids = pairs.column("id").combine_chunks()
    by_word = vocabulary is not None and vocabulary.texts == "normalized" and tokens is not None and tokens.word_by_word
    # Which recordings belong to the pairs is looked up once: each look-up hashes all ids.
    keys = pa.Table.from_batches(unit_batches(units, ["id", "side"]))
    wanted = pc.is_in(keys["id"], ids).combine_chunks()
    recordings = _speech_rows(ids, keys.filter(wanted))
    counts: list[np.ndarray] = [np.zeros((3, 0), np.int32)]

    def speech() -> Iterator[_Columns]:
        done = 0
        for whole in unit_batches(units):
            batch = whole.filter(wanted.slice(done, len(whole)))
            done += len(whole)
            if vocabulary is None or tokens is None or (by_word and _apart(batch.column("words").flatten())):
                columns = _speech_columns(batch, tokens, settings, deduplicate)
            else:
                places = pc.index_in(batch.column("id"), ids).to_numpy()
                columns = _speech_by_speech(batch, pairs.take(places), vocabulary, tokens, settings, deduplicate)
            sizes = [np.diff(columns[name][1]) for name in ("units", "cuts", "eligible")]
            counts.append(np.stack(sizes).astype(np.int32))
            yield columns

    def texts() -> Iterator[_Columns]:
        for first in range(0, len(pairs), _PAIRS_AT_ONCE):
            part = pairs[first : first + _PAIRS_AT_ONCE]
            if vocabulary is None or tokens is None:
                columns = dict.fromkeys(SIDES, (np.empty(0, np.int32), np.zeros(len(part) + 1, np.int32)))
            elif by_word and all(_apart(_split(part, side).flatten()) for side in SIDES):
                columns = {side: _text_column(part, side, tokens, vocabulary.languages) for side in SIDES}
            else:
                columns = _text_by_text(part, tokens, vocabulary)
            # A text has its language tag at least.
            lengths.append(np.stack([np.diff(columns[side][1]) for side in SIDES]))
            yield columns

    lengths: list[np.ndarray] = [np.zeros((2, 0), np.int32)]
    _write(folder and folder / _SPEECH, speech())
    _write(folder and folder / _TEXTS, texts())
    # The last column is for recordings that are not there.
    of_speech = np.concatenate([*counts, [[-1], [1], [0]]], axis=1)[:, recordings]
    of_texts = np.concatenate(lengths, axis=1)
    of_texts[of_texts == 0] = -1
    table = np.stack([of_speech[0, 0], of_texts[0], of_texts[1], of_speech[0, 1]]).astype(np.int32)
    if folder is not None:
        np.save(folder / _ROWS, recordings)
    return Sizes(table, of_speech[1] - 1, of_speech[2])


def _speech_rows(ids: pa.Array, keys: pa.Table) -> np.ndarray:
    """The row of each pair's source and target speech among `keys` (id, side): int32 [2, pairs], -1 for none."""
    rows = []
    for side in SIDES:
        places = np.flatnonzero(pc.equal(keys["side"], side))
        at = pc.fill_null(pc.index_in(ids, keys["id"].take(pa.array(places))), -1).to_numpy(zero_copy_only=False)
        rows.append(np.append(places, -1)[at])
    return np.stack(rows).astype(np.int32)


def _write(path: Path | None, parts: Iterator[_Columns]) -> None:
    """Write columns as record batches of an Arrow file; only go through them without a path."""
    writer = None
    for columns in parts:
        if path is not None:
            lists = {name: pa.ListArray.from_arrays(offsets, values) for name, (values, offsets) in columns.items()}
            batch = pa.RecordBatch.from_pydict(lists)
            writer = writer or pa.ipc.new_file(str(path), batch.schema)
            writer.write_batch(batch)
    if writer is not None:
        writer.close()


def _mapped(path: Path) -> tuple[list[int], _Mapped]:
    """The record batches of an Arrow file: the first row of each, and the flat values and offsets of its columns.

    A memoryview gives offsets as Python's integers: several times as fast as numpy's scalars, which a step needs by the
    thousand.
    """
    if not path.exists():  # there were no rows
        return [0], []
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
    firsts = np.cumsum([0, *map(len, batches)]).tolist()
    columns = [[list_column(column) for column in batch.columns] for batch in batches]
    return firsts[:-1] or [0], [[(values, offsets.data) for values, offsets in column] for column in columns]


def _speech_columns(
    batch: pa.RecordBatch, tokens: WordTokens | None, settings: InterleaveSettings, deduplicate: bool
) -> _Columns:
    """`prepare_speech` for many recordings at once; units are not yet token ids."""
    units, at = list_column(batch.column("units"))
    starts, ends, scores = (list_column(batch.column(name))[0] for name in ("starts", "ends", "scores"))
    words, first = batch.column("words").flatten(), list_column(batch.column("words"))[1].astype(np.int64)
    number, frames = np.diff(first), np.diff(at).astype(np.int64)
    row = np.repeat(np.arange(len(batch)), number)  # of each word
    row_of_cut = np.repeat(np.arange(len(batch)), number + 1)  # a recording has a cut more than words
    cut_at = first + np.arange(len(batch) + 1)
    left = np.arange(len(words)) + row  # the cut before each word
    if settings.boundaries == "uniform":
        cuts = (np.arange(cut_at[-1]) - cut_at[row_of_cut]) * frames[row_of_cut] // np.maximum(number, 1)[row_of_cut]
        sure = np.ones(len(words), bool)
    else:
        cuts = np.zeros(cut_at[-1], np.int64)
        inner = np.flatnonzero(row[1:] == row[:-1]) + 1  # words that are not the first of their recording
        cuts[left[inner]] = (ends[inner - 1] + starts[inner]) // 2
        cuts[cut_at[1:][number > 0] - 1] = frames[number > 0]
        base = row_of_cut << 32  # the running maximum of one recording stays below that of the next
        cuts = np.minimum(np.maximum.accumulate(cuts + base) - base, frames[row_of_cut])
        sure = (scores >= settings.min_alignment_score) & (ends > starts) & (cuts[left + 1] > cuts[left])
    if deduplicate:
        keep = run_starts(units)
        keep[at[:-1][frames > 0]] = True
        kept = np.append(0, np.cumsum(keep))
        cuts = kept[cuts + at[row_of_cut]] - kept[at[row_of_cut]]
        units, at = units[keep], kept[at].astype(np.int32)
        sure &= (cuts[left + 1] > cuts[left]) | (frames[row] == 0)
    text, text_at = _encoded(words, tokens)
    within = np.arange(len(words)) - first[row]
    eligible = sure & (np.diff(text_at) > 0) & (within < 1 << 16)
    eligible_at = np.append(0, np.cumsum(eligible))[first]
    text_cuts = text_at[np.arange(cut_at[-1]) - row_of_cut] - text_at[first][row_of_cut]
    return {
        "units": (units, at),
        "cuts": (cuts.astype(np.int32), cut_at.astype(np.int32)),
        "text": (text, text_at[first].astype(np.int32)),
        "text_cuts": (text_cuts.astype(np.int32), cut_at.astype(np.int32)),
        "eligible": (within[eligible].astype(np.uint16), eligible_at.astype(np.int32)),
    }


def _speech_by_speech(
    batch: pa.RecordBatch,
    pairs: Manifest,
    vocabulary: Vocabulary,
    tokens: WordTokens,
    settings: InterleaveSettings,
    deduplicate: bool,
) -> _Columns:
    """As `_speech_columns`, one by one, where words are not tokenized apart; `pairs` has the pair of each row."""
    made: list[list[np.ndarray]] = []
    rows = rows_from_table(pa.Table.from_batches([batch]))
    for first in range(0, len(pairs), TEXTS_AT_ONCE):
        batch = list(pairs[first : first + TEXTS_AT_ONCE])
        prepare_texts(batch, vocabulary, tokens)
        for pair, row in zip(batch, rows, strict=False):
            speech = pair_speech(pair, row, vocabulary, tokens, settings, deduplicate)
            units = (speech.units - vocabulary.unit_offset).astype(np.uint16)
            made.append([units, speech.cuts, speech.text, speech.text_cuts, speech.eligible[speech.eligible < 1 << 16]])
    kinds = {"units": np.uint16, "cuts": np.int32, "text": np.int32, "text_cuts": np.int32, "eligible": np.uint16}
    return {name: _column([row[n] for row in made], kind) for n, (name, kind) in enumerate(kinds.items())}


def _text_by_text(pairs: Manifest, tokens: WordTokens, vocabulary: Vocabulary) -> _Columns:
    """As `_text_column` for both sides, one by one."""
    made: dict[str, list[np.ndarray]] = {side: [] for side in SIDES}
    for first in range(0, len(pairs), TEXTS_AT_ONCE):
        batch = list(pairs[first : first + TEXTS_AT_ONCE])
        prepare_texts(batch, vocabulary, tokens)
        for side in SIDES:
            encoded_texts = [pair_text(pair, side, vocabulary, tokens) for pair in batch]
            made[side] += [np.empty(0, np.int32) if text is None else text for text in encoded_texts]
    return {side: _column(made[side], np.int32) for side in SIDES}


def _column(parts: Sequence[np.ndarray], kind: type) -> tuple[np.ndarray, np.ndarray]:
    """Flat values and offsets of a list column."""
    offsets = np.cumsum([0, *map(len, parts)]).astype(np.int32)
    return np.concatenate([np.empty(0, kind), *parts]).astype(kind), offsets


def _split(pairs: Manifest, side: str) -> pa.ListArray:
    """The words of normalized texts."""
    return pc.utf8_split_whitespace(pc.fill_null(pairs.column(f"{side}_text").combine_chunks(), ""))


def _apart(words: pa.Array) -> bool:
    """Whether running text has spaces around all of these words."""
    others = [word for word in pc.unique(words).to_pylist() if not word.isascii()]
    return all(join_words(f"{word} {word}") == f"{word} {word}" for word in others)


def _text_column(
    pairs: Manifest, side: str, tokens: WordTokens, languages: Mapping[str, int]
) -> tuple[np.ndarray, np.ndarray]:
    """The texts of many pairs, each after its language tag; nothing where there is none."""
    split = _split(pairs, side)
    ids, at = _encoded(split.flatten(), tokens)
    sizes = np.diff(at[list_column(split)[1]])
    nonempty = sizes > 0
    offsets = np.append(0, np.cumsum(sizes + nonempty))
    values = np.empty(offsets[-1], np.int32)
    tags = np.zeros(len(values), bool)
    tags[offsets[:-1][nonempty]] = True
    of_pair = pairs.column(f"{side}_lang").to_pylist()
    values[tags] = [languages[code] for code, text in zip(of_pair, nonempty.tolist(), strict=True) if text]
    values[~tags] = ids
    return values, offsets.astype(np.int32)


def _encoded(words: pa.Array, tokens: WordTokens | None) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of words one after the other, int32, and where each word begins in them: int64 [words + 1].

    The empty word, which stands for a text without words, has none.
    """
    encoded = words.dictionary_encode()
    distinct, which = encoded.dictionary, encoded.indices.to_numpy()
    if tokens is not None:
        flat, begins, ends = tokens.alone(distinct)
        sizes = ends - begins
    else:
        flat, sizes = np.zeros(len(distinct), np.int32), pc.not_equal(distinct, "").to_numpy(zero_copy_only=False) * 1
        begins = np.arange(len(distinct))
    at = np.append(0, np.cumsum(sizes[which]))
    places = np.repeat(begins[which] - at[:-1], sizes[which]) + np.arange(at[-1])
    return flat[places], at
