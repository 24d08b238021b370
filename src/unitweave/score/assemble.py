"""All scores from what was transcribed and written, and the utterances that they come from."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from unitweave.core.files import write_lines
from unitweave.core.records import to_json
from unitweave.metrics.significance import SignificanceTest, compare_systems
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.asr.transcripts import AsrTranscript
from unitweave.score.rows import References, SystemTexts, score_parts, score_system
from unitweave.score.scores import (
    REFERENCE_SPEECH,
    RESYNTHESIS,
    ScoredOutput,
    ScoredUtterance,
    Scores,
    Signature,
    SystemScores,
    digest_of_references,
)

if TYPE_CHECKING:
    from unitweave.config.score import ScoreSettings


def assemble(
    transcripts: Mapping[str, list[AsrTranscript]],
    written: Mapping[str, SystemTexts],
    references: References,
    recognizer: Recognizer,
    settings: "ScoreSettings",
    source: str,
) -> Scores:
    """Measure all systems and ceilings, and compare each system with the first.

    Args:
        transcripts: System or ceiling -> its ASR transcripts, in the order of the references; without the systems that
            give text only.
        written: System -> its own texts, where they are known.
        references: What the utterances should be.
        recognizer: The one that transcribed.
        settings: Numbers of resamples.
        source: Where the reference texts come from, for the signature.
    """
    samples = settings.bootstrap_samples
    systems: dict[str, SystemScores] = {}
    ceilings: dict[str, SystemScores] = {}
    sacrebleu = ""
    for name in dict.fromkeys([*written, *transcripts]):
        own, records = written.get(name), transcripts.get(name)
        row, signed = score_system(records, references, recognizer, own, samples)
        sacrebleu = sacrebleu or signed
        by_language = {language: references.positions(language) for language in references.languages}
        row.languages = score_parts(records, references, recognizer, own, samples, by_language)
        row.speakers = score_parts(records, references, recognizer, own, samples, references.speakers)
        (ceilings if name in (REFERENCE_SPEECH, RESYNTHESIS) else systems)[name] = row
    targets = references.target_language
    texts = [recognizer.clean_reference(text, x) for text, x in zip(references.texts, targets, strict=True)]
    further = references.cleaned_further(recognizer)
    signature = Signature(
        recognizer.signature,
        "; ".join(recognizer.normalization(language) for language in sorted(set(targets))),
        digest_of_references(source, texts, further),
        len(references.ids),
        sacrebleu,
    )
    hypotheses = {
        name: [
            recognizer.clean_hypothesis(record.text, x) for record, x in zip(transcripts[name], targets, strict=True)
        ]
        for name in systems
        if name in transcripts
    }
    tests = _significance(hypotheses, texts, settings, further=further) if hypotheses else []
    for language in references.languages:
        keep = references.positions(language)
        some = {name: [own[i] for i in keep] for name, own in hypotheses.items()}
        chosen_further = [further[i] for i in keep] if further else []
        tests += _significance(some, [texts[i] for i in keep], settings, language, chosen_further) if some else []
    return Scores(signature, systems, ceilings, tests)


def _significance(
    hypotheses: Mapping[str, Sequence[str]],
    texts: Sequence[str],
    settings: "ScoreSettings",
    language: str | None = None,
    further: Sequence[Sequence[str]] = (),
) -> list[SignificanceTest]:
    """Each system against the first, unless the settings want no test."""
    trials = settings.randomization_trials
    return compare_systems(hypotheses, texts, trials, language, further) if trials else []


def write_utterances(
    path: Path,
    transcripts: Mapping[str, list[AsrTranscript]],
    written: Mapping[str, SystemTexts],
    references: References,
    recognizer: Recognizer,
) -> None:
    """Write one line per utterance: its references, and per system its ASR transcript and its own texts."""
    write_lines(path, _utterance_lines(transcripts, written, references, recognizer))


def _utterance_lines(
    transcripts: Mapping[str, list[AsrTranscript]],
    written: Mapping[str, SystemTexts],
    references: References,
    recognizer: Recognizer,
) -> Iterator[str]:
    for i, (id, target) in enumerate(zip(references.ids, references.target_language, strict=True)):
        outputs = {}
        for name in dict.fromkeys([*written, *transcripts]):
            texts = written.get(name)
            record = transcripts[name][i] if name in transcripts else None
            outputs[name] = ScoredOutput(
                record.text if record else "",
                recognizer.clean_hypothesis(record.text, target) if record else "",
                round(record.seconds, 3) if record else 0.0,
                texts.transcript[i] if texts else None,
                texts.translation[i] if texts else None,
                record.mos if record else {},
                record.speaker_similarity if record else None,
                record.comet if record else None,
            )
        utterance = ScoredUtterance(
            id,
            references.language[i] if references.language else None,
            references.transcript[i] if references.transcript else None,
            recognizer.clean_reference(references.texts[i], target),
            outputs,
        )
        yield json.dumps(to_json(utterance), ensure_ascii=False) + "\n"
