"""Many recordings: find those that the names on the command line mean, and translate those without a result yet."""

import glob
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitweave.config.translate import DecodingSettings, SegmentationSettings
from unitweave.core.audio import SUFFIXES, lasts_longer, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, digest_of_file, read_json, write_json
from unitweave.core.progress import meter
from unitweave.translate.decode import ForcedPrefix
from unitweave.translate.long import translate_long
from unitweave.translate.translator import SpeechTranslation, Translator, check_audible

_RESULTS = (".wav", ".json", ".srt", ".vtt")


@dataclass(frozen=True)
class FileTask:
    """A recording and where its results go: stem.wav, stem.json, for long ones stem.srt and stem.vtt."""

    source: Path
    stem: Path


@dataclass(frozen=True)
class FileResult:
    """What became of a recording.

    Attributes:
        task: The recording.
        about: The content of its JSON; None where it could not be translated.
        error: Why not.
        reused: Whether an earlier call translated it.
    """

    task: FileTask
    about: dict[str, Any] | None
    error: str = ""
    reused: bool = False


def find_tasks(names: Sequence[str], out: Path) -> list[FileTask]:
    """The recordings that files, folders (with all below them) and patterns name.

    A folder's recordings keep their places below it; what lies in `out` below it is taken for results. Two that would
    get the same result file keep their suffixes.

    Raises:
        InputError: A name matches nothing, or results would overwrite a source.
    """
    found: dict[Path, Path] = {}  # recording -> its place below `out`
    for name in names:
        path = Path(name)
        if _holds(path.is_dir, if_hidden=False):
            inside = _recordings_in(path, out)
            if not inside:
                raise InputError(f"{path}: no recordings in this folder ({', '.join(SUFFIXES)})")
            found |= {p: p.relative_to(path) for p in inside}
        elif glob.has_magic(name) and not _holds(path.exists, if_hidden=False):
            # The pattern may be absolute, which Path.glob does not take.
            fitting = [Path(p) for p in sorted(glob.glob(name, recursive=True))]  # noqa: PTH207
            matching = [p for p in fitting if _holds(p.is_file, if_hidden=True)]
            if not matching:
                raise InputError(f"{name}: no file matches this pattern")
            found |= {p: Path(p.name) for p in matching}
        else:
            found[path] = Path(path.name)
    stems = [place.with_suffix("") for place in found.values()]
    tasks = [
        FileTask(source, out / (place if stems.count(place.with_suffix("")) > 1 else place.with_suffix("")))
        for source, place in found.items()
    ]
    _check_targets(tasks)
    return tasks


def _recordings_in(folder: Path, out: Path) -> list[Path]:
    """The recordings below a folder, but for hidden ones and, where `out` is below it too, those in `out`."""
    results = _real(out)
    below = _real(folder) in results.parents
    return [
        path
        for path in sorted(folder.rglob("*"))
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


def translate_files(
    translator: Translator,
    tasks: Sequence[FileTask],
    settings: DecodingSettings,
    prefix: ForcedPrefix | None = None,
    segmentation: SegmentationSettings | None = None,
    cut_above: float = 30.0,
) -> Iterator[FileResult]:
    """Translate recordings, short ones in batches.

    A recording that cannot be translated is reported and the others go on. One whose results are there already, from
    the same file by the same model and settings, is not translated again.

    Args:
        translator: The model.
        tasks: The recordings.
        settings: How to decode.
        prefix: What is known about them; texts only of a single short one.
        segmentation: How long recordings are cut into utterances.
        cut_above: Seconds above which a recording counts as long.

    Yields:
        What became of each recording, as soon as its files are written.

    Raises:
        InputError: The model does not know the language, or the disk is full.
    """
    translator.check_language(prefix)
    segmentation = segmentation or SegmentationSettings()
    model = digest_of(
        [translator.fingerprint(), asdict(settings), asdict(segmentation), prefix and vars(prefix), cut_above]
    )
    short: list[tuple[FileTask, str]] = []
    with meter("translating", len(tasks)) as progress:
        for number, task in enumerate(tasks):
            try:
                job = digest_of([model, _digest(task.source)])
                about = _earlier(task, job)
                if about is not None:
                    progress.advance()
                    yield FileResult(task, about, reused=True)
                elif not lasts_longer(task.source, cut_above):
                    short.append((task, job))
                elif prefix is not None and (prefix.transcript or prefix.translation):
                    raise InputError(f"{task.source}: a known text needs a single utterance of at most {cut_above:g} s")
                else:
                    language = prefix.language if prefix else None
                    result = translate_long(translator, task.source, task.stem, settings, segmentation, job, language)
                    progress.advance()
                    yield FileResult(task, read_json(result.about))
            except (InputError, IsADirectoryError) as error:
                if isinstance(error.__cause__, OSError):
                    raise  # the disk is full, which is not this recording's fault
                progress.advance()
                yield FileResult(task, None, str(error))
            if short and (len(short) == 4 * settings.batch_size or number == len(tasks) - 1):
                for finished in _translate_short(translator, short, settings, prefix):
                    progress.advance()
                    yield finished
                short = []


def _digest(source: Path) -> str:
    """Of the file's content. Raises InputError when it cannot be read."""
    try:
        return digest_of_file(source)
    except FileNotFoundError:
        raise InputError(f"{source}: no such audio file") from None
    except OSError as error:
        raise InputError(f"{source}: not readable ({error.strerror or error})") from None


def _translate_short(
    translator: Translator,
    tasks: Sequence[tuple[FileTask, str]],
    settings: DecodingSettings,
    prefix: ForcedPrefix | None,
) -> Iterator[FileResult]:
    waveforms, readable = [], []
    for task, job in tasks:
        try:
            waveform = read_audio(task.source)
            check_audible(waveform, str(task.source))
        except InputError as error:
            yield FileResult(task, None, str(error))
            continue
        waveforms.append(waveform)
        readable.append((task, job))
    results = translator.translate_all(waveforms, settings, [prefix] * len(waveforms)) if waveforms else []
    for (task, job), result in zip(readable, results, strict=True):
        yield FileResult(task, _write(task, job, result, speech=not settings.text_only))


def _write(task: FileTask, job: str, result: SpeechTranslation, speech: bool) -> dict[str, Any]:
    about = {"source": str(task.source), "job": job} | result.plain()
    if speech:
        result.save(task.stem.with_name(task.stem.name + ".wav"))
    write_json(task.stem.with_name(task.stem.name + ".json"), about)
    return about


def _earlier(task: FileTask, job: str) -> dict[str, Any] | None:
    """The JSON that an earlier call of the same job wrote; it is written last, so all else is there too."""
    path = task.stem.with_name(task.stem.name + ".json")
    if not path.exists():
        return None
    try:
        about = read_json(path)
    except InputError:
        return None
    return about if isinstance(about, dict) and about.get("job") == job else None
