"""What is kept of a decoding gives the same as computing anew, and saves steps."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import DynamicCache

from helpers.decoders import UNITS_IN_BOOK, random_decoder
from unitweave.config.translate import DecodingSettings
from unitweave.translate.constraints import TRANSLATION, Continuation, Translation
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.prefix_cache import PrefixCache, keep, reuse

SHORT = DecodingSettings(max_text_tokens_per_second=6.0, max_units_per_frame=0.5, text_only=True)


@pytest.fixture(scope="module")
def decoder(text_lm_folder: Path) -> PhaseDecoder:
    return random_decoder(text_lm_folder)


class Counted:
    """Counts how many tokens the model reads, and in how many steps."""

    def __init__(self, decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = self.tokens = 0
        step = decoder.step

        def counted(ids: torch.Tensor, *rest: object) -> torch.Tensor:
            self.steps, self.tokens = self.steps + 1, self.tokens + ids.numel()
            return step(ids, *rest)  # type: ignore[arg-type]

        monkeypatch.setattr(decoder, "step", counted)

    def taken(self) -> tuple[int, int]:
        found, self.steps, self.tokens = (self.steps, self.tokens), 0, 0
        return found


def growing(seed: int) -> list[np.ndarray]:
    """What is heard of an utterance: more and more of it, the last frames of which change once more is heard."""
    rng = np.random.default_rng(seed)
    whole = rng.integers(0, UNITS_IN_BOOK, 60)
    heard = [np.append(whole[:n], rng.integers(0, UNITS_IN_BOOK, 4)) for n in (20, 35, 35, 56)]
    return [one.astype(np.uint16) for one in heard] + [heard[-1].astype(np.uint16)]


def same(one: Translation, other: Translation) -> bool:
    return one.tokens == other.tokens and one.complete == other.complete and one.ended == other.ended


@pytest.mark.slow
@pytest.mark.parametrize(("beams", "committed"), [(1, 0), (1, 3), (2, 3)])
def test_texts_with_what_was_kept_are_those_computed_anew(decoder: PhaseDecoder, beams: int, committed: int) -> None:
    settings = replace(SHORT, num_beams=beams)
    streams = list(zip(*(growing(seed) for seed in range(3)), strict=True))
    kept: list[PrefixCache | None] = [None] * 3
    forced: list[dict[int, list[int]]] = [{} for _ in range(3)]
    for sources in streams:
        anew = decoder.translate(sources, settings, forced)
        found = decoder.translate(sources, settings, forced, kept=kept)
        for one, other, cache in zip(found, anew, (one.cache for one in found), strict=True):
            assert same(one, other) and cache is not None and other.cache is None
            assert one.score == pytest.approx(other.score, abs=1e-4)
            prompt = decoder.prompt(sources[found.index(one)])
            assert cache.tokens == tuple([*prompt, *one.tokens][: len(cache.tokens)]) and cache.decoded
        kept = [one.cache for one in found]
        begin = [one.tokens.index(decoder.vocabulary.markers["translation"]) + 2 for one in found]
        texts = [one.tokens[first:-1] for one, first in zip(found, begin, strict=True)]
        forced = [{TRANSLATION: text[:committed]} if text[:committed] else {} for text in texts]


def test_an_utterance_of_which_nothing_changed_is_read_in_one_step(
    decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = Counted(decoder, monkeypatch)
    first, second = growing(1)[2:4]
    (one,) = decoder.translate([first], SHORT, kept=[None])
    steps, tokens = counted.taken()
    assert steps == len(one.tokens) and tokens == len(decoder.prompt(first)) + len(one.tokens) - 1
    (again,) = decoder.translate([first], SHORT, kept=[one.cache])
    assert same(one, again) and counted.taken() == (1, 1 + len(one.tokens))
    assert again.cache is not None
    (more,) = decoder.translate([second], SHORT, kept=[replace(again.cache, decoded=())])  # no guess
    assert counted.taken() == (
        len(more.tokens),
        len(decoder.prompt(second)) - again.cache.shared(decoder.prompt(second)) + len(more.tokens) - 1,
    )
    assert again.cache.shared(decoder.prompt(second)) >= 36


@pytest.mark.slow
def test_speech_goes_on_from_what_its_texts_and_its_first_units_left(
    decoder: PhaseDecoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted, sources = Counted(decoder, monkeypatch), [growing(seed)[3] for seed in range(3)]
    texts = decoder.translate(sources, SHORT, kept=[None] * 3)
    kept = [one.cache for one in texts]
    units: list[tuple[int, ...]] = [()] * 3
    settings = replace(SHORT, text_only=False, max_unit_repeats=3)
    for block in (5, 9, 7):
        states = [Continuation(tuple(one.tokens), u, block) for one, u in zip(texts, units, strict=True)]
        anew = decoder.continue_units(sources, states, settings)
        counted.taken()
        found = decoder.continue_units(sources, states, settings, kept)
        assert counted.taken()[1] <= 3 * (block + 2)  # the last unit of before, and each of these
        assert all(same(one, other) for one, other in zip(found, anew, strict=True))
        units, kept = [tuple(one.units.tolist()) for one in found], [one.cache for one in found]


def test_a_guess_is_the_rest_of_the_same_texts_or_the_same_translation() -> None:
    marker, target = 90, 91
    cache = PrefixCache((), (1, 2, 3, marker, 5, 6, 7, target, 40, 41), ())
    assert cache.guess([], marker, target) == (1, 2, 3, marker, 5, 6, 7, target)
    assert cache.guess([1, 2], marker, target) == (3, marker, 5, 6, 7, target)
    assert cache.guess([1, 9], marker, target) == ()
    assert cache.guess([1, 9, 9, marker, 5], marker, target) == (6, 7, target)
    assert cache.shared([1, 2]) == 0 and PrefixCache((4, 5, 6), (), ()).shared([4, 5, 6]) == 2


def test_a_model_whose_layers_forget_computes_everything(decoder: PhaseDecoder) -> None:
    forgetful = DynamicCache()
    forgetful.update(torch.zeros(1, 1, 2, 4), torch.zeros(1, 1, 2, 4), 0)
    assert keep(forgetful, 0, torch.ones(2), [1, 2], []) is None
    cache, counts = reuse(decoder.model.config, [[1, 2, 3]], [None])
    assert counts == [0] and cache.get_seq_length() == 0
