"""The phrasebook: what its sentences, its drawing and its splitting promise."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from unitweave.core.errors import InputError
from unitweave.corpus.embedded import phrasebook as pb
from unitweave.corpus.embedded.phrasebook import Sentence, content_pairs, count, draw, frames, languages, split, wording

ALL = ["en", "de", "es", "fr", "it"]


@pytest.fixture(scope="module")
def many() -> list[Sentence]:
    return draw(12_000, languages(), seed=5)


def test_languages_are_the_source_languages_with_a_file() -> None:
    assert languages() == ["de", "es", "fr", "it"]


def test_every_language_words_the_same_concepts_and_frames() -> None:
    concepts = {c for members in pb.classes().values() for c in members}
    wordings = {frame.wording for frame in frames()}
    for code in ALL:
        assert set(wording(code).concepts) == concepts, code
        assert set(wording(code).patterns) == wordings, code


def test_no_word_is_idle() -> None:
    used = {c for frame in frames() for choice in frame.choices for c in choice}
    assert used == {c for members in pb.classes().values() for c in members}


def test_there_are_a_million_sentences_and_a_few_hundred_words() -> None:
    assert count() >= 1_000_000
    assert 300 <= len(wording("en").concepts) <= 450
    assert 60 <= len(frames()) <= 150


def test_counted_is_what_enumeration_finds() -> None:
    for frame in frames():
        if pb._size(frame) < 10_000:
            assert pb._size(frame) == len(set(pb._every(frame))), frame.name


def test_same_seed_same_sentences_and_another_seed_others() -> None:
    first = draw(500, ["es"], seed=1)
    assert first == draw(500, ["es"], seed=1)
    assert {s.key for s in first} != {s.key for s in draw(500, ["es"], seed=2)}


def test_the_languages_do_not_change_what_is_drawn() -> None:
    assert [s.key for s in draw(300, ["es"], seed=0)] == [s.key for s in draw(300, ["fr", "it"], seed=0)]
    assert set(draw(1, ["fr"], seed=0)[0].text) == {"en", "fr"}


@pytest.mark.slow
def test_a_key_says_frame_and_fillers(many: list[Sentence]) -> None:
    for s in many[:200]:
        assert s.key.startswith(f"{s.frame}:")
        assert tuple(part.split("=")[1] for part in s.key.split(":")[1].split(",")) == s.fillers


@pytest.mark.slow
def test_no_sentence_comes_twice_and_each_language_translates_one_to_one(many: list[Sentence]) -> None:
    assert len({s.key for s in many}) == len(many)
    for code in ALL:
        repeated = [text for text, n in Counter(s.text[code] for s in many).items() if n > 1]
        assert not repeated, (code, repeated[:3])


@pytest.mark.slow
def test_sentences_have_three_to_twelve_words(many: list[Sentence]) -> None:
    for s in many:
        for code, text in s.text.items():
            assert 3 <= len(text.split()) <= 12, (code, text)


def test_sentences_are_cased_punctuated_and_spelt_out(many: list[Sentence]) -> None:
    for s in many:
        for code, text in s.text.items():
            assert re.fullmatch(r"¿?[A-ZÀÉÈÊÄÖÜÁÍÓÚ][\w ,'¿-]+[.?]", text), (code, text)
            assert not re.search(r"\d|_|  | [,.?]", text), (code, text)
            assert text.endswith("?") == s.text["en"].endswith("?"), (code, text)


WRONG = {
    "en": r"\ba (?=[aeio]|umb)|\ban (?![aeiou])|\b(he|she) (have|do|go|want)\b",
    "es": r"\b[Dd]e el\b|\b[Aa] el\b| y (?=i|hi)| o (?=o|ho)|\bla agua\b",
    "fr": r"\b[Dd]e les?\b|\bà les?\b|\b([JjDdLlNnMmTtSs]|[Qq]u)e (?=[aeiouéèêœ]|hier|huile|hôtel|hôpital)(?!onze)"
    r"|\b[Ll]a (?=[aeiouéèêœ]|huile)|\b[Ss]i ils?\b|'(haricot|huit|onze|yaourt)",
    "de": r"\b([Ii]n|[Aa]n|[Bb]ei|[Vv]on|[Zz]u) dem\b|\b[Zz]u der\b|\b([Ii]n|[Aa]n) das\b",
    "it": r"\b([Dd]i|[Aa]|[Dd]a|[Ii]n|[Ss]u) (il|lo|la|i|gli|le) |\b([Dd]i|[Aa]|[Dd]a|[Ii]n|[Ss]u) l'"
    r"|\b([Ii]l|[Uu]n) (?=s[bcdfglmnpqrtvz]|z|y)|\b([Ii]l|[Ll]a|[Uu]na) (?=[aeiou])|\b[Ii] (?=[aeiou]|s[pt]|z)",
}


@pytest.mark.parametrize("code", ALL)
def test_articles_contract_and_elide(code: str, many: list[Sentence]) -> None:
    wrong = [s.text[code] for s in many if re.search(WRONG[code], s.text[code])]
    assert not wrong, wrong[:5]


def test_agreement_elision_and_word_order_in_chosen_sentences() -> None:
    by_name = {frame.name: frame for frame in frames()}

    def worded(code: str, name: str, *fillers: str) -> str:
        return wording(code).sentence(by_name[name], fillers)

    assert worded("es", "dish_is", "potatoes", "very", "cold") == "Las patatas están muy frías."
    assert worded("es", "like_food", "he", "apples") == "A él le gustan mucho las manzanas."
    assert worded("fr", "go_not", "i", "hospital", "yesterday") == "Hier, je ne suis pas allé à l'hôpital."
    assert worded("fr", "go_not", "mother", "market", "monday") == "Lundi, ma mère n'est pas allée au marché."
    assert worded("fr", "need_number", "i", "eleven", "eggs") == "J'ai besoin de onze œufs pour la recette."
    assert (
        worded("de", "clothes_past", "he", "coat", "red", "yesterday") == "Gestern hat er einen roten Mantel gekauft."
    )
    assert worded("de", "doctor_says", "i", "sleep_more") == "Der Arzt sagt, dass ich mehr schlafen muss."
    assert (
        worded("de", "met_past", "we", "call", "neighbour", "sunday")
        == "Wir haben am Sonntag meinen Nachbarn angerufen."
    )
    assert worded("it", "pass_me", "sugar") == "Dammi lo zucchero, per favore."
    assert worded("it", "go_with_past", "she", "zoo", "anna", "yesterday") == "Ieri lei è andata allo zoo con Anna."


def test_a_small_draw_holds_every_word_several_times() -> None:
    uses = Counter(word for s in draw(3000, ["es"], seed=3) for word in s.fillers)
    concepts = {c for members in pb.classes().values() for c in members}
    assert min(uses[c] for c in concepts) >= 3, [c for c in concepts if uses[c] < 3]


def test_a_draw_is_spread_evenly_over_frames() -> None:
    sizes = Counter(s.frame for s in draw(10 * len(frames()), [], seed=4))
    full = {f.name: min(pb._size(f), 10) for f in frames()}
    assert all(full[name] <= n <= 14 for name, n in sizes.items()), sizes


def test_asking_for_too_much_or_for_an_unknown_language_says_so() -> None:
    with pytest.raises(InputError, match="asked for"):
        draw(count() + 1, ["es"], seed=0)
    with pytest.raises(InputError, match="no language 'xx'"):
        draw(1, ["xx"], seed=0)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "dev", "test"), [(3000, 100, 200), (12_000, 500, 1000)])
def test_split_holds_out_word_combinations(number: int, dev: int, test: int) -> None:
    sentences = draw(number, ["es"], seed=7)
    parts = split(sentences, dev, test, seed=1)
    assert parts == split(sentences, dev, test, seed=1)
    assert (len(parts["dev"]), len(parts["test"])) == (dev, test)
    assert len(parts["train"]) > 0.85 * number
    for code in ("en", "es"):
        texts = [s.text[code] for part in parts.values() for s in part]
        assert len(texts) == len(set(texts))
    seen = {pair for s in parts["train"] for pair in content_pairs(s)}
    unseen = sum(bool(content_pairs(s) - seen) for s in parts["test"])
    assert unseen >= test / 2
    words = {w for s in parts["train"] for w in (s.frame, *s.fillers)}
    for s in parts["dev"] + parts["test"]:
        assert {s.frame, *s.fillers} <= words


def test_split_refuses_what_cannot_be_split() -> None:
    sentences = draw(50, ["es"], seed=7)
    with pytest.raises(InputError, match="too few"):
        split(sentences, 10, 40, seed=1)
    with pytest.raises(InputError, match="more than once"):
        split([*sentences, sentences[0]], 1, 1, seed=1)


def test_the_command_counts_and_samples(capsys: pytest.CaptureFixture[str]) -> None:
    assert pb.main(["--count"]) == 0
    assert str(count()) in capsys.readouterr().out
    assert pb.main(["--sample", "5", "--language", "fr"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 10
