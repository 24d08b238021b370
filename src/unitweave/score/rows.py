"""One row of the score table: everything that is measured on one system, or on one ceiling."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from unitweave.core.keyed import Lazy
from unitweave.core.natural import clean_text, comparable_text
from unitweave.core.sequences import deduplicate
from unitweave.metrics.bleu import bleu, chrf
from unitweave.metrics.error_rates import (
    character_error_rate,
    closest_references,
    unit_error_rate,
    word_error_rate,
)
from unitweave.metrics.signals import speech_rate
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.asr.transcripts import AsrTranscript
from unitweave.score.scores import MosScore, SystemScores

_SPEAKERS = (("seen", True), ("unseen", False))


@dataclass
class References:
    """What the utterances should be, all lists in the order of `ids`; None where it is not known.

    Attributes:
        ids: The utterances.
        texts: Translations as the corpus has them; they go through the recognizer's normalization.
        translation: Normalized translations, as the model writes them.
        transcript: Normalized source transcripts.
        units: Target units [frames].
        language: Source languages; with several target languages directions, such as es-en.
        target_language: Target languages; all English where none are named.
        natural: Whether all `texts` are natural text, and none is a normalized one.
        source_seconds: Lengths of the source recordings; empty where they are not known.
        speaker_seen: Whether the source's speaker occurs in training; empty where that is not known.
        further: More translations of each utterance, of any number; empty for one each.
        source_texts: Source texts as the corpus has them, for COMET; empty where they are not known.
    """

    ids: list[str]
    texts: list[str]
    translation: list[str] | None = None
    transcript: list[str] | None = None
    units: Sequence[np.ndarray] | None = None
    language: list[str] | None = None
    target_language: list[str] = field(default_factory=list)
    natural: bool = False
    source_seconds: list[float] = field(default_factory=list)
    speaker_seen: list[bool] = field(default_factory=list)
    further: list[list[str]] = field(default_factory=list)
    source_texts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.target_language = self.target_language or ["en"] * len(self.ids)

    def cleaned_further(self, recognizer: Recognizer) -> list[list[str]]:
        """`further` as the recognizer's protocol compares them."""
        targets = self.target_language
        return [
            [recognizer.clean_reference(text, target) for text in texts]
            for texts, target in zip(self.further, targets if self.further else [], strict=True)
        ]

    @property
    def languages(self) -> list[str]:
        """The source languages, sorted; empty when there is only one."""
        found = sorted(set(self.language or ()))
        return found if len(found) > 1 else []

    def positions(self, language: str) -> list[int]:
        """Where the utterances of one source language are."""
        return [i for i, value in enumerate(self.language or ()) if value == language]

    def select(self, positions: Sequence[int]) -> "References":
        """The references at these positions."""

        def some(values: list | None) -> Any:
            return None if values is None else [values[i] for i in positions]

        return References(
            some(self.ids),
            some(self.texts),
            some(self.translation),
            some(self.transcript),
            None if self.units is None else Lazy(positions, self.units.__getitem__),
            some(self.language),
            some(self.target_language),
            self.natural,
            some(self.source_seconds or None) or [],
            some(self.speaker_seen or None) or [],
            some(self.further or None) or [],
            some(self.source_texts or None) or [],
        )

    @property
    def speakers(self) -> dict[str, list[int]]:
        """Where the utterances of seen and of unseen speakers are; empty unless there are both."""
        where = {name: [i for i, seen in enumerate(self.speaker_seen) if seen == kind] for name, kind in _SPEAKERS}
        return where if all(where.values()) else {}


@dataclass
class SystemTexts:
    """What a system wrote in addition to its speech, in the order of the references.

    Attributes:
        transcript: Its source transcripts.
        translation: Its translations.
        units: Its target units.
        deduplicated: Whether the units are without repetitions.
        translates: Whether it writes translations; a recognizer does not.
        natural: Whether the texts are natural; else they are normalized.
    """

    transcript: list[str]
    translation: list[str]
    units: Sequence[Sequence[int] | np.ndarray]
    deduplicated: bool = False
    translates: bool = True
    natural: bool = False

    def select(self, positions: Sequence[int]) -> "SystemTexts":
        """The outputs at these positions."""
        return SystemTexts(
            [self.transcript[i] for i in positions],
            [self.translation[i] for i in positions],
            Lazy(positions, self.units.__getitem__),
            self.deduplicated,
            self.translates,
            self.natural,
        )


def score_system(
    transcripts: Sequence[AsrTranscript] | None,
    references: References,
    recognizer: Recognizer,
    written: SystemTexts | None,
    samples: int,
) -> tuple[SystemScores, str]:
    """Measure one system or ceiling.

    Args:
        transcripts: ASR transcripts of its speech, one per reference; None for a system that gives text only.
        references: What it should be.
        recognizer: Normalizes both sides.
        written: The system's own texts. Agreement is the error of the ASR transcript against its own
            translation, over the utterances that have one. None for a ceiling, or where no text is known.
        samples: Bootstrap resamples for the intervals.

    Returns:
        The scores, and the sacrebleu signature of the ASR-BLEU.
    """
    if transcripts is None:
        scores = SystemScores(len(references.ids), None, None, 0, 0.0, None, None)
        if written:
            _score_texts(scores, written, replace(references, units=None), samples)
        return scores, ""
    targets = references.target_language
    hypotheses = [recognizer.clean_hypothesis(record.text, x) for record, x in zip(transcripts, targets, strict=True)]
    texts = [recognizer.clean_reference(text, x) for text, x in zip(references.texts, targets, strict=True)]
    further = references.cleaned_further(recognizer)
    asr_bleu, signature = bleu(hypotheses, texts, samples, further=further)
    closest = closest_references(hypotheses, texts, further) if further else texts
    seconds = [record.seconds for record in transcripts]
    silence = np.average([r.silence for r in transcripts], weights=np.maximum(seconds, 1e-9))
    scores = SystemScores(
        utterances=len(transcripts),
        asr_bleu=asr_bleu.rounded(),
        asr_chrf=chrf(hypotheses, texts, samples, further)[0].rounded(),
        silent_utterances=sum(not hypothesis for hypothesis in hypotheses),
        seconds=round(sum(seconds), 2),
        words_per_second=round(speech_rate(hypotheses, seconds), 3),
        silence_ratio=round(float(silence), 4),
        asr_wer=word_error_rate(hypotheses, closest, samples).rounded() if all(closest) else None,
        mos=_mean_mos(transcripts),
        duration_ratio=_ratio(seconds, references.source_seconds),
        speaker_similarity=_mean([record.speaker_similarity for record in transcripts], 3),
        comet=_mean([record.comet for record in transcripts], 4),
    )
    if written:
        _score_texts(scores, written, references, samples)
        cleaned = [recognizer.clean_reference(text, x) for text, x in zip(written.translation, targets, strict=True)]
        with_text = [i for i, text in enumerate(cleaned) if text]
        if with_text:
            pair = [hypotheses[i] for i in with_text], [cleaned[i] for i in with_text]
            scores.agreement_wer = word_error_rate(*pair, samples).rounded()
            scores.agreement_bleu = bleu(*pair, samples)[0].rounded()
    return scores, signature


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    """The mean of those that are known."""
    numbers = [value for value in values if value is not None]
    return round(float(np.mean(numbers)), digits) if numbers else None


def _ratio(seconds: Sequence[float], source_seconds: Sequence[float]) -> float | None:
    """How long the translations are for a second of their sources; None where a source's length is not known."""
    complete = len(source_seconds) == len(seconds) > 0 and all(source_seconds)
    return round(sum(seconds) / sum(source_seconds), 3) if complete else None


def score_parts(
    transcripts: Sequence[AsrTranscript] | None,
    references: References,
    recognizer: Recognizer,
    written: SystemTexts | None,
    samples: int,
    parts: Mapping[str, Sequence[int]],
) -> dict[str, SystemScores]:
    """`score_system` for each part of the utterances on its own, such as a source language; by the part's name."""
    rows = {}
    for name, positions in parts.items():
        some = written.select(positions) if written else None
        selected = None if transcripts is None else [transcripts[i] for i in positions]
        rows[name], _ = score_system(selected, references.select(positions), recognizer, some, samples)
    return rows


def _score_texts(scores: SystemScores, written: SystemTexts, references: References, samples: int) -> None:
    """Add what is measured on a system's own texts and units."""
    first = written.translation if written.translates else written.transcript
    scores.without_text = sum(not text.strip() for text in first)
    targets, sources = references.target_language, references.language or [""] * len(references.ids)
    if references.translation and written.translates:
        side = [comparable_text(text, x, written.natural) for text, x in zip(written.translation, targets, strict=True)]
        text_bleu, scores.text_bleu_signature = bleu(side, references.translation, samples)
        text_chrf, scores.text_chrf_signature = chrf(side, references.translation, samples)
        scores.text_bleu, scores.text_chrf = text_bleu.rounded(), text_chrf.rounded()
    if written.natural and references.natural and written.translates:
        wanted = [clean_text(text) for text in references.texts]
        natural_bleu, scores.natural_bleu_signature = bleu(written.translation, wanted, samples, targets[0])
        scores.natural_bleu = natural_bleu.rounded()
    if references.transcript:
        codes = [source.partition("-")[0] for source in sources]
        side = [comparable_text(text, x, written.natural) for text, x in zip(written.transcript, codes, strict=True)]
        scores.transcript_wer = word_error_rate(side, references.transcript, samples).rounded()
        scores.transcript_cer = character_error_rate(side, references.transcript, samples).rounded()
    if references.units is not None and any(map(len, written.units)):  # a cascade has none
        if not written.deduplicated:
            scores.unit_error_rate = round(unit_error_rate(written.units, references.units), 2)
        both = (written.units, references.units)
        ours, theirs = (Lazy(range(len(side)), lambda i, side=side: deduplicate(side[i])[0]) for side in both)
        scores.unit_error_rate_without_repeats = round(unit_error_rate(ours, theirs), 2)


def _mean_mos(transcripts: Sequence[AsrTranscript]) -> dict[str, MosScore]:
    means = {}
    for name in sorted({name for record in transcripts for name in record.mos}):
        values = [record.mos[name] for record in transcripts if name in record.mos]
        means[name] = MosScore(round(float(np.mean(values)), 3), len(values))
    return means
