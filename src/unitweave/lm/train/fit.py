"""Train a causal LM on any stream of sequences: the small text LM, and the systems on speech."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
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
from unitweave.core.files import atomic_path
from unitweave.core.progress import meter, say
from unitweave.lm.data.stream import PackedDataset, SequenceDataset
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.logs import LOG_FILE, LineCallback, report_callbacks, trim_log
from unitweave.lm.train.packed import PackedTraining
from unitweave.lm.train.trainer import LmTrainer
from unitweave.training.checkpoints import last_checkpoint
from unitweave.training.trainer import quiet_transformers, training_arguments
from unitweave.units.dataset import UnitRow

# Called with the causal LM and the optimizer step; returns scores by name.
Evaluate = Callable[[PreTrainedModel, int], dict[str, float]]
# Makes the above out of the stage's folder, the units of all recordings, the tokenizer and the vocabulary; None where
# there is nothing to evaluate.
EvaluatorFactory = Callable[
    [Path, dict[tuple[str, str], UnitRow], PreTrainedTokenizerBase, Vocabulary], Evaluate | None
]


def fit(
    model: PreTrainedModel,
    dataset: SequenceDataset,
    settings: LmTraining,
    folder: Path,
    label: str,
    ratio: Callable[[int], float] | None = None,
    evaluate: Evaluate | None = None,
    evaluate_every: int = 0,
    inner: PreTrainedModel | None = None,
) -> dict[str, torch.Tensor] | None:
    """Train a model in place, going on from the last checkpoint in `folder`.

    Writes folder/log.jsonl (a line per `logging_steps` steps), folder/tensorboard and folder/checkpoints.

    Args:
        model: A causal LM, or the LoRA wrapper around one.
        dataset: The sequences of each optimizer step.
        settings: How to train.
        folder: The stage's folder.
        label: What the progress line calls it.
        ratio: The text ratio of a step, for the log.
        evaluate: Called with the causal LM and the step; its scores go to the loggers.
        evaluate_every: Optimizer steps between these calls.
        inner: The causal LM inside `model` where that is a LoRA wrapper.

    Returns:
        The whole model's weights where they were sharded (on the main process), else None.

    Raises:
        InputError: The model cannot be trained on packed sequences, or the disk is full.
    """
    quiet_transformers()
    causal = inner or model
    work = folder / "checkpoints"
    arguments = _arguments(work, settings)
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
    sharded = settings.fsdp or settings.deepspeed is not None
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    progress_line = meter(label, settings.steps, first_step)
    with PackedTraining(causal, settings.cross_entropy) as packing, progress_line as progress:
        trainer = LmTrainer(model, arguments, packed, settings.optimizer, folder / LOG_FILE, ratio)
        trainer.remove_callback(PrinterCallback)
        for callback in (LineCallback(progress), *report_callbacks(settings.report_to, folder, first_step)):
            trainer.add_callback(callback)
        if evaluate is not None and sharded:
            say("the dev split is not decoded during training, since the weights are sharded")
        elif evaluate is not None:

            def log_scores(step: int) -> None:
                with packing.suspended():
                    scores = evaluate(causal, step)
                trainer.log(scores)

            trainer.add_callback(EvaluateCallback(evaluate_every, log_scores))
        trainer.throughput.since = time.monotonic()
        trainer.train(resume_from_checkpoint=resume and str(resume))
        if settings.gradient_checkpointing:
            model.gradient_checkpointing_disable()
        return trainer.accelerator.get_state_dict(trainer.model_wrapped) if sharded else None


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


class EvaluateCallback(TrainerCallback):
    """Calls a function after every so many optimizer steps."""

    def __init__(self, every: int, function: Callable[[int], None]) -> None:
        self.every, self.function = every, function

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self.every == 0:
            due = control.should_log
            self.function(state.global_step)
            control.should_log = due  # Trainer.log cleared it when the scores were logged


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
