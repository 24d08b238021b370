"""Recordings in memory that are longer than what a model was trained on: cut in their pauses, and joined again."""

from collections.abc import Sequence

import numpy as np

from unitweave.config.translate import SegmentationSettings
from unitweave.core.audio import SAMPLE_RATE
from unitweave.core.scripts import join_texts
from unitweave.translate.translator import SpeechTranslation, Translator
from unitweave.translate.vad import find_spans

LONGEST = 30.0  # seconds of a recording that is one utterance, where nothing is known of the model
_MAX_SPEECH_SECONDS = 20.0  # and of an utterance that is cut out of a longer one


def utterance_limit(translator: Translator) -> float:
    """Seconds of the longest recordings that are one utterance: as long as those that the model was trained on."""
    trained_seconds = translator.utterance_seconds
    return LONGEST if trained_seconds is None else min(max(trained_seconds, 1.0), LONGEST)


def segmentation_for(translator: Translator) -> SegmentationSettings:
    """How a longer recording is cut for this model."""
    return SegmentationSettings(max_speech_seconds=min(utterance_limit(translator), _MAX_SPEECH_SECONDS))


def cut(translator: Translator, waveform: np.ndarray) -> list[tuple[int, int]]:
    """The utterances of a recording as samples [start, end): all of it where it is no longer than one."""
    if len(waveform) <= utterance_limit(translator) * SAMPLE_RATE:
        return [(0, len(waveform))]
    spans = [(start, min(end, len(waveform))) for start, end in find_spans(waveform, segmentation_for(translator))]
    return spans or [(0, len(waveform))]


def join(parts: Sequence[SpeechTranslation], spans: Sequence[tuple[int, int]], samples: int) -> SpeechTranslation:
    """One result of the utterances of a recording of so many samples, each spoken when it is or when there is room."""
    if len(parts) == 1:
        return parts[0]
    track: list[np.ndarray] = []
    at = 0
    for part, (start, _) in zip(parts, spans, strict=True):
        if len(part.waveform):
            track += [np.zeros(max(0, start - at), np.float32), part.waveform]
            at = max(at, start) + len(part.waveform)
    seconds = [part.source_seconds for part in parts]
    sure = [(part.confidence, s) for part, s in zip(parts, seconds, strict=True) if part.confidence is not None]
    flags = [part.in_domain for part in parts if part.in_domain is not None]
    names = dict.fromkeys(name for part in parts for name in part.seconds)
    return SpeechTranslation(
        waveform=np.concatenate([np.zeros(0, np.float32), *track]),
        sampling_rate=SAMPLE_RATE,
        language=next((part.language for part in parts if part.language), ""),
        transcript=join_texts(part.transcript for part in parts),
        translation=join_texts(part.translation for part in parts),
        units=np.concatenate([part.units for part in parts]),
        complete=all(part.complete for part in parts),
        score=float(np.average([part.score for part in parts], weights=seconds)),
        scores={
            name: float(np.average([part.scores.get(name, part.score) for part in parts], weights=seconds))
            for name in parts[0].scores
        },
        seconds={name: sum(part.seconds.get(name, 0.0) for part in parts) for name in names},
        source_seconds=samples / SAMPLE_RATE,
        confidence=float(np.average([c for c, _ in sure], weights=[s for _, s in sure])) if sure else None,
        target_language=next((part.target_language for part in parts if part.target_language), ""),
        in_domain=sum(flags) > len(flags) / 2 if flags else None,
    )
