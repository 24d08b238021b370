"""Settings of the language models: the small text LM, and the systems that are trained on speech."""

from dataclasses import dataclass, field
from typing import Literal

from unitweave.config.interleave import (
    FROM_SPEECH,
    SPEECH_TO_SPEECH,
    TASK_SEGMENTS,
    InterleaveSettings,
    ScheduleSettings,
    SpeechSegment,
    Task,
    Texts,
)
from unitweave.config.training import LmTraining
from unitweave.config.types import (
    LATER,
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    RatioBelowOne,
    Settings,
)
from unitweave.core.errors import InputError
from unitweave.core.functions import is_installed

MIN_TOKENS = 16  # a sequence has up to six markers and two language tags


@dataclass
class SmallLm(Settings):
    """Shape of the small Llama, under transformers' names."""

    hidden_size: PositiveInt = 256
    """Width."""
    num_hidden_layers: PositiveInt = 6
    """Transformer layers."""
    num_attention_heads: PositiveInt = 4
    """Attention heads of each layer."""
    intermediate_size: PositiveInt = 704
    """Width inside the gated feed-forward layers."""
    vocab_size: PositiveInt = 1024
    """Size of the BPE vocabulary."""

    def check(self) -> None:
        """Raise InputError for a shape that no model can have."""
        if self.hidden_size % (2 * self.num_attention_heads):
            raise InputError(
                f"shape.hidden_size: must be a multiple of twice the number of heads, {2 * self.num_attention_heads} "
                f"(got {self.hidden_size})"
            )


@dataclass
class TextLmSettings(Settings):
    """Settings of the small text language model, which is trained where no pretrained one is named."""

    shape: SmallLm = field(default_factory=SmallLm)
    extra_sentences: NonNegativeInt = 20_000
    """Parallel sentences of text in addition to those of the corpus (embedded corpus only)."""
    copy_task_steps: NonNegativeInt = 0
    """First optimizer steps, on random tokens repeated once: they teach the model to copy from its context."""
    training: LmTraining = field(
        default_factory=lambda: LmTraining(steps=400, batch_size=128, learning_rate=2e-3, lr_scheduler_type="cosine")
    )


@dataclass
class LoraSettings(Settings):
    """Low-rank adaptation (Hu et al. 2021), for models too large to train whole."""

    rank: PositiveInt = 64
    """Rank of each update."""
    alpha: PositiveInt = 128
    """The update is scaled by alpha / rank."""
    dropout: RatioBelowOne = 0.0
    """Dropout of the updates' input."""
    target_modules: list[str] | None = None
    """Names of linear layers; null takes all but the output layer."""

    def check(self) -> None:
        """Raise InputError when peft is not installed."""
        if not is_installed("peft"):
            raise InputError("lora needs the package peft: pip install 'unitweave[lora]'")


@dataclass
class EvaluationSettings(Settings):
    """How the dev split is evaluated during training."""

    eval_steps: NonNegativeInt = 500
    """Optimizer steps between evaluations; 0: never."""
    utterances: PositiveInt = 64
    """Utterances of the dev split, spread over its language pairs."""
    examples: NonNegativeInt = 3
    """Examples printed at each evaluation."""
    batch_size: PositiveInt = 32
    """Utterances decoded together."""
    early_stopping_patience: NonNegativeInt = 0
    """Stop after this many evaluations without a higher dev text BLEU, not counting those before the schedule's end,
    and keep the best checkpoint; 0: never."""

    def check(self) -> None:
        """Raise InputError where early stopping has nothing to go by."""
        if self.early_stopping_patience and not self.eval_steps:
            raise InputError("evaluation.early_stopping_patience: needs evaluations; set eval_steps above 0")


@dataclass
class LmSettings(Settings):
    """Settings of one system: how the language model is fine-tuned on speech."""

    pretrained: str | None = None
    """Folder or hub name of any causal LM; null takes the run's own small text LM."""
    schedule: ScheduleSettings = field(default_factory=ScheduleSettings)
    interleave: InterleaveSettings = field(default_factory=InterleaveSettings)
    train_pairs: PositiveNumber | None = None
    """Training pairs of each source language, chosen by their ids: a fraction up to 1, a number above; null: all.
    Encoder, codebook, text LM and vocoder use all of them."""
    tasks: dict[Task, NonNegativeNumber] = field(default_factory=lambda: {"s2st": 1.0})
    """Weight of each task in the mixture: s2st, s2tt, asr, mt, tts, direct."""
    texts: Texts = "normalized"
    """How transcript, translation and interleaved words are written: natural (as the corpus has them, cased and
    punctuated) or normalized (lower case, numbers in words, no punctuation)."""
    unit_noise: dict[SpeechSegment, RatioBelowOne] = field(default_factory=dict, metadata=LATER)
    """Fraction of the units (source, target) that are replaced by random ones in what the model reads in training; what
    it has to predict stays the same. This keeps the model from memorizing a small amount of speech."""
    deduplicate: bool = False
    """Merge repeated units; the vocoder then needs a duration predictor."""
    language_temperature: PositiveNumber = 1.0
    """Sampling temperature over language pairs; above 1, pairs with little data are sampled more often."""
    extra_text: str | None = None
    """Table (TSV, CSV, JSON Lines, Parquet) of parallel text for mt: src_lang, tgt_lang, src_text, tgt_text."""
    extra_text_ratio: RatioBelowOne = 0.2
    """Fraction of the training examples that are extra text."""
    max_tokens: PositiveInt | None = None
    """Maximum tokens of a sequence, counted with all speech as units; null takes the model's own maximum."""
    overlong: Literal["drop", "truncate"] = "drop"
    """What happens to longer sequences."""
    embedding_init: Literal["mean", "aligned"] = "mean"
    """Initial embeddings of the units: mean (that of all text tokens) or aligned (that of the words at each unit)."""
    trim_vocabulary: bool = False
    """Keep only the text tokens that the corpus uses: for small machines."""
    lora: LoraSettings | None = None
    """Train low-rank updates only (rank, alpha, dropout, target_modules); null trains all weights."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    training: LmTraining = field(default_factory=LmTraining)

    @property
    def from_speech(self) -> bool:
        """Whether the tasks make a model that takes speech, and gives speech or text."""
        return any(self.tasks.get(task, 0) > 0 for task in FROM_SPEECH)

    @property
    def speech_to_speech(self) -> bool:
        """Whether the tasks make a model that translates speech into speech."""
        return any(self.tasks.get(task, 0) > 0 for task in SPEECH_TO_SPEECH)

    def check(self) -> None:
        """Raise InputError for settings that contradict each other."""
        trained = [task for task, weight in self.tasks.items() if weight > 0]
        if not trained:
            raise InputError("tasks: at least one task needs a weight above 0")
        weights = self.training.loss_weights
        if not any(getattr(weights, segment) > 0 for task in trained for segment in TASK_SEGMENTS[task]):
            raise InputError("training.loss_weights: give weight to a segment that the tasks predict")
        sharded = self.training.fsdp or self.training.deepspeed
        if self.evaluation.early_stopping_patience and sharded:
            raise InputError("evaluation.early_stopping_patience: cannot be used with fsdp or deepspeed")
        if self.schedule.shape == "adaptive" and (sharded or self.training.dataloader_num_workers):
            raise InputError("schedule.shape: 'adaptive' cannot be used with fsdp, deepspeed or dataloader workers")
        if self.embedding_init == "aligned" and self.interleave.boundaries == "uniform":
            raise InputError("embedding_init: 'aligned' needs the alignment, but interleave.boundaries is 'uniform'")
        if self.max_tokens is not None and self.max_tokens < MIN_TOKENS:
            raise InputError(f"max_tokens: must be at least {MIN_TOKENS} (got {self.max_tokens})")
