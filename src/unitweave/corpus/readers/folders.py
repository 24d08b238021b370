"""Corpora as folders of a known layout, read as if they were tables: Kaldi, LibriSpeech, MuST-C and FLEURS.

Each has the columns of a manifest (`src_audio`, `src_text`, `speaker`, ...), so that no flag has to name one.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import yaml

from unitweave.core.errors import InputError
from unitweave.corpus.readers.records import Record

_SPLITS = ("train", "dev", "test")
_FLEURS = ("sentence", "file", "src_text", "transcription", "letters", "samples", "gender")
_Row = Mapping[str, str] | str  # what a row holds, or why it cannot be read
_NAMED_SPLITS = {"train": "train", "dev": "dev", "valid": "dev", "validation": "dev", "test": "test", "tst": "test"}


def folder_records(folder: Path) -> Iterator[Record]:
    """The rows of a folder; recordings by their paths below it.

    Raises:
        InputError: It has none of the layouts, or a file of it is damaged.
    """
    for found, rows in _LAYOUTS:
        if files := sorted(found(folder)):
            number = 0
            for path in files:
                for row in rows(folder, path):
                    number += 1
                    problem = row if isinstance(row, str) else ""
                    yield Record(number, {} if isinstance(row, str) else row, problem)
            return
    raise InputError(
        f"{folder}: not a corpus folder; it must have Kaldi's wav.scp and text, LibriSpeech's *.trans.txt, "
        "MuST-C's txt/*.yaml, or FLEURS' train.tsv beside audio/; else give a table of its recordings"
    )


def folder_columns(folder: Path) -> list[str]:
    """Names of the columns of a folder's rows.

    Raises:
        InputError: It has no rows that can be read.
    """
    problem = ""
    for record in folder_records(folder):
        if record.values:
            return list(record.values)
        problem = problem or record.problem
    raise InputError(f"{folder}: no row can be read; {problem or 'it has none'}")


def split_in_name(name: str) -> str:
    """train, dev or test, where exactly one is in the name of a table or folder, such as tst-COMMON; else ""."""
    found = {_NAMED_SPLITS[word] for word in re.split(r"[^a-z]+", name.lower()) if word in _NAMED_SPLITS}
    return found.pop() if len(found) == 1 else ""


def _kaldi(folder: Path, scp: Path) -> Iterator[_Row]:
    """`wav.scp` and `text`, with `segments` and `utt2spk` where they are; a file `text.de` is a column of that name."""
    recordings = dict(_pairs(scp))
    texts = {path.name: dict(_pairs(path)) for path in sorted(folder.glob("text*")) if path.is_file()}
    speakers = dict(_pairs(folder / "utt2spk")) if (folder / "utt2spk").is_file() else {}
    whole = {key: f"{key} 0 -1" for key in recordings}
    parts = dict(_pairs(folder / "segments")) if (folder / "segments").is_file() else whole
    for key, part in parts.items():
        name, start, end = [*part.split(), "", ""][:3]
        audio = recordings.get(name, "")
        if not audio or audio.endswith("|"):
            yield f"{key}: {f'its recording is a command ({audio})' if audio else f'{scp} has no {name!r}'}"
            continue
        columns = {"src_text" if name == "text" else name: text.get(key, "") for name, text in texts.items()}
        times = {} if parts is whole else {"src_start": start, "src_end": "" if end == "-1" else end}
        yield {
            "id": key, "src_audio": audio, "speaker": speakers.get(key, ""), **times, **columns,
        }  # fmt: skip


def _pairs(path: Path) -> Iterator[tuple[str, str]]:
    """Key and value of each line."""
    for line in _text_lines(path):
        key, _, value = line.strip().replace("\t", " ").partition(" ")
        if key:
            yield key, value.strip()


def _librispeech(folder: Path, transcripts: Path) -> Iterator[_Row]:
    """`SPEAKER/CHAPTER/SPEAKER-CHAPTER.trans.txt` beside the recordings; the split is that of the top folder's name."""
    place = transcripts.parent.relative_to(folder)
    for key, text in _pairs(transcripts):
        row = {"id": key, "src_audio": str(place / f"{key}.flac"), "src_text": text, "speaker": key.split("-")[0]}
        yield row | _split_of(transcripts, folder)


def _must_c(folder: Path, listing: Path) -> Iterator[_Row]:
    """`SPLIT/txt/SPLIT.yaml` with texts of the same name and `SPLIT/wav`; English, where it is one, is the source."""
    texts = {
        path.suffix[1:]: _text_lines(path)
        for path in sorted(listing.parent.glob(f"{listing.stem}.*"))
        if re.fullmatch(r"\.[a-z]{2,3}", path.suffix)
    }
    segments = _segments(listing)
    if wrong := next((code for code, lines in texts.items() if len(lines) != len(segments)), None):
        raise InputError(
            f"{listing}: {len(segments)} segments, but {len(texts[wrong])} lines in {listing.stem}.{wrong}"
        )
    order = sorted(texts, key=lambda code: code != "en")
    wav = (listing.parent.parent / "wav").relative_to(folder)
    for number, segment in enumerate(segments):
        try:
            start, duration, name = segment["offset"], segment["duration"], str(segment["wav"])
        except (KeyError, TypeError):
            yield f"{listing}, segment {number + 1}: must have offset, duration and wav"
            continue
        sides = {f"{side}_text": texts[code][number] for side, code in zip(("src", "tgt"), order, strict=False)}
        yield {
            "id": f"{Path(name).stem}-{number:06d}", "src_audio": str(wav / name), "src_start": str(start),
            "src_duration": str(duration), "speaker": str(segment.get("speaker_id", "")), **sides,
            **{code: lines[number] for code, lines in texts.items()}, **_split_of(listing, folder),
        }  # fmt: skip


@lru_cache(maxsize=4)
def _segments(path: Path) -> Sequence[Mapping[str, object]]:
    try:
        content = yaml.load(path.read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not valid YAML ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(content, list):
        raise InputError(f"{path}: must be a list of segments")
    return content


def _fleurs(folder: Path, table: Path) -> Iterator[_Row]:
    """`SPLIT.tsv` without a header, and `audio/SPLIT`; `sentence` is the number that all languages have in common."""
    split = split_in_name(table.stem)
    for number, line in enumerate(_text_lines(table), start=1):
        cells = line.split("\t")
        if len(cells) < 4:
            yield f"{table}, line {number}: {len(cells)} fields, FLEURS has {len(_FLEURS)}"
            continue
        values = dict(zip(_FLEURS, cells, strict=False))
        audio = {"id": f"{split}-{Path(values['file']).stem}", "src_audio": f"audio/{table.stem}/{values['file']}"}
        yield values | audio | {"split": split}


def _text_lines(path: Path) -> list[str]:
    """The lines of a text file; bytes that are not UTF-8 become lone surrogates, by which the checks recognize them."""
    return path.read_text("utf-8-sig", "surrogateescape").removesuffix("\n").split("\n")


def _split_of(path: Path, folder: Path) -> dict[str, str]:
    """The split by the nearest folder's name that says it."""
    names = [*path.parent.parts[len(folder.parts) - 1 :]][::-1]
    split = next(filter(None, map(split_in_name, names)), "")
    return {"split": split} if split else {}


def _is_fleurs(folder: Path) -> list[Path]:
    tables = [folder / f"{split}.tsv" for split in _SPLITS]
    return [table for table in tables if table.is_file()] if (folder / "audio").is_dir() else []


_LAYOUTS: Sequence[tuple[Callable[[Path], Sequence[Path]], Callable[[Path, Path], Iterator[_Row]]]] = (
    (lambda folder: list(folder.glob("wav.scp")), _kaldi),
    (_is_fleurs, _fleurs),
    (lambda folder: list(folder.glob("**/txt/*.yaml")), _must_c),
    (lambda folder: list(folder.glob("**/*.trans.txt")), _librispeech),
)
