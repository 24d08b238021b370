"""Settings of the units: the speech encoder, the codebook and the extraction."""

from dataclasses import dataclass, field
from typing import Any, Literal

from unitweave.config.training import EncoderTraining, Precision
from unitweave.config.types import (
    LATER,
    NonNegativeInt,
    PositiveInt,
    PositiveNumber,
    Ratio,
    RatioBelowOne,
    Seed,
    Settings,
)
from unitweave.core.errors import InputError
from unitweave.core.functions import is_installed

MAX_UNITS = 2**16  # units are stored in 16 bits


@dataclass
class SmallEncoder(Settings):
    """Shape of an encoder that is trained from scratch, under transformers' names."""

    hidden_size: PositiveInt = 192
    """Width; a multiple of twice the number of heads."""
    num_hidden_layers: PositiveInt = 4
    """Conformer layers."""
    num_attention_heads: PositiveInt = 4
    """Attention heads of each layer."""
    intermediate_size: PositiveInt = 768
    """Width inside the feed-forward layers."""
    conv_depthwise_kernel_size: PositiveInt = 15
    """Width of the depthwise convolution in frames at 50 Hz; odd."""

    def check(self) -> None:
        """Raise InputError for a shape that no encoder can have."""
        if self.hidden_size % (2 * self.num_attention_heads):
            raise InputError(
                f"shape.hidden_size: must be a multiple of twice the number of heads, "
                f"{2 * self.num_attention_heads} (got {self.hidden_size})"
            )
        if self.conv_depthwise_kernel_size % 2 == 0:
            raise InputError(f"shape.conv_depthwise_kernel_size: must be odd (got {self.conv_depthwise_kernel_size})")


@dataclass
class EncoderSettings(Settings):
    """Settings of the speech encoder and its CTC training."""

    pretrained: str | None = None
    """Folder or hub name of a speech encoder that can carry a CTC head (wav2vec 2.0, HuBERT, WavLM, w2v-BERT, Whisper,
    ...); null trains an encoder of the given shape from scratch."""
    shape: SmallEncoder = field(default_factory=SmallEncoder)
    batch_seconds: PositiveNumber = 70.0
    """Seconds of speech in a batch of one process."""
    max_seconds: PositiveNumber = 30.0
    """Maximum seconds of a recording; longer ones are not trained on."""
    layerdrop: RatioBelowOne = 0.0
    """Probability that a layer is skipped in a training step."""
    spec_augment: bool = False
    """Mask spans of time and of hidden dimensions in training (SpecAugment)."""
    mask_time_prob: Ratio = 0.05
    """Fraction of the frames that SpecAugment masks, in spans of 10."""
    mask_feature_prob: Ratio = 0.0
    """Fraction of the hidden dimensions that SpecAugment masks, in spans of 10."""
    speed_perturbation: RatioBelowOne = field(default=0.0, metadata=LATER)
    """Read training recordings up to this much slower and lower, or faster and higher; 0.1: speeds from 0.9 to 1.1,
    drawn anew in each epoch. More voices where few people were recorded."""
    fold_accents: bool = field(default=False, metadata=LATER)
    """Leave acute accents and diaereses out of the CTC output (a for á, u for ü; ñ and ç stay), for a corpus in which
    only some transcripts have them."""
    freeze_convolutions: bool = True
    """Do not train a pretrained encoder's convolutions over the waveform (wav2vec 2.0 and its relatives have them)."""
    freeze_layers: NonNegativeInt = 0
    """Number of layers, counted from the input, that are not trained; what comes before them is not trained either."""
    head_learning_rate: PositiveNumber | None = None
    """Peak learning rate of the CTC output layer, which starts from random weights; null: that of the other layers."""
    eval_steps: NonNegativeInt = 0
    """Optimizer steps between evaluations (WER and CER on the dev split); 0: only at the end."""
    eval_recordings: PositiveInt = 500
    """Dev recordings per language in an evaluation during training."""
    early_stopping_patience: NonNegativeInt = 0
    """Stop after this many evaluations without a lower dev WER, and keep the best checkpoint; 0: never."""
    training: EncoderTraining = field(
        default_factory=lambda: EncoderTraining(
            steps=350,
            learning_rate=2e-3,
            warmup_ratio=0.1,
            weight_decay=0.01,
            lr_scheduler_type="cosine",
            save_steps=100,
        )
    )

    def check(self) -> None:
        """Raise InputError where early stopping has nothing to go by."""
        if self.early_stopping_patience and not self.eval_steps:
            raise InputError("early_stopping_patience: needs evaluations; set eval_steps above 0")


@dataclass
class CodebookSettings(Settings):
    """Settings of the k-means codebook."""

    num_units: PositiveInt = 500
    """Clusters, at most 65,536."""
    layer: PositiveInt = 3
    """Hidden layer of the encoder, counted from 1."""
    max_frames: PositiveInt = 200_000
    """Maximum frames for k-means, sampled evenly over languages and speakers of the train split; each takes 4 bytes
    x hidden size of memory (1,000,000 frames of 1,024 dimensions: 4 GB)."""
    max_iterations: PositiveInt = 20
    """Maximum iterations of k-means."""
    seed: Seed = 1
    """Seed of the sample and of the first centroids."""

    def check(self) -> None:
        """Raise InputError for more units than can be stored, or than frames that k-means may see."""
        if self.num_units > MAX_UNITS:
            raise InputError(f"num_units: must be at most {MAX_UNITS}, for 16-bit storage (got {self.num_units})")
        if self.max_frames < self.num_units:
            raise InputError(
                f"max_frames: must be at least num_units, better 100 times that (got {self.max_frames} frames for "
                f"{self.num_units} units)"
            )


@dataclass
class ExtractionSettings(Settings):
    """Settings of unit extraction. Only the precision changes the units, and the shard size their files."""

    tokenizer: str | None = None
    """MODULE:NAME of a Python function that returns a speech tokenizer, which makes the units in place of encoder and
    codebook (docs/units.md)."""
    tokenizer_options: dict[str, Any] = field(default_factory=dict)
    """Keyword arguments of `tokenizer`."""
    alignments: str | None = None
    """With `tokenizer`: folder of word times in src/ and tgt/ (CTM, TextGrid, JSON, CSV or Audacity labels); null lets
    the encoder align."""

    precision: Precision = "fp32"
    """fp32, or bf16 for the encoder's matrix products: faster, and a few units differ."""
    batch_seconds: PositiveNumber = 120.0
    """Seconds of speech that are read, encoded and aligned together."""
    shard_size: PositiveInt = 1000
    """Utterance pairs per file; the most that an interrupted extraction loses."""
    workers: NonNegativeInt = 0
    """Threads (with Ray: encoder actors); 0: one per core."""
    backend: Literal["local", "ray"] = "local"
    """local (this process) or ray (a Ray Data pipeline, which can span several machines)."""

    def check(self) -> None:
        """Raise InputError where Ray is asked for and not installed."""
        if self.backend == "ray" and not is_installed("ray"):
            raise InputError("backend: ray needs the package ray: pip install 'unitweave[ray]'")

    def in_fingerprint(self) -> dict[str, object]:
        """The settings that the shards depend on; with others changed, an interrupted extraction still resumes."""
        if self.tokenizer is not None:
            named = (self.tokenizer, self.tokenizer_options, self.alignments)
            return dict(zip(("tokenizer", "tokenizer_options", "alignments"), named, strict=True)) | {
                "shard_size": self.shard_size
            }
        return {"precision": self.precision, "shard_size": self.shard_size}


def check_layer(layer: int, blocks: int) -> None:
    """Raise InputError where an encoder of so many layers does not have the one that the codebook is made of."""
    if layer > blocks:
        raise InputError(f"codebook.layer: the encoder has layers 1 to {blocks} (got {layer})")
