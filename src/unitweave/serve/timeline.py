"""A waveform with its words below it, as a piece of SVG for the page."""

import unicodedata
from collections.abc import Sequence
from html import escape

import numpy as np

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.scripts import join_words

_BARS, _HEIGHT = 250, 64
_WIDTH = 4 * _BARS
_REM_PER_SECOND = 5.0  # a narrower page scrolls
_MAX_ROWS = 4


def timeline(
    waveform: np.ndarray, words: Sequence[tuple[str, float, float]], label: str, sampling_rate: int = SAMPLE_RATE
) -> str:
    """The waveform as bars, and below it each word at its time. All text is escaped.

    Args:
        waveform: The samples.
        words: Text, start and end in seconds. Words that have no time are listed at the end.
        label: The caption.
        sampling_rate: Of the waveform, in Hz.
    """
    seconds = max(len(waveform) / sampling_rate, 1e-3)
    bars = "".join(
        f'<rect x="{4 * i}" y="{(_HEIGHT - height) / 2:.1f}" width="2.6" height="{height:.1f}" rx="1.3"/>'
        for i, height in enumerate(_heights(waveform))
    )
    timed = [(word, start, end) for word, start, end in words if end > start]
    total = max([_REM_PER_SECOND * seconds, *(_text_width(word) for word, _, _ in timed)])
    rows = _rows(timed, seconds, total)
    marks = "".join(
        f'<span style="{_place(word, start, end, seconds, total)};top:{1.7 * row:.1f}em" '
        f'title="{escape(word)}, {start:.2f} to {end:.2f} s">{escape(word)}</span>'
        for (word, start, end), row in zip(timed, rows, strict=True)
    )
    untimed = escape(join_words(" ".join(word for word, start, end in words if end <= start)))
    rest = f'<p class="uw-rest">without a time: {untimed}</p>' if untimed else ""
    width = f"{total:.1f}rem"
    return (
        f'<figure class="uw-line"><figcaption>{escape(label)} <small>{seconds:.1f} s</small>'
        # As wide as its text where the words are wider than the page, else nothing.
        f'<small class="uw-hint" style="max-width:clamp(0px,calc(({width} - 100%)*999),12rem)">scroll sideways &rarr;'
        f'</small></figcaption><div class="uw-scroll" tabindex="0" role="region" aria-label="{escape(label)}">'
        f'<div style="min-width:{width}"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" preserveAspectRatio="none" role="img" '
        f'aria-label="waveform: {escape(label)}">{bars}</svg>'
        f'<div class="uw-words" style="height:{1.7 * (1 + max(rows, default=0)):.1f}em">{marks}</div></div></div>{rest}'
        "</figure>"
    )


def _place(word: str, start: float, end: float, seconds: float, total: float) -> str:
    """Where a word stands, and how long its line is. Near the end its text ends where the word does."""
    width = f"{100 * (end - start) / seconds:.2f}%"
    if _is_last(word, start / seconds * total, total):
        return f"right:{100 * max(0.0, 1 - end / seconds):.2f}%;min-width:{width};text-align:right"
    return f"left:{100 * start / seconds:.2f}%;width:{width}"


def _is_last(word: str, place: float, total: float) -> bool:
    return place + _text_width(word) > total


def _rows(words: Sequence[tuple[str, float, float]], seconds: float, total: float) -> list[int]:
    """For each word the first row in which it does not touch the one before it, so that none has to be cut."""
    ends: list[float] = []
    rows: list[int] = []
    for word, start, end in words:
        place = start / seconds * total
        if _is_last(word, place, total):
            place = end / seconds * total - _text_width(word)
        free = [row for row, taken in enumerate(ends) if taken <= place]
        if not free and len(ends) < _MAX_ROWS:
            ends.append(0.0)
            free = [len(ends) - 1]
        row = free[0] if free else int(np.argmin(ends))
        ends[row] = place + _text_width(word)
        rows.append(row)
    return rows


def _text_width(word: str) -> float:
    """About how wide a word is, in rem."""
    return 0.4 + sum(0.9 if unicodedata.east_asian_width(letter) in "WF" else 0.5 for letter in word)


def _heights(waveform: np.ndarray) -> list[float]:
    if len(waveform) == 0:
        return []
    parts = np.array_split(np.abs(waveform), min(_BARS, len(waveform)))
    peaks = np.array([float(part.max()) for part in parts])
    return (2 + (_HEIGHT - 2) * peaks / max(float(peaks.max()), 1e-4)).tolist()


CSS = """
.uw-line { margin: 0 0 1rem; }
.uw-line figcaption { font-weight: 600; margin-bottom: .25rem; }
.uw-line small { font-weight: 400; opacity: .75; }
.uw-hint { display: inline-block; overflow: hidden; white-space: nowrap; vertical-align: bottom; float: right; }
.uw-scroll { overflow-x: auto; scrollbar-width: thin; scrollbar-color: #0f766e transparent;
  background: linear-gradient(to right, var(--background-fill-primary) 30%, transparent) left / 3rem 100% local,
    linear-gradient(to left, var(--background-fill-primary) 30%, transparent) right / 3rem 100% local,
    linear-gradient(to right, #0f766e44, transparent) left / 1rem 100% scroll,
    linear-gradient(to left, #0f766e44, transparent) right / 1rem 100% scroll;
  background-repeat: no-repeat; }
.uw-scroll:focus-visible { outline: 2px solid #0f766e; }
.uw-line svg { width: 100%; height: 56px; display: block; fill: #0f766e; margin: 0; }
.uw-words { position: relative; font-size: .8rem; line-height: 1.6em; }
.uw-words span { position: absolute; white-space: nowrap; box-sizing: border-box; border-top: 2px solid #0f766e;
  padding-top: 1px; }
.uw-rest { font-size: .8rem; opacity: .75; margin: .2rem 0 0; }
.uw-message { padding: .6rem .8rem; border-radius: .5rem; border-left: 4px solid #0f766e; background: #0f766e18; }
.uw-message.uw-error { border-color: #b91c1c; background: #b91c1c18; }
"""
