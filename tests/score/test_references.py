"""References of files as people and tools write them: names are no texts, and lists are several references."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from unitweave.core.errors import InputError
from unitweave.score.references import ReferenceTable, read_references

NAMES = [f"{i}_pred" for i in range(3)]
TEXTS = ["the dog runs", "b, x", "c"]
ROWS = list(zip(NAMES, TEXTS, strict=True))


def read(folder: Path, name: str, content: str) -> ReferenceTable:
    (folder / name).write_text(content)
    return read_references(folder / name, {key: folder / f"{key}.wav" for key in NAMES})


@pytest.mark.parametrize("separator", [" ", ",", ";", "|", ": ", "\t"])
def test_lines_that_begin_with_the_name_of_a_file_are_name_and_text(separator: str, tmp_path: Path) -> None:
    content = "".join(f"{name}{separator}{text}\n" for name, text in reversed(ROWS))
    assert read(tmp_path, "r.txt", content).texts == TEXTS
    plain = "".join(f"{text}\n" for text in TEXTS)
    assert read(tmp_path, "r.txt", plain).texts == TEXTS
    # One line without a name, and they are texts.
    assert read(tmp_path, "r.txt", "0_pred a\n1_pred b\nc\n").texts == ["0_pred a", "1_pred b", "c"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("r.tsv", '"name"\t"reference"\n' + "".join(f'"{a}"\t"{b}"\n' for a, b in ROWS)),
        ("r.csv", "seconds,Reference,file_name\n" + "".join(f'1,"{b}",{a}.wav\n' for a, b in ROWS)),
        ("r.csv", ",filename,transcription\n" + "".join(f'{i},{a},"{b}"\n' for i, (a, b) in enumerate(ROWS))),
        ("r.json", json.dumps(dict(ROWS))),
        ("r.json", json.dumps({"data": [{"id": a, "text": b} for a, b in ROWS]}, indent=1)),
    ],
)
def test_tables_have_their_columns_in_any_order(name: str, content: str, tmp_path: Path) -> None:
    assert read(tmp_path, name, content).texts == TEXTS


def test_a_list_in_json_or_parquet_is_several_references(tmp_path: Path) -> None:
    lists = [["the dog runs", "a dog is running"], ["b, x"], ["c", "d"]]
    lines = [json.dumps({"name": name, "references": texts}) for name, texts in zip(NAMES, lists, strict=True)]
    expected = TEXTS, [["a dog is running"], [], ["d"]]
    found = read(tmp_path, "r.jsonl", "\n".join(lines))
    assert (found.texts, found.further) == expected
    pq.write_table(pa.table({"references": lists, "id": NAMES}), tmp_path / "r.parquet")
    found = read_references(tmp_path / "r.parquet", {key: tmp_path / f"{key}.wav" for key in NAMES})
    assert (found.texts, found.further) == expected


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("r.jsonl", '{"name": "0_pred", "reference": {"en": "a"}}', "a reference must be a text, or a list of several"),
        ("r.csv", "name,duration\n0_pred,1\n", "no column 'reference'; it has name, duration"),
        ("r.csv", "name,reference\n0_pred,a\n1_pred,\n", "line 3: no reference"),
        ("r.csv", "name,reference\n0_pred,a\n1_pred,b\n", "no reference for 2_pred.wav"),
        ("r.csv", "name,reference\n0_pred,a\nother,b\n", "line 3: no audio file for 'other'"),
        ("r.xlsx", "no spreadsheet", "not readable as a spreadsheet"),
    ],
)
def test_what_is_no_reference_is_refused(name: str, content: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, name, content)
