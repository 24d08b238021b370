"""Long recordings: cut into utterances in the pauses, translated in batches, put back at their times.

Memory does not grow with the length: the recording is read twice in blocks, once to find the speech and once
to cut it out, and the translated track is written as it is put together. Finished utterances stay in a folder
next to the result until all are done, so that an interrupted job resumes after the last of them.
"""

import wave
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.config.translate import DecodingSettings, SegmentationSettings
from unitweave.core.audio import SAMPLE_RATE, read_audio, stream_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json, read_json_object, remove, remove_leftovers, write_json
from unitweave.core.lock import locked
from unitweave.core.progress import meter
from unitweave.core.scripts import join_texts
from unitweave.translate.checks import MIN_SAMPLES, check_audible
from unitweave.translate.decode import ForcedPrefix
from unitweave.translate.subtitles import Cue, write_subtitles
from unitweave.translate.translator import SpeechTranslation, Translator
from unitweave.translate.vad import SpeechDetector, cut_out, speech_spans

_BATCH_SECONDS = 60.0  # of padded speech at a time: a long recording takes the memory of a dense minute


@dataclass(frozen=True)
class LongResult:
    """Where the result of a long recording is: translated track, JSON, and how many utterances there were.

    The track is None where only the text was wanted.
    """

    audio: Path | None
    about: Path
    segments: int


def translate_long(
    translator: Translator,
    source: Path,
    stem: Path,
    settings: DecodingSettings | None = None,
    segmentation: SegmentationSettings | None = None,
    job: str = "",
    prefix: ForcedPrefix | None = None,
) -> LongResult:
    """Translate a recording of any length into stem.wav, stem.json and subtitles of both languages.

    The subtitles of the translation, stem.srt and stem.vtt, are in step with stem.wav; those of the source language,
    stem.LANGUAGE.srt and .vtt, with the source. An utterance begins in the track when it does in the source, or after
    the one before it, if that is later. One that is inaudible in the source is left empty. With settings.text_only no
    stem.wav is written, and all subtitles have the times of the source.

    Args:
        translator: The model.
        source: The recording.
        stem: Where the results go, without their suffixes.
        settings: How to decode (default: as the model's maker does).
        segmentation: How the recording is cut into utterances.
        job: Names model, settings and source; what an interrupted call under another name left is not used.
        prefix: The languages, where they are known.

    Raises:
        InputError: The recording cannot be read, has no speech, or another process is translating it to the same place.
    """
    settings, segmentation = settings or translator.settings, segmentation or SegmentationSettings()
    detector = SpeechDetector()
    spans = speech_spans(detector.probabilities(stream_audio(source)), segmentation)
    spans = [span for span in spans if span[1] - span[0] >= MIN_SAMPLES]
    if not spans:
        raise InputError(f"{source}: no speech found in this recording")
    work = stem.with_name(f".{stem.name}.partial")
    rate = None if settings.text_only else translator.speech_vocoder.sample_rate
    with locked(work):
        done = _finished(work, job)
        with meter(f"{source.name}: utterances", len(spans), done=len(done)) as progress:
            for first, waveforms in _batches(source, spans, done, settings.batch_size):
                results = _translate_audible(translator, waveforms, settings, prefix)
                for i, result in zip(first, results, strict=True):
                    if len(result.waveform):
                        write_audio(work / f"{i:06d}.wav", result.waveform, result.sampling_rate)
                    start, end = (edge / SAMPLE_RATE for edge in spans[i])
                    about = {"start": start, "end": end, "samples": len(result.waveform)}
                    write_json(work / f"{i:06d}.json", about | result.plain())
                    progress.advance()
        return _assemble(work, source, stem, len(spans), job, rate)


def _translate_audible(
    translator: Translator, waveforms: Sequence[np.ndarray], settings: DecodingSettings, prefix: ForcedPrefix | None
) -> list[SpeechTranslation]:
    """A result for each waveform; an empty one where it is inaudible, which must not end the whole recording."""
    nothing, no_units = np.zeros(0, np.float32), np.zeros(0, np.int64)
    rate = translator.vocoder.sample_rate if translator.vocoder else SAMPLE_RATE
    results = [
        SpeechTranslation(nothing, rate, "", "", "", no_units, True, 0.0, source_seconds=len(w) / SAMPLE_RATE)
        for w in waveforms
    ]
    audible = [i for i, waveform in enumerate(waveforms) if _is_audible(waveform)]
    if audible:
        translated = translator.translate_all([waveforms[i] for i in audible], settings, [prefix] * len(audible))
        for i, result in zip(audible, translated, strict=True):
            results[i] = result
    return results


def _is_audible(waveform: np.ndarray) -> bool:
    try:
        check_audible(waveform, "")
    except InputError:
        return False
    return True


def _finished(work: Path, job: str) -> set[int]:
    """Indices of the utterances that an interrupted call finished; anything of another job, or damaged, is not used."""
    about = work / "job.json"
    try:
        same = read_json(about) == {"job": job}
    except InputError:
        same = False
    if not same:
        remove(work)
    work.mkdir(parents=True, exist_ok=True)
    remove_leftovers(work)
    write_json(about, {"job": job})
    return {int(path.stem) for path in work.glob("[0-9]*.json") if path.stem.isdigit() and _is_whole(path)}


def _is_whole(path: Path) -> bool:
    """Whether what a call wrote of an utterance is all there, its speech too."""
    try:
        return _segment(path)["samples"] == 0 or path.with_suffix(".wav").is_file()
    except InputError:
        return False


def _batches(
    source: Path, spans: Sequence[tuple[int, int]], done: set[int], max_batch: int
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
        if indices and (len(indices) == max_batch or longest * (len(indices) + 1) > _BATCH_SECONDS * SAMPLE_RATE):
            yield indices, waveforms
            indices, waveforms = [], []
        indices.append(i)
        waveforms.append(waveform)
    if indices:
        yield indices, waveforms


_NUMBERS, _TEXTS = ("start", "end", "samples"), ("language", "target_language", "transcript", "translation")


def _segment(path: Path) -> dict[str, Any]:
    """What a call wrote of an utterance."""
    record = read_json_object(path)
    whole = all(isinstance(record.get(key), int | float) for key in _NUMBERS)
    whole = whole and all(isinstance(record.get(key, 0), str | None) for key in _TEXTS)
    if not whole or not {"confidence", "in_domain", "complete"} <= record.keys():
        raise InputError(f"{path}: damaged; delete its folder to translate the recording again")
    return record


def _assemble(work: Path, source: Path, stem: Path, count: int, job: str, rate: int | None) -> LongResult:
    segments = [_segment(work / f"{i:06d}.json") for i in range(count)]
    for segment in segments:
        del segment["samples"]
    audio = stem.with_name(stem.name + ".wav") if rate else None
    about = stem.with_name(stem.name + ".json")
    if audio is not None and rate is not None:
        _write_track(work, audio, segments, rate)
    language = next((s["language"] for s in segments if s["language"]), "")
    from_key, to_key = ("spoken_from", "spoken_to") if rate else ("start", "end")
    write_subtitles(stem, [Cue(s[from_key], s[to_key], s["translation"]) for s in segments])
    if language:
        write_subtitles(stem, [Cue(s["start"], s["end"], s["transcript"]) for s in segments], language)
    sure = [(s["confidence"], s["end"] - s["start"]) for s in segments if s["confidence"] is not None]
    flags = [s["in_domain"] for s in segments if s["in_domain"] is not None]
    whole = {
        "source": str(source),
        "job": job,
        "language": language,
        "target_language": next((s["target_language"] for s in segments if s["target_language"]), ""),
        "transcript": join_texts(s["transcript"] for s in segments),
        "translation": join_texts(s["translation"] for s in segments),
        "complete": all(s["complete"] for s in segments),
        "confidence": round(_mean(sure), 4) if sure else None,
        "in_domain": sum(flags) > len(flags) / 2 if flags else None,
        "segments": segments,
    }
    write_json(about, whole)
    remove(work)
    return LongResult(audio, about, len(segments))


def _mean(weighted: Sequence[tuple[float, float]]) -> float:
    """The mean of values with weights."""
    values, weights = zip(*weighted, strict=True)
    return float(np.average(values, weights=weights))


def _write_track(work: Path, audio: Path, segments: Sequence[dict[str, Any]], rate: int) -> None:
    """The utterances at their times, at `rate` Hz; adds to each segment from when to when it is in the track."""
    # The wave module and not libsndfile, which does not say that the disk is full.
    with atomic_path(audio) as temporary, temporary.open("wb") as file, wave.open(file, "wb") as track:
        track.setnchannels(1)
        track.setsampwidth(2)
        track.setframerate(rate)
        at = 0  # samples written
        for i, segment in enumerate(segments):
            wav = work / f"{i:06d}.wav"
            speech = read_audio(wav, sample_rate=rate) if wav.exists() else np.zeros(0, np.float32)
            silence = max(0, round(segment["start"] * rate) - at)
            for first in range(0, silence, rate):
                track.writeframesraw(bytes(2 * min(rate, silence - first)))
            at += silence
            segment |= {"spoken_from": at / rate, "spoken_to": (at + len(speech)) / rate}
            track.writeframesraw(np.rint(speech * 32768).astype("<i2").tobytes())  # as they lie in its file
            at += len(speech)
