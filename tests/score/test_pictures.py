"""The report's pictures of words and of the interleaving."""

from random import Random

import numpy as np
import pytest

from unitweave.config.interleave import InterleaveSettings
from unitweave.interleaving.sequence import interleave_speech, prepare_speech
from unitweave.score.pictures import interleaved_pieces, picture_width, word_boxes
from unitweave.units.dataset import UnitRow


def test_the_reports_picture_draws_what_training_draws() -> None:
    scores = np.array([0.9, 0.1, 0.9, 0.9], dtype=np.float32)
    starts, ends = np.array([0, 4, 9, 12]), np.array([4, 9, 12, 20])
    row = UnitRow("u", "src", np.repeat([3, 5], 10).astype(np.uint16), ["a", "b", "c", "d"], starts, ends, scores)
    full = word_boxes(row, 1.0, InterleaveSettings(), False)
    assert [(box.sure, box.text) for box in full] == [(True, True), (False, False), (True, True), (True, True)]
    assert interleaved_pieces(full, InterleaveSettings()) == [(True, "a"), (False, "5 units"), (True, "c d")]
    masked = InterleaveSettings(replace_with="mask", min_alignment_score=0.0)
    assert interleaved_pieces(word_boxes(row, 1.0, masked, False), masked) == [(True, "▒ ▒ ▒ ▒")]
    row.words[:] = ["我", "们", "好", "吗"]
    unspaced = InterleaveSettings(min_alignment_score=0.0)
    assert interleaved_pieces(word_boxes(row, 1.0, unspaced, False), unspaced) == [(True, "我们好吗")]
    uniform = InterleaveSettings(boundaries="uniform")
    assert [(box.left, box.width, box.sure) for box in word_boxes(row, 0.5, uniform, False)] == [
        (0, 25, True), (25, 25, True), (50, 25, True), (75, 25, True),
    ]  # fmt: skip
    assert [box.units for box in word_boxes(row, 0.0, uniform, True)] == [1, 0, 1, 0], "merged units, as trained on"
    for spans_of in (InterleaveSettings(mean_span_length=1.0), InterleaveSettings(mean_span_length=8.0)):
        speech = prepare_speech(row.units, starts, ends, scores, [np.zeros(1, np.int32)] * 4, spans_of)
        _, spans = interleave_speech(speech, 0.5, spans_of, 0, Random(0))
        drawn = [any(first <= i < last for first, last in spans) for i in range(4)]
        assert [box.text for box in word_boxes(row, 0.5, spans_of, False)] == drawn


@pytest.mark.parametrize(
    "words",
    [
        ["a", "unbelievably", "long", "sentence", "in", "one", "and", "a", "half", "seconds", "indeed"],
        ["extraordinariamente"],
        ["你好", "世界", "a"],
    ],
)
def test_no_label_is_clipped_and_none_covers_another(words: list[str]) -> None:
    frames = 75
    cuts = np.linspace(0, frames, len(words) + 1).astype(int)
    row = UnitRow("u", "src", np.zeros(frames, np.uint16), words, cuts[:-1], cuts[1:], np.ones(len(words), np.float32))
    boxes = word_boxes(row, 0.0, InterleaveSettings(), False)
    for width in (picture_width(1.5, boxes), 600):  # the least that the page gives it, and a wide window
        placed = [(min(box.left * width / 100, width - box.label), box.label, box.row) for box in boxes]
        assert all(left >= 0 and left + label <= width for left, label, _ in placed)
        for i, (left, label, row_) in enumerate(placed):
            assert all(other >= left + label for other, _, its_row in placed[i + 1 :] if its_row == row_)
    assert all(box.label > 6 * len(box.word) for box in boxes)
