"""Settings of the corpus: where it comes from, and how speech is synthesized."""

from dataclasses import dataclass, field
from typing import ClassVar

from unitweave.config.types import NonNegativeInt, PositiveInt, Ratio, Seed, Settings
from unitweave.core.errors import InputError

MIN_NOISE_DB = 5.0


@dataclass
class SynthesisSettings(Settings):
    """What both synthesized corpora have in common."""

    languages: list[str] = field(default_factory=lambda: ["es"])
    """Source languages, ISO 639-1, of es, fr, de and it."""
    train: PositiveInt | dict[str, PositiveInt] | None = None
    """Utterance pairs for training per language, or a mapping language -> number; null for all that there are."""
    dev: NonNegativeInt = 100
    """Utterance pairs for validation, the same sentences in every language."""
    test: NonNegativeInt = 200
    """Utterance pairs for testing, the same sentences in every language."""
    seed: Seed = 0
    """Seed of sentences or split, speakers, pitch, speed and noise."""
    unseen_speaker_ratio: Ratio = 0.5
    """Fraction of the dev and test recordings whose speaker never occurs in training."""
    noise_db: float | None = 40.0
    """Signal-to-noise ratio of the source recordings in dB, each within 5 dB of it; null for clean speech."""
    workers: NonNegativeInt = 0
    """Processes that synthesize; 0: one per core. Their number changes no sample."""

    key: ClassVar[str]

    def train_size(self, language: str) -> int | None:
        """Maximum training pairs of one language; None for all."""
        return self.train.get(language) if isinstance(self.train, dict) else self.train

    def check(self) -> None:
        """Raise InputError for languages or noise that cannot be used."""
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise InputError(f"{self.key}.languages: must be one or more different languages (got {self.languages})")
        if isinstance(self.train, dict) and (unknown := sorted(set(self.train) - set(self.languages))):
            raise InputError(f"{self.key}.train: {unknown[0]!r} is not among the languages")
        if self.noise_db is not None and not MIN_NOISE_DB <= self.noise_db < float("inf"):
            raise InputError(
                f"{self.key}.noise_db: must be at least {MIN_NOISE_DB:g} dB, or null (got {self.noise_db})"
            )


@dataclass
class EmbeddedCorpus(SynthesisSettings):
    """Settings of the embedded corpus: sentences of the phrasebook, synthesized on this machine."""

    train: PositiveInt | dict[str, PositiveInt] = 3000
    """Utterance pairs for training per language, or a mapping language -> number."""
    topics: list[str] | None = None
    """What the sentences are about (food, travel, ...; docs/phrasebook.md lists them); null for everything."""
    key = "embedded"

    def train_size(self, language: str) -> int:
        """Training pairs of one language."""
        return self.train[language] if isinstance(self.train, dict) else self.train

    def check(self) -> None:
        """Raise InputError for languages without a number of training pairs, too."""
        super().check()
        if isinstance(self.train, dict) and (missing := [code for code in self.languages if code not in self.train]):
            raise InputError(f"{self.key}.train: no number for the language {missing[0]!r}")


@dataclass
class SynthesizedCorpus(SynthesisSettings):
    """Settings of a corpus that is synthesized from a table of your own parallel text."""

    text: str = ""
    """TSV or Parquet file of parallel text into English: the columns src_lang, tgt_lang, src_text, tgt_text."""
    key = "synthesized"

    def check(self) -> None:
        """Raise InputError without a text, too."""
        super().check()
        if not self.text:
            raise InputError("synthesized.text: name a table of parallel text")


@dataclass
class CorpusSettings(Settings):
    """Where the corpus comes from: set one of these."""

    manifest: str | None = None
    """Folder with a manifest that a 'unitweave corpus' command wrote."""
    embedded: EmbeddedCorpus | None = None
    """Sentences of the embedded phrasebook, synthesized on this machine; no download."""
    synthesized: SynthesizedCorpus | None = None
    """A table of your own parallel text, synthesized by the same engines."""
