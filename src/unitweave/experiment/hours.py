"""How long a cell will take, from the cells that are done, or from a few measured steps."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from unitweave.core.files import TEMPORARY_PREFIX, read_json, write_json
from unitweave.core.layout import RunLayout
from unitweave.core.stage import read_stage
from unitweave.experiment.plan import Cell, Plan
from unitweave.experiment.state import is_needed, state_of, status
from unitweave.lm.train.finetune import train_lm
from unitweave.training.checkpoints import last_checkpoint

MEASURED_FILE = "measured.json"  # model -> seconds of an training step
_WARM_UP = 2  # steps that are not counted


def seconds_of(run: Path, stage: str) -> float | None:
    """Wall time of a finished stage in seconds; None for one that is not there or not finished."""
    if not (run / stage / "stage.json").exists():
        return None
    record = read_stage(run, stage)
    return float(record["seconds"]) if record["status"] == "done" else None


def estimate(run: Path, plan: Plan, cell: Cell) -> float | None:
    """Seconds that what is missing of a cell will take; None where nothing is known about its model yet.

    The training's share comes from finished trainings of the same model and system, else of the same
    model, else from `measure`; translation and scoring from any finished cells.
    """
    total = 0.0
    anew = state_of(run, plan, cell) == "out of date"
    if anew or seconds_of(run, f"lm/{cell.name}") is None:
        per_step = step_seconds(run, plan, cell)
        if per_step is None:
            return None
        done = 0 if anew else last_checkpoint(run / f"lm/{cell.name}/checkpoints")[1]
        total += per_step * (cell.steps - done)
    for stage in ("translate", "scores"):
        if anew or seconds_of(run, f"{stage}/{cell.name}") is None:
            known = [s for c in plan.cells if (s := seconds_of(run, f"{stage}/{c.name}")) is not None]
            total += sum(known) / len(known) if known else 0.0
    return total


def step_seconds(run: Path, plan: Plan, cell: Cell) -> float | None:
    """Seconds of an training step in a cell, looks at the dev split included where finished cells have them."""
    same_model = [c for c in plan.cells if c.model == cell.model]
    for alike in ([c for c in same_model if c.system == cell.system], same_model):
        known = [(s, c.steps) for c in alike if (s := seconds_of(run, f"lm/{c.name}")) is not None]
        if known:
            return sum(seconds for seconds, _ in known) / sum(steps for _, steps in known)
    path = run / MEASURED_FILE
    return read_json(path).get(cell.model) if path.exists() else None


def measure(run: Path, plan: Plan, cells: Sequence[Cell], steps: int) -> None:
    """Train the first cell of each model for a few steps, throw the result away, and keep the time of a step.

    The shared stages have to be there. Loading and the first steps are not counted.
    """
    measured: dict[str, Any] = read_json(run / MEASURED_FILE) if (run / MEASURED_FILE).exists() else {}
    for model in dict.fromkeys(cell.model for cell in cells):
        cell = next(c for c in cells if c.model == model)
        short, long = _train(run, plan, cell, _WARM_UP), _train(run, plan, cell, _WARM_UP + steps)
        measured[model] = round(max(long - short, 0.0) / steps, 4)
    write_json(run / MEASURED_FILE, measured)


def _train(run: Path, plan: Plan, cell: Cell, steps: int) -> float:
    settings = plan.recipe.systems[cell.name]
    training = replace(settings.training, steps=steps, save_steps=steps + 1, report_to=[])
    settings = replace(settings, training=training, evaluation=replace(settings.evaluation, eval_steps=0))
    at = RunLayout(run)
    text_lm = at.text_lm_model if settings.pretrained is None else None
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=run) as folder:
        start = time.monotonic()
        train_lm(Path(folder) / "lm", settings, at.subset(cell.data), at.units, text_lm)
        return time.monotonic() - start


def shared_to_do(run: Path, plan: Plan) -> list[str]:
    """The stages that all cells share and that are not done."""
    stages = ["corpus"]
    if status(run, "units") != "done":  # imported units have no encoder and no codebook
        stages += ["encoder", "codebook", "units"]
    if any(system.pretrained is None for system in plan.recipe.systems.values()):
        stages.append("text_lm")
    return [stage for stage in [*stages, "vocoder"] if status(run, stage) != "done"]


def plan_rows(run: Path, plan: Plan, cells: Sequence[Cell]) -> list[tuple[Cell, str, float | None]]:
    """(cell, state, seconds that are left to do) of every cell."""
    rows: list[tuple[Cell, str, float | None]] = []
    for cell in cells:
        needed, state = is_needed([run], plan, cell), state_of(run, plan, cell)
        if state == "done":
            rows.append((cell, state, 0.0))
        elif needed is False:
            rows.append((cell, "not needed: the dev score no longer rose", 0.0))
        else:
            if state == "not begun":
                state = "to do" if needed else "if the dev score still rises"
            rows.append((cell, state, estimate(run, plan, cell)))
    return rows
