"""Which systems are compared, and what follows from each comparison: by rule, from the numbers alone."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from unitweave.experiment.provenance import kinds_of_machine
from unitweave.experiment.results import GridResults, Result, Training
from unitweave.metrics.significance import Difference, difference

_RISE = 1.0  # BLEU
METRICS = {"asr_bleu": "ASR-BLEU", "text_bleu": "text BLEU"}


@dataclass(frozen=True)
class Comparison:
    """One system against another, on the trainings that both have: seed, threads, machine, units and vocoder.

    Attributes:
        group: (model, data, steps) of `system`.
        against_steps: Steps of `against`; those of `system` where the two are compared at equal steps.
        hours: Hours of source speech.
        headline: Whether it is against the baseline at equal steps.
    """

    group: tuple[str, str, int]
    system: str
    against: str
    against_steps: int
    hours: float
    ours: dict[Training, Result]
    theirs: dict[Training, Result]
    differences: dict[str, Difference]
    headline: bool = False

    @property
    def machines(self) -> int:
        """Kinds of machine on which the trainings were done."""
        return len(kinds_of_machine(training.machine for training in self.ours))

    @cached_property
    def by_machine(self) -> dict[str, "Comparison"]:
        """Kind of machine -> the comparison of the trainings on it alone."""
        parts = {}
        for machine in dict.fromkeys(training.machine for training in self.ours):
            ours, theirs = (
                {t: r for t, r in side.items() if t.machine == machine} for side in (self.ours, self.theirs)
            )
            parts[machine] = replace(self, ours=ours, theirs=theirs, differences=_differences(ours, theirs))
        return parts

    def verdict(self, difference: Difference) -> str:
        """The finding of one of its differences; a headline needs several kinds of machine."""
        return difference.verdict(self.machines if self.headline else None)

    @cached_property
    def languages(self) -> dict[str, Difference]:
        """Source language -> difference of ASR-BLEU on its utterances; empty for a test set in one."""
        language_of = np.array(next(iter(self.ours.values())).languages)
        languages = sorted(set(language_of.tolist()))
        if len(languages) < 2:
            return {}
        return {language: self.on(language_of == language, "asr_bleu") for language in languages}

    def on(self, chosen: np.ndarray, metric: str) -> Difference:
        """The difference on a part of the test utterances; `chosen` is bool [utterances]."""
        return difference(
            {s: r.counts[metric][chosen] for s, r in self.ours.items()},
            {s: r.counts[metric][chosen] for s, r in self.theirs.items()},
        )


def compare(
    results: GridResults, group: tuple[str, str, int], system: str, against: str, against_steps: int | None = None
) -> Comparison | None:
    """`system` against `against` in one group; None where they have no training in common.

    Args:
        against_steps: Another number of steps for `against`; None: the group's.
    """
    model, data, steps = group
    against_steps = against_steps or steps
    ours, theirs = results.find(group, system), results.find((model, data, against_steps), against)
    both = sorted(ours.keys() & theirs.keys())
    if not both:
        return None
    ours, theirs = {t: ours[t] for t in both}, {t: theirs[t] for t in both}
    differences = _differences(ours, theirs)
    experiment = results.plan.experiment
    headline = (against, against_steps) == (experiment.baseline, steps)
    return Comparison(group, system, against, against_steps, results.hours(data), ours, theirs, differences, headline)


def _differences(ours: Mapping[Training, Result], theirs: Mapping[Training, Result]) -> dict[str, Difference]:
    """Metric -> the difference of two systems that have the same trainings."""
    return {
        metric: difference(
            {t: r.counts[metric] for t, r in ours.items()}, {t: r.counts[metric] for t, r in theirs.items()}
        )
        for metric in METRICS
    }


def method_against_baseline(results: GridResults) -> list[Comparison]:
    """The method against the baseline, in every group that has both, at equal steps."""
    experiment = results.plan.experiment
    pairs = [compare(results, group, experiment.method, experiment.baseline) for group in results.groups()]
    return [pair for pair in pairs if pair is not None]


def against_longer(results: GridResults) -> list[Comparison]:
    """The same pairs, and those requested, where the other has trained for more steps: does it catch up?

    The system at its smallest number of steps, the other at its largest.
    """
    experiment = results.plan.experiment
    pairs = [
        (experiment.method, experiment.baseline),
        *((pair.system, pair.against) for pair in experiment.comparisons),
    ]
    comparisons = []
    for model, data in dict.fromkeys(group[:2] for group in results.groups()):
        trials = [r.trial for r in results.results if r.trial.group[:2] == (model, data)]
        for system, against in pairs:
            min_steps = min((trial.steps for trial in trials if trial.system == system), default=0)
            max_steps = max((trial.steps for trial in trials if trial.system == against), default=0)
            if 0 < min_steps < max_steps:
                comparisons.append(compare(results, (model, data, min_steps), system, against, max_steps))
    return [pair for pair in comparisons if pair is not None]


def further(results: GridResults) -> list[Comparison]:
    """The requested comparisons, at equal steps; those of the method are among the ablations, reversed."""
    experiment = results.plan.experiment
    found = [
        compare(results, group, pair.system, pair.against)
        for pair in experiment.comparisons
        if pair.system != experiment.method
        for group in results.groups()
    ]
    return [pair for pair in found if pair is not None]


def surest(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """One comparison per model and amount of data: the one with most trainings, and among those with most steps."""
    best: dict[tuple[str, str], Comparison] = {}
    for comparison in comparisons:
        key = comparison.group[:2]
        if key not in best or _weight(comparison) > _weight(best[key]):
            best[key] = comparison
    return list(best.values())


def _weight(comparison: Comparison) -> tuple[int, int]:
    return len(comparison.ours), comparison.group[2]


def still_rising(comparison: Comparison) -> list[str]:
    """Those of the two systems whose dev score rose by over 1 between the last two evaluations."""
    rising = []
    for system, side in ((comparison.against, comparison.theirs), (comparison.system, comparison.ours)):
        ends = [
            [scores["bleu"] for _, scores in r.curve[-2:] if "bleu" in scores and r.dev_bleu is not None]
            for r in side.values()
        ]
        if all(len(end) == 2 for end in ends) and sum(last - before for before, last in ends) > _RISE * len(ends):
            rising.append(system)
    return rising


def ablations(results: GridResults) -> list[tuple[Comparison, Comparison | None]]:
    """Every further system against the method, and against the baseline where that has the trainings too."""
    experiment = results.plan.experiment
    others = [s for s in experiment.systems if s not in (experiment.method, experiment.baseline)]
    comparisons = []
    for group in results.groups():
        for system in others:
            against = compare(results, group, system, experiment.method)
            if against is not None:
                comparisons.append((against, compare(results, group, system, experiment.baseline)))
    return comparisons


def best_on_dev(results: GridResults) -> list[dict[str, Result]]:
    """System -> its result of the steps with the highest dev score, for each model, amount and training with several.

    Only where both the method and the baseline have a dev score of more than one number of steps.
    """
    experiment = results.plan.experiment
    rows = []
    for model, data, training in dict.fromkeys((*r.trial.group[:2], r.training) for r in results.results):
        chosen, several = {}, True
        for system in (experiment.baseline, experiment.method):
            evaluated = [
                r
                for r in results.results
                if (*r.trial.group[:2], r.training, r.trial.system) == (model, data, training, system)
                and r.dev_bleu is not None
            ]
            several &= len(evaluated) > 1
            if evaluated:
                chosen[system] = max(evaluated, key=lambda r: (r.dev_bleu or 0.0, -r.trial.steps))
        if several:
            rows.append(chosen)
    return rows


def in_words(comparison: Comparison, metric: str) -> str:
    """A finding as a sentence; on the page its verdict precedes it."""
    model, data, _ = comparison.group
    where = f"{model}, {data} ({comparison.hours:.2f} h, {_steps(comparison)})"
    return f"{where}: {_sentence(comparison, comparison.differences[metric], metric)}"


def of_language(comparison: Comparison, language: str, hours: float) -> str:
    """The same for the utterances of one source language, with its hours of training speech."""
    model, data, _ = comparison.group
    where = f"{model}, {data}, {language} ({hours:.2f} h, {_steps(comparison)})"
    return f"{where}: {_sentence(comparison, comparison.languages[language], 'asr_bleu')}"


def _steps(comparison: Comparison) -> str:
    steps = comparison.group[2]
    if comparison.against_steps == steps:
        return f"{steps} steps"
    return f"{comparison.system} {steps} steps, {comparison.against} {comparison.against_steps}"


def _sentence(comparison: Comparison, difference: Difference, metric: str) -> str:
    way = "above" if difference.mean > 0 else "below"
    number, machines = len(difference.by_training), comparison.machines
    trainings = (
        f"{number} training{'s' if number > 1 else ''} on {machines} kind{'s' if machines > 1 else ''} of machine"
    )
    return (
        f"{comparison.system} is {abs(difference.mean):.1f} {METRICS[metric]} {way} {comparison.against} "
        f"[{difference.low:+z.1f}, {difference.high:+z.1f}], {trainings}"
    )
