"""What every training stage on transformers' Trainer shares."""

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.utils import logging as transformers_logging

from unitweave.core.progress import Meter, say
from unitweave.training.devices import has_native_bf16

PRECISIONS = ("bf16", "fp32")


def quiet_transformers() -> None:
    """Keep transformers' own progress bars and notices off the terminal; ours say what is going on."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def use_bf16(precision: str) -> bool:
    """Whether to compute in bf16: "bf16" where the hardware multiplies it natively, "fp32" never.

    Without native bf16 autocast would be slower than float32, so it is left off there.
    """
    return precision == "bf16" and has_native_bf16()


def one_device(arguments: TrainingArguments) -> TrainingArguments:
    """Keep a process to one GPU: with several the Trainer would split each batch over them (DataParallel)."""
    if arguments.n_gpu > 1:
        say(f"one of {arguments.n_gpu} GPUs is used; 'torchrun --nproc-per-node {arguments.n_gpu}' trains on all")
        arguments._n_gpu = 1
    return arguments


class MeterCallback(TrainerCallback):
    """Moves a progress meter with the Trainer's optimizer steps and shows the latest loss."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        note = f"loss {loss:.3f}" if loss is not None else ""
        self.meter.advance(state.global_step - self.meter.done, note)
