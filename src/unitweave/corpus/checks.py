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
# What texts of a language were written in before UTF-8, and its own letters among the accented ones.
_LEGACY = {
    **dict.fromkeys(("ru", "uk", "be", "bg", "sr", "mk"), ("cp1251", "koi8-r", "cp866")),
    "el": ("cp1253",), "he": ("cp1255",), **dict.fromkeys(("ar", "fa", "ur"), ("cp1256",)), "th": ("cp874",),
    "ja": ("cp932", "euc-jp"), "zh": ("gbk", "big5"), "ko": ("cp949",),
    **dict.fromkeys(("pl", "cs", "sk", "hu", "ro", "sl", "hr"), ("cp1250", "iso8859-2")),
    "tr": ("cp1254",), "lt": ("cp1257",), "lv": ("cp1257",),
}  # fmt: skip
_LETTERS = {
    "pl": "ąćęłńóśźż", "cs": "áčďéěíňóřšťúůýž", "sk": "áäčďéíĺľňóôŕšťúýž", "hu": "áéíóöőúüű", "ro": "ăâîșşțţ",
    "sl": "čšž", "hr": "čćđšž", "tr": "çğıİöşü", "lt": "ąčęėįšųūž", "lv": "āčēģīķļņšūž",
}  # fmt: skip
_BOXES = re.compile("[\u2500-\u259f]")  # of old screens, in no text that somebody says


def audio_problem(seconds: float, limits: RowLimits) -> tuple[str, str] | None:
    """Reason and detail where a recording's duration is absurd."""
    if seconds < limits.min_seconds:
        return "the recording is too short", f"{seconds:.3f} s"
    if seconds > limits.max_seconds:
        return TOO_LONG, f"{seconds:.1f} s"
    return None


def text_problem(raw: str, normalized: str, language: str) -> tuple[str, str] | None:
    """Reason and detail where a text cannot be trained on."""
    if damaged := encoding_problem(raw, language):
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


def encoding_problem(text: str, language: str) -> str:
    """What shows that a text was read in another encoding than it was written in; "" where nothing does."""
    legacy = _LEGACY.get(language, ())
    if re.search(r"[\udc80-\udcff]", text):  # bytes that did not fit, as they were read
        encoding = legacy[0] if legacy else "cp1252"
        repaired = text.encode("utf-8", "surrogateescape").decode(encoding, "replace")
        return f"bytes that are not UTF-8; with --encoding {encoding} it is {repaired[:40]!r}"
    if "\ufffd" in text or re.search(r"[\ud800-\udfff]", text):
        return "bytes that are not UTF-8"
    if text.isascii():
        return ""
    for encoding in ("cp1252", "latin-1", "cp1251", "cp1250", "cp1254", "mac-roman", "cp437", "cp850", "koi8-r"):
        if repaired := _read_as(text, encoding):
            return f"UTF-8 read as {encoding}: {text[:40]!r} should be {repaired[:40]!r}"
    for encoding in ("gbk", "cp932", "cp949"):
        if repaired := _read_as_ideographs(text, encoding):
            return f"UTF-8 read as {encoding}: {text[:40]!r} should be {repaired[:40]!r}"
    for encoding in legacy:
        if repaired := _legacy_text(text, encoding, _LETTERS.get(language)):
            return f"{encoding} read as cp1252 or Latin-1: {text[:40]!r} should be {repaired[:40]!r}"
    for encoding in ("cp1251", "koi8-r", "cp1253"):
        if repaired := _latin_for(text, encoding):
            return f"{encoding} read as cp1252: {text[:40]!r} should be {repaired[:40]!r}"
    if match := _BOXES.search(text):
        return f"a box-drawing character, {match[0]!r}"
    if odd := _cyrillic_within_latin(text):
        return f"cp1252 read as cp1251: {odd!r} should be {odd.encode('cp1251').decode('cp1252', 'replace')!r}"
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
        before = raw[: match.start()][-1:].decode("latin-1")
        closes = all(c in _CLOSING for c in read[1:]) and not behind.isalpha()
        # No capital follows a small letter, and no space a no-break space.
        closes = (
            closes
            and not (before.islower() and read[0].isupper())
            and not re.fullmatch("\xa0[ .,]?", read[1:] + behind)
        )
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


def _read_as_ideographs(text: str, encoding: str) -> str:
    """As `_read_as`, for an encoding in which two bytes are one ideograph; short texts are valid UTF-8 by chance."""
    try:
        raw = text.encode(encoding)
        repaired = raw.decode("utf-8")
    except UnicodeError:
        return ""
    beside_latin = re.search(r"[A-Za-z][\u3400-\u9fff\uff61-\uff9f]|[\u3400-\u9fff\uff61-\uff9f][a-z]", text)
    return repaired if len(_SEQUENCE.findall(raw)) >= (1 if beside_latin else 4) else ""


def _legacy_text(text: str, encoding: str, letters: str | None) -> str:
    """What a text would be if its `encoding` had been read as cp1252 or Latin-1; "" where that is not what happened.

    Args:
        text: The text.
        encoding: In which it may have been written.
        letters: Those that the language has beside a to z; None for languages of another script.
    """
    for read in ("cp1252", "latin-1"):
        try:
            repaired = text.encode(read).decode(encoding)
        except UnicodeError:
            continue
        foreign = [c for c in text if not c.isascii()]
        if letters is None:
            latin = sum(c.isalpha() and c.isascii() for c in text)
            letters_behind = [c for c in repaired if c.isalpha() and not c.isascii()]
            other_script = any(map(str.isalpha, foreign)) and letters_behind and min(letters_behind) > "\u02ff"
            if other_script and len(foreign) > max(1, latin):
                return repaired
        else:
            changed = [(a, b) for a, b in zip(text, repaired, strict=True) if a != b]
            of_language = all(b.lower() in letters for _, b in changed)
            if changed and of_language and (len(changed) > 1 or not changed[0][0].isalpha()):
                return repaired
    return ""


def _cyrillic_within_latin(text: str) -> str:
    """A word of Latin and Cyrillic letters in a text of Latin ones; "" where there is none."""
    cyrillic, latin = (len(re.findall(letters, text)) for letters in ("[Ѐ-ӿ]", "[A-Za-z]"))
    if not cyrillic or latin <= 2 * cyrillic:
        return ""
    words = (word for word in _WORD.findall(text) if re.search("[a-z][Ѐ-ӿ]|[Ѐ-ӿ][a-z]", word))
    return next((word for word in words if all(c.isascii() or "Ѐ" <= c <= "ӿ" for c in word)), "")
