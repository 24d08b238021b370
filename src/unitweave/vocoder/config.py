"""The shape of a unit vocoder: the content of its config.json."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitweave.config.vocoder import BUILT_IN_GENERATORS, VocoderSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.distributed import num_processes
from unitweave.core.errors import InputError
from unitweave.core.functions import imported

EXCITATIONS = ("harmonic", "none")
FORMAT = 1
_MAX_LAYERS, _MAX_RATE = 1000, 1_000_000
_SAMPLE_RATES = (8_000, 16_000, 22_050, 24_000, 44_100, 48_000)  # that are in use


@dataclass
class UnitVocoderConfig:
    """Shape of a unit vocoder: units in, mono out; `sample_rate / hop` units a second.

    Attributes:
        num_units: Size of the codebook.
        codebook: Fingerprint of the codebook whose units it was trained on.
        generator: "vocos" (all layers at frame rate, inverse STFT at the end) or "hifigan" (transposed convolutions up
            to the sampling rate).
        dim: Channels of the unit embedding and of the Vocos layers.
        hidden: Channels inside a ConvNeXt block.
        layers: ConvNeXt blocks at the units' frame rate.
        fine_layers: ConvNeXt blocks after the step up to `upsample` frames for each unit.
        upsample: Spectral frames for each unit, about 100 a second (2 at 50 units a second).
        kernel: Frames that the depthwise convolution of a block sees.
        n_fft: Samples in the window of the inverse STFT; 4 hops of hop / upsample samples.
        excitation: What the predicted spectra shape: "harmonic" (a pulse train at the predicted pitch plus noise, as a
            source-filter vocoder has it) or "none" (magnitude and phase are predicted outright, as in Vocos).
        f0_mean: Mean pitch of the training speech in Hz, the starting point of the pitch head.
        hifigan_channels: Channels after HiFi-GAN's first convolution (512 is V1, 128 is V2).
        hifigan_rates: Its upsampling factors; their product is `hop`.
        hifigan_kernels: Kernel sizes of its residual blocks.
        hifigan_dilations: Dilations in each residual block.
        speakers: Names of the speakers it can imitate; empty for a single voice.
        durations: Whether it has a duration predictor, so that it takes deduplicated units.
        sample_rate: In Hz.
        hop: Samples for each unit.
        format: Version of this file.
    """

    num_units: int
    codebook: str = ""
    generator: str = "vocos"
    dim: int = 256
    hidden: int = 768
    layers: int = 4
    fine_layers: int = 2
    upsample: int = 2
    kernel: int = 7
    n_fft: int = 640
    excitation: str = "harmonic"
    f0_mean: float = 150.0
    hifigan_channels: int = 512
    hifigan_rates: tuple[int, ...] = (5, 4, 4, 2, 2)
    hifigan_kernels: tuple[int, ...] = (3, 7, 11)
    hifigan_dilations: tuple[int, ...] = (1, 3, 5)
    speakers: list[str] = field(default_factory=list)
    durations: bool = False
    sample_rate: int = SAMPLE_RATE
    hop: int = 320
    format: int = FORMAT

    def __post_init__(self) -> None:
        self.hifigan_rates = tuple(self.hifigan_rates)
        self.hifigan_kernels = tuple(self.hifigan_kernels)
        self.hifigan_dilations = tuple(self.hifigan_dilations)
        if self.generator not in BUILT_IN_GENERATORS:
            raise InputError(
                f"vocoder: generator must be one of {', '.join(BUILT_IN_GENERATORS)} (got {self.generator!r})"
            )
        if self.excitation not in EXCITATIONS:
            raise InputError(f"vocoder: excitation must be one of {', '.join(EXCITATIONS)} (got {self.excitation!r})")
        if max(self.layers, self.fine_layers) > _MAX_LAYERS:  # each costs time and memory, even without weights
            raise InputError(
                f"vocoder: layers must be at most {_MAX_LAYERS} (got {max(self.layers, self.fine_layers)})"
            )
        if self.hop % self.upsample or self.n_fft != 4 * self.hop // self.upsample:
            raise InputError(
                f"vocoder: n_fft must be 4 * {self.hop} / upsample (got {self.n_fft} with upsample {self.upsample})"
            )
        product = 1
        for rate in self.hifigan_rates:
            product *= rate
        if product != self.hop:
            raise InputError(f"vocoder: the product of hifigan_rates must be {self.hop} (got {product})")

    @property
    def frame_rate(self) -> float:
        """Units a second."""
        return self.sample_rate / self.hop

    @property
    def num_speakers(self) -> int:
        """Speakers to choose from; 0 for a single voice."""
        return len(self.speakers)


def timing(frame_rate: float, sample_rate: int) -> dict[str, Any]:
    """What follows from the rates: samples for each unit, spectral frames for each unit and HiFi-GAN's factors.

    Args:
        frame_rate: Units a second.
        sample_rate: Of the waveform, in Hz.

    Raises:
        InputError: A unit does not last a whole number of samples.
    """
    from unitweave.units.dataset import same_rate  # with pyarrow, which a translation does not need

    hop = round(sample_rate / frame_rate)
    if not hop or not same_rate(sample_rate / hop, frame_rate):
        fitting = [rate for rate in _SAMPLE_RATES if same_rate(rate / round(rate / frame_rate), frame_rate)]
        raise InputError(
            f"vocoder.sample_rate: must be a multiple of the units' {frame_rate:g} a second (got {sample_rate})"
            + (f"; {', '.join(map(str, fitting))} are" if fitting else "")
        )
    wanted = 100 / frame_rate
    upsample = min((u for u in range(1, hop + 1) if hop % u == 0), key=lambda u: (abs(u - wanted), -u))
    return {
        "sample_rate": sample_rate,
        "hop": hop,
        "upsample": upsample,
        "n_fft": 4 * hop // upsample,
        "hifigan_rates": _factors(hop),
    }


def _factors(hop: int) -> tuple[int, ...]:
    """Factors of `hop`, largest first: its prime factors, of which twos become fours as long as there are over five."""
    factors, divisor = [], 2
    while hop > 1:
        while hop % divisor == 0:
            factors.append(divisor)
            hop //= divisor
        divisor += 1
    while len(factors) > 5 and factors.count(2) > 1:
        factors.remove(2)
        factors.remove(2)
        factors.append(4)
    return tuple(sorted(factors, reverse=True))


def check_vocoder_exists(settings: VocoderSettings) -> None:
    """Raise InputError where the settings name a vocoder from elsewhere that is not there."""
    if settings.pretrained is not None and not Path(settings.pretrained).exists():
        raise InputError(f"vocoder.pretrained {settings.pretrained}: no such file or folder")
    if settings.function is not None:
        imported(settings.function, "vocoder.function")


def check_trainable(settings: VocoderSettings, units: Path) -> None:
    """Raise InputError where a vocoder that is to be trained could not be on a run's units."""
    from unitweave.units.dataset import read_units_metadata, units_per_second

    if settings.from_elsewhere:
        return
    metadata = read_units_metadata(units)
    if metadata.get("deduplicated"):
        raise InputError(f"{units}: a vocoder cannot be trained on units without repetitions; set vocoder.pretrained")
    timing(units_per_second(metadata), settings.sample_rate)


def check_shared_batch(settings: VocoderSettings) -> None:
    """Raise InputError where the processes of this call could not share the batches of a training alike."""
    if settings.training.batch_size % (processes := num_processes()):
        raise InputError(
            f"vocoder.training.batch_size: must be a multiple of the {processes} processes "
            f"(got {settings.training.batch_size})"
        )
