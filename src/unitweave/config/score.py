"""Settings of scoring, and of the cascades that are scored beside the systems."""

import re
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from unitweave.config.corpus import SpeakSettings
from unitweave.config.types import NonNegativeInt, Settings, must_be_one_of
from unitweave.core.choices import choices
from unitweave.core.errors import InputError

RECOGNIZERS = "score/asr/recognizers"  # each file there is one
BUILT_IN_RECOGNIZERS = choices(RECOGNIZERS, "moonshine")
if TYPE_CHECKING:
    RecognizerName = str
    CascadeEngine = str
else:
    RecognizerName = Literal[("auto", *BUILT_IN_RECOGNIZERS)]
    CascadeEngine = Literal[("auto", *BUILT_IN_RECOGNIZERS, "command", "function")]


@dataclass
class CascadeRecognizer(Settings):
    """The first part of a cascade: speech to text."""

    engine: CascadeEngine = "auto"
    """A recognizer of `score.recognizer` (auto: moonshine for English, a multilingual Whisper for all else), a shell
    command or a Python function."""
    model: str = ""
    """Folder or hub name of another checkpoint for the recognizer; empty: its own."""
    command: str | None = None
    """command: a shell command that prints the transcript of the file {audio} (wav, 16 kHz); it may name {language}."""
    function: str | None = None
    """function: MODULE:NAME of a Python function of (samples at 16 kHz, language) that returns the transcript."""


@dataclass
class CascadeTranslator(Settings):
    """The second part of a cascade: text to text."""

    engine: Literal["model", "command", "function"] = "model"
    """A translation model of transformers, a shell command or a Python function."""
    model: str = ""
    """model: folder or hub name, such as Helsinki-NLP/opus-mt-es-en or facebook/nllb-200-distilled-600M (Marian,
    M2M100, NLLB, mBART)."""
    command: str | None = None
    """command: a shell command that reads sentences on its standard input, one on each line, and prints the
    translation of each on a line; it may name {source} and {target}, the languages."""
    function: str | None = None
    """function: MODULE:NAME of a Python function of (sentences, source language, target language) that returns as
    many translations."""


@dataclass
class CascadeSettings(Settings):
    """A cascade of a recognizer, a translator and a speech engine, each of any make."""

    recognizer: CascadeRecognizer = field(default_factory=CascadeRecognizer)
    translator: CascadeTranslator = field(default_factory=CascadeTranslator)
    speech: SpeakSettings = field(default_factory=SpeakSettings)

    def check_named(self, name: str) -> None:
        """Raise InputError where a part of the cascade `name` lacks its model, command or function."""
        # Not in `check`: jsonargparse makes the parts with their defaults first.
        for key in ("recognizer", "translator"):
            part: CascadeRecognizer | CascadeTranslator = getattr(self, key)
            if part.engine in ("command", "function") and not getattr(part, part.engine):
                raise InputError(f"{name}.{key}.{part.engine}: must be given with the engine {part.engine!r}")
        if self.translator.engine == "model" and not self.translator.model:
            raise InputError(
                f"{name}.translator.model: name a translation model of transformers, or use the engine command or "
                "function"
            )
        command = self.recognizer.command
        if command and "{audio}" not in command:
            raise InputError(
                f"{name}.recognizer.command: must name the recording to transcribe as {{audio}} (got {command!r})"
            )


@dataclass
class ScoreSettings(Settings):
    """How the translated speech is scored."""

    recognizer: RecognizerName | str = "auto"
    """Speech recognizer with its text normalization: moonshine (offline, English), fairseq (wav2vec 2.0, English),
    whisper, or MODULE:CLASS of your own (docs/scoring.md); auto: moonshine for English, a multilingual Whisper for
    other target languages."""
    recognizer_model: str = ""
    """Folder or hub name of another checkpoint for the recognizer; empty: its own."""
    device: str = "auto"
    """Where a hub recognizer, UTMOS and a speaker model run: auto, cpu, cuda, ..."""
    bootstrap_samples: NonNegativeInt = 1000
    """Resamples for the 95 % intervals; 0 or 1: no intervals."""
    randomization_trials: NonNegativeInt = 10000
    """Trials of the approximate randomization test of each system against the first; 0: no test."""
    mos: list[Literal["dnsmos", "utmos"]] = field(default_factory=lambda: ["dnsmos"])
    """MOS predictors, dnsmos and utmos; one that is not installed is skipped."""
    mos_utterances: NonNegativeInt = 20
    """Utterances whose MOS is predicted, evenly spread over the test set; 0: all of them."""
    ceilings: bool = True
    """Also transcribe the reference speech and the resynthesized reference units."""
    examples: NonNegativeInt = 8
    """Utterances kept as audio for the report."""
    speaker_model: str = ""
    """Folder or hub name of a speaker-verification model of transformers (an x-vector class, such as
    microsoft/wavlm-base-plus-sv): how similar each voice is to the source's; empty: not measured."""
    speaker_function: str | None = None
    """Instead: MODULE:NAME of a Python function of samples at 16 kHz that returns a voice embedding."""
    comet: str = ""
    """COMET model for the ASR transcripts, such as Unbabel/wmt22-comet-da, or a checkpoint file; empty: no COMET."""
    comet_command: str = "comet-score"
    """The program of unbabel-comet, which needs an environment of its own, such as /opt/comet/bin/comet-score."""
    cascades: dict[str, CascadeSettings] = field(default_factory=dict)
    """Cascades that are scored beside the systems, by name."""

    def in_fingerprint(self) -> dict[str, Any]:
        """The settings as they count, without those that a later version added where they change nothing."""
        plain, added = asdict(self), ("speaker_model", "speaker_function", "comet", "cascades")
        where = () if self.comet else ("comet_command",)
        return {key: value for key, value in plain.items() if (key not in added or value) and key not in where}

    def check(self) -> None:
        """Raise InputError for no recognizer's name, two speaker embeddings, or a name that cannot be a folder's."""
        check_recognizer(self.recognizer)
        if self.speaker_model and self.speaker_function:
            raise InputError("speaker_model: set speaker_model or speaker_function, not both")
        for name, cascade in self.cascades.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise InputError(f"cascades.{name}: a cascade's name has letters, digits, - and _ only")
            cascade.check_named(f"cascades.{name}")


def check_recognizer(name: str) -> None:
    """Raise InputError where `name` is neither a built-in recognizer nor MODULE:CLASS."""
    names = ("auto", *BUILT_IN_RECOGNIZERS)
    if name not in names and not all(name.partition(":")):
        raise InputError(f"recognizer: {must_be_one_of([*names, 'MODULE:CLASS'], name)}")
