"""Units from elsewhere: at any frame rate, with repetitions or without, with word times or without.

fairseq, s2ut  see fairseq.py
json           *.json(l): a line {"id", "side" ("src" or "tgt"), "units"} for each recording, and optionally "durations"
               (frames of each unit, for units without repetitions) and "words" as in word_times.py
parquet        *.parquet with our own columns: id, side, units, words, starts, ends (frames), scores
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from unitweave.config.units import MAX_UNITS, ExtractionSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, remove_leftovers
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter
from unitweave.core.sequences import evenly_spaced, run_starts
from unitweave.core.stage import StageResult
from unitweave.units.align import WordFrames
from unitweave.units.dataset import SCHEMA, SIDES, UnitRow, length_mismatch, rows_from_table, write_shard
from unitweave.units.extract import is_finished, summary
from unitweave.units.fairseq import FORMATS as FAIRSEQ_FORMATS
from unitweave.units.fairseq import read_fairseq
from unitweave.units.tokenizer import SpeechTokenizer, check_agreement, configured_tokenizer
from unitweave.units.word_times import TimedWord, match_words, read_word_times

FORMATS = (*FAIRSEQ_FORMATS, "json", "parquet")
_TRIED = 3  # recordings on which a tokenizer is compared with the files
_FAR = 0.05  # by which the measured frame rate may differ from the given one, as a fraction

Key = tuple[str, str]  # (utterance id, side)


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


@dataclass
class _Found:
    units: dict[Key, np.ndarray] = field(default_factory=dict)
    times: dict[Key, list[TimedWord]] = field(default_factory=dict)
    frames: dict[Key, tuple[list[str], WordFrames]] = field(default_factory=dict)


def import_units(
    folder: Path,
    kind: str,
    source: Path,
    corpus: Path,
    about: UnitSource,
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
        about: What the units are.
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
    if about.num_units > MAX_UNITS:
        raise InputError(f"--num-units: units are stored in 16 bits, at most {MAX_UNITS} (got {about.num_units})")
    pairs = read_manifest(corpus)
    found = _read(kind, source, pairs)
    if alignments is not None:
        found.times |= _word_times(alignments, pairs)
    present = [
        (pair, side)
        for pair in pairs
        for side in SIDES
        if getattr(pair, f"{side}_audio") and (pair.id, side) in found.units
    ]
    if not present:
        raise InputError(f"{source}: no id matches an utterance of {corpus}")
    for pair, side in present:
        _check_units(found.units[pair.id, side], about, f"{source}: {pair.id}/{side}")
    _check_rate(source, present, found, about)
    if tokenizer is not None:
        _check_tokenizer(tokenizer, present, found, about)
    aligned = _aligned_by(encoder, present) if encoder is not None else {}
    rows, skipped = [], [
        {"id": f"{pair.id}/{side}", "reason": f"no units in {source}"}
        for pair in pairs
        for side in SIDES
        if getattr(pair, f"{side}_audio") and (pair.id, side) not in found.units
    ]  # fmt: skip
    for pair, side in present:
        units = found.units.pop((pair.id, side))
        seconds = getattr(pair, f"{side}_seconds")
        reason = "" if about.deduplicated or not seconds else length_mismatch(len(units), seconds * about.frame_rate)
        if reason:
            skipped.append({"id": f"{pair.id}/{side}", "reason": reason})
        else:
            times = aligned.get((pair.id, side), found.times.get((pair.id, side)))
            rows.append(_row(pair, side, units, times, found.frames.get((pair.id, side)), about))
    codebook = about.codebook or f"imported-{digest_of([[row.id, row.side, row.units.tolist()] for row in rows])}"
    write_shard(folder, 0, rows, about.metadata(codebook))
    scores = np.concatenate([row.scores for row in rows] or [np.empty(0)])
    counts = {"recordings": len(rows), "words": len(scores), "aligned_words": int((scores > 0).sum())}
    return StageResult(counts=counts | {"unknown_ids": len(found.units)}, skipped=skipped)


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
    about = UnitSource(tokenizer.num_units, tokenizer.frame_rate, codebook=tokenizer.fingerprint)
    metadata, pairs = about.metadata(about.codebook), read_manifest(corpus)
    times = _word_times(Path(settings.alignments), pairs) if settings.alignments is not None else {}
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    with meter("units: tokenizing", len(pairs)) as progress:
        for number, first in enumerate(range(0, len(pairs), settings.shard_size)):
            shard = pairs[first : first + settings.shard_size]
            if not is_finished(folder, number, metadata):
                present = [(pair, side) for pair in shard for side in SIDES if getattr(pair, f"{side}_audio")]
                own = _aligned_by(encoder, present) if encoder is not None else times
                rows = []
                for pair, side in present:
                    seconds = getattr(pair, f"{side}_seconds")
                    waveform = read_audio(getattr(pair, f"{side}_audio"), expected_seconds=seconds)
                    units = tokenizer.tokenize([waveform])[0].units
                    if len(units):
                        rows.append(_row(pair, side, units, own.get((pair.id, side)), None, about))
                write_shard(folder, number, rows, metadata)
            progress.advance(len(shard))
    return summary(folder, pairs)


def _row(
    pair: Pair,
    side: str,
    units: np.ndarray,
    times: Sequence[TimedWord] | None,
    given: tuple[list[str], WordFrames] | None,
    about: UnitSource,
) -> UnitRow:
    words, language = (getattr(pair, f"{side}_text") or "").split(), getattr(pair, f"{side[:3]}_lang")
    seconds, name = getattr(pair, f"{side}_seconds"), f"{pair.id}/{side}"
    nowhere = np.zeros(len(words), np.int32)
    frames = WordFrames(nowhere, nowhere, np.zeros(len(words), np.float32))
    if times is not None and words and len(units):
        rate = len(units) / seconds if about.deduplicated and seconds else about.frame_rate
        frames = match_words(words, language, times, seconds, len(units), rate, name)
    elif given is not None and given[0] == words:
        frames = given[1]
        if len(words) and (int(frames.ends.max()) > len(units) or (frames.starts > frames.ends).any()):
            raise InputError(f"{name}: word frames lie outside of its {len(units)} units")
    return UnitRow(pair.id, side, units.astype(np.uint16), words, frames.starts, frames.ends, frames.scores)


def _check_units(units: np.ndarray, about: UnitSource, name: str) -> None:
    if len(units) and int(units.max()) >= about.num_units:
        raise InputError(f"{name} has unit {units.max()}, but --num-units is {about.num_units}")
    if about.deduplicated and not run_starts(units).all():
        raise InputError(f"{name} repeats a unit, so these units are not deduplicated; leave out --deduplicated")


def _check_rate(source: Path, present: Sequence[tuple[Pair, str]], found: _Found, about: UnitSource) -> None:
    """Raise InputError where the number of units a second is clearly another one than the given rate."""
    lengths = [
        (len(found.units[pair.id, side]), seconds)
        for pair, side in present
        if (seconds := getattr(pair, f"{side}_seconds"))
    ]
    if not lengths:
        return
    measured = median((units + 0.5) / seconds for units, seconds in lengths)
    misfits = [one for one in lengths if length_mismatch(one[0], one[1] * about.frame_rate)]
    if about.deduplicated:
        if measured > (1 + _FAR) * about.frame_rate:
            raise InputError(
                f"{source}: --frame-rate {about.frame_rate:g} fits no recording: even without repetitions there are "
                f"about {measured:.1f} units a second"
            )
    elif 2 * len(misfits) > len(lengths) or abs(measured / about.frame_rate - 1) > 2 * _FAR:
        units, seconds = misfits[0] if misfits else lengths[0]
        raise InputError(
            f"{source}: --frame-rate {about.frame_rate:g} does not fit: "
            f"{length_mismatch(units, seconds * about.frame_rate) or f'{units} units for {seconds:.2f} s'}, and "
            f"{max(0, len(misfits) - 1)} more like it; there are about {measured:.1f} units a second: give "
            "that rate, or --deduplicated where repetitions were dropped"
        )


def _check_tokenizer(
    tokenizer: SpeechTokenizer, present: Sequence[tuple[Pair, str]], found: _Found, about: UnitSource
) -> None:
    for name in ("num_units", "frame_rate"):
        own, given = getattr(tokenizer, name), getattr(about, name)
        if own != given:
            raise InputError(f"--{name.replace('_', '-')}: is {given:g}, but units.tokenizer has {own:g}")
    for pair, side in evenly_spaced(present, _TRIED):
        audio = Path(getattr(pair, f"{side}_audio"))
        units = found.units[pair.id, side]
        check_agreement(tokenizer, audio, units, about.deduplicated, f"{pair.id}/{side}")


def _read(kind: str, source: Path, pairs: Sequence[Pair]) -> _Found:
    if kind in FAIRSEQ_FORMATS:
        return _Found(units=dict(read_fairseq(kind, source, {pair.split for pair in pairs})))
    found = _Found()
    suffixes = (".parquet",) if kind == "parquet" else (".json", ".jsonl")
    files = sorted(path for path in source.rglob("*") if path.suffix in suffixes)
    if not files:
        raise InputError(f"{source}: no {' or '.join(suffixes)} files")
    for path in files:
        try:
            _read_parquet(path, found) if kind == "parquet" else _read_json(path, found)
        except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{path}: not units in the format {kind} ({' '.join(str(error).split())})") from None
    return found


def _read_parquet(path: Path, found: _Found) -> None:
    table = pq.read_table(path)
    missing = [name for name in SCHEMA.names if name not in table.schema.names]
    if missing:
        raise InputError(f"{path}: lacks the column {missing[0]!r}")
    for row in rows_from_table(table.select(SCHEMA.names).cast(SCHEMA)):
        _add(path, found, (row.id, row.side), row.units)
        found.frames[row.id, row.side] = row.words, WordFrames(row.starts, row.ends, row.scores)


def _read_json(path: Path, found: _Found) -> None:
    text = path.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if line.strip()]
    content: Any = [json.loads(line) for line in lines] if path.suffix == ".jsonl" else json.loads(text)
    for number, record in enumerate(content if isinstance(content, list) else [content], start=1):
        units = np.asarray(record["units"])
        whole = units.ndim == 1 and (not len(units) or units.dtype.kind in "iu")
        if not whole or (len(units) and not 0 <= units.min() <= units.max() < MAX_UNITS):
            raise InputError(f"{path}, record {number}: units must be integers from 0 to {MAX_UNITS - 1}")
        if "durations" in record:
            durations = np.asarray(record["durations"])
            if len(durations) != len(units) or durations.dtype.kind not in "iu" or (durations < 1).any():
                raise InputError(f"{path}, record {number}: durations must be a positive integer for each unit")
            units = np.repeat(units, durations)
        key = str(record["id"]), str(record["side"])
        _add(path, found, key, units)
        if "words" in record:
            found.times[key] = [
                TimedWord(str(w["word"]), float(w["start"]), float(w["end"]), float(w.get("score", 1.0)))
                for w in record["words"]
            ]


def _add(path: Path, found: _Found, key: Key, units: np.ndarray) -> None:
    if key[1] not in SIDES:
        raise InputError(f"{path}: side must be one of {', '.join(SIDES)} (got {key[1]!r})")
    if key in found.units:
        raise InputError(f"{path}: duplicate units of {key[0]}/{key[1]}")
    found.units[key] = units


def _word_times(folder: Path, pairs: Sequence[Pair]) -> dict[Key, list[TimedWord]]:
    found: dict[Key, list[TimedWord]] = {}
    for side in SIDES:
        if not (folder / side).is_dir():
            continue
        times = read_word_times(folder / side)
        for pair in pairs:
            audio = getattr(pair, f"{side}_audio")
            names = [pair.id, Path(audio).stem] if audio else []
            if name := next((name for name in names if name in times), None):
                found[pair.id, side] = times[name]
    if not found:
        raise InputError(f"{folder}: no alignment of an utterance of the corpus; expected folders src and tgt in it")
    return found


def _aligned_by(encoder: Path, present: Sequence[tuple[Pair, str]]) -> dict[Key, list[TimedWord]]:
    from unitweave.units.aligner import Aligner  # torch

    aligner = Aligner.load(encoder)
    return aligner.align_pairs(present)
