"""Text as it is trained on and scored: one explicit normalization, written down in manifests as NORMALIZER.

What `normalize` does, in this order
    1. NFC; compatibility characters in their ordinary form (ligatures, full- and half-width, presentation forms);
       characters that nobody sees deleted (soft hyphen, zero-width characters, marks of direction, variation
       selectors), and the Arabic tatweel; one spelling of what looks the same (Romanian ş and ș, Persian and Arabic
       ک and ك, Thai เเ and แ); Hebrew points and Arabic vowel signs deleted, which most texts and recognizers leave out
    2. numbers that are read in their own way (`spoken_numbers`: times, years, telephone numbers, 1/2, 10–12, siglo XX),
       and signs that are read aloud written out where the language has words for them here (`spoken_signs`): percent,
       currencies behind their number, degrees, km/h, fractions, squares, &, +, =, @, №, §, ×
    3. numbers written out in the language (num2words): integers, ordinals where the language marks
       them with letters, decimals with each digit behind the point by itself; thousands may be grouped; more than
       15 digits, and three or more that begin with 0, are read one by one. Languages that num2words lacks (Chinese,
       Greek, Hindi, Estonian, ...) keep their digits.
    4. lower case (Turkish and Azerbaijani I is ı; İ is i everywhere)
    5. typographic apostrophes become '; one between two letters stays, every other goes; marks that Armenian and
       Hebrew write within a word (of stress, of an abbreviation) do not divide it
    6. hyphens, all other punctuation and symbols become spaces; letters, accents and vowel signs stay,
       and so does the dot of the Catalan l·l; a mark that belongs to no letter goes
    7. scripts without spaces (Chinese, Japanese, Thai, Lao, Khmer, Burmese, ...): every ideograph, kana or cluster of a
       consonant with its vowels and marks is a word of its own, so that word error rate is about character error rate
       there and spans have something to count; Latin words and digits stay whole
    8. white space becomes single spaces, none at the ends

Applying it twice changes nothing. A release that changes any rule has a new name in NORMALIZER.
"""

import functools
import re
import unicodedata

from num2words import num2words

from unitweave.core.languages import language_code
from unitweave.core.scripts import one_spelling, plain_forms, split_clusters, without_invisible
from unitweave.core.spoken_numbers import rewritten
from unitweave.core.spoken_signs import written_out

NORMALIZER = "unitweave-3"

_APOSTROPHES = str.maketrans(dict.fromkeys("’‘‛ʼʻʹ′´`＇׳", "'") | dict.fromkeys("՛՜՞", None))
_GERSHAYIM = re.compile('(?<=[א-ת])[״"](?=[א-ת])')
# num2words' own names of languages
_NUM2WORDS = {"kk": "kz", "nb": "no", "nn": "no"}
_CYRILLIC = {
    **dict(zip("abvgdđežzijklmnoprstćufhcčš", "абвгдђежзијклмнопрстћуфхцчш", strict=True)),
    **{"lj": "љ", "nj": "њ", "dž": "џ"},
}
# 1,234.5; the others write 1.234,5
_POINT_LANGUAGES = {
    "en", "cy", "zh", "ja", "ko", "th", "my", "km", "ms", "tl", "mn", "ta", "te", "kn", "ml", "si", "hi", "bn", "mr",
    "gu", "pa", "ur", "ne", "he", "sw", "am", "ga", "mt",
}  # fmt: skip
# A plain space groups thousands: 1 234,5. In other languages with a comma only where a group begins with 0: 1 000.
_SPACE_LANGUAGES = {
    "fr", "ru", "uk", "be", "bg", "pl", "cs", "sk", "hu", "fi", "et", "lv", "lt", "sv", "no", "nb", "nn",
}  # fmt: skip
_DOTLESS = ("tr", "az")  # in which the small letter of I is ı
_MAX_LEADING_ZERO = 2  # digits; longer numbers that begin with 0 are no quantities
_MAX_DIGITS = 15  # longer ones are telephone or serial numbers
# num2words' own decimals are wrong in several languages: 12.05 is "twelve and a half" in Persian.
_FEMININE = {"fr": "ères?|res?", **dict.fromkeys(("es", "it", "pt", "ca"), r"\.?ª|.a")}
_CYRILLIC_LETTER = re.compile("[\u0400-\u04ff]")
_POINTS = {
    "ar": "فاصلة", "az": "vergül", "be": "коска", "bn": "দশমিক", "ca": "coma", "cs": "celá", "cy": "pwynt",
    "da": "komma", "de": "komma", "en": "point", "es": "coma", "fa": "ممیز", "fi": "pilkku", "fr": "virgule",
    "he": "נקודה", "hu": "egész", "id": "koma", "it": "virgola", "ja": "点", "ko": "점", "lv": "komats", "nb": "komma",
    "nl": "komma", "nn": "komma", "no": "komma", "pl": "przecinek", "pt": "vírgula", "ro": "virgulă", "ru": "запятая",
    "sl": "vejica", "sv": "komma", "th": "จุด", "tr": "virgül", "uk": "кома", "vi": "phẩy",
}  # fmt: skip
_ORDINALS = {
    "en": "st|nd|rd|th",
    "fr": "ers?|ères?|res?|es?|èmes?|nde?s?",
    "nl": "e|ste|de",
    "sv": ":?[ae]",
    "ru": "-?(?:ый|ой|ий|й)",
    "uk": "-?(?:ий|й)",
    "tr": "['’]?[ıiuü]nc[ıiuü]",
    "es": r"\.?[ºª]|er|r[oa]|d[oa]|t[oa]|v[oa]|n[oa]|m[oa]",
    "ca": r"\.?[ºª]|r|n|t|è",
    **dict.fromkeys(("it", "pt"), r"\.?[ºª]"),
}


def normalize(text: str, language: str) -> str:
    """Normalize a text by the rules in this module's docstring.

    Args:
        text: Any text.
        language: Its code, such as "es" or "sv-SE". Any code is accepted; for an unknown one digits stay as they are.
    """
    language = language_code(language)
    text = re.sub(r"(?<=\d)，(?!\d{3}(?!\d))", ", ", text)  # a full-width comma ends a clause, but in １，０００
    text = one_spelling(unicodedata.normalize("NFC", text), language)
    text = unicodedata.normalize("NFC", plain_forms(without_invisible(text)).replace("\u0640", ""))
    text = re.sub(r"\s{2,}", " ", text)  # how many spaces there are says nothing
    text = _GERSHAYIM.sub("", text)
    text = rewritten(text, _NUM2WORDS.get(language, language))
    text = written_out(text, _NUM2WORDS.get(language, language))
    text = _number_pattern(language).sub(lambda match: _spoken(match, language), text)
    text = one_spelling(text, language)  # also of what ordinary forms are made of, and of num2words' words
    if language in _DOTLESS:
        text = text.replace("I", "ı")
    text = unicodedata.normalize("NFC", text.replace("İ", "i").lower()).translate(_APOSTROPHES)
    if language != "lt":  # which writes a dot below an accent
        text = text.replace("i\u0307", "i")
    if language == "ca":
        text = re.sub("l[·‧.•∙⋅](?=l)|ŀ(?=l)", "l·", text)
    kept = "".join(c if c in "'·" or _is_word_character(c) else " " for c in text)
    kept = re.sub("(?<!l)·|·(?!l)" if language == "ca" else "·", " ", kept)
    kept = split_clusters(kept)
    kept = re.sub(r"(?<![^\W\d_])'|'(?![^\W\d_])", " ", kept)
    words = kept.split() if kept.isascii() else map(_without_orphans, kept.split())
    return unicodedata.normalize("NFC", " ".join(filter(None, words)))


def rules(language: str) -> dict[str, str]:
    """What `normalize` does with texts of `language`, in words; corpus commands write it into the manifest."""
    language = language_code(language)
    point, group = _number_signs(language)
    return {
        "unicode": "NFC, compatibility forms made ordinary, invisible characters deleted",
        "numbers": f"written out; point {point!r}, groups {group!r}" if _has_numbers(language) else "kept as digits",
        "signs": "read aloud where the language has words for them",
        "case": "lower" + (", dotted and dotless i kept apart" if language in _DOTLESS else ""),
        "apostrophes": "kept between letters",
        "punctuation": "spaces" + (", l·l kept" if language == "ca" else ""),
        "words": "between spaces; one per ideograph, kana or cluster of scripts without spaces",
    }


def _is_word_character(character: str) -> bool:
    # Letters, marks, decimal digits, and letter-like numbers (〇).
    return unicodedata.category(character)[0] in "LM" or unicodedata.category(character) in ("Nd", "Nl")


def _without_orphans(word: str) -> str:
    """A word without marks at its beginning, which belong to no letter."""
    while word and unicodedata.category(word[0])[0] == "M":
        word = word[1:]
    return word


def _number_signs(language: str) -> tuple[str, str]:
    """The decimal point, and the characters that group thousands."""
    point, group = (".", ",") if language in _POINT_LANGUAGES else (",", ".")
    return point, group + (" " if language in _SPACE_LANGUAGES else "")


@functools.cache
def _number_pattern(language: str) -> re.Pattern[str]:
    point, group = _number_signs(language)
    groups = rf"\d{{1,3}}(?:[{group}\u00a0\u202f\u2009٬'’]\d{{3}})+(?!\d)"
    if point == ".":
        groups += r"|\d{1,2}(?:,\d{2})+,\d{3}(?!\d)"  # 1,00,000 in South Asia
    else:
        groups += r"|\d{1,3}(?: \d{3})*(?: 0\d{2})(?: \d{3})*(?! ?\d)"
    ordinal = rf"(?P<ordinal>{_ORDINALS[language]})(?![^\W\d_])" if language in _ORDINALS else r"(?P<ordinal>(?!))"
    # Of 1.2.3 or 192.168.0.1 no point is one of decimals.
    decimals = rf"(?<!\d[{point}٫]\d)[{point}٫](?P<part>\d++(?![{point}٫]\d))"
    return re.compile(rf"(?P<whole>{groups}|\d+)(?:{decimals}|{ordinal})?", re.IGNORECASE)


def _spoken(match: re.Match[str], language: str) -> str:
    """The words of one number, or its bare digits where there are no words for it."""
    whole = "".join(str(unicodedata.decimal(c)) for c in match["whole"] if c.isdecimal())
    part = "".join(str(unicodedata.decimal(c)) for c in match["part"] or "")
    ordinal = match["ordinal"] or ""
    one_by_one = len(whole) > _MAX_DIGITS or (whole.startswith("0") and len(whole) > _MAX_LEADING_ZERO)
    if not _has_numbers(language):
        return " ".join(filter(None, (*(whole if one_by_one else [whole]), *part, ordinal)))
    if one_by_one:
        words = _digit_by_digit(whole, language)
    else:
        words = _in_words(whole, "ordinal" if ordinal else "cardinal", language)
    if part:
        words += f" {_POINTS.get(language, '')} {_digit_by_digit(part, language)}"
    if ordinal and language in _FEMININE and re.fullmatch(_FEMININE[language], ordinal, re.IGNORECASE):
        words = "première" if language == "fr" and whole == "1" else re.sub(r"o\b", "a", words)
    if language == "sr" and _CYRILLIC_LETTER.search(match.string):
        words = re.sub("lj|nj|dž|.", lambda letters: _CYRILLIC.get(letters[0], letters[0]), words)
    # l'80% is one word with its article, as l'ottanta is.
    elided = re.search("[^\\W\\d_]['’]$", match.string[max(match.start() - 2, 0) : match.start()])
    return f"{'' if elided else ' '}{words} "


def _digit_by_digit(digits: str, language: str) -> str:
    return " ".join(_in_words(digit, "cardinal", language) for digit in digits)


@functools.lru_cache(maxsize=4096)
def _in_words(number: str, kind: str, language: str) -> str:
    try:
        words = str(num2words(int(number), lang=_NUM2WORDS.get(language, language), to=kind))
    except (NotImplementedError, ArithmeticError, LookupError, TypeError, ValueError):
        # What num2words raises for numbers that a language's tables do not reach.
        words = ""
    if words.strip():
        return words
    return number if kind == "cardinal" else _in_words(number, "cardinal", language)


@functools.cache
def _has_numbers(language: str) -> bool:
    try:
        num2words(1, lang=_NUM2WORDS.get(language, language))
    except NotImplementedError:
        return False
    return True
