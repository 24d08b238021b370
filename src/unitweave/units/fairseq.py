"""Units in the formats of fairseq's speech-to-speech examples.

unit file   SIDE/SPLIT.txt   `id|u1 u2 u3`, one line a recording; read by splitting at the first `|`
manifest    SIDE/SPLIT.tsv   the root folder, then `relative path<TAB>samples at 16 kHz` in the same order
S2UT        SPLIT.tsv        a header, then id, src_audio, src_n_frames (10 ms), tgt_audio (the units), tgt_n_frames

fairseq calls our split dev "valid". Unit files and manifests are those of examples/textless_nlp and
examples/hubert, the S2UT table that of examples/speech_to_speech/preprocessing/prep_s2ut_data.py.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.core.manifest import SPLITS, Pair, read_manifest
from unitweave.core.sequences import deduplicate
from unitweave.units.dataset import SIDES, read_units

FORMATS = ("fairseq", "s2ut")
S2UT_COLUMNS = ("id", "src_audio", "src_n_frames", "tgt_audio", "tgt_n_frames")
_NAMES = {"train": "train", "dev": "valid", "test": "test"}
_HOP = 160  # samples of one of fairseq's 10 ms frames

Units = dict[tuple[str, str], np.ndarray]  # (utterance id, side) -> units


def export_units(folder: Path, kind: str, corpus: Path, units: Path, reduce: bool = False) -> list[Path]:
    """Write the units of a run in one of FORMATS into `folder`; `reduce` drops repetitions. Returns the files.

    Raises InputError where an id or a path has a character that the format does not allow.
    """
    if kind not in FORMATS:
        raise InputError(f"--format must be one of {', '.join(FORMATS)} (got {kind!r})")
    rows = read_units(units)
    found = {key: deduplicate(row.units)[0] if reduce else row.units for key, row in rows.items()}
    pairs = read_manifest(corpus)
    files: list[Path] = []
    for split in SPLITS:
        own = [pair for pair in pairs if pair.split == split]
        if own and kind == "s2ut":
            files.append(_write_s2ut(folder / f"{_NAMES[split]}.tsv", own, found))
        elif own:
            for side in SIDES:
                files += _write_side(folder / side, split, side, own, found)
    return files


def _write_side(folder: Path, split: str, side: str, pairs: Sequence[Pair], units: Units) -> list[Path]:
    present = [pair for pair in pairs if (pair.id, side) in units]
    if not present:
        return []
    lines = []
    for pair in present:
        _check(pair.id, "|\n\r", "fairseq unit file")
        lines.append(f"{pair.id}|{_spelled(units[pair.id, side])}\n")
    unit_file = folder / f"{_NAMES[split]}.txt"
    write_text(unit_file, "".join(lines))
    audio = [os.path.abspath(getattr(pair, f"{side}_audio")) for pair in present]  # noqa: PTH100 (keeps links)
    root = os.path.commonpath([os.path.dirname(path) for path in audio])  # noqa: PTH120
    rows = [f"{root}\n"]
    for pair, path in zip(present, audio, strict=True):
        _check(path, "\t\n\r", "fairseq manifest")
        rows.append(f"{os.path.relpath(path, root)}\t{_samples(pair, side)}\n")
    manifest = folder / f"{_NAMES[split]}.tsv"
    write_text(manifest, "".join(rows))
    return [unit_file, manifest]


def _write_s2ut(path: Path, pairs: Sequence[Pair], units: Units) -> Path:
    lines = ["\t".join(S2UT_COLUMNS) + "\n"]
    for pair in pairs:
        if not pair.src_audio or (pair.id, "tgt") not in units:
            continue
        own = units[pair.id, "tgt"]
        _check(pair.id, '\t\n\r"\\', "S2UT table")
        _check(pair.src_audio, '\t\n\r"\\', "S2UT table")
        frames = _samples(pair, "src") // _HOP
        lines.append(f"{pair.id}\t{pair.src_audio}\t{frames}\t{_spelled(own)}\t{len(own)}\n")
    write_text(path, "".join(lines))
    return path


def read_unit_file(path: Path) -> dict[str, np.ndarray]:
    """Units by id from a fairseq unit file. Raises InputError that names the line."""
    found: dict[str, np.ndarray] = {}
    for number, line in _lines(path):
        id_, bar, spelled = line.partition("|")
        if not bar or not id_:
            raise InputError(f"{path}, line {number}: expected 'id|u1 u2 u3'")
        if id_ in found:
            raise InputError(f"{path}, line {number}: duplicate id {id_!r}")
        found[id_] = _parsed(spelled, path, number)
    return found


def read_s2ut(path: Path) -> dict[str, np.ndarray]:
    """Target units by id from an S2UT table. Raises InputError that names the line."""
    found: dict[str, np.ndarray] = {}
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
        if row["id"] in found:
            raise InputError(f"{path}, line {number}: duplicate id {row['id']!r}")
        found[row["id"]] = units
    return found


def read_fairseq(kind: str, source: Path, splits: set[str]) -> Units:
    """Units of the splits from a folder in one of FORMATS. Raises InputError where there are none."""
    found: Units = {}
    sides: Mapping[str, str] = {"tgt": ""} if kind == "s2ut" else {side: side for side in SIDES}
    for side, below in sides.items():
        for split in splits:
            path = source / below / (_NAMES[split] + (".tsv" if kind == "s2ut" else ".txt"))
            if path.exists():
                read = read_s2ut(path) if kind == "s2ut" else read_unit_file(path)
                found |= {(id_, side): units for id_, units in read.items()}
    if not found:
        expected = "train.tsv, valid.tsv, test.tsv" if kind == "s2ut" else "src/train.txt, tgt/train.txt, ..."
        raise InputError(f"{source}: no {kind} files; expected {expected}")
    return found


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8 text") from None
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def _parsed(spelled: str, path: Path, number: int) -> np.ndarray:
    words = spelled.split()
    if not all(word.isdecimal() and int(word) < 2**16 for word in words):
        raise InputError(f"{path}, line {number}: units must be integers from 0 to 65535")
    return np.array([int(word) for word in words], np.uint16)


def _spelled(units: np.ndarray) -> str:
    return " ".join(map(str, units.tolist()))


def _samples(pair: Pair, side: str) -> int:
    """Samples of a recording at 16 kHz, from its duration."""
    return round(getattr(pair, f"{side}_seconds") * 16_000)


def _check(text: str, forbidden: str, where: str) -> None:
    bad = [character for character in forbidden if character in text]
    if bad:
        raise InputError(f"{text!r} has the character {bad[0]!r}, which is not allowed in a {where}")
