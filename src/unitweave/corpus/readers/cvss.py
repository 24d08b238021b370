"""`unitweave corpus cvss`: CVSS-C, whose English speech is paired with Common Voice's recordings by file name.

CVSS-C holds the translations (speech at 24 kHz and normalized text), CoVoST 2 says which clip is in which
split, who speaks and what, Common Voice 4 holds the clips. Each archive is read once, as a stream.
"""

import contextlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unitweave.config.corpus import CvssCorpus, RowLimits
from unitweave.core.errors import InputError
from unitweave.core.files import json_digest, read_json_object, write_json
from unitweave.core.languages import language_code
from unitweave.core.progress import echo
from unitweave.core.stage import StageResult
from unitweave.corpus.assemble import Row, Side, Skipped, close_corpus, open_corpus
from unitweave.corpus.readers.archives import containers, is_archive, members, stamp
from unitweave.corpus.readers.covost import (
    CLIP,
    Clip,
    add_transcript,
    clip_name,
    clip_tasks,
    local_folders,
    read_clips,
    voice_containers,
)
from unitweave.corpus.recording_store import RecordingStore, RecordingTask

_ARCHIVE_NAME = re.compile(r"cvss_[ct]_([a-z]{2})_en.*", re.IGNORECASE)
_AUDIO = re.compile(rf"(?:.*/)?(train|dev|test)/({CLIP})\.mp3\.wav")
_TABLE = re.compile(r"(?:.*/)?(train|dev|test)\.tsv")
_READ = "read"  # folder with what was learnt from archives that were read to their end


@dataclass(frozen=True)
class CvssRow:
    """A clip's English side in CVSS-C."""

    split: str
    text: str


def build_cvss(settings: CvssCorpus, limits: RowLimits) -> StageResult:
    """Make a corpus folder; what an interrupted call wrote is kept. Raises InputError."""
    splits = settings.splits
    sources = [c for place in settings.cvss for c in containers(Path(place), _is_cvss)]
    languages = _languages(settings, sources)
    folder = Path(settings.out)
    places = local_folders([*settings.covost, *settings.common_voice], languages, splits)
    all_clips, faults = read_clips(places, languages)
    clips = {n: c for n, c in all_clips.items() if c.split in splits and _language(n) in languages}
    open_corpus(folder, "cvss", settings)
    echo(f"corpus: {len(clips)} clips of {', '.join(languages)} in CoVoST 2")
    with RecordingStore(folder, settings.workers) as recordings:
        translations: dict[str, CvssRow] = {}
        for source in sources:
            translations |= _read_cvss(folder, source, clips, recordings)
        translations = {n: t for n, t in translations.items() if t.split in splits and _language(n) in languages}
        wanted = {n: _src_path(n) for n in translations if n in clips and recordings.get(_tgt_path(n))}
        for container in voice_containers(places):
            _read_common_voice(folder, container, wanted, clips, recordings)
        unread = {fault.id: fault for fault in faults}
        rows, skipped = _join(clips, {n: t for n, t in translations.items() if n not in unread})
        skipped += unread.values()
        return close_corpus(folder, "cvss", settings, rows, skipped, recordings, limits, settings.allow_skipped)


def _languages(settings: CvssCorpus, sources: Sequence[Path]) -> list[str]:
    """Source languages: as given, or as the archives' names and the clips in the folders say."""
    if settings.languages:
        return sorted({language_code(language) for language in settings.languages})
    found = set()
    for source in sources:
        if match := _ARCHIVE_NAME.fullmatch(source.name):
            found.add(match[1].lower())
        elif is_archive(source):
            raise InputError(f"{source}: its name does not say its language; give --languages")
        else:
            found |= {
                _language(m[2]) for member in members(source) if (m := _AUDIO.fullmatch(_below(source, member.name)))
            }
    if not found:
        raise InputError(
            f"{', '.join(settings.cvss)}: no cvss_c_XX_en archive and no train, dev or test folder of CVSS-C"
        )
    return sorted(found)


def _read_cvss(folder: Path, source: Path, clips: Mapping[str, Clip], recordings: RecordingStore) -> dict[str, CvssRow]:
    """Make the English recordings of `clips` that are in one archive or folder; returns its texts."""
    read = _Read(folder, source, clips, recordings)
    if read.before is not None:
        return {name: CvssRow(*entry) for name, entry in read.before.items()}
    texts: dict[str, CvssRow] = {}

    def tasks() -> Iterator[RecordingTask]:
        for member in members(source):
            name = _below(source, member.name)
            if match := _AUDIO.fullmatch(name):
                path = _tgt_path(match[2])
                if match[2] in clips and read.is_new(path, member.source):
                    yield RecordingTask(path, member.source, member.read())
            elif match := _TABLE.fullmatch(name):
                texts.update(_texts(member.read(), match[1], name))

    recordings.make(tasks())
    read.done({name: [t.split, t.text] for name, t in texts.items()})
    return texts


def _read_common_voice(
    folder: Path, container: Path, wanted: Mapping[str, str], clips: dict[str, Clip], recordings: RecordingStore
) -> None:
    """Make the source recordings that are in one archive or folder."""
    if is_archive(container) and container.name.lower().startswith("covost"):
        return
    read = _Read(folder, container, wanted, recordings)
    if read.before is None:
        recordings.make(clip_tasks(container, wanted, clips, read.is_new))
        read.done({n: [clips[n].split, clips[n].sentence, clips[n].speaker] for n in wanted})
    else:
        for name, entry in read.before.items():
            add_transcript(clips, name, Clip(*entry))


class _Read:
    """Remembers of an archive that it was read to its end, and what its texts were: it need not be read again."""

    def __init__(self, folder: Path, source: Path, wanted: Collection[str], recordings: RecordingStore) -> None:
        self.recordings = recordings
        self.paths: list[str] = []
        self.before: dict[str, list] | None = None
        self._file: Path | None = None
        if is_archive(source):
            self._file = folder / _READ / f"{json_digest([stamp(source), sorted(wanted)])}.json"
            with contextlib.suppress(InputError, KeyError, TypeError):  # there is none, or it is damaged
                cached = read_json_object(self._file)
                if all(recordings.get(path) for path in cached["paths"]):
                    self.before = cached["texts"]
                    recordings.settle(cached["paths"])

    def is_new(self, path: str, source: str) -> bool:
        """Whether a recording is still to be made from this source."""
        self.paths.append(path)
        return not self.recordings.has(path, source)

    def done(self, texts: Mapping[str, list]) -> None:
        """The archive was read to its end."""
        if self._file:
            write_json(self._file, {"paths": self.paths, "texts": dict(texts)})


def _texts(content: bytes, split: str, name: str) -> dict[str, CvssRow]:
    """Clip -> translation, of a headerless table: file name, tab, text. Quotes mean nothing."""
    rows = {}
    for line in content.decode("utf-8-sig", errors="surrogateescape").split("\n"):
        file_name, tab, text = line.removesuffix("\r").partition("\t")
        if tab and re.fullmatch(CLIP, clip_name(file_name)):
            rows[clip_name(file_name)] = CvssRow(split, text)
    return rows


def _join(clips: Mapping[str, Clip], translations: Mapping[str, CvssRow]) -> tuple[list[Row], list[Skipped]]:
    rows, skipped = [], []
    for name in sorted(clips.keys() | translations.keys()):
        clip, translation = clips.get(name), translations.get(name)
        language = _language(name)
        if clip is None or translation is None:
            skipped.append(Skipped(name, language, f"not in {'CoVoST 2' if clip is None else 'CVSS-C'}"))
        elif clip.split != translation.split:
            detail = f"{clip.split} and {translation.split}"
            skipped.append(Skipped(name, language, "CoVoST 2 and CVSS-C have it in different splits", detail))
        else:
            source = Side(language, _src_path(name), clip.sentence)
            target = Side("en", _tgt_path(name), translation.text)
            rows.append(Row(name, clip.split, source, target, clip.speaker))
    return rows, skipped


def _is_cvss(name: str) -> bool:
    return _ARCHIVE_NAME.fullmatch(name) is not None


def _language(clip: str) -> str:
    return language_code(clip.removeprefix("common_voice_").rpartition("_")[0])


def _src_path(clip: str) -> str:
    return f"audio/{_language(clip)}/{clip}.flac"


def _tgt_path(clip: str) -> str:
    return f"audio/{_language(clip)}-en/{clip}.flac"


def _below(source: Path, name: str) -> str:
    """A member's path with the name of its folder before it: --cvss may name the train folder itself."""
    return f"{source.name}/{name}" if source.is_dir() else name
