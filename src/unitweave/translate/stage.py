"""The translate stage: the test split, translated by one system of a run, shard by shard.

Started on several processes, each translates its part of the shards. A shard is whole or not there, and what is in it
depends on nothing but its utterances, so a translation that was interrupted ends in the same bytes.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from unitweave.config.translate import DecodingSettings, TranslateSettings
from unitweave.core.audio import write_audio
from unitweave.core.distributed import barrier, num_processes, on_main, process_share
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, write_lines, write_text
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter
from unitweave.core.records import json_lines
from unitweave.core.stage import StageResult, fingerprint_in
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.training.devices import resolve_device
from unitweave.translate.constraints import Translation
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder
from unitweave.units.dataset import read_units
from unitweave.vocoder.base import Vocoder

OUTPUTS = "outputs.jsonl"
SHARDS = "shards"

Decode = Callable[[Sequence[Pair], Sequence[np.ndarray]], list[Translation]]
WriteBatch = Callable[[Sequence[Pair]], list[str]]  # translates some utterances: a line for each


def translate_split(
    folder: Path,
    settings: TranslateSettings,
    corpus: Path,
    units: Path,
    model: Path,
    vocoder: Path,
    split: str = "test",
) -> StageResult:
    """Translate a split from its extracted units. All processes call this; finished shards are kept.

    Writes folder/outputs.jsonl, a line for each utterance, and folder/audio/ID.wav where the model speaks.

    Args:
        folder: The stage's folder, RUN/translate/SYSTEM.
        settings: How to translate.
        corpus: Folder of the manifest.
        units: Folder of the extracted units.
        model: Folder of the system's language model.
        vocoder: Folder of the vocoder.
        split: The split to translate.

    Raises:
        InputError: The split has no utterance with units, or the parts do not belong together.
    """
    manifest = read_manifest(corpus, split)
    sources = read_units(units, manifest.column("id"), ("src",))
    frames = sources.num_frames(manifest.column("id"), "src")
    order = np.argsort(frames, kind="stable")
    pairs = manifest.take(order[frames[order] >= 0])
    if not len(pairs):
        raise InputError(f"{corpus}: the {split} split has nothing to translate")

    def begin() -> WriteBatch:
        vocabulary, device = Vocabulary.load(model), resolve_device("auto")
        voice = (
            Vocoder.from_pretrained(vocoder, vocabulary.codebook, device, trust_functions=True)
            if vocabulary.has_speech
            else None
        )
        decode = _decoder(model, settings)
        return lambda part: _write(
            folder, part, decode(part, [sources[pair.id, "src"].units for pair in part]), voice, settings, vocabulary
        )

    write_in_shards(folder, pairs, settings, begin)
    cut_off = sum(not line.get("complete") for line in json_lines(folder / OUTPUTS))
    return StageResult(counts={"utterances": len(pairs), "cut_off": cut_off}, obsolete=(folder / SHARDS,))


def write_in_shards(
    folder: Path, pairs: Sequence[Pair], settings: TranslateSettings, begin: Callable[[], WriteBatch]
) -> None:
    """Write folder/outputs.jsonl, shard by shard; all processes call this, and finished shards are kept.

    Args:
        folder: The stage's folder.
        pairs: The utterances, in the order of the file.
        settings: Sizes of shards and batches.
        begin: Gives what translates a batch; called only where there is something to do.
    """
    shards = [pairs[first : first + settings.shard_size] for first in range(0, len(pairs), settings.shard_size)]
    fingerprint = fingerprint_in(folder)
    todo = on_main(lambda: [n for n, shard in enumerate(shards) if not _finished(folder, n, shard, fingerprint)])
    assigned = process_share(todo)
    if assigned:
        write_batch = begin()
        with meter(_label(folder.name), sum(len(shards[n]) for n in assigned)) as progress:
            for number in assigned:
                lines = []
                for first in range(0, len(shards[number]), settings.batch_size):
                    part = list(shards[number][first : first + settings.batch_size])
                    lines += write_batch(part)
                    progress.advance(len(part))
                text = "".join(lines)
                # Last of all: with it the shard is there.
                write_text(_shard(folder, number), f"{json_digest([fingerprint, text])}\n{text}")
    barrier()
    on_main(lambda: write_lines(folder / OUTPUTS, (_read_shard(folder, n)[1] for n in range(len(shards)))))


def _decoder(model: Path, settings: TranslateSettings) -> Decode:
    """What translates a batch, with the engine that the settings name."""
    if settings.engine == "vllm":
        from unitweave.translate.vllm import EngineDecoder, start_vllm

        engine = EngineDecoder(model, start_vllm(model), settings)
        return lambda pairs, units: engine.translate(units, [pair.tgt_lang for pair in pairs])
    decoder = PhaseDecoder.load(model, resolve_device("auto"))

    def decode(pairs: Sequence[Pair], units: Sequence[np.ndarray]) -> list[Translation]:
        return decoder.translate(units, settings, [ForcedPrefix(target_language=pair.tgt_lang) for pair in pairs])

    return decode


def _write(
    folder: Path,
    pairs: Sequence[Pair],
    translations: Sequence[Translation],
    voice: Vocoder | None,
    settings: DecodingSettings,
    vocabulary: Vocabulary,
) -> list[str]:
    """Write the speech of a batch; returns a line for each utterance."""
    speech = [np.zeros(0, np.float32)] * len(translations)
    if voice:
        speech = voice.synthesize([t.units for t in translations], settings.speaker, vocabulary.deduplicate)
    lines = []
    for pair, t, waveform in zip(pairs, translations, speech, strict=True):
        audio = f"audio/{pair.id}.wav" if voice else None
        if voice and audio:  # an empty translation still gets a file, so that it is scored and not left out
            audible = waveform if len(waveform) else np.zeros(1600, np.float32)
            write_audio(folder / audio, audible, voice.sample_rate)
        line = {
            "id": pair.id,
            "audio": audio,
            "language": t.language,
            "target_language": t.target_language,
            "transcript": t.transcript,
            "translation": None if vocabulary.task == "asr" else t.translation,
            "units": t.units.tolist(),
            "texts": vocabulary.texts,
            "deduplicated": vocabulary.deduplicate,
            "complete": t.complete,
        }
        lines.append(json.dumps(line, ensure_ascii=False) + "\n")
    return lines


def _shard(folder: Path, number: int) -> Path:
    return folder / SHARDS / f"{number:05d}.jsonl"


def _read_shard(folder: Path, number: int) -> tuple[str, str]:
    """The first line of a shard, a digest, and the lines of the utterances."""
    digest, _, text = _shard(folder, number).read_text(encoding="utf-8").partition("\n")
    return digest, text


def _finished(folder: Path, number: int, pairs: Sequence[Pair], fingerprint: str) -> bool:
    """Whether a shard is there, whole, of this stage, with its speech.

    And of these utterances, which one of another `shard_size` is not.
    """
    try:
        digest, text = _read_shard(folder, number)
    except (FileNotFoundError, UnicodeDecodeError):
        return False
    if digest != json_digest([fingerprint, text]):
        return False
    lines = [json.loads(line) for line in text.split("\n") if line]
    there = all(line["audio"] is None or (folder / line["audio"]).is_file() for line in lines)
    return there and [line["id"] for line in lines] == [pair.id for pair in pairs]


def _label(system: str) -> str:
    processes = num_processes()
    return f"{system}: translating" + (f" (one of {processes} shares)" if processes > 1 else "")
