"""Natural text beside normalized text: what each piece stands for."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from unitweave.core.natural import TextPiece, clean_text, natural_pieces, normalized_pieces
from unitweave.core.scripts import join_texts, join_words, split_clusters
from unitweave.core.text import normalize

BITS = [
    "Hola",
    "¡",
    "¿Qué",
    "tal?",
    "1.234,5",
    "1 234",
    "12 000 000",
    "3rd",
    "2ª",
    "–",
    "-",
    "well-known",
    "e.g.",
    "U.S.A.",
    "rock",
    "'n'",
    "l’été",
    "O'Neill's",
    "dov'è",
    "«",
    "»",
    "(",
    ")",
    "$5",
    "50 %",
    "col·legi",
    "你好，世界。",
    "「猫」",
    "東京タワー",
    "iPhone",
    "สวัสดี",
    "เธอไป",
    "๓",
    "ខ្ញុំ",
    "မင်္ဂလာ",
    "مرحبا",
    "٤٢",
    "❤️",
    "👩\u200d👩",
    "\u200e",
    "so\xadft",
    "ﬁnd",
    "Ａ",
    "３，０００",
    "́",
    "…",
    "3D",
    *("½", "3½", "m²", "&", "+", "007", "n.º 5", "R$ 5,00", "l'80%", "5€", "−5 °C", "①", "US$1.5 million", 'צה"ל'),
    *(
        "1/2",
        "/",
        "3 / 4",
        "14:30",
        "14h",
        "h",
        "10–12",
        "1990s",
        "’80s",
        "5 km/h",
        "km",
        "555-1234",
        "+1 555 123 4567",
    ),
    *("§", "±", "×", "₹500", "₺", "#5", "No.", "siglo", "siglo XX", "y V", "Chapter", "XIXe siècle", "⅔", "Uhr", "pm"),
    *("שָׁלוֹם", "מַה־שְּׁלוֹמְךָ", "السَّلامُ", "İzmir", "Şi", "นํ้า", "เเม่", "അവന്\u200d", "1.2.3", "$2m", "3-я", "二○二四"),
    "1st-class",
    "A/B",
]
texts = st.lists(st.tuples(st.sampled_from(BITS), st.sampled_from([" ", "", "  ", "\u00a0"])), max_size=8)
JOINED = texts.map(lambda parts: "".join(map("".join, parts)))
LANGUAGES = ["en", "he", "ru", "es", "fr", "de", "ca", "zh", "ja", "th", "ar", "tr", "xx"]


@pytest.mark.slow
@settings(deadline=None)
@example("1.234,5  ½", "en")
@example("1.234,5  $5", "en")
@example("1.234,5\xa0007 1\u202f234", "en")
@example("5\xa0$542", "en")
@given(JOINED, st.sampled_from(LANGUAGES))
def test_pieces_add_up_to_the_text_and_their_words_to_the_normalized_text(text: str, language: str) -> None:
    pieces = natural_pieces(text, language)
    words = normalize(text, language).split()
    assert "".join(piece.text for piece in pieces) == clean_text(text)
    assert sum(piece.words for piece in pieces) == len(words)
    assert all(piece.words > 0 for piece in pieces) or len(pieces) == 1
    at = 0
    for piece in pieces:
        assert normalize(piece.text, language).split() == words[at : at + piece.words]
        at += piece.words


@pytest.mark.slow
@settings(deadline=None)
@given(st.text(max_size=30) | JOINED, st.sampled_from(LANGUAGES))
def test_normalized_words_come_back_from_running_text(text: str, language: str) -> None:
    words = normalize(text, language)
    running = join_words(words)
    assert split_clusters(running) == words == normalize(running, language)
    pieces = normalized_pieces(words)
    assert "".join(piece.text for piece in pieces) == running
    assert [piece.text.strip() for piece in pieces] == words.split()


@pytest.mark.parametrize(
    ("language", "text", "pieces"),
    [
        ("es", "¡Hola!  El 3 de mayo cuesta 1.234,5 €.", "¡Hola!| El| 3| de| mayo| cuesta| 1.234,5 €."),
        ("en", "A well-known, e.g. 'fine' – (old) U.S. don't", "A| well-known,| e.g.| 'fine' –| (old)| U.S.| don't"),
        ("fr", "L’été dure 1 234 567 jours", "L’été| dure| 1 234 567| jours"),
        ("en", "I ❤️ you", "I ❤️| you"),
        ("zh", "他说「你好」，OK？", "他|说|「你|好」，|OK？"),
        ("ja", "カーに42個。", "カ|ー|に|42|個。"),
        ("th", "สวัสดี ครับ", "ส|วั|ส|ดี| ค|รั|บ"),
        ("en", "...", "..."),
        ("en", "AT&T pays $5 & 50 %.", "AT&T| pays| $5| &| 50| %."),
        ("fr", "l’80 % de 3 ½ m²", "l’80| %| de| 3 ½| m²"),
    ],
)
def test_examples(language: str, text: str, pieces: str) -> None:
    assert [piece.text for piece in natural_pieces(text, language)] == pieces.split("|")
    assert natural_pieces("", language) == []


def test_a_number_stands_for_all_of_its_words() -> None:
    assert natural_pieces("On 21 May.", "en") == [TextPiece("On", 1), TextPiece(" 21", 2), TextPiece(" May.", 1)]


def test_running_text_has_spaces_only_where_its_script_has_them() -> None:
    assert join_words("我 有 3 个 iphone pro 手 机") == "我有 3 个 iphone pro 手机"
    assert join_words("ส วั ส ดี ค รั บ") == "สวัสดีครับ"
    assert join_words("한국어 학교 el niño") == "한국어 학교 el niño"
    assert join_words("你好。 世界") == "你好。世界"


def test_texts_one_behind_the_other_have_the_spaces_of_their_script() -> None:
    assert join_texts(["", "好的。", "", "明天见", "OK", "再见"]) == "好的。明天见 OK 再见"
    assert join_texts(["สวัสดี ครับ", "ไปไหนมา"]) == "สวัสดี ครับ ไปไหนมา", "Thai has spaces between sentences"
    assert join_texts(["네.", "안녕 하세요"]) == "네. 안녕 하세요"
