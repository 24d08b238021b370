"""The results of a grid, read from the run's own files."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import read_manifest
from unitweave.core.stage import read_stage
from unitweave.experiment.archive import making_of
from unitweave.experiment.hours import seconds_of
from unitweave.experiment.plan import Cell, Plan, joined, parse_experiment
from unitweave.experiment.provenance import read_notes
from unitweave.experiment.state import dev_curve, is_needed, read_experiment_folder, state_of, status, where_done
from unitweave.metrics.bleu import sentence_counts
from unitweave.score.scores import SystemScores, read_scores, read_utterances


@dataclass
class Result:
    """One finished cell.

    scores      its scores;  signature of its ASR-BLEU
    hypotheses  ASR transcripts, normalized;  references likewise, in the same order
    written     the model's own translation;  texts: the normalized references
    languages   source language of each utterance
    hours       language -> hours of source speech that it was trained on
    curve       (step, scores) of each look at the dev split
    making      of the units and the vocoder, see `making_of`
    """

    cell: Cell
    scores: SystemScores
    signature: str
    hypotheses: list[str]
    references: list[str]
    written: list[str]
    texts: list[str]
    languages: list[str]
    hours: dict[str, float]
    curve: list[tuple[int, dict[str, float]]]
    seconds: float
    sittings: list[dict[str, Any]]
    ceilings: dict[str, SystemScores]
    making: str

    @cached_property
    def counts(self) -> dict[str, np.ndarray]:
        """Metric -> sentence counts for resampling, [utterances, 10]."""
        return {
            "asr_bleu": sentence_counts(self.hypotheses, self.references),
            "text_bleu": sentence_counts(self.written, self.texts),
        }

    @property
    def total_hours(self) -> float:
        """Hours of source speech, all languages together."""
        return sum(self.hours.values())

    @property
    def dev_bleu(self) -> float | None:
        """Text BLEU on the dev split at the end of the training."""
        return dict(self.curve).get(self.cell.steps, {}).get("bleu")

    def score(self, metric: str) -> float | None:
        """One number of its scores, by its name in scores.json."""
        return self.scores.score(metric)


@dataclass
class GridResults:
    """An experiment and all that is known of it so far, from one folder or several.

    missing  (cell, state) of the cells that have no scores and are needed, or may be
    spared   cells that are not needed, since the dev score no longer rose
    amounts  name of the amount -> language -> {"pairs", "hours"}
    """

    plan: Plan
    results: list[Result]
    missing: list[tuple[Cell, str]]
    spared: list[Cell]
    amounts: dict[str, dict[str, dict[str, float]]]

    @property
    def partial(self) -> bool:
        """Whether cells are missing."""
        return bool(self.missing)

    @property
    def ceilings(self) -> dict[str, SystemScores]:
        """The scores of the ceilings, of the first making that has them; empty until the first cell is scored."""
        return next((r.ceilings for r in self.results if r.ceilings), {})

    @property
    def makings(self) -> dict[str, str]:
        """Making of the shared stages -> the letter that it has on the page, in the order of the results."""
        found = dict.fromkeys(r.making for r in self.results)
        return {making: chr(ord("A") + i) for i, making in enumerate(found)}

    def find(self, group: tuple[str, str, int], system: str) -> dict[int, Result]:
        """Seed -> result of one system, for a model, an amount of data and a number of steps."""
        return {r.cell.seed: r for r in self.results if r.cell.group == group and r.cell.system == system}

    def groups(self) -> list[tuple[str, str, int]]:
        """Every (model, data, steps) that has a result, in the plan's order of models and data, by steps."""
        experiment = self.plan.experiment
        found = {r.cell.group for r in self.results}
        order = {n: i for axis in (experiment.models, experiment.data) for i, n in enumerate(axis)}
        return sorted(found, key=lambda g: (order[g[0]], self.hours(g[1]), order[g[1]], g[2]))

    def scatter(self, metric: str) -> tuple[float, int]:
        """Standard deviation of a score between trainings that differ only in the seed, and over how many systems.

        Pooled over the systems that have several seeds; 0, 0 where none has.
        """
        sides: dict[tuple[object, ...], list[float]] = {}
        for r in self.results:
            if (score := r.score(metric)) is not None:
                sides.setdefault((r.cell.group, r.cell.system), []).append(score)
        several = [np.array(scores) for scores in sides.values() if len(scores) > 1]
        freedom = sum(len(scores) - 1 for scores in several)
        squares = sum(float(((scores - scores.mean()) ** 2).sum()) for scores in several)
        return (squares / freedom) ** 0.5 if freedom else 0.0, len(several)

    def hours(self, data: str, language: str | None = None) -> float:
        """Hours of source speech of an amount of data, in all or of one language (0 where none is trained on)."""
        found = self.amounts[data]
        return sum(counted["hours"] for name, counted in found.items() if language in (None, name))


def read_grid(*folders: Path) -> GridResults:
    """Everything that the folder of an experiment holds, or several folders of the same one together.

    A cell that several have done is the first one's. Raises InputError when one is no such folder, and when they
    cannot be of one experiment.
    """
    runs = [Path(folder) for folder in folders]
    plan = parse_experiment(joined({run: read_experiment_folder(run) for run in runs}))
    _check_shared(runs, plan)
    amounts = {}
    for name in dict.fromkeys(cell.data for cell in plan.cells):
        for run in runs:
            if status(run, f"subsets/{name}") == "done":
                amounts[name] = read_stage(run, f"subsets/{name}")["counts"]
    texts: dict[Path, dict[str, str]] = {}
    makings: dict[Path, str] = {}
    results, missing, spared = [], [], []
    for cell in plan.cells:
        at = where_done(runs, plan, cell)
        if at is not None:
            if at not in texts:
                texts[at] = {pair.id: pair.tgt_text or "" for pair in read_manifest(RunLayout(at).corpus, "test")}
                makings[at] = making_of(at)
            results.append(read_result(at, cell, texts[at], amounts, makings[at]))
        elif is_needed(runs, plan, cell) is False:
            spared.append(cell)
        else:
            states = [state_of(run, plan, cell) for run in runs]
            missing.append((cell, next((state for state in states if state != "not begun"), "not begun")))
    return GridResults(plan, results, missing, spared, amounts)


def _check_shared(runs: Sequence[Path], plan: Plan) -> None:
    """Raise InputError where folders of one experiment made a shared stage with other settings or of other data."""
    subsets = dict.fromkeys(f"subsets/{cell.data}" for cell in plan.cells)
    for stage in ("corpus", "units", "text_lm", "vocoder", *subsets):
        done = [run for run in runs if status(run, stage) == "done"]
        for other in done[1:]:
            if read_stage(other, stage).get("fingerprint") != read_stage(done[0], stage).get("fingerprint"):
                raise InputError(
                    f"{done[0]}, {other}: no parts of one experiment, their {stage} came of other settings or data"
                )


def read_result(
    folder: Path, cell: Cell, texts: dict[str, str], amounts: dict[str, dict[str, dict[str, float]]], making: str
) -> Result:
    """One finished cell. Raises InputError when a file of it is missing or of another cell."""
    place = RunLayout(folder).scores(cell.name)
    scores, lines = read_scores(place), read_utterances(place)
    if cell.name not in scores.systems:
        raise InputError(f"{place}/scores.json: has no scores of {cell.name}")
    lacking = [line.id for line in lines if cell.name not in line.outputs]
    if lacking:
        raise InputError(f"{place}/utterances.jsonl: utterance {lacking[0]!r} has no output of {cell.name}")
    outputs = [line.outputs[cell.name] for line in lines]
    unknown = [line.id for line in lines if line.id not in texts]
    if unknown:
        raise InputError(f"{place}/utterances.jsonl: utterance {unknown[0]!r} is not in the corpus's test split")
    return Result(
        cell=cell,
        scores=scores.systems[cell.name],
        signature=str(scores.signature),
        hypotheses=[output.asr_normalized for output in outputs],
        references=[line.reference for line in lines],
        written=[output.translation or "" for output in outputs],
        texts=[texts[line.id] for line in lines],
        languages=[line.language or "" for line in lines],
        hours={language: counted["hours"] for language, counted in amounts[cell.data].items()},
        curve=dev_curve(RunLayout(folder).lm(cell.name)),
        seconds=seconds_of(folder, f"lm/{cell.name}") or 0.0,
        sittings=read_notes(RunLayout(folder).lm(cell.name)),
        ceilings=scores.ceilings,
        making=making,
    )


def signatures(results: Sequence[Result]) -> list[str]:
    """The different signatures among results: scores with unequal ones must not be compared."""
    return sorted({result.signature for result in results})
