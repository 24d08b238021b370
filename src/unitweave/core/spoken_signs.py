"""Signs that are read aloud, written out in a language: percent, currencies, degrees, fractions, squares, & + = @ №.

What a language's row below lacks stays as it is. Fractions and raised or lowered digits that no row has become ordinary
digits, so that none is lost.
"""

import functools
import re
import unicodedata

# Each row: the signs in the order of _SIGNS. Forms for 1 and for other numbers are separated by a bar; in Slavic
# languages for 1, for 2 to 4 (and decimals) and for others. "-" stands for a sign that is not read.
_SIGNS = ("%", "&", "+", "=", "@", "°", "€", "$", "£", "¥", "№", "²", "³")
_ROWS = """
en: percent; and; plus; equals; at; degree|degrees; euro|euros; dollar|dollars; pound|pounds; yen; number; squared; cubed
es: por ciento; y; más; igual a; arroba; grado|grados; euro|euros; dólar|dólares; libra|libras; yen|yenes; número; cuadrado; cúbico
fr: pour cent; et; plus; égale; arobase; degré|degrés; euro|euros; dollar|dollars; livre|livres; yen|yens; numéro; carré; cube
de: prozent; und; plus; gleich; at; grad; euro; dollar; pfund; yen; nummer; quadrat; kubik
it: per cento; e; più; uguale; chiocciola; grado|gradi; euro; dollaro|dollari; sterlina|sterline; yen; numero; quadrato; cubo
pt: por cento; e; mais; igual a; arroba; grau|graus; euro|euros; dólar|dólares; libra|libras; iene|ienes; número; quadrado; cúbico
ca: per cent; i; més; igual a; arrova; grau|graus; euro|euros; dòlar|dòlars; lliura|lliures; ien|iens; número; quadrat; cúbic
nl: procent; en; plus; is; apenstaartje; graden; euro; dollar; pond; yen; nummer; kwadraat; kubiek
sv: procent; och; plus; lika med; -; grad|grader; euro; dollar; pund; yen; nummer; kvadrat; kubik
da: procent; og; plus; lig med; -; grad|grader; euro; dollar; pund; yen; nummer; -; -
no: prosent; og; pluss; er lik; -; grad|grader; euro; dollar; pund; yen; nummer; -; -
ru: процент|процента|процентов; и; плюс; равно; собака; градус|градуса|градусов; евро; доллар|доллара|долларов; фунт|фунта|фунтов; иена|иены|иен; номер; квадрат; куб
uk: відсоток|відсотки|відсотків; і; плюс; дорівнює; -; градус|градуси|градусів; євро; долар|долари|доларів; фунт|фунти|фунтів; єна|єни|єн; номер; квадрат; куб
pl: procent; i; plus; równa się; małpa; stopień|stopnie|stopni; euro; dolar|dolary|dolarów; funt|funty|funtów; jen|jeny|jenów; numer; kwadrat; -
tr: yüzde; ve; artı; eşittir; et; derece; euro; dolar; sterlin; yen; numara; kare; küp
id: persen; dan; plus; sama dengan; -; derajat; euro; dolar; -; yen; nomor; -; -
vi: phần trăm; và; cộng; bằng; a còng; độ; euro; đô la; bảng; yên; số; vuông; khối
ar: بالمئة; و; زائد; يساوي; -; درجة; يورو; دولار; جنيه; ين; رقم; مربع; مكعب
fa: درصد; و; به علاوه; مساوی; -; درجه; یورو; دلار; پوند; ین; شماره; -; -
ja: パーセント; -; プラス; イコール; -; 度; ユーロ; ドル; ポンド; 円; -; -; -
zh: 百分之; 和; 加; 等于; -; 度; 欧元; 美元; 英镑; 元; 号; 平方; 立方
ko: 퍼센트; -; 플러스; -; -; 도; 유로; 달러; 파운드; 엔; -; -; -
lv: procents|procenti; un; plus; -; -; grāds|grādi; eiro; dolārs|dolāri; -; -; numurs; -; -
sl: odstotkov; in; plus; -; -; stopinj; evrov; dolarjev; -; -; številka; -; -
he: אחוז
el: τοις εκατό
hu: százalék
cs: procent
sk: percent
ro: la sută
fi: prosenttia
bg: процента
sr: посто
hr: posto
lt: procentų
hi: प्रतिशत
bn: শতাংশ
th: เปอร์เซ็นต์
kk: пайыз
et: protsent|protsenti; ja; pluss; võrdub; -; kraad|kraadi; euro|eurot; dollar|dollarit; -; -; number; -; -
"""  # noqa: E501
# ½, ¼ and ¾ by themselves | behind a number.
_FRACTIONS = {
    "en": "half|and a half; quarter|and a quarter; three quarters|and three quarters",
    "es": "medio|y medio; un cuarto|y un cuarto; tres cuartos|y tres cuartos",
    "fr": "demi|et demi; un quart|et un quart; trois quarts|et trois quarts",
    "de": "halb|einhalb; ein viertel|ein viertel; dreiviertel|dreiviertel",
    "it": "mezzo|e mezzo; un quarto|e un quarto; tre quarti|e tre quarti",
    "pt": "meio|e meio; um quarto|e um quarto; três quartos|e três quartos",
    "ca": "mig|i mig; un quart|i un quart; tres quarts|i tres quarts",
    "nl": "half|en een half; kwart|en een kwart; driekwart|en driekwart",
    "sv": "halv|och en halv; en fjärdedel|och en fjärdedel; tre fjärdedelar|och tre fjärdedelar",
    "ru": "половина|с половиной; четверть|с четвертью; три четверти|и три четверти",
    "tr": "yarım|buçuk; çeyrek|çeyrek; üç çeyrek|üç çeyrek",
}
_OTHER_CURRENCIES = {
    "pt": {"R$": "real|reais"},
    "ru": {"₽": "рубль|рубля|рублей"},
    "uk": {"₴": "гривня|гривні|гривень"},
}
_MINUS = {
    **dict.fromkeys(("en", "de", "sv", "da", "no", "pl", "id"), "minus"), **dict.fromkeys(("es", "pt"), "menos"),
    "ru": "минус", "uk": "мінус", "fr": "moins", "it": "meno", "ca": "menys", "nl": "min", "tr": "eksi", "zh": "负",
    "vi": "âm", "ja": "マイナス", "ko": "마이너스", "lv": "mīnus", "sl": "minus", "et": "miinus", "fa": "منفی",
    "ar": "ناقص",
}  # fmt: skip
_CELSIUS = {"ru": "цельсия", "uk": "цельсія", **dict.fromkeys(("ar", "fa", "ja", "ko", "zh"), "")}
_PERCENT_FIRST = ("tr", "zh")
_SLAVIC = ("ru", "uk", "pl")
_POINT = r"\d+(?:[.,٫\u00a0\u202f\u2009 ]\d{3})*(?:[.,٫]\d+)?"
_SCALE = (
    r"(?:\s*(?:thousand|hundred|tausend|mil|mille|mila|mil?l?i[oóõ]n\w*|millones|mill?iard\w*|milh(?:ão|ões)|milj(?:o|oe)n\w*"
    r"|bill?i[oóõ]n\w*|bilh(?:ão|ões)|trill?i[oóõ]n\w*|тысяч\w*|миллион\w*|миллиард\w*|mln|mio|bn)\b\.?)?"
)
_FORMS = str.maketrans(
    {"％": "%", "﹪": "%", "٪": "%", "＆": "&", "＋": "+", "＝": "=", "＠": "@", "￥": "¥", "＄": "$", "￡": "£"}
)


def written_out(text: str, language: str) -> str:
    """The text with its signs in words, where the language has words for them; numbers stay in digits.

    Args:
        text: Without invisible characters.
        language: ISO 639-1 code.
    """
    text = text.translate(_FORMS)
    words = _words(language)
    text = text.replace("℃", "°C").replace("℉", "°F")
    if words:
        minus = r"(?<![^\s(])(?:−\s?(?=\d)|-(?=[\d.,]+\s?°))"  # a hyphen may begin a line of a dialogue
        text = re.sub(minus, f" {_MINUS.get(language, ' ')} ", text)
        text = _amounts(language).sub(lambda match: _amount(match, words, language), text)
        if language in _FRACTIONS:
            text = re.sub(r"(\d\s?)?([½¼¾])", lambda match: _fraction(match, language), text)
        text = re.sub(r"\b[nN]\.?[º°]\s?(?=\d)", f"{words.get('№', 'n')} ", text)
        text = re.sub(r"(?<=\w)[²³](?!\w)", lambda match: f" {words.get(match[0], _digits(match[0]))} ", text)
        text = re.sub("[%&+=@№]", lambda match: f" {_form(words.get(match[0], ' '), '', language)} ", text)
    return "".join(_digits(c) if ord(c) > 0xA0 and _is_odd_number(c) else c for c in text)


@functools.cache
def _words(language: str) -> dict[str, str]:
    rows = dict(row.split(": ", 1) for row in _ROWS.strip().splitlines())
    given = zip(_SIGNS, rows.get(language, "").split("; "), strict=False)
    return {sign: word for sign, word in given if word not in ("", "-")} | _OTHER_CURRENCIES.get(language, {})


@functools.cache
def _amounts(language: str) -> re.Pattern[str]:
    """A number with a sign before or behind it."""
    signs = "|".join(
        re.escape(sign) for sign in sorted(_words(language), key=len, reverse=True) if sign not in "&+=@№²³"
    )
    before = rf"(?:US|A|C)?(?P<before>{signs})\s?(?P<n1>{_POINT})(?P<scale1>{_SCALE})"
    no_sign_before = rf"(?!\s(?:{signs})\d)"  # "5 $3": the sign belongs to what it touches
    behind = rf"(?P<n2>{_POINT})(?P<scale2>{_SCALE}){no_sign_before}\s?(?P<behind>{signs})(?P<unit>[CF]\b)?"
    return re.compile(rf"(?<!\w)(?<!\d[.,]){before}|(?<!\d)(?<!\d[.,]){behind}", re.IGNORECASE)


def _amount(match: re.Match[str], words: dict[str, str], language: str) -> str:
    sign = match["before"] or match["behind"]
    number, scale = (match["n1"], match["scale1"]) if match["before"] else (match["n2"], match["scale2"])
    if match["before"] == "°" or (sign == "°" and language in ("es", "it", "pt", "ca") and not match["unit"]):
        return match[0]  # an ordinal number, which one types so
    cents = re.fullmatch(r"(.*\d)[.,](\d\d)", number) if sign not in "%°" and not scale else None
    counted = re.sub(r"[.,\s](?=\d{3}(?!\d))", "", cents[1] if cents and cents[2] == "00" else number)
    word = _form(words[sign], counted if not scale else f"{counted}000", language)
    if sign == "°" and match["unit"]:
        word += " fahrenheit" if match["unit"] in "fF" else f" {_CELSIUS.get(language, 'celsius')}"
    if sign == "%" and language in _PERCENT_FIRST:
        return f" {word} {number}{scale} "
    apart = " " if match["before"] else ""  # from digits in front of the sign
    if cents:
        return f"{apart}{cents[1]} {word} {cents[2].lstrip('0')} "
    return f"{apart}{number}{scale} {word} "


def _form(forms: str, number: str, language: str) -> str:
    """The form of a word that goes with a number in digits ("" for none)."""
    singular, *others = forms.split("|")
    if not others:
        return singular
    if language in _SLAVIC:
        if not number.isdecimal():
            return others[0] if number else others[-1]
        tens, ones = int(number) // 10 % 10, int(number) % 10
        if tens == 1 or ones in (0, 5, 6, 7, 8, 9):
            return others[-1]
        if language == "pl" and ones == 1 and int(number) != 1:
            return others[-1]
        return singular if ones == 1 else others[0]
    return singular if number == "1" else others[-1]


def _fraction(match: re.Match[str], language: str) -> str:
    alone, behind = _FRACTIONS[language].split("; ")["½¼¾".index(match[2])].split("|")
    return f"{match[1]} {behind} " if match[1] else f" {alone} "


def _is_odd_number(character: str) -> bool:
    """Whether a character is a number but no ordinary digit: a fraction, raised, lowered or in a circle."""
    compatible = unicodedata.decomposition(character).startswith("<")
    return (unicodedata.category(character) == "No" and compatible) or character in "㎏㎞㎝㎜㎡"


def _digits(character: str) -> str:
    return f" {unicodedata.normalize('NFKC', character).replace('⁄', ' ')} "
