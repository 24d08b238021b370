"""Subtitles by the usual rules: two lines, long enough to be read, not longer than needed; SubRip and WebVTT.

The numbers are those of common style guides for adult viewers: 42 characters a line, 17 a second, at least 5/6 of a
second and at most 7. Full-width characters count twice.
"""

import itertools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from unitweave.core.files import write_text
from unitweave.core.scripts import cluster_starts, join_texts

LINE = 42  # characters
LINES = 2
PER_SECOND = 17.0  # characters
MIN_SECONDS, MAX_SECONDS = 5 / 6, 7.0
GAP_SECONDS = 2 / 24  # between two cues, so that the eye sees the change
_OPENING = re.compile(r"[(\[{“‘«「『（《〈【〔]")
_BEFORE_OPENING = re.compile(rf"(?<=.)(?={_OPENING.pattern})")
_BETWEEN_MARKS = re.compile(r"[\w'’]+[^\w\s'’]*\s*|[^\w\s]+\s*")
_BOUNDARY = "\n"  # behind the last piece of a cue: what follows is another text
_MERGE_SECONDS = 1.0  # silence across which two short texts become one cue


@dataclass(frozen=True)
class Cue:
    """A text shown from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def readable(cues: Sequence[Cue]) -> list[Cue]:
    """Cues that a viewer can read, of texts at the times at which they are spoken.

    Long texts are cut at sentences, clauses and spaces and share their time by their length; short neighbors become
    one cue; a cue stays as long as it takes to read, as far as the next one lets it; lines are wrapped and balanced.
    No word is lost and no two cues overlap.
    """
    pieces = [piece for cue in sorted(cues, key=lambda cue: cue.start) if cue.text.strip() for piece in _cut(cue)]
    return [replace(cue, text=_wrapped(cue.text.strip())) for cue in _timed(_merged(pieces))]


def write_subtitles(stem: Path, cues: Sequence[Cue], language: str = "") -> list[Path]:
    """Write STEM.srt and STEM.vtt, with a language STEM.LANGUAGE.srt and .vtt; returns the files."""
    name = f"{stem.name}.{language}" if language else stem.name
    shown = readable(cues)
    files = [(stem.with_name(name + ".srt"), srt(shown)), (stem.with_name(name + ".vtt"), vtt(shown))]
    for path, content in files:
        write_text(path, content)
    return [path for path, _ in files]


def srt(cues: Sequence[Cue]) -> str:
    """The cues as a SubRip file; cues without a text are left out."""
    shown = [cue for cue in cues if _lines(cue.text)]
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{_lines(cue.text)}\n\n"
        for number, cue in enumerate(shown, 1)
    )


def vtt(cues: Sequence[Cue]) -> str:
    """The cues as a WebVTT file; cues without a text are left out."""
    body = "".join(
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escaped(_lines(cue.text))}\n\n"
        for cue in cues
        if _lines(cue.text)
    )
    return "WEBVTT\n\n" + body


def clock(seconds: float, point: str) -> str:
    """hours:minutes:seconds and milliseconds, as 01:02:03.004 with '.' for the point."""
    whole = max(0, round(seconds * 1000))
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}{point}{whole % 1000:03d}"


def width(text: str) -> int:
    """How many characters wide a text is; full-width ones count twice, combining ones not at all."""
    shown = (c for c in text if unicodedata.category(c) not in ("Mn", "Me", "Cf"))
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in shown)


def _cut(cue: Cue) -> list[Cue]:
    """The cue in pieces of at most two lines and seven seconds, each with its part of the time."""
    words = _words(cue.text)
    total = sum(map(width, words)) or 1
    seconds = max(cue.end - cue.start, 0.0)
    parts = max(-(-width(cue.text) // (LINE * LINES - 8)), -(-seconds // MAX_SECONDS), 1)
    target, pieces, current = total / parts, [], ""
    for i, word in enumerate(words):
        current += word
        rest = words[i + 1] if i + 1 < len(words) else ""
        full = len(_fill(current + rest)) > LINES
        # Past three quarters of a piece the end of a clause ends it, too.
        clause = width(current) > 0.75 * target and re.search(r"[.!?;:,。！？、，；]\s*$", current)
        if rest and (full or width(current) >= target or clause):
            pieces.append(current)
            current = ""
    pieces.append(current)
    cues, at = [], cue.start
    for piece in pieces:
        end = at + seconds * width(piece) / total
        cues.append(Cue(at, end, piece))
        at = end
    cues = [piece for piece in cues if piece.text.strip()]
    return [*cues[:-1], replace(cues[-1], text=cues[-1].text.rstrip() + _BOUNDARY)]


def _words(text: str) -> list[str]:
    """Words with the space behind them; in scripts without spaces, syllables, with their punctuation."""
    lines: list[str] = []
    for word in re.findall(r"\S+\s*", " ".join(text.split())):
        parts: list[str] = []
        for first, last in itertools.pairwise([0, *cluster_starts(word), len(word)]):
            for part in _BEFORE_OPENING.split(word[first:last]):
                # No line begins with a closing mark or ends with an opening one.
                if parts and (_OPENING.fullmatch(parts[-1][-1]) or not (part[0].isalnum() or _OPENING.match(part))):
                    parts[-1] += part
                else:
                    parts.append(part)
        for part in parts:
            lines += _chunks(part) if width(part) > LINE else [part]
    return lines


def _chunks(word: str) -> list[str]:
    """A word that no line holds, such as an address: cut behind its marks, and only else between letters."""
    cut = [re.findall(r".[^\w\s]*\s*", c) if width(c) > LINE // 2 else [c] for c in _BETWEEN_MARKS.findall(word)]
    return list(itertools.chain.from_iterable(cut))


def _merged(cues: Sequence[Cue]) -> list[Cue]:
    """Neighbors as one cue where one of them is too short to be read and both fit."""
    found: list[Cue] = []
    for cue in cues:
        before = found[-1] if found else None
        if (
            before
            and cue.start - before.end <= _MERGE_SECONDS
            and cue.end - before.start <= MAX_SECONDS
            and (_needs(before) > before.end - before.start or _needs(cue) > cue.end - cue.start)
            and len(_fill(_joined(before.text, cue.text))) <= LINES
        ):
            found[-1] = Cue(before.start, max(cue.end, before.end), _joined(before.text, cue.text))
        else:
            found.append(cue)
    return found


def _joined(first: str, second: str) -> str:
    if not first.endswith(_BOUNDARY):  # pieces of one text
        return first + second
    return join_texts((first.rstrip(), second))


def _needs(cue: Cue) -> float:
    """Seconds that it takes to read a cue."""
    return min(max(width(cue.text.strip()) / PER_SECOND, MIN_SECONDS), MAX_SECONDS)


def _timed(cues: Sequence[Cue]) -> list[Cue]:
    """Each cue as long as it takes to read, as far as the next one lets it; the rest is taken before it, if free."""
    found: list[Cue] = []
    for i, cue in enumerate(cues):
        free_until = cues[i + 1].start - GAP_SECONDS if i + 1 < len(cues) else float("inf")
        start = max(cue.start, found[-1].end + GAP_SECONDS) if found else cue.start
        end = max(min(max(cue.end, start + _needs(cue)), free_until, start + MAX_SECONDS), start)
        if end - start < _needs(cue):
            before = found[-1].end + GAP_SECONDS if found else 0.0
            start = max(before, min(start, end - _needs(cue)))
        found.append(Cue(start, max(end, start + 0.1), cue.text))
    return found


def _fill(text: str) -> list[str]:
    """Lines of at most `LINE`, filled one after the other."""
    lines = [""]
    for word in _words(text):
        if lines[-1] and width((lines[-1] + word).rstrip()) > LINE:
            lines.append("")
        lines[-1] += word
    return [line.strip() for line in lines]


def _wrapped(text: str) -> str:
    """In one line where it fits, else in two of about the same length."""
    words = _words(text)
    if width(text) <= LINE or len(words) < LINES:
        return text
    halves = [("".join(words[:i]).strip(), "".join(words[i:]).strip()) for i in range(1, len(words))]

    def unevenness(pair: Iterable[str]) -> tuple[int, int]:
        first, second = pair
        return max(width(first), width(second)), -width(second)

    return "\n".join(min(halves, key=unevenness))


def _lines(text: str) -> str:
    return "\n".join(line for line in (" ".join(line.split()) for line in text.split("\n")) if line)


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
