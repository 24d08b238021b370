"""A waveform with its words below it, as a piece of SVG for the page."""

from collections.abc import Sequence
from html import escape

import numpy as np

from unitweave.core.audio import SAMPLE_RATE

_BARS, _HEIGHT = 250, 64
_WIDTH = 4 * _BARS


def timeline(waveform: np.ndarray, words: Sequence[tuple[str, float, float]], label: str) -> str:
    """The waveform [samples at 16 kHz] as bars, and every word (text, begin, end in seconds) where it is said.

    Words that have no time are listed below. All text is escaped.
    """
    seconds = max(len(waveform) / SAMPLE_RATE, 1e-3)
    bars = "".join(
        f'<rect x="{4 * i}" y="{(_HEIGHT - height) / 2:.1f}" width="2.6" height="{height:.1f}" rx="1.3"/>'
        for i, height in enumerate(_heights(waveform))
    )
    timed = [(word, start, end) for word, start, end in words if end > start]
    marks = "".join(
        f'<span style="left:{100 * start / seconds:.2f}%;width:{100 * (end - start) / seconds:.2f}%" '
        f'title="{escape(word)}, {start:.2f} to {end:.2f} s">{escape(word)}</span>'
        for word, start, end in timed
    )
    untimed = " ".join(escape(word) for word, start, end in words if end <= start)
    rest = f'<p class="uw-rest">without a time: {untimed}</p>' if untimed else ""
    return (
        f'<figure class="uw-line"><figcaption>{escape(label)} <small>{seconds:.1f} s</small></figcaption>'
        f'<div style="min-width:{4 * len(words)}rem"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        f'preserveAspectRatio="none" role="img" '
        f'aria-label="waveform: {escape(label)}">{bars}</svg><div class="uw-words">{marks}</div></div>{rest}</figure>'
    )


def _heights(waveform: np.ndarray) -> list[float]:
    if len(waveform) == 0:
        return []
    parts = np.array_split(np.abs(waveform), min(_BARS, len(waveform)))
    peaks = np.array([float(part.max()) for part in parts])
    return (2 + (_HEIGHT - 2) * peaks / max(float(peaks.max()), 1e-4)).tolist()


CSS = """
.uw-line { margin: 0 0 1rem; overflow-x: auto; }
.uw-line figcaption { font-weight: 600; margin-bottom: .25rem; }
.uw-line small { font-weight: 400; opacity: .7; }
.uw-line svg { width: 100%; height: 56px; display: block; fill: #0f766e; }
.uw-words { position: relative; height: 1.6em; font-size: .8rem; }
.uw-words span { position: absolute; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: center;
  box-sizing: border-box; border-top: 2px solid #0f766e; border-left: 1px solid transparent; padding-top: 1px; }
.uw-words span:hover { overflow: visible; z-index: 2; background: var(--background-fill-primary);
  min-width: max-content; }
.uw-rest { font-size: .8rem; opacity: .7; margin: .2rem 0 0; }
.uw-message { padding: .6rem .8rem; border-radius: .5rem; border-left: 4px solid #0f766e; background: #0f766e18; }
.uw-message.uw-error { border-color: #b91c1c; background: #b91c1c18; }
"""
