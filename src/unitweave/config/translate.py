"""Settings of translation: decoding, and the segmentation of long recordings."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from unitweave.config.types import NonNegativeNumber, OneOrMore, PositiveInt, Ratio, Seed, Settings
from unitweave.core.errors import InputError
from unitweave.core.functions import is_installed


@dataclass
class DecodingSettings(Settings):
    """How translations are decoded."""

    batch_size: PositiveInt = 32
    """Utterances decoded together."""
    num_beams: PositiveInt = 1
    """Beams of the search over transcript and translation; 1 is greedy decoding."""
    length_penalty: float = 1.0
    """A beam's log-probability is divided by its length to this power."""
    temperature: NonNegativeNumber = 0.0
    """Sampling temperature of the units; 0 takes the most probable unit."""
    target_language: str | None = None
    """Language to translate into; null: the only one that the model knows for a recording's language."""
    text_only: bool = False
    """Stop after the translation; no speech."""
    max_text_tokens_per_second: NonNegativeNumber = 12.0
    """Maximum text tokens per second of source speech, plus 16."""
    max_units_per_frame: NonNegativeNumber = 2.5
    """Maximum target units per source unit, plus one second of them."""
    max_unit_repeats: PositiveInt = 60
    """Maximum repetitions of one unit in a row at 50 units a second (60 are 1.2 s); in proportion at other rates."""
    seed: Seed = 1
    """Seed of the sampling of units."""
    speaker: str | None = None
    """Voice, where the vocoder has several; null: its first."""


@dataclass
class TranslateSettings(DecodingSettings):
    """How the test split is translated."""

    engine: Literal["local", "vllm"] = "local"
    """What runs the language model: local (transformers) or vllm (needs the package vllm and a GPU)."""
    shard_size: PositiveInt = 512
    """Utterances per shard; the most that an interrupted translation loses."""

    def check(self) -> None:
        """Raise InputError for an engine that is not there, or that cannot do what is asked of it."""
        if self.engine == "vllm" and self.num_beams > 1:
            raise InputError("engine: vllm has no beam search over the texts; set num_beams: 1 or engine: local")
        if self.engine == "vllm" and not is_installed("vllm"):
            raise InputError("engine: vllm needs the package vllm: pip install vllm")

    def in_fingerprint(self) -> dict[str, Any]:
        """The settings that the translations depend on; with others changed, an interrupted one still goes on."""
        counted = asdict(self)
        del counted["shard_size"]
        if self.engine == "local":
            del counted["engine"]
        return counted

    @property
    def decoding(self) -> DecodingSettings:
        """What of this also holds for single recordings."""
        return DecodingSettings(**{entry.name: getattr(self, entry.name) for entry in fields(DecodingSettings)})


@dataclass
class SegmentationSettings(Settings):
    """How a long recording is cut into utterances, by the probability of speech."""

    threshold: Ratio = 0.5
    """Probability above which speech begins; it ends 0.15 below that."""
    min_speech_seconds: NonNegativeNumber = 0.2
    """Minimum seconds of speech; shorter sounds are left out."""
    min_silence_seconds: NonNegativeNumber = 0.4
    """Minimum seconds of silence that end an utterance."""
    speech_pad_seconds: NonNegativeNumber = 0.12
    """Seconds kept before and after an utterance."""
    max_speech_seconds: OneOrMore = 20.0
    """Maximum seconds of an utterance; a longer one is cut in its longest pause, or, without one, at the maximum."""
