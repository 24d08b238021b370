"""Speech in, translated speech out: units, stage-constrained decoding and the vocoder, one after the other."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitweave.config.translate import DecodingSettings
from unitweave.core.audio import SAMPLE_RATE, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, json_digest
from unitweave.core.natural import natural_pieces
from unitweave.core.text import normalize
from unitweave.corpus.samples import AudioInput, as_waveform
from unitweave.translate.checks import MIN_SAMPLES, check_audible
from unitweave.translate.constraints import TRANSCRIPT, TRANSLATION
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder, Streamer, Translation, Wanted
from unitweave.translate.engines import model_precision
from unitweave.translate.package import Parts, find_parts
from unitweave.units.align import utterance_score
from unitweave.units.extractor import UnitExtractor
from unitweave.units.tokenizer import SpeechTokenizer, configured_tokenizer
from unitweave.vocoder.base import Vocoder, at_16khz

_DOMAIN_RATIO = 0.05  # of what transcripts of the training data reach; benchmarks/confidence.py measures it
UNSURE = (
    "the transcript does not fit the recording: probably another language, noise, or speech unlike the training data"
)
_BATCH_SECONDS = 120.0  # seconds of padded speech in one pass of the encoder
Words = list[tuple[str, float, float]]  # each with the seconds at which it begins and ends


@dataclass
class SpeechTranslation:
    """A translated recording.

    Attributes:
        waveform: float32 [samples] at `sampling_rate` Hz; empty where only the text was wanted.
        sampling_rate: Of the waveform, in Hz.
        language: Code of the source language, as the model identified it.
        transcript: What is said in the recording.
        translation: Its translation.
        units: int64 [frames] of the translation.
        complete: False where a length limit cut the model off.
        score: Mean log-probability of the tokens that the model chose.
        scores: The same stage by stage.
        seconds: Wall time of each stage, shared out over the recordings of the batch.
        source_seconds: How long the recording lasts.
        target_language: Code of the language of the translation; empty for a model without texts.
        confidence: 0 to 1, how well the transcript fits what the encoder makes of the recording; None without one.
        in_domain: False where it fits far worse than nineteen of twenty that the model was trained on: another
            language, noise, or a kind of speech that it does not know; None where nobody knows.
    """

    waveform: np.ndarray
    sampling_rate: int
    language: str
    transcript: str
    translation: str
    units: np.ndarray
    complete: bool
    score: float
    scores: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    source_seconds: float = 0.0
    target_language: str = ""
    confidence: float | None = None
    in_domain: bool | None = None

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for a second of the recording."""
        return sum(self.seconds.values()) / max(self.source_seconds, 1e-9)

    def save(self, path: Path) -> None:
        """Write the waveform in the format of the suffix (.wav, .flac)."""
        write_audio(path, self.waveform if len(self.waveform) else np.zeros(1600, np.float32), self.sampling_rate)

    def plain(self) -> dict[str, Any]:
        """Everything but the waveform, as JSON has it."""
        return {
            "language": self.language,
            "target_language": self.target_language,
            "transcript": self.transcript,
            "translation": self.translation,
            "units": self.units.tolist(),
            "complete": self.complete,
            "score": round(self.score, 4),
            "scores": {name: round(value, 4) for name, value in self.scores.items()},
            "seconds": {name: round(value, 4) for name, value in self.seconds.items()},
            "source_seconds": round(self.source_seconds, 3),
            "confidence": None if self.confidence is None else round(self.confidence, 4),
            "in_domain": self.in_domain,
        }


class Translator:
    """Encoder, codebook, language model and vocoder of one run, ready to translate recordings."""

    def __init__(
        self,
        tokenizer: SpeechTokenizer,
        decoder: PhaseDecoder,
        vocoder: Vocoder | None,
        parts: Parts | None = None,
        extractor: UnitExtractor | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            tokenizer: Makes the units: an encoder with its codebook, or any other.
            decoder: The language model.
            vocoder: None for a model that was trained to text only.
            parts: Where all of them lie.
            extractor: The encoder that aligns words, where the tokenizer is another one; None where there is none.
        """
        self.tokenizer, self.decoder, self.vocoder, self.parts = tokenizer, decoder, vocoder, parts
        self.extractor = tokenizer if isinstance(tokenizer, UnitExtractor) else extractor
        self.settings = parts.settings if parts else DecodingSettings()

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        system: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        engine: str | None = None,
        trust_functions: bool = False,
    ) -> "Translator":
        """From a run folder, a folder that `unitweave export` wrote, or the name of one on the hub (`owner/name`).

        Args:
            path: The folder or the name.
            system: Which system of a run folder; needed where it has several and none is called "scheduled".
            device: Where it computes.
            dtype: Of the language model; torch.bfloat16 is faster and gives slightly other results.
            engine: Of the language model: "int8" for integer weights on a CPU; None takes what the folder holds.
            trust_functions: Whether a run folder may name Python functions (a tokenizer, a vocoder) that are then
                imported and called: only for runs that you know.

        Raises:
            InputError: A part is missing, made for the units of another codebook, or a function that is not trusted.
        """
        return cls.from_parts(find_parts(path, system, trust_functions), device, dtype, engine)

    @classmethod
    def from_parts(
        cls,
        parts: Parts,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        engine: str | None = None,
    ) -> "Translator":
        """From the folders of the parts. Raises InputError when they do not belong together."""
        book = parts.check()
        tokenizer: SpeechTokenizer | None = configured_tokenizer(parts.units)
        extractor = None
        if tokenizer is None:
            tokenizer = UnitExtractor.load(parts.encoder, parts.codebook)
        elif tokenizer.fingerprint != book:
            raise InputError(f"units.tokenizer: makes units of codebook {tokenizer.fingerprint}, not of {book}")
        elif parts.encoder.is_dir():
            extractor = UnitExtractor.without_codebook(parts.encoder)
        decoder = PhaseDecoder.load(parts.language_model, device, dtype, engine)
        vocoder = None
        if decoder.vocabulary.has_speech:
            vocoder = Vocoder.from_pretrained(parts.vocoder, book, device, parts.trust_functions)
            vocoder.speaker_index(parts.settings.speaker)  # an unknown speaker is refused before anything is decoded
        return cls(tokenizer, decoder, vocoder, parts, extractor)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the model: equal digits, equal results."""
        if self.parts is None:
            raise InputError("a translator that was not loaded from a folder has no fingerprint")
        files = sorted(self.parts.language_model.glob("*.safetensors"))
        if self.vocoder:
            files.append(next(self.parts.vocoder.glob("*.safetensors"), self.parts.vocoder / "config.json"))
        weights = [file_digest(f) for f in files]
        return json_digest([weights, self.tokenizer.fingerprint, model_precision(self.decoder.model)])

    def translate(
        self,
        recording: AudioInput,
        settings: DecodingSettings | None = None,
        prefix: ForcedPrefix | None = None,
        target_language: str | None = None,
    ) -> SpeechTranslation:
        """Translate one recording.

        Args:
            recording: A file, its bytes, (samples, rate in Hz), or samples at 16 kHz: floats or integers, of any
                number of channels.
            settings: How to decode (default: as the model's maker does).
            prefix: The transcript, the translation and the languages, as far as they are known.
            target_language: Code of the language to translate into; needed where the model has several.

        Raises:
            InputError: The recording cannot be read or is too short, or a language is unknown or missing.
        """
        if target_language:
            prefix = replace(prefix or ForcedPrefix(), target_language=target_language)
        return self.translate_all([recording], settings, [prefix])[0]

    def translate_all(
        self,
        recordings: Sequence[AudioInput],
        settings: DecodingSettings | None = None,
        prefixes: Sequence[ForcedPrefix | None] | None = None,
        streamer: Streamer | None = None,
        wanted: Wanted | None = None,
    ) -> list[SpeechTranslation]:
        """Translate several recordings together.

        Args:
            recordings: As `translate` takes them.
            settings: How to decode (default: as the model's maker does).
            prefixes: What is known about each recording.
            streamer: Gets texts and units as they are decoded (`stream_speech` turns units into sound).
            wanted: Asked at each step of the decoding; a recording that is no longer wanted ends there.

        Raises:
            InputError: A recording cannot be read or is too short, or a language is unknown.
        """
        settings = settings or self.settings
        for prefix in prefixes or [None]:
            self.check_prefix(prefix, settings)
        waveforms = [as_waveform(recording) for recording in recordings]
        for recording, waveform in zip(recordings, waveforms, strict=True):
            check_audible(waveform, str(recording) if isinstance(recording, str | Path) else "the recording")
        clock = [time.monotonic()]
        encoded = self.encode(waveforms)
        sources = [units for units, _ in encoded]
        clock.append(time.monotonic())
        hypotheses = self.decoder.translate(sources, settings, prefixes, streamer, wanted=wanted)
        clock.append(time.monotonic())
        synthesized = [np.zeros(0, np.float32)] * len(hypotheses)
        if self.vocoder:
            units = [t.units for t in hypotheses]
            synthesized = self.vocoder.synthesize(units, settings.speaker, self.decoder.vocabulary.deduplicate)
        clock.append(time.monotonic())
        share = 1 / max(1, len(waveforms))
        results = []
        confidences = self._confidences([log_probs for _, log_probs in encoded], hypotheses)
        for waveform, t, speech, confidence in zip(waveforms, hypotheses, synthesized, confidences, strict=True):
            seconds = {"source units": (clock[1] - clock[0]) * share, **t.seconds}
            if len(speech):
                seconds["vocoder"] = (clock[3] - clock[2]) * share
            results.append(
                SpeechTranslation(
                    waveform=speech,
                    sampling_rate=self.vocoder.sample_rate if self.vocoder else SAMPLE_RATE,
                    language=t.language,
                    transcript=t.transcript,
                    translation=t.translation,
                    units=t.units,
                    complete=t.complete,
                    score=t.score,
                    scores=t.scores,
                    seconds=seconds,
                    source_seconds=len(waveform) / SAMPLE_RATE,
                    target_language=t.target_language,
                    confidence=confidence,
                    in_domain=self._is_in_domain(confidence),
                )
            )
        return results

    def check_prefix(
        self, prefix: ForcedPrefix | None, settings: DecodingSettings | None = None, seconds: float | None = None
    ) -> None:
        """Raise InputError for a language that the model lacks, or that is missing, before anything is computed.

        With the seconds of a recording also for a text that is longer than the model could write about it.
        """
        settings = settings or self.settings
        forced = self.decoder.constraints.forced(prefix, settings.target_language)
        if seconds is not None:
            max_tokens = round(seconds * settings.max_text_tokens_per_second + 16)
            for phase, name in ((TRANSCRIPT, "transcript"), (TRANSLATION, "translation")):
                if (tokens := len(forced.get(phase, ()))) > max_tokens:
                    raise InputError(
                        f"{name}: too long for a recording of {seconds:.1f} s ({tokens} tokens; at most {max_tokens})"
                    )

    @cached_property
    def utterance_seconds(self) -> float | None:
        """How long the source recordings are that the model was trained on; None where nobody knows."""
        trained_seconds = self.decoder.vocabulary.utterance_seconds
        return trained_seconds if trained_seconds is not None or self.parts is None else self.parts.utterance_seconds()

    def transcript_scores(
        self, log_probs: Sequence[np.ndarray], hypotheses: Sequence[Translation]
    ) -> list[tuple[list[str], np.ndarray] | None]:
        """Normalized words of each transcript, and how well each fits the encoder's view of its recording, 0 to 1.

        None where there is no encoder or no text.
        """
        if self.extractor is None:
            return [None] * len(hypotheses)
        texts = [normalize(t.transcript, t.language) for t in hypotheses]
        frames = self.extractor.align(log_probs, texts)
        pairs = zip(texts, frames, strict=True)
        return [(text.split(), words.scores) if words is not None else None for text, words in pairs]

    def _confidences(self, log_probs: Sequence[np.ndarray], hypotheses: Sequence[Translation]) -> list[float | None]:
        """How well each transcript fits the encoder's own view of its recording."""
        if self.extractor is None:
            return [None] * len(hypotheses)
        scores = self.transcript_scores(log_probs, hypotheses)
        return [
            utterance_score(*one) if one is not None else None if not t.language else 0.0
            for one, t in zip(scores, hypotheses, strict=True)
        ]

    def _is_in_domain(self, confidence: float | None) -> bool | None:
        threshold = self.decoder.vocabulary.source_score
        return None if confidence is None or threshold is None else confidence >= _DOMAIN_RATIO * threshold

    def encode(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Units and CTC log-probabilities of each waveform, in batches of similar length that fit into memory.

        The latter are empty without an encoder.
        """
        found = [(np.empty(0, np.uint16), np.empty((0, 0), np.float32))] * len(waveforms)
        batch: list[int] = []
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        for place, i in enumerate(order):
            batch.append(i)
            following = len(waveforms[order[place + 1]]) if place + 1 < len(order) else 0
            if not following or following * (len(batch) + 1) > _BATCH_SECONDS * SAMPLE_RATE:
                for j, encoded in zip(batch, self._encoded([waveforms[j] for j in batch]), strict=True):
                    found[j] = encoded
                batch = []
        return found

    def _encoded(self, waveforms: Sequence[np.ndarray]) -> list[tuple[np.ndarray, np.ndarray]]:
        if isinstance(self.tokenizer, UnitExtractor):
            return self.tokenizer.encode(waveforms)
        nothing = [np.empty((0, 0), np.float32)] * len(waveforms)
        log_probs = [probs for _, probs in self.extractor.encode(waveforms)] if self.extractor else nothing
        tokens = self.tokenizer.tokenize(waveforms)
        return [(encoded.units, probs) for encoded, probs in zip(tokens, log_probs, strict=True)]

    @property
    def speech_vocoder(self) -> Vocoder:
        """The vocoder. Raises InputError for a model that was trained to text only."""
        if self.vocoder is None:
            raise InputError("this model was trained for text only and returns no speech")
        return self.vocoder

    def stream_speech(self, units: Iterator[int], chunk_seconds: float = 0.5) -> Iterator[np.ndarray]:
        """Waveform, float32 at the vocoder's sampling rate, chunk by chunk, of units that are still being decoded."""
        voice, deduplicated = self.speech_vocoder, self.decoder.vocabulary.deduplicate
        frames = max(1, round(chunk_seconds * voice.frame_rate))
        yield from voice.stream(units, frames, self.settings.speaker, deduplicated)

    def align(self, waveform: np.ndarray, text: str, language: str, sampling_rate: int = SAMPLE_RATE) -> Words:
        """Each word of `text` with the seconds at which it begins and ends in the waveform, by forced alignment.

        In scripts without spaces it is each cluster.

        A word that the encoder's alphabet cannot spell, or a text too long for the sound, gets no time: (word, 0, 0).
        So does every word where there is no encoder, but a tokenizer from elsewhere.
        """
        waveform = at_16khz(waveform, sampling_rate)
        pieces = natural_pieces(text, language)
        words = normalize(text, language).split()
        alignable = bool(words) and len(waveform) >= MIN_SAMPLES
        encoder = self.extractor
        frames = encoder.extract([waveform], [" ".join(words)])[0][1] if encoder and alignable else None
        rate = encoder.frame_rate if encoder else 1.0
        result, first = [], 0
        for piece in pieces:
            last = first + piece.words
            start, end = (frames.starts[first], frames.ends[last - 1]) if frames is not None and piece.words else (0, 0)
            result.append((piece.text.strip(), float(start) / rate, float(end) / rate))
            first = last
        return result
