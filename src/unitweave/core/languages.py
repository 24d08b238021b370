"""Names of languages, for pages and model cards."""

from collections.abc import Iterable
from functools import cache

# Other names of languages that have a code of two letters: ISO 639-3 and 639-2, earlier codes, English names.
_OTHER_NAMES = """
ar ara arb arabic; bg bul bulgarian; bn ben bengali; ca cat catalan; cs ces cze czech; cy cym wel welsh; da dan danish;
de deu ger german; el ell gre greek; en eng english; es spa spanish castilian; et est ekk estonian; eu eus baq basque;
fa fas per pes persian; fi fin finnish; fr fra fre french; ga gle irish; gl glg galician; he heb iw hebrew;
hi hin hindi; hr hrv croatian; hu hun hungarian; hy hye arm armenian; id ind in indonesian; is isl ice icelandic;
it ita italian;
ja jpn japanese; ka kat geo georgian; kk kaz kazakh; km khm khmer; ko kor korean; lo lao; lt lit lithuanian;
lv lav lvs latvian; mk mkd mac macedonian; mn mon khk mongolian; ms msa may malay; mt mlt maltese; my mya bur burmese;
nl nld dut dutch flemish; no nor norwegian; pl pol polish; pt por portuguese; ro ron rum romanian; ru rus russian;
sk slk slo slovak; sl slv slovenian slovene; sq sqi alb albanian; sr srp serbian; sv swe swedish; sw swa swh swahili;
ta tam tamil; te tel telugu; th tha thai; tl tgl tagalog; tr tur turkish; uk ukr ukrainian; ur urd urdu; uz uzb uzbek;
vi vie vietnamese; yi yid ji yiddish; zh zho chi cmn chinese mandarin
"""
TWO_LETTER_CODES = {
    name: code for code, *names in (entry.split() for entry in _OTHER_NAMES.split(";")) for name in names
}


@cache
def language_name(code: str) -> str:
    """The English name of a language, such as "Spanish" for "es"; an unknown code stays as it is."""
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    name = LANGUAGES.get(code.lower().replace("_", "-").split("-")[0])
    return name.title() if name else code


def language_names(codes: Iterable[str]) -> str:
    """The names of several languages in a phrase: "French", "English and Spanish", "English, French and Spanish"."""
    names = [language_name(code) for code in codes]
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))
