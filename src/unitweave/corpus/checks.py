"""What makes a row of a corpus unusable, in the words of its list of skipped rows."""

import re
import unicodedata

from unitweave.config.corpus import RowLimits
from unitweave.core.audio import TOO_LONG

NO_WORDS = "no words in the text"


def audio_problem(seconds: float, limits: RowLimits) -> tuple[str, str] | None:
    """Reason and detail where a recording's duration is absurd."""
    if seconds < limits.min_seconds:
        return "the recording is too short", f"{seconds:.3f} s"
    if seconds > limits.max_seconds:
        return TOO_LONG, f"{seconds:.1f} s"
    return None


def text_problem(raw: str, normalized: str) -> tuple[str, str] | None:
    """Reason and detail where a text cannot be trained on."""
    if damaged := encoding_problem(raw):
        return "the text has the wrong encoding", damaged
    if any(unicodedata.category(c) == "Cc" and c not in "\t\r\n" for c in raw):
        return "control characters in the text", repr(raw)[:80]
    if not normalized:
        return NO_WORDS, repr(raw)[:80]
    return None


def pace_problem(normalized: str, seconds: float, limits: RowLimits) -> tuple[str, str] | None:
    """Reason and detail where this text cannot have been spoken in this time.

    Letters are counted, and not words, so that one limit holds for languages of long words, of short
    ones, and of none between spaces. 40 letters a second are also about what CTC can align.
    """
    letters = sum(not c.isspace() for c in normalized)
    pace = letters / max(seconds, 1e-6)
    detail = f"{letters} letters in {seconds:.2f} s"
    if pace > limits.max_letters_per_second:
        return "too much text for the recording", detail
    if pace < limits.min_letters_per_second:
        return "too little text for the recording", detail
    return None


def encoding_problem(text: str) -> str:
    """What shows that a text was read in another encoding than it was written in; "" where nothing does."""
    if "\ufffd" in text or re.search(r"[\ud800-\udfff]", text):
        return "bytes that are not UTF-8"
    if text.isascii():
        return ""
    for encoding in ("cp1252", "latin-1"):
        try:
            repaired = text.encode(encoding).decode("utf-8")
        except UnicodeError:
            continue
        return f"UTF-8 read as {encoding}: {text[:40]!r} should be {repaired[:40]!r}"
    return ""
