"""Speech in, English speech out: units, stage-constrained decoding and the vocoder, one after the other."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, remove
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import Outcome
from unitweave.lm.decode import DecodeSettings, StageDecoder
from unitweave.units.extract import UnitExtractor
from unitweave.units.features import num_frames
from unitweave.units.table import read_units
from unitweave.vocoder.synthesis import Vocoder


@dataclass
class SpeechTranslation:
    """A translated recording.

    waveform       float32 [samples] at `sampling_rate` Hz
    language       of the source, as the model heard it; transcript of the source and its translation
    units          int64 [frames] of the translation, 50 a second
    complete       False where a length limit cut the model off
    score          mean log-probability of the tokens that the model chose
    seconds        wall time of each stage, shared out over the recordings of the batch
    """

    waveform: np.ndarray
    sampling_rate: int
    language: str
    transcript: str
    translation: str
    units: np.ndarray
    complete: bool
    score: float
    seconds: dict[str, float] = field(default_factory=dict)


class Translator:
    """Encoder, codebook, language model and vocoder of one run, ready to translate recordings."""

    def __init__(self, extractor: UnitExtractor, decoder: StageDecoder, vocoder: Vocoder) -> None:
        self.extractor, self.decoder, self.vocoder = extractor, decoder, vocoder

    @classmethod
    def from_run(cls, run: Path, system: str) -> "Translator":
        """From a run folder and the name of one of its systems. Raises InputError when a part is missing or foreign."""
        run = Path(run)
        if not (run / "lm" / system / "model").exists():
            known = ", ".join(sorted(p.parent.name for p in run.glob("lm/*/model"))) or "none yet"
            raise InputError(f"{run}: has no trained system {system!r}; it has: {known}")
        extractor = UnitExtractor.load(run / "encoder" / "model", run / "codebook")
        decoder = StageDecoder.load(run / "lm" / system / "model")
        book = extractor.codebook.fingerprint
        if decoder.vocabulary.codebook != book:
            raise InputError(f"{run}/lm/{system}: this language model speaks the units of another codebook")
        return cls(extractor, decoder, Vocoder.from_pretrained(run / "vocoder", codebook=book))

    def translate(
        self, recording: np.ndarray | Path | str, settings: DecodeSettings | None = None
    ) -> SpeechTranslation:
        """Translate one recording: a file, or float32 [samples] at 16 kHz."""
        return self.translate_all([recording], settings)[0]

    def translate_all(
        self, recordings: Sequence[np.ndarray | Path | str], settings: DecodeSettings | None = None
    ) -> list[SpeechTranslation]:
        """Translate several recordings together. Raises InputError for one that cannot be read or is too short."""
        waveforms = [r if isinstance(r, np.ndarray) else read_audio(r) for r in recordings]
        for recording, waveform in zip(recordings, waveforms, strict=True):
            if num_frames(len(waveform)) == 0:
                name = "the recording" if isinstance(recording, np.ndarray) else recording
                raise InputError(f"{name}: too short to translate; it lasts {len(waveform) / SAMPLE_RATE:.3f} s")
        clock = [time.monotonic()]
        sources = [units for units, _ in self.extractor.extract(waveforms)]
        clock.append(time.monotonic())
        said = self.decoder.translate(sources, settings or DecodeSettings())
        clock.append(time.monotonic())
        spoken = speak(self.vocoder, [t.units for t in said], self.decoder.vocabulary.deduplicate)
        clock.append(time.monotonic())
        spent = np.diff(clock) / len(waveforms)
        seconds = dict(zip(("units", "language model", "vocoder"), spent.tolist(), strict=True))
        return [
            SpeechTranslation(
                w, SAMPLE_RATE, t.language, t.transcript, t.translation, t.units, t.complete, t.score, seconds
            )
            for t, w in zip(said, spoken, strict=True)
        ]


def speak(vocoder: Vocoder, units: Sequence[np.ndarray], deduplicated: bool = False) -> list[np.ndarray]:
    """Waveform of each unit sequence, with or without repetitions; nothing said is an empty waveform."""
    heard = [i for i, u in enumerate(units) if len(u)]
    waveforms = [np.zeros(0, np.float32) for _ in units]
    made = vocoder.synthesise([units[i] for i in heard], deduplicated=deduplicated) if heard else []
    for i, waveform in zip(heard, made, strict=True):
        waveforms[i] = waveform
    return waveforms


def translate_split(
    folder: Path, settings: DecodeSettings, corpus: Path, units: Path, model: Path, vocoder: Path, split: str = "test"
) -> Outcome:
    """Translate a split from its extracted units; writes folder/outputs.jsonl and a wav for each utterance."""
    rows = read_units(units)
    pairs = [pair for pair in read_manifest(corpus, split) if (pair.id, "src") in rows]
    if not pairs:
        raise InputError(f"{corpus}: the {split} split has nothing to translate")
    decoder = StageDecoder.load(model)
    voice = Vocoder.from_pretrained(vocoder, codebook=decoder.vocabulary.codebook)
    audio = folder / "audio"
    remove(audio)
    lines = []
    cut = 0
    pairs = sorted(pairs, key=lambda p: len(rows[p.id, "src"].units))
    with meter(f"{folder.name}: translating", len(pairs)) as progress:
        for first in range(0, len(pairs), settings.batch):
            part = pairs[first : first + settings.batch]
            start = time.monotonic()
            said = decoder.translate([rows[p.id, "src"].units for p in part], settings)
            spoken = speak(voice, [t.units for t in said], decoder.vocabulary.deduplicate)
            seconds = (time.monotonic() - start) / len(part)
            for pair, t, waveform in zip(part, said, spoken, strict=True):
                # A system that says nothing still has a file, so that it is scored and not left out.
                write_audio(audio / f"{pair.id}.wav", waveform if len(waveform) else np.zeros(1600, np.float32))
                cut += not t.complete
                lines.append(
                    {
                        "id": pair.id,
                        "audio": f"audio/{pair.id}.wav",
                        "language": t.language,
                        "transcript": t.transcript,
                        "translation": t.translation,
                        "units": t.units.tolist(),
                        "complete": t.complete,
                        "seconds": round(seconds, 4),
                    }
                )
            progress.advance(len(part))
    with atomic_path(folder / "outputs.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines), encoding="utf-8")
    return Outcome(counts={"utterances": len(pairs), "cut_off": cut})
