"""How much of the speech can stand as text: the words that are surely aligned, and the ratios that they allow."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.interleaving.schedule import text_ratio
from unitweave.interleaving.sequence import SEGMENTS, SOURCE, TARGET, TASKS
from unitweave.lm.data.dataset import language_groups
from unitweave.lm.data.sizes import Sizes

_FAR = 0.9  # a realized ratio below this fraction of the nominal one is warned of


@dataclass(frozen=True)
class Coverage:
    """The speech in one language.

    Attributes:
        words: int64 [recordings].
        replaceable: int64 [recordings]: how many of the words can be replaced.
    """

    words: np.ndarray
    replaceable: np.ndarray

    @property
    def fraction(self) -> float:
        """Fraction of all words that can be replaced."""
        return float(self.replaceable.sum() / max(1, self.words.sum()))

    def realized(self, ratio: float) -> float:
        """Expected fraction of all words that are text at the text ratio `ratio`."""
        return float(np.minimum(ratio * self.words, self.replaceable).sum() / max(1, self.words.sum()))


def interleaved_coverage(pairs: Sequence[Pair], sizes: Sizes, settings: LmSettings) -> dict[str, Coverage]:
    """Count the words on the sides that a system interleaves.

    Args:
        pairs: Utterance pairs.
        sizes: Of the example of each.
        settings: The system's tasks and sides.

    Returns:
        Language -> coverage, sorted; empty where no task of the system has speech on a side that is interleaved.
    """
    tasks = [TASKS[task] for task, weight in settings.tasks.items() if weight > 0]
    counted: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
    for side, code in enumerate((SOURCE, TARGET)):
        if settings.interleave.sides not in ("both", SEGMENTS[code - 1]) or not any(code in task for task in tasks):
            continue
        for languages, group in language_groups(pairs).items():
            rows = group[sizes.tokens[code - 1, group] >= 0]
            if len(rows):
                counts = (sizes.words[side, rows].astype(np.int64), sizes.replaceable[side, rows].astype(np.int64))
                counted.setdefault(languages[side], []).append(counts)
    return {
        name: Coverage(
            np.concatenate([words for words, _ in parts]), np.concatenate([replaceable for _, replaceable in parts])
        )
        for name, parts in sorted(counted.items())
    }


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
    if not any(part.fraction for part in coverage.values()):
        words, least = sum(int(part.words.sum()) for part in coverage.values()), settings.interleave.min_alignment_score
        raise InputError(
            f"schedule: asks for text ratio {highest:.2f}, but none of the speech's {words} words can be replaced: "
            f"none is aligned with a score of {least:g} or more; align the units, lower "
            "interleave.min_alignment_score, or train with schedule.shape none"
        )
    return [
        f"{language}: text ratio {highest:.2f} becomes {part.realized(highest):.2f}, since only "
        f"{100 * part.fraction:.0f} % of its words are reliably aligned (interleave.min_alignment_score "
        f"{settings.interleave.min_alignment_score:g})"
        for language, part in coverage.items()
        if part.realized(highest) < _FAR * highest
    ]


def coverage_line(coverage: dict[str, Coverage]) -> str:
    """Format the share of words that can be replaced in each language."""
    return ", ".join(f"{name} {100 * part.fraction:.1f} % of {part.words.sum():,}" for name, part in coverage.items())
