"""How far the trials of a grid are, from the files in its run folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import read_yaml, weights_digest
from unitweave.core.layout import DEV_FILE, RunLayout
from unitweave.core.records import json_lines
from unitweave.core.stage import read_stage
from unitweave.experiment.plan import ExperimentPlan, Trial

EXPERIMENT_FILE = "experiment.yaml"
_FREE = ("tasks",)  # mappings whose keys the user chooses, so that each one counts


def dev_curve(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, scores) of each evaluation on dev; for a step that was repeated after a restart, the later one."""
    path = folder / DEV_FILE
    rows: dict[int, dict[str, float]] = {}
    for number, row in enumerate(json_lines(path) if path.exists() else [], 1):
        step, scores = row.get("step"), {k: v for k, v in row.items() if k not in ("step", "examples")}
        if not isinstance(step, int) or not all(isinstance(score, int | float) for score in scores.values()):
            raise InputError(f"{path}, line {number}: damaged (expected a step and its scores); delete the line")
        rows[step] = scores
    return sorted(rows.items())


def dev_score(run: Path, trial: Trial) -> float | None:
    """Text BLEU on the dev split at the end of a trial's training; None where it is missing."""
    curve = dict(dev_curve(RunLayout(run).lm(trial.name)))
    return curve[trial.steps]["bleu"] if trial.steps in curve else None


def is_needed(runs: Sequence[Path], plan: ExperimentPlan, trial: Trial) -> bool | None:
    """Whether a trial has to run; None where a shorter one has to be done first to decide.

    Args:
        runs: The folders over which the experiment's trials are spread.

    Where the dev split is not decoded, no longer training is skipped.
    """
    if trial.shorter is None:
        return True
    before = is_needed(runs, plan, trial.shorter)
    if not before:
        return before
    longer_at = where_done(runs, plan, trial.shorter)
    if longer_at is None:
        return None
    if trial.shorter.shorter is None:
        return True
    shorter_at = where_done(runs, plan, trial.shorter.shorter)
    longer = dev_score(longer_at, trial.shorter)
    shorter = dev_score(shorter_at, trial.shorter.shorter) if shorter_at else None
    if longer is None or shorter is None:
        return True
    return longer > shorter


def where_done(runs: Sequence[Path], plan: ExperimentPlan, trial: Trial) -> Path | None:
    """The first of the folders in which a trial is done."""
    return next((run for run in runs if is_done(run, plan, trial)), None)


def is_done(run: Path, plan: ExperimentPlan, trial: Trial) -> bool:
    """Whether a trial has scores, and they belong to the plan as it is now."""
    return trial_state(run, plan, trial) == "done"


def trial_state(run: Path, plan: ExperimentPlan, trial: Trial) -> str:
    """ "done", "begun", "not begun", or "out of date": done with other settings, or from inputs that changed since."""
    if status(run, f"scores/{trial.name}") != "done":
        return "not begun" if status(run, f"lm/{trial.name}") == "missing" else "begun"
    if status(run, f"lm/{trial.name}") != "done":
        return "begun"
    stages = [read_stage(run, f"{part}/{trial.name}") for part in ("lm", "scores")]
    system, recipe = plan.recipe.systems[trial.name], plan.recipe
    wanted: list[Any] = [replace(system, pretrained=None), replace(recipe.score, ceilings=False)]
    if status(run, f"translate/{trial.name}") == "done":
        stages.append(read_stage(run, f"translate/{trial.name}"))
        wanted.append(recipe.translate)
    agree = _same_weights(stages[0].get("settings", {}).get("pretrained"), system.pretrained)
    for record, settings in zip(stages, wanted, strict=True):
        # Not compared: ceilings, which one trial has for all, and the name of the weights, which is compared above.
        recorded = record.get("settings", {}) | {"pretrained": None, "ceilings": False}
        if recorded.get("recognizer") == "moonshine" and getattr(settings, "recognizer", "") == "auto":
            recorded["recognizer"] = "auto"  # an earlier default, and what "auto" takes for English
        agree &= _agree(recorded, json.loads(json.dumps(asdict(settings), default=str)))
        for name, fingerprint in record.get("inputs", {}).items():
            agree &= status(run, name) != "missing" and read_stage(run, name).get("fingerprint") == fingerprint
    return "done" if agree else "out of date"


def _agree(recorded: Any, wanted: Any) -> bool:
    """Whether two settings agree on all keys that both have: other keys came with another version."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        shared = recorded.keys() & wanted.keys()
        return all(
            recorded[key] == wanted[key] if key in _FREE else _agree(recorded[key], wanted[key]) for key in shared
        )
    return bool(recorded == wanted)


def _same_weights(recorded: str | None, wanted: str | None) -> bool:
    """Whether a trial began from the weights that the plan names, as far as those are available here."""
    if recorded is None or wanted is None:
        return recorded == wanted
    return weights_digest(wanted) in ("", recorded)


def status(run: Path, stage: str) -> str:
    """ "done", "running" (or interrupted), or "missing"."""
    return str(read_stage(run, stage)["status"]) if (run / stage / "stage.json").exists() else "missing"


def read_experiment_folder(folder: Path) -> dict[str, Any]:
    """The plain content of the experiment that a folder belongs to. Raises InputError when it is not one."""
    path = Path(folder) / EXPERIMENT_FILE
    if not path.exists():
        raise InputError(f"{folder}: not the folder of an experiment (it has no {EXPERIMENT_FILE})")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged (expected a mapping)")
    return content
