"""The training engine: transformers' Trainer over the step-exact stream of packed batches."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from unitweave.core.files import read_json
from unitweave.core.optim import make_optimiser
from unitweave.core.progress import meter
from unitweave.core.training import MeterCallback, last_checkpoint, quiet_transformers, use_bf16
from unitweave.lm.attention import PACKED
from unitweave.lm.packing import IGNORED
from unitweave.lm.stream import StepDataset, StepSource
from unitweave.weave.sequence import SEGMENTS

LOG_FILE = "log.jsonl"


@dataclass
class LossWeights:
    """Weight of each segment's tokens in the loss."""

    source: float = 1.0  # source units, and the text woven into them
    transcript: float = 1.0
    translation: float = 1.0
    target: float = 1.0  # target units, and the text woven into them

    def by_code(self) -> list[float]:
        """Weights by segment code; code 0 (nothing) weighs nothing."""
        return [0.0, *(getattr(self, name) for name in SEGMENTS)]


@dataclass
class OptimiserSettings:
    """How a language model is optimised."""

    steps: int = 600  # optimiser steps
    batch: int = 16  # utterance pairs (or text pairs) per optimiser step, over all processes
    accumulation: int = 1  # micro-batches per optimiser step and process
    optimiser: str = "adam"  # "adam" (the paper's), or "muon", which learns faster from scratch
    learning_rate: float = 5e-5  # the paper's value, for a 1B model; Muon's matrices take ten times it
    lr_schedule: str = "linear"  # any of transformers' names: "linear", "cosine", "constant_with_warmup", ...
    warmup: float = 0.03  # share of the steps
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "bf16"  # "bf16" or "fp32"
    gradient_checkpointing: bool = False
    checkpoint_every: int = 200  # steps
    log_every: int = 10  # steps
    workers: int = 0  # processes that build batches ahead
    seed: int = 1
    loss_weights: LossWeights = field(default_factory=LossWeights)


class WeaveTrainer(Trainer):
    """Trainer on packed micro-batches whose loss is normalised over the whole optimiser step."""

    loss_is_scaled_for_ga = True  # `step_weight` already spans all micro-batches and processes
    optimiser: str = "adam"
    optimizer: torch.optim.Optimizer | None
    log_path: Path | None = None
    ratio: Callable[[int], float] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self._sums = torch.zeros(2, len(SEGMENTS) + 1)
        self._tokens, self._since = 0, time.monotonic()

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimiser that the settings name."""
        if self.optimizer is None:
            self.optimizer = make_optimiser(self.optimiser, self.model, self.args.learning_rate, self.args.weight_decay)
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The micro-batches of this process, in order: the dataset itself knows rank, accumulation and step."""
        return DataLoader(
            self.train_dataset, batch_size=None, shuffle=False, num_workers=self.args.dataloader_num_workers
        )

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Weighted sum of the token losses over the weight of the whole step."""
        labels, weights, segments = inputs["labels"], inputs["weights"], inputs["segments"]
        logits = model(
            input_ids=inputs["input_ids"],
            position_ids=inputs["position_ids"],
            layout=inputs["layout"],
            place=inputs["place"],
            use_cache=False,
        ).logits[0]  # [tokens, vocabulary]
        losses = functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="none")  # [tokens]
        counted = labels != IGNORED
        self._sums[0].index_add_(0, segments[counted].cpu(), losses.detach()[counted].cpu())
        self._sums[1] += torch.bincount(segments[counted].cpu(), minlength=len(SEGMENTS) + 1)
        self._tokens += int(inputs["used"])
        # DistributedDataParallel averages gradients over processes; the step's loss is their sum.
        return (losses * weights).sum() / inputs["step_weight"] * self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the losses per segment, the text ratio and the speed, and append all to log.jsonl."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums.to(self.args.device), reduction="sum").cpu()
            means = sums[0] / sums[1].clamp_min(1)
            logs |= {f"loss_{name}": float(means[i + 1]) for i, name in enumerate(SEGMENTS) if sums[1, i + 1]}
            logs["loss"] = float(sums[0].sum() / sums[1].sum().clamp_min(1))
            if self.ratio is not None:
                logs["ratio"] = self.ratio(self.state.global_step - 1)
            now = time.monotonic()
            logs["tokens_per_second"] = self._tokens * self.args.world_size / (now - self._since)
            self._sums.zero_()
            self._tokens, self._since = 0, now
        if self.log_path is not None and self.is_world_process_zero() and "loss" in logs:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.state.global_step} | logs) + "\n")
        super().log(logs, start_time)


class EveryStepsCallback(TrainerCallback):
    """Calls a function after every so many optimiser steps, and after the last."""

    def __init__(self, every: int, function: Callable[[int], None]) -> None:
        self.every, self.function = every, function

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self.every and (state.global_step % self.every == 0 or state.global_step == state.max_steps):
            self.function(state.global_step)


def fit(
    model: PreTrainedModel,
    source: StepSource,
    settings: OptimiserSettings,
    folder: Path,
    label: str,
    ratio: Callable[[int], float] | None = None,
    callbacks: tuple[TrainerCallback, ...] = (),
) -> None:
    """Train `model` in place on the steps of `source`; goes on from the last checkpoint in `folder`.

    Writes folder/log.jsonl (a line per `log_every` steps) and folder/checkpoints.
    """
    quiet_transformers()
    work = folder / "checkpoints"
    resume = last_checkpoint(work)
    first_step = int(read_json(Path(resume) / "trainer_state.json")["global_step"]) if resume else 0
    _trim_log(folder / LOG_FILE, first_step)
    model.set_attn_implementation(PACKED)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable()
    arguments = _arguments(work, settings)
    dataset = StepDataset(
        source,
        settings.steps,
        settings.loss_weights.by_code(),
        settings.accumulation,
        arguments.process_index,
        arguments.world_size,
        first_step,
    )
    trainer = WeaveTrainer(model=model, args=arguments, train_dataset=dataset)
    trainer.optimiser = settings.optimiser
    trainer.log_path, trainer.ratio = folder / LOG_FILE, ratio
    trainer.remove_callback(PrinterCallback)
    with meter(label, settings.steps, first_step) as progress:
        trainer.add_callback(MeterCallback(progress))
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.train(resume_from_checkpoint=resume)
    model.set_attn_implementation("sdpa")


def _arguments(work: Path, settings: OptimiserSettings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(work),
        max_steps=settings.steps,
        gradient_accumulation_steps=settings.accumulation,
        learning_rate=settings.learning_rate,
        lr_scheduler_type=settings.lr_schedule,
        warmup_steps=int(settings.warmup * settings.steps),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        bf16=use_bf16(settings.precision),
        use_cpu=not torch.cuda.is_available(),
        save_steps=settings.checkpoint_every,
        save_total_limit=1,
        logging_steps=settings.log_every,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=settings.workers,
        ignore_data_skip=True,  # the dataset itself begins at the step to go on from
        seed=settings.seed,
    )


def _trim_log(path: Path, step: int) -> None:
    """Drop log lines later than `step`: they come again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
