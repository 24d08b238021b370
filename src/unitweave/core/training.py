"""What every training stage on transformers' Trainer shares."""

from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint
from transformers.utils import logging as transformers_logging

from unitweave.core.progress import Meter

PRECISIONS = ("bf16", "fp32")


def quiet_transformers() -> None:
    """Keep transformers' own progress bars and notices off the terminal; ours say what is going on."""
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


def use_bf16(precision: str) -> bool:
    """Whether to compute in bf16: "bf16" where the hardware multiplies it natively, "fp32" never.

    Without native bf16 autocast would be slower than float32, so it is left off there.
    """
    if precision == "fp32":
        return False
    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported()
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class MeterCallback(TrainerCallback):
    """Moves a progress meter with the Trainer's optimiser steps and shows the latest loss."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        loss = next((entry["loss"] for entry in reversed(state.log_history) if "loss" in entry), None)
        note = f"loss {loss:.3f}" if loss is not None else ""
        self.meter.advance(state.global_step - self.meter.done, note)


def last_checkpoint(folder: Path) -> str | None:
    """The newest complete checkpoint in a Trainer's output folder, or None."""
    return get_last_checkpoint(str(folder)) if folder.exists() else None
