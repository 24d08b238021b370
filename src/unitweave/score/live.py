"""Live translation of a test set: quality against delay, as the field measures both.

Each recording is a session of its own that ends with it, so no policy waits for a pause. One pass gives two views:
delays are seconds of source that were heard, elapsed times count computing on this machine.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from random import Random

import numpy as np

from unitweave.config.live import LiveSettings
from unitweave.core.audio import SAMPLE_RATE, is_silent, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, read_json_object, write_json
from unitweave.core.manifest import Pair
from unitweave.core.natural import natural_pieces
from unitweave.core.progress import meter
from unitweave.core.scripts import join_texts, join_words
from unitweave.metrics.bleu import bleu
from unitweave.metrics.latency import (
    Chunk,
    average_token_delay,
    end_offset,
    length_adaptive_average_lagging,
    play_times,
    start_offset,
)
from unitweave.score.asr.recognizers import Recognizer
from unitweave.score.live_log import Segment, Source, speech_instance, text_instance, word_delays, write_logs
from unitweave.score.live_replay import replay
from unitweave.translate.live.events import CommittedText, LiveEvent, SpeechChunk
from unitweave.translate.translator import SpeechTranslation, Translator, Words
from unitweave.translate.utterances import cut, join

_JOINED, _PAUSES = (2, 4), (0.2, 0.8)  # recordings in a joined one, and seconds between them
_VERSION = 3  # of what is measured
_SCORE = "score.json"


@dataclass(frozen=True)
class Latency:
    """Mean latencies of a test set in seconds; each is over the utterances that have any speech.

    `first_speech` is StartOffset less the end of the first word of the source.
    """

    start_offset: float
    first_speech: float
    end_offset: float
    atd: float
    laal: float


@dataclass(frozen=True)
class LiveScore:
    """One policy on one test set.

    Attributes:
        name: The policy, and its settings.
        utterances: How many there are.
        asr_bleu: Of the speech.
        text_bleu: Of the committed texts.
        silent: Utterances without speech.
        delays: Latency in seconds of source heard; None offline.
        elapsed: The same with computing time; None offline.
        computing: Seconds of computing for a second of source.
    """

    name: str
    utterances: int
    asr_bleu: float
    text_bleu: float
    silent: int
    delays: Latency | None
    elapsed: Latency | None
    computing: float


def read_sources(pairs: Sequence[Pair], limit: int) -> list[Source]:
    """The first recordings of a split.

    Raises:
        InputError: There is no recording with a translation.
    """
    usable = [pair for pair in pairs if pair.src_audio and pair.tgt_text][:limit]
    if not usable:
        raise InputError("no recordings with translations to evaluate")
    return [
        Source(
            pair.id,
            read_audio(Path(pair.src_audio or "")),
            pair.tgt_text_raw or join_words(pair.tgt_text or ""),
            pair.tgt_lang,
            pair.src_text_raw or join_words(pair.src_text or ""),
            pair.src_lang,
        )
        for pair in usable
    ]


def join_sources(sources: Sequence[Source], limit: int) -> list[Source]:
    """Two to four recordings at a time, one behind the other with pauses of 0.2 to 0.8 s, until none are left."""
    rng, first = Random(0), 0
    joined: list[Source] = []
    while len(joined) < limit and first + _JOINED[0] <= len(sources):
        group = sources[first : first + rng.randint(*_JOINED)]
        first += len(group)
        parts: list[np.ndarray] = []
        segments = []
        for source in group:
            offset = sum(map(len, parts)) / SAMPLE_RATE
            segments.append(Segment(offset, len(source.waveform) / SAMPLE_RATE, source.reference))
            parts += [source.waveform, np.zeros(round(rng.uniform(*_PAUSES) * SAMPLE_RATE), np.float32)]
        texts = (join_texts(getattr(one, name) for one in group) for name in ("reference", "transcript"))
        reference, transcript = texts
        joined.append(
            replace(
                group[0],
                id=f"{group[0].id}+{len(group) - 1}",
                waveform=np.concatenate(parts[:-1]),
                reference=reference,
                transcript=transcript,
                segments=tuple(segments),
            )
        )
    return joined


def evaluate_offline(
    translator: Translator, sources: Sequence[Source], recognizer: Recognizer, folder: Path, batch_size: int = 1
) -> LiveScore:
    """The same recordings translated as a whole, longer ones cut in their pauses: what live translation is up to.

    Writes folder/score.json; like `evaluate_live`, it does not do again what an earlier call has finished.
    """
    job = _job(translator, None, sources, recognizer, batch_size)
    if finished := _finished(folder, job):
        return finished
    cuts = [cut(translator, source.waveform) for source in sources]
    utterances = [one.waveform[start:end] for one, spans in zip(sources, cuts, strict=True) for start, end in spans]
    found: list[SpeechTranslation] = []
    for first in range(0, len(utterances), batch_size):
        found += translator.translate_all(utterances[first : first + batch_size])
    parts = iter(found)
    results = [
        join([next(parts) for _ in spans], spans, len(source.waveform))
        for source, spans in zip(sources, cuts, strict=True)
    ]
    seconds = sum(len(source.waveform) for source in sources) / SAMPLE_RATE
    computing = sum(sum(result.seconds.values()) for result in results) / seconds
    texts = [result.translation for result in results]
    waveforms = [result.waveform for result in results]
    score = _score("offline", sources, waveforms, texts, recognizer, None, None, computing)
    write_json(folder / _SCORE, asdict(score) | {"job": job})
    return score


def evaluate_live(
    translator: Translator,
    settings: LiveSettings,
    sources: Sequence[Source],
    recognizer: Recognizer,
    folder: Path,
    batch_size: int = 1,
) -> LiveScore:
    """Translate every source live and score it.

    Writes folder/instances.log and folder/wavs, as SimulEval does, folder/text for evaluators of texts, and
    folder/score.json. A folder that an earlier call with the same model, settings and sources has finished is not
    evaluated again. Of `batch_size` sessions that are answered together, each is counted its share of the computing.
    """
    job = _job(translator, settings, sources, recognizer, batch_size)
    if finished := _finished(folder, job):
        return finished
    said, written, waveforms, texts = [], [], [], []
    seen: list[Latency] = []
    aware: list[Latency] = []
    computing = 0.0
    name = _name(settings)
    with meter(f"live: {name}", len(sources)) as progress:
        replays = replay(translator, settings, [source.waveform for source in sources], batch_size)
        for index, (source, replayed) in enumerate(zip(sources, replays, strict=True)):
            timed = replayed.events
            computing += replayed.computing
            texts.append(_text([event for event, _ in timed]))
            seconds = len(source.waveform) / SAMPLE_RATE
            speech = [(event, elapsed) for event, elapsed in timed if isinstance(event, SpeechChunk)]
            chunks = [Chunk(min(e.heard, seconds), len(e.waveform) / SAMPLE_RATE, elapsed) for e, elapsed in speech]
            joined = np.concatenate([np.zeros(0, np.float32), *(event.waveform for event, _ in speech)])
            waveforms.append(joined)
            words: Words = []
            if chunks:
                words = translator.align(joined, texts[-1], source.language)
                count = len(natural_pieces(source.reference, source.language))
                first = first_word_end(translator, source)
                seen.append(measure_latency(chunks, words, seconds, count, first))
                aware.append(measure_latency(chunks, words, seconds, count, first, computation_aware=True))
            said.append(speech_instance(index, source, chunks, [e.waveform for e, _ in speech], words, folder))
            written.append(text_instance(index, source, timed))
            progress.advance()
    total = sum(len(source.waveform) for source in sources) / SAMPLE_RATE
    score = _score(name, sources, waveforms, texts, recognizer, _mean(seen), _mean(aware), computing / total)
    write_logs(folder, sources, said, written)
    write_json(folder / _SCORE, asdict(score) | {"job": job})
    return score


def _job(
    translator: Translator,
    settings: LiveSettings | None,
    sources: Sequence[Source],
    recognizer: Recognizer,
    batch_size: int,
) -> str:
    """A digest of all that a score depends on."""
    identity = [(s.id, len(s.waveform)) for s in sources]
    options = settings and asdict(settings)
    return json_digest([_VERSION, translator.fingerprint(), options, recognizer.signature, identity, batch_size])


def _finished(folder: Path, job: str) -> LiveScore | None:
    """The score that an earlier call has written for this job."""
    if not (folder / _SCORE).exists() or (kept := read_json_object(folder / _SCORE)).pop("job", None) != job:
        return None
    return LiveScore(**(kept | {key: kept[key] and Latency(**kept[key]) for key in ("delays", "elapsed")}))


def measure_latency(
    chunks: Sequence[Chunk],
    words: Words,
    source_seconds: float,
    reference_words: int | None = None,
    first_word: float = 0.0,
    computation_aware: bool = False,
) -> Latency:
    """The latency of one utterance.

    Args:
        chunks: The pieces of its speech.
        words: The words in the speech, one chunk after the other without pauses, with their times.
        source_seconds: Length of the source.
        reference_words: Words of the reference.
        first_word: When the first word of the source has been said.
        computation_aware: Whether computing time counts.
    """
    put_out = [chunk.elapsed if computation_aware else chunk.delay for chunk in chunks]
    played = play_times(put_out, [chunk.seconds for chunk in chunks])
    delays = word_delays(chunks, words, computation_aware)
    return Latency(
        start_offset(played),
        start_offset(played) - first_word,
        end_offset([played[-1] + chunks[-1].seconds], source_seconds),
        average_token_delay(chunks, computation_aware),
        length_adaptive_average_lagging(delays, source_seconds, reference_words),
    )


def _text(events: Sequence[LiveEvent]) -> str:
    """The translation of all utterances of a session."""
    hypotheses: dict[int, str] = {}
    for event in events:
        if isinstance(event, CommittedText):
            hypotheses[event.utterance] = hypotheses.get(event.utterance, "") + event.text
    return join_texts(hypotheses.values())


def first_word_end(translator: Translator, source: Source) -> float:
    """When the first word of a source has been said, by forced alignment; 0 where it cannot be aligned."""
    words = translator.align(source.waveform, source.transcript, source.source_language)
    return next((end for _, start, end in words if end > start), 0.0)


def _name(settings: LiveSettings) -> str:
    if settings.policy == "utterance":
        return "utterance"
    detail = f"n={settings.agreement}" if settings.policy == "agreement" else f"k={settings.wait_words}"
    return f"{settings.policy} {detail}, {settings.chunk_seconds:g} s"


def _mean(latencies: Sequence[Latency]) -> Latency | None:
    if not latencies:
        return None
    values = np.mean([list(asdict(item).values()) for item in latencies], axis=0)
    return Latency(*(round(float(value), 4) for value in values))


def _score(
    name: str,
    sources: Sequence[Source],
    waveforms: Sequence[np.ndarray],
    texts: Sequence[str],
    recognizer: Recognizer,
    delays: Latency | None,
    elapsed: Latency | None,
    computing: float,
) -> LiveScore:
    audible = [i for i, waveform in enumerate(waveforms) if len(waveform) and not is_silent(waveform)]
    transcripts = [""] * len(sources)
    language = sources[0].language
    for i, text in zip(audible, recognizer.transcribe([waveforms[i] for i in audible], language), strict=True):
        transcripts[i] = recognizer.clean_hypothesis(text, language)
    references = [recognizer.clean_reference(source.reference, language) for source in sources]
    asr_bleu, _ = bleu(transcripts, references, samples=0)
    text_bleu, _ = bleu([recognizer.clean_hypothesis(text, language) for text in texts], references, samples=0)
    scores = (round(asr_bleu.score, 2), round(text_bleu.score, 2))
    return LiveScore(name, len(sources), *scores, len(sources) - len(audible), delays, elapsed, round(computing, 4))
