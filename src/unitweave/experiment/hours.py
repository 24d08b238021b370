"""How long a trial will take, from finished trials or from a few measured steps."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

from unitweave.core.files import TEMPORARY_PREFIX, read_json_object, write_json
from unitweave.core.layout import RunLayout
from unitweave.core.records import json_lines
from unitweave.core.stage import read_stage
from unitweave.experiment.plan import ExperimentPlan, Trial
from unitweave.experiment.state import is_needed, status, trial_state
from unitweave.lm.train.finetune import train_lm
from unitweave.lm.train.logs import LOG_FILE
from unitweave.training.checkpoints import newest_step

MEASURED_FILE = "measured.json"  # model -> seconds of a training step
_WARM_UP = 2  # steps that are not counted


def stage_seconds(run: Path, stage: str) -> float | None:
    """Wall time of a finished stage in seconds; None for one that is missing or not finished."""
    if not (run / stage / "stage.json").exists():
        return None
    record = read_stage(run, stage)
    return float(record["seconds"]) if record["status"] == "done" else None


def estimate(run: Path, plan: ExperimentPlan, trial: Trial) -> float | None:
    """Seconds that the missing part of a trial will take; None where nothing is known about its model yet.

    The estimate of the training comes from finished trainings of the same model and system, else of the same
    model, else from `measure`; translation and scoring from any finished trials.
    """
    total = 0.0
    anew = trial_state(run, plan, trial) == "out of date"
    if anew or stage_seconds(run, f"lm/{trial.name}") is None:
        per_step = step_seconds(run, plan, trial)
        if per_step is None:
            return None
        done = 0 if anew else newest_step(run / f"lm/{trial.name}/checkpoints")
        total += per_step * (trial.steps - done)
    for stage in ("translate", "scores"):
        if anew or stage_seconds(run, f"{stage}/{trial.name}") is None:
            seconds = [s for c in plan.trials if (s := stage_seconds(run, f"{stage}/{c.name}")) is not None]
            total += sum(seconds) / len(seconds) if seconds else 0.0
    return total


def step_seconds(run: Path, plan: ExperimentPlan, trial: Trial) -> float | None:
    """Seconds per optimizer step of a trial, including evaluations on dev where finished trials have them."""
    same_model = [c for c in plan.trials if c.model == trial.model]
    for alike in ([c for c in same_model if c.system == trial.system], same_model):
        timings = [(s, c.steps) for c in alike if (s := stage_seconds(run, f"lm/{c.name}")) is not None]
        if timings:
            return sum(seconds for seconds, _ in timings) / sum(steps for _, steps in timings)
    path = run / MEASURED_FILE
    return read_json_object(path).get(trial.model) if path.exists() else None


def measure(run: Path, plan: ExperimentPlan, trials: Sequence[Trial], steps: int) -> None:
    """Train the first trial of each model for a few steps, discard the result, and keep the time per step.

    The shared stages must be done. The first steps are not counted: in them a model is compiled.
    """
    measured: dict[str, Any] = read_json_object(run / MEASURED_FILE) if (run / MEASURED_FILE).exists() else {}
    for model in dict.fromkeys(trial.model for trial in trials):
        trial = next(c for c in trials if c.model == model)
        measured[model] = float(f"{median(_step_times(run, plan, trial, _WARM_UP + steps)[_WARM_UP:]):.4g}")
    write_json(run / MEASURED_FILE, measured)


def _step_times(run: Path, plan: ExperimentPlan, trial: Trial, steps: int) -> list[float]:
    """Seconds of each step of a training that is thrown away."""
    settings = plan.recipe.systems[trial.name]
    training = replace(settings.training, steps=steps, save_steps=steps + 1, logging_steps=1, report_to=[])
    settings = replace(settings, training=training, evaluation=replace(settings.evaluation, eval_steps=0))
    layout = RunLayout(run)
    text_lm = layout.text_lm_model if settings.pretrained is None else None
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=run) as folder:
        train_lm(Path(folder) / "lm", settings, layout.subset(trial.data), layout.units, text_lm)
        lines = [line for line in json_lines(Path(folder) / "lm" / LOG_FILE) if "tokens" in line]
        return [line["tokens"] / line["tokens_per_second"] for line in lines]


def shared_to_do(run: Path, plan: ExperimentPlan) -> list[str]:
    """The stages that all trials share and that are not done."""
    stages = ["corpus"]
    if status(run, "units") != "done":  # imported units have no encoder and no codebook
        stages += ["encoder", "codebook", "units"]
    if any(system.pretrained is None for system in plan.recipe.systems.values()):
        stages.append("text_lm")
    return [stage for stage in [*stages, "vocoder"] if status(run, stage) != "done"]


def plan_rows(run: Path, plan: ExperimentPlan, trials: Sequence[Trial]) -> list[tuple[Trial, str, float | None]]:
    """(trial, state, seconds that are left to do) of every trial."""
    rows: list[tuple[Trial, str, float | None]] = []
    for trial in trials:
        needed, state = is_needed([run], plan, trial), trial_state(run, plan, trial)
        if state == "done":
            rows.append((trial, state, 0.0))
        elif needed is False:
            rows.append((trial, "skipped: the dev score no longer rose", 0.0))
        else:
            if state == "not begun":
                state = "to do" if needed else "to do if the dev score still rises"
            rows.append((trial, state, estimate(run, plan, trial)))
    return rows
