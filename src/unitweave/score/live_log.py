"""Logs of live translation that the field's evaluators read: SimulEval's of speech and texts, OmniSTEval's of texts."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import yaml

from unitweave.core.audio import SAMPLE_RATE, write_audio
from unitweave.core.files import write_lines, write_text
from unitweave.core.scripts import join_texts, split_clusters
from unitweave.metrics.latency import Chunk, play_times
from unitweave.translate.live.events import CommittedText, LiveEvent
from unitweave.translate.translator import Words


@dataclass(frozen=True)
class Segment:
    """A part of a recording that has a reference of its own: where it begins and how long it is, in seconds."""

    offset: float
    duration: float
    reference: str


@dataclass(frozen=True)
class Source:
    """A recording, or several joined ones, with the reference translation, what is said, and the languages of both."""

    id: str
    waveform: np.ndarray
    reference: str
    language: str = "en"
    transcript: str = ""
    source_language: str = ""
    segments: tuple[Segment, ...] = ()  # of what was joined

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.waveform) / SAMPLE_RATE


def write_logs(folder: Path, sources: Sequence[Source], speech: Sequence[Mapping], texts: Sequence[Mapping]) -> None:
    """Write instances.log and, in the folder text, instances.log, segments.yaml and references.txt.

    `simuleval --score-only --output FOLDER/text` and `omnisteval shortform` read the texts' log, whose instances have
    their references; `omnisteval longform` reads the references of all segments and where these are.
    """
    write_lines(folder / "instances.log", (json.dumps(line) + "\n" for line in speech))
    write_lines(folder / "text/instances.log", (json.dumps(line, ensure_ascii=False) + "\n" for line in texts))
    segments = [
        (source, segment)
        for source in sources
        for segment in source.segments or (Segment(0.0, source.seconds, source.reference),)
    ]
    spans = [{"wav": source.id, "offset": part.offset, "duration": part.duration} for source, part in segments]
    write_text(folder / "text/segments.yaml", yaml.safe_dump(spans, sort_keys=False, allow_unicode=True))
    write_lines(folder / "text/references.txt", (" ".join(part.reference.split()) + "\n" for _, part in segments))


def text_instance(index: int, source: Source, events: Sequence[tuple[LiveEvent, float]]) -> dict[str, object]:
    """A line of the log of committed texts, in milliseconds: how much was heard when a word was committed, and when.

    The units are words, or characters (SimulEval's `--eval-latency-unit char`, OmniSTEval's `--char_level`) where the
    script has no spaces between words.

    Args:
        index: The number of the recording.
        source: The recording.
        events: What happened, each with the seconds at which it was computed.
    """
    utterances: dict[int, str] = {}
    ends: list[tuple[int, int, float, float]] = []  # utterance, characters without spaces up to there, and times
    for event, elapsed in events:
        if isinstance(event, CommittedText):
            text = utterances[event.utterance] = utterances.get(event.utterance, "") + event.text
            heard = min(event.heard, source.seconds)
            ends.append((event.utterance, len("".join(text.split())), heard, max(elapsed, heard)))
    text = join_texts(utterances.values())
    if len(split_clusters(text).split()) > len(text.split()):
        text = "".join(text.split())
        units = list(text)
    else:
        units = text.split()
    # The characters of earlier utterances come before: a unit is there when its last character is committed.
    counts = [len("".join(one.split())) for one in utterances.values()]
    before = dict(zip(utterances, np.cumsum([0, *counts]), strict=False))
    places = [before[utterance] + length for utterance, length, _, _ in ends]
    at = np.searchsorted(places, np.cumsum([len(unit) for unit in units], dtype=np.int64)).tolist()
    return {
        "index": index,
        "prediction": text,
        "delays": [1000 * ends[i][2] for i in at],
        "elapsed": [1000 * ends[i][3] for i in at],
        "prediction_length": len(units),
        "reference": source.reference,
        "source": [source.id],
        "source_length": 1000 * source.seconds,
    }


def word_delays(chunks: Sequence[Chunk], words: Words, computation_aware: bool = False) -> list[float]:
    """When the words of the speech are played, in seconds; of all of it where no word is found.

    Args:
        chunks: The pieces of the speech.
        words: Its words, with their times in all chunks one after the other without pauses.
        computation_aware: Whether computing time counts.
    """
    lengths = [chunk.seconds for chunk in chunks]
    played = play_times([chunk.elapsed if computation_aware else chunk.delay for chunk in chunks], lengths)
    begins = np.append(0.0, np.cumsum(lengths))

    def when(second: float) -> float:
        place = min(int(np.searchsorted(begins, second, side="right")) - 1, len(chunks) - 1)
        return float(played[place] + second - begins[place])

    return [when(start) for _, start, end in words if end > start] or played[:1]


def speech_instance(
    index: int,
    source: Source,
    chunks: Sequence[Chunk],
    waveforms: Sequence[np.ndarray],
    words: Words,
    folder: Path,
) -> dict[str, object]:
    """A line of SimulEval's instances.log, in milliseconds, and its wav file: silence where nothing is played.

    Besides SimulEval's keys it has `word_delays` and `word_elapsed`, which LAAL is computed from.
    """
    delays, lengths = [chunk.delay for chunk in chunks], [chunk.seconds for chunk in chunks]
    played = play_times(delays, lengths)
    track: list[np.ndarray] = []
    at = played[0] if played else 0.0
    for start, waveform in zip(played, waveforms, strict=True):
        track += [np.zeros(round((start - at) * SAMPLE_RATE), np.float32), waveform]
        at = start + len(waveform) / SAMPLE_RATE
    path = (folder / "wavs" / f"{index}_pred.wav").resolve()
    joined = np.concatenate([np.zeros(0, np.float32), *track])
    write_audio(path, joined)
    return {
        "index": index,
        "prediction": str(path),
        "delays": [1000 * delay for delay in delays],
        "durations": [1000 * length for length in lengths],
        "prediction_offset": 1000 * (played[0] if played else source.seconds),
        "elapsed": [1000 * chunk.elapsed for chunk in chunks],
        "intervals": [[1000 * start, 1000 * length] for start, length in zip(played, lengths, strict=True)],
        "prediction_length": 1000 * len(joined) / SAMPLE_RATE,
        "source_length": 1000 * source.seconds,
        "reference": source.reference,
        "source": source.id,
        "word_delays": [1000 * delay for delay in word_delays(chunks, words)],
        "word_elapsed": [1000 * delay for delay in word_delays(chunks, words, computation_aware=True)],
    }
