"""Units in the formats of fairseq's speech-to-speech examples.

unit file   SIDE/SPLIT.txt   `id|u1 u2 u3`, one line a recording; read by splitting at the first `|`
manifest    SIDE/SPLIT.tsv   the root folder, then `relative path<TAB>samples at 16 kHz` in the same order
labels      SIDE/SPLIT.km    `u1 u2 u3`, a line for each recording of SIDE/SPLIT.tsv; only read
S2UT        SPLIT.tsv        a header, then id, src_audio, src_n_frames (10 ms), tgt_audio (the units), tgt_n_frames

fairseq calls our split dev "valid". Unit files and manifests are those of examples/textless_nlp and
examples/hubert, labels those of the latter's dump_km_label.py, the S2UT table that of
examples/speech_to_speech/preprocessing/prep_s2ut_data.py.
"""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TextIO

import numpy as np
import pyarrow as pa

from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.core.manifest import SPLITS, Manifest, Pair, read_manifest
from unitweave.core.sequences import deduplicate
from unitweave.units.dataset import SIDES, read_units

FORMATS = ("fairseq", "s2ut")
S2UT_COLUMNS = ("id", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
_NAMES = {"train": "train", "dev": "valid", "test": "test"}
_HOP = 160  # samples of one of fairseq's 10 ms frames

Spelled = Callable[[Pair, str], tuple[str, int]]  # pair, side -> units as text, and how many
Reader = Callable[[Path], Iterator[tuple[str, np.ndarray]]]  # file -> ids or recordings, and units


def export_units(folder: Path, kind: str, corpus: Path, units: Path, reduce: bool = False) -> list[Path]:
    """Write the units of a run in one of FORMATS into `folder`; `reduce` drops repetitions. Returns the files.

    Raises InputError where an id or a path has a character that the format does not allow.
    """
    if kind not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)} (got {kind!r})")
    rows = read_units(units)

    def spelled(pair: Pair, side: str) -> tuple[str, int]:
        row = rows[pair.id, side].units
        row = deduplicate(row)[0] if reduce else row
        return " ".join(map(str, row.tolist())), len(row)

    files: list[Path] = []
    for split in SPLITS:
        pairs = read_manifest(corpus, split)
        for side in ("tgt",) if kind == "s2ut" else SIDES:
            there = pairs.where(pa.array(rows.num_frames(pairs.column("id"), side) >= 0))
            if kind == "s2ut" and len(pairs):
                files.append(_write_s2ut(folder / f"{_NAMES[split]}.tsv", there, spelled))
            elif len(there):
                files += _write_side(folder / side, split, side, there, spelled)
    return files


def _write_side(folder: Path, split: str, side: str, pairs: Manifest, spelled: Spelled) -> list[Path]:
    unit_file, manifest = (folder / f"{_NAMES[split]}.{suffix}" for suffix in ("txt", "tsv"))

    def audio(pair: Pair) -> str:
        return os.path.abspath(getattr(pair, f"{side}_audio"))  # noqa: PTH100 (keeps links)

    root = os.path.commonpath([os.path.dirname(audio(pair)) for pair in pairs])  # noqa: PTH120
    with _writing(unit_file) as units, _writing(manifest) as paths:
        paths.write(f"{root}\n")
        for pair in pairs:
            _check(pair.id, "|\n\r", "fairseq unit file")
            _check(audio(pair), "\t\n\r", "fairseq manifest")
            units.write(f"{pair.id}|{spelled(pair, side)[0]}\n")
            paths.write(f"{os.path.relpath(audio(pair), root)}\t{_samples(pair, side)}\n")
    return [unit_file, manifest]


def _write_s2ut(path: Path, pairs: Manifest, spelled: Spelled) -> Path:
    with _writing(path) as file:
        file.write("\t".join(S2UT_COLUMNS) + "\n")
        for pair in pairs:
            if pair.src_audio:
                _check(pair.id, '\t\n\r"\\', "S2UT table")
                _check(pair.src_audio, '\t\n\r"\\', "S2UT table")
                frames, (units, number) = _samples(pair, "src") // _HOP, spelled(pair, "tgt")
                file.write(f"{pair.id}\t{pair.src_audio}\t{frames}\t{units}\t{number}\n")
    return path


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[TextIO]:
    """A text file that is there when all of it is written."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="\n") as file:
        yield file


def read_unit_file(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and units from a fairseq unit file. Raises InputError that names the line."""
    seen: set[str] = set()
    for number, line in _lines(path):
        id_, bar, spelled = line.partition("|")
        if not bar or not id_:
            raise InputError(f"{path}, line {number}: expected 'id|u1 u2 u3'")
        _check_new(id_, seen, path, number)
        yield id_, _parsed(spelled, path, number)


def read_labels(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Recordings and units from HuBERT's labels and the manifest beside them. Raises InputError that names the line."""
    manifest = path.with_suffix(".tsv")
    recordings = [line.split("\t")[0] for _, line in _lines(manifest)][1:]
    labels = [line for _, line in _lines(path, blank=True)]
    if len(labels) != len(recordings):
        raise InputError(f"{path}: has {len(labels)} lines, but {manifest} {len(recordings)} recordings")
    for number, (recording, line) in enumerate(zip(recordings, labels, strict=True), start=1):
        yield recording, _parsed(line, path, number)


def read_s2ut(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Ids and target units from an S2UT table. Raises InputError that names the line."""
    seen: set[str] = set()
    columns: list[str] = []
    for number, line in _lines(path):
        values = line.split("\t")
        if number == 1:
            columns = values
            missing = [name for name in ("id", "tgt_audio", "tgt_n_frames") if name not in columns]
            if missing:
                raise InputError(f"{path}: not an S2UT table; it lacks the column {missing[0]!r}")
            continue
        if len(values) != len(columns):
            raise InputError(f"{path}, line {number}: expected {len(columns)} columns (got {len(values)})")
        row = dict(zip(columns, values, strict=True))
        units = _parsed(row["tgt_audio"], path, number)
        if row["tgt_n_frames"] != str(len(units)):
            raise InputError(f"{path}, line {number}: {len(units)} units, but tgt_n_frames is {row['tgt_n_frames']}")
        _check_new(row["id"], seen, path, number)
        yield row["id"], units


def _check_new(id_: str, seen: set[str], path: Path, number: int) -> None:
    if id_ in seen:
        raise InputError(f"{path}, line {number}: duplicate id {id_!r}")
    seen.add(id_)


def read_fairseq(kind: str, source: Path, splits: set[str]) -> Iterator[tuple[str, str, np.ndarray]]:
    """Id or recording, side and units of the splits from a folder in one of FORMATS.

    Raises:
        InputError: There are none, or a line is damaged.
    """
    sides: Mapping[str, str] = {"tgt": ""} if kind == "s2ut" else {side: side for side in SIDES}
    readers: Mapping[str, Reader] = (
        {".tsv": read_s2ut} if kind == "s2ut" else {".txt": read_unit_file, ".km": read_labels}
    )
    found = False
    for side, split in itertools.product(sides, (split for split in SPLITS if split in splits)):
        names = (name + suffix for name in (_NAMES[split], split) for suffix in readers)
        path = next((path for path in (source / sides[side] / name for name in names) if path.is_file()), None)
        if path is not None:
            found = True
            yield from ((id_, side, units) for id_, units in readers[path.suffix](path))
    if not found:
        expected = "train.tsv, valid.tsv, test.tsv" if kind == "s2ut" else "src/train.txt, tgt/train.txt, ... (or .km)"
        raise InputError(f"{source}: no {kind} files; expected {expected}")


def _lines(path: Path, blank: bool = False) -> Iterator[tuple[int, str]]:
    """Numbers and lines of a file; blank ones where they are asked for."""
    try:
        with path.open(encoding="utf-8-sig", newline="\n") as file:
            for number, line in enumerate(file, start=1):
                if blank or line.strip():
                    yield number, line.rstrip("\r\n")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None


def _parsed(spelled: str, path: Path, number: int) -> np.ndarray:
    words = spelled.split()
    if not all(word.isdecimal() and int(word) < 2**16 for word in words):
        raise InputError(f"{path}, line {number}: units must be integers from 0 to 65535")
    return np.array([int(word) for word in words], np.uint16)


def _samples(pair: Pair, side: str) -> int:
    """Samples of a recording at 16 kHz, from its duration."""
    return round(getattr(pair, f"{side}_seconds") * 16_000)


def _check(text: str, forbidden: str, where: str) -> None:
    bad = [character for character in forbidden if character in text]
    if bad:
        raise InputError(f"{text!r} has the character {bad[0]!r}, which is not allowed in a {where}")
