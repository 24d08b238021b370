"""What trainings of a recipe have scored before, for a reader who has just run it: a small file beside the recipe."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unitweave.config.recipe import Recipe, builtin_recipes, load_recipe
from unitweave.core.errors import InputError
from unitweave.core.files import read_json_object, write_json
from unitweave.core.records import to_json
from unitweave.score.scores import Scores

SUFFIX = ".expected.json"


@dataclass(frozen=True)
class Expected:
    """ASR-BLEU of several trainings of two systems; each range is from the lowest to the highest.

    Attributes:
        source: The archives that it was taken from.
        trainings: Their number.
        machines: The kinds of machine on which they were done.
        utterances: Tested in each.
        baseline: Range of the baseline.
        scheduled: Range of the scheduled system.
        difference: Range of their difference.
        further: Where the difference of one further training lies with a probability of 95 %, by Student's t.
    """

    source: list[str]
    trainings: int
    machines: list[str]
    utterances: int
    baseline: tuple[float, float]
    scheduled: tuple[float, float]
    difference: tuple[float, float]
    further: tuple[float, float]


def score_range(folders: Sequence[Path], system: str | None = None) -> Expected:
    """Read it from folders or archives of one experiment: of its comparison with most trainings.

    Args:
        folders: Parts of one experiment.
        system: The system that stands for the scheduled one; None for the experiment's method.

    Raises:
        InputError: Fewer than three trainings have both systems.
    """
    from unitweave.experiment.findings import Comparison, compare, surest
    from unitweave.experiment.provenance import kinds_of_machine
    from unitweave.experiment.results import read_grid
    from unitweave.metrics.significance import range_of_a_further_one

    grid = read_grid(*folders)
    experiment = grid.plan.experiment
    if system is not None and system not in experiment.systems:
        raise InputError(f"--system {system}: the experiment has: {', '.join(experiment.systems)}")
    comparisons = [compare(grid, group, system or experiment.method, experiment.baseline) for group in grid.groups()]
    best: list[Comparison] = sorted(
        surest([comparison for comparison in comparisons if comparison]), key=lambda comparison: -len(comparison.ours)
    )
    if not best or len(best[0].ours) < 3:
        raise InputError(f"{folders[0]}: a range needs at least three trainings of both systems")
    chosen = best[0]
    differences = list(chosen.differences["asr_bleu"].by_training.values())
    theirs, ours = ([r.score("asr_bleu") or 0.0 for r in side.values()] for side in (chosen.theirs, chosen.ours))
    return Expected(
        source=[Path(folder).name for folder in folders],
        trainings=len(differences),
        machines=kinds_of_machine(training.machine for training in chosen.ours),
        utterances=len(grid.results[0].ids),
        baseline=_range(theirs),
        scheduled=_range(ours),
        difference=_range(differences),
        further=_range(range_of_a_further_one(differences)),
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    return round(min(values), 1), round(max(values), 1)


def write_expected(path: Path, folders: Sequence[Path], system: str | None = None) -> Expected:
    """Write what `score_range` finds. Raises InputError as that does, and for a file within one of the folders."""
    if inside := [folder for folder in folders if Path(path).resolve().is_relative_to(Path(folder).resolve())]:
        raise InputError(f"{path}: is in {inside[0]}, which is read; choose another --out")
    expected = score_range(folders, system)
    write_json(path, to_json(expected))
    return expected


def expected_for(recipe: Recipe) -> Expected | None:
    """What is known of a recipe: of a built-in one, unchanged."""
    for path in builtin_recipes():
        stored = path.with_name(path.stem + SUFFIX)
        if stored.exists() and load_recipe(path) == recipe:
            content: dict[str, Any] = {k: tuple(v) if k in _RANGES else v for k, v in read_json_object(stored).items()}
            return Expected(**content)
    return None


_RANGES = ("baseline", "scheduled", "difference", "further")


def in_words(expected: Expected, scores: Scores) -> str:
    """How the scores of a run compare with those of earlier trainings with the same settings."""
    ranges = ", ".join(
        f"{name} {low:.1f} to {high:.1f}"
        for name, (low, high) in (
            ("baseline", expected.baseline),
            ("scheduled", expected.scheduled),
            ("difference", expected.difference),
        )
    )
    before = (
        f"{expected.trainings} earlier trainings with these settings, on {' and '.join(expected.machines)} and "
        f"{expected.utterances} test utterances, had ASR-BLEU: {ranges}."
    )
    scheduled, baseline = scores.systems["scheduled"].asr_bleu, scores.systems["baseline"].asr_bleu
    if scheduled is None or baseline is None:
        return before
    seen = scheduled.score - baseline.score
    low, high = expected.further
    place = "inside" if low <= seen <= high else "below" if seen < low else "above"
    return (
        f"{before}\nHere the difference is {seen:+z.1f}: {place} the range in which 95 % of further trainings on such "
        f"machines are expected, {low:+.1f} to {high:+.1f}."
    )
