"""How far the cells of a grid are, from what lies in its run folder."""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import read_yaml
from unitweave.core.layout import RunLayout
from unitweave.core.records import read_json_lines
from unitweave.core.stage import read_stage
from unitweave.experiment.plan import Cell, Plan
from unitweave.pipeline import weights_digest
from unitweave.translate.dev_evaluation import DEV_FILE

EXPERIMENT_FILE = "experiment.yaml"
_FREE = ("tasks",)  # mappings whose keys the user names, so that each one counts


def dev_curve(folder: Path) -> list[tuple[int, dict[str, float]]]:
    """(step, scores) of each look at the dev split; of a step that came twice, as after a restart, the later one."""
    path = folder / DEV_FILE
    rows = {int(row["step"]): row for row in (read_json_lines(path) if path.exists() else [])}
    return [(step, {k: v for k, v in rows[step].items() if k not in ("step", "examples")}) for step in sorted(rows)]


def dev_score(run: Path, cell: Cell) -> float | None:
    """Text BLEU on the dev split at the end of a cell's training; None where it is not there (yet)."""
    curve = dict(dev_curve(RunLayout(run).lm(cell.name)))
    return curve[cell.steps]["bleu"] if cell.steps in curve else None


def is_needed(runs: Sequence[Path], plan: Plan, cell: Cell) -> bool | None:
    """Whether a cell has to be done; None where a shorter one has to come first to decide.

    runs  the folders that the experiment's cells are spread over

    Where the dev split is not decoded, as of systems that say no texts, nothing can spare a longer training.
    """
    if cell.shorter is None:
        return True
    before = is_needed(runs, plan, cell.shorter)
    if not before:
        return before
    longer_at = where_done(runs, plan, cell.shorter)
    if longer_at is None:
        return None
    if cell.shorter.shorter is None:
        return True
    shorter_at = where_done(runs, plan, cell.shorter.shorter)
    longer = dev_score(longer_at, cell.shorter)
    shorter = dev_score(shorter_at, cell.shorter.shorter) if shorter_at else None
    if longer is None or shorter is None:
        return True
    return longer > shorter


def where_done(runs: Sequence[Path], plan: Plan, cell: Cell) -> Path | None:
    """The first of the folders in which a cell is done."""
    return next((run for run in runs if is_done(run, plan, cell)), None)


def is_done(run: Path, plan: Plan, cell: Cell) -> bool:
    """Whether a cell has its scores, and they are those of the plan as it is."""
    return state_of(run, plan, cell) == "done"


def state_of(run: Path, plan: Plan, cell: Cell) -> str:
    """ "done", "begun", "not begun", or "out of date": done with other settings, or on what was made anew since."""
    if status(run, f"scores/{cell.name}") != "done":
        return "not begun" if status(run, f"lm/{cell.name}") == "missing" else "begun"
    if status(run, f"lm/{cell.name}") != "done":
        return "begun"
    stages = [read_stage(run, f"{part}/{cell.name}") for part in ("lm", "scores")]
    system, recipe = plan.recipe.systems[cell.name], plan.recipe
    wanted: list[Any] = [replace(system, pretrained=None), replace(recipe.score, ceilings=False)]
    if status(run, f"translate/{cell.name}") == "done":
        stages.append(read_stage(run, f"translate/{cell.name}"))
        wanted.append(recipe.translate)
    agree = _same_weights(stages[0].get("settings", {}).get("pretrained"), system.pretrained)
    for record, settings in zip(stages, wanted, strict=True):
        # Here the ceilings, which one cell has for all, do not count, nor the name of the weights, looked at above.
        recorded = record.get("settings", {}) | {"pretrained": None, "ceilings": False}
        agree &= _agree(recorded, json.loads(json.dumps(asdict(settings), default=str)))
        for name, fingerprint in record.get("inputs", {}).items():
            agree &= status(run, name) != "missing" and read_stage(run, name).get("fingerprint") == fingerprint
    return "done" if agree else "out of date"


def _agree(recorded: Any, wanted: Any) -> bool:
    """Whether two settings are the same in all that both name: others came with another version."""
    if isinstance(recorded, dict) and isinstance(wanted, dict):
        shared = recorded.keys() & wanted.keys()
        return all(
            recorded[key] == wanted[key] if key in _FREE else _agree(recorded[key], wanted[key]) for key in shared
        )
    return bool(recorded == wanted)


def _same_weights(recorded: str | None, wanted: str | None) -> bool:
    """Whether a cell began from the weights that the plan names, as far as they are here to be compared."""
    if recorded is None or wanted is None:
        return recorded == wanted
    return weights_digest(wanted) in ("", recorded)


def status(run: Path, stage: str) -> str:
    """ "done", "running" (or interrupted), or "missing"."""
    return str(read_stage(run, stage)["status"]) if (run / stage / "stage.json").exists() else "missing"


def read_experiment_folder(folder: Path) -> dict[str, Any]:
    """The plain content of the experiment that a folder belongs to. Raises InputError when it is none."""
    path = Path(folder) / EXPERIMENT_FILE
    if not path.exists():
        raise InputError(f"{folder}: not the folder of an experiment (no {EXPERIMENT_FILE})")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: not an experiment")
    return content
