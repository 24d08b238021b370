"""What scores.json and utterances.jsonl hold: everything that was measured, in types."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, read_json, write_json
from unitweave.core.records import from_json, read_records, to_json
from unitweave.core.stage import check_count
from unitweave.metrics.intervals import Interval
from unitweave.metrics.significance import SignificanceTest

SCORES_FILE = "scores.json"
UTTERANCES_FILE = "utterances.jsonl"
REFERENCE_SPEECH = "reference speech"
RESYNTHESIS = "resynthesized units"


@dataclass(frozen=True)
class Signature:
    """All that a score depends on besides the speech. Scores with unequal signatures are not comparable.

    Attributes:
        recognizer: Name and revision of the recognizer.
        normalizer: What both sides went through before they were compared.
        references: Which text, and a digest of all of it.
        utterances: How many there were.
        sacrebleu: sacrebleu's own signature.
    """

    recognizer: str
    normalizer: str
    references: str
    utterances: int
    sacrebleu: str
    silence: str = "kept, all-silent is empty"
    sample_rate: int = SAMPLE_RATE

    def __str__(self) -> str:
        return (
            f"asr:{self.recognizer} | norm:{self.normalizer} | refs:{self.references} | n:{self.utterances} | "
            f"silence:{self.silence} | rate:{self.sample_rate} | sacrebleu:{self.sacrebleu}"
        )


def digest_of_references(source: str, references: Sequence[str], further: Sequence[Sequence[str]] = ()) -> str:
    """`source` and eight digits that name the reference texts in their order."""
    return f"{source}@{json_digest([*references, *further])[:8]}"


@dataclass(frozen=True)
class MosScore:
    """Mean of a predicted mean opinion score, 1 to 5, and over how many utterances."""

    score: float
    utterances: int


@dataclass
class SystemScores:
    """Everything measured on one system, or on one ceiling; None where it does not apply.

    docs/scoring.md says what each of them is. Error rates are in percent.
    """

    utterances: int
    asr_bleu: Interval | None
    asr_chrf: Interval | None
    silent_utterances: int
    seconds: float
    words_per_second: float | None
    silence_ratio: float | None
    asr_wer: Interval | None = None
    without_text: int | None = None
    text_bleu: Interval | None = None
    text_bleu_signature: str | None = None
    natural_bleu: Interval | None = None
    natural_bleu_signature: str | None = None
    text_chrf: Interval | None = None
    text_chrf_signature: str | None = None
    transcript_wer: Interval | None = None
    transcript_cer: Interval | None = None
    unit_error_rate: float | None = None
    unit_error_rate_without_repeats: float | None = None
    agreement_wer: Interval | None = None
    agreement_bleu: Interval | None = None
    mos: dict[str, MosScore] = field(default_factory=dict)
    languages: dict[str, "SystemScores"] = field(default_factory=dict)
    duration_ratio: float | None = None
    speakers: dict[str, "SystemScores"] = field(default_factory=dict)
    speaker_similarity: float | None = None
    comet: float | None = None

    @property
    def main_score(self) -> float | None:
        """ASR-BLEU; of a system that gives text only its text BLEU, or the word error rate of its transcripts."""
        return next((score.score for score in (self.asr_bleu, self.text_bleu, self.transcript_wer) if score), None)

    def score(self, metric: str) -> float | None:
        """One number by the name of its field."""
        value = getattr(self, metric)
        return value.score if isinstance(value, Interval) else value


@dataclass
class Scores:
    """The scores of all systems of a run, or of folders of audio files.

    Attributes:
        signature: What the scores depend on besides the speech.
        systems: System -> its scores, in the order of the table.
        ceilings: Name -> scores of speech whose translation is perfect.
        significance: Tests of each system against the first, over all utterances and per source language.
        mos_predictors: Signatures of the MOS predictors.
        mos_utterances: Utterances of each system that they rated.
        speaker_model: Signature of the speaker model.
        comet_model: Name of the COMET model.
        training_hours: Source language -> hours of training speech.
        notes: What a reader has to know besides, such as what was left out.
        examples: Ids of the utterances that the report plays.
        transcripts: System -> file -> what the recognizer made of it, where folders of audio files were scored; those
            of a run are in utterances.jsonl.
    """

    signature: Signature
    systems: dict[str, SystemScores]
    ceilings: dict[str, SystemScores] = field(default_factory=dict)
    significance: list[SignificanceTest] = field(default_factory=list)
    mos_predictors: list[str] = field(default_factory=list)
    mos_utterances: int | None = None
    speaker_model: str | None = None
    comet_model: str | None = None
    training_hours: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    transcripts: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def all(self) -> dict[str, SystemScores]:
        """Systems and ceilings together."""
        return self.systems | self.ceilings


@dataclass
class ScoredOutput:
    """One utterance of one system, or of a ceiling.

    Attributes:
        asr_transcript: What the recognizer made of the speech; empty for silence.
        asr_normalized: The same as it went into the score.
        seconds: Length of the speech.
        transcript: The system's own source transcript; None for a ceiling.
        translation: The system's own written translation; None for a ceiling.
        mos: Predicted mean opinion scores by name, where the utterance was rated.
        speaker_similarity: Of its voice and the source's, -1 to 1, where a speaker model was used.
        comet: COMET of the ASR transcript, where that was wanted.
    """

    asr_transcript: str
    asr_normalized: str
    seconds: float
    transcript: str | None = None
    translation: str | None = None
    mos: dict[str, float] = field(default_factory=dict)
    speaker_similarity: float | None = None
    comet: float | None = None


@dataclass
class ScoredUtterance:
    """A line of utterances.jsonl: an utterance's references, and what each system made of it."""

    id: str
    language: str | None
    source: str | None
    reference: str
    outputs: dict[str, ScoredOutput]


def write_scores(path: Path, scores: Scores) -> None:
    """Write scores as JSON; the signature both as one string, to compare, and in its parts."""
    write_json(path, {"signature": str(scores.signature), "signature_fields": vars(scores.signature), **_rest(scores)})


def read_scores(folder: Path) -> Scores:
    """Read the scores.json of a score stage's folder.

    Raises:
        InputError: There is none, or it is damaged or of another version.
    """
    path = Path(folder) / SCORES_FILE
    content = read_json(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged or of another version (expected an object)")
    if not _finite(content):
        raise InputError(f"{path}: damaged (a number in it is not finite)")
    return from_json(Scores, content | {"signature": content.get("signature_fields")}, path)


def _finite(content: Any) -> bool:
    if isinstance(content, dict | list):
        return all(map(_finite, content.values() if isinstance(content, dict) else content))
    return not isinstance(content, float) or math.isfinite(content)


def read_utterances(folder: Path) -> list[ScoredUtterance]:
    """Read the utterances.jsonl of a score stage's folder; errors as for `read_scores`."""
    utterances = read_records(ScoredUtterance, Path(folder) / UTTERANCES_FILE)
    check_count(Path(folder), "utterances", len(utterances), "delete the folder to score again")
    return utterances


def _rest(scores: Scores) -> dict[str, Any]:
    return {key: value for key, value in to_json(scores).items() if key != "signature"}
