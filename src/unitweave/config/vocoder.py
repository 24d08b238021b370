"""Settings of the vocoder."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unitweave.config.training import VocoderTraining
from unitweave.config.types import LATER, NonNegativeInt, NonNegativeNumber, PositiveInt, PositiveNumber, Settings
from unitweave.core.choices import choices
from unitweave.core.errors import InputError

GENERATORS = "vocoder/generators"  # each file there is one
BUILT_IN_GENERATORS = choices(GENERATORS, "vocos")
if TYPE_CHECKING:
    GeneratorName = str
else:
    GeneratorName = Literal[BUILT_IN_GENERATORS]


@dataclass
class VocoderSettings(Settings):
    """Settings of the unit vocoder and its training."""

    pretrained: str | None = field(default=None, metadata=LATER)
    """A vocoder to use instead of training one: a folder that unitweave wrote, or a checkpoint of fairseq's unit
    HiFi-GAN with its config.json beside it."""
    function: str | None = field(default=None, metadata=LATER)
    """MODULE:NAME of a Python function to use instead: called with `options`, it returns a function that turns units
    (int64 [frames]) and a speaker's name into a waveform (float32 [samples] at `sample_rate`)."""
    options: dict[str, Any] = field(default_factory=dict, metadata=LATER)
    """Keyword arguments of `function`."""
    speakers: list[str] = field(default_factory=list, metadata=LATER)
    """Names of the voices of `function`; empty for a single one."""
    generator: GeneratorName = "vocos"
    """vocos (fast) or hifigan (the paper's)."""
    excitation: Literal["harmonic", "none"] = "harmonic"
    """vocos: harmonic (a pulse train and noise, shaped by the network; clear after minutes of training) or none
    (magnitude and phase are predicted directly; needs adversarial training)."""
    side: Literal["tgt", "src"] = "tgt"
    """Whose voice is learned: that of the target or of the source recordings."""
    multi_speaker: bool = False
    """Learn one voice for each speaker of the manifest instead of a single one."""
    duration_predictor: bool = False
    """Also train a duration predictor, for deduplicated units; with `function`: whether it takes deduplicated units."""
    sample_rate: PositiveInt = field(default=16_000, metadata=LATER)
    """Sampling rate of the speech in Hz, a multiple of the units' frame rate: 16000, 22050, 24000, ..."""
    segment_frames: PositiveInt = 64
    """Units of a training segment (64 are 1.3 s at 50 units a second); at most those of the longest utterance."""
    adversarial_start_step: NonNegativeInt | None = None
    """Optimizer step from which discriminators take part; null: never."""
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
    """ConvNeXt blocks at the frame rate of the units."""
    fine_layers: NonNegativeInt = 2
    """ConvNeXt blocks at about 100 frames a second."""
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

    @property
    def from_elsewhere(self) -> bool:
        """Whether the vocoder is one that is there already."""
        return self.pretrained is not None or self.function is not None

    def check(self) -> None:
        """Raise InputError where two vocoders are named."""
        if self.pretrained is not None and self.function is not None:
            raise InputError("pretrained: set pretrained or function, not both")
