"""The tables of the page of results about what was compared: training speech, systems and their settings."""

from collections.abc import Mapping
from typing import Any

from unitweave.core.markdown import markdown_table
from unitweave.experiment.plan import Trial
from unitweave.experiment.results import GridResults
from unitweave.interleaving.schedule import text_ratio


def amounts_table(grid: GridResults) -> str:
    rows = [
        [name, language, f"{counted['pairs']:.0f}", f"{counted['hours']:.2f}"]
        for name, languages in grid.amounts.items()
        for language, counted in languages.items()
    ]
    return markdown_table(["data", "source language", "utterance pairs", "hours of source speech"], rows)


def systems_table(grid: GridResults) -> str:
    """What each system is, from the settings of its first training, and what all systems of a model share."""
    experiment = grid.plan.experiment
    first = {(r.trial.system, r.trial.model): r.trial for r in reversed(grid.results)}
    rows = []
    for system in dict.fromkeys([experiment.baseline, experiment.method, *experiment.systems]):
        differs = "; ".join(_flat(experiment.systems[system] or {})) or "none"
        schedules: dict[tuple[str, str], list[str]] = {}  # a model may have a schedule of its own
        for model in experiment.models:
            if (system, model) in first:
                schedules.setdefault(_schedule(grid, first[system, model]), []).append(model)
        for (start, until), models in schedules.items():
            name = f"{system} ({', '.join(models)})" if len(schedules) > 1 else system
            rows.append([name, differs, start, until])
    common = []
    for model in dict.fromkeys(r.trial.model for r in grid.results):
        settings = next(grid.plan.recipe.systems[r.trial.name] for r in grid.results if r.trial.model == model)
        training = settings.training
        common.append(
            f"{model}: {training.batch_size} utterance pairs per step, {training.optimizer} at a learning rate of "
            f"{training.learning_rate:g}."
        )
    tested = f"Tested on {len(grid.results[0].ids)} utterances."
    deviation, several = grid.scatter("asr_bleu")
    scatter = (
        f"Trainings that differ only in seed, threads or machine scatter by {deviation:.1f} ASR-BLEU (standard "
        f"deviation, pooled over the {several} {'systems' if several > 1 else 'system'} with several trainings)."
        if several
        else "No system has several trainings, so the scatter between trainings is not known."
    )
    builds = list(grid.builds.values())
    made = (
        f"The trainings belong to {len(builds)} builds of the shared stages, {' and '.join(builds)}: the same "
        "settings, run again, for instance on another machine. Systems are compared only within one build, and "
        "intervals are for these builds: so few say little about a further one."
        if len(builds) > 1
        else ""
    )
    table = markdown_table(["system", "settings of its own", "text ratio at the first step", "units only from"], rows)
    return f"{table}\n\n{' '.join(filter(None, [*common, tested, scatter, made]))}"


def _schedule(grid: GridResults, trial: Trial) -> tuple[str, str]:
    """The text ratio at a trial's first step, and the point from which on it trains on units only."""
    schedule = grid.plan.recipe.systems[trial.name].schedule
    if schedule.shape == "function":  # an archive may be someone else's: a page imports nothing that it names
        return f"by {schedule.function}", "as the function says"
    ratio = text_ratio(schedule, trial.steps)
    ratios = [ratio(step) for step in range(trial.steps)]
    last = max((step + 1 for step, value in enumerate(ratios) if value > 0), default=0)
    until = "never" if last == trial.steps else f"{100 * last / trial.steps:.0f} % of the run"
    return f"{ratios[0]:.0%}", f"at the latest {until}" if schedule.shape == "adaptive" and last else until


def _flat(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Nested settings as "a.b: value" each."""
    lines = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            lines += _flat(value, f"{above}{key}.")
        else:
            lines.append(f"{above}{key}: {value}")
    return lines
