"""The results of a grid, read from the files of its run folder."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.stage import STAGE_FILE, read_stage
from unitweave.experiment.build import build_digest
from unitweave.experiment.counts import read_counts, system_scores
from unitweave.experiment.hours import stage_seconds
from unitweave.experiment.plan import ExperimentPlan, Trial, joined, parse_experiment
from unitweave.experiment.provenance import kinds_of_machine, read_sessions
from unitweave.experiment.state import (
    EXPERIMENT_FILE,
    dev_curve,
    is_done,
    is_needed,
    read_experiment_folder,
    status,
    trial_state,
)
from unitweave.score.scores import SystemScores, read_scores


@dataclass(frozen=True, order=True)
class Training:
    """What distinguishes trainings of the same settings, all of it a source of scatter.

    Attributes:
        seed: The seed of the order of the data, new weights and dropout.
        threads: Threads of torch on the CPU; 0: not recorded.
        machine: Its kind.
        build: Digest of the units and the vocoder, see `build_digest`.
    """

    seed: int
    threads: int
    machine: str
    build: str


@dataclass
class Result:
    """One finished trial.

    Attributes:
        scores: Its scores.
        signature: The signature of its ASR-BLEU.
        ids: The test utterances.
        counts: Metric -> sentence counts for resampling, [utterances, 10].
        languages: Source language of each utterance.
        hours: Language -> hours of source speech that it was trained on.
        curve: (step, scores) of each evaluation on the dev split.
        build: Digest of the units and the vocoder, see `build_digest`.
    """

    trial: Trial
    scores: SystemScores
    signature: str
    ids: list[str]
    counts: dict[str, np.ndarray]
    languages: list[str]
    hours: dict[str, float]
    curve: list[tuple[int, dict[str, float]]]
    seconds: float
    sessions: list[dict[str, Any]]
    ceilings: dict[str, SystemScores]
    build: str

    @cached_property
    def training(self) -> Training:
        """Which of the trainings with these settings it is. One of several sessions has what all of them had."""
        threads = {int(session.get("threads", 0)) for session in self.sessions}
        machines = kinds_of_machine(str(session.get("machine", "?")) for session in self.sessions)
        return Training(
            self.trial.seed,
            self.trial.threads or (threads.pop() if len(threads) == 1 else 0),
            " + ".join(machines),
            self.build,
        )

    @property
    def dev_bleu(self) -> float | None:
        """Text BLEU on the dev split at the end of the training."""
        return dict(self.curve).get(self.trial.steps, {}).get("bleu")

    def repeats(self, other: "Result") -> bool:
        """Whether it is the other training over again: equal in everything that was measured, on the same machine.

        On some processors the number of threads does not change how sums are rounded. And in a copy of a run folder
        without its units, the build is not known.
        """
        return (
            (self.trial.group, self.trial.system) == (other.trial.group, other.trial.system)
            and replace(self.training, threads=0, build="") == replace(other.training, threads=0, build="")
            and self.curve == other.curve
            and self.ids == other.ids
            and all(np.array_equal(counts, other.counts[metric]) for metric, counts in self.counts.items())
        )

    def score(self, metric: str) -> float | None:
        """One number of its scores, by its name in scores.json."""
        return self.scores.score(metric)


@dataclass
class GridResults:
    """An experiment and all its results so far, from one folder or several.

    Attributes:
        missing: (trial, state) of the trials that have no scores and are needed, or may be.
        skipped: Trials that are not needed, since the dev score no longer rose.
        repeated: Results that repeat one of `results` to the digit; they say nothing about scatter.
        amounts: Name of the amount -> language -> {"pairs", "hours"}.
    """

    plan: ExperimentPlan
    results: list[Result]
    missing: list[tuple[Trial, str]]
    skipped: list[Trial]
    repeated: list[Result]
    amounts: dict[str, dict[str, dict[str, float]]]

    @property
    def partial(self) -> bool:
        """Whether trials are missing."""
        return bool(self.missing)

    @property
    def ceilings(self) -> dict[str, SystemScores]:
        """The scores of the ceilings, of the first build that has them; empty until the first trial is scored."""
        return next((r.ceilings for r in self.results if r.ceilings), {})

    @property
    def builds(self) -> dict[str, str]:
        """Build of the shared stages -> its letter on the page, in the order of the results."""
        found = dict.fromkeys(r.build for r in self.results)
        return {build: chr(ord("A") + i) for i, build in enumerate(found)}

    def find(self, group: tuple[str, str, int], system: str) -> dict[Training, Result]:
        """The trainings of one system, for a model, an amount of data and a number of steps, sorted."""
        found = {r.training: r for r in self.results if r.trial.group == group and r.trial.system == system}
        return dict(sorted(found.items()))

    def groups(self) -> list[tuple[str, str, int]]:
        """Every (model, data, steps) that has a result, in the plan's order of models and data, by steps."""
        experiment = self.plan.experiment
        found = {r.trial.group for r in self.results}
        order = {n: i for axis in (experiment.models, experiment.data) for i, n in enumerate(axis)}
        return sorted(found, key=lambda g: (order[g[0]], self.hours(g[1]), order[g[1]], g[2]))

    def scatter(self, metric: str) -> tuple[float, int]:
        """Standard deviation of a score between trainings of the same settings, and over how many systems.

        Pooled over the systems that have several trainings; 0, 0 where none has.
        """
        sides: dict[tuple[object, ...], list[float]] = {}
        for r in self.results:
            if (score := r.score(metric)) is not None:
                sides.setdefault((r.trial.group, r.trial.system), []).append(score)
        several = [np.array(scores) for scores in sides.values() if len(scores) > 1]
        freedom = sum(len(scores) - 1 for scores in several)
        squares = sum(float(((scores - scores.mean()) ** 2).sum()) for scores in several)
        return (squares / freedom) ** 0.5 if freedom else 0.0, len(several)

    def hours(self, data: str, language: str | None = None) -> float:
        """Hours of source speech of an amount of data, in all or of one language (0 where none is trained on)."""
        amounts = self.amounts[data]
        return sum(counted["hours"] for name, counted in amounts.items() if language in (None, name))


def read_grid(*folders: Path) -> GridResults:
    """Everything in the folder of an experiment, or in several folders of the same one together.

    A trial that several have done counts once for each machine, number of threads and build of the shared stages, and
    is otherwise taken from the first. One that only repeats another, see `Result.repeats`, is not counted again. Raises
    InputError when one is not such a folder, and when they do not belong to one experiment.
    """
    runs = [Path(folder) for folder in folders]
    content = joined({run: read_experiment_folder(run) for run in runs})
    try:
        plan = parse_experiment(content)
    except InputError as error:
        raise InputError(f"{', '.join(str(run / EXPERIMENT_FILE) for run in runs)}: {error}") from None
    _check_shared(runs, plan)
    amounts = {}
    for name in dict.fromkeys(trial.data for trial in plan.trials):
        for run in runs:
            if status(run, f"subsets/{name}") == "done":
                amounts[name] = _amount(run, name)
    pairs: dict[Path, dict[str, Pair]] = {}
    builds: dict[Path, str] = {}
    results: list[Result] = []
    repeated: list[Result] = []
    missing, skipped = [], []
    for trial in plan.trials:
        trainings: dict[Training, Result] = {}
        for at in (run for run in runs if is_done(run, plan, trial)):
            if at not in pairs:
                pairs[at] = {pair.id: pair for pair in read_manifest(RunLayout(at).corpus, "test")}
                builds[at] = build_digest(at)
            one = read_result(at, trial, pairs[at], amounts, builds[at])
            if results and one.ids != results[0].ids:
                raise InputError(
                    f"{RunLayout(at).scores(trial.name)}: has other test utterances than {results[0].trial.name}, or "
                    "has them in another order, so the two cannot be compared"
                )
            trainings.setdefault(one.training, one)
        for one in trainings.values():
            (repeated if any(map(one.repeats, results)) else results).append(one)
        if trainings:
            continue
        if is_needed(runs, plan, trial) is False:
            skipped.append(trial)
        else:
            states = [trial_state(run, plan, trial) for run in runs]
            missing.append((trial, next((state for state in states if state != "not begun"), "not begun")))
    return GridResults(plan, results, missing, skipped, repeated, amounts)


def _amount(run: Path, name: str) -> dict[str, dict[str, float]]:
    """Language -> pairs and hours of an amount of data. Raises InputError where the stage does not have them."""
    counts: dict[str, dict[str, float]] = read_stage(run, f"subsets/{name}")["counts"]
    for counted in counts.values():
        if not isinstance(counted, dict) or not all(
            isinstance(counted.get(k), int | float) and math.isfinite(counted[k]) for k in ("pairs", "hours")
        ):
            place = RunLayout(run).subset(name)
            raise InputError(f"{place / STAGE_FILE}: damaged (counts); delete {place} to make the subset again")
    return counts


def _check_shared(runs: Sequence[Path], plan: ExperimentPlan) -> None:
    """Raise InputError where folders of one experiment have a shared stage of different settings or data."""
    subsets = dict.fromkeys(f"subsets/{trial.data}" for trial in plan.trials)
    for stage in ("corpus", "units", "text_lm", "vocoder", *subsets):
        done = [run for run in runs if status(run, stage) == "done"]
        for other in done[1:]:
            if read_stage(other, stage).get("fingerprint") != read_stage(done[0], stage).get("fingerprint"):
                raise InputError(
                    f"{done[0]}, {other}: not parts of one experiment; their {stage} has different settings or data"
                )


def read_result(
    folder: Path, trial: Trial, pairs: dict[str, Pair], amounts: dict[str, dict[str, dict[str, float]]], build: str
) -> Result:
    """One finished trial. Raises InputError when a file of it is missing or of another trial."""
    place = RunLayout(folder).scores(trial.name)
    scores = read_scores(place)
    own = system_scores(scores, place, trial.name)
    lines = read_counts(place, trial.name, own, pairs)
    if trial.data not in amounts:
        raise InputError(f"{RunLayout(folder).subset(trial.data)}: not finished, though {trial.name} was trained on it")
    return Result(
        trial=trial,
        scores=own,
        signature=str(scores.signature),
        ids=[line.id for line in lines],
        counts={metric: np.array([getattr(line, metric) for line in lines]) for metric in ("asr_bleu", "text_bleu")},
        languages=[line.language for line in lines],
        hours={language: counted["hours"] for language, counted in amounts[trial.data].items()},
        curve=dev_curve(RunLayout(folder).lm(trial.name)),
        seconds=stage_seconds(folder, f"lm/{trial.name}") or 0.0,
        sessions=read_sessions(RunLayout(folder).lm(trial.name)),
        ceilings=scores.ceilings,
        build=build,
    )


def signatures(results: Sequence[Result]) -> list[str]:
    """The different signatures among results: scores with unequal ones must not be compared."""
    return sorted({result.signature for result in results})
