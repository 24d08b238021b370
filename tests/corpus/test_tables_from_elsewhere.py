"""Tables, languages and names of recordings as programs other than ours write them."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from helpers.serving import speech
from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.core.languages import language_code
from unitweave.core.manifest import Pair, read_manifest
from unitweave.corpus.readers.json_tables import json_rows, parse_json
from unitweave.corpus.readers.paths import find_recording
from unitweave.corpus.readers.records import read_records, table_columns
from unitweave.corpus.readers.text_table import ParallelText, read_parallel_text

ROWS = [{"file": f"a{i}.wav", "es": text, "en": "yes"} for i, text in enumerate(("hola", "día"))]
FLAGS = ["--src-audio", "file", "--src-text", "es", "--tgt-text", "en", "--test-ratio", "0", "--dev-ratio", "0"]
LANGUAGES = ["--src-lang", "es", "--tgt-lang", "en"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for row in ROWS:
        soundfile.write(tmp_path / row["file"], speech(1.0), 16_000)
    return tmp_path


def build(table: Path, *arguments: str, languages: list[str] = LANGUAGES) -> list[Pair]:
    out = table.parent / "corpus"
    assert main(["corpus", "table", "--table", str(table), "--out", str(out), *FLAGS, *languages, *arguments]) == 0
    return read_manifest(out)


@pytest.mark.parametrize(
    "value",
    [
        ROWS,
        {"data": ROWS},
        {"version": "1.0", "info": {"year": 2026}, "utterances": ROWS},
        {name: [row[name] for row in ROWS] for name in ROWS[0]},
        {name: {str(i): row[name] for i, row in enumerate(ROWS)} for name in ROWS[0]},
    ],
)
@pytest.mark.parametrize(("name", "encoding", "indent"), [("t.json", "utf-8", 1), ("t.jsonl", "utf-16", None)])
def test_json_of_any_shape_gives_its_rows(
    value: object, name: str, encoding: str, indent: int | None, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps(value, indent=indent), encoding=encoding)
    assert [record.values for record in read_records(tmp_path / name)] == ROWS
    assert table_columns(tmp_path / name) == ["file", "es", "en"]


def test_json_rows_by_their_ids_or_one_after_the_other() -> None:
    assert json_rows({"x": {"t": "a"}, "y": {"t": "b"}}) == [{"id": "x", "t": "a"}, {"id": "y", "t": "b"}]
    row = {"audio": {"path": "a.wav", "bytes": None}, "translation": {"es": "hola", "en": "hello"}}
    assert json_rows(row) == [row], "a row of objects"
    assert parse_json('{"a": 1}\n\n{"a":\n2}') == [{"a": 1}, {"a": 2}]
    for broken in ("", '{"a": 1} x', "{"):
        with pytest.raises(ValueError, match=r"empty|Expecting"):
            parse_json(broken)


def test_a_tsv_in_quotes_and_a_header_with_invisible_characters_are_read(folder: Path) -> None:
    lines = ['"file"\t"\u200bes"\t"en"', '"a0.wav"\t"hola ""amigo"""\t"hello"', '"a1.wav"\t"día"\t"day"']
    (folder / "t.tsv").write_text("\n".join(lines))
    assert [pair.src_text_raw for pair in build(folder / "t.tsv")] == ['hola "amigo"', "día"]


def test_a_table_of_one_column_is_told_what_separates_columns(folder: Path, capsys: pytest.CaptureFixture) -> None:
    (folder / "t.csv").write_text("file^es^en\na0.wav^hola^hello\n")
    arguments = ["corpus", "table", "--table", str(folder / "t.csv"), "--out", str(folder / "c"), *FLAGS, *LANGUAGES]
    assert main(arguments) == 2
    assert "it has file^es^en; its first line names the columns, separated by commas" in capsys.readouterr().err


def test_a_compressed_table_is_to_be_unpacked(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(InputError, match="a compressed table; unpack it"):
        read_records(tmp_path / "t.csv.gz")


def test_splits_and_paths_as_bytes_are_understood(folder: Path) -> None:
    columns = {"file": [b"a0.wav", b"a1.wav"], "es": ["hola", "día"], "en": ["x", "y"], "split": ["dev-clean", "Train"]}
    pq.write_table(pa.table(columns), folder / "t.parquet")
    assert {pair.src_text: pair.split for pair in build(folder / "t.parquet")} == {"hola": "dev", "día": "train"}


def test_a_recording_cut_off_by_a_broken_download_is_no_row(folder: Path) -> None:
    content = (folder / "a1.wav").read_bytes()
    (folder / "a1.wav").write_bytes(content[: len(content) // 2])
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    assert [pair.src_text for pair in build(folder / "t.jsonl")] == ["hola"]
    assert "source: the recording is cut off" in (folder / "corpus/skipped.tsv").read_text()


def test_recordings_are_found_by_copied_paths_and_by_those_of_another_machine(tmp_path: Path) -> None:
    for name in ("clips/a.wav", "clips/1/b.wav", "clips/2/b.wav", "b.wav"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    for cell, name in (
        ("\u202aclips/a.wav", "clips/a.wav"),
        ("\u202aC:\\Users\\me\\clips\\a.wav", "clips/a.wav"),
        ("/home/somebody/data/clips/2/b.wav", "clips/2/b.wav"),
        ("D:/b.wav", "b.wav"),
    ):
        assert find_recording(tmp_path, cell) == tmp_path / name, cell
    for cell in ("/elsewhere/c.wav", "/clips/..", "/", "other/a.wav"):  # a relative name means what it says
        assert not find_recording(tmp_path, cell).is_file(), cell


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("es_MX.UTF-8", "es"), ("Spanish (Mexico)", "es"), ("Mexican Spanish", "es"), ("español", "es"),
        ("pt BR", "pt"), ("zh (Hans)", "zh"), ("\u200eDeutsch", "de"), ("日本語", "ja"), ("azj_Latn", "az"),
        ("हिन्दी", "hi"),
        ("norwegian bokmål", "no"), ("Spanish/English", "spanish/english"), ("Klingon", "klingon"), ("my", "my"),
    ],
)  # fmt: skip
def test_languages_have_one_code_whatever_a_table_calls_them(name: str, code: str) -> None:
    assert language_code(name) == code


def test_a_language_that_is_none_is_refused_before_a_recording_is_read(
    folder: Path, capsys: pytest.CaptureFixture
) -> None:
    (folder / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    arguments = ["corpus", "table", "--table", str(folder / "t.jsonl"), "--out", str(folder / "c"), *FLAGS]
    assert main([*arguments, "--src-lang", "es", "--tgt-lang", "Klingon"]) == 2
    assert "--tgt-lang: must be an ISO 639 code or a language (got 'Klingon')" in capsys.readouterr().err
    assert not (folder / "c").exists()


def test_parallel_text_is_checked_as_a_corpus_is(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    header = "SRC_LANG,tgt_lang,Src_Text,tgt_text\n"
    path.write_text(header + "Spanish (Mexico),EN,canción,song\n")
    assert read_parallel_text(path) == [ParallelText("es", "en", "canción", "song")]
    path.write_text(header + "es,Klingon,canción,song\n")
    with pytest.raises(InputError, match="row 1: tgt_lang 'Klingon' is not a language"):
        read_parallel_text(path)
    rows = ["es,en,canciÃ³n,song", "es,en,sol,sun", "es,en,aÃ±o y niÃ±o,year and child"]
    path.write_text(header + "\n".join(rows))
    with pytest.raises(InputError, match=r"texts have the wrong encoding: UTF-8 read as .* should be 'canción'"):
        read_parallel_text(path)
    path.write_text(header + "\n".join(rows[:2]))
    assert len(read_parallel_text(path)) == 2, "a single row is no reason to stop"
