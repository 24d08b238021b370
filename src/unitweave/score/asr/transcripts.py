"""ASR transcripts of many utterances, shared over processes, and logged as they come so that a killed run resumes."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, is_silent
from unitweave.core.distributed import barrier, on_main, process_index, process_share
from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.core.progress import Meter
from unitweave.core.records import from_json, to_json
from unitweave.metrics.signals import silence_ratio
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.mos import Predictor
from unitweave.score.speakers import SpeakerComparison

BATCH = 32  # utterances in memory at a time


@dataclass(slots=True)
class AsrTranscript:
    """What the recognizer made of one utterance.

    Attributes:
        id: The utterance.
        text: Raw transcript; empty for silence.
        seconds: Length of the speech.
        silence: Ratio of silent frames.
        mos: Predicted mean opinion scores by name, where the utterance was rated.
        speaker_similarity: Cosine of the embeddings of its voice and the source's, where a speaker model is used.
        comet: COMET of the transcript, where that is wanted; it is not in the log.
    """

    id: str
    text: str
    seconds: float
    silence: float
    mos: dict[str, float] = field(default_factory=dict)
    speaker_similarity: float | None = None
    comet: float | None = None


@dataclass
class AudioSource:
    """Utterances to transcribe, in order.

    Attributes:
        ids: The utterances.
        load: Gives the waveforms (float32 [samples] at 16 kHz) of some of the ids; None for an utterance
            without speech. That, and digital silence, gets the empty transcript: recognizers invent words
            for it (Moonshine writes "You").
        languages: Utterance -> code of the language that is spoken in it; English where it is not named.
    """

    ids: Sequence[str]
    load: Callable[[Sequence[str]], list[np.ndarray | None]]
    languages: Mapping[str, str] = field(default_factory=dict)


def transcribe(
    source: AudioSource,
    recognizer: Recognizer,
    log: Path | None,
    meter: Meter,
    predictors: Sequence[Predictor] = (),
    rated: Sequence[str] = (),
    keep: Callable[[str, np.ndarray], None] | None = None,
    speakers: SpeakerComparison | None = None,
) -> list[AsrTranscript]:
    """Transcribe all utterances of `source`, in its order; those already in the log are not transcribed again.

    With a log, several processes share the utterances: all of them call this and get all transcripts.

    Args:
        source: The utterances.
        recognizer: Transcribes them.
        log: JSON lines file of the transcripts, in the order of `source` when all are there; None for none.
        meter: Advanced by each utterance.
        predictors: Rate the utterances named in `rated`.
        rated: Ids of the utterances to rate.
        keep: Called with id and waveform of all speech, for instance to write some of it.
        speakers: Compares the voices with the source's.
    """
    transcribed, apart = on_main(lambda: (_read_logs(log), bool(_process_logs(log)))) if log else ({}, False)
    meter.advance(sum(id in transcribed for id in source.ids))
    batches = [source.ids[first : first + BATCH] for first in range(0, len(source.ids), BATCH)]
    todo = [missing for batch in batches if (missing := [id for id in batch if id not in transcribed])]
    process_log = log and log.with_name(f"{log.stem}.{process_index()}.jsonl")
    for ids in process_share(todo) if log else todo:
        records = _transcribe_batch(ids, source, recognizer, predictors, set(rated), keep, speakers)
        if process_log:
            with process_log.open("a", encoding="utf-8") as file:
                file.writelines(map(_line, records))
        transcribed |= {record.id: record for record in records}
        meter.advance(len(records))
    if log and (todo or apart):  # a call that was killed before it merged them has transcribed all
        barrier()
        transcribed = on_main(lambda: _merge(log, source.ids))
    return [transcribed[id] for id in source.ids]


def _transcribe_batch(
    ids: Sequence[str],
    source: AudioSource,
    recognizer: Recognizer,
    predictors: Sequence[Predictor],
    rated: set[str],
    keep: Callable[[str, np.ndarray], None] | None,
    speakers: SpeakerComparison | None,
) -> list[AsrTranscript]:
    waveforms = [None if w is None or not len(w) or is_silent(w) else w for w in source.load(ids)]
    audible = [(id, waveform) for id, waveform in zip(ids, waveforms, strict=True) if waveform is not None]
    texts: dict[str, str] = {}
    for language in sorted({source.languages.get(id, "en") for id, _ in audible}):
        batch = [(id, w) for id, w in audible if source.languages.get(id, "en") == language]
        texts |= zip((id for id, _ in batch), recognizer.transcribe([w for _, w in batch], language), strict=True)
    records = []
    for id, waveform in zip(ids, waveforms, strict=True):
        if waveform is None:
            records.append(AsrTranscript(id, "", 0.0, 1.0))
            continue
        record = AsrTranscript(id, texts[id], len(waveform) / SAMPLE_RATE, silence_ratio(waveform))
        if id in rated:
            for predictor in predictors:
                record.mos.update(predictor.predict(waveform))
        if speakers:
            record.speaker_similarity = speakers.similarity(id, waveform)
        if keep:
            keep(id, waveform)
        records.append(record)
    return records


def _line(record: AsrTranscript) -> str:
    return json.dumps(to_json(record), ensure_ascii=False) + "\n"


def _merge(log: Path, ids: Sequence[str]) -> dict[str, AsrTranscript]:
    """Put what all processes wrote into one log, in the order of the utterances."""
    transcribed = _read_logs(log)
    write_text(log, "".join(_line(transcribed[id]) for id in ids))
    for path in _process_logs(log):
        path.unlink()
    return transcribed


def _read_logs(log: Path) -> dict[str, AsrTranscript]:
    """The transcripts in a log, and in those that processes of an interrupted call left beside it."""
    return {record.id: record for path in [log, *_process_logs(log)] for record in _read_log(path)}


def _process_logs(log: Path) -> list[Path]:
    """The logs of single processes, which are there until they are merged."""
    return sorted(log.parent.glob(f"{log.stem}.*.jsonl"))


def _read_log(path: Path) -> Iterator[AsrTranscript]:
    """The transcripts of a log up to its first damaged line, such as a half-written last one; the rest is cut off."""
    if not path.exists():
        return
    content = path.read_bytes()
    whole = 0
    for line in content.splitlines(keepends=True):
        try:
            record = from_json(AsrTranscript, json.loads(line), path.name)
        except (ValueError, RecursionError, InputError):
            break
        if not line.endswith(b"\n"):
            break
        whole += len(line)
        yield record
    if whole < len(content):
        os.truncate(path, whole)
