"""Speech in, translated speech out: units, stage-constrained decoding and the vocoder, one after the other."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from unitweave.config.translate import DecodingSettings
from unitweave.core.audio import SAMPLE_RATE, is_silent, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, digest_of_file
from unitweave.core.text import normalize
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder, Streamer
from unitweave.translate.engines import precision_of
from unitweave.translate.package import Parts, find_parts
from unitweave.units.extractor import UnitExtractor
from unitweave.vocoder.synthesis import Vocoder

_BATCH_SECONDS = 120.0  # seconds of padded speech in one pass of the encoder
MIN_SAMPLES = 800  # at 16 kHz: every encoder makes a frame of 50 ms
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
        units: int64 [frames] of the translation, 50 a second.
        complete: False where a length limit cut the model off.
        score: Mean log-probability of the tokens that the model chose.
        scores: The same stage by stage.
        seconds: Wall time of each stage, shared out over the recordings of the batch.
        source_seconds: How long the recording lasts.
        target_language: Code of the language of the translation; empty for a model without texts.
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

    @property
    def real_time_factor(self) -> float:
        """Seconds of computing for a second of the recording."""
        return sum(self.seconds.values()) / max(self.source_seconds, 1e-9)

    def save(self, path: Path) -> None:
        """Write the waveform in the format of the suffix (.wav, .flac)."""
        write_audio(path, self.waveform if len(self.waveform) else np.zeros(1600, np.float32))

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
        }


class Translator:
    """Encoder, codebook, language model and vocoder of one run, ready to translate recordings."""

    def __init__(
        self, extractor: UnitExtractor, decoder: PhaseDecoder, vocoder: Vocoder, parts: Parts | None = None
    ) -> None:
        self.extractor, self.decoder, self.vocoder, self.parts = extractor, decoder, vocoder, parts
        self.settings = parts.settings if parts else DecodingSettings()

    @classmethod
    def from_pretrained(
        cls,
        path: Path | str,
        system: str | None = None,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        engine: str | None = None,
    ) -> "Translator":
        """From a run folder, a folder that `unitweave export` wrote, or the name of one on the hub (`owner/name`).

        system  which system of a run folder; needed where it has several and none is called "scheduled"
        dtype   of the language model; torch.bfloat16 is faster and gives slightly other results
        engine  of the language model: "int8" for integer weights on a CPU; None takes what the folder holds
        Raises InputError when a part is missing, or made for the units of another codebook.
        """
        return cls.from_parts(find_parts(path, system), device, dtype, engine)

    @classmethod
    def from_run(cls, run: Path, system: str) -> "Translator":
        """From a run folder and the name of one of its systems. Raises InputError when a part is missing or foreign."""
        return cls.from_parts(Parts.of_run(Path(run), system))

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
        extractor = UnitExtractor.load(parts.encoder, parts.codebook)
        decoder = PhaseDecoder.load(parts.language_model, device, dtype, engine)
        return cls(extractor, decoder, Vocoder.from_pretrained(parts.vocoder, book, device), parts)

    def fingerprint(self) -> str:
        """16 hexadecimal digits that name the model: equal digits, equal results."""
        if self.parts is None:
            raise InputError("a translator that was not loaded from a folder has no fingerprint")
        files = sorted(self.parts.language_model.glob("*.safetensors"))
        weights = [digest_of_file(f) for f in [*files, self.parts.vocoder / "model.safetensors"]]
        return digest_of([weights, self.extractor.codebook.fingerprint, precision_of(self.decoder.model)])

    def translate(
        self,
        recording: np.ndarray | Path | str,
        settings: DecodingSettings | None = None,
        prefix: ForcedPrefix | None = None,
        target_language: str | None = None,
    ) -> SpeechTranslation:
        """Translate one recording.

        Args:
            recording: A file, or float32 [samples] at 16 kHz.
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
        recordings: Sequence[np.ndarray | Path | str],
        settings: DecodingSettings | None = None,
        prefixes: Sequence[ForcedPrefix | None] | None = None,
        streamer: Streamer | None = None,
    ) -> list[SpeechTranslation]:
        """Translate several recordings together.

        Args:
            recordings: Files, or float32 [samples] at 16 kHz.
            settings: How to decode (default: as the model's maker does).
            prefixes: What is known about each recording.
            streamer: Gets texts and units as they are decoded (`stream_speech` turns units into sound).

        Raises:
            InputError: A recording cannot be read or is too short, or a language is unknown.
        """
        settings = settings or self.settings
        for prefix in prefixes or [None]:
            self.check_prefix(prefix, settings)
        waveforms = [r if isinstance(r, np.ndarray) else read_audio(Path(r)) for r in recordings]
        for recording, waveform in zip(recordings, waveforms, strict=True):
            check_audible(waveform, "the recording" if isinstance(recording, np.ndarray) else str(recording))
        clock = [time.monotonic()]
        sources = self.units_of(waveforms)
        clock.append(time.monotonic())
        hypotheses = self.decoder.translate(sources, settings, prefixes, streamer)
        clock.append(time.monotonic())
        synthesized = self.vocoder.synthesize(
            [t.units for t in hypotheses], settings.speaker, self.decoder.vocabulary.deduplicate
        )
        clock.append(time.monotonic())
        share = 1 / max(1, len(waveforms))
        results = []
        for waveform, t, speech in zip(waveforms, hypotheses, synthesized, strict=True):
            seconds = {"source units": (clock[1] - clock[0]) * share, **t.seconds}
            if len(speech):
                seconds["vocoder"] = (clock[3] - clock[2]) * share
            results.append(
                SpeechTranslation(
                    waveform=speech,
                    sampling_rate=SAMPLE_RATE,
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
                )
            )
        return results

    def check_prefix(self, prefix: ForcedPrefix | None, settings: DecodingSettings | None = None) -> None:
        """Raise InputError for a language that the model lacks, or that is missing, before anything is computed."""
        self.decoder.constraints.forced(prefix, (settings or self.settings).target_language)

    def units_of(self, waveforms: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Units of each waveform, in batches of similar length that fit into memory."""
        found: list[np.ndarray] = [np.empty(0, np.uint16)] * len(waveforms)
        batch: list[int] = []
        order = sorted(range(len(waveforms)), key=lambda i: len(waveforms[i]))
        for place, i in enumerate(order):
            batch.append(i)
            following = len(waveforms[order[place + 1]]) if place + 1 < len(order) else 0
            if not following or following * (len(batch) + 1) > _BATCH_SECONDS * SAMPLE_RATE:
                for j, (units, _) in zip(batch, self.extractor.extract([waveforms[j] for j in batch]), strict=True):
                    found[j] = units
                batch = []
        return found

    def stream_speech(self, units: Iterator[int], chunk_frames: int = 25) -> Iterator[np.ndarray]:
        """Waveform, float32 at 16 kHz, chunk by chunk, of units that are still being decoded."""
        yield from self.vocoder.stream(
            units, chunk_frames, self.settings.speaker, deduplicated=self.decoder.vocabulary.deduplicate
        )

    def align(self, waveform: np.ndarray, text: str, language: str) -> Words:
        """Each word of `text` with the seconds at which it begins and ends in the waveform, by forced alignment.

        A word that the encoder's alphabet cannot spell, or a text too long for the sound, gets no time: (word, 0, 0).
        """
        words = normalize(text, language).split()
        if not words or len(waveform) < MIN_SAMPLES:
            return [(word, 0.0, 0.0) for word in words]
        _, frames = self.extractor.extract([waveform], [" ".join(words)])[0]
        rate = self.extractor.front_end.frame_rate
        if frames is None:
            return [(word, 0.0, 0.0) for word in words]
        return [
            (word, float(start) / rate, float(end) / rate)
            for word, start, end in zip(words, frames.starts, frames.ends, strict=True)
        ]


def check_audible(waveform: np.ndarray, name: str) -> None:
    """Raise InputError when a waveform at 16 kHz is too short for a frame of any encoder, or only silence."""
    if len(waveform) < MIN_SAMPLES:
        raise InputError(f"{name}: too short to translate; it lasts {len(waveform) / SAMPLE_RATE:.3f} s")
    if is_silent(waveform):
        raise InputError(f"{name}: the recording is silent")
