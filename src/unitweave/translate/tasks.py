"""Which recordings the names on a command line mean, and where their results go. Imports no torch."""

import glob
import itertools
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError
from unitweave.core.file_kinds import file_kind
from unitweave.core.files import json_digest

_MAX_NAMES = 1 << 28  # bytes of standard input
_NAME_BYTES = 215  # file systems take 255, and results are written under longer names first
_SOUND = (b"RIFF", b"OggS", b"fLaC", b"ID3", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\x1aE\xdf\xa3", b"FORM")
_RESULTS = (".wav", ".json", ".srt", ".vtt")


@dataclass(frozen=True)
class FileTask:
    """A recording and where its results go: stem.wav, stem.json, for long ones stem.srt and stem.vtt."""

    source: Path
    stem: Path


def find_tasks(names: Sequence[str], out: Path) -> list[FileTask]:
    """The recordings that files, folders (with all below them) and patterns name.

    A folder's recordings keep their places below it; what lies in `out` below it is taken for results. Two that would
    get the same result file keep their suffixes.

    A name "-" stands for the names on standard input, one a line or, as of `find -print0`, between zero bytes.

    Raises:
        InputError: A name matches nothing, or results would overwrite a source.
    """
    recordings: dict[Path, Path] = {}  # recording -> its place below `out`
    for name in itertools.chain.from_iterable(_from_stdin() if name == "-" else [name] for name in names):
        path = Path(name)
        if _holds(path.is_dir, if_hidden=False):
            inside = _recordings_in(path, out)
            if not inside:
                raise InputError(f"{path}: no recordings in this folder ({', '.join(SUFFIXES)})")
            recordings |= {p: p.relative_to(path) for p in inside}
        elif glob.has_magic(name) and not _holds(path.exists, if_hidden=False):
            # The pattern may be absolute, which Path.glob does not take.
            fitting = [Path(p) for p in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            matching = [p for p in fitting if _holds(p.is_file, if_hidden=True)]
            if not matching:
                raise InputError(f"{name}: no file matches this pattern")
            recordings |= {p: Path(p.name) for p in matching}
        else:
            recordings[path] = Path(path.name)
    recordings = {source: place.with_name(_short_name(place.name)) for source, place in recordings.items()}
    stems = [place.with_suffix("") for place in recordings.values()]
    tasks = [
        FileTask(source, out / (place if stems.count(place.with_suffix("")) > 1 else place.with_suffix("")))
        for source, place in recordings.items()
    ]
    _check_targets(tasks)
    return tasks


def _from_stdin() -> list[str]:
    """The names on standard input. Raises InputError where it holds a recording, or nothing."""
    content = sys.stdin.buffer.read(_MAX_NAMES)
    if kind := file_kind(content[:64]) or ("a recording" if content.startswith(_SOUND) else ""):
        raise InputError(
            f"-: standard input must have names of recordings, one per line (got {kind}); give a file's name"
        )
    names = [os.fsdecode(name) for name in content.split(b"\0" if b"\0" in content else b"\n")]
    if not (names := [name for name in (name.rstrip("\r") for name in names) if name.strip()]):
        raise InputError("-: standard input has no names of recordings")
    return names


def _short_name(name: str) -> str:
    """The name, cut where suffixes of results would make it too long for a file system."""
    if len(os.fsencode(name)) <= _NAME_BYTES:
        return name
    suffix = Path(name).suffix[:10]
    kept = os.fsencode(name)[: _NAME_BYTES - 30].decode(errors="ignore")
    return f"{kept}-{json_digest(name)[:8]}{suffix}"


def _recordings_in(folder: Path, out: Path) -> list[Path]:
    """The recordings below a folder, but for hidden ones and, where `out` is below it too, those in `out`."""
    results = _real(out)
    below = _real(folder) in results.parents
    # Not rglob, which raises where a folder goes meanwhile.
    found = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    return [
        path
        for path in sorted(found)
        if path.suffix.lower() in SUFFIXES
        and _holds(path.is_file, if_hidden=True)
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
        and not (below and results in _real(path).parents)
    ]


def _check_targets(tasks: Sequence[FileTask]) -> None:
    """Raise InputError when two tasks have the same results, or results would overwrite any of the sources."""
    sources = {_real(task.source): task.source for task in tasks}
    seen: dict[Path, Path] = {}
    for task in tasks:
        if task.stem in seen:
            raise InputError(
                f"{task.source} and {seen[task.stem]} would both be written to {task.stem}.wav; rename one"
            )
        seen[task.stem] = task.source
        for suffix in _RESULTS:
            source = sources.get(_real(task.stem.with_name(task.stem.name + suffix)))
            if source is not None:
                whose = "its translation" if source == task.source else f"the translation of {task.source}"
                raise InputError(f"{source}: {whose} would overwrite it; give another folder with -o")


def _real(path: Path) -> Path:
    """Without links and `..`, so that the same file has the same path."""
    try:
        return path.resolve()
    except (OSError, RuntimeError):  # links in a circle
        return path.absolute()


def _holds(test: Callable[[], bool], if_hidden: bool) -> bool:
    """What a test of a path says; `if_hidden` where we may not look, which reading it tells the user."""
    try:
        return test()
    except OSError:
        return if_hidden
