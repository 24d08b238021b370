"""Schedule, spans and sequences: the method's own rules."""

import itertools
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.core.errors import InputError
from unitweave.interleaving.schedule import text_ratio, utterance_ratio
from unitweave.interleaving.schedules.adaptive import Adaptive
from unitweave.interleaving.sequence import (
    NONE,
    SOURCE,
    TARGET,
    TASKS,
    TRANSCRIPT,
    TRANSLATION,
    Example,
    Markers,
    Speech,
    interleave,
    interleave_speech,
    prepare_speech,
)
from unitweave.interleaving.spans import _below, _draw_slots, draw_spans, spread_over, word_cuts

MARKERS = Markers(source=900, transcript=901, translation=902, target=903, end=904, mask=905)


def test_paper_staircase_falls_by_a_tenth_every_300_steps_to_zero() -> None:
    ratio = text_ratio(ScheduleSettings(), 10_000)
    assert [ratio(300 * k) for k in range(11)] == [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1, 0.0, 0.0]
    assert ratio(299) == 0.9 and ratio(2699) == 0.1 and ratio(9_999) == 0.0
    assert ratio.last_change == 2700


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_smooth_schedules_fall_from_start_to_zero_at_end(shape: str) -> None:
    ratio = text_ratio(ScheduleSettings(shape=shape, end=100), 200)
    values = [ratio(step) for step in range(201)]
    assert values[0] == pytest.approx(0.9) and values[100:] == [0.0] * 101
    assert all(a >= b for a, b in itertools.pairwise(values))
    assert values[50] == pytest.approx(0.45)


def test_schedule_as_a_share_of_the_run_equals_the_same_one_in_steps() -> None:
    by_step = text_ratio(ScheduleSettings(stair_steps=30), 600)
    by_share = text_ratio(ScheduleSettings(stair_steps=0.05, unit="fraction"), 600)
    assert [by_step(s) for s in range(600)] == [by_share(s) for s in range(600)]


def test_points_are_joined_by_straight_lines() -> None:
    ratio = text_ratio(ScheduleSettings(shape="points", points=[(10, 0.8), (20, 0.2), (30, 0.2)]), 100)
    assert [ratio(s) for s in (0, 10, 15, 20, 25, 99)] == pytest.approx([0.8, 0.8, 0.5, 0.2, 0.2, 0.2])


@pytest.mark.parametrize(
    "bad",
    [
        {"shape": "stairs"},
        {"start": 1.2},
        {"decrement": 0},
        {"stair_steps": -1},
        {"shape": "linear", "end": 0},
        {"shape": "points"},
        {"shape": "points", "points": [(5, 0.1), (5, 0.2)]},
        {"shape": "points", "points": [(5, 1.1)]},
        {"unit": "epoch"},
    ],
)
def test_a_schedule_that_cannot_be_is_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        text_ratio(ScheduleSettings(**bad), 100)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(st.integers(0, 40), st.floats(0, 1), st.floats(0.3, 10), st.integers(0, 2**40))
def test_spans_are_disjoint_in_order_inside_and_of_the_right_size(n: int, ratio: float, mean: float, seed: int) -> None:
    spans = draw_spans(n, ratio, mean, Random(seed))
    edges = [edge for span in spans for edge in span]
    assert all(a < b for a, b in itertools.pairwise(edges)), "disjoint, not touching, not empty"
    assert not edges or (edges[0] >= 0 and edges[-1] <= n)
    drawn = sum(last - first for first, last in spans)
    assert int(ratio * n) <= drawn <= int(ratio * n) + 1
    assert spans == draw_spans(n, ratio, mean, Random(seed))


@pytest.mark.parametrize("words", [1, 2, 5, 13])
@pytest.mark.parametrize("ratio", [0.1, 0.5, 0.9])
def test_expected_share_of_replaced_words_is_the_ratio(words: int, ratio: float) -> None:
    rng = Random(7)
    share = np.mean([sum(b - a for a, b in draw_spans(words, ratio, 3.0, rng)) / words for _ in range(10_000)])
    # At most one word more or less than the ratio: a standard error of at most 0.5 / words / 100.
    assert share == pytest.approx(ratio, abs=4 * 0.5 / words / 100 + 1e-9)


def test_every_word_is_equally_likely_to_be_replaced() -> None:
    rng = Random(1)
    counts = np.zeros(10)
    for _ in range(20_000):
        for first, last in draw_spans(10, 0.5, 3.0, rng):
            counts[first:last] += 1
    assert np.abs(counts / 20_000 - 0.5).max() < 4 * 0.5 / np.sqrt(20_000)


def test_span_lengths_follow_the_poisson_mean() -> None:
    rng = Random(3)
    # Few spans among many words seldom touch, so merged neighbors hardly matter.
    lengths = [b - a for _ in range(3000) for a, b in draw_spans(400, 0.05, 3.0, rng)]
    expected = 3.0 / (1 - np.exp(-3.0))  # a Poisson variable that is not 0
    assert np.mean(lengths) == pytest.approx(expected, rel=0.12)


def test_spans_over_eligible_words_are_split_where_an_ineligible_word_stands_between() -> None:
    assert spread_over([(0, 3)], np.array([0, 1, 3])) == [(0, 2), (3, 4)]


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 2**31))
def test_word_cuts_give_every_frame_to_one_word(words: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(0, 200, size=2 * words))
    cuts = word_cuts(edges[0::2], edges[1::2], 200)
    assert cuts[0] == 0 and cuts[-1] == 200 and (np.diff(cuts) >= 0).all()
    assert (cuts[1:-1] >= edges[1:-1:2]).all() and (cuts[1:-1] <= edges[2::2]).all(), "each cut lies in its pause"


def speech(words: int, seed: int, first_unit: int = 100) -> Speech:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(2, 9, size=words)
    ends = np.cumsum(lengths)
    units = rng.integers(first_unit, first_unit + 50, size=int(ends[-1]) if words else 3)
    tokens = [rng.integers(1, 99, size=int(n)).astype(np.int32) for n in rng.integers(1, 4, size=words)]
    return prepare_speech(units, ends - lengths, ends, np.ones(words), tokens, InterleaveSettings())


@settings(deadline=None)
@given(st.integers(1, 15), st.integers(0, 2**31))
def test_ratio_zero_is_exactly_the_units_and_ratio_one_exactly_the_text(words: int, seed: int) -> None:
    one = speech(words, seed)
    none, spans = interleave_speech(one, 0.0, InterleaveSettings(), 905, Random(seed))
    assert np.array_equal(np.concatenate(none), one.units) and spans == []
    full, spans = interleave_speech(one, 1.0, InterleaveSettings(), 905, Random(seed))
    assert np.array_equal(np.concatenate(full), one.text) and spans == [(0, words)]


@settings(deadline=None)
@given(st.integers(1, 15), st.floats(0, 1), st.integers(0, 2**31))
def test_woven_speech_holds_each_word_once_as_text_or_as_units(words: int, ratio: float, seed: int) -> None:
    one = speech(words, seed)
    pieces, spans = interleave_speech(one, ratio, InterleaveSettings(), 905, Random(seed))
    as_text = {word for first, last in spans for word in range(first, last)}
    expected = [
        one.text[one.text_cuts[w] : one.text_cuts[w + 1]] if w in as_text else one.units[one.cuts[w] : one.cuts[w + 1]]
        for w in range(words)
    ]
    assert np.array_equal(np.concatenate(pieces), np.concatenate(expected))


def test_words_aligned_unsurely_or_without_frames_stay_speech() -> None:
    tokens = [np.array([i + 1], dtype=np.int32) for i in range(4)]
    one = prepare_speech(
        np.arange(100, 120),
        np.array([0, 5, 10, 10]),
        np.array([5, 10, 10, 20]),
        np.array([0.9, 0.1, 0.9, 0.9]),
        tokens,
        InterleaveSettings(min_alignment_score=0.5),
    )
    assert one.eligible.tolist() == [0, 3]
    pieces, _ = interleave_speech(one, 1.0, InterleaveSettings(), 905, Random(0))
    assert np.concatenate(pieces).tolist() == [1, *range(105, 110), 4]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 15), st.integers(0, 15), st.sampled_from([0.1, 0.5, 0.9]), st.integers(0, 2**31))
def test_the_ratio_is_one_of_all_words_as_far_as_the_sure_ones_reach(
    words: int, unsure: int, ratio: float, seed: int
) -> None:
    one = speech(words, seed)
    eligible = np.sort(np.random.default_rng(seed).permutation(words)[: max(0, words - unsure)])
    one = one._replace(eligible=eligible)
    reached = min(ratio * words, len(eligible))
    rng, drawn = Random(seed), []
    for _ in range(400):
        _, spans = interleave_speech(one, ratio, InterleaveSettings(), 905, rng)
        drawn.append(sum(last - first for first, last in spans))
        assert all(set(range(first, last)) <= set(eligible.tolist()) for first, last in spans)
    assert int(reached + 1e-9) <= min(drawn) and max(drawn) <= int(reached + 1e-9) + 1
    assert np.mean(drawn) == pytest.approx(reached, abs=5 * 0.5 / 20)


def test_where_every_word_is_sure_the_draws_are_those_of_the_spans_alone() -> None:
    one = speech(12, 3)
    for seed in range(50):
        _, spans = interleave_speech(one, 0.7, InterleaveSettings(), 905, Random(seed))
        assert spans == draw_spans(12, 0.7, 3.0, Random(seed))


def test_a_sequence_counts_its_words_and_those_that_stand_as_text() -> None:
    both = interleave(example(0), "s2st", 1.0, InterleaveSettings(), MARKERS, Random(0))
    assert (both.words, both.replaced) == (13, 13)
    source = interleave(example(0), "s2st", 0.5, InterleaveSettings(sides="source"), MARKERS, Random(0))
    assert (source.words, source.replaced) == (6, 3), "the other side is not asked for text"
    assert interleave(example(0), "mt", 0.5, InterleaveSettings(), MARKERS, Random(0)).words == 0


@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_recording_that_could_not_be_aligned_stays_speech_whatever_the_least_score(deduplicate: bool) -> None:
    tokens = [np.array([i + 1], dtype=np.int32) for i in range(3)]
    none = np.zeros(3, dtype=np.int32)
    settings = InterleaveSettings(min_alignment_score=0.0)
    one = prepare_speech(np.arange(100, 120), none, none, none, tokens, settings, deduplicate)
    assert not len(one.eligible)
    pieces, spans = interleave_speech(one, 1.0, settings, 905, Random(0))
    assert np.concatenate(pieces).tolist() == list(range(100, 120)) and spans == []


@pytest.mark.parametrize("deduplicate", [False, True])
def test_a_recording_without_words_is_speech_alone(deduplicate: bool) -> None:
    empty = np.empty(0, dtype=np.int32)
    assert word_cuts(empty, empty, 20).tolist() == [0]
    one = prepare_speech(np.arange(100, 120), empty, empty, empty, [], InterleaveSettings(), deduplicate)
    pieces, _ = interleave_speech(one, 1.0, InterleaveSettings(), 905, Random(0))
    assert np.concatenate(pieces).tolist() == list(range(100, 120)) and one.cuts.tolist() == [0]


def test_uniform_boundaries_need_no_alignment() -> None:
    tokens = [np.array([i], dtype=np.int32) for i in range(4)]
    one = prepare_speech(
        np.arange(100, 120), np.zeros(4), np.zeros(4), np.zeros(4), tokens, InterleaveSettings(boundaries="uniform")
    )
    assert one.cuts.tolist() == [0, 5, 10, 15, 20] and one.eligible.tolist() == [0, 1, 2, 3]


def test_a_run_that_crosses_a_word_boundary_goes_to_the_word_in_which_it_begins() -> None:
    units = np.array([5, 5, 5, 6, 6, 6, 6, 7])
    tokens = [np.array([1], dtype=np.int32), np.array([2], dtype=np.int32)]
    one = prepare_speech(
        units, np.array([0, 5]), np.array([5, 8]), np.ones(2), tokens, InterleaveSettings(), deduplicate=True
    )
    assert one.units.tolist() == [5, 6, 7] and one.cuts.tolist() == [0, 2, 3]


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.floats(0, 1), st.integers(0, 2**31))
def test_deduplicated_speech_is_exactly_the_runs_and_woven_word_by_word(
    words: int, kinds: int, ratio: float, seed: int
) -> None:
    """Few kinds of units, so that runs are long, cross word boundaries and swallow whole words."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(1, 6, size=words)
    ends = np.cumsum(lengths)
    units = rng.integers(100, 100 + kinds, size=int(ends[-1]))
    tokens = [np.array([i + 1], dtype=np.int32) for i in range(words)]
    one = prepare_speech(units, ends - lengths, ends, np.ones(words), tokens, InterleaveSettings(), deduplicate=True)
    runs = [int(u) for u, _ in itertools.groupby(units.tolist())]
    none, _ = interleave_speech(one, 0.0, InterleaveSettings(), 905, Random(seed))
    assert np.concatenate(none).tolist() == one.units.tolist() == runs
    assert one.cuts[0] == 0 and one.cuts[-1] == len(runs) and (np.diff(one.cuts) >= 0).all()
    assert one.eligible.tolist() == np.flatnonzero(np.diff(one.cuts)).tolist(), "a swallowed word stays speech"
    pieces, spans = interleave_speech(one, ratio, InterleaveSettings(), 905, Random(seed))
    as_text = {word for first, last in spans for word in range(first, last)}
    expected = [[w + 1] if w in as_text else one.units[one.cuts[w] : one.cuts[w + 1]].tolist() for w in range(words)]
    assert np.concatenate(pieces).tolist() == [token for word in expected for token in word]


def example(seed: int) -> Example:
    text = np.array([800, 1, 2], dtype=np.int32)
    return Example(speech(6, seed), speech(7, seed + 1), text, text + 1)


def test_s2st_sequence_has_the_stages_in_order_and_ratio_zero_is_the_inference_format() -> None:
    one = example(0)
    interleaved = interleave(one, "s2st", 0.0, InterleaveSettings(), MARKERS, Random(0))
    expected = [900, *one.source.units, 901, *one.transcript, 902, *one.translation, 903, *one.target.units, 904]
    assert interleaved.ids.tolist() == expected
    counts = [1, len(one.source.units) + 1, 4, 4, len(one.target.units) + 1]
    codes = np.repeat([NONE, SOURCE, TRANSCRIPT, TRANSLATION, TARGET], counts)
    assert np.array_equal(interleaved.segments, codes), "a marker counts under the segment that it ends"


@pytest.mark.parametrize("task", TASKS)
def test_each_task_has_its_own_segments_and_ends(task: str) -> None:
    interleaved = interleave(example(1), task, 0.5, InterleaveSettings(), MARKERS, Random(0))
    assert tuple(dict.fromkeys(interleaved.segments[1:].tolist())) == TASKS[task]
    assert interleaved.ids[-1] == MARKERS.end and interleaved.ids[0] == MARKERS.of(TASKS[task][0])


@pytest.mark.parametrize(
    ("sides", "interleaved_sides"), [("source", {SOURCE}), ("target", {TARGET}), ("both", {SOURCE, TARGET})]
)
def test_only_the_chosen_sides_are_interleaved(sides: str, interleaved_sides: set[int]) -> None:
    one = example(2)
    interleaved = interleave(one, "s2st", 1.0, InterleaveSettings(sides=sides), MARKERS, Random(0))
    for segment, side in ((SOURCE, one.source), (TARGET, one.target)):
        inside = interleaved.ids[interleaved.segments == segment][:-1]
        assert np.array_equal(inside, side.text if segment in interleaved_sides else side.units)


def test_mask_tokens_stand_where_the_text_would() -> None:
    one = example(3)
    text = interleave(one, "s2st", 0.6, InterleaveSettings(), MARKERS, Random(5))
    masked = interleave(one, "s2st", 0.6, InterleaveSettings(replace_with="mask"), MARKERS, Random(5))
    changed = text.ids != masked.ids
    assert changed.any() and (masked.ids[changed] == MARKERS.mask).all()
    assert set(text.segments[changed].tolist()) <= {SOURCE, TARGET}, "transcript and translation stay text"


def test_begin_token_opens_the_sequence_where_the_model_has_one() -> None:
    markers = Markers(900, 901, 902, 903, 904, 905, begin=7)
    interleaved = interleave(example(4), "asr", 0.0, InterleaveSettings(), markers, Random(0))
    assert interleaved.ids[:2].tolist() == [7, 900] and interleaved.segments[:3].tolist() == [NONE, NONE, SOURCE]


def test_equal_seeds_give_equal_sequences_and_others_differ() -> None:
    runs = [
        interleave(example(5), "s2st", 0.5, InterleaveSettings(), MARKERS, Random(seed)).ids.tolist()
        for seed in (1, 1, 2)
    ]
    assert runs[0] == runs[1] != runs[2]


def test_a_pair_without_a_side_that_the_task_needs_is_refused() -> None:
    with pytest.raises(InputError, match="target speech"):
        interleave(Example(speech(3, 0), None, None, None), "direct", 0.5, InterleaveSettings(), MARKERS, Random(0))


@pytest.mark.parametrize(
    "bad", [{"sides": "left"}, {"replace_with": "x"}, {"boundaries": "y"}, {"mean_span_length": 0}]
)
def test_wrong_weave_settings_are_refused(bad: dict) -> None:
    with pytest.raises(InputError):
        InterleaveSettings(**bad)


def test_an_adaptive_ratio_follows_from_the_step_and_the_losses_before_it() -> None:
    settings = ScheduleSettings(
        shape="adaptive", decrement=0.3, stair_steps=10, end=200, min_improvement=0.1, unit="steps"
    )
    ratio = text_ratio(settings, 400)
    assert isinstance(ratio, Adaptive) and ratio.every == 10 and ratio.last_change == 200
    assert [ratio(step) for step in (0, 100, 200, 300)] == pytest.approx([0.9, 0.45, 0, 0]), "the line alone"
    for step, loss in ((10, 4.0), (20, 3.0), (30, 2.9), (40, 2.0), (50, 2.1)):
        ratio.observe(step, loss)
    assert ratio(30) == pytest.approx(0.9 * (1 - 30 / 200)), "a look does not count for the batch after it"
    assert ratio(31) == pytest.approx(0.6) and ratio(41) == pytest.approx(0.6)
    assert ratio(51) == pytest.approx(0.3) and ratio(25) == pytest.approx(0.9 * (1 - 25 / 200))


@given(st.floats(0, 1), st.floats(0, 1), st.integers(0, 2**32))
def test_an_utterances_ratio_is_even_around_the_schedules(ratio: float, spread: float, seed: int) -> None:
    drawn = [utterance_ratio(ratio, spread, Random(f"{seed} {i}")) for i in range(200)]
    width = min(spread, ratio, 1 - ratio)
    assert all(-1e-9 <= one <= 1 + 1e-9 and abs(one - ratio) <= width + 1e-9 for one in drawn)
    assert abs(sum(drawn) / len(drawn) - ratio) <= 0.3 * width + 1e-9
    if not width:
        assert set(drawn) == {ratio}


@given(slots=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 2**70))
def test_the_quick_draws_are_those_of_the_standard_library(slots: int, share: float, seed: int) -> None:
    quick, own = Random(0), Random(seed)
    super(Random, quick).seed(seed)  # as the stream of batches seeds it
    count = max(1, round(share * slots))
    assert _draw_slots(slots, count, quick) == sorted(own.sample(range(slots), count))
    assert _below(slots, quick) == own.randrange(slots)
    assert quick.getstate() == own.getstate()
