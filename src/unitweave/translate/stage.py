"""The translate stage: the test split, translated by one system of a run."""

import json
import time
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.config.translate import DecodingSettings
from unitweave.core.audio import write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import remove, write_text
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import meter
from unitweave.core.stage import StageResult
from unitweave.training.devices import device_of
from unitweave.translate.decode import PhaseDecoder
from unitweave.units.dataset import read_units
from unitweave.vocoder.synthesis import Vocoder

OUTPUTS = "outputs.jsonl"


def translate_split(
    folder: Path, settings: DecodingSettings, corpus: Path, units: Path, model: Path, vocoder: Path, split: str = "test"
) -> StageResult:
    """Translate a split from its extracted units.

    Writes folder/outputs.jsonl, a line for each utterance, and folder/audio/ID.wav.

    Args:
        folder: The stage's folder, RUN/translate/SYSTEM.
        settings: How to decode.
        corpus: Folder of the manifest.
        units: Folder of the extracted units.
        model: Folder of the system's language model.
        vocoder: Folder of the vocoder.
        split: The split to translate.

    Raises:
        InputError: The split has no utterance with units, or the parts do not belong together.
    """
    rows = read_units(units)
    pairs = [pair for pair in read_manifest(corpus, split) if (pair.id, "src") in rows]
    if not pairs:
        raise InputError(f"{corpus}: the {split} split has nothing to translate")
    device = device_of("auto")
    decoder = PhaseDecoder.load(model, device)
    voice = Vocoder.from_pretrained(vocoder, decoder.vocabulary.codebook, device)
    audio = folder / "audio"
    remove(audio)
    lines: list[dict[str, Any]] = []
    pairs = sorted(pairs, key=lambda p: len(rows[p.id, "src"].units))
    with meter(f"{folder.name}: translating", len(pairs)) as progress:
        for first in range(0, len(pairs), settings.batch_size):
            part = pairs[first : first + settings.batch_size]
            start = time.monotonic()
            hypotheses = decoder.translate([rows[p.id, "src"].units for p in part], settings)
            synthesized = voice.synthesize(
                [t.units for t in hypotheses], settings.speaker, decoder.vocabulary.deduplicate
            )
            seconds = (time.monotonic() - start) / len(part)
            for pair, t, waveform in zip(part, hypotheses, synthesized, strict=True):
                # An empty translation still gets a file, so that it is scored and not left out.
                write_audio(audio / f"{pair.id}.wav", waveform if len(waveform) else np.zeros(1600, np.float32))
                lines.append(
                    {
                        "id": pair.id,
                        "audio": f"audio/{pair.id}.wav",
                        "language": t.language,
                        "transcript": t.transcript,
                        "translation": t.translation,
                        "units": t.units.tolist(),
                        "deduplicated": decoder.vocabulary.deduplicate,
                        "complete": t.complete,
                        "seconds": round(seconds, 4),
                    }
                )
            progress.advance(len(part))
    write_text(folder / OUTPUTS, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    return StageResult(counts={"utterances": len(pairs), "cut_off": sum(not line["complete"] for line in lines)})
