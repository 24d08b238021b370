"""Checkpoints that are whole or not there, of every model that is trained.

A kill or a full disk while one is written leaves the ones before. Each says which stage it belongs to and what files it
has (checkpoint.json): a damaged one is set aside, and the training goes on from the one before it.
"""

import contextlib
import shutil
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME

from unitweave.core.distributed import num_processes, on_main
from unitweave.core.errors import InputError
from unitweave.core.files import flush, is_disk_full, make_readable, read_json, read_json_object, remove, write_json
from unitweave.core.progress import echo
from unitweave.core.records import from_json
from unitweave.core.signals import deferred, ignore_signals, stop_after_training
from unitweave.core.stage import fingerprint_in
from unitweave.training.optimizers import make_optimizer

ABOUT = "checkpoint.json"
DAMAGED = "damaged-"
_PARTIAL = "partial"
_KEPT = 2  # the newest, and one to go on from where that is damaged


@dataclass(frozen=True)
class _About:
    """The content of checkpoint.json."""

    step: int
    fingerprint: str  # of the stage
    processes: int
    files: dict[str, list[int]] = field(default_factory=dict)  # name -> bytes, CRC-32


def newest_step(folder: Path) -> int:
    """The optimizer step of the newest checkpoint in a folder of checkpoints; 0 where there is none."""
    return max(map(_step, folder.glob("checkpoint-*")), default=0)


def last_checkpoint(folder: Path) -> tuple[Path | None, int]:
    """The newest whole checkpoint in a folder of checkpoints, and its optimizer step.

    Damaged ones, and those of other settings, are set aside first: they are renamed, and a line says so. All processes
    have to call this.

    Returns:
        Path and step; None and 0 where there is no checkpoint.

    Raises:
        InputError: The checkpoint is in parts that only as many processes as wrote it can read.
    """
    name = on_main(lambda: _newest_whole(folder))
    return (None, 0) if name is None else (folder / name, _step(folder / name))


def _newest_whole(folder: Path) -> str | None:
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=_step, reverse=True):
        damage = _damage(checkpoint)
        if damage is None:
            _check_processes(checkpoint)
            return checkpoint.name
        aside = checkpoint.with_name(DAMAGED + checkpoint.name)
        remove(aside)
        checkpoint.rename(aside)
        before = newest_step(folder)
        then = f"going on from step {before}" if before else "starting again"
        echo(f"{checkpoint}: {damage}; set aside as {aside.name}, {then}")
    return None


def _damage(checkpoint: Path) -> str | None:
    """What is wrong with a checkpoint, None where it is whole and belongs to its stage; nothing is unpickled."""
    if not (checkpoint / ABOUT).exists():
        return "incomplete" if not (checkpoint / TRAINER_STATE_NAME).exists() else None
    try:
        about = from_json(_About, read_json_object(checkpoint / ABOUT), ABOUT)
    except InputError:
        return f"damaged ({ABOUT})"
    if about.fingerprint != fingerprint_in(checkpoint.parent.parent):
        return "made with other settings"
    if about.step != _step(checkpoint):  # a copy under another name
        return f"damaged (it is of step {about.step})"
    for name, expected in about.files.items():
        if not (checkpoint / name).is_file():
            return f"damaged ({name} is missing)"
        if _summary(checkpoint / name) != expected:
            return f"damaged ({name})"
    return None


def _check_processes(checkpoint: Path) -> None:
    about = read_json(checkpoint / ABOUT) if (checkpoint / ABOUT).exists() else {}
    before, now = about.get("processes", num_processes()), num_processes()
    if before == now:
        return
    if any(checkpoint.glob("global_step*")):  # DeepSpeed's parts, one for each process
        raise InputError(
            f"{checkpoint}: written by {before} processes with DeepSpeed, and there are {now}; start {before}, or "
            "delete the folder to go on from an earlier checkpoint"
        )
    echo(f"{checkpoint}: written by {before} processes, resumed by {now}; random numbers, as for dropout, will differ")


def _summary(path: Path) -> list[int]:
    """Bytes and CRC-32 of a file."""
    size = crc = 0
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            size, crc = size + len(block), zlib.crc32(block, crc)
    return [size, crc]


class CheckpointedTrainer(Trainer):
    """Trainer whose checkpoints are complete or absent, and which ends with one when a signal asks it to.

    Attributes:
        optimizer_name: The optimizer of the settings.
        outer_learning_rate: Of the parameters outside of the inner layers; None: the same.
        batching: What the data loader is given besides the dataset, which begins at the step to continue from.
        dev_scores: Scores on the dev split at an optimizer step.
    """

    control: TrainerControl
    optimizer: torch.optim.Optimizer | None
    train_dataset: Dataset
    optimizer_name: str
    outer_learning_rate: float | None = None
    batching: Mapping[str, Any]
    dev_scores: Callable[[int], dict[str, float]] | None = None
    _written_to: Path | None = None

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer that the settings name."""
        if self.optimizer is None:
            rate, decay = self.args.learning_rate, self.args.weight_decay
            self.optimizer = make_optimizer(
                self.optimizer_name, self.model, rate, decay, outer_learning_rate=self.outer_learning_rate
            )
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The micro-batches of this process, in order: the data itself knows rank, accumulation and step."""
        # A loader draws a seed when iteration starts. Drawn from torch's own generator, which a resumed training has
        # restored by then, that seed would change the dropout of all that follows.
        return DataLoader(
            self.train_dataset,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=ignore_signals,
            generator=torch.Generator().manual_seed(self.args.seed),
            **self.batching,
        )

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Scores on the dev split, which go to the loggers."""
        assert self.dev_scores is not None
        scores = self.dev_scores(self.state.global_step)
        self.log(dict(scores))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, scores)
        return scores

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; after SIGTERM, SIGUSR1 or Ctrl-C the step is finished and a checkpoint written.

        Raises:
            Stopped: After that; KeyboardInterrupt for Ctrl-C.
        """
        with deferred() as arrived:
            callback = _StopCallback(arrived)
            self.add_callback(callback)
            result = super().train(*args, **kwargs)
            # One may have come after the last step, while that was evaluated.
            callback.signal = callback.signal or arrived()
        stop_after_training(callback.signal, self.state.global_step >= self.args.max_steps)
        return result

    def _run_epoch(self, **kwargs: Any) -> None:
        # The Trainer would do a step before it looks.
        if not self.control.should_training_stop:
            super()._run_epoch(**kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step, best = self.state.global_step, self.state.best_global_step
        work, main = Path(str(self.args.output_dir)), self.args.should_save
        with whole_checkpoint(work, step, main, self.accelerator.wait_for_everyone, best) as folder:
            self._written_to = folder.parent
            super()._save_checkpoint(model, trial)
            if best:
                # Trainer's state names the folder that it wrote to; the best one will be here.
                self.state.best_model_checkpoint = str(work / f"checkpoint-{best}")
                if main:
                    self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
        self._written_to = None

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._written_to or self.args.output_dir)


def _lost_patience(state: TrainerState) -> bool:
    """Whether early stopping has ended the training that wrote the checkpoint of this state."""
    return any(
        one["attributes"]["early_stopping_patience_counter"] >= one["args"]["early_stopping_patience"]
        for kept in state.stateful_callbacks.values()
        for one in (kept if isinstance(kept, list) else [kept])
        if "early_stopping_patience" in one.get("args", {})
    )


class _StopCallback(TrainerCallback):
    """Ends the training, with a checkpoint, after the step in which a signal arrived.

    One that resumes takes its best checkpoint from where the run is now, which may have been moved, and does no further
    step where early stopping had ended it.
    """

    def __init__(self, arrived: Callable[[], int]) -> None:
        self.arrived, self.signal = arrived, 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.best_global_step:
            state.best_model_checkpoint = str(Path(str(args.output_dir)) / f"checkpoint-{state.best_global_step}")
        control.should_training_stop |= _lost_patience(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.signal = self.arrived()
        if self.signal and state.global_step < args.max_steps:
            control.should_save = control.should_training_stop = True


@contextlib.contextmanager
def whole_checkpoint(
    work: Path, step: int, main: bool, barrier: Callable[[], None], keep: int | None = None
) -> Iterator[Path]:
    """Yield the folder to write a checkpoint into; when all is written and on the disk, put it in its place.

    Of the earlier checkpoints the newest stays, and the others are removed then, and not before.

    Args:
        work: The folder of the checkpoints.
        step: The optimizer step.
        main: Whether this process writes; the others only take part.
        barrier: Waits for the other processes.
        keep: The step of an earlier checkpoint that stays.

    Raises:
        InputError: The disk is full; the earlier checkpoints are still there.
    """
    partial, place = work / _PARTIAL, work / f"checkpoint-{step}"
    new = partial / place.name
    try:
        if main:
            remove(partial)
            new.mkdir(parents=True)
        barrier()
        yield new
        barrier()
        if main:
            files = sorted(path for path in new.rglob("*") if path.is_file())
            summaries = {path.relative_to(new).as_posix(): _summary(path) for path in files}
            write_json(new / ABOUT, asdict(_About(step, fingerprint_in(work.parent), num_processes(), summaries)))
            make_readable(new)
            flush(new)
    except (OSError, RuntimeError, SafetensorError) as error:
        if main:
            shutil.rmtree(partial, ignore_errors=True)
        if not is_disk_full(error):
            raise
        earlier = f"checkpoint-{newest_step(work)}" if newest_step(work) else "no earlier one"
        raise InputError(
            f"{work}: no space for the checkpoint of step {step} (there is {earlier}); "
            "free some space and run the same command again"
        ) from error
    if main:
        remove(place)
        new.replace(place)
        newest = sorted(work.glob("checkpoint-*"), key=_step)[-_KEPT:]
        obsolete = [path for path in work.glob("checkpoint-*") if path not in newest and _step(path) != keep]
        for path in (*obsolete, partial):
            remove(path)
    barrier()


def _step(path: Path) -> int:
    """The optimizer step of a checkpoint's folder; -1 when it is none."""
    last = path.name.rsplit("-", 1)[-1]
    return int(last) if last.isdigit() else -1
