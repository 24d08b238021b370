"""Beginnings of utterance pairs: words, units and tokens stay together, and as many are cut as was asked for."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers.examples import MARKERS, random_example
from helpers.streams import speech_source
from unitweave.config.interleave import InterleaveSettings
from unitweave.core.errors import InputError
from unitweave.interleaving.prefixes import cut_places, draw_prefix, first_words, source_prefix, target_prefix
from unitweave.interleaving.sequence import SOURCE, TARGET, TRANSLATION, Example, interleave

ES, EN = 300, 301


def example_of(seed: int) -> Example:
    """A pair whose texts have their language tags."""
    one = random_example(seed)
    texts = {"transcript": (ES, one.source.text), "translation": (EN, one.target.text)}
    return one._replace(**{name: np.append(tag, text).astype(np.int32) for name, (tag, text) in texts.items()})


def check_beginning(cut, whole, words: int) -> None:
    """The units, words and tokens of the first words, and nothing else."""
    assert np.array_equal(cut.units, whole.units[: whole.cuts[words]])
    assert len(cut.cuts) == words + 1 and cut.cuts[-1] == len(cut.units)
    assert cut.text_cuts[-1] == len(cut.text) and np.array_equal(cut.text, whole.text[: len(cut.text)])
    assert set(cut.eligible) == {word for word in whole.eligible.tolist() if word < words}


@given(st.integers(0, 500))
def test_a_beginning_of_the_translation_has_exactly_its_units(seed: int) -> None:
    whole = example_of(seed)
    for words in cut_places(whole.target):
        cut = target_prefix(whole, words)
        check_beginning(cut.target, whole.target, words)
        assert cut.source is whole.source and cut.transcript is whole.transcript
        assert cut.translation.tolist() == [EN, *cut.target.text]
        made = interleave(cut, "s2st", 0.0, InterleaveSettings(), MARKERS, Random(0))
        assert made.ids[made.segments == TARGET].tolist() == [*whole.target.units[: whole.target.cuts[words]], 204]
        assert made.ids[made.segments == TRANSLATION].tolist() == [EN, *cut.target.text, 203]


@given(st.integers(0, 500))
def test_a_beginning_of_the_source_has_its_transcript_and_no_more_of_the_translation(seed: int) -> None:
    whole = example_of(seed)
    before = 0
    for words in cut_places(whole.source):
        cut = source_prefix(whole, words)
        if cut is whole:
            continue
        check_beginning(cut.source, whole.source, words)
        assert cut.transcript.tolist() == [ES, *cut.source.text]
        said = len(cut.target.cuts) - 1
        check_beginning(cut.target, whole.target, said)
        assert 1 <= said <= words / (len(whole.source.cuts) - 1) * (len(whole.target.cuts) - 1)
        assert said >= before  # who hears more says no less
        before = said
        made = interleave(cut, "s2st", 0.5, InterleaveSettings(), MARKERS, Random(0))
        assert (made.segments == SOURCE).any()


def test_recordings_are_cut_only_between_words_that_are_surely_aligned() -> None:
    speech = example_of(4).target
    words = len(speech.cuts) - 1
    assert cut_places(speech) == list(range(1, words))
    unsure = speech._replace(eligible=speech.eligible[speech.eligible != 2])
    assert cut_places(unsure) == [word for word in range(1, words) if word not in (2, 3)]
    assert cut_places(None) == [] and cut_places(first_words(speech, 1)) == []


def test_pairs_whose_text_is_not_what_is_said_stay_whole() -> None:
    whole = example_of(4)
    other = whole._replace(translation=np.append(whole.translation, 7).astype(np.int32))
    assert target_prefix(other, 1) is other and source_prefix(other, 3) is other
    silent = whole._replace(target=None)
    assert target_prefix(silent, 1) is silent and source_prefix(silent, 1) is silent


def test_as_many_examples_are_cut_as_the_settings_say_and_none_by_default() -> None:
    settings = InterleaveSettings(target_prefix_ratio=0.3, source_prefix_ratio=0.2)
    pool = [one for one in map(example_of, range(200)) if len(one.target.cuts) > 4 and len(one.source.cuts) > 4]
    rng = Random(1)
    drawn = [(one, draw_prefix(one, settings, rng)) for _ in range(30) for one in pool]
    target = sum(cut.target is not one.target and cut.source is one.source for one, cut in drawn) / len(drawn)
    source = sum(cut.source is not one.source for one, cut in drawn) / len(drawn)
    assert target == pytest.approx(0.3, abs=0.03) and 0.1 < source < 0.23
    state = rng.getstate()
    assert draw_prefix(pool[0], InterleaveSettings(), rng) is pool[0] and rng.getstate() == state
    with pytest.raises(InputError, match="add up to at most 1"):
        InterleaveSettings(target_prefix_ratio=0.7, source_prefix_ratio=0.7)


def test_a_step_with_prefixes_is_shorter_and_repeats_exactly() -> None:
    def tokens(**changes: float) -> list[list[int]]:
        source = speech_source(interleave=InterleaveSettings(**changes), examples=[example_of(i) for i in range(23)])
        return [one.ids.tolist() for step in range(4) for one in source.sequences(step)]

    plain, cut = tokens(), tokens(target_prefix_ratio=0.5)
    assert sum(map(len, cut)) < sum(map(len, plain))
    assert tokens(target_prefix_ratio=0.5) == cut and tokens() == plain
