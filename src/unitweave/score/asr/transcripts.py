"""ASR transcripts of many utterances, appended to a log as they come so that a killed run resumes."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, is_silent
from unitweave.core.progress import Meter
from unitweave.core.records import read_records, to_json
from unitweave.metrics.signals import silence_ratio
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.mos import Predictor

BATCH = 32  # utterances in memory at a time


@dataclass
class AsrTranscript:
    """What the recognizer made of one utterance.

    Attributes:
        id: The utterance.
        text: Raw transcript; empty for silence.
        seconds: Length of the speech.
        silence: Ratio of silent frames.
        mos: Predicted mean opinion scores by name, where the utterance was rated.
    """

    id: str
    text: str
    seconds: float
    silence: float
    mos: dict[str, float] = field(default_factory=dict)


@dataclass
class AudioSource:
    """Utterances to transcribe, in order.

    Attributes:
        ids: The utterances.
        load: Gives the waveforms (float32 [samples] at 16 kHz) of some of the ids; None for an utterance
            without speech. That, and digital silence, gets the empty transcript: recognizers invent words
            for it (Moonshine writes "You").
    """

    ids: Sequence[str]
    load: Callable[[Sequence[str]], list[np.ndarray | None]]


def transcribe(
    source: AudioSource,
    recognizer: Recognizer,
    log: Path | None,
    meter: Meter,
    predictors: Sequence[Predictor] = (),
    rated: Sequence[str] = (),
    keep: Callable[[str, np.ndarray], None] | None = None,
) -> list[AsrTranscript]:
    """Transcribe all utterances of `source`, in its order; those already in the log are not transcribed again.

    Args:
        source: The utterances.
        recognizer: Transcribes them.
        log: JSON lines file to append to; None for none.
        meter: Advanced by each utterance.
        predictors: Rate the utterances named in `rated`.
        rated: Ids of the utterances to rate.
        keep: Called with id and waveform of all speech, for instance to write some of it.
    """
    known = {record.id: record for record in (_read_log(log) if log else ())}
    missing = [id for id in source.ids if id not in known]
    meter.advance(len(source.ids) - len(missing))
    to_rate = set(rated)
    for start in range(0, len(missing), BATCH):
        ids = missing[start : start + BATCH]
        waveforms = [None if w is None or not len(w) or is_silent(w) else w for w in source.load(ids)]
        audible = [(id, waveform) for id, waveform in zip(ids, waveforms, strict=True) if waveform is not None]
        texts = dict(zip([id for id, _ in audible], recognizer.transcribe([w for _, w in audible]), strict=True))
        records = []
        for id, waveform in zip(ids, waveforms, strict=True):
            if waveform is None:
                records.append(AsrTranscript(id, "", 0.0, 1.0))
                continue
            record = AsrTranscript(id, texts[id], len(waveform) / SAMPLE_RATE, silence_ratio(waveform))
            if id in to_rate:
                for predictor in predictors:
                    record.mos.update(predictor.predict(waveform))
            if keep:
                keep(id, waveform)
            records.append(record)
        if log:
            with log.open("a", encoding="utf-8") as file:
                file.writelines(json.dumps(to_json(record), ensure_ascii=False) + "\n" for record in records)
        known |= {record.id: record for record in records}
        meter.advance(len(records))
    return [known[id] for id in source.ids]


def _read_log(path: Path) -> Iterator[AsrTranscript]:
    """The whole lines of a log; a half-written last line is cut off the file."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = content[: content.rfind(b"\n") + 1]
    if len(whole) < len(content):
        path.write_bytes(whole)
    yield from read_records(AsrTranscript, path)
