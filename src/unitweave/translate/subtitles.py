"""Subtitles: SubRip (.srt) and WebVTT (.vtt)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Cue:
    """A text shown from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def srt(cues: Sequence[Cue]) -> str:
    """The cues as a SubRip file; cues without a text are left out."""
    shown = [cue for cue in cues if _line(cue.text)]
    return "".join(
        f"{number}\n{clock(cue.start, ',')} --> {clock(cue.end, ',')}\n{_line(cue.text)}\n\n"
        for number, cue in enumerate(shown, 1)
    )


def vtt(cues: Sequence[Cue]) -> str:
    """The cues as a WebVTT file; cues without a text are left out."""
    body = "".join(
        f"{clock(cue.start, '.')} --> {clock(cue.end, '.')}\n{_escaped(_line(cue.text))}\n\n"
        for cue in cues
        if _line(cue.text)
    )
    return "WEBVTT\n\n" + body


def clock(seconds: float, point: str) -> str:
    """hours:minutes:seconds and milliseconds, as 01:02:03.004 with '.' for the point."""
    whole = max(0, round(seconds * 1000))
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}{point}{whole % 1000:03d}"


def _line(text: str) -> str:
    return " ".join(text.split())


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
