"""What makes a row of a corpus unusable, in the words of its list of skipped rows."""

import itertools
import re
import unicodedata

from unitweave.config.corpus import RowLimits
from unitweave.core.audio import TOO_LONG

NO_WORDS = "no words in the text"
_SEQUENCE = re.compile(rb"[\xc2-\xf4][\x80-\xbf]{1,3}")  # a character of more than one byte in UTF-8
_CLOSING = "»›”’…–—·®™°ºª²³¹\xa0"  # what may follow a letter in any text
_MARKUP = re.compile(r"&(?:#\d+|#[xX][\da-fA-F]+|[A-Za-z]{2,8}\d?);|</?[A-Za-z][^<>]{0,200}>")  # of HTML, XML, SSML
_WORD = re.compile(r"[^\W\d_]+")
_DISTINCT = 4  # different letters of a word that show that it is one


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
    if match := _MARKUP.search(raw):
        return "markup in the text", match[0][:80]
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
    if re.search(r"[\udc80-\udcff]", text):  # bytes that did not fit, as they were read
        repaired = text.encode("utf-8", "surrogateescape").decode("cp1252", "replace")
        return f"bytes that are not UTF-8; with --encoding cp1252 it is {repaired[:40]!r}"
    if "\ufffd" in text or re.search(r"[\ud800-\udfff]", text):
        return "bytes that are not UTF-8"
    if text.isascii():
        return ""
    for encoding in ("cp1252", "latin-1", "cp1251", "cp1250", "mac-roman", "cp437"):
        if repaired := _read_as(text, encoding):
            return f"UTF-8 read as {encoding}: {text[:40]!r} should be {repaired[:40]!r}"
    for encoding in ("cp1251", "koi8-r", "cp1253"):
        if repaired := _latin_for(text, encoding):
            return f"{encoding} read as cp1252: {text[:40]!r} should be {repaired[:40]!r}"
    return ""


def _read_as(text: str, encoding: str) -> str:
    """What a text would be if its UTF-8 had been read in `encoding`; "" where that is not what happened.

    Rightly read text, too, can be valid UTF-8 by chance: an accented capital and a closing quotation mark or the like
    ("CAFÉ»"). So at least one sequence must be of another kind.
    """
    try:
        raw = text.encode(encoding)
        repaired = raw.decode("utf-8")
    except UnicodeError:
        return ""
    sequences = _SEQUENCE.findall(raw)
    odd = 0
    for match in _SEQUENCE.finditer(raw):
        read, behind = match[0].decode(encoding), raw[match.end() : match.end() + 1].decode("latin-1")
        closes = all(c in _CLOSING for c in read[1:]) and not behind.isalpha()
        odd += not (closes or (len(sequences) == 1 and read.isalpha()))
    return repaired if odd and not any(unicodedata.category(c) in ("Cc", "Cn", "Co") for c in repaired) else ""


def _latin_for(text: str, encoding: str) -> str:
    """What a text in Cyrillic or Greek letters would be if its `encoding` had been read as cp1252; "" else.

    Every letter of its words is then an accented Latin one, which no language has in words of any length.
    """
    words = _WORD.findall(text)
    if not any(len(set(word.lower())) >= _DISTINCT and all("\xc0" <= c <= "\xff" for c in word) for word in words):
        return ""
    try:
        repaired = text.encode("cp1252").decode(encoding)
    except UnicodeError:
        return ""
    letters = [c for c in repaired if c.isalpha() and not c.isascii()]
    # Words begin with capitals, if any: KOI8-R has small letters where cp1251 has capitals.
    odd = sum(a.islower() and b.isupper() for a, b in itertools.pairwise(repaired))
    return repaired if letters and odd == 0 else ""
