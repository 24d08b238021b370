"""Names of languages, for pages and model cards."""

import re
import unicodedata
from collections.abc import Iterable
from functools import cache, lru_cache

from unitweave.core.errors import InputError
from unitweave.core.scripts import without_invisible

# Other names of languages that have a code of two letters: ISO 639-3 and 639-2, earlier codes, English names, and what
# the larger ones are called in themselves.
_OTHER_NAMES = """
af afr afrikaans; am amh amharic; ar ara arb arabic العربية; az aze azj azerbaijani; be bel belarusian;
bg bul bulgarian български; bn ben bengali বাংলা; bo bod tib tibetan; bs bos bosnian; ca cat catalan català;
cs ces cze czech čeština; cy cym wel welsh cymraeg; da dan danish dansk; de deu ger german deutsch;
el ell gre greek ελληνικά; en eng english; eo epo esperanto; es spa spanish castilian español castellano;
et est ekk estonian eesti; eu eus baq basque euskara; fa fas per pes persian farsi فارسی; fi fin finnish suomi;
fr fra fre french français; ga gle irish gaeilge; gl glg galician galego; gu guj gujarati; ha hau hausa;
he heb iw hebrew עברית; hi hin hindi हिन्दी; hr hrv croatian hrvatski; hu hun hungarian magyar; hy hye arm armenian;
id ind in indonesian; ig ibo igbo; is isl ice icelandic íslenska; it ita italian italiano; ja jpn japanese 日本語;
jv jav jw javanese; ka kat geo georgian ქართული; kk kaz kazakh; km khm khmer; kn kan kannada; ko kor korean 한국어;
ku kur kurdish; ky kir kyrgyz; lb ltz luxembourgish; lo lao; lt lit lithuanian lietuvių; lv lav lvs latvian latviešu;
mg mlg malagasy; mi mri mao maori māori; mk mkd mac macedonian; ml mal malayalam; mn mon khk mongolian; mr mar marathi;
ms msa may malay; mt mlt maltese; my mya bur burmese; ne nep npi nepali; nl nld dut dutch flemish nederlands;
no nor norwegian norsk; or ori ory odia; pa pan punjabi; pl pol polish polski; ps pus pashto;
pt por portuguese português;
ro ron rum romanian română; ru rus russian русский; rw kin kinyarwanda; sd snd sindhi; si sin sinhala;
sk slk slo slovak; sl slv slovenian slovene; sn sna shona; so som somali; sq sqi alb albanian shqip; sr srp serbian;
sv swe swedish svenska; sw swa swh swahili kiswahili; ta tam tamil; te tel telugu; tg tgk tajik; th tha thai ไทย;
tk tuk turkmen; tl tgl tagalog; tr tur turkish türkçe; tt tat tatar; uk ukr ukrainian українська; ur urd urdu اردو;
uz uzb uzn uzbek; vi vie vietnamese; wo wol wolof; yi yid ji yiddish; yo yor yoruba;
zh zho chi cmn chinese mandarin 中文; zu zul zulu
"""
_CODES = {name: code for code, *names in (entry.split() for entry in _OTHER_NAMES.split(";")) for name in names}


@lru_cache(maxsize=1024)
def language_code(language: str) -> str:
    """The ISO 639-1 code of a language, however a table calls it.

    "es" of "es_MX", "spa", "Spanish", "español" and "Spanish (Mexico)", "zh" of "zh-CN" and "cmn". A name that
    is not known here stays as it is, in lower case.
    """
    name = unicodedata.normalize("NFC", without_invisible(language)).strip().lower()
    code = name.replace("_", "-").split("-")[0]
    if code in _CODES or is_language_code(code):
        return _CODES.get(code, code)
    if with_region := re.fullmatch(r"([a-z]{2,3})[ (]+(?:[a-z]{2}|[a-z]{4}|\d{3})\)?", name):  # pt BR, zh (Hans)
        return _CODES.get(with_region[1], with_region[1])
    named = {_CODES.get(word) for word in re.findall(r"[^\W\d_]{4,}", name)} - {None}
    return str(named.pop()) if len(named) == 1 else code  # "Mexican Spanish", but not "Spanish/English"


def is_language_code(code: str) -> bool:
    """Whether a code has the form of ISO 639: two or three letters, in lower case."""
    return re.fullmatch("[a-z]{2,3}", code) is not None


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


def check_amounts(amounts: Iterable[str], languages: Iterable[str], where: str = "") -> None:
    """Raise InputError unless amounts are given for exactly the languages of the training data."""
    named = set(amounts)
    for language in sorted(named ^ set(languages)):
        missing = "the corpus has none of it" if language in named else "no amount is given for it"
        raise InputError(f"{where}training data in {language!r}: {missing}")
