"""Units from elsewhere: at any frame rate, with repetitions or without, with word times or without.

fairseq, s2ut  see fairseq.py
json           *.json(l): a line {"id", "side" ("src" or "tgt"), "units"} for each recording, and optionally "durations"
               (frames of each unit, for units without repetitions) and "words" as in word_times.py
parquet        *.parquet with our own columns: id, side, units, words, starts, ends (frames), scores
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.config.units import MAX_UNITS, ExtractionSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError, in_one_line
from unitweave.core.files import digest_of_items, remove_leftovers
from unitweave.core.manifest import Manifest, Pair, read_manifest
from unitweave.core.progress import echo, meter
from unitweave.core.sequences import evenly_spaced, run_starts
from unitweave.core.stage import StageResult
from unitweave.units.align import WordFrames
from unitweave.units.corpus_times import Times, times_by_encoder, times_of_corpus
from unitweave.units.dataset import (
    SCHEMA,
    SIDES,
    UnitRow,
    UnitTable,
    describe_shards,
    list_column,
    row_batches,
    rows_from_table,
    same_rate,
    write_shard,
)
from unitweave.units.extract import is_finished, refuse_further_shards, summary
from unitweave.units.fairseq import FORMATS as FAIRSEQ_FORMATS
from unitweave.units.fairseq import read_fairseq
from unitweave.units.tokenizer import (
    SpeechTokenizer,
    check_agreement,
    check_repeatable,
    configured_tokenizer,
    length_mismatch,
)
from unitweave.units.unit_files import UtteranceNames, read_json, read_parquet, unit_row
from unitweave.units.word_times import TIMES, TimedWord, match_words

FORMATS = (*FAIRSEQ_FORMATS, "json", "parquet")
_TRIED = 3  # recordings on which a tokenizer is compared with the files
_PADDING = 2  # units
_FAR = 0.05  # by which the measured frame rate may differ from the given one, as a fraction


@dataclass(frozen=True)
class UnitSource:
    """What the imported units are.

    Attributes:
        num_units: Size of the codebook.
        frame_rate: Units a second, repetitions counted.
        deduplicated: Whether repetitions were dropped; a unit then stands for an equal part of its recording.
        codebook: Fingerprint of what makes the units; "" for one of their content.
    """

    num_units: int
    frame_rate: float = 50.0
    deduplicated: bool = False
    codebook: str = ""

    def metadata(self, codebook: str) -> dict[str, str]:
        """Metadata of the dataset."""
        found = {"codebook": codebook, "num_units": str(self.num_units), "frame_rate": f"{self.frame_rate:g}"}
        return found | ({"deduplicated": "true"} if self.deduplicated else {})


def import_units(
    folder: Path,
    kind: str,
    source: Path,
    corpus: Path,
    declared: UnitSource,
    alignments: Path | None = None,
    encoder: Path | None = None,
    tokenizer: SpeechTokenizer | None = None,
) -> StageResult:
    """Write the units in `source` for the pairs of `corpus` as our table to `folder`.

    Args:
        folder: Where the table is written.
        kind: One of FORMATS.
        source: Folder with the units.
        corpus: Folder of the manifest.
        declared: What the units are.
        alignments: Folder with src/ and tgt/ of word times (word_times.py).
        encoder: Folder of a CTC encoder that aligns the words instead. Words without times get score 0 and stay units.
        tokenizer: What made the units; it is tried on a few recordings.

    Returns:
        Counts, and the recordings that are left out: those without units, and those whose units are too few or too many
        for their duration.

    Raises:
        InputError: Nothing matches the corpus, a unit is outside the codebook, the frame rate does not fit, or word
            times are damaged or lie outside of their recording.
    """
    if kind not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)} (got {kind!r})")
    if declared.num_units > MAX_UNITS:
        raise InputError(f"--num-units: must be at most {MAX_UNITS}, for 16-bit storage (got {declared.num_units})")
    if not 0 < declared.frame_rate < np.inf:
        raise InputError(f"--frame-rate: must be the number of units per second (got {declared.frame_rate:g})")
    pairs = read_manifest(corpus)
    table, row_times = _read(kind, source, pairs)
    if twice := table.duplicate():
        raise InputError(f"{source}: duplicate units of {'/'.join(twice)}")
    # Number of units [pairs, sides], below 0 where a recording has none; of more than these only batches are objects.
    ids = pairs.column("id")
    audio = np.stack([pairs.column(f"{side}_audio").is_valid().to_numpy() for side in SIDES], axis=1)
    lengths = np.where(audio, np.stack([table.num_frames(ids, side) for side in SIDES], axis=1), -1)
    if not (lengths >= 0).any():
        raise InputError(f"{source}: no id matches an utterance of {corpus}")
    if not (lengths > 0).any():
        raise InputError(f"{source}: no recording of {corpus} has any units there")
    _check_units(table, pairs, declared, source)
    _check_rate(source, pairs, lengths, declared)
    if tokenizer is not None:
        _check_tokenizer(tokenizer, pairs, lengths, table, declared)
    by_encoder = encoder and times_by_encoder(encoder, pairs, lengths)
    times = by_encoder or times_of_corpus(alignments, pairs, row_times)
    skipped = [
        {"id": f"{ids[pair]}/{SIDES[side]}", "reason": f"no units in {source}"}
        for pair, side in np.argwhere(audio & (lengths < 0)).tolist()
    ]
    rows = pa.Table.from_batches(row_batches(_rows(pairs, lengths, table, times, declared, source, skipped)), SCHEMA)
    given = any(pc.any(pc.greater(batch.column("scores").flatten(), 0)).as_py() for batch in table.batches)
    timed = alignments or len(row_times) or given
    aligned = _aligned_words(rows["scores"], source if alignments is None else alignments, timed)
    codebook = declared.codebook
    if not codebook:
        identity = ([row.id, row.side, row.units.tolist()] for part in rows.to_batches() for row in _unit_rows(part))
        codebook = f"imported-{digest_of_items(identity)}"
    write_shard(folder, 0, rows, declared.metadata(codebook))
    counts: dict[str, Any] = {
        "recordings": len(rows),
        "words": len(pc.list_flatten(rows["scores"])),
        "aligned_words": aligned,
    }
    counts |= {"unknown_ids": len(table) - int((lengths >= 0).sum()), "shards": describe_shards(folder)}
    return StageResult(counts=counts, skipped=skipped)


def _rows(
    pairs: Manifest,
    lengths: np.ndarray,
    table: UnitTable,
    times: Times,
    declared: UnitSource,
    source: Path,
    skipped: list[dict[str, str]],
) -> Iterator[UnitRow]:
    """The rows of the dataset; recordings whose units cannot be theirs are put among `skipped` instead."""
    for pair, numbers in zip(pairs, lengths.tolist(), strict=True):
        for side, number in zip(SIDES, numbers, strict=True):
            if number < 0:
                continue
            seconds = getattr(pair, f"{side}_seconds")
            reason = "" if number else f"no units in {source}"
            if number and seconds and not declared.deduplicated:
                reason = length_mismatch(number, seconds * declared.frame_rate)
            if reason:
                skipped.append({"id": f"{pair.id}/{side}", "reason": reason})
                continue
            row = table[pair.id, side]
            given = row.words, WordFrames(row.starts, row.ends, row.scores)
            yield _row(pair, side, row.units, times(pair, side), given, declared)


def _aligned_words(scores: pa.ChunkedArray, source: Path, timed: object) -> int:
    """How many words have times; InputError where word times were given (`timed`) and are those of no word."""
    flat = pc.list_flatten(scores)
    aligned = int(pc.sum(pc.greater(flat, 0)).as_py() or 0)
    if timed and len(flat) and not aligned:
        raise InputError(f"{source}: none of the corpus's {len(flat)} words has a time there; are these their texts?")
    if timed and aligned < len(flat) / 2:
        echo(f"units: only {aligned} of {len(flat)} words have times in {source}; the others stay speech in training")
    return aligned


def tokenize_corpus(folder: Path, settings: ExtractionSettings, corpus: Path, encoder: Path | None) -> StageResult:
    """Make the units of every recording with the tokenizer that the settings name; finished shards are kept.

    Args:
        folder: Where the shards are written.
        settings: The tokenizer, and where word times are.
        corpus: Folder of the manifest.
        encoder: Folder of the encoder that aligns the words where the settings name no alignments.

    Raises:
        InputError: The tokenizer gives what it may not, or a recording or an alignment cannot be read.
    """
    tokenizer = configured_tokenizer(settings)
    assert tokenizer is not None
    declared = UnitSource(tokenizer.num_units, tokenizer.frame_rate, codebook=tokenizer.fingerprint)
    metadata, pairs = declared.metadata(declared.codebook), read_manifest(corpus)
    times = times_of_corpus(Path(settings.alignments) if settings.alignments is not None else None, pairs)
    tried = [  # of all parts of the corpus, before hours are spent
        (pair, side) for pair in evenly_spaced(pairs, _TRIED) for side in SIDES if getattr(pair, f"{side}_audio")
    ]
    for pair, side in tried:
        _tokenized(tokenizer, pair, side)
    _check_repeatable(tokenizer, tried)
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    refuse_further_shards(folder, -(-len(pairs) // settings.shard_size))
    with meter("units: tokenizing", len(pairs)) as progress:
        for number, first in enumerate(range(0, len(pairs), settings.shard_size)):
            shard = pairs[first : first + settings.shard_size]
            if not is_finished(folder, number, metadata, shard):
                present = [(pair, side) for pair in shard for side in SIDES if getattr(pair, f"{side}_audio")]
                there = np.stack([shard.column(f"{side}_audio").is_valid().to_numpy() for side in SIDES], axis=1)
                word_times = times if encoder is None else times_by_encoder(encoder, shard, there - 1)
                rows = []
                for pair, side in present:
                    units = _tokenized(tokenizer, pair, side)
                    if len(units):
                        rows.append(_row(pair, side, units, word_times(pair, side), None, declared))
                shard_rows = pa.Table.from_batches(row_batches(rows), SCHEMA)
                if settings.alignments is not None and number == 0:
                    _aligned_words(shard_rows["scores"], Path(settings.alignments), True)
                write_shard(folder, number, shard_rows, metadata)
            progress.advance(len(shard))
    return summary(folder, pairs)


def _tokenized(tokenizer: SpeechTokenizer, pair: Pair, side: str) -> np.ndarray:
    """The units of a recording. Raises InputError, with its name, where the tokenizer gives what it may not."""
    seconds = getattr(pair, f"{side}_seconds")
    waveform = read_audio(getattr(pair, f"{side}_audio"), expected_seconds=seconds)
    try:
        return tokenizer.tokenize([waveform])[0].units
    except InputError as error:
        raise InputError(f"{pair.id}/{side}: {error}") from None


def _row(
    pair: Pair,
    side: str,
    units: np.ndarray,
    times: Sequence[TimedWord] | None,
    given: tuple[list[str], WordFrames] | None,
    declared: UnitSource,
) -> UnitRow:
    words, language = (getattr(pair, f"{side}_text") or "").split(), getattr(pair, f"{side[:3]}_lang")
    seconds, name = getattr(pair, f"{side}_seconds"), f"{pair.id}/{side}"
    nowhere = np.zeros(len(words), np.int32)
    frames = WordFrames(nowhere, nowhere, np.zeros(len(words), np.float32))
    rate = len(units) / seconds if declared.deduplicated and seconds and len(units) else declared.frame_rate
    if times is not None and words and len(units):
        frames = match_words(words, language, times, seconds, len(units), rate, name)
    elif given is not None and given[0]:
        spelled, frames = given
        _check_frames(spelled, frames, len(units), name)
        if spelled != words and len(units):  # in capitals, say
            frames = match_words(words, language, _timed(spelled, frames, rate), seconds, len(units), rate, name)
    return UnitRow(pair.id, side, units.astype(np.uint16), words, frames.starts, frames.ends, frames.scores)


def _unit_rows(batch: pa.RecordBatch) -> Iterator[UnitRow]:
    return rows_from_table(pa.Table.from_batches([batch]))


def _timed(words: Sequence[str], frames: WordFrames, rate: float) -> list[TimedWord]:
    """Words that have frames, at `rate` a second, as an alignment in seconds."""
    found = zip(words, frames.starts.tolist(), frames.ends.tolist(), frames.scores.tolist(), strict=True)
    return [TimedWord(word, start / rate, end / rate, score) for word, start, end, score in found if end > start]


def _check_frames(words: Sequence[str], frames: WordFrames, number: int, name: str) -> None:
    """Raise InputError where the frames or scores of words cannot be theirs."""
    if not len(words) == len(frames.starts) == len(frames.ends) == len(frames.scores):
        raise InputError(f"{name}: words, starts, ends and scores must be of the same length")
    if int(frames.ends.max()) > number or int(frames.starts.min()) < 0 or (frames.starts > frames.ends).any():
        raise InputError(f"{name}: word frames lie outside of its {number} units")
    there = frames.ends > frames.starts
    if (frames.starts[there][1:] < frames.ends[there][:-1]).any():
        raise InputError(f"{name}: the frames of a word begin before those of the word before it end")
    if not ((frames.scores >= 0) & (frames.scores <= 1)).all():
        raise InputError(f"{name}: the score of a word must be 0 to 1")


def _check_units(table: UnitTable, pairs: Manifest, declared: UnitSource, source: Path) -> None:
    ids = pairs.column("id").combine_chunks()
    for batch in table.batches:
        units, offsets = list_column(batch.column("units"))
        repeats = ~run_starts(units) if declared.deduplicated else np.zeros(len(units), bool)
        repeats[offsets[:-1][np.diff(offsets) > 0]] = False
        if not repeats.any() and (not len(units) or int(units.max()) < declared.num_units):
            continue
        for row in _unit_rows(batch.filter(pc.is_in(batch.column("id"), ids))):
            name = f"{source}: {row.id}/{row.side}"
            if len(row.units) and int(row.units.max()) >= declared.num_units:
                raise InputError(f"{name} has unit {row.units.max()}, but --num-units is {declared.num_units}")
            if declared.deduplicated and not run_starts(row.units).all():
                raise InputError(
                    f"{name} repeats a unit, so these units are not deduplicated; leave out --deduplicated"
                )


def _check_rate(source: Path, pairs: Manifest, lengths: np.ndarray, declared: UnitSource) -> None:
    """Raise InputError where the number of units a second is clearly another one than the given rate."""
    lasting = np.stack([pc.fill_null(pairs.column(f"{side}_seconds"), 0).to_numpy() for side in SIDES], axis=1)
    known = (lengths >= 0) & (lasting > 0)
    units, seconds = lengths[known], lasting[known].astype(float)
    if not len(units):
        return
    measured = median((units + 0.5) / seconds)
    frames = seconds * declared.frame_rate
    # Tokenizers that round up or pad give a unit or two more; at a low rate that is much of a short recording.
    ratio, padding = measured / declared.frame_rate, abs(median(units - frames))
    misfits = np.flatnonzero([bool(length_mismatch(*one)) for one in zip(units, frames, strict=True)])
    if declared.deduplicated:
        if measured > (1 + _FAR) * declared.frame_rate:
            raise InputError(
                f"{source}: --frame-rate {declared.frame_rate:g} fits no recording: even without repetitions there are "
                f"about {measured:.1f} units a second"
            )
    elif 2 * len(misfits) > len(units) or (abs(ratio - 1) > 2 * _FAR and (padding > _PADDING or not 0.5 < ratio < 2)):
        first = int(misfits[0]) if len(misfits) else 0
        reason = length_mismatch(units[first], frames[first]) or f"{units[first]} units for {seconds[first]:.2f} s"
        raise InputError(
            f"{source}: --frame-rate {declared.frame_rate:g} does not fit: {reason}, and "
            f"{max(0, len(misfits) - 1)} more like it; there are about {measured:.1f} units a second: give "
            "that rate, or --deduplicated where repetitions were dropped"
        )


def _check_tokenizer(
    tokenizer: SpeechTokenizer, pairs: Manifest, lengths: np.ndarray, table: UnitTable, declared: UnitSource
) -> None:
    for name in ("num_units", "frame_rate"):
        actual, given = getattr(tokenizer, name), getattr(declared, name)
        if not (same_rate(actual, given) if name == "frame_rate" else actual == given):
            raise InputError(f"--{name.replace('_', '-')}: is {given:g}, but units.tokenizer has {actual:g}")
    present = np.argwhere(lengths >= 0)
    places = [present[at].tolist() for at in evenly_spaced(range(len(present)), _TRIED)]
    tried = [(pairs[place], SIDES[number]) for place, number in places]
    for pair, side in tried:
        units = table[pair.id, side].units
        audio = Path(getattr(pair, f"{side}_audio"))
        check_agreement(tokenizer, audio, units, declared.deduplicated, f"{pair.id}/{side}")
    _check_repeatable(tokenizer, tried)


def _check_repeatable(tokenizer: SpeechTokenizer, recordings: Sequence[tuple[Pair, str]]) -> None:
    waveforms = [read_audio(getattr(pair, f"{side}_audio")) for pair, side in recordings]
    check_repeatable(tokenizer, waveforms, [f"{pair.id}/{side}" for pair, side in recordings])


def _read(kind: str, source: Path, pairs: Manifest) -> tuple[UnitTable, UnitTable]:
    """Units, with the frames of words where the files have them; and the seconds of words."""
    times: list[UnitRow] = []  # those of the batch that is being read
    tables: list[pa.RecordBatch] = []
    names = UtteranceNames(pairs)

    def rows() -> Iterator[UnitRow]:
        if kind in FAIRSEQ_FORMATS:
            for name, side, units in read_fairseq(kind, source, set(pairs.column("split").unique().to_pylist())):
                yield unit_row(names.id(name, side), side, units)
            return
        suffixes = (".parquet",) if kind == "parquet" else (".json", ".jsonl")
        files = sorted(path for path in source.rglob("*") if path.suffix in suffixes)
        if not files:
            raise InputError(f"{source}: no {' or '.join(suffixes)} files")
        for path in files:
            try:
                yield from read_parquet(path) if kind == "parquet" else read_json(path, times, names)
            except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
                raise InputError(f"{path}: not units in the format {kind} ({in_one_line(error)})") from None

    found = []
    for batch in row_batches(rows()):
        found.append(batch)
        tables += row_batches(times, TIMES)
        times.clear()
    return UnitTable(found), UnitTable(tables)
