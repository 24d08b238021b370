"""Subtitles that a viewer can read: reading speed, duration, wrapping, merging; whatever the texts and times."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitweave.translate.subtitles import GAP_SECONDS, LINE, MAX_SECONDS, MIN_SECONDS, PER_SECOND, Cue, readable, width

WORDS = st.sampled_from(["a", "the", "house", "extraordinarily,", "yes.", "no", "Straße", "two", "words;", "good"])
TEXTS = st.lists(WORDS, min_size=1, max_size=80).map(" ".join)


@st.composite
def spoken(draw: st.DrawFn) -> list[Cue]:
    """Utterances in order, without overlap, dense or sparse."""
    cues, at = [], 0.0
    for _ in range(draw(st.integers(1, 12))):
        start = at + draw(st.floats(0, 4))
        at = start + draw(st.floats(0.1, 20))
        cues.append(Cue(start, at, draw(TEXTS)))
    return cues


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(spoken())
def test_no_word_is_lost_no_cue_is_too_large_and_none_overlap(cues: list[Cue]) -> None:
    found = readable(cues)
    assert " ".join(" ".join(cue.text for cue in found).split()) == " ".join(cue.text for cue in cues)
    for cue in found:
        lines = cue.text.split("\n")
        assert len(lines) <= 2 and all(0 < width(line) <= LINE for line in lines)
        assert cue.end > cue.start >= 0 and cue.end - cue.start <= MAX_SECONDS + 0.2
    for before, after in itertools.pairwise(found):
        assert after.start - before.end >= GAP_SECONDS - 1e-6


def test_a_short_cue_stays_as_long_as_it_takes_to_read_where_there_is_room() -> None:
    (first, second) = readable([Cue(0.0, 0.3, "Yes"), Cue(8.0, 8.5, "This one has a good deal more to read.")])
    assert first == Cue(0.0, MIN_SECONDS, "Yes")
    assert second.end - second.start >= width(second.text) / PER_SECOND
    dense = readable(
        [Cue(0, 1, "One short sentence here."), Cue(3.0, 3.2, "And a longer one that has no room behind it.")]
    )
    assert all(cue.end - cue.start >= width(cue.text) / PER_SECOND for cue in dense)


def test_short_neighbors_become_one_cue_and_far_ones_stay_apart() -> None:
    assert [cue.text for cue in readable([Cue(0, 0.3, "No."), Cue(0.5, 0.9, "Never.")])] == ["No. Never."]
    assert [cue.text for cue in readable([Cue(0, 0.3, "네"), Cue(0.5, 0.9, "아니요")])] == ["네 아니요"]
    assert [cue.text for cue in readable([Cue(0, 0.3, "是"), Cue(0.5, 0.9, "不是")])] == ["是不是"]
    assert len(readable([Cue(0, 0.3, "No."), Cue(5.0, 5.4, "Never.")])) == 2


def test_a_long_utterance_is_cut_at_its_sentences_and_shares_its_time() -> None:
    text = "The first sentence is about the weather in the north. The second one is about the sea and the ships on it."
    cues = readable([Cue(10.0, 17.0, text)])
    assert len(cues) == 2 and cues[0].text.replace("\n", " ").endswith("north.")
    assert cues[0].start == 10.0 and 13.0 < cues[1].start < 14.5 and cues[-1].end >= 16.9
    first, second = cues[0].text.split("\n")
    assert abs(len(first) - len(second)) < 12, "the lines are balanced"


def test_scripts_without_spaces_are_wrapped_by_their_width() -> None:
    text = "今天天气很好我们一起去公园散步吧然后再去吃晚饭好不好呢我觉得这样安排非常不错"
    cues = readable([Cue(0.0, 6.0, text)])
    assert "".join(cue.text for cue in cues).replace("\n", "") == text
    assert all(width(line) <= LINE for cue in cues for line in cue.text.split("\n"))


def test_no_line_ends_within_a_word_or_begins_with_a_closing_mark() -> None:
    korean = "안녕하세요 여러분 오늘은 정말 날씨가 좋습니다 그래서 우리는 공원에 갔습니다 그리고 점심을 먹었습니다"
    assert " ".join(" ".join(cue.text for cue in readable([Cue(0, 5, korean)])).split()) == korean
    for length in range(12):
        text = "好" * length + "我有一个iPhone手机「非常好」，你呢？（是的）我觉得这样安排非常不错。"
        lines = [line for cue in readable([Cue(0, 5, text)]) for line in cue.text.split("\n")]
        assert "".join(lines) == text and sum("iPhone" in line for line in lines) == 1
        assert all(line[0] not in "」，？）。" and line[-1] not in "「（" for line in lines)
    thai = "สวัสดีครับวันนี้อากาศดีมากเราไปเดินเล่นที่สวนสาธารณะกันเถอะแล้วค่อยไปกินข้าวเย็นด้วยกัน"
    lines = [line for cue in readable([Cue(0, 5, thai)]) for line in cue.text.split("\n")]
    assert "".join(lines) == thai and not any(line[-1] in "เแโใไ" for line in lines)


def test_a_word_that_lasts_for_long_is_not_shown_for_long_and_cues_are_in_order() -> None:
    (slow,) = readable([Cue(1, 21, "Hello")])
    assert slow == Cue(1, 1 + MAX_SECONDS, "Hello")
    assert [cue.text for cue in readable([Cue(15, 16, "then"), Cue(0, 1, "first")])] == ["first", "then"]


def test_marks_over_and_under_letters_take_no_room() -> None:
    assert width("สวัสดี") == 4 and width("हिन्दी") == 5 and width("نَعَم") == 3
    thai = "น้ำ" * 21
    assert width(thai) == 42 and "\n" not in readable([Cue(0, 3, thai)])[0].text


@pytest.mark.parametrize(
    ("text", "ends"),
    [
        ("Go to https://www.example.org/a/very/long/path/index.html?query=1&other=two#top and look", "o./?&#=k"),
        ("Write to averylongfirstname.averylonglastname@averylongdomainname.example.com today.", ".@o"),
        ("non-" * 40, "-"),
    ],
)  # fmt: skip
def test_an_address_that_no_line_holds_is_cut_behind_its_marks(text: str, ends: str) -> None:
    cues = readable([Cue(0, 6, text)])
    lines = [line for cue in cues for line in cue.text.split("\n")]
    assert "".join("".join(lines).split()) == "".join(text.split())
    assert all(width(line) <= LINE and line[-1] in ends for line in lines), lines


@pytest.mark.parametrize(
    "text", ["สวัสดีครับผมชื่อสมชายวันนี้อากาศดีมาก" * 3, "Donaudampfschifffahrtselektrizitätenhauptbetriebswerkbau." * 3]
)
@pytest.mark.parametrize("seconds", [0.5, 3.0, 9.0])
def test_pieces_of_a_text_that_are_put_together_again_get_no_space(text: str, seconds: float) -> None:
    cues = readable([Cue(0, seconds, text), Cue(seconds + 0.1, seconds + 0.2, text)])
    assert "".join(line for cue in cues for line in cue.text.split("\n")).replace(" ", "") == 2 * text
    assert sum(cue.text.count(" ") for cue in cues) <= 1
