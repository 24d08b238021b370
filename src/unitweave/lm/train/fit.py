"""Train a causal LM on any stream of sequences: the small text LM, and the systems on speech."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import (
    EarlyStoppingCallback,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import PrinterCallback

from unitweave.config.training import LmTraining
from unitweave.core.files import atomic_path, read_json_object
from unitweave.core.progress import echo, meter
from unitweave.interleaving.schedules.adaptive import Adaptive
from unitweave.interleaving.sequence import TrainingSequence
from unitweave.lm.data.stream import FixedSequences, PackedDataset, SequenceDataset
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.logs import LOG_FILE, log_line, report_callbacks, trim_log
from unitweave.lm.train.packed import PackedTraining
from unitweave.lm.train.trainer import LmTrainer
from unitweave.training.checkpoints import last_checkpoint
from unitweave.training.trainer import MeterCallback, quiet_transformers, training_arguments

_UNIT_LOSS = "unit_dev_loss"

# Called with the causal LM and the optimizer step; returns scores by name.
Evaluate = Callable[[PreTrainedModel, int], dict[str, float]]
# Makes the above out of the stage's folder, the folder of the units, the tokenizer and the vocabulary; None where
# there is nothing to evaluate.
EvaluatorFactory = Callable[[Path, Path, PreTrainedTokenizerBase, Vocabulary], Evaluate | None]


@dataclass
class DevEvaluation:
    """What is evaluated on the dev split during training, and when.

    Attributes:
        function: Returns the scores.
        every: Optimizer steps between two evaluations; there is one more at the end.
        patience: Evaluations without a higher `eval_bleu` after which the training stops, and the best checkpoint is
            kept; 0: it never stops.
        first_counted: The optimizer step from which on evaluations count for the patience.
    """

    function: Evaluate
    every: int
    patience: int = 0
    first_counted: float = 0.0


def fit(
    model: PreTrainedModel,
    dataset: SequenceDataset,
    settings: LmTraining,
    folder: Path,
    label: str,
    ratio: Callable[[int], float] | None = None,
    evaluation: DevEvaluation | None = None,
    inner: PreTrainedModel | None = None,
    unit_dev: Sequence[TrainingSequence] = (),
) -> tuple[dict[str, torch.Tensor] | None, TrainerState]:
    """Train a model in place, going on from the last checkpoint in `folder`.

    Writes folder/log.jsonl (a line per `logging_steps` steps), folder/tensorboard and folder/checkpoints.

    Args:
        model: A causal LM, or the LoRA wrapper around one.
        dataset: The sequences of each optimizer step.
        settings: How to train.
        folder: The stage's folder.
        label: What the progress line calls it.
        ratio: The text ratio of a step, for the log; an adaptive one is shown the dev loss.
        evaluation: What is evaluated on dev; its scores go to the loggers.
        inner: The causal LM inside `model` where that is a LoRA wrapper.
        unit_dev: Sequences of the dev split with units only, for an adaptive ratio.

    Returns:
        The whole model's weights where they were sharded (on the main process), else None; and the Trainer's state.

    Raises:
        InputError: The model cannot be trained on packed sequences, or the disk is full.
    """
    quiet_transformers()
    causal = inner or model
    work = folder / "checkpoints"
    sharded = settings.fsdp or settings.deepspeed is not None
    if evaluation is not None and sharded:
        echo("the dev split is not decoded during training, since the weights are sharded")
        evaluation = None
    arguments = _arguments(work, settings, evaluation)
    resume, first_step = last_checkpoint(work)
    if arguments.process_index == 0:
        for log in folder.glob("*.jsonl"):
            trim_log(log, first_step)
    packed = PackedDataset(
        dataset,
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
    progress_line = meter(label, settings.steps, first_step)
    with (
        PackedTraining(causal, settings.cross_entropy, settings.torch_compile_backend) as packing,
        progress_line as progress,
    ):

        def decode_dev(step: int) -> dict[str, float]:
            assert evaluation is not None
            with packing.suspended():
                return evaluation.function(causal, step)

        trainer = LmTrainer(model, arguments, packed, settings.optimizer, folder / LOG_FILE, ratio, decode_dev)
        trainer.remove_callback(PrinterCallback)
        callbacks = [MeterCallback(progress, log_line), *report_callbacks(settings.report_to, folder, first_step)]
        if evaluation is not None and evaluation.patience:
            callbacks.append(PatienceCallback(evaluation.patience, evaluation.first_counted))
        if isinstance(ratio, Adaptive):
            callbacks.append(_adaptive(ratio, trainer, unit_dev, settings, resume))
        for callback in callbacks:
            trainer.add_callback(callback)
        trainer.throughput.since = time.monotonic()
        trainer.train(resume_from_checkpoint=resume and str(resume))
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        weights = trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None
        return weights, trainer.state


def save_model(
    folder: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    state: dict[str, torch.Tensor] | None,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Write a trained model once, from the main process, in transformers' layout.

    Args:
        folder: Where; what stood there is replaced once all is written.
        model: The causal LM.
        tokenizer: Its tokenizer.
        state: Its weights where they were sharded, as `fit` returns them.
        vocabulary: Where units and markers are, for a model of speech.
    """
    processes = PartialState()
    if processes.is_main_process:
        with atomic_path(folder) as temporary:
            model.save_pretrained(temporary, state_dict=state)
            tokenizer.save_pretrained(temporary)
            if vocabulary is not None:
                vocabulary.save(temporary)
    processes.wait_for_everyone()


class PatienceCallback(EarlyStoppingCallback):
    """Early stopping in which only the evaluations from some step on count."""

    def __init__(self, early_stopping_patience: int, first_counted: float) -> None:
        super().__init__(early_stopping_patience)
        self.first_counted = first_counted

    def check_metric_value(self, args: Any, state: TrainerState, control: TrainerControl, metric_value: float) -> None:
        """Count an evaluation without a higher score."""
        if state.global_step >= self.first_counted:
            super().check_metric_value(args, state, control, metric_value)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        arguments = {"early_stopping_patience": self.early_stopping_patience, "first_counted": self.first_counted}
        return super().state() | {"args": arguments}


class AdaptiveCallback(TrainerCallback):
    """Shows an adaptive ratio the dev loss on pure units; the loss is logged, and so is in every checkpoint."""

    def __init__(self, ratio: Adaptive, trainer: LmTrainer, passes: Sequence[dict[str, Any]]) -> None:
        self.ratio, self.trainer, self.passes = ratio, trainer, passes

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the dev loss, as long as there is text."""
        step, due = state.global_step, control.should_log
        if step % self.ratio.every == 0 and self.ratio(step) > 0:
            loss = self.trainer.evaluation_loss(self.passes)
            self.ratio.observe(step, loss)
            self.trainer.log({_UNIT_LOSS: loss})
            control.should_log = due  # which Trainer.log cleared


def _adaptive(
    ratio: Adaptive, trainer: LmTrainer, dev: Sequence[TrainingSequence], settings: LmTraining, resume: Path | None
) -> AdaptiveCallback:
    """The callback of an adaptive ratio, which has observed what a training that resumes had logged."""
    if resume is not None:
        for entry in read_json_object(resume / TRAINER_STATE_NAME)["log_history"]:
            if _UNIT_LOSS in entry:
                ratio.observe(entry["step"], entry[_UNIT_LOSS])
    weights, limit = settings.loss_weights.by_code(), settings.max_tokens_per_forward
    return AdaptiveCallback(
        ratio, trainer, PackedDataset(FixedSequences(dev), 1, weights, 1, 0, 1, 0, limit)[0]["passes"]
    )


def _arguments(work: Path, settings: LmTraining, evaluation: DevEvaluation | None) -> TrainingArguments:
    every = evaluation.every if evaluation is not None else None
    keeps_best = evaluation is not None and evaluation.patience > 0
    return training_arguments(
        work,
        settings,
        # The best checkpoint can only be kept where there is one: at each evaluation.
        save_steps=every if keeps_best else settings.save_steps,
        eval_strategy="steps" if every else "no",
        eval_steps=every,
        load_best_model_at_end=keeps_best,
        metric_for_best_model="eval_bleu" if keeps_best else None,
        greater_is_better=True if keeps_best else None,
        restore_callback_states_from_checkpoint=keeps_best,  # how long the score has not risen
        save_total_limit=None,  # checkpoints.py removes the one before when the next is whole
        report_to=[name for name in settings.report_to if name != "tensorboard"],
        fsdp="full_shard" if settings.fsdp else None,
        fsdp_config={"version": 2} if settings.fsdp else None,
        deepspeed=settings.deepspeed,
    )
