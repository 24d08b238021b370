"""The score stage: the systems of a run, their ceilings, and whether they differ."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from sys import intern

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from unitweave.config.score import ScoreSettings
from unitweave.core.audio import read_audio, write_audio
from unitweave.core.distributed import on_main
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest
from unitweave.core.keyed import Keyed, Lazy
from unitweave.core.manifest import Manifest, Pair, read_manifest
from unitweave.core.progress import echo, meter
from unitweave.core.scripts import join_words
from unitweave.core.sequences import deduplicate, evenly_spaced
from unitweave.core.stage import StageResult, fingerprint_in
from unitweave.lm.data.dataset import language_groups
from unitweave.score.asr.recognizers import NoRecognizer, Recognizer, choose_recognizer, load_recognizer
from unitweave.score.asr.transcripts import AsrTranscript, AudioSource, transcribe
from unitweave.score.assemble import assemble, write_utterances
from unitweave.score.comet import add_comet, check_comet
from unitweave.score.mos import load_predictors
from unitweave.score.outputs import SystemOutput, SystemOutputs, read_outputs
from unitweave.score.rows import References, SystemTexts
from unitweave.score.scores import REFERENCE_SPEECH, RESYNTHESIS, SCORES_FILE, UTTERANCES_FILE, write_scores
from unitweave.score.speakers import SpeakerComparison, load_speaker_model
from unitweave.training.devices import check_device, resolve_device
from unitweave.units.dataset import UnitTable, read_units


def score_run(
    folder: Path,
    settings: ScoreSettings,
    corpus: Path,
    units: Path,
    vocoder: Path,
    outputs: Mapping[str, Path],
    trained_on: Path | None = None,
) -> StageResult:
    """Score the translated test split of each system; write scores.json and utterances.jsonl.

    Continues where an interrupted call with the same settings stopped. All processes call this, and share the speech
    recognition.

    Args:
        folder: The stage's own folder.
        settings: How to score.
        corpus: Folder of the manifest.
        units: Folder of the extracted units.
        vocoder: Folder of the vocoder, for the ceiling on resynthesized units.
        outputs: System -> folder with its outputs.jsonl; the first one is what the others are compared with.
        trained_on: Folder of the manifest that the systems were trained on; None for `corpus`.

    Raises:
        InputError: A system's outputs are missing, incomplete, damaged, or unlike the other systems' or the
            test split.
    """
    check_device(settings.device, "score.device")
    if not outputs:
        raise InputError(f"{folder}: no systems to score")
    manifest = read_manifest(corpus, "test")
    pairs = Keyed(manifest.column("id"), manifest.__getitem__)
    texts = {system: read_outputs(place, pairs) for system, place in outputs.items()}
    ids = _common_ids(texts, pairs)
    chosen = manifest.where(pc.is_in(manifest.column("id"), pa.array(ids, pa.string())))
    target_units = _target_units(units, ids)
    references = _references(chosen, target_units)
    trained = set(read_manifest(trained_on or corpus, "train").column("speaker").unique().to_pylist())
    known = chosen.column("speaker").to_pylist()
    if all(known):
        references.speaker_seen = [speaker in trained for speaker in known]
    targets = dict(zip(ids, references.target_language, strict=True))
    spoken = [system for system in outputs if any(texts[system].column("audio").unique().to_pylist())]
    recognizer: Recognizer = NoRecognizer()
    check_comet(settings, references.source_texts if spoken else [])
    speakers = load_speaker_model(settings) if spoken else None
    compared = SpeakerComparison(speakers, partial(_source_audio, pairs)) if speakers else None
    if spoken:
        recognizer_choice = choose_recognizer(settings.recognizer, settings.recognizer_model, targets.values())
        recognizer = load_recognizer(*recognizer_choice, settings.device)
    predictors, notes = load_predictors(settings.mos, settings.device)
    examples = evenly_spaced(ids, settings.examples, centered=True)
    sources = {system: _system_audio(outputs[system], texts[system], ids) for system in spoken}
    written = {system: _texts(texts[system], ids) for system in outputs}
    if settings.ceilings and spoken:
        of_units = [system for system in spoken if any(map(len, written[system].units))]  # a cascade has none
        deduplicated = bool(of_units) and all(written[system].deduplicated for system in of_units)
        sources |= _ceilings(vocoder, pairs, target_units, ids, notes, deduplicated, settings.device)
    for note in notes:
        echo(f"score: {note}")

    def keep(id: str, waveform: np.ndarray) -> None:
        if id in examples:
            write_audio(folder / "resynthesized" / f"{id}.wav", waveform)

    folder.mkdir(parents=True, exist_ok=True)
    # Transcripts and ratings of another run, recognizer or predictor do not count.
    signatures = [recognizer.signature, *(predictor.signature for predictor in predictors)]
    by = json_digest([fingerprint_in(folder), *signatures, *([compared.signature] if compared else [])])[:8]
    transcripts: dict[str, list[AsrTranscript]] = {}
    rated = evenly_spaced(ids, settings.mos_utterances or len(ids), centered=True)
    with meter("score: transcribing", len(ids) * len(sources)) as progress:
        for name, source in sources.items():
            source.languages = targets
            log = folder / f"transcripts-{name}-{by}.jsonl"  # a ceiling's name has a space, a system's never
            kept = keep if name == RESYNTHESIS else None
            transcripts[name] = transcribe(source, recognizer, log, progress, predictors, rated, kept, compared)

    def write() -> StageResult:
        source = _reference_columns(chosen)
        add_comet(transcripts, references, settings)
        scores = assemble(transcripts, written, references, recognizer, settings, source)
        scores.mos_predictors, scores.mos_utterances = [p.signature for p in predictors], len(rated)
        scores.training_hours = _training_hours(trained_on or corpus, len(set(targets.values())) > 1)
        scores.speaker_model = compared.signature if compared else None
        scores.comet_model = settings.comet if spoken and settings.comet else None
        scores.notes, scores.examples = notes, examples
        write_scores(folder / SCORES_FILE, scores)
        write_utterances(folder / UTTERANCES_FILE, transcripts, written, references, recognizer)
        bleu = {name: system.main_score for name, system in scores.systems.items()}
        return StageResult(counts={"utterances": len(ids)} | bleu)

    return on_main(write)


def _common_ids(outputs: Mapping[str, Mapping[str, SystemOutput]], pairs: Mapping[str, Pair]) -> list[str]:
    first, *others = outputs
    for other in others:
        for name, missing in (
            (other, outputs[first].keys() - outputs[other].keys()),
            (first, outputs[other].keys() - outputs[first].keys()),
        ):
            if missing:
                raise InputError(
                    f"system {name!r} lacks utterance {min(missing)!r}; translate the same utterances with each system"
                )
    return [id for id in pairs if id in outputs[first]]


def _references(pairs: Manifest, units: UnitTable) -> References:
    names = ("id", "tgt_text_raw", "tgt_text", "src_text_raw", "src_text", "src_lang", "tgt_lang")
    ids, raw, translation, source_raw, transcript, *codes = (pairs.column(name).to_pylist() for name in names)
    texts = [written or join_words(other or "") for written, other in zip(raw, translation, strict=True)]
    for id, text in zip(ids, texts, strict=True):
        if not text.strip():
            raise InputError(f"utterance {id}: no reference translation in the manifest")
    sources, targets = (list(map(intern, some)) for some in codes)
    directions = [intern(f"{source}-{other}") for source, other in zip(sources, targets, strict=True)]
    return References(
        ids=ids,
        texts=texts,
        translation=translation if all(translation) else None,
        transcript=transcript if all(text and text.strip() for text in transcript) else None,
        units=Lazy(ids, lambda id: units[id, "tgt"].units) if all((id, "tgt") in units for id in ids) else None,
        language=directions if len(set(targets)) > 1 else sources,
        target_language=targets,
        natural=all(raw),
        source_seconds=pairs.column("src_seconds").to_pylist(),
        source_texts=[raw or join_words(other or "") for raw, other in zip(source_raw, transcript, strict=True)],
    )


def _reference_columns(pairs: Iterable[Pair]) -> str:
    kinds = Counter("tgt_text_raw" if pair.tgt_text_raw else "tgt_text" for pair in pairs)
    return "+".join(sorted(kinds))


def _target_units(units: Path, ids: Sequence[str]) -> UnitTable:
    return read_units(units, ids, ("tgt",)) if any(units.glob("units-*.parquet")) else UnitTable([])


def _source_audio(pairs: Mapping[str, Pair], ids: Sequence[str]) -> list[np.ndarray | None]:
    audio = [(pairs[id].src_audio, pairs[id].src_seconds) for id in ids]
    return [read_audio(path, expected_seconds=seconds) if path else None for path, seconds in audio]


def _system_audio(folder: Path, outputs: Mapping[str, SystemOutput], ids: Sequence[str]) -> AudioSource:
    def load(ids: Sequence[str]) -> list[np.ndarray | None]:
        files = [outputs[id].audio for id in ids]
        return [read_audio(folder / file, complete=True) if file else None for file in files]

    return AudioSource(ids, load)


def _ceilings(
    vocoder: Path,
    pairs: Mapping[str, Pair],
    units: UnitTable,
    ids: Sequence[str],
    notes: list[str],
    deduplicated: bool,
    device: str,
) -> dict[str, AudioSource]:
    """Reference speech and resynthesized reference units, the latter with durations as all the systems have them."""
    sources = {}
    if all(pairs[id].tgt_audio for id in ids):
        sources[REFERENCE_SPEECH] = AudioSource(
            ids,
            lambda ids: [read_audio(pairs[id].tgt_audio or "", expected_seconds=pairs[id].tgt_seconds) for id in ids],
        )
    else:
        notes.append("no ceiling on reference speech: the corpus lacks it for some of the utterances")
    if not vocoder.is_dir() or any((id, "tgt") not in units for id in ids):
        notes.append("no ceiling on resynthesized units: no vocoder, or no units for some of the utterances")
    else:
        from unitweave.vocoder.base import Vocoder, at_16khz

        voice = Vocoder.from_pretrained(vocoder, device=resolve_device(device), trust_functions=True)
        if deduplicated:
            notes.append(f"{RESYNTHESIS}: repetitions dropped and durations predicted, as in the systems' own speech")

        def resynthesize(ids: Sequence[str]) -> list[np.ndarray | None]:
            rows = [units[id, "tgt"].units for id in ids]
            if deduplicated:
                rows = [deduplicate(row)[0] for row in rows]
            return [
                at_16khz(waveform, voice.sample_rate) for waveform in voice.synthesize(rows, deduplicated=deduplicated)
            ]

        sources[RESYNTHESIS] = AudioSource(ids, resynthesize)
    return sources


def _texts(outputs: SystemOutputs, ids: Sequence[str]) -> SystemTexts:
    places = pc.index_in(pa.array(ids, pa.string()), outputs.column("id"))

    def column(name: str) -> pa.Array:
        return outputs.column(name).take(places)

    return SystemTexts(
        pc.fill_null(column("transcript"), "").to_pylist(),
        pc.fill_null(column("translation"), "").to_pylist(),
        Lazy(places.to_pylist(), outputs.units),
        bool(pc.any(column("deduplicated")).as_py()),
        column("translation").null_count < len(ids),
        "natural" in column("texts").unique().to_pylist(),
    )


def _training_hours(corpus: Path, by_direction: bool) -> dict[str, float]:
    pairs = read_manifest(corpus, "train")
    lasting = pc.fill_null(pairs.column("src_seconds"), 0).to_numpy().astype(float)
    seconds: dict[str, float] = {}
    for (source, target), group in language_groups(pairs).items():
        name = f"{source}-{target}" if by_direction else source
        seconds[name] = seconds.get(name, 0.0) + float(lasting[group].sum())
    return {language: round(total / 3600, 2) for language, total in sorted(seconds.items())}
