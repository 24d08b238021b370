"""Characters below the level of words: scripts without spaces, invisible characters, and compatibility forms."""

import itertools
import re
import unicodedata
from collections.abc import Iterable
from functools import cache

# Scripts that are written without spaces between words.
_HAN = (
    "\u2e80-\u2fdf\u3005-\u3007\u3021-\u3029\u3038-\u303b\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_KANA = "\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f\U0001b000-\U0001b16f"
_BOPOMOFO = "\u3105-\u312f\u31a0-\u31bf"
_THAI_LAO = "\u0e01-\u0e4e\u0e81-\u0ece\u0edc-\u0edf"
_OTHERS = (
    "\u1000-\u103f\u104c-\u108f\u109a-\u109f\ua9e0-\ua9ef\ua9fa-\ua9fe\uaa60-\uaa7f"  # Myanmar
    "\u1780-\u17d3\u17d7\u17dc\u17dd"  # Khmer
    "\u1950-\u1974\u1980-\u19c9\u1a20-\u1a7c\uaa80-\uaadf"  # Tai Le, New Tai Lue, Tai Tham, Tai Viet
    "\ua980-\ua9c0\u1b00-\u1b4c"  # Javanese, Balinese
)
SPACELESS = _HAN + _KANA + _BOPOMOFO + _THAI_LAO + _OTHERS
_WIDE_PUNCTUATION = "\u3000-\u3003\u3008-\u3020\u3030\u303d\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_FULL_WIDTH = re.compile(f"[{_HAN}{_KANA}{_BOPOMOFO}{_WIDE_PUNCTUATION}]")
_STACKERS = "\u17d2\u1039\u1a60\ua9c0\u1b44"  # the consonant that follows is written below this one
_BEFORE = "\u0e40-\u0e44\u0ec0-\u0ec4"  # Thai and Lao vowels that are written before the consonant they follow
_AFTER = "\u0e30\u0e32\u0e33\u0e45\u0eb0\u0eb2\u0eb3\u102b\u102c"  # vowels that are letters and never begin a syllable


@cache
def _marks() -> str:
    """All combining marks, as the inside of a character class."""
    marks = [chr(c) for c in range(0x300, 0x20000) if unicodedata.category(chr(c)).startswith("M")]
    return re.escape("".join(marks))


@cache
def _cluster_pattern() -> re.Pattern[str]:
    base = f"(?:[{_BEFORE}]?[{SPACELESS}](?<![{_BEFORE}])|[{_BEFORE}])"
    tail = f"(?:[{_STACKERS}][{SPACELESS}]|[{_marks()}{_AFTER}])*"
    return re.compile(f"{base}{tail}")


def cluster_starts(text: str) -> list[int]:
    """Where the written syllables and ideographs of scripts without spaces begin, and where something else follows.

    A cluster is a letter of such a script with its marks, the consonants stacked below it and the vowels written
    around it: what a span of interleaved text, and an alignment, can be made of.
    """
    starts: list[int] = []
    if _spaceless().search(text) is not None:
        for match in _cluster_pattern().finditer(text):
            starts += [match.start(), match.end()]
    return sorted({start for start in starts if 0 < start < len(text)})


def split_clusters(text: str) -> str:
    """The text with spaces around the clusters of scripts without spaces; the reverse of `join_words`."""
    if text.isascii() or not (cuts := cluster_starts(text)):
        return text
    parts = [text[a:b] for a, b in itertools.pairwise([0, *cuts, len(text)])]
    return " ".join(" ".join(parts).split())


@cache
def _spaceless() -> re.Pattern[str]:
    return re.compile(f"[{SPACELESS}]")


@cache
def _needless_space() -> re.Pattern[str]:
    wide = SPACELESS + _WIDE_PUNCTUATION
    # Not where the two would become one cluster.
    return re.compile(f"(?<=[{wide}{_marks()}])(?<![{_BEFORE}{_STACKERS}]) (?=[{wide}])(?![{_AFTER}])")


def follows_wide_punctuation(text: str, place: int) -> bool:
    """Whether a letter or digit of a script with spaces stands right behind punctuation of one without."""
    return place > 0 and text[place].isalnum() and re.fullmatch(f"[{_WIDE_PUNCTUATION}]", text[place - 1]) is not None


def join_words(text: str) -> str:
    """Words with single spaces between them as running text, in which scripts without spaces have none."""

    def closed(match: re.Match[str]) -> str:
        before = match.start() - 1
        while before > 0 and unicodedata.category(text[before]).startswith("M"):
            before -= 1
        return "" if _wide().fullmatch(text[before]) else " "

    return _needless_space().sub(closed, text) if not text.isascii() else text


def join_texts(texts: Iterable[str]) -> str:
    """Texts one behind the other, with a space between two unless both are of Chinese or Japanese there.

    A space within a text stays: Thai has them between sentences.
    """
    whole = ""
    for text in filter(None, texts):
        closed = whole and _FULL_WIDTH.match(whole[-1]) and _FULL_WIDTH.match(text[0])
        whole += text if closed or not whole else f" {text}"
    return whole


@cache
def _wide() -> re.Pattern[str]:
    return re.compile(f"[{SPACELESS}{_WIDE_PUNCTUATION}]")


def without_invisible(text: str, keep_joiners: bool = False) -> str:
    """The text without characters that have no shape of their own.

    These are format characters (soft hyphen, zero-width spaces, marks of direction), variation selectors, fillers
    and the sign that encloses a keycap.

    Args:
        text: Any text.
        keep_joiners: Keep the zero-width joiner and non-joiner, which shape the letters beside them, and what belongs
            to an emoji.
    """
    if text.isascii():
        return text
    return "".join(c for c in text if not _is_invisible(c) or (keep_joiners and c in _SHAPING))


_SHAPING = "\u200c\u200d\ufe0e\ufe0f\u20e3"
_IGNORED = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2065\u20dd-\u20e0\u20e2-\u20e4\u3164\ufe00-\ufe0f\uffa0\U000e0000-\U000e0fff]"
)


def _is_invisible(character: str) -> bool:
    return unicodedata.category(character) == "Cf" or _IGNORED.match(character) is not None


# Marks that show how a word is read and that most texts leave out: Hebrew points and accents, Arabic vowel signs.
_POINTING = re.compile(
    "[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7"
    "\u06e8\u06ea-\u06ed\u08d3-\u08e1\u08e3-\u08ff]"
)
_POINTED_LANGUAGES = ("yi",)  # in which they tell letters apart
# Letters that look the same and have a code for each of several languages.
_LETTERS_OF = {
    "ro": str.maketrans("ŞşŢţ", "ȘșȚț"),
    **dict.fromkeys(("fa", "ur"), str.maketrans("يك", "یک")),
    "ar": str.maketrans("یک", "يك"),
}
_CHILLU = dict(zip("ണനരലളക", "ൺൻർൽൾൿ", strict=True)) | {"ত": "ৎ"}


def _tones_first(typed: str, vowel: str) -> str:
    """Thai or Lao AM vowels, some in two parts, behind their tone marks."""
    tones = [c for c in typed if "\u0e48" <= c <= "\u0e4b" or "\u0ec8" <= c <= "\u0ecb"]
    return "".join(tones) + vowel * sum(c in "\u0e32\u0e33\u0eb2\u0eb3" for c in typed)


_SEQUENCES = (  # what is typed for one letter, or in another order than Unicode's
    (re.compile("([ണനരലളക])\u0d4d\u200d|(ত)\u09cd\u200d"), lambda match: _CHILLU[match[1] or match[2]]),
    (re.compile("เเ"), "แ"),
    (re.compile("ເເ"), "ແ"),
    # A tone mark stands before the vowels that it is typed after, however many there are: else each pass moves it on.
    (
        re.compile("(?:(?:\u0e4d[\u0e48-\u0e4b]?\u0e32|\u0e33)[\u0e48-\u0e4b]*)+"),
        lambda m: _tones_first(m[0], "\u0e33"),
    ),
    (
        re.compile("(?:(?:\u0ecd[\u0ec8-\u0ecb]?\u0eb2|\u0eb3)[\u0ec8-\u0ecb]*)+"),
        lambda m: _tones_first(m[0], "\u0eb3"),
    ),
    (re.compile("(?<=[一二三四五六七八九〇○])[○◯]|[○◯](?=[一二三四五六七八九])"), "〇"),
)


def one_spelling(text: str, language: str) -> str:
    """The text with one spelling of what looks the same: letters of another language, sequences, signs of reading.

    Args:
        text: In NFC, with its invisible characters, of which Indic letters are made.
        language: ISO 639-1 code.
    """
    if text.isascii():
        return text
    if max(text) >= "\u0590":
        for pattern, letter in _SEQUENCES:
            text = pattern.sub(letter, text)
        if language not in _POINTED_LANGUAGES:
            text = _POINTING.sub("", text)
    return text.translate(_LETTERS_OF[language]) if language in _LETTERS_OF else text


def plain_forms(text: str) -> str:
    """Compatibility characters in their ordinary form: ligatures, full- and half-width, presentation and styled forms.

    What Unicode's NFKC does to letters and digits, and to full-width punctuation, but not what changes what is said
    or how a script is written: fractions, superscript digits, symbols and the ordinals ª and º stay, and so do Thai
    and Lao vowels and single jamo.
    """
    if text.isascii():
        return text
    return "".join(_plain(c) if ord(c) > 0xA0 else c for c in text)


@cache
def _plain(character: str) -> str:
    kind = unicodedata.decomposition(character).partition(">")[0].lstrip("<") if character else ""
    code = ord(character)
    if not unicodedata.decomposition(character).startswith("<") or character in "ªº":
        return character
    if 0x0E00 <= code < 0x1000 or 0x3130 <= code < 0x3190:
        return character
    letter = unicodedata.category(character)[0] in "LM" or unicodedata.category(character) in ("Nd", "Nl")
    return unicodedata.normalize("NFKC", character) if letter or kind in ("wide", "narrow") else character
