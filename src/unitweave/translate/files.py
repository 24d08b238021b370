"""Many recordings: translate those without a result yet."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from unitweave.config.translate import DecodingSettings, SegmentationSettings
from unitweave.core.audio import lasts_longer, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import file_digest, json_digest, read_json, write_json
from unitweave.core.progress import meter
from unitweave.translate.checks import check_audible
from unitweave.translate.decode import ForcedPrefix
from unitweave.translate.long import translate_long
from unitweave.translate.subtitles import Cue, write_subtitles
from unitweave.translate.tasks import FileTask
from unitweave.translate.translator import SpeechTranslation, Translator
from unitweave.translate.utterances import segmentation_for, utterance_limit
from unitweave.translate.vad import find_speech

_SHOWN = {"transcript", "translation", "confidence", "in_domain"}  # of a recording's JSON, at the terminal


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


def translate_files(
    translator: Translator,
    tasks: Sequence[FileTask],
    settings: DecodingSettings,
    prefix: ForcedPrefix | None = None,
    segmentation: SegmentationSettings | None = None,
    cut_above: float | None = None,
) -> Iterator[FileResult]:
    """Translate recordings, short ones in batches.

    A recording that cannot be translated is reported and the others go on. One whose results are there already, from
    the same file by the same model and settings, is not translated again.

    Args:
        translator: The model.
        tasks: The recordings.
        settings: How to decode.
        prefix: What is known about them; texts only of a single short one.
        segmentation: How long recordings are cut into utterances; by default into ones as the model was trained on.
        cut_above: Seconds above which a recording counts as long; by default longer than those that the model was
            trained on.

    Yields:
        What became of each recording, as soon as its files are written.

    Raises:
        InputError: The model lacks a language or needs to be told one, or the disk is full.
    """
    translator.check_prefix(prefix, settings)
    segmentation = segmentation or segmentation_for(translator)
    cut_above = utterance_limit(translator) if cut_above is None else cut_above
    model = json_digest(
        [translator.fingerprint(), asdict(settings), asdict(segmentation), prefix and vars(prefix), cut_above]
    )
    short: list[tuple[FileTask, str]] = []
    with meter("translating", len(tasks)) as progress:
        for number, task in enumerate(tasks):
            try:
                job = json_digest([model, _digest(task.source)])
                about = _earlier(task, job, speech=not settings.text_only)
                if about is not None:
                    progress.advance()
                    yield FileResult(task, about, reused=True)
                elif not lasts_longer(task.source, cut_above):
                    short.append((task, job))
                elif prefix is not None and (prefix.transcript or prefix.translation):
                    raise InputError(f"{task.source}: a given text needs a recording of at most {cut_above:g} s")
                else:
                    result = translate_long(translator, task.source, task.stem, settings, segmentation, job, prefix)
                    progress.advance()
                    yield FileResult(task, read_json(result.about))
            except (InputError, IsADirectoryError) as error:
                if isinstance(error.__cause__, OSError):
                    raise  # the disk is full, which is not this recording's fault
                progress.advance()
                yield FileResult(task, None, str(error))
            if short and (len(short) == 4 * settings.batch_size or number == len(tasks) - 1):
                for finished in _translate_short(translator, short, settings, prefix, segmentation.threshold):
                    progress.advance()
                    yield finished
                short = []


def _digest(source: Path) -> str:
    """Of the file's content. Raises InputError when it cannot be read."""
    try:
        return file_digest(source)
    except FileNotFoundError:
        raise InputError(f"{source}: no such audio file") from None
    except OSError as error:
        raise InputError(f"{source}: not readable ({error.strerror or error})") from None


def _translate_short(
    translator: Translator,
    tasks: Sequence[tuple[FileTask, str]],
    settings: DecodingSettings,
    prefix: ForcedPrefix | None,
    threshold: float,
) -> Iterator[FileResult]:
    waveforms, readable = [], []
    for task, job in tasks:
        try:
            waveform = read_audio(task.source)
            check_audible(waveform, str(task.source))
            span = find_speech(waveform, str(task.source), threshold)
        except InputError as error:
            yield FileResult(task, None, str(error))
            continue
        waveforms.append(waveform)
        readable.append((task, job, span))
    results = translator.translate_all(waveforms, settings, [prefix] * len(waveforms)) if waveforms else []
    for (task, job, span), result in zip(readable, results, strict=True):
        yield FileResult(task, _write(task, job, result, span, speech=not settings.text_only))


def _write(
    task: FileTask, job: str, result: SpeechTranslation, span: tuple[float, float], speech: bool
) -> dict[str, Any]:
    about = {"source": str(task.source), "job": job} | result.plain()
    if speech:
        result.save(task.stem.with_name(task.stem.name + ".wav"))
    if result.translation:
        shown = (0.0, len(result.waveform) / result.sampling_rate) if speech else span
        write_subtitles(task.stem, [Cue(*shown, result.translation)])
    if result.transcript and result.language:
        write_subtitles(task.stem, [Cue(*span, result.transcript)], result.language)
    write_json(task.stem.with_name(task.stem.name + ".json"), about)
    return about


def _earlier(task: FileTask, job: str, speech: bool) -> dict[str, Any] | None:
    """The JSON that an earlier call of the same job wrote, last of all; None where that, or the speech, was lost."""
    path = task.stem.with_name(task.stem.name + ".json")
    if not path.exists():
        return None
    try:
        about = read_json(path)
    except InputError:
        return None
    wav = task.stem.with_name(task.stem.name + ".wav")
    whole = isinstance(about, dict) and about.get("job") == job and about.keys() >= _SHOWN
    return about if whole and not (speech and not (wav.is_file() and wav.stat().st_size)) else None
