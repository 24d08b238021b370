"""Settings of the vocoder."""

from dataclasses import dataclass, field
from typing import Literal

from unitweave.config.training import VocoderTraining
from unitweave.config.types import NonNegativeInt, NonNegativeNumber, PositiveInt, PositiveNumber, Settings


@dataclass
class VocoderSettings(Settings):
    """Settings of the unit vocoder and its training."""

    generator: Literal["vocos", "hifigan"] = "vocos"
    """vocos (fast) or hifigan (the paper's)."""
    excitation: Literal["harmonic", "none"] = "harmonic"
    """vocos: harmonic (a pulse train and noise, shaped by the network; clear after minutes of training) or none
    (magnitude and phase are predicted directly; needs adversarial training)."""
    side: Literal["tgt", "src"] = "tgt"
    """Whose voice is learned: that of the target or of the source recordings."""
    multi_speaker: bool = False
    """Learn one voice for each speaker of the manifest instead of a single one."""
    duration_predictor: bool = False
    """Also train a duration predictor, for deduplicated units."""
    segment_frames: PositiveInt = 64
    """Frames (50 a second) of a training segment."""
    adversarial_start_step: NonNegativeInt | None = None
    """Optimizer step from which on discriminators take part; null: never."""
    discriminator_learning_rate: PositiveNumber = 2e-4
    """Learning rate of the discriminators."""
    discriminator_channels: PositiveInt = 16
    """Width of the discriminators (32 is HiFi-GAN's own)."""
    spectral_weight: NonNegativeNumber = 1.0
    """Weight of the mel and multi-resolution STFT losses."""
    feature_matching_weight: NonNegativeNumber = 0.1
    """Weight of the feature-matching loss, during adversarial training."""
    pitch_weight: NonNegativeNumber = 1.0
    """Weight of the pitch loss (harmonic excitation only)."""
    dim: PositiveInt = 256
    """Channels of the unit embedding and of the Vocos layers."""
    intermediate_dim: PositiveInt = 768
    """Channels inside a ConvNeXt block."""
    layers: PositiveInt = 4
    """ConvNeXt blocks at 50 frames a second."""
    fine_layers: NonNegativeInt = 2
    """ConvNeXt blocks at 100 frames a second."""
    hifigan_channels: PositiveInt = 512
    """Channels of HiFi-GAN (512 is its V1, 128 its V2)."""
    training: VocoderTraining = field(
        default_factory=lambda: VocoderTraining(
            steps=400,
            optimizer="muon",
            learning_rate=2e-3,
            warmup_ratio=0.05,
            weight_decay=0.01,
            precision="fp32",
            seed=0,
        )
    )
