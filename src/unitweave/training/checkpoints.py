"""Checkpoints that are whole or not there: a kill or a full disk while one is written leaves the one before."""

import contextlib
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from transformers import Trainer, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from unitweave.core.errors import InputError
from unitweave.core.files import is_disk_full, read_json_object, remove
from unitweave.training.model_files import check_safetensors

_PARTIAL = "partial"


def last_checkpoint(folder: Path) -> tuple[str | None, int]:
    """The newest checkpoint in the output folder of a CheckpointedTrainer, and its optimizer step.

    Returns:
        Path and step; None and 0 where there is no checkpoint.

    Raises:
        InputError: The checkpoint is damaged; says which folder to delete, and what then happens.
    """
    found = get_last_checkpoint(str(folder)) if folder.exists() else None
    if found is None:
        return None, 0
    checkpoint = Path(found)
    damage = _damage(checkpoint)
    if damage:
        earlier = sorted((p.name for p in folder.glob("checkpoint-*") if p != checkpoint), key=_step)
        then = f"continue from {earlier[-1]}" if earlier else "start the training again"
        raise InputError(f"{checkpoint}: damaged ({damage}); delete this folder to {then}")
    return found, int(read_json_object(checkpoint / TRAINER_STATE_NAME)["global_step"])


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint's files, None where they are complete; nothing is unpickled."""
    try:
        if not isinstance(read_json_object(checkpoint / TRAINER_STATE_NAME).get("global_step"), int):
            return f"{TRAINER_STATE_NAME} has no global_step"
        for file in checkpoint.rglob("*.safetensors"):
            check_safetensors(file)
    except InputError as error:
        return str(error)
    # torch.save writes zip archives, whose directory stands at the end: a file that was cut off has none.
    cut = [p.name for kind in ("*.pt", "*.pth") for p in checkpoint.rglob(kind) if not zipfile.is_zipfile(p)]
    return f"{min(cut)} is cut off" if cut else None


class CheckpointedTrainer(Trainer):
    """Trainer whose checkpoints are complete or absent; of earlier ones only the best is kept, where one is chosen."""

    _written_to: Path | None = None

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        with whole_checkpoint(self.args, step, self.accelerator.wait_for_everyone, best) as folder:
            self._written_to = folder
            super()._save_checkpoint(model, trial)
            if best:
                # Trainer's state names the folder that it wrote to; the best one will be here.
                self.state.best_model_checkpoint = str(Path(str(self.args.output_dir)) / f"checkpoint-{best}")
                if self.args.should_save:
                    self.state.save_to_json(str(folder / f"checkpoint-{step}" / TRAINER_STATE_NAME))
        self._written_to = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._written_to or self.args.output_dir)


@contextlib.contextmanager
def whole_checkpoint(
    arguments: TrainingArguments, step: int, barrier: Callable[[], None], keep: int | None = None
) -> Iterator[Path]:
    """Yield the folder in which the Trainer writes checkpoint-STEP; when all is written, put it in its place.

    Earlier checkpoints are removed then, and not before.

    Args:
        arguments: The Trainer's.
        step: The optimizer step.
        barrier: Waits for the other processes.
        keep: The step of an earlier checkpoint that stays.

    Raises:
        InputError: The disk is full; the earlier checkpoints are still there.
    """
    work = Path(arguments.output_dir)
    partial, name = work / _PARTIAL, f"checkpoint-{step}"
    try:
        if arguments.should_save:
            remove(partial)
            partial.mkdir(parents=True)
        barrier()
        yield partial
    except (OSError, RuntimeError, SafetensorError) as error:
        if arguments.should_save:
            shutil.rmtree(partial, ignore_errors=True)
        if not is_disk_full(error):
            raise
        earlier = max((p.name for p in work.glob("checkpoint-*")), default="no earlier one", key=_step)
        raise InputError(
            f"{work}: no space for the checkpoint of step {step} (there is {earlier}); "
            "free some and run the same command again"
        ) from error
    barrier()
    if arguments.should_save:
        kept = {name, f"checkpoint-{keep}"}
        earlier_ones = [path for path in work.glob("checkpoint-*") if path.name not in kept]
        remove(work / name)
        (partial / name).replace(work / name)
        for path in (*earlier_ones, partial):
            remove(path)
    barrier()


def _step(name: str) -> int:
    """The optimizer step of a checkpoint's folder; -1 when it is none."""
    last = name.rsplit("-", 1)[-1]
    return int(last) if last.isdigit() else -1
