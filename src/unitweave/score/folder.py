"""Scores for other people's outputs: folders of wavs and a file of references, from any system."""

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.core.progress import meter, say
from unitweave.score.asr.recognizers import load_recognizer
from unitweave.score.asr.transcripts import Speech, hear
from unitweave.score.mos import load_predictors
from unitweave.score.rows import References
from unitweave.score.score import REFERENCE_SPEECH, ScoreSettings, assemble, check_settings, evenly
from unitweave.training.devices import check_device

AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def score_folders(
    folders: Sequence[Path],
    references: Path,
    settings: ScoreSettings | None = None,
    out: Path | None = None,
    reference_speech: Path | None = None,
) -> dict[str, Any]:
    """ASR-BLEU, chrF, speech rate, silence and MOS of folders of audio files; the layout of scores.json.

    folders           one for each system; the first is what the others are compared with
    references        a file of `name<TAB>text` lines, where name is the file's name with or without its
                      suffix; or of plain lines, one for each audio file in natural order (0_pred.wav,
                      1_pred.wav, ..., 10_pred.wav, as fairseq names them)
    out               where to write the result as JSON, if anywhere
    reference_speech  folder of recordings of the references, for the ceiling

    Raises InputError on an empty folder, a file that is no audio, and when files and references
    are not one to one.
    """
    settings = settings or ScoreSettings()
    check_settings(settings)
    check_device(settings.device, "score.device")
    if out and (out.is_dir() or not out.parent.is_dir()):
        raise InputError(f"{out}: not a file that can be written; its folder has to exist")
    systems: dict[str, dict[str, Path]] = {}
    for folder in folders:
        name = Path(folder).resolve().name
        if name in systems:
            raise InputError(f"{folder}: a second folder of the name {name!r}; folder names are the systems' names")
        systems[name] = audio_files(folder)
    if reference_speech:
        if REFERENCE_SPEECH in systems:
            raise InputError(f"a system's folder may not be called {REFERENCE_SPEECH!r}")
        systems[REFERENCE_SPEECH] = audio_files(reference_speech)
    texts = {name: match_references(paths, references) for name, paths in systems.items()}
    first = next(iter(systems))
    ids = list(systems[first])
    for name in systems:
        if texts[name] != texts[first]:
            raise InputError(f"{references}: gives the files of {name} other references than those of {first}")
    # All files are looked at before hours of recognition, so that a bad one is known at once.
    for path in (path for paths in systems.values() for path in paths.values()):
        read_audio(path)
    recognizer = load_recognizer(settings.recognizer, settings.model, settings.device)
    predictors, notes = load_predictors(settings.mos, settings.device)
    for note in notes:
        say(f"score: {note}")
    heard = {}
    with meter("score: listening", len(ids) * len(systems)) as progress:
        for name, paths in systems.items():
            keys = list(paths)
            speech = Speech(keys, partial(_read, paths))
            rated = evenly(keys, settings.mos_utterances or len(keys))
            heard[name] = hear(speech, recognizer, None, progress, predictors, rated)
    scores = assemble(heard, {}, References(ids, texts[first]), recognizer, settings, "file")
    rated_number = min(settings.mos_utterances or len(ids), len(ids))
    scores["mos_predictors"] = {"signatures": [p.signature for p in predictors], "utterances": rated_number}
    scores["notes"] = notes
    if out:
        write_json(out, scores)
    return scores


def _read(paths: Mapping[str, Path], ids: Sequence[str]) -> list[np.ndarray | None]:
    return [read_audio(paths[id]) for id in ids]


def audio_files(folder: Path) -> dict[str, Path]:
    """The audio files directly in `folder`, in natural order: name without suffix -> path."""
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    paths = sorted((p for p in folder.iterdir() if p.suffix.lower() in AUDIO_SUFFIXES), key=lambda p: _natural(p.name))
    if not paths:
        raise InputError(f"{folder}: no audio files in it ({', '.join(AUDIO_SUFFIXES)})")
    files: dict[str, Path] = {}
    for path in paths:
        if path.stem in files:
            raise InputError(f"{path}: {files[path.stem].name} has the same name but for the suffix")
        files[path.stem] = path
    return files


def match_references(files: dict[str, Path], references: Path) -> list[str]:
    """The reference text of each of `files`, in their order. Raises InputError when they are not one to one."""
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
            raise InputError(f"{references}, line {number}: empty; every audio file has a reference")
    if not any("\t" in line for line in lines):
        if len(lines) != len(files):
            raise InputError(f"{references}: {len(lines)} references for {len(files)} audio files; give one each")
        return [line.strip() for line in lines]
    texts: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, tab, text = line.partition("\t")
        if not tab or not text.strip():
            raise InputError(f"{references}, line {number}: not 'name<TAB>text'")
        key = _stem(name.strip(), files)
        if key is None:
            raise InputError(f"{references}, line {number}: there is no audio file for {name.strip()!r}")
        if key in texts:
            raise InputError(f"{references}, line {number}: a second reference for {name.strip()!r}")
        texts[key] = text.strip()
    missing = [name for name in files if name not in texts]
    if missing:
        raise InputError(f"{references}: no reference for {files[missing[0]].name}")
    return [texts[name] for name in files]


def _stem(name: str, files: dict[str, Path]) -> str | None:
    """The key in `files` that a reference's name means: the name itself, or without its suffix."""
    if name in files:
        return name
    stem = Path(name).name
    suffix = Path(stem).suffix
    stem = stem[: -len(suffix)] if suffix.lower() in AUDIO_SUFFIXES else stem
    return stem if stem in files else None


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Sorting key that puts 2_pred.wav before 10_pred.wav."""
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]
