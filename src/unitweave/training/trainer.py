"""What every training stage on transformers' Trainer shares."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from unitweave.config.training import EncoderTraining
from unitweave.core.progress import Meter, echo
from unitweave.training.devices import use_bf16


def quiet_transformers() -> None:
    """Keep transformers' own progress bars and notices off the terminal; ours say what is going on."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def training_arguments(work: Path, settings: EncoderTraining, **further: Any) -> TrainingArguments:
    """transformers' arguments for a training with these settings.

    Args:
        work: Folder for the checkpoints.
        settings: What the trainings of all models have in common.
        further: Arguments that only one of the models has.
    """
    arguments = TrainingArguments(
        output_dir=str(work),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.gradient_accumulation_steps,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_scheduler_type,
        warmup_steps=settings.warmup_steps,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=use_bf16(settings.precision),
        use_cpu=not torch.cuda.is_available(),
        logging_steps=settings.logging_steps,
        dataloader_num_workers=settings.dataloader_num_workers,
        seed=settings.seed,
        disable_tqdm=True,
        remove_unused_columns=False,
        ignore_data_skip=True,  # the data itself begins at the step to continue from
        **({"save_steps": settings.save_steps, "report_to": []} | further),
    )
    if arguments.n_gpu > 1:  # with several the Trainer would split each batch over them (DataParallel)
        echo(f"one of {arguments.n_gpu} GPUs is used; 'torchrun --nproc-per-node {arguments.n_gpu}' trains on all")
        arguments._n_gpu = 1
    return arguments


class MeterCallback(TrainerCallback):
    """Moves a progress meter with the Trainer's optimizer steps and shows the latest losses.

    Args:
        meter: The meter.
        line: What it shows of a log entry.
    """

    def __init__(self, meter: Meter, line: Callable[[dict[str, float]], str]) -> None:
        self.meter, self.line, self.note = meter, line, ""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        if logs and "loss" in logs:
            self.note = self.line(logs)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self.meter.advance(state.global_step - self.meter.done, self.note)
