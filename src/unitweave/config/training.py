"""How a model is trained: one set of settings, of which every stage that trains a model has its own values."""

from dataclasses import dataclass, field
from typing import Literal

from unitweave.config.types import (
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Ratio,
    Seed,
    Settings,
)
from unitweave.core.errors import InputError
from unitweave.core.functions import is_installed

Precision = Literal["bf16", "fp32"]
# transformers' other schedules need arguments of their own, or a dev loss.
LrScheduler = Literal[
    "linear", "cosine", "cosine_with_restarts", "polynomial", "constant", "constant_with_warmup", "inverse_sqrt"
]
Logger = Literal[
    "tensorboard", "wandb", "mlflow", "trackio", "clearml", "codecarbon", "comet_ml", "dvclive", "neptune", "swanlab"
]


@dataclass
class TrainingSettings(Settings):
    """What the training of every model has, under transformers' names."""

    steps: PositiveInt = 600
    """Optimizer steps."""
    optimizer: Literal["adam", "muon"] = "adam"
    """adam (AdamW), or muon (Muon on the matrices inside the network, AdamW on the rest; faster from scratch)."""
    learning_rate: PositiveNumber = 5e-5
    """Peak learning rate, after the warm-up; the matrices that Muon updates take ten times as much."""
    warmup_ratio: Ratio = 0.03
    """Fraction of the steps over which the learning rate rises, rounded down to whole steps."""
    weight_decay: NonNegativeNumber = 0.0
    """Weight decay of matrices; vectors have none."""
    max_grad_norm: PositiveNumber = 1.0
    """Gradients of a larger norm are scaled down to it."""
    precision: Precision = "bf16"
    """bf16 (bfloat16 where the hardware multiplies it natively) or fp32."""
    save_steps: PositiveInt = 200
    """Optimizer steps between checkpoints, from which an interrupted training continues."""
    seed: Seed = 1
    """Seed of new weights, of the order of the data and of dropout."""

    @property
    def warmup_steps(self) -> int:
        """Optimizer steps of the warm-up."""
        return int(round(self.warmup_ratio * self.steps, 6))  # 0.29 * 100 is 28.999..., and means 29


@dataclass
class VocoderTraining(TrainingSettings):
    """How the vocoder is trained. The learning rate falls along a cosine to a twentieth of its peak."""

    batch_size: PositiveInt = 16
    """Segments per optimizer step, over all processes."""


@dataclass
class EncoderTraining(TrainingSettings):
    """How the speech encoder is trained, with transformers' Trainer."""

    gradient_accumulation_steps: PositiveInt = 1
    """Batches of each process per optimizer step."""
    lr_scheduler_type: LrScheduler = "linear"
    """Course of the learning rate after the warm-up, by transformers' names."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, a third more work."""
    logging_steps: PositiveInt = 10
    """Optimizer steps between log entries."""
    dataloader_num_workers: NonNegativeInt = 0
    """Processes that prepare batches ahead; 0: none."""


@dataclass
class LossWeights(Settings):
    """Weight of each segment's tokens in the loss."""

    source: NonNegativeNumber = 1.0
    """Source units, and the text interleaved into them."""
    transcript: NonNegativeNumber = 1.0
    """Source text."""
    translation: NonNegativeNumber = 1.0
    """Target text."""
    target: NonNegativeNumber = 1.0
    """Target units, and the text interleaved into them."""

    def check(self) -> None:
        """Raise InputError where no segment counts."""
        if not any(self.by_code()):
            raise InputError("training.loss_weights: at least one must be above 0")

    def by_code(self) -> list[float]:
        """Weights by segment code; code 0 (nothing) weighs nothing."""
        return [0.0, self.source, self.transcript, self.translation, self.target]


@dataclass
class LmTraining(EncoderTraining):
    """How a language model is trained, with transformers' Trainer."""

    batch_size: PositiveInt = 16
    """Utterance pairs (or sentence pairs) per optimizer step, over all processes."""
    max_tokens_per_forward: PositiveInt | None = None
    """Maximum tokens of one forward pass; a larger micro-batch takes several. null: no limit."""
    torch_compile_backend: str | None = None
    """Backend of torch.compile for the model's layers, usually inductor, which is faster; null compiles nothing."""
    cross_entropy: Literal["chunked", "plain"] = "chunked"
    """chunked never holds all logits at once; plain does."""
    fsdp: bool = False
    """Shard weights, gradients and optimizer states over the processes (FSDP 2)."""
    deepspeed: str | None = None
    """A DeepSpeed JSON file; needs the package deepspeed."""
    report_to: list[Logger] = field(default_factory=lambda: ["tensorboard"])
    """Loggers, by transformers' names: tensorboard, wandb, mlflow, trackio, clearml, ...; [] for none."""
    loss_weights: LossWeights = field(default_factory=LossWeights)

    def check(self) -> None:
        """Raise InputError for settings that exclude each other, or need a package that is not installed."""
        for name in self.report_to:
            if not is_installed(name):
                raise InputError(f"training.report_to: {name} is not installed; pip install {name}")
        if self.deepspeed is not None and not is_installed("deepspeed"):
            raise InputError("training.deepspeed needs the package deepspeed: pip install deepspeed")
        if (self.fsdp or self.deepspeed) and self.optimizer == "muon":
            raise InputError("training.optimizer: muon needs whole matrices and cannot be used with fsdp or deepspeed")
        if self.fsdp and self.deepspeed:
            raise InputError("training.fsdp and training.deepspeed exclude each other; set one")
