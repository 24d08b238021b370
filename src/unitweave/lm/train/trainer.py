"""The training engine: transformers' Trainer over the step-exact stream of packed batches."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_callback import PrinterCallback

from unitweave.config.training import LmTraining
from unitweave.core.progress import meter, say
from unitweave.interleaving.sequence import SEGMENTS
from unitweave.lm.data.packing import IGNORED
from unitweave.lm.data.stream import PackedDataset, SequenceDataset
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.attention import BUCKET_INPUTS, FLASH_INPUTS, flash_fits, flash_works
from unitweave.lm.train.logs import LineCallback, Throughput, report_callbacks
from unitweave.lm.train.packed import PackedTraining
from unitweave.training.checkpoints import CheckpointedTrainer, last_checkpoint
from unitweave.training.optimizers import make_optimizer
from unitweave.training.trainer import quiet_transformers, training_arguments
from unitweave.units.dataset import UnitRow

LOG_FILE = "log.jsonl"
# Called with the causal LM and the optimizer step; returns scores by name.
Evaluate = Callable[[PreTrainedModel, int], dict[str, float]]
# Makes the above out of the stage's folder, the units of all recordings, the tokenizer and the vocabulary; None where
# there is nothing to evaluate.
EvaluatorFactory = Callable[
    [Path, dict[tuple[str, str], UnitRow], PreTrainedTokenizerBase, Vocabulary], Evaluate | None
]


class LmTrainer(CheckpointedTrainer):
    """Trainer on packed micro-batches whose loss is normalized over the whole optimizer step."""

    loss_is_scaled_for_ga = True  # `step_weight` already spans all micro-batches and processes
    optimizer_name: str = "adam"
    optimizer: torch.optim.Optimizer | None
    log_path: Path | None = None
    ratio: Callable[[int], float] | None = None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.model_accepts_loss_kwargs = False
        self._sums = torch.zeros(2, len(SEGMENTS) + 1, dtype=torch.float64, device=self.args.device)
        self.throughput = Throughput(self.model, self.args)
        self._flash = self.args.bf16 and flash_fits(self.model.config) and flash_works(self.args.device)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """The optimizer that the settings name."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(
                self.optimizer_name, self.model, self.args.learning_rate, self.args.weight_decay
            )
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The micro-batches of this process, in order: the dataset itself knows rank, accumulation and step."""
        # A loader draws a seed when it is begun: out of torch's own generator that would change the dropout of a
        # training that is resumed, whose random state has been put back by then.
        return DataLoader(
            self.train_dataset,
            batch_size=None,
            shuffle=False,
            num_workers=self.args.dataloader_num_workers,
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of a micro-batch, pass by pass; gradients are exchanged once, at its end."""
        *first, last = inputs["passes"]
        loss = torch.zeros((), device=self.args.device)
        state = self.accelerator.gradient_state
        whole = state.sync_gradients
        for batch in first:
            # DeepSpeed heeds no `no_sync`: its backward would take an optimizer step where gradients are due.
            state._set_sync_gradients(False)
            with self.accelerator.no_sync(model):
                loss += super().training_step(model, batch, num_items_in_batch)
        state._set_sync_gradients(whole)
        return loss + super().training_step(model, last, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Weighted sum of the token losses over the weight of the whole step."""
        segments, labels = inputs.pop("segments"), inputs["labels"]
        self.throughput.count(inputs.pop("num_tokens"), inputs.pop("sum_squared_lengths"))
        step_weight = inputs.pop("step_weight")
        for name in BUCKET_INPUTS if self._flash else FLASH_INPUTS:
            inputs.pop(name)
        loss, losses = model(**inputs)
        counted = (labels != IGNORED).double()
        self._sums[0].index_add_(0, segments, losses.double() * counted)
        self._sums[1].index_add_(0, segments, counted)
        # DistributedDataParallel averages gradients over processes; the step's loss is their sum.
        return loss / step_weight * self.args.world_size

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the losses per segment, the text ratio and the speed, and append all to log.jsonl."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums, reduction="sum").cpu()
            means = sums[0] / sums[1].clamp_min(1)
            logs |= {f"loss_{name}": float(means[i + 1]) for i, name in enumerate(SEGMENTS) if sums[1, i + 1]}
            logs["loss"] = float(sums[0].sum() / sums[1].sum().clamp_min(1))
            if self.ratio is not None:
                logs["ratio"] = self.ratio(self.state.global_step - 1)
            logs |= self.throughput.read(self.accelerator)
            self._sums.zero_()
        if self.log_path is not None and self.is_world_process_zero() and "loss" in logs:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.state.global_step} | logs) + "\n")
        super().log(logs, start_time)


class EvaluateCallback(TrainerCallback):
    """Calls a function after every so many optimizer steps."""

    def __init__(self, every: int, function: Callable[[int], None]) -> None:
        self.every, self.function = every, function

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            due = control.should_log
            self.function(state.global_step)
            control.should_log = due  # logging the scores has taken it back


def fit(
    model: PreTrainedModel,
    source: SequenceDataset,
    settings: LmTraining,
    folder: Path,
    label: str,
    ratio: Callable[[int], float] | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    inner: PreTrainedModel | None = None,
) -> dict[str, torch.Tensor] | None:
    """Train `model` in place on the steps of `source`; goes on from the last checkpoint in `folder`.

    evaluate  called with the causal LM and the step every `evaluate_every` steps; its numbers go to the loggers
    inner     the causal LM inside `model` where that is a LoRA wrapper
    Writes folder/log.jsonl (a line per `logging_steps` steps), folder/tensorboard and folder/checkpoints.
    Returns the whole model's weights where it was sharded (on the first process), else None.
    """
    quiet_transformers()
    causal = inner or model
    work = folder / "checkpoints"
    resume, first_step = last_checkpoint(work)
    arguments = _arguments(work, settings)
    if arguments.process_index == 0:
        trim_log(folder / LOG_FILE, first_step)
    dataset = PackedDataset(
        source,
        settings.steps,
        settings.loss_weights.by_code(),
        settings.gradient_accumulation_steps,
        arguments.process_index,
        arguments.world_size,
        first_step,
        settings.max_tokens_per_forward,
    )
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    with PackedTraining(causal, settings.cross_entropy) as packed, meter(label, settings.steps, first_step) as progress:
        trainer = LmTrainer(model=model, args=arguments, train_dataset=dataset)
        trainer.optimizer_name = settings.optimizer
        trainer.log_path, trainer.ratio = folder / LOG_FILE, ratio
        trainer.remove_callback(PrinterCallback)
        for callback in (LineCallback(progress), *report_callbacks(settings.report_to, folder, first_step)):
            trainer.add_callback(callback)
        if evaluate is not None and (settings.fsdp or settings.deepspeed):
            say("the weights are sharded, so the dev split is not decoded during training")
        elif evaluate is not None:

            def scores(step: int) -> None:
                with packed.suspended():
                    found = evaluate(causal, step)
                trainer.log(found)

            trainer.add_callback(EvaluateCallback(evaluate_every, scores))
        trainer.throughput.since = time.monotonic()
        trainer.train(resume_from_checkpoint=resume)
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        return (
            trainer.accelerator.get_state_dict(trainer.model_wrapped) if settings.fsdp or settings.deepspeed else None
        )


def _arguments(work: Path, settings: LmTraining) -> TrainingArguments:
    return training_arguments(
        work,
        settings,
        save_total_limit=None,  # checkpoints.py removes the one before when the next is whole
        report_to=[name for name in settings.report_to if name != "tensorboard"],
        torch_compile=settings.torch_compile_backend is not None,
        torch_compile_backend=settings.torch_compile_backend,
        fsdp="full_shard" if settings.fsdp else None,
        fsdp_config={"version": 2} if settings.fsdp else None,
        deepspeed=settings.deepspeed,
    )


def trim_log(path: Path, step: int) -> None:
    """Drop log lines later than `step`: they come again."""
    if path.exists():
        lines = [line for line in path.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        path.write_text("".join(line + "\n" for line in kept), encoding="utf-8")
