"""Which recordings the names on a command line mean, and where their results go. Imports no torch."""

import glob
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitweave.core.audio import SUFFIXES
from unitweave.core.errors import InputError

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

    Raises:
        InputError: A name matches nothing, or results would overwrite a source.
    """
    recordings: dict[Path, Path] = {}  # recording -> its place below `out`
    for name in names:
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
    stems = [place.with_suffix("") for place in recordings.values()]
    tasks = [
        FileTask(source, out / (place if stems.count(place.with_suffix("")) > 1 else place.with_suffix("")))
        for source, place in recordings.items()
    ]
    _check_targets(tasks)
    return tasks


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
