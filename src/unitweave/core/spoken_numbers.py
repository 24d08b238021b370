"""Numbers that are not read as one number each: telephone numbers, times, years and decades, ranges, fractions, roman
numerals.

They become words, or digits that are read one by one, before the signs around them and all other numbers are written
out. What a language below lacks stays as it is, and so does what is ambiguous: dates (but 1/2, 1/3, 2/3, 1/4 and 3/4
are fractions), scores, ranges with a hyphen, German ordinals (3. Mai), roman numerals of kings.
"""

import functools
import re
from typing import Any

from num2words import num2words

_PHONE = re.compile(
    r"(?<![\w.,/+-])(?:\+\d{1,3}(?:[ .-]?\(?\d{1,4}\)?){2,6}"
    r"|\(\d{3}\) ?\d{3}[ .-]\d{4}|\d{3}[.-]\d{3}[.-]\d{4}|\d{3}-\d{4})(?![.,-]?\w)"
)
_MIN_PHONE = 7  # digits
# Languages that read a year by its hundreds.
_YEARS = ("en", "de", "nl", "da", "no")
_YEAR = re.compile(
    r"(?<![\w.,$€£¥₹₩₽+−])(?<![$€£¥₹₩₽]\s)(1[1-9]\d\d|20[1-9]\d)"
    r"(?![\w°]|[.,'’]\d|\s?(?:[%€$£¥₹₩₽‰°½¼¾⅓⅔]|(?:km|kg|cm)\b)|\s\d{3}(?!\d))"
)
_DECADE = {
    "en": re.compile(r"(?<![\w.,])['’]?((?:1[1-9]|20)?\d0)['’]?s(?!\w)"),
    "de": re.compile(r"(?<![\w.,])((?:1[1-9])?\d0)er(?!\w)"),
}
_RANGE = re.compile(r"(?<=[\d%°€$£])–(?=[\d$€£¥])")
_TO = {
    "en": "to", **dict.fromkeys(("es", "it", "pt", "ca"), "a"), "fr": "à", "de": "bis", "nl": "tot", "sv": "till",
    "da": "til", "no": "til", "sl": "do", "id": "sampai", "vi": "đến", "et": "kuni", "ar": "إلى", "fa": "تا",
    "zh": "到", "ja": "から", "ko": "에서", "hi": "से",
}  # fmt: skip
_FRACTION = re.compile(r"(?<![\d/⁄.,:\w])((?:\d+[ \u00a0])?)(1 ?[/⁄] ?[234]|[23] ?[/⁄] ?[34])(?![\w/⁄:]|[.,]\d)")
_VULGAR = {"12": "½", "13": "⅓", "23": "⅔", "14": "¼", "34": "¾"}
_H_LANGUAGES = ("fr", "es", "pt", "it", "ca")  # 14h30, 14 h
_COLON = re.compile(r"(?<![\w:.,/])([01]?\d|2[0-4]):([0-5]\d)(?!\w*[:/]|\w)(\s?(?:h|hrs?|horas|Uhr|uur)(?!\w))?")
_LETTER_H = re.compile(r"(?<![\w:.,/])([01]?\d|2[0-4])[ \u00a0]?h(?:[ \u00a0]?([0-5]\d)(?!\w))?(?![^\W\d_])()")
# The word for hours, and what stands between hours and minutes: hours, this word, or both.
_CLOCK = {
    "fr": ("heure|heures", "{hours} {name} {minutes}"), "de": ("uhr", "{hours} {name} {minutes}"),
    "nl": ("uur", "{hours} {name} {minutes}"), "pt": ("hora|horas", "{hours} e {minutes}"),
    "es": ("hora|horas", "{hours} y {minutes}"), "it": ("ora|ore", "{hours} e {minutes}"),
    "ca": ("hora|hores", "{hours} i {minutes}"), "zh": ("点", "{hours}{name}{minutes}分"),
    "ja": ("時", "{hours}{name}{minutes}分"),
}  # fmt: skip
_FULL_HOUR_WITHOUT_NAME = ("es", "it", "ca")  # a las 3:00
# Hours are feminine; and it is "ein Uhr".
_HOURS = {
    "fr": {1: "une", 21: "vingt et une"}, "pt": {1: "uma", 2: "duas", 21: "vinte e uma", 22: "vinte e duas"},
    "es": {1: "una", 21: "veintiuna"}, "it": {1: "una"}, "de": {1: "ein"},
    "ca": {1: "una", 2: "dues", 21: "vint-i-una", 22: "vint-i-dues"},
}  # fmt: skip
_SCALES = {"k": "thousand", "m": "million", "b": "billion", "t": "trillion"}
_SHORT_SCALE = re.compile(
    r"((?<![^\W\d_])[$€£]\s?\d[\d,]*(?:\.\d+)?)\s?(?:(k)|(m)(?:n|ln)?|(b)n?|(t)n)(?!\w)", re.IGNORECASE
)
# Russian ordinals by their endings: case, number and gender for num2words.
_RU_ORDINAL = re.compile(r"(?<![\w.,-])(\d{1,4})-(а?я|ое|е|[ео]?го|[ео]?му|[ую]?ю|[ыи]?м|[ыи]?х|[ыи]?ми)(?!\w)")
_RU_FORMS: dict[str, dict[str, Any]] = {
    "я": {"gender": "f"}, "е": {"gender": "n"}, "о": {"case": "g"}, "у": {"case": "d"},
    "ю": {"case": "a", "gender": "f"}, "м": {"case": "p"}, "х": {"case": "g", "plural": True},
    "и": {"case": "i", "plural": True},
}  # fmt: skip
_ROMAN = r"(?=[IVX])X{0,3}(?:IX|IV|V?I{0,3})(?![\w'’])"
_CENTURY = {"es": "siglos?", "pt": "séculos?", "ca": "segles?", "it": "secol[oi]"}
_AND = {"es": "y", "pt": "e", "ca": "i", "it": "e"}
_FR_ORDINAL = re.compile(
    r"\b(?=[IVX])(X{0,3}(?:IX|IV|V?I{0,3}))(?:er|e|ème)(?=\s(?:siècle|arrondissement|République|dynastie))"
)
_IT_CENTURY = re.compile(rf"\b({_ROMAN})(?=\ssecolo)")
_EN_CHAPTER = re.compile(
    rf"\b(World\sWar\s|(?:Chapter|Part|Volume|Book|Act|Scene|Section|Article|Phase|Type|War|Appendix|Level|Title)\s(?!I\b))({_ROMAN})"
)


def rewritten(text: str, language: str) -> str:
    """The text with such numbers as they are read; all other numbers and signs stay.

    Args:
        text: Without invisible characters.
        language: ISO 639-1 code.
    """
    text = _roman(text, language)
    if not re.search(r"\d", text):
        return text
    if language == "en":
        text = _SHORT_SCALE.sub(lambda match: f"{match[1]} {_SCALES[str(match[match.lastindex or 1]).lower()]}", text)
    if language == "ru":
        text = _RU_ORDINAL.sub(_russian_ordinal, text)
    text = _PHONE.sub(_phone, text)
    text = _COLON.sub(lambda match: _time(match, language), text)
    if language in _H_LANGUAGES:
        text = _LETTER_H.sub(lambda match: _time(match, language), text)
    if language in _TO:
        text = _RANGE.sub(f" {_TO[language]} ", text)
    if language in _DECADE:
        text = _DECADE[language].sub(lambda match: _decade(match[1], language), text)
    if language in _YEARS:
        text = _YEAR.sub(lambda match: _year(match[0], language), text)
    return _FRACTION.sub(_fraction, text)


def _phone(match: re.Match[str]) -> str:
    digits = [c for c in match[0] if c.isdecimal()]
    amounts = re.fullmatch(r"(\d\d0)-(\d{3}0)", match[0])  # 500-1000 is a range
    if amounts or len(digits) < _MIN_PHONE:
        return match[0]
    return f"{'+' * match[0].startswith('+')} {' '.join(digits)} "


def _time(match: re.Match[str], language: str) -> str:
    hours, minutes = int(match[1]), match[2] or "00"
    if language == "en":
        return f"{_english_time(hours, minutes, match.string[match.end() :])}{match[3] or ''}"
    if language not in _CLOCK:
        return match[0]
    name, pattern = _CLOCK[language]
    name = name.split("|")[0 if hours == 1 or (hours == 0 and language == "fr") else -1]
    named = not (language in _FULL_HOUR_WITHOUT_NAME and match[2] and not match[3])
    spoken = _HOURS.get(language, {}).get(hours, str(hours))
    if minutes == "00":
        return f" {spoken} {name} " if named else f" {spoken} "
    return f" {pattern.format(hours=spoken, name=name, minutes=int(minutes))} "


def _english_time(hours: int, minutes: str, behind: str) -> str:
    if minutes != "00":
        return f"{hours} {'oh ' if minutes[0] == '0' else ''}{int(minutes)}"
    if re.match(r"\s?[ap]\.?m\b", behind, re.IGNORECASE):
        return str(hours)
    return f"{hours} o'clock" if 1 <= hours <= 12 else f"{hours} hundred"


@functools.lru_cache(maxsize=1024)
def _year(digits: str, language: str) -> str:
    words = str(num2words(int(digits), lang=language, to="year")).replace("-", " ")
    return words.replace(" ", "") if language == "nl" else words


def _decade(digits: str, language: str) -> str:
    words = _year(digits, language) if len(digits) == 4 else str(num2words(int(digits), lang=language))
    if language == "de":
        return f"{words}er"
    return f" {words[:-1]}ies " if words.endswith("y") else f" {words}s "


def _russian_ordinal(match: re.Match[str]) -> str:
    """3-я is третья, 10-го is десятого, and 90-е are девяностые."""
    number, form = int(match[1]), _RU_FORMS[match[2][-1]]
    if match[2] == "е" and number % 10 == 0 and number >= 20:
        form = {"plural": True}
    return str(num2words(number, lang="ru", to="ordinal", **form))


def _fraction(match: re.Match[str]) -> str:
    parts = re.sub(r"\D", "", match[2])
    return f"{match[1]}{_VULGAR[parts]}" if parts in _VULGAR else match[0]


def _roman(text: str, language: str) -> str:
    """Roman numerals as digits where nothing else can be meant: of centuries, and of English chapters and the like."""
    if language == "en":
        return _EN_CHAPTER.sub(lambda match: f"{match[1]}{_value(match[2])}", text)
    if language == "fr":
        return _FR_ORDINAL.sub(lambda match: f"{_value(match[1])}{'er' if match[1] == 'I' else 'e'}", text)
    if language not in _CENTURY:
        return text
    if language == "it":
        text = _IT_CENTURY.sub(lambda match: f"{_value(match[1])}º", text)
    pattern = rf"(\b{_CENTURY[language]}\s)({_ROMAN})(?:(\s{_AND[language]}\s)({_ROMAN}))?"

    def century(match: re.Match[str]) -> str:
        return "".join(_nth(part, language) if i % 2 else part for i, part in enumerate(match.groups("")) if part)

    return re.sub(pattern, century, text, flags=re.IGNORECASE) if re.search("[IVX]", text) else text


def _nth(roman: str, language: str) -> str:
    """In Spanish, Portuguese and Catalan the tenth century is the last that has an ordinal."""
    value = _value(roman)
    return f"{value}º" if language == "it" or value <= 10 else str(value)


def _value(roman: str) -> int:
    values = [{"I": 1, "V": 5, "X": 10}[letter] for letter in roman.upper()]
    return sum(-a if a < b else a for a, b in zip(values, [*values[1:], 0], strict=True))
