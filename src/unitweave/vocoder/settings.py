"""The settings of `unitweave vocoder train`."""

from dataclasses import dataclass
from typing import Literal

from unitweave.core.errors import InputError


@dataclass
class VocoderSettings:
    """How to train a unit vocoder."""

    generator: Literal["vocos", "hifigan"] = "vocos"  # "vocos" (fast, the default) or "hifigan" (the paper's)
    excitation: Literal["harmonic", "none"] = "harmonic"  # of "vocos": "harmonic" (pulse train and noise, shaped by
    # the network; clear after minutes) or "none" (magnitude and phase outright; wants the adversarial part)
    side: Literal["tgt", "src"] = "tgt"  # "tgt" or "src": whose voice to learn
    steps: int = 400  # optimizer steps
    batch: int = 16  # segments in a step, over all processes
    segment_frames: int = 64  # frames (50 a second) in a segment
    optimizer: Literal["adam", "muon"] = "muon"  # of the generator: "muon" (Muon on the matrices of the Vocos layers,
    # AdamW on all else; learns two to three times as fast) or "adam" (AdamW; as published)
    learning_rate: float = 2e-3  # peak of the generator's, after the warm-up; falls along a cosine to a twentieth
    warmup_steps: int = 20  # steps over which the learning rate rises from 0
    adversarial_from: int | None = None  # step from which discriminators take part; null: never
    discriminator_learning_rate: float = 2e-4  # learning rate of the discriminators
    discriminator_channels: int = 16  # their width (32 is HiFi-GAN's own)
    spectral_weight: float = 1.0  # weight of the mel and multi-resolution STFT losses
    matching_weight: float = 0.1  # weight of the feature-matching loss, from adversarial_from on
    pitch_weight: float = 1.0  # weight of the pitch loss ("harmonic" only)
    dim: int = 256  # channels of the unit embedding and of the Vocos layers
    hidden: int = 768  # channels inside a ConvNeXt block
    layers: int = 4  # ConvNeXt blocks at 50 frames a second
    fine_layers: int = 2  # ConvNeXt blocks at 100 frames a second
    hifigan_channels: int = 512  # channels of HiFi-GAN (512 is its V1, 128 its V2)
    speakers: bool = False  # learn one voice for each speaker of the manifest instead of a single one
    durations: bool = False  # also train a duration predictor, for deduplicated units
    bf16: bool = False  # compute in bfloat16 where that is safe
    checkpoint_every: int = 200  # steps between checkpoints, from which an interrupted training goes on
    seed: int = 0  # of weights and batches


def check_settings(settings: VocoderSettings) -> None:
    """Raise InputError for numbers that cannot be."""
    for name in ("steps", "batch", "segment_frames", "checkpoint_every"):
        if getattr(settings, name) < 1:
            raise InputError(f"vocoder.{name} {getattr(settings, name)} must be at least 1")
    if settings.learning_rate <= 0:
        raise InputError(f"vocoder.learning_rate {settings.learning_rate} must be above 0")
