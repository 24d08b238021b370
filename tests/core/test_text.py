"""Text normalization: the examples that its docstring promises, and what holds for every text."""

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unitweave.core.languages import language_code
from unitweave.core.text import normalize

CVSS = ["ar", "ca", "cy", "de", "es", "et", "fa", "fr", "id", "it", "ja", "lv", "mn", "nl", "pt", "ru", "sl"]
CVSS += ["sv-SE", "ta", "tr", "zh-CN"]

texts = st.one_of(
    st.text(max_size=40),
    st.lists(
        st.sampled_from(
            [
                "l·l",
                "ŀl",
                "·",
                "1",
                "12",
                "1.234",
                "1,5",
                "1 234",
                "1234567",
                "3rd",
                *"%½²①$€°C&-−º№⅓‰₹₩₺§×±÷–:/#",
                *("1/2", " 3 / 4", "14:30", "14h", "h", "1990", "2015s", "s", "er", "siglo ", "XX", "Ve siècle"),
                *("km/h", " km", "555-1234", "+1 555 123 4567", "World War I", "Chapter V"),
                "007",
                " $",
                "n.º",
                "²",
                "US$",
                "million",
                "Mio.",
                "2ª",
                "٤٢",
                "İI",
                "l’",
                "-",
                "—",
                "猫",
                "เ",
                "กำ",
                "ខ្ញុំ",
                "ﬁ",
                *("שָׁ", "מַה־", "הٰ", "يك", "i\u0307", "I\u0307", "Ş", "เเ", "ํา", "ํ้า", "ำ้", "ನ", "ന്\u200d", "○", "二"),
                *("1.2.3", "3-я", "-го", "$2m", "£3bn", "l.l"),
                "Ａ",
                "\ufe0f",
                "\u0301",
                "❤",
                "é",
                "'",
                " ",
            ]
        ),
        max_size=12,
    ).map("".join),
)


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "“Don’t” – she’d said: rock ’n’ roll, e-mail!", "don't she'd said rock n roll e mail"),
        ("en", "1,234.5 and 0.05", "one thousand two hundred and thirty four point five and zero point zero five"),
        ("en", "the 3rd and the 21ST", "the third and the twenty first"),
        (
            "es",
            "¿El 3º y la 2ª? 1.234,5 años",
            "el tercero y la segunda mil doscientos treinta y cuatro coma cinco años",
        ),
        ("fr", "L’été, le 1er, 1 234 jours", "l'été le premier mille deux cent trente quatre jours"),
        ("de", "Die 3,5 Straßen & 1.000.000", "die drei komma fünf straßen und eine million"),
        ("it", "12,05 po' d'acqua", "dodici virgola zero cinque po d'acqua"),
        ("tr", "İstanbul IĞDIR 42", "istanbul ığdır kırkiki"),
        ("sv-SE", "42", "förtiotvå"),
        ("zh-CN", "我有3只猫，OK？", "我 有 3 只 猫 ok"),
        ("ja", "カーに42", "カ ー に 四 十 二"),
        ("fa", "۴۲", "چهل و دو"),
        ("ta", "தமிழ் மொழி, 1,200", "தமிழ் மொழி 1200"),
        ("en", "so\u00adft cafe\u0301", "soft café"),
        ("en", "…", ""),
        ("en", "I ❤️ you", "i you"),
        ("en", "1️⃣ ﬁnd the ﬂag, ＡＢＣ １．５", "one find the flag abc one point five"),
        ("en", "a\u200bb \u200eabc\u200f \u2067x\u2069 \ufeffy 👩\u200d👩\u200d👧", "ab abc x y"),
        ("en", "1½ m² ´ ¨ ™", "one and a half m squared"),
        ("en", "\u0301a ❤\u0308 b", "a b"),
        ("fr", "le 1ᵉʳ œuf ﬃ", "le premier œuf ffi"),
        ("ar", "مـــرحبا ﷲ ﺍﻟﺴﻼﻡ", "مرحبا الله السلام"),
        ("ja", "ﾊﾟﾝを３個", "パ ン を 三 個"),
        ("th", "สวัสดี เธอไป 3 iPhone", "ส วั ส ดี เธ อ ไป สา ม iphone"),
        ("lo", "ສະບາຍດີ", "ສະ ບາ ຍ ດີ"),
        ("km", "ខ្ញុំស្រឡាញ់", "ខ្ញុំ ស្រ ឡា ញ់"),
        ("my", "မင်္ဂလာပါ", "မ င်္ဂ လာ ပါ"),
        ("yue", "我哋OK", "我 哋 ok"),
        ("ko", "한국어 학교", "한국어 학교"),
        ("hi", "हिन्दी क्‍ष", "हिन्दी क्ष"),
        ("fa", "می\u200cخواهم", "میخواهم"),
        ("es", "el 宫保鸡丁 rico", "el 宫 保 鸡 丁 rico"),
    ],
)
def test_examples_of_each_rule(language, text, expected):
    assert normalize(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "5% off, 3.5 %", "five percent off three point five percent"),
        ("en", "$1.5 million, $5 milk", "one point five million dollars five dollars milk"),
        ("en", "£3.50, US$1", "three pounds fifty one dollar"),
        ("en", "AT&T, C++ & 2+2=4", "at and t c plus plus and two plus two equals four"),
        ("en", "½ cup, 3¼, ⅛, H₂O, ②, x³, 5 ㎏", "half cup three and a quarter one eight h two o two x cubed "
         "five kilograms"),
        ("en", "−5 °C, -5°, 5-6", "minus five degrees celsius minus five degrees five six"),
        ("en", "007 at 10:05, 1 000", "zero zero seven at ten oh five one zero zero zero"),
        ("es", "el 1.º, la 2.ª, el 3er, n.º 5", "el primero la segunda el tercero número cinco"),
        ("es", "100 m², 3,5 %, 1 €", "cien m cuadrado tres coma cinco por ciento uno euro"),
        ("es", "20 °C", "veinte grados celsius"),
        ("fr", "12,50 €, la 1re, n° 3, 2½", "douze euros cinquante la première numéro trois deux et demi"),
        ("de", "2,5 Mio. €, 50 %, 3½", "zwei komma fünf mio euro fünfzig prozent drei einhalb"),
        ("it", "l'80% dell’1,5 %", "l'ottanta per cento dell'uno virgola cinque per cento"),
        ("pt", "R$ 5,00", "cinco reais"),
        ("ca", "el 2n i el 3r", "el segon i el tercer"),
        ("ru", "1 %, 2 %, 5 %", "один процент два процента пять процентов"),
        ("ru", "11 %, 21 $, 5,5 %", "одиннадцать процентов двадцать один доллар пять запятая пять процента"),
        ("ru", "1-й № 3", "первый номер три"),
        ("tr", "%50, 50%, 3'üncü", "yüzde elli yüzde elli üçüncü"),
        ("zh", "50%", "百 分 之 50"),
        ("ar", "٥٠٪", "خمسون بالمئة"),
        ("sv", "den 1:a maj, 5 %", "den första maj fem procent"),
        ("sr", "5 кућа", "пет кућа"),
        ("sr", "5 kuća", "pet kuća"),
        ("kk", "5", "бес"),
        ("nb", "5 %", "fem prosent"),
        ("he", 'צה"ל צ׳ק', "צהל צ'ק"),
        ("hy", "Ինչո՞ւ", "ինչու"),
        ("hi", "5%", "5 प्रतिशत"),
        ("ta", "5%", "5 சதவீதம்"),
        ("en", "yes,50% (a,$5)", "yes fifty percent a five dollars"),
        ("en", "$1.00, $2.00", "one dollar two dollars"),
        ("en", "1,00,000", "one hundred thousand"),
        ("de", "1'234,50 oder 1’234’567", "eintausendzweihundertvierunddreißig komma fünf null oder eine million "
         "zweihundertvierunddreißigtausendfünfhundertsiebenundsechzig"),
        ("es", "10 000 y 12 345 y 1 050 000", "diez mil y doce trescientos cuarenta y cinco y un millón cincuenta mil"),
        ("pl", "1 234 zł, 3,5%", "tysiąc dwieście trzydzieści cztery zł trzy przecinek pięć procent"),
        ("no", "1 000 kr, 3,5", "en tusen kr tre komma fem"),
        ("ko", "1,000원, 3.5%", "천 원 삼 점 오 퍼센트"),
        ("he", "3.5%", "שלוש נקודה חמש אחוז"),
        ("ru", "1 000 $", "одна тысяча долларов"),
        ("zh", "日，50%，￥100，3℃", "日 百 分 之 50 100 元 3 度"),
        ("ja", "１，０００円、3，5", "千 円 三 五"),
    ],
)  # fmt: skip
def test_signs_that_are_read_aloud_are_words(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("en", "1/2 cup, 3 / 4, 1 1/2 and 2 ⅔", "half cup three quarters one and a half and two and two thirds"),
        ("en", "1/2/2020, 24/7, 5/6", "one two twenty twenty twenty four seven five six"),
        ("en", "10–12, 5–10%, 1990–95", "ten to twelve five to ten percent nineteen ninety to ninety five"),
        ("en", "in 1990, 1,990 and $1990, 2005, 2015", "in nineteen ninety one thousand nine hundred and ninety and "
         "one thousand nine hundred and ninety dollars two thousand and five twenty fifteen"),
        ("en", "the 1990s, ’80s and mid-30s", "the nineteen nineties eighties and mid thirties"),
        ("en", "at 3:00 pm, 3:00, 15:00 or 7:05; 3pm", "at three pm three o'clock fifteen hundred or seven oh five "
         "three pm"),
        ("en", "555-1234, 500-1000", "five five five one two three four five hundred one thousand"),
        ("en", "+1 (555) 123-4567", "plus one five five five one two three four five six seven"),
        ("en", "5 km/h, 10km, 3 km², 3×4 ±5 ÷6, § 5, #3, No. 2", "five kilometers per hour ten kilometers three km "
         "squared three times four plus or minus five divided by six section five number three number two"),
        ("en", "5 ¢ ₹500 ₩1 ₽2 5‰ ₺7", "five cents five hundred rupees one won two rubles five per mille seven lira"),
        ("en", "World War II, Chapter V, the part I like, XX", "world war two chapter five the part i like xx"),
        ("es", "3/4 de litro a las 3:00 o 14:30 h", "tres cuartos de litro a las tres o catorce y treinta"),
        ("es", "siglos V y XX, 10–12, 5 km/h", "siglos quinto y veinte diez a doce cinco kilómetros por hora"),
        ("fr", "14h30, 1 h, le XIXe siècle, Ier siècle", "quatorze heures trente une heure le dix neuvième siècle "
         "premier siècle"),
        ("de", "14:30 Uhr, 1:05; die 1990er, 1990", "vierzehn uhr dreißig ein uhr fünf die neunzehnhundertneunziger "
         "neunzehnhundertneunzig"),
        ("it", "XX secolo, ore 14:00", "ventesimo secolo ore quattordici"),
        ("pt", "14h30, 2:00, século V", "catorze e trinta duas horas século quinto"),
        ("nl", "14:30 uur, 3/4", "veertien uur dertig driekwart"),
        ("ru", "1 км/ч, 22 кг, ₽5, 1/2", "один километр в час двадцать два килограмма пять рублей половина"),
        ("zh", "14:30，5‰", "14 点 30 分 千 分 之 5"),
        ("ja", "1:30、5km", "一 時 三 十 分 五 キ ロ メ ー ト ル"),
        ("el", "5 €, 3,000", "5 ευρώ 3 0 0 0"),
        ("en", "1500 km, $ 1990, 1990", "one thousand five hundred kilometers one thousand nine hundred and ninety "
         "dollars nineteen ninety"),
        ("ta", "₹5", "5 rupee"),
        ("xx", "1/2 14:30 10–12", "1 2 14 30 10 12"),
    ],
)  # fmt: skip
def test_numbers_that_are_not_one_number_are_read_as_people_read_them(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == expected


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("he", "שָׁלוֹם, מַה־שְּׁלוֹמְךָ?", "שלום מה שלומך"),
        ("yi", "אַן", "אַן"),
        ("ar", "السَّلامُ عليكُم، هٰذا", "السلام عليكم هذا"),
        ("fa", "كتاب علي", "کتاب علی"),
        ("ar", "کتاب", "كتاب"),
        ("ar", "١٬٢٣٤٬٥٦٧", "مليون و مئتان و أربعة و ثلاثون ألفا و خمسمائة و سبعة و ستون"),
        ("ur", "يہ ۵۰٪ ہے", "یہ 50 فیصد ہے"),
        ("az", "İldırım IŞIQ", "ildırım ışıq"),
        ("en", "İstanbul i\u0307stanbul", "istanbul istanbul"),
        ("ro", "Şi ţara", "și țara"),
        ("th", "กํา นํ้า นำ้ เเม่", "กำ น้ำ น้ำ แม่"),
        ("lo", "ນໍ້າ ເເມ່", "ນ້ຳ ແມ່"),
        ("ml", "അവന്\u200d", "അവൻ"),
        ("ca", "col.legi, intel•ligent", "col·legi intel·ligent"),
        ("zh", "二○二四年", "二 〇 二 四 年"),
        ("en", "£1m, €3bn and $2.5K; $5 milk", "one million pounds three billion euros and two point five thousand "
         "dollars five dollars milk"),
        ("en", "1.2.3 at 192.168.0.1, 1.5.", "one two three at one hundred and ninety two one hundred and sixty eight "
         "zero one one point five"),
        ("de", "1,2,3 und 1.234,5", "eins zwei drei und eintausendzweihundertvierunddreißig komma fünf"),
        ("ru", "3-я, 10-го, 90-е, 5-е, 1990-х", "третья десятого девяностые пятое тысяча девятьсот девяностых"),
        ("uk", "5-й", "п'ятий"),
        ("gl", "5 %", "5 por cento"),
    ],
)  # fmt: skip
def test_what_looks_or_sounds_the_same_is_written_in_one_way(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == expected == normalize(expected, language)


NUMBERS = [
    "1/2",
    "24/7",
    "3/12",
    "14:30",
    "3:00",
    "1990",
    "1990s",
    "10–12",
    "5-6",
    "555-1234",
    "+49 171 1234567",
    "16:9",
]
NUMBERS += ["5 km/h", "1.5", "1,5", "1st", "№ 5", "#5", "§ 5", "3×4", "±5", "½", "3½", "2024-03-05", "06 12 34 56 78"]
NUMBERS += (
    [f"5 {c}" for c in "%‰¢$€£¥₹₩₽₺₴₫°"] + [f"{c}5" for c in "$€£¥₹₩₽₺₴₫"] + ["14h", "5 kg", "1 1/2", "007", "3pm"]
)


@pytest.mark.parametrize("language", ["en", "es", "fr", "de", "it", "pt", "ru", "zh", "tr", "th", "el", "ta", "xx"])
def test_no_number_is_lost_and_its_neighbors_stay(language: str) -> None:
    for number in NUMBERS:
        words = normalize(f"abc {number} xyz", language).split()
        assert words[0] == "abc" and words[-1] == "xyz", number
        digits = len(re.findall(r"\d+|½", number))
        assert len(words) - 2 >= (digits if number not in ("1/2", "3:00", "1 1/2", "1,5", "1.5", "3½") else 1), number
        assert normalize(number, language).split() == words[1:-1], number


@pytest.mark.parametrize("language", [*CVSS, "el", "hi", "ko", "he", "th", "pl", "ur", "mr", "az", "ka", "is"])
@pytest.mark.parametrize("sign", "%$€£₹₩₽¢₺")
def test_a_sign_with_a_number_has_a_word_in_every_language_with_words_for_signs(language: str, sign: str) -> None:
    assert len(normalize(f"5 {sign}", language).split()) > len(normalize("5", language).split())
    assert normalize(f"5{sign}", language) == normalize(f"5 {sign}", language)


@pytest.mark.parametrize("language", CVSS)
def test_no_language_loses_a_percent_sign_or_a_currency(language: str) -> None:
    words = normalize("5 %", language).split()
    assert len(words) > len(normalize("5", language).split())
    assert words == normalize("5%", language).split()
    assert normalize("$5", language) == normalize("5 $", language) != normalize("5", language)


def test_long_digit_strings_are_read_digit_by_digit():
    assert normalize("0" * 15 + "12", "en").split() == ["zero"] * 15 + ["one", "two"]
    assert normalize("9" * 5000, "lv").split() == ["deviņi"] * 5000  # beyond what int() takes


@pytest.mark.parametrize(("am", "nikhahit", "aa", "tone"), ["\u0e33\u0e4d\u0e32\u0e48", "\u0eb3\u0ecd\u0eb2\u0ec8"])
def test_tone_marks_stand_before_all_am_vowels_that_they_are_typed_after(
    am: str, nikhahit: str, aa: str, tone: str
) -> None:
    letter = {"\u0e33": "น", "\u0eb3": "ນ"}[am]
    for typed in (am + tone, nikhahit + aa + tone, nikhahit + tone + aa, tone + am):
        assert normalize(letter + typed, "th") == letter + tone + am
    for typed in (nikhahit + aa + nikhahit + aa + tone, am + tone + am, am + am + tone):
        assert normalize(letter + typed, "th") == letter + tone + am + am
    assert len(normalize(letter + am * 50_000 + tone, "th")) == 50_002  # in one pass


@pytest.mark.slow
@given(texts, st.sampled_from((*CVSS, "en", "xx")))
def test_normalized_text_is_a_fixed_point_without_capitals_punctuation_or_double_spaces(text, language):
    once = normalize(text, language)
    assert normalize(once, language) == once
    assert once == once.lower() == unicodedata.normalize("NFC", once)
    assert once == " ".join(once.split(" ")) and once == once.strip() and "  " not in once
    assert all(c in ("' ·" if language == "ca" else "' ") or unicodedata.category(c)[0] in "LMN" for c in once)
    assert not re.search(r"(^| )'|'( |$)", once)


@pytest.mark.parametrize("language", CVSS)
def test_every_cvss_language_normalises_numbers_of_any_size(language):
    for text in ("0", "7", "42", "1999", "1234567", "999999999999999", "3,14", "3.14", "0º 0th 0e"):
        assert normalize(text, language)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("es", "es"), ("spa", "es"), ("ES", "es"), ("es-419", "es"), ("spa_Latn", "es"), ("Spanish", "es"),
        ("cmn", "zh"), ("zh-Hant-TW", "zh"), ("deu", "de"), ("ger", "de"), ("iw", "he"),
        ("nb", "nb"), ("xho", "xho"),
    ],
)  # fmt: skip
def test_a_language_has_one_code_however_a_table_calls_it(name: str, code: str) -> None:
    assert language_code(name) == code
    assert normalize("3,5", name) == normalize("3,5", code)
