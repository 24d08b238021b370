"""Beginnings of utterance pairs, for models that translate while somebody is speaking. Pure functions.

Two kinds: the beginning of the translation with exactly its units, which is what committed words are spoken from; and
the beginning of the source with the transcript of what was heard and as large a part of the translation (proportional
prefix pairs, Niehues et al. 2018, arXiv 1808.00491).
"""

from random import Random

import numpy as np

from unitweave.config.interleave import InterleaveSettings
from unitweave.interleaving.sequence import Example, Speech


def draw_prefix(example: Example, settings: InterleaveSettings, rng: Random) -> Example:
    """The example, or with the probabilities of the settings a beginning of it.

    Nothing is drawn where both probabilities are 0, so that other draws of the generator stay as they are.
    """
    if settings.target_prefix_ratio <= 0 and settings.source_prefix_ratio <= 0:
        return example
    chance = rng.random()
    if chance < settings.target_prefix_ratio:
        places = cut_places(example.target)
        return target_prefix(example, rng.choice(places)) if places else example
    if chance < settings.target_prefix_ratio + settings.source_prefix_ratio:
        places = cut_places(example.source)
        return source_prefix(example, rng.choice(places)) if places else example
    return example


def cut_places(speech: Speech | None) -> list[int]:
    """After how many words a recording may be cut: 1 or more, not all, between two words that are surely aligned."""
    if speech is None:
        return []
    sure = set(speech.eligible.tolist())
    return [word for word in range(1, len(speech.cuts) - 1) if word in sure and word - 1 in sure]


def first_words(speech: Speech, words: int) -> Speech:
    """The first words of a recording, with exactly their units."""
    return Speech(
        speech.units[: speech.cuts[words]],
        speech.cuts[: words + 1],
        speech.text[: speech.text_cuts[words]],
        speech.text_cuts[: words + 1],
        speech.eligible[speech.eligible < words],
    )


def target_prefix(example: Example, words: int) -> Example:
    """The whole source, and the first words of the translation as text and speech.

    An example whose translation is not what its target speech says stays whole.
    """
    if example.target is None or not _matches(example.target, example.translation):
        return example
    target = first_words(example.target, words)
    return example._replace(target=target, translation=_first_tokens(example.translation, target))


def source_prefix(example: Example, words: int) -> Example:
    """The first words of the source with their transcript, and the same fraction of the translation, rounded down.

    An example stays whole where a text is not what its speech says, or where the translation cannot be cut there.
    """
    if example.source is None or not _matches(example.source, example.transcript):
        return example
    source = first_words(example.source, words)
    cut = example._replace(source=source, transcript=_first_tokens(example.transcript, source))
    if example.target is None:
        return cut if example.translation is None else example
    wanted = words * (len(example.target.cuts) - 1) // (len(example.source.cuts) - 1)
    places = [place for place in cut_places(example.target) if place <= wanted]
    if not places or not _matches(example.target, example.translation):
        return example
    target = first_words(example.target, places[-1])
    return cut._replace(target=target, translation=_first_tokens(example.translation, target))


def _matches(speech: Speech, text: np.ndarray | None) -> bool:
    """Whether a text, less its language tag, is what the speech says; no text is never wrong."""
    return text is None or np.array_equal(text[1:], speech.text)


def _first_tokens(text: np.ndarray | None, speech: Speech) -> np.ndarray | None:
    """The language tag and the tokens of the speech that is left."""
    return None if text is None else text[: 1 + len(speech.text)]
