"""Settings of the corpus: where it comes from, and how speech is synthesized."""

from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, ClassVar, Literal

from unitweave.config.types import (
    NonNegativeInt,
    NonNegativeNumber,
    PositiveInt,
    PositiveNumber,
    Ratio,
    RatioBelowOne,
    Seed,
    Settings,
)
from unitweave.core.errors import InputError
from unitweave.core.languages import is_language_code, language_code

Split = Literal["train", "dev", "test"]
SpeechEngineName = Literal["pico", "espeak", "kokoro"]
MIN_NOISE_DB = 5.0
_LATER = (
    "directions", "speakers", "noise_spread_db", "level_db", "recordings",
    "engines", "target_engine", "target_voice", "kokoro", "kokoro_voices",
)  # fmt: skip


def _field_default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


@dataclass
class SynthesisSettings(Settings):
    """What both synthesized corpora have in common."""

    languages: list[str] = field(default_factory=lambda: ["es"])
    """Source languages, as ISO 639-1 codes: es, fr, de or it, with Kokoro also pt; the target is English."""
    directions: list[str] = field(default_factory=list)
    """Directions such as en-es or es-fr, among en, es, fr, de and it, in place of `languages` into English."""
    train: PositiveInt | dict[str, PositiveInt] | None = None
    """Utterance pairs for training per source language or direction, or a mapping of these to numbers; null for all."""
    dev: NonNegativeInt = 100
    """Utterance pairs for validation, the same sentences in every language."""
    test: NonNegativeInt = 200
    """Utterance pairs for testing, the same sentences in every language."""
    seed: Seed = 0
    """Seed of sentences or split, speakers, pitch, speed and noise."""
    unseen_speaker_ratio: Ratio = 0.5
    """Fraction of the dev and test recordings whose speaker never occurs in training."""
    speakers: Literal["few", "many"] = "few"
    """few: 15 training speakers of the two engines that are easily understood; many: 60, with eSpeak's other voices."""
    engines: list[SpeechEngineName] = field(default_factory=lambda: ["pico", "espeak"])
    """Engines whose voices speak the sources: pico, espeak, kokoro. Kokoro sounds human; on one core it takes about
    as long as its speech lasts."""
    target_engine: Literal["pico", "kokoro"] = "pico"
    """Whose voice speaks the translations."""
    target_voice: str | None = None
    """That voice, by the engine's own name; null: the engine's first voice of the language."""
    kokoro: str | None = None
    """Folder that 'unitweave fetch kokoro' wrote."""
    kokoro_voices: list[str] = field(default_factory=list)
    """Which of Kokoro's voices speak the sources, such as ef_dora; empty: all of the language. Every fourth one (of
    two or three: the last) is kept for dev and test."""
    noise_db: float | None = 40.0
    """Signal-to-noise ratio of the source recordings in dB, each within `noise_spread_db` of it; null for clean
    speech."""
    noise_spread_db: NonNegativeNumber = MIN_NOISE_DB
    """Maximum distance of a recording's ratio from `noise_db`, in dB."""
    level_db: NonNegativeNumber = 0.0
    """Each source recording is attenuated by a random amount of up to this many dB."""
    workers: NonNegativeInt = 0
    """Processes that synthesize; 0: one per core. Their number does not change the speech."""

    key: ClassVar[str]

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """Source and target language of each direction."""
        named = [(source, target) for source, _, target in (direction.partition("-") for direction in self.directions)]
        named = named or [(language, "en") for language in self.languages]
        return [(language_code(source), language_code(target)) for source, target in named]

    @property
    def worded(self) -> list[str]:
        """The languages other than English of all directions."""
        return list(dict.fromkeys(code for pair in self.pairs for code in pair if code != "en"))

    @property
    def names(self) -> list[str]:
        """What `train` may name: the directions or, without any, the languages."""
        return self.directions or self.languages

    def train_size(self, name: str) -> int | None:
        """Maximum training pairs of one of `names`; None for all."""
        return self.train.get(name) if isinstance(self.train, dict) else self.train

    def counted(self) -> dict[str, Any]:
        """The settings as they count for the result, less those that came later and have their defaults."""
        return {
            field.name: value
            for field in fields(self)
            if (value := getattr(self, field.name)) != _field_default(field) or field.name not in _LATER
        }

    def check(self) -> None:
        """Raise InputError for languages or noise that cannot be used."""
        if not self.languages or len(set(self.languages)) < len(self.languages):
            raise InputError(f"{self.key}.languages: must be one or more different languages (got {self.languages})")
        if (
            len(set(self.pairs)) < len(self.pairs)
            or any(
                direction.count("-") != 1 for direction in self.directions
            )  # in es-en-fr, en-fr would be taken for a regional English
            or not all(is_language_code(code) for pair in self.pairs for code in pair)
        ):
            if not self.directions:
                raise InputError(f"{self.key}.languages: must be different languages such as es (got {self.languages})")
            raise InputError(
                f"{self.key}.directions: must be different pairs of languages such as en-es (got {self.directions})"
            )
        if isinstance(self.train, dict) and (unknown := sorted(set(self.train) - set(self.names))):
            raise InputError(f"{self.key}.train: {unknown[0]!r} is not one of {', '.join(self.names)}")
        if not self.engines or len(set(self.engines)) < len(self.engines):
            raise InputError(f"{self.key}.engines: must be one or more different engines (got {self.engines})")
        if "kokoro" in (*self.engines, self.target_engine) and not self.kokoro:
            raise InputError(f"{self.key}.kokoro: name the folder that 'unitweave fetch kokoro' wrote")
        min_db = max(MIN_NOISE_DB, self.noise_spread_db)
        if self.noise_db is not None and not min_db <= self.noise_db < float("inf"):
            raise InputError(f"{self.key}.noise_db: must be at least {min_db:g} dB, or null (got {self.noise_db})")


@dataclass
class EmbeddedCorpus(SynthesisSettings):
    """Settings of the embedded corpus: sentences of the phrasebook, synthesized on this machine."""

    train: PositiveInt | dict[str, PositiveInt] = 3000
    """Utterance pairs for training per source language or direction, or a mapping of these to numbers."""
    topics: list[str] | None = None
    """What the sentences are about (food, travel, ...; docs/phrasebook.md lists them); null for everything."""
    key = "embedded"

    def train_size(self, name: str) -> int:
        """Training pairs of one of `names`."""
        return self.train[name] if isinstance(self.train, dict) else self.train

    def check(self) -> None:
        """Raise InputError for languages or directions without a number of training pairs, too."""
        super().check()
        if isinstance(self.train, dict) and (missing := [name for name in self.names if name not in self.train]):
            raise InputError(f"{self.key}.train: no number for {missing[0]!r}")


@dataclass
class SynthesizedCorpus(SynthesisSettings):
    """Settings of a corpus that is synthesized from a table of your own parallel text."""

    text: str = ""
    """Table (TSV, CSV, JSON Lines, Parquet) of parallel text: the columns src_lang, tgt_lang, src_text, tgt_text."""
    recordings: str | None = None
    """Folder of a corpus of human recordings in the same directions, added with its own splits; missing target speech
    is synthesized in the voice of the other translations."""
    key = "synthesized"

    def check(self) -> None:
        """Raise InputError without a text, too."""
        super().check()
        if not self.text:
            raise InputError("synthesized.text: name a table of parallel text")
        if same := [source for source, target in self.pairs if source == target]:
            raise InputError(f"synthesized.directions: source and target must differ (got {same[0]}-{same[0]})")
        if self.pivot is None:
            raise InputError(
                f"synthesized.directions: must have a language in common, by which the sentences are told apart (got "
                f"{', '.join(self.directions)})"
            )

    @property
    def pivot(self) -> str | None:
        """A language that all directions have; English, where it is one."""
        common = set.intersection(*map(set, self.pairs))
        return "en" if "en" in common else next((code for code in self.pairs[0][::-1] if code in common), None)


@dataclass
class SpeakSettings(Settings):
    """How the missing speech of a corpus is made."""

    engine: Literal["pico", "espeak", "kokoro", "piper", "command", "function"] = "pico"
    """pico and espeak come with the extra 'demo', kokoro with 'unitweave fetch kokoro'; install piper yourself; command
    and function run a shell command or a Python function of yours."""
    side: Literal["target", "source"] = "target"
    """Which side of the pairs is synthesized where it has no recording."""
    voice: str | None = None
    """Voice, by the engine's own name; null: the engine's first voice of the language."""
    model: str | None = None
    """kokoro: its folder; piper: the voice's .onnx file; command: the value of {model}."""
    command: str | None = None
    """command: a shell command that writes the audio file {out}. It reads the text from standard input, and may name
    {text}, {language}, {voice} and {model}, which are quoted for the shell."""
    function: str | None = None
    """function: MODULE:NAME of a Python function of (text, language) that returns samples at 16 kHz,
    (samples, rate), or the bytes of an audio file."""
    workers: NonNegativeInt = 0
    """Parallel processes or commands; 0: one per core."""


@dataclass
class CorpusSettings(Settings):
    """Where the corpus comes from: set one of manifest, embedded and synthesized."""

    manifest: str | None = None
    """Folder with a manifest that a 'unitweave corpus' command wrote."""
    speak: SpeakSettings | None = None
    """How to synthesize speech that the manifest's pairs lack, as 'unitweave corpus speak' does; null: not at all."""
    embedded: EmbeddedCorpus | None = None
    """Sentences of the embedded phrasebook, synthesized on this machine; no download."""
    synthesized: SynthesizedCorpus | None = None
    """A table of your own parallel text, synthesized by the same engines."""


@dataclass
class RowLimits(Settings):
    """Which rows of a user's data are too odd to be used."""

    min_seconds: NonNegativeNumber = 0.1
    """Shorter recordings are skipped."""
    max_seconds: PositiveNumber = 60.0
    """Longer recordings are skipped."""
    max_letters_per_second: PositiveNumber = 40.0
    """Rows with more letters per second of their recording are skipped."""
    min_letters_per_second: NonNegativeNumber = 0.2
    """Rows with fewer letters per second of their recording are skipped."""


@dataclass
class CvssCorpus(Settings):
    """Settings of `unitweave corpus cvss`."""

    cvss: list[str]
    """CVSS-C archives (cvss_c_XX_en_v1.0.tar.gz), unpacked ones, or folders of either."""
    covost: list[str]
    """CoVoST 2 tables and Common Voice clips: tsv files, folders, archives, a folder in the parquet layout of
    fixie-ai/covost2, or that name for the hub."""
    out: str
    """The corpus folder."""
    common_voice: list[str] = field(default_factory=list)
    """Further Common Voice clips: archives (fr.tar.gz) or folders."""
    languages: list[str] = field(default_factory=list)
    """Source languages, ISO 639-1 (default: all that CVSS-C is given for)."""
    splits: list[Split] = field(default_factory=lambda: ["train", "dev", "test"])
    """Splits to take."""
    workers: NonNegativeInt = 0
    """Threads that decode; 0: one per core."""
    allow_skipped: bool = False
    """Continue even if less than half of a language is usable."""


@dataclass
class TableCorpus(Settings):
    """Settings of `unitweave corpus table`."""

    table: list[str]
    """CSV, TSV, JSON Lines, Parquet or spreadsheet files, or folders of Kaldi, LibriSpeech, MuST-C or FLEURS."""
    out: str
    """The corpus folder."""
    join: str | None = None
    """A second table or such a folder to join to the tables; its column NAME is then called joined.NAME."""
    on: str | None = None
    """Column to join by, or COLUMN=ITS COLUMN where the names differ (default: sentence, id or path)."""
    audio_root: str | None = None
    """Folder that relative paths start from (default: the table's folder)."""
    encoding: str = "utf-8"
    """Encoding of text tables without a byte order mark."""
    quoted: Literal["auto", "yes", "no"] = "auto"
    """Whether fields may be quoted with double quotes; auto: in .csv files, and where all
    names in the header are quoted."""
    workers: NonNegativeInt = 0
    """Threads that decode; 0: one per core."""
    allow_skipped: bool = False
    """Continue even if less than half of a language is usable."""


@dataclass
class HubCorpus(Settings):
    """Settings of `unitweave corpus hub`."""

    dataset: str
    """Name on the hub, or a local folder."""
    out: str
    """The corpus folder."""
    config: str | None = None
    """Configuration of the dataset."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    splits: list[str] = field(default_factory=list)
    """Splits, each as NAME or NAME=train|dev|test (default: those with a usual name, such as validation)."""
    workers: NonNegativeInt = 0
    """Threads that decode; 0: one per core."""
    allow_skipped: bool = False
    """Continue even if less than half of a language is usable."""


@dataclass
class Columns(Settings):
    """Which columns of a table hold what. A column that has the manifest's name for it need not be given."""

    src_audio: str | None = None
    """Column with the source recording."""
    tgt_audio: str | None = None
    """Column with the target recording."""
    src_start: str | None = None
    """Column with the start of the source in its recording, in seconds or as 1:23.5, where each row is a part of a
    longer recording."""
    src_end: str | None = None
    """Column with the end of the source in its recording."""
    src_duration: str | None = None
    """Column with the duration of the source, in place of its end."""
    tgt_start: str | None = None
    """Column with the start of the translation in its recording."""
    tgt_end: str | None = None
    """Column with the end of the translation in its recording."""
    tgt_duration: str | None = None
    """Column with the duration of the translation, in place of its end."""
    src_text: str | None = None
    """Column with the source transcript."""
    tgt_text: str | None = None
    """Column with the translation."""
    id: str | None = None
    """Column with a unique name of the pair (default: rows are numbered)."""
    speaker: str | None = None
    """Column with the speaker of the source recording."""
    split: str | None = None
    """Column with train, dev or test (default: the tables' names, where there are several and each tells; else drawn at
    random, with the ratios below)."""
    lacks_text: str | None = None
    """Column that says which side has no text: source, target or both."""
    src_lang: str | None = None
    """Source language of all rows, ISO 639-1."""
    tgt_lang: str | None = None
    """Target language of all rows, ISO 639-1."""
    src_lang_column: str | None = None
    """Column with the source language of each row."""
    tgt_lang_column: str | None = None
    """Column with the target language of each row."""
    dev_ratio: RatioBelowOne = 0.05
    """Fraction of the rows for validation where no column gives the split."""
    test_ratio: RatioBelowOne = 0.05
    """Fraction of the rows for testing where no column gives the split."""
    split_by: Literal["text", "speaker", "id"] = "text"
    """What is kept in one split: rows of the same text, of the same speaker, or only of the same id."""
    seed: Seed = 0
    """Seed of the drawn splits."""

    def check(self) -> None:
        """Raise InputError where the ratios leave nothing to train on, or an end or duration has no beginning."""
        for side in ("src", "tgt"):
            start, end, duration = (getattr(self, f"{side}_{time}") for time in ("start", "end", "duration"))
            if (end or duration) and not start:
                raise InputError(
                    f"{side}_{'end' if end else 'duration'}: needs the column with the start, {side}_start"
                )
            if end and duration:
                raise InputError(f"{side}_end: name the column of the end or that of the duration")
        if self.dev_ratio + self.test_ratio >= 1:
            raise InputError(
                f"dev_ratio: {self.dev_ratio:g} and a test_ratio of {self.test_ratio:g} leave nothing to train on"
            )
