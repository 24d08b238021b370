"""How much of the speech can stand as text: the words that are surely aligned, and the ratios that they allow."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from unitweave.config.interleave import InterleaveSettings
from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import SEGMENTS, SOURCE, TARGET, TASKS, Example, Speech, prepare_speech
from unitweave.units.dataset import UnitRow

_FAR = 0.9  # a realized ratio below this fraction of the nominal one is warned of


@dataclass
class Coverage:
    """Words of the speech in one language, and those of them that can be replaced, of each recording."""

    words: list[int] = field(default_factory=list)
    replaceable: list[int] = field(default_factory=list)

    @property
    def fraction(self) -> float:
        """Fraction of all words that can be replaced."""
        return sum(self.replaceable) / max(1, sum(self.words))

    def realized(self, ratio: float) -> float:
        """Expected fraction of all words that are text at the text ratio `ratio`."""
        words, replaceable = np.array(self.words), np.array(self.replaceable)
        return float(np.minimum(ratio * words, replaceable).sum() / max(1, words.sum()))


def speech_of_rows(
    pairs: Iterable[Pair], rows: dict[tuple[str, str], UnitRow], settings: InterleaveSettings, deduplicate: bool
) -> list[Example]:
    """Examples of the pairs' speech without their texts, for which no tokenizer is needed."""

    def speech(id_: str, side: str) -> Speech | None:
        if (row := rows.get((id_, side))) is None:
            return None
        tokens = [np.zeros(1, np.int32)] * len(row.words)
        return prepare_speech(row.units, row.starts, row.ends, row.scores, tokens, settings, deduplicate)

    return [Example(speech(pair.id, "src"), speech(pair.id, "tgt"), None, None) for pair in pairs]


def interleaved_coverage(
    pairs: Sequence[Pair], examples: Sequence[Example], settings: LmSettings
) -> dict[str, Coverage]:
    """Count the words on the sides that a system interleaves.

    Args:
        pairs: Utterance pairs.
        examples: The example of each.
        settings: The system's tasks and sides.

    Returns:
        Language -> coverage, sorted; empty where no task of the system has speech on a side that is interleaved.
    """
    tasks = [TASKS[task] for task, weight in settings.tasks.items() if weight > 0]
    sides = [
        code
        for code in (SOURCE, TARGET)
        if settings.interleave.sides in ("both", SEGMENTS[code - 1]) and any(code in task for task in tasks)
    ]
    found: dict[str, Coverage] = {}
    for pair, example in zip(pairs, examples, strict=True):
        for code in sides:
            language, speech = (pair.src_lang, example.source) if code == SOURCE else (pair.tgt_lang, example.target)
            if speech is not None:
                one = found.setdefault(language, Coverage())
                one.words.append(len(speech.cuts) - 1)
                one.replaceable.append(len(speech.eligible))
    return dict(sorted(found.items()))


def check_coverage(coverage: dict[str, Coverage], settings: LmSettings) -> list[str]:
    """Compare the ratios that a schedule asks for with those that can be reached.

    Args:
        coverage: As `interleaved_coverage` counts it.
        settings: The system's settings.

    Returns:
        A warning for each language whose realized ratio stays more than a tenth below the nominal one.

    Raises:
        InputError: The schedule asks for text, and no word can be replaced.
    """
    ratio = text_ratio(settings.schedule, settings.training.steps)
    highest = max(ratio(step) for step in range(settings.training.steps))
    if not coverage or highest == 0:
        return []
    if not any(one.fraction for one in coverage.values()):
        words, least = sum(sum(one.words) for one in coverage.values()), settings.interleave.min_alignment_score
        raise InputError(
            f"schedule: asks for text ratio {highest:.2f}, but none of the speech's {words} words can be replaced: "
            f"none is aligned with a score of {least:g} or more; align the units, lower "
            "interleave.min_alignment_score, or train with schedule.shape none"
        )
    return [
        f"{language}: text ratio {highest:.2f} becomes {one.realized(highest):.2f}, since only "
        f"{100 * one.fraction:.0f} % of its words are surely aligned (interleave.min_alignment_score "
        f"{settings.interleave.min_alignment_score:g})"
        for language, one in coverage.items()
        if one.realized(highest) < _FAR * highest
    ]


def coverage_line(coverage: dict[str, Coverage]) -> str:
    """Format the share of words that can be replaced in each language."""
    return ", ".join(f"{name} {100 * one.fraction:.1f} % of {sum(one.words):,}" for name, one in coverage.items())
