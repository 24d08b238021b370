"""Word times as aligners and recognizers write them: the same two words of a recording of 2 s, in every layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unitweave.core.errors import InputError
from unitweave.units.word_times import TimedWord, match_words, read_word_times, timed_row

A = {"word": " Una", "start": 0.1, "end": 0.4}
B = {"word": "casa.", "start": 0.5, "end": 0.9}
LOST = {"word": "2", "score": 0.1}
TEXTS = [{"text": " Una", "timestamp": [0.1, 0.4]}, {"text": " casa", "timestamp": [0.5, 0.9]}]
TIERS = {
    "words": {"type": "interval", "entries": [[0.0, 0.1, ""], [0.1, 0.4, "una"], [0.5, 0.9, "casa"]]},
    "phones": {"type": "interval", "entries": [[0.1, 0.4, "u"]]},
}
GRID = 'File type = "ooTextFile"\nObject class = "TextGrid"\n\n0\n2\n<exists>\n{}\n'
WORDS = '"IntervalTier"\n"{}"\n0\n2\n4\n0\n0.1\n"sil"\n0.1\n0.4\n"una"\n0.4\n0.5\n"<eps>"\n0.5\n0.9\n"CASA"\n'
EMPTY, POINTS = '"IntervalTier"\n"notes"\n0\n2\n0\n', '"TextTier"\n"clicks"\n0\n2\n1\n0.3\n"x"\n'
PHRASE = '"IntervalTier"\n"x"\n0\n2\n1\n0\n2\n"una casa muy vieja"\n'
CTM = ";; comment\nu A 0.1 0.3 una 0.98 lex spk\nu A 0.4 0.1 <unk> NA\nu A 0.5 0.4 casa 1.00\r\nu A 1 1 SIL\n"
LAYOUTS: dict[str, tuple[str, Any]] = {
    "WhisperX": ("u.json", {"segments": [{"words": [A, LOST]}, {"words": [B]}], "word_segments": [A, LOST, B]}),
    "Whisper": ("u.json", {"text": "x", "segments": [{"words": [A | {"probability": 0.9}, B]}, {"text": "no words"}]}),
    "transformers": ("u.json", {"text": "x", "chunks": [*TEXTS, {"text": " x", "timestamp": [0.9, None]}]}),
    "Gentle": ("u.json", {"transcript": "x", "words": [A | {"case": "success"}, {"word": "x", "case": "lost"}, B]}),
    "WhisperX, words alone": ("u.json", {"word_segments": [A, LOST, B]}),
    "CrisperWhisper": (
        "u.json",
        {"text": "x", "chunks": [TEXTS[0], {"text": " [UH]", "timestamp": [0.4, 0.45]}, TEXTS[1]]},
    ),
    "Vosk": ("u.json", {"text": "x", "result": [A | {"conf": 1.0}, B | {"conf": 0.99}]}),
    "MFA": ("u.json", {"start": 0, "end": 2, "tiers": TIERS}),
    "a bare list": ("u.json", [A, B]),
    "records": ("all.json", [{"id": "u", "words": [A | {"score": None}, B]}, {"id": "v", "words": []}]),
    "lines": ("all.jsonl", {"id": "u", "words": [A, {"word": "x", "start": None, "end": None}, B]}),
    "no score": ("u.json", [A | {"score": float("nan")}, B]),
    "points and an empty tier": ("u.TextGrid", GRID.format(3) + EMPTY + POINTS + WORDS.format("speaker - words")),
    "old and short": (
        "u.TextGrid",
        'File type = "ooTextFile short"\n"TextGrid"\n\n0\n2\n<exists>\n1\n' + WORDS.format("words"),
    ),
    "WebMAUS": ("u.TextGrid", GRID.format(2) + WORDS.format("ORT-MAU") + WORDS.format("MAU")),
    "CTM": ("a.ctm", CTM),
    "MFA's CSV": (
        "u.csv",
        "Begin,End,Label,Type,Speaker\n0.1,0.4,una,words,s\n0.5,0.9,casa,words,s\n0.1,0.2,u,phones,s\n",
    ),
    "a table": ("u.csv", "word,start,end\nuna,0.1,0.4\ncasa,0.5,0.9\n"),
    "Kaldi's file without a suffix": ("ctm", "u 1 0.1 0.3 una\nu 1 0.5 0.4 casa\n"),
    "durations": ("u.json", {"words": [A | {"end": None, "duration": 0.3}, B]}),
    "Audacity": ("u.txt", "0.100000\t0.400000\tuna\n0.500000\t0.900000\tcasa\n"),
}


def write(folder: Path, name: str, content: object, encoding: str = "utf-8") -> None:
    text = content if isinstance(content, str) else json.dumps(content)
    (folder / name).write_text(text, encoding=encoding)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-be"])
def test_what_aligners_and_recognizers_write_gives_words_and_times(layout: str, encoding: str, tmp_path: Path) -> None:
    write(tmp_path, *LAYOUTS[layout], encoding)
    timed = next(words for name, words in read_word_times(tmp_path) if name == "u")
    scores = timed_row("u", "src", timed).scores
    assert not np.isnan(scores).any() and (scores[0] == 0) == (layout == "no score")
    found = match_words(["una", "casa"], "es", timed, 2.0, 50, 25.0, "u/src")
    assert (found.starts.tolist(), found.ends.tolist()) == ([2, 12], [10, 22])


def test_texts_and_tables_of_something_else_are_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "u.txt", "una casa\t2\tx\n")
    write(tmp_path, "notes.txt", "")
    write(tmp_path, "table.csv", "file,text\nu,una casa\n")
    with pytest.raises(InputError, match=r"no alignments; expected .*\.csv with the columns .* or \.txt with start"):
        list(read_word_times(tmp_path))
    write(tmp_path, "bad.csv", "Begin,End,Label\nx,2,una\n")
    with pytest.raises(InputError, match=r"bad\.csv: could not be read as an alignment"):
        list(read_word_times(tmp_path))


def test_labels_of_silence_are_no_words_unless_the_transcript_has_them() -> None:
    def frames(text: str, *timed: TimedWord) -> list[int]:
        return match_words([text], "en", timed, 4.0, 100, 25.0, "u/src").ends.tolist()

    assert frames("silence", TimedWord("Silence", 0.0, 1.0)) == [25]
    assert frames("quiet", TimedWord("sil", 1.0, 9.0)) == [0], "a silence may outlast the recording"
    assert frames("a", TimedWord("a", -0.01, 1.0)) == [25], "rounded below 0"


def test_words_that_overlap_a_little_share_what_they_both_have() -> None:
    timed = [TimedWord("una", 0.0, 0.56), TimedWord("casa", 0.48, 1.0), TimedWord("roja", 0.96, 1.0)]
    found = match_words(["una", "casa", "roja"], "es", timed, 1.0, 25, 25.0, "u/src")
    assert (found.starts.tolist(), found.ends.tolist()) == ([0, 13, 24], [13, 24, 25])
    assert (found.starts[1:] >= found.ends[:-1]).all()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("u.json", {"segments": [{"start": 0, "end": 1, "text": "una casa"}]}, "its segments have no words with times"),
        ("u.json", {"monologues": []}, "expected 'words', 'segments' or 'chunks'; it has monologues"),
        ("u.json", {"chunks": [{"text": "una casa vieja", "timestamp": [0, 1]}]}, "u: has times of phrases such as"),
        ("u.TextGrid", GRID.format(1) + PHRASE, "times of phrases such as 'una casa muy vieja', not of single words"),
        ("u.TextGrid", GRID.format(2) + WORDS.format("a") + WORDS.format("b"), "no single interval tier 'words'"),
        ("u.TextGrid", GRID.format(1) + POINTS, "it has none"),
        ("all.json", [{"id": "u", "words": [A]}, {"words": [B]}], "record 2 is not an object with an id"),
        ("u.json", {"words": [{"start": 0, "end": 1}]}, "could not be read as an alignment .*a word has 'word'"),
    ],
)
def test_times_that_are_not_those_of_words_end_in_one_line(
    name: str, content: object, message: str, tmp_path: Path
) -> None:
    write(tmp_path, name, content)
    with pytest.raises(InputError, match=message) as refused:
        list(read_word_times(tmp_path))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("score", "fits"), [(1.0001, True), (-0.001, True), (97, False), (-3.2, False)])
def test_a_score_is_a_probability(score: float, fits: bool) -> None:
    words = [TimedWord("una", 0.1, 0.2, score)]
    if fits:
        assert 0 <= timed_row("u", "src", words).scores[0] <= 1
        return
    with pytest.raises(InputError, match=r"times.ctm: u: the score of 'una' must be 0 to 1"):
        timed_row("u", "src", words, "times.ctm")
