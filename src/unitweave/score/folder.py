"""Scores for the output of any system: folders of audio files, and a file of references."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from unitweave.config.score import ScoreSettings
from unitweave.core.audio import SAMPLE_RATE, SUFFIXES, read_audio
from unitweave.core.errors import InputError
from unitweave.core.languages import is_language_code, language_code
from unitweave.core.progress import echo, meter
from unitweave.core.sequences import evenly_spaced
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.score.asr.transcripts import AudioSource, transcribe
from unitweave.score.assemble import assemble
from unitweave.score.comet import add_comet, check_comet
from unitweave.score.mos import load_predictors
from unitweave.score.references import read_references
from unitweave.score.rows import References
from unitweave.score.scores import REFERENCE_SPEECH, Scores, write_scores
from unitweave.score.speakers import SpeakerComparison, load_speaker_model
from unitweave.training.devices import check_device


def score_folders(
    folders: Sequence[Path],
    references: Path,
    settings: ScoreSettings | None = None,
    out: Path | None = None,
    reference_speech: Path | None = None,
    language: str = "en",
    source_speech: Path | None = None,
) -> Scores:
    """ASR-BLEU, chrF, speech rate, silence and MOS of folders of audio files.

    Args:
        folders: One for each system; the first is what the others are compared with.
        references: A file as `read_references` takes it: lines of names and references, languages among them; or plain
            lines, one for each audio file in natural order (0_pred.wav, 1_pred.wav, ..., 10_pred.wav, as fairseq names
            them).
        settings: How to score.
        out: Where to write the result as JSON, if anywhere.
        reference_speech: Folder of recordings of the references, for the ceiling.
        language: Code of the language that is spoken in all of them, unless the references say it of each.
        source_speech: Folder of the source recordings of the same names, for duration ratio and speaker similarity.

    Raises:
        InputError: A folder is empty, a file is not audio, or files and references are not one to one.
    """
    settings = settings or ScoreSettings()
    check_device(settings.device, "score.device")
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{out}: cannot be written; give a file in a folder that exists")
    if settings.speaker_model + (settings.speaker_function or "") and source_speech is None:
        raise InputError("score.speaker_model: give the source recordings with --source-speech")
    systems = _systems(folders, reference_speech)
    first = next(iter(systems))
    ids = list(systems[first])
    texts = _matched(systems, references, language_code(language))
    targets = texts.target_language
    if odd := next((code for code in targets if not is_language_code(code)), None):
        raise InputError(f"{references}: {odd!r} is not a language; give an ISO 639 code or its English name")
    chosen = choose_recognizer(settings.recognizer, settings.recognizer_model, targets)
    check_comet(settings, texts.source_texts)
    sources = _source_files(source_speech, ids)
    # All files are read before hours of recognition, so that a bad one is known at once.
    for path in (path for paths in systems.values() for path in paths.values()):
        read_audio(path, complete=True)
    texts.source_seconds = [len(read_audio(path)) / SAMPLE_RATE for path in sources.values()]
    recognizer, speakers = load_recognizer(*chosen, settings.device), load_speaker_model(settings)
    predictors, notes = load_predictors(settings.mos, settings.device)
    for note in notes:
        echo(f"score: {note}")
    transcripts = {}
    with meter("score: transcribing", len(ids) * len(systems)) as progress:
        for name, paths in systems.items():
            keys = list(paths)
            # Names differ between the folders (0.wav, 0_pred.wav): the order is that of the references.
            recordings = dict(zip(keys, sources.values(), strict=True)) if sources else {}
            compared = SpeakerComparison(speakers, partial(_read, recordings)) if speakers else None
            source = AudioSource(keys, partial(_read, paths), dict(zip(keys, targets, strict=True)))
            rated = evenly_spaced(keys, settings.mos_utterances or len(keys), centered=True)
            transcripts[name] = transcribe(source, recognizer, None, progress, predictors, rated, speakers=compared)
    add_comet(transcripts, texts, settings)
    scores = assemble(transcripts, {}, texts, recognizer, settings, "file")
    scores.mos_predictors = [predictor.signature for predictor in predictors]
    scores.mos_utterances = min(settings.mos_utterances or len(ids), len(ids))
    scores.speaker_model = speakers.signature if speakers else None
    scores.comet_model = settings.comet or None
    scores.notes = notes
    scores.transcripts = {
        name: dict(zip(systems[name], (record.text for record in records), strict=True))
        for name, records in transcripts.items()
    }
    if out:
        write_scores(out, scores)
    return scores


def _systems(folders: Sequence[Path], reference_speech: Path | None) -> dict[str, dict[str, Path]]:
    """System -> its audio files; the reference speech is one too."""
    systems: dict[str, dict[str, Path]] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in systems:
            raise InputError(f"{folder}: another folder is also named {name!r}; rename one, they name the systems")
        systems[name] = audio_files(folder)
    if reference_speech:
        if REFERENCE_SPEECH in systems:
            raise InputError(f"a system's folder must not be named {REFERENCE_SPEECH!r}")
        systems[REFERENCE_SPEECH] = audio_files(reference_speech)
    return systems


def _matched(systems: Mapping[str, Mapping[str, Path]], references: Path, language: str) -> References:
    """The references, which must be the same of all systems."""
    tables = {name: read_references(references, paths) for name, paths in systems.items()}
    first, *others = tables
    for name in others:
        if tables[name] != tables[first]:
            raise InputError(f"{references}: the references of {name} differ from those of {first}")
    table, ids = tables[first], list(systems[first])
    several = len(set(table.targets)) > 1
    return References(
        ids,
        table.texts,
        language=[f"{a}-{b}" for a, b in zip(table.languages, table.targets, strict=True)]
        if several and table.languages
        else table.languages or None,
        target_language=table.targets or [language] * len(ids),
        further=table.further,
        source_texts=table.sources,
    )


def _source_files(folder: Path | None, ids: Sequence[str]) -> dict[str, Path]:
    """The source recording of each utterance."""
    if folder is None:
        return {}
    files = audio_files(folder)
    if missing := [id for id in ids if id not in files]:
        raise InputError(f"{folder}: no source recording named {missing[0]}")
    return {id: files[id] for id in ids}


def _read(paths: Mapping[str, Path], ids: Sequence[str]) -> list[np.ndarray | None]:
    return [read_audio(paths[id]) for id in ids]


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files directly in `folder`, but for hidden ones, in natural order: name without suffix -> path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted(
        (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")),
        key=lambda p: _natural(p.name),
    )
    if not paths:
        raise InputError(f"{folder}: no audio files in it ({', '.join(SUFFIXES)})")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} has the same name except for the suffix")
        files[path.stem] = path
    return files


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key that puts 2_pred.wav before 10_pred.wav."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
