"""Long recordings: cut into utterances where nobody speaks, translated in batches, put back at their times.

Memory does not follow the length: the recording is read twice in blocks, once to find the speech and once
to cut it out, and the English track is written as it is put together. Finished utterances lie in a folder
beside the result until all are done, so that an interrupted job goes on behind the last of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json, remove, remove_leftovers, write_json, write_text
from unitweave.core.progress import meter
from unitweave.lm.decode import DecodeSettings
from unitweave.serve.recordings import stream_audio
from unitweave.serve.segments import SegmentSettings, SpeechDetector, cut_out, speech_spans
from unitweave.serve.subtitles import Cue, srt, vtt
from unitweave.serve.translate import Translator
from unitweave.units.features import num_frames

_BATCH_SECONDS = 60.0  # of padded speech at a time: a long recording takes the memory of a dense minute
_PCM: dict[str, Any] = {"format": "WAV", "subtype": "PCM_16"}


@dataclass(frozen=True)
class LongResult:
    """Where the result of a long recording is: English track, JSON, and how many utterances there were."""

    audio: Path
    about: Path
    segments: int


def translate_long(
    translator: Translator,
    source: Path,
    stem: Path,
    settings: DecodeSettings | None = None,
    segmenting: SegmentSettings | None = None,
    job: str = "",
) -> LongResult:
    """Translate a recording of any length into stem.wav, stem.json, stem.srt and stem.vtt.

    job  names model, settings and source; what an interrupted call with another one left is not used

    An utterance is heard when it was spoken, or when the one before it is over, should that be later.
    Raises InputError when the recording cannot be read or nobody speaks in it.
    """
    settings, segmenting = settings or translator.settings, segmenting or SegmentSettings()
    detector = SpeechDetector.load()
    spans = speech_spans(detector.probabilities(stream_audio(source)), segmenting)
    spans = [span for span in spans if num_frames(span[1] - span[0]) > 0]
    if not spans:
        raise InputError(f"{source}: nobody speaks in this recording; nothing to translate")
    workshop = stem.with_name(f".{stem.name}.partial")
    done = _finished(workshop, job)
    with meter(f"{source.name}: utterances", len(spans), done=len(done)) as progress:
        for first, waveforms in _batches(source, spans, done, settings.batch):
            for i, result in zip(first, translator.translate_all(waveforms, settings), strict=True):
                if len(result.waveform):
                    write_audio(workshop / f"{i:06d}.wav", result.waveform)
                start, end = (edge / SAMPLE_RATE for edge in spans[i])
                write_json(workshop / f"{i:06d}.json", {"start": start, "end": end} | result.plain())
                progress.advance()
    return _assemble(workshop, source, stem, len(spans), job)


def _finished(workshop: Path, job: str) -> set[int]:
    """Indices of the utterances that an interrupted call finished; anything of another job is deleted."""
    about = workshop / "job.json"
    if workshop.exists() and (not about.exists() or read_json(about) != {"job": job}):
        remove(workshop)
    workshop.mkdir(parents=True, exist_ok=True)
    remove_leftovers(workshop)
    write_json(about, {"job": job})
    return {int(path.stem) for path in workshop.glob("[0-9]*.json")}


def _batches(
    source: Path, spans: Sequence[tuple[int, int]], done: set[int], most: int
) -> Iterator[tuple[list[int], list[np.ndarray]]]:
    """Utterances that are still to do: their indices and waveforms, as many at once as memory should hold."""
    indices: list[int] = []
    waveforms: list[np.ndarray] = []
    if len(done) == len(spans):
        return
    for i, waveform in enumerate(cut_out(stream_audio(source), spans)):
        if i in done:
            continue
        longest = max(len(waveform), *map(len, waveforms)) if waveforms else len(waveform)
        if indices and (len(indices) == most or longest * (len(indices) + 1) > _BATCH_SECONDS * SAMPLE_RATE):
            yield indices, waveforms
            indices, waveforms = [], []
        indices.append(i)
        waveforms.append(waveform)
    if indices:
        yield indices, waveforms


def _assemble(workshop: Path, source: Path, stem: Path, count: int, job: str) -> LongResult:
    segments: list[dict[str, Any]] = []
    audio, about = stem.with_name(stem.name + ".wav"), stem.with_name(stem.name + ".json")
    with atomic_path(audio) as temporary, soundfile.SoundFile(temporary, "w", SAMPLE_RATE, 1, **_PCM) as track:
        at = 0  # samples written
        for i in range(count):
            segment = read_json(workshop / f"{i:06d}.json")
            wav = workshop / f"{i:06d}.wav"
            speech = read_audio(wav) if wav.exists() else np.zeros(0, np.float32)
            silence = max(0, round(segment["start"] * SAMPLE_RATE) - at)
            for _ in range(silence // SAMPLE_RATE):
                track.write(np.zeros(SAMPLE_RATE, np.float32))
            track.write(np.zeros(silence % SAMPLE_RATE, np.float32))
            at += silence
            segment |= {"spoken_from": at / SAMPLE_RATE, "spoken_to": (at + len(speech)) / SAMPLE_RATE}
            track.write(speech)
            at += len(speech)
            segments.append(segment)
    for suffix, make in ((".srt", srt), (".vtt", vtt)):
        cues = [Cue(s["start"], s["end"], s["translation"]) for s in segments]
        write_text(stem.with_name(stem.name + suffix), make(cues))
    whole = {
        "source": str(source),
        "job": job,
        "language": segments[0]["language"],
        "transcript": " ".join(s["transcript"] for s in segments if s["transcript"]),
        "translation": " ".join(s["translation"] for s in segments if s["translation"]),
        "complete": all(s["complete"] for s in segments),
        "segments": segments,
    }
    write_json(about, whole)
    remove(workshop)
    return LongResult(audio, about, len(segments))
