"""Scores for the output of any system: folders of audio files, and a file of references."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from unitweave.config.score import ScoreSettings
from unitweave.core.audio import SUFFIXES, read_audio
from unitweave.core.errors import InputError
from unitweave.core.progress import meter, say
from unitweave.core.sequences import evenly_spaced
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.score.asr.transcripts import AudioSource, transcribe
from unitweave.score.assemble import assemble
from unitweave.score.mos import load_predictors
from unitweave.score.rows import References
from unitweave.score.scores import REFERENCE_SPEECH, Scores, write_scores
from unitweave.training.devices import check_device


def score_folders(
    folders: Sequence[Path],
    references: Path,
    settings: ScoreSettings | None = None,
    out: Path | None = None,
    reference_speech: Path | None = None,
    language: str = "en",
) -> Scores:
    """ASR-BLEU, chrF, speech rate, silence and MOS of folders of audio files.

    Args:
        folders: One for each system; the first is what the others are compared with.
        references: A file of `name<TAB>text` lines, where name is the file's name with or without its suffix, or of
            `name<TAB>language<TAB>text` lines, for a score of each source language; or of plain lines, one for each
            audio file in natural order (0_pred.wav, 1_pred.wav, ..., 10_pred.wav, as fairseq names them).
        settings: How to score.
        out: Where to write the result as JSON, if anywhere.
        reference_speech: Folder of recordings of the references, for the ceiling.
        language: Code of the language that is spoken in all of them.

    Raises:
        InputError: A folder is empty, a file is not audio, or files and references are not one to one.
    """
    settings = settings or ScoreSettings()
    check_device(settings.device, "score.device")
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{out}: cannot be written; give a file in a folder that exists")
    chosen = choose_recognizer(settings.recognizer, settings.recognizer_model, [language])
    systems = _systems(folders, reference_speech)
    texts = {name: match_references(paths, references) for name, paths in systems.items()}
    first = next(iter(systems))
    ids = list(systems[first])
    for name in systems:
        if texts[name] != texts[first]:
            raise InputError(f"{references}: the references of {name} differ from those of {first}")
    # All files are read before hours of recognition, so that a bad one is known at once.
    for path in (path for paths in systems.values() for path in paths.values()):
        read_audio(path)
    recognizer = load_recognizer(*chosen, settings.device)
    predictors, notes = load_predictors(settings.mos, settings.device)
    for note in notes:
        say(f"score: {note}")
    transcripts = {}
    with meter("score: transcribing", len(ids) * len(systems)) as progress:
        for name, paths in systems.items():
            keys = list(paths)
            source = AudioSource(keys, partial(_read, paths), dict.fromkeys(keys, language))
            rated = evenly_spaced(keys, settings.mos_utterances or len(keys), centered=True)
            transcripts[name] = transcribe(source, recognizer, None, progress, predictors, rated)
    known = References(ids, texts[first][0], language=texts[first][1], target_language=[language] * len(ids))
    scores = assemble(transcripts, {}, known, recognizer, settings, "file")
    scores.mos_predictors = [predictor.signature for predictor in predictors]
    scores.mos_utterances = min(settings.mos_utterances or len(ids), len(ids))
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
            raise InputError(f"{folder}: a second folder named {name!r}; the systems are named after their folders")
        systems[name] = audio_files(folder)
    if reference_speech:
        if REFERENCE_SPEECH in systems:
            raise InputError(f"a system's folder must not be named {REFERENCE_SPEECH!r}")
        systems[REFERENCE_SPEECH] = audio_files(reference_speech)
    return systems


def _read(paths: Mapping[str, Path], ids: Sequence[str]) -> list[np.ndarray | None]:
    return [read_audio(paths[id]) for id in ids]


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files directly in `folder`, in natural order: name without suffix -> path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES), key=lambda p: _natural(p.name))
    if not paths:
        raise InputError(f"{folder}: no audio files in it ({', '.join(SUFFIXES)})")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} has the same name except for the suffix")
        files[path.stem] = path
    return files


def match_references(files: dict[str, Path], references: Path) -> tuple[list[str], list[str] | None]:
    """The reference text of each of `files`, in their order, and its source language where the file says it.

    Raises:
        InputError: Files and references are not one to one, or a line has columns that nobody can know.
    """
    try:
        lines = Path(references).read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise InputError(f"{references}: no such file") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise InputError(f"{references}: not a text file in UTF-8") from None
    while lines and not lines[-1].strip():
        lines.pop()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            raise InputError(f"{references}, line {number}: empty; every audio file needs a reference")
    if not any("\t" in line for line in lines):
        if len(lines) != len(files):
            raise InputError(f"{references}: {len(lines)} references for {len(files)} audio files; each file needs one")
        return [line.strip() for line in lines], None
    with_language = all(re.fullmatch(r"[^\t]+\t\s*[a-z]{2,3}(-\w+)?\s*\t[^\t]+", line) for line in lines)
    texts: dict[str, str] = {}
    languages: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, *columns = line.split("\t")
        language = columns.pop(0).strip() if with_language else ""
        text = columns[0] if columns else ""
        if not text.strip():
            raise InputError(f"{references}, line {number}: not 'name<TAB>text'")
        if any(column.strip() for column in columns[1:]):
            raise InputError(
                f"{references}, line {number}: {len(columns) + 1} columns; it must be 'name<TAB>text' in all lines, or "
                "'name<TAB>language<TAB>text' in all lines"
            )
        key = _stem(name.strip(), files)
        if key is None:
            raise InputError(f"{references}, line {number}: no audio file for {name.strip()!r}")
        if key in texts:
            raise InputError(f"{references}, line {number}: duplicate reference for {name.strip()!r}")
        texts[key], languages[key] = text.strip(), language.split("-")[0]
    missing = [name for name in files if name not in texts]
    if missing:
        raise InputError(f"{references}: no reference for {files[missing[0]].name}")
    return [texts[name] for name in files], [languages[name] for name in files] if with_language else None


def _stem(name: str, files: dict[str, Path]) -> str | None:
    """The key in `files` that a reference's name means: the name itself, or without its suffix."""
    if name in files:
        return name
    stem = Path(name).name
    suffix = Path(stem).suffix
    stem = stem[: -len(suffix)] if suffix.lower() in SUFFIXES else stem
    return stem if stem in files else None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key that puts 2_pred.wav before 10_pred.wav."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
