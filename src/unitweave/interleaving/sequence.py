"""Training sequences: source units, transcript, translation, target units, with text interleaved into the speech.

    <|source|> speech <|transcript|> <|es|> text <|translation|> <|en|> text <|target|> speech <|end|>

Speech is unit tokens in which spans of words may stand as the text tokens of those words. A marker
ends the segment before it, so the model learns when to stop; the language tag is the first thing
that it says of a text. Pure functions; token ids come from the caller.
"""

from collections.abc import Sequence as Items
from functools import lru_cache
from random import Random
from typing import NamedTuple, get_args

import numpy as np

from unitweave.config.interleave import TASK_SEGMENTS, InterleaveSettings, Segment
from unitweave.core.errors import InputError
from unitweave.core.sequences import run_starts
from unitweave.interleaving.spans import draw_spans, spread_over, uniform_cuts, word_cuts

# Segment codes: what a token's loss is counted under. A marker counts under the segment that it ends.
NONE, SOURCE, TRANSCRIPT, TRANSLATION, TARGET = range(5)
SEGMENTS = get_args(Segment)

TASKS = {task: tuple(SEGMENTS.index(segment) + 1 for segment in segments) for task, segments in TASK_SEGMENTS.items()}


class Markers(NamedTuple):
    """Token ids of the stage markers."""

    source: int
    transcript: int
    translation: int
    target: int
    end: int
    mask: int
    begin: int | None = None  # the tokenizer's own begin-of-text token, where the language model expects one

    def of(self, segment: int) -> int:
        """The marker that opens a segment."""
        return (self.source, self.transcript, self.translation, self.target)[segment - 1]


class Speech(NamedTuple):
    """One recording as token ids, cut into words.

    Attributes:
        units: int32 [frames or, deduplicated, runs], unit tokens.
        cuts: int64 [words + 1]; word i owns the units [cuts[i], cuts[i + 1]).
        text: int32 [text tokens] of the whole transcript.
        text_cuts: int64 [words + 1]; word i is the tokens [text_cuts[i], text_cuts[i + 1]).
        eligible: int64 [...], words that may stand as text.
    """

    units: np.ndarray
    cuts: np.ndarray
    text: np.ndarray
    text_cuts: np.ndarray
    eligible: np.ndarray


class Example(NamedTuple):
    """One utterance pair, ready to be interleaved; a side that the pair lacks is None."""

    source: Speech | None
    target: Speech | None
    transcript: np.ndarray | None  # int32: language tag and text tokens
    translation: np.ndarray | None  # int32: likewise


class TrainingSequence(NamedTuple):
    """A training sequence: token ids int32 [length] and the segment code of each, uint8 [length].

    Attributes:
        words: Words of the speech on the sides that are interleaved.
        replaced: How many of them stand as text (or mask).
        inputs: int32 [length], what the model reads instead of `ids` (see `noise.py`); None: `ids` themselves.
    """

    ids: np.ndarray
    segments: np.ndarray
    words: int = 0
    replaced: int = 0
    inputs: np.ndarray | None = None


def prepare_speech(
    units: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    scores: np.ndarray,
    word_tokens: Items[np.ndarray],
    settings: InterleaveSettings,
    deduplicate: bool = False,
) -> Speech:
    """Cut one recording's units (token ids, [frames]) into words by their aligned frames."""
    words = len(word_tokens)
    if settings.boundaries == "uniform":
        cuts = uniform_cuts(words, len(units))
        sure = np.ones(words, dtype=bool)
    else:
        cuts = word_cuts(starts, ends, len(units))
        # A word that was not aligned has no frames of its own, whatever its neighbors left to it.
        aligned = (scores >= settings.min_alignment_score) & (ends > starts)
        sure = aligned & (np.diff(cuts) > 0) if words else np.zeros(0, dtype=bool)
    units = units.astype(np.int32)
    if deduplicate and len(units):
        # A run that crosses a word boundary goes to the word in which it begins: cut there, it would
        # betray the boundary, which a recording to be translated does not.
        keep = run_starts(units)
        cuts = np.append(0, np.cumsum(keep))[cuts]
        units = units[keep]
        sure = sure & (np.diff(cuts) > 0)
    lengths = np.array([len(t) for t in word_tokens], dtype=np.int64)
    text = np.concatenate(word_tokens).astype(np.int32) if words else np.empty(0, np.int32)
    return Speech(units, cuts, text, np.append(0, np.cumsum(lengths)), np.flatnonzero(sure & (lengths > 0)))


def interleave_speech(
    speech: Speech, ratio: float, settings: InterleaveSettings, mask: int, rng: Random
) -> tuple[list[np.ndarray], list[tuple[int, int]]]:
    """Write spans of one side's words as text.

    Args:
        speech: The recording.
        ratio: Fraction of *all* its words that is to be text; reached as far as the eligible words allow.
        settings: Span length, and what stands in place of the units.
        mask: Token id of the mask.
        rng: Draws the spans.

    Returns:
        Pieces of token ids, in order, and the spans [first, last) of words that are text.
    """
    words, eligible = len(speech.cuts) - 1, len(speech.eligible)
    if ratio <= 0 or not eligible:
        return [speech.units], []
    if eligible == words:
        spans = draw_spans(words, ratio, settings.mean_span_length, rng)
    else:
        # The eligible words make up for the others, so that the ratio is one of all words.
        ratio = min(1.0, ratio * words / eligible)
        spans = spread_over(draw_spans(eligible, ratio, settings.mean_span_length, rng), speech.eligible)
    pieces = []
    at = 0
    cuts, text_cuts = speech.cuts.tolist(), speech.text_cuts.tolist()
    for first, last in spans:
        begin, end = cuts[first], cuts[last]
        if begin > at:
            pieces.append(speech.units[at:begin])
        text = speech.text[text_cuts[first] : text_cuts[last]]
        pieces.append(np.full_like(text, mask) if settings.replace_with == "mask" else text)
        at = end
    if at < len(speech.units):
        pieces.append(speech.units[at:])
    return pieces, spans


def has_segments(example: Example, task: str) -> bool:
    """Whether the example has every segment of the task."""
    parts = (example.source, example.transcript, example.translation, example.target)
    return all(parts[segment - 1] is not None for segment in TASKS[task])


class DrawnSequence(NamedTuple):
    """A training sequence in pieces, each with the segment code of its tokens; otherwise as `TrainingSequence`."""

    pieces: list[np.ndarray]
    codes: list[int]
    words: int
    replaced: int


def interleave(
    example: Example, task: str, ratio: float, settings: InterleaveSettings, markers: Markers, rng: Random
) -> TrainingSequence:
    """Build the training sequence of one example for `task` at text ratio `ratio`.

    The spans of the two sides are drawn independently. Equal arguments and an equally seeded `rng`
    give equal sequences. Raises InputError when the example lacks a segment of the task.
    """
    return join_pieces([draw_sequence(example, task, ratio, settings, markers, rng)])[0]


def draw_sequence(
    example: Example, task: str, ratio: float, settings: InterleaveSettings, markers: Markers, rng: Random
) -> DrawnSequence:
    """As `interleave`, without joining the pieces: `join_pieces` does that for all sequences of a step at once."""
    opening, frame = _frame(task, markers)
    pieces, codes = [opening], [NONE]
    words = replaced = 0
    for segment, closing in frame:
        if segment in (SOURCE, TARGET):
            speech = example.source if segment == SOURCE else example.target
            if speech is None:
                raise InputError(f"the task {task!r} needs {SEGMENTS[segment - 1]} speech, which a pair lacks")
            interleaved = settings.sides in ("both", SEGMENTS[segment - 1])
            parts, spans = interleave_speech(speech, ratio if interleaved else 0.0, settings, markers.mask, rng)
            words += (len(speech.cuts) - 1) * interleaved
            for first, last in spans:
                replaced += last - first
            pieces += parts
            codes += [segment] * (len(parts) + 1)  # the closing marker included
        else:
            text = example.transcript if segment == TRANSCRIPT else example.translation
            if text is None:
                raise InputError(f"the task {task!r} needs the {SEGMENTS[segment - 1]}, which a pair lacks")
            pieces.append(text)
            codes += (segment, segment)
        pieces.append(closing)
    return DrawnSequence(pieces, codes, words, replaced)


def join_pieces(drawn: Items[DrawnSequence]) -> list[TrainingSequence]:
    """The sequences in one piece each: views of two arrays, since numpy takes longer for a call than for a sequence."""
    pieces = [piece for one in drawn for piece in one.pieces]
    lengths = np.fromiter(map(len, pieces), np.int64, len(pieces))
    ids = np.concatenate(pieces)
    segments = np.repeat(np.array([code for one in drawn for code in one.codes], np.uint8), lengths)
    at = np.append(0, np.cumsum(lengths))[np.cumsum([0, *(len(one.pieces) for one in drawn)])].tolist()
    return [
        TrainingSequence(ids[first:last], segments[first:last], one.words, one.replaced)
        for one, first, last in zip(drawn, at, at[1:], strict=False)
    ]


@lru_cache(maxsize=64)
def _frame(task: str, markers: Markers) -> tuple[np.ndarray, list[tuple[int, np.ndarray]]]:
    """What opens a sequence of a task, and its segments, each with the marker that closes it; int32."""
    order = TASKS[task]
    begin = [] if markers.begin is None else [markers.begin]
    closings = [*map(markers.of, order[1:]), markers.end]
    frame = [(segment, np.array([marker], np.int32)) for segment, marker in zip(order, closings, strict=True)]
    return np.array([*begin, markers.of(order[0])], np.int32), frame
