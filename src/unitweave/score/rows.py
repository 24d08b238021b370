"""One row of the score table: everything that is measured on one system, or on one ceiling."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from unitweave.metrics import scores as metrics
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.asr.transcripts import Heard


@dataclass
class References:
    """What the utterances should be, all lists in the order of `ids`; None where it is not known.

    texts        the translation as the corpus has it; goes through the recognizer's normalization
    translation  normalized translation, as the model writes it
    transcript   normalized source transcript
    units        target units [frames]
    language     source language
    """

    ids: list[str]
    texts: list[str]
    translation: list[str] | None = None
    transcript: list[str] | None = None
    units: list[np.ndarray] | None = None
    language: list[str] | None = None

    def select(self, keep: Sequence[int]) -> "References":
        """The references at these positions."""

        def some(values: list | None) -> Any:
            return None if values is None else [values[i] for i in keep]

        return References(
            some(self.ids),
            some(self.texts),
            some(self.translation),
            some(self.transcript),
            some(self.units),
            some(self.language),
        )


@dataclass
class Written:
    """What a system wrote beside its speech, in the order of the references."""

    transcript: list[str]
    translation: list[str]
    units: list[list[int]]
    deduplicated: bool = False  # the units are without repetitions

    def select(self, keep: Sequence[int]) -> "Written":
        """The outputs at these positions."""
        return Written(
            [self.transcript[i] for i in keep],
            [self.translation[i] for i in keep],
            [self.units[i] for i in keep],
            self.deduplicated,
        )


def score_row(
    heard: Sequence[Heard], references: References, recognizer: Recognizer, written: Written | None, samples: int
) -> tuple[dict[str, Any], str]:
    """The numbers of one row, and the sacrebleu signature of its ASR-BLEU.

    For a system whose texts are known (`written`) agreement is the error of the recognizer's transcript
    against the model's own translation, over the utterances that have one. Without, `asr_wer` is the
    error against the reference; for a ceiling, whose text is the reference, that is its agreement.
    """
    hypotheses = [recognizer.clean_hypothesis(record.text) for record in heard]
    texts = [recognizer.clean_reference(text) for text in references.texts]
    asr_bleu, signature = metrics.bleu(hypotheses, texts, samples)
    seconds = [record.seconds for record in heard]
    row: dict[str, Any] = {
        "utterances": len(heard),
        "asr_bleu": asr_bleu.plain(),
        "asr_chrf": metrics.chrf(hypotheses, texts, samples)[0].plain(),
        "silent_utterances": sum(not hypothesis for hypothesis in hypotheses),
        "seconds": round(sum(seconds), 2),
        "words_per_second": round(metrics.speech_rate(hypotheses, seconds), 3),
        "silence_share": round(float(np.average([r.silence for r in heard], weights=np.maximum(seconds, 1e-9))), 4),
    }
    row["asr_wer"] = metrics.word_error_rate(hypotheses, texts, samples).plain() if all(texts) else None
    if written:
        row |= _score_written(written, references, samples)
        spoken = [recognizer.clean_reference(text) for text in written.translation]
        said = [i for i, text in enumerate(spoken) if text]
        if said:
            pair = [hypotheses[i] for i in said], [spoken[i] for i in said]
            row["agreement_wer"] = metrics.word_error_rate(*pair, samples).plain()
            row["agreement_bleu"] = metrics.bleu(*pair, samples)[0].plain()
    names = sorted({name for record in heard for name in record.mos})
    for name in names:
        values = [record.mos[name] for record in heard if name in record.mos]
        row.setdefault("mos", {})[name] = {"score": round(float(np.mean(values)), 3), "utterances": len(values)}
    return row, signature


def score_by_language(
    heard: Sequence[Heard], references: References, recognizer: Recognizer, written: Written | None, samples: int
) -> dict[str, dict[str, Any]]:
    """`score_row` for each source language on its own; empty when there is but one."""
    languages = sorted(set(references.language or ()))
    if len(languages) < 2:
        return {}
    rows = {}
    for language in languages:
        keep = [i for i, value in enumerate(references.language or ()) if value == language]
        some = written.select(keep) if written else None
        rows[language], _ = score_row([heard[i] for i in keep], references.select(keep), recognizer, some, samples)
    return rows


def _score_written(written: Written, references: References, samples: int) -> dict[str, Any]:
    row: dict[str, Any] = {"without_text": sum(not text.strip() for text in written.translation)}
    if references.translation:
        text_bleu, signature = metrics.bleu(written.translation, references.translation, samples)
        text_chrf, chrf_signature = metrics.chrf(written.translation, references.translation, samples)
        row |= {"text_bleu": text_bleu.plain(), "text_bleu_signature": signature}
        row |= {"text_chrf": text_chrf.plain(), "text_chrf_signature": chrf_signature}
    if references.transcript:
        row["transcript_wer"] = metrics.word_error_rate(written.transcript, references.transcript, samples).plain()
        row["transcript_cer"] = metrics.character_error_rate(written.transcript, references.transcript, samples).plain()
    if references.units is not None:
        if not written.deduplicated:
            row["unit_error_rate"] = round(metrics.unit_error_rate(written.units, references.units), 2)
        once = [metrics.without_repeats(units) for units in written.units]
        expected = [metrics.without_repeats(units) for units in references.units]
        row["unit_error_rate_without_repeats"] = round(metrics.unit_error_rate(once, expected), 2)
    return row
