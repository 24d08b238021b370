"""Word times from elsewhere: CTM, Praat's TextGrid and JSON, matched with the words of the corpus.

CTM       SIDE/*.ctm          `utterance channel start duration word [confidence]`, in seconds
TextGrid  SIDE/NAME.TextGrid  long or short; the interval tier "words", as the Montreal Forced Aligner has it, or the
                              only one
JSON      SIDE/*.json(l)      {"id": ..., "words": [{"word": ..., "start": ..., "end": ..., "score": ...}]} in each
                              line or in a list, or a file NAME.json as WhisperX, Whisper, transformers' pipeline,
                              Gentle, Vosk or the Montreal Forced Aligner write it
CSV       SIDE/NAME.csv       the columns Begin, End, Label, of the rows whose Type is words, as the Montreal Forced
                              Aligner writes them
labels    SIDE/NAME.txt       `start<TAB>end<TAB>word` in each line, as Audacity writes them; other texts are left alone

SIDE is src or tgt. An utterance is found by its id or by the name of its recording.
"""

import csv
import difflib
import itertools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from unitweave.core.errors import InputError
from unitweave.core.text import normalize
from unitweave.corpus.readers.records import detect_encoding
from unitweave.units.align import WordFrames
from unitweave.units.dataset import SCHEMA, UnitRow

_TOKEN = re.compile(r'"(?:[^"]|"")*"|\[[^\]\n]*\]|(?<![\w.])-?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?')  # of a TextGrid
_NUMBER = re.compile(r"-?\d+(?:\.\d*)?")
_NO_WORD = re.compile(r"[\s_-]*|<[^<>]*>|\[[^\[\]]*\]|\{[^{}]*\}")  # such as <eps>, [noise], {SL}
_SILENCES = {"sil", "sp", "spn", "nsn", "silence", "pause"}  # unless they are words of the transcript
_WORD_TIER = re.compile(r"\b(words?|ort-mau)$", re.IGNORECASE)
_MAX_WORDS_PER_ENTRY = 2  # in the mean of a recording; more are whole sentences, and nobody aligned their words
_COLUMNS = {"begin": "start", "label": "word", "text": "word"}  # of CSV, by other names
WORD_KEYS = ("words", "segments", "chunks", "result", "word_segments")  # of JSON, where the words are
_SLACK_SECONDS = 0.1  # by which a last word may outlast its recording, next to a hundredth of its length


@dataclass(frozen=True)
class TimedWord:
    """A word of an alignment, with seconds and how sure it is, 0 to 1."""

    word: str
    start: float
    end: float
    score: float = 1.0


# Word times as rows of a `UnitTable`: in seconds, and without units.
TIMES = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("id", "side", "units", "words")),
        *(pa.field(name, pa.list_(pa.float64()), nullable=False) for name in ("starts", "ends", "scores")),
    ]
)


def timed_row(id: str, side: str, words: Sequence[TimedWord], where: str = "") -> UnitRow:
    """The words of a recording as a row of a table of word times.

    Raises:
        InputError: A score is no probability, in the file `where`.
    """
    if wrong := [word for word in words if not -0.01 <= word.score <= 1.01 and not math.isnan(word.score)]:
        raise InputError(
            f"{where or side}: {id}: the score of {wrong[0].word!r} must be 0 to 1 (got {wrong[0].score:g})"
        )
    scores = np.clip(np.nan_to_num(np.array([word.score for word in words], np.float64)), 0, 1)
    starts, ends = (np.array([getattr(word, edge) for word in words], np.float64) for edge in ("start", "end"))
    return UnitRow(id, side, np.empty(0, np.uint16), [word.word for word in words], starts, ends, scores)


def timed_words(row: UnitRow | None) -> list[TimedWord] | None:
    """The words of such a row."""
    if row is None:
        return None
    return list(map(TimedWord, row.words, row.starts.tolist(), row.ends.tolist(), row.scores.tolist()))


def read_word_times(folder: Path) -> Iterator[tuple[str, list[TimedWord]]]:
    """Read all alignments in a folder.

    Yields:
        Name of an utterance, and its words in order, silences left out.

    Raises:
        InputError: There are none, or one cannot be read.
    """
    names: set[str] = set()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        read = _READERS.get((path.suffix or f".{path.name}").lower())  # Kaldi's file is called ctm
        if read is None:
            continue
        text = _decoded(path)
        try:
            items = list(read(path, text))
        except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
            raise InputError(f"{path}: could not be read as an alignment ({error or type(error).__name__})") from None
        for name, words in items:
            if name in names:
                raise InputError(f"{path}: duplicate alignment of {name!r}")
            names.add(name)
            words = [word for word in words if not _NO_WORD.fullmatch(word.word.strip())]
            if sum(len(word.word.split()) for word in words) > _MAX_WORDS_PER_ENTRY * len(words):
                raise InputError(
                    f"{path}: {name}: has times of phrases such as {words[0].word!r:.60}, not of single words"
                )
            yield name, words
    if not names:
        raise InputError(
            f"{folder}: no alignments; expected .ctm, .TextGrid, .json or .jsonl files, .csv with the columns Begin, "
            "End, Label, or .txt with start<TAB>end<TAB>word in each line"
        )


def match_words(
    words: Sequence[str],
    language: str,
    timed: Sequence[TimedWord],
    seconds: float,
    frames: int,
    frame_rate: float,
    name: str,
) -> WordFrames:
    """The frames of an utterance's words from an alignment of its text as another tool spells it.

    Both are compared as normalized text. A word that the alignment lacks, or has otherwise, gets score 0.
    An entry that normalization takes apart ("21", "l'eau") shares its time among its words by their letters.

    Args:
        words: The normalized transcript.
        language: Of the words.
        timed: The alignment.
        seconds: Of the recording; 0 where nobody knows.
        frames: Number of its units.
        frame_rate: Units a second.
        name: What errors call the utterance.

    Raises:
        InputError: A word ends before it begins, lies outside of the recording or not behind the word before it.
    """
    seconds = seconds or frames / frame_rate
    entries: list[tuple[str, float, float, float]] = []
    before: TimedWord | None = None
    for word in timed:
        if word.word.strip().lower() in _SILENCES - set(words):
            continue
        _check_times(word, seconds, name)
        _check_order(before, word, name)
        before = word
        parts = normalize(word.word, language).split()
        letters, at = sum(map(len, parts)), max(0.0, word.start)
        share = max(0.0, word.end) - at
        for part in parts:
            entries.append((part, at, at + share * len(part) / letters, word.score))
            at += share * len(part) / letters
    starts, ends = np.zeros(len(words), np.int32), np.zeros(len(words), np.int32)
    scores = np.zeros(len(words), np.float32)
    matcher = difflib.SequenceMatcher(None, list(words), [entry[0] for entry in entries], autojunk=False)
    for block in matcher.get_matching_blocks():
        for i in range(block.size):
            _, start, end, score = entries[block.b + i]
            first, last = (min(frames, round(edge * frame_rate)) for edge in (start, end))
            if last > first:
                starts[block.a + i], ends[block.a + i], scores[block.a + i] = first, last, score
    timed_ones = np.flatnonzero(ends > starts)
    for one, two in itertools.pairwise(timed_ones):
        if starts[two] < ends[one]:  # a little: each has a half of what they share
            starts[two] = ends[one] = max(starts[one] + 1, (starts[two] + ends[one]) // 2)
    scores[ends <= starts] = 0
    if ends.any():
        _fill_gaps(starts, ends, frames)
    return WordFrames(starts, ends, scores)


def _check_times(word: TimedWord, seconds: float, name: str) -> None:
    at = f"{name}: the word {word.word!r} at {word.start:g} to {word.end:g} s"
    if not (math.isfinite(word.start) and math.isfinite(word.end)):
        raise InputError(f"{at} has a time that is not a number")
    if word.end < word.start:
        raise InputError(f"{at} ends before it begins")
    if word.start < -_SLACK_SECONDS or word.end > seconds * 1.01 + _SLACK_SECONDS:
        raise InputError(
            f"{at} lies outside of the recording of {seconds:.2f} s; is the alignment that of another recording, or "
            "not in seconds?"
        )


def _check_order(before: TimedWord | None, word: TimedWord, name: str) -> None:
    """Raise InputError where two words of an alignment follow each other in the text, but not in time."""
    if before is None:
        return
    shared = min(before.end, word.end) - max(before.start, word.start)
    shorter = min(before.end - before.start, word.end - word.start)
    if word.start < before.start - _SLACK_SECONDS or shared > max(_SLACK_SECONDS, shorter / 2):
        raise InputError(
            f"{name}: the word {word.word!r} at {word.start:g} to {word.end:g} s does not come after "
            f"{before.word!r} at {before.start:g} to {before.end:g} s, which stands before it in the alignment"
        )


def _fill_gaps(starts: np.ndarray, ends: np.ndarray, frames: int) -> None:
    """Give the words without frames, which keep score 0, equal parts of the gap that they lie in, in place.

    So none of their units falls to a neighbor that stands as text.
    """
    i, before = 0, 0
    while i < len(starts):
        if ends[i] > starts[i]:
            before, i = int(ends[i]), i + 1
            continue
        last = next((j for j in range(i, len(starts)) if ends[j] > starts[j]), len(starts))
        after = max(before, int(starts[last]) if last < len(starts) else frames)
        edges = before + (after - before) * np.arange(last - i + 1) // (last - i)
        starts[i:last], ends[i:last] = edges[:-1], edges[1:]
        i = last


def _ctm(path: Path, text: str) -> Iterator[tuple[str, list[TimedWord]]]:
    words: dict[str, list[TimedWord]] = {}
    channels: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith((";;", "#")):
            continue
        try:
            id_, channel, start, duration, word, *rest = line.split()
            score = float(rest[0]) if rest and rest[0].upper() != "NA" else 1.0
            timed = TimedWord(word, float(start), round(float(start) + float(duration), 6), score)
        except ValueError:
            raise InputError(f"{path}, line {number}: expected 'id channel start duration word [confidence]'") from None
        if channels.setdefault(id_, channel) != channel:
            raise InputError(
                f"{path}, line {number}: {id_!r} has words on the channels {channels[id_]} and {channel}; keep the one "
                "that the recording has"
            )
        words.setdefault(id_, []).append(timed)
    for id_, own in words.items():
        yield id_, sorted(own, key=lambda word: word.start)


def _text_grid(path: Path, text: str) -> Iterator[tuple[str, list[TimedWord]]]:
    # The long and the short form have the same values in the same order; the long one has labels between them.
    tokens = [token[1:-1] if token[0] == '"' else token for token in _TOKEN.findall(text) if token[0] != "["]
    if not tokens[0].startswith("ooTextFile") or tokens[1] != "TextGrid":  # older ones say "ooTextFile short"
        raise ValueError("not a TextGrid")
    tiers: dict[str, list[TimedWord]] = {}
    at = 5  # after the two names, xmin, xmax and the number of tiers
    for _ in range(int(tokens[4])):
        kind, name, size = tokens[at], tokens[at + 1], int(tokens[at + 4])
        at += 5
        if kind == "IntervalTier":
            triples = [tokens[at + 3 * i : at + 3 * i + 3] for i in range(size)]
            tiers[name] = [TimedWord(word.replace('""', '"'), float(a), float(b)) for a, b, word in triples]
        at += size * (3 if kind == "IntervalTier" else 2)
    yield path.stem, _of_words(tiers)


def _of_words(tiers: Mapping[str, list[TimedWord]]) -> list[TimedWord]:
    """The tier of words; ValueError where it is not clear which one that is."""
    wanted = [name for name in tiers if _WORD_TIER.search(name.strip())] or list(tiers)
    if len(wanted) != 1:
        raise ValueError(f"no single interval tier 'words'; it has {', '.join(tiers) or 'none'}")
    return tiers[wanted[0]]


def _csv(path: Path, text: str) -> Iterator[tuple[str, list[TimedWord]]]:
    rows = [
        {_COLUMNS.get((key or "").lower(), (key or "").lower()): cell for key, cell in row.items()}
        for row in csv.DictReader(text.splitlines())
    ]
    if rows and {"start", "end", "word"} <= rows[0].keys():  # else a table of something else
        words = [row for row in rows if row.get("type", "words") == "words"]
        yield path.stem, [TimedWord(row["word"], float(row["start"]), float(row["end"])) for row in words]


def _labels(path: Path, text: str) -> Iterator[tuple[str, list[TimedWord]]]:
    lines = [line.split("\t") for line in text.splitlines() if line.strip()]
    if lines and all(len(line) == 3 and _NUMBER.fullmatch(line[0]) and _NUMBER.fullmatch(line[1]) for line in lines):
        yield path.stem, [TimedWord(word, float(start), float(end)) for start, end, word in lines]


def _json(path: Path, text: str) -> Iterator[tuple[str, list[TimedWord]]]:
    lines = [json.loads(line) for line in text.splitlines() if line.strip()] if path.suffix == ".jsonl" else None
    content: Any = lines if lines is not None else json.loads(text)
    records = content if isinstance(content, list) else [content]
    if isinstance(content, list) and content and isinstance(content[0], dict) and "word" in content[0]:
        records = [{"words": content}]
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict) or (len(records) > 1 and "id" not in record):
            raise ValueError(f"record {number} is not an object with an id")
        yield str(record.get("id", path.stem)), json_words(record)


def json_words(record: Mapping[str, Any]) -> list[TimedWord]:
    """The words of a recording with times, in whichever of the known layouts; ValueError for another one."""
    if "tiers" in record:  # the Montreal Forced Aligner: (start, end, text) of each interval
        tiers = {
            name: [TimedWord(str(text), float(start), float(end)) for start, end, text in tier["entries"]]
            for name, tier in record["tiers"].items()
        }
        return _of_words(tiers)
    name = next((name for name in WORD_KEYS if name in record), None)
    if name is None:
        raise ValueError(f"expected 'words', 'segments' or 'chunks'; it has {', '.join(record) or 'nothing'}")
    entries = record[name] or []
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{name!r} must be a list of objects, each with a word, its start and its end")
    if name == "segments" and entries:
        entries = [word for segment in entries for word in segment.get("words") or ()]
        if not entries:
            raise ValueError("its segments have no words with times")
    return [word for word in map(_json_word, entries) if word is not None]


def _json_word(entry: Mapping[str, Any]) -> TimedWord | None:
    """A word; None for one that the aligner did not find."""
    if not {"word", "text"} & entry.keys():
        raise ValueError(f"a word has 'word', 'start' and 'end'; it has {', '.join(map(repr, entry)) or 'nothing'}")
    text = entry["word"] if "word" in entry else entry["text"]
    start, end = entry["timestamp"] if "timestamp" in entry else (entry.get("start"), entry.get("end"))
    if end is None and start is not None and entry.get("duration") is not None:
        end = float(start) + float(entry["duration"])
    if start is None or end is None:
        return None
    keys = ("score", "confidence", "probability", "conf")
    score = next((entry[key] for key in keys if entry.get(key) is not None), 1.0)
    return TimedWord(str(text), float(start), float(end), float(score))


def _decoded(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode(detect_encoding(content[:64], "utf-8"))
    except UnicodeDecodeError:
        raise InputError(f"{path}: neither UTF-8 nor UTF-16 text") from None


_READERS = {
    ".ctm": _ctm, ".textgrid": _text_grid, ".json": _json, ".jsonl": _json, ".csv": _csv, ".txt": _labels,
}  # fmt: skip
