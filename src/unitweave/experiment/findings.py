"""Which systems are compared, and what follows from the comparison: by rule, from the numbers alone."""

from dataclasses import dataclass

import numpy as np

from unitweave.experiment.results import GridResults, Result
from unitweave.experiment.statistics import Difference, difference
from unitweave.score.metrics import compare_systems

METRICS = {"asr_bleu": "ASR-BLEU", "text_bleu": "text BLEU"}


@dataclass(frozen=True)
class Comparison:
    """One system against another, on the seeds that both have.

    group    (model, data, steps) that both share
    hours    of source speech
    p_values seed -> p of sacrebleu's paired bootstrap on ASR-BLEU
    languages  source language -> difference of ASR-BLEU on its utterances; empty for a test set in one
    """

    group: tuple[str, str, int]
    system: str
    against: str
    hours: float
    ours: dict[int, Result]
    theirs: dict[int, Result]
    differences: dict[str, Difference]
    p_values: dict[int, float]
    languages: dict[str, Difference]


def compare(results: GridResults, group: tuple[str, str, int], system: str, against: str) -> Comparison | None:
    """`system` against `against` in one group; None where they have no seed in common."""
    ours, theirs = results.find(group, system), results.find(group, against)
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    ours, theirs = {s: ours[s] for s in seeds}, {s: theirs[s] for s in seeds}
    found = {
        metric: difference(
            {s: r.counts[metric] for s, r in ours.items()}, {s: r.counts[metric] for s, r in theirs.items()}
        )
        for metric in METRICS
    }
    p_values = {}
    for s in seeds:
        (row,) = compare_systems({against: theirs[s].heard, system: ours[s].heard}, ours[s].references, "bs", 1000)
        p_values[s] = row["p_value"]
    languages = _by_language(ours, theirs)
    return Comparison(group, system, against, results.hours(group[1]), ours, theirs, found, p_values, languages)


def _by_language(ours: dict[int, Result], theirs: dict[int, Result]) -> dict[str, Difference]:
    """ASR-BLEU of `ours` less that of `theirs` on each source language's utterances, where there are several."""
    spoken = np.array(next(iter(ours.values())).languages)
    languages = sorted(set(spoken.tolist()))
    if len(languages) < 2:
        return {}
    return {
        language: difference(
            {s: r.counts["asr_bleu"][spoken == language] for s, r in ours.items()},
            {s: r.counts["asr_bleu"][spoken == language] for s, r in theirs.items()},
        )
        for language in languages
    }


def method_against_baseline(results: GridResults) -> list[Comparison]:
    """The method against the baseline, in every group that has both, at equal steps."""
    experiment = results.plan.experiment
    pairs = [compare(results, group, experiment.method, experiment.baseline) for group in results.groups()]
    return [pair for pair in pairs if pair is not None]


def longest(comparisons: list[Comparison]) -> list[Comparison]:
    """Of each model and amount of data the comparison at most steps."""
    best: dict[tuple[str, str], Comparison] = {}
    for comparison in comparisons:
        key = comparison.group[:2]
        if key not in best or comparison.group[2] > best[key].group[2]:
            best[key] = comparison
    return list(best.values())


def ablations(results: GridResults) -> list[tuple[Comparison, Comparison | None]]:
    """Every further system against the method, and against the baseline where that has the seeds too."""
    experiment = results.plan.experiment
    others = [s for s in experiment.systems if s not in (experiment.method, experiment.baseline)]
    found = []
    for group in results.groups():
        for system in others:
            against = compare(results, group, system, experiment.method)
            if against is not None:
                found.append((against, compare(results, group, system, experiment.baseline)))
    return found


def best_on_dev(results: GridResults) -> list[dict[str, Result]]:
    """System -> its result of the steps with the highest dev score, for each model, amount and seed with several.

    Only where both the method and the baseline have a dev score of more than one number of steps.
    """
    experiment = results.plan.experiment
    rows = []
    for model, data, seed in dict.fromkeys((r.cell.model, r.cell.data, r.cell.seed) for r in results.results):
        chosen, several = {}, True
        for system in (experiment.baseline, experiment.method):
            own = [
                r
                for r in results.results
                if (r.cell.model, r.cell.data, r.cell.seed, r.cell.system) == (model, data, seed, system)
                and r.dev_bleu is not None
            ]
            several &= len(own) > 1
            if own:
                chosen[system] = max(own, key=lambda r: (r.dev_bleu or 0.0, -r.cell.steps))
        if several:
            rows.append(chosen)
    return rows


def in_words(comparison: Comparison, metric: str) -> str:
    """A finding as a sentence; its verdict stands in front of it on the page."""
    model, data, steps = comparison.group
    where = f"{model}, {data} ({comparison.hours:.2f} h, {steps} steps)"
    return f"{where}: {_said(comparison, comparison.differences[metric], metric)}"


def of_language(comparison: Comparison, language: str, hours: float) -> str:
    """The same about the utterances of one source language, with its hours of training speech."""
    model, data, steps = comparison.group
    where = f"{model}, {data}, {language} ({hours:.2f} h, {steps} steps)"
    return f"{where}: {_said(comparison, comparison.languages[language], 'asr_bleu')}"


def _said(comparison: Comparison, found: Difference, metric: str) -> str:
    way = "above" if found.mean > 0 else "below"
    seeds = f"{len(found.each)} seed" + ("s" if len(found.each) > 1 else "")
    return (
        f"{comparison.system} is {abs(found.mean):.1f} {METRICS[metric]} {way} {comparison.against} "
        f"[{found.low:+.1f}, {found.high:+.1f}], {seeds}"
    )
