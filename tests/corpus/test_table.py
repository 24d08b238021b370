"""Tables and hub datasets as corpora: formats, columns, splits, and what is skipped for which reason."""

import contextlib
import csv
import json
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import example, given
from hypothesis import strategies as st

from helpers.cvss_miniature import encoded, tone
from unitweave.cli import main
from unitweave.config.corpus import Columns
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, is_file_name, read_manifest
from unitweave.core.text import normalize
from unitweave.corpus.checks import encoding_problem
from unitweave.corpus.readers.paths import find_recording
from unitweave.corpus.readers.records import count_rows, read_records, table_columns
from unitweave.corpus.readers.table import drawn_split, file_name, resolve

LANGUAGES = ["--src-lang", "fr", "--tgt-lang", "en"]
FRENCH = ['Il dit : "oui" ; c\'est l’été', "Où est-il, 1 234 fois ?", "Ça va bien", "C:\\temp, voilà"]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings of every kind: rates, channels, formats, and all that can be wrong with one."""
    folder = tmp_path_factory.mktemp("clips")
    for i in range(8):
        soundfile.write(folder / f"src{i}.wav", tone(1.5, 16_000, i), 16_000)
        soundfile.write(folder / f"tgt{i}.flac", tone(1.0, 22_050, 20 + i), 22_050)
    soundfile.write(folder / "stereo.wav", tone(1.0, 44_100, 3, channels=2), 44_100)
    soundfile.write(folder / "float.wav", tone(1.0, 8_000, 3), 8_000, subtype="FLOAT")
    bad = tone(1.0, 16_000, 0)
    bad[100] = np.nan
    soundfile.write(folder / "nan.wav", bad, 16_000, subtype="FLOAT")
    soundfile.write(folder / "empty.wav", np.zeros(0), 16_000)
    soundfile.write(folder / "silent.wav", np.zeros(16_000), 16_000)
    soundfile.write(folder / "offset.wav", np.full(16_000, 0.5), 16_000)
    soundfile.write(folder / "short.wav", tone(0.05, 16_000, 0), 16_000)
    soundfile.write(folder / "long.flac", tone(61, 8_000, 0), 8_000)
    soundfile.write(folder / "hours.wav", np.zeros(1200 * 4000, np.int16), 1200, subtype="PCM_16")
    damaged = bytearray((folder / "src0.wav").read_bytes())
    damaged[24:28] = (3).to_bytes(4, "little")
    (folder / "rate.wav").write_bytes(damaged)
    (folder / "text.wav").write_text("this is no audio")
    (folder / "zero.wav").write_bytes(b"")
    soundfile.write(folder / "bomb.flac", np.zeros(2000 * 4000, np.int16), 2000)  # 9 kB
    soundfile.write(folder / "pcm.raw", tone(1.0, 16_000, 0), 16_000, subtype="PCM_16", format="RAW")
    stream = bytearray(encoded(tone(1.0, 16_000, 0), 16_000, "FLAC"))
    stream[21:26] = bytes([stream[21] & 0xF0, 0, 0, 0, 0])  # the number of samples, as where FLAC comes from a pipe
    (folder / "stream.flac").write_bytes(stream)
    (folder / "cut.wav").write_bytes((folder / "src0.wav").read_bytes()[:40])
    return folder


def rows(number: int = 8) -> list[dict[str, str]]:
    return [
        {
            "name": f"pair{i}",
            "fr_audio": f"src{i}.wav",
            "en_audio": f"tgt{i}.flac",
            "fr": FRENCH[i % 4],
            "en": f"Sentence {i}, yes",
            "who": f"s{i % 2}",
            "part": ("train", "train", "validation", "test")[i % 4],
        }
        for i in range(number)
    ]


def write(path: Path, content: list[dict]) -> Path:
    """The rows in the format of the suffix."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(content), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content))
    else:
        tabs = path.suffix == ".tsv"
        with path.open("w", newline="") as file:
            style = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "quotechar": None} if tabs else {}
            writer = csv.DictWriter(file, list(content[0]), lineterminator="\n", **style)  # type: ignore[arg-type]
            writer.writeheader()
            writer.writerows(content)
    return path


COLUMNS = ["--src-audio", "fr_audio", "--tgt-audio", "en_audio", "--src-text", "fr", "--tgt-text", "en"]
ALL = [*COLUMNS, "--id", "name", "--speaker", "who", "--split", "part", *LANGUAGES]


def build(clips: Path, table: Path, out: Path, *arguments: str) -> list[Pair]:
    assert (
        main(["corpus", "table", "--table", str(table), "--audio-root", str(clips), "--out", str(out), *arguments]) == 0
    )
    return read_manifest(out)


def skipped(out: Path) -> dict[str, str]:
    lines = (out / "skipped.tsv").read_text().splitlines()[1:]
    return {line.split("\t")[0]: line.split("\t")[2] for line in lines}


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_every_format_gives_the_same_pairs(suffix: str, clips: Path, tmp_path: Path) -> None:
    pairs = build(clips, write(tmp_path / f"table{suffix}", rows()), tmp_path / "out", *ALL)
    assert not skipped(tmp_path / "out")
    assert {p.id: (p.split, p.src_text_raw, p.tgt_text_raw, p.speaker) for p in pairs} == {
        r["name"]: (r["part"].replace("validation", "dev"), r["fr"], r["en"], r["who"]) for r in rows()
    }
    for pair in pairs:
        assert pair.src_text == normalize(str(pair.src_text_raw), "fr")
        assert (pair.src_seconds, pair.tgt_seconds) == pytest.approx((1.5, 1.0), abs=1e-3)
        assert len(read_audio(str(pair.tgt_audio))) == pytest.approx(16_000, abs=2)


def test_a_table_with_the_manifests_own_column_names_needs_no_flags_for_them(clips: Path, tmp_path: Path) -> None:
    content = [
        {"src_audio": f"src{i}.wav", "src_text": "oui", "tgt_text": f"yes {i}", "src_lang": "fr-FR", "tgt_lang": "en"}
        for i in range(4)
    ]
    pairs = build(clips, write(tmp_path / "mine.jsonl", content), tmp_path / "out")
    assert [p.id for p in sorted(pairs, key=lambda p: p.id)] == [f"mine-{i:06d}" for i in (1, 2, 3, 4)]
    assert all(p.src_lang == "fr" and p.tgt_audio is None and p.tgt_text for p in pairs)


def test_audio_may_lie_within_the_table(clips: Path, tmp_path: Path) -> None:
    content = [
        {"id": f"a{i}", "src_audio": encoded(tone(1.0, 44_100, i, 2), 44_100, "FLAC"),
         "tgt_audio": {"bytes": None, "path": f"tgt{i}.flac"}} for i in range(3)
    ]  # fmt: skip
    pairs = build(clips, write(tmp_path / "table.parquet", content), tmp_path / "out", *LANGUAGES)
    assert [p.id for p in pairs if p.src_seconds == 1.0 and p.tgt_seconds == 1.0] and len(pairs) == 3
    assert all(p.src_text is None and p.tgt_text is None for p in pairs)


def test_tables_of_the_hub_hold_decoded_sound_texts_in_objects_and_texts_as_bytes(clips: Path, tmp_path: Path) -> None:
    sound = {"array": tone(1.5, 8_000, 3).tolist(), "sampling_rate": 8_000, "path": None}
    row = {"audio": sound, "translation": {"fr": "Ça va", "en": "Fine"}, "raw": "Ça va".encode()}
    for name, text in (("t.parquet", "translation.fr"), ("b.parquet", "raw"), ("t.jsonl", "translation.fr")):
        rows = [row] if name.endswith("parquet") else [{key: row[key] for key in ("audio", "translation")}]
        table = write(tmp_path / name, rows)
        columns = ["--src-audio", "audio", "--src-text", text, "--tgt-text", "translation.en"]
        (pair,) = build(clips, table, tmp_path / f"{name}.out", *columns, *LANGUAGES)
        assert (pair.src_text, pair.tgt_text) == ("ça va", "fine")
        assert len(read_audio(str(pair.src_audio))) == 24_000
    table = write(tmp_path / "l.parquet", [{"audio": [0.1, 0.2], "fr": "Ça va"}])
    arguments = ["--table", str(table), "--out", str(tmp_path / "l"), "--src-audio", "audio", *LANGUAGES]
    assert main(["corpus", "table", *arguments]) == 2


def test_stereo_and_any_rate_become_16_khz_mono(clips: Path, tmp_path: Path) -> None:
    content = [{"id": n, "src_audio": f"{n}.wav"} for n in ("stereo", "float")]
    for pair in build(clips, write(tmp_path / "t.csv", content), tmp_path / "out", *LANGUAGES):
        samples, rate = soundfile.read(str(pair.src_audio))
        assert rate == 16_000 and samples.shape == (16_000,)


BAD = {
    "nan": ("nan.wav", "oui oui", "source: the audio has values that are not numbers"),
    "empty": ("empty.wav", "oui", "source: the audio is empty"),
    "zero": ("zero.wav", "oui", "source: not readable as audio"),
    "text": ("text.wav", "oui", "source: not readable as audio"),
    "cut": ("cut.wav", "oui", "source: not readable as audio"),
    "folder": (".", "oui", "source: not readable as audio"),
    "missing": ("nowhere.wav", "oui", "source: no such audio file"),
    "unnamed": ("", "oui", "source: no recording"),
    "silent": ("silent.wav", "oui", "source: the recording is silent"),
    "offset": ("offset.wav", "oui", "source: the recording is silent"),
    "short": ("short.wav", "oui", "source: the recording is too short"),
    "long": ("long.flac", "oui", "source: the recording is too long"),
    "hours": ("hours.wav", "oui", "source: the recording is too long"),
    "bomb": ("bomb.flac", "oui", "source: the recording is too long"),
    "raw": ("pcm.raw", "oui", "source: not readable as audio"),
    "sentence": ("a" * 300, "oui", "source: no such audio file"),
    "rate": ("rate.wav", "oui", "source: impossible sampling rate"),
    "many": ("src0.wav", "mot " * 50, "source: too much text for the recording"),
    "none": ("src0.wav", "", "source: no words in the text"),
    "signs": ("src0.wav", "… !", "source: no words in the text"),
    "broken": ("src0.wav", "caf\ufffd", "source: the text has the wrong encoding"),
    "mojibake": ("src0.wav", "Ã©tÃ© franÃ§ais", "source: the text has the wrong encoding"),
    "control": ("src0.wav", "ou\x07i", "source: control characters in the text"),
}


def test_every_bad_row_is_skipped_with_its_id_and_reason(clips: Path, tmp_path: Path) -> None:
    content = [{"id": n, "src_audio": a, "src_text": t} for n, (a, t, _) in BAD.items()]
    content += [{"id": f"good{i}", "src_audio": f"src{i % 8}.wav", "src_text": "très bien"} for i in range(26)]
    content.append({"id": "good3", "src_audio": "src4.wav", "src_text": "encore"})
    out = tmp_path / "out"
    pairs = build(clips, write(tmp_path / "t.jsonl", content), out, *LANGUAGES)
    assert skipped(out) == {n: reason for n, (_, _, reason) in BAD.items()} | {"good3": "duplicate id"}
    assert {p.id for p in pairs} == {f"good{i}" for i in range(26)}
    third = next(p for p in pairs if p.id == "good3")
    assert np.allclose(read_audio(str(third.src_audio)), read_audio(clips / "src3.wav"), atol=1e-4), (
        "not its namesake's"
    )
    about = json.loads((out / "corpus.json").read_text())
    assert about["skipped"] == dict(Counter(skipped(out).values()))
    heard = {str(Path(str(p.src_audio)).name) for p in pairs}
    assert not {f"{n}.flac" for n in ("nan", "silent", "zero")} & {p.name for p in out.rglob("*.flac")} - heard


def test_limits_are_settings_and_changing_them_decodes_nothing_again(
    clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = write(
        tmp_path / "t.jsonl", [{"id": n, "src_audio": f"{n}"} for n in ("short.wav", "long.flac", "src0.wav")]
    )
    out = tmp_path / "out"
    assert len(build(clips, table, out, *LANGUAGES, "--allow-skipped")) == 1
    monkeypatch.setattr("unitweave.corpus.recording_store.read_audio", lambda *_: pytest.fail("decoded again"))
    assert len(build(clips, table, out, *LANGUAGES, "--min-seconds", "0.01", "--max_seconds", "99")) == 3


def test_rows_that_cannot_be_read_are_skipped_not_fatal(clips: Path, tmp_path: Path) -> None:
    table = tmp_path / "t.tsv"
    lines = [b"id\tsrc_audio\tsrc_text"] + [f"g{i}\tsrc{i}.wav\tbien".encode() for i in range(5)]
    lines += [b"few\tsrc1.wav", b"latin\tsrc1.wav\t\xe9t\xe9", b"path\t\xe9t\xe9.wav\toui"]
    table.write_bytes(b"\r\n".join(lines) + b"\r\n")
    assert len(build(clips, table, tmp_path / "out", *LANGUAGES)) == 5
    assert set(skipped(tmp_path / "out").values()) == {
        "the row cannot be read",
        "source: the text has the wrong encoding",
        "source: no such audio file",
    }
    # The right name of the encoding, or a byte order mark, repairs it.
    assert len(build(clips, table, tmp_path / "latin", *LANGUAGES, "--encoding", "latin-1")) == 6
    table.write_text("id\tsrc_audio\tsrc_text\na\tsrc1.wav\tété\n", encoding="utf-16")
    assert build(clips, table, tmp_path / "utf16", *LANGUAGES)[0].src_text == "été"
    lines_of_json = tmp_path / "t.jsonl"
    lines_of_json.write_text(
        '{"id": "a", "src_audio": "src1.wav"}\n{"id": \n[1]\n\n{"id": "b", "src_audio": "src2.wav"}\n'
    )
    assert len(build(clips, lines_of_json, tmp_path / "json", *LANGUAGES)) == 2
    assert len(skipped(tmp_path / "json")) == 2


@pytest.mark.parametrize(
    ("name", "encoding", "separator", "first"),
    [
        ("t.csv", "utf-8", ";", ""),
        ("t.csv", "utf-8-sig", ";", "sep=;\n"),
        ("t.csv", "utf-8", "\t", ""),
        ("t.csv", "utf-16", "\t", ""),
        ("t.csv", "utf-16-le", ";", ""),
        ("t.txt", "utf-8", "\t", ""),
        ("t.tsv", "utf-8", ";", ""),
        ("t.csv", "utf-8", "|", '"sep=|"\r\n'),
    ],
)
def test_tables_as_spreadsheets_save_them_are_read(
    name: str, encoding: str, separator: str, first: str, clips: Path, tmp_path: Path
) -> None:
    lines = [["id", " src_audio", "src_text"], ["a", "src1.wav", "Ça va, bien", ""], ["b", "src2.wav", "Où est-il ?"]]
    text = first + "".join(separator.join(line) + "\r\n" for line in lines)
    (tmp_path / name).write_bytes(text.encode(encoding))
    pairs = build(clips, tmp_path / name, tmp_path / "out", *LANGUAGES)
    assert {p.id: p.src_text_raw for p in pairs} == {"a": "Ça va, bien", "b": "Où est-il ?"}
    assert not skipped(tmp_path / "out")


def test_recordings_are_found_by_the_names_that_spreadsheets_have_for_them(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    composed, apart = (unicodedata.normalize(form, "canción uno.wav") for form in ("NFC", "NFD"))
    for name in ("a.wav", "B.WAV", apart, "0007.mp3", "two.wav", "two.flac"):
        (tmp_path / "clips" / name).touch()
    for cell, name in (
        ("clips\\a.wav", "a.wav"),
        (".\\clips\\a.wav", "a.wav"),
        (' "clips/a.wav" ', "a.wav"),
        ("clips/b.wav", "B.WAV"),
        (f"clips/{composed}", apart),
        ("clips/0007", "0007.mp3"),
        (f"file://{tmp_path}/clips/canci%C3%B3n%20uno.wav", apart),
        (f"{tmp_path}/clips/a.wav", "a.wav"),
    ):
        assert find_recording(tmp_path, cell) == tmp_path / "clips" / name, cell
        assert find_recording(tmp_path, cell).is_file()
    for cell in ("clips/two", "clips/none.wav", "clips/a\0.wav", "nowhere/a.wav", "clips", "\\"):
        assert not find_recording(tmp_path, cell).is_file() if "\0" not in cell else True, "two files, or none"


def test_empty_rows_cost_nothing_and_column_names_may_be_composed_otherwise(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "a.wav").write_bytes((clips / "src0.wav").read_bytes())
    lines = [
        unicodedata.normalize("NFD", "archivo;español;inglés;"),
        ";;;",
        "a;Hola, ¿qué tal?;Hello there;",
        ";;;",
        ";;;",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines), encoding="utf-8-sig")
    arguments = ["--src-audio", "archivo", "--src-text", "español", "--tgt-text", "inglés", "--src-lang", "es"]
    arguments = ["corpus", "table", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "c"), *arguments]
    assert main([*arguments, "--tgt-lang", "en", "--test-ratio", "0", "--dev-ratio", "0"]) == 0
    assert [pair.src_text_raw for pair in read_manifest(tmp_path / "c")] == ["Hola, ¿qué tal?"]
    assert "skipped" not in capsys.readouterr().out


def test_columns_of_one_name_are_told_apart_and_a_header_in_another_encoding_is_named(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("file;text;text;;\na.wav;hola;hello;;\n")
    assert table_columns(tmp_path / "t.csv") == ["file", "text (1)", "text (2)", ""]
    (tmp_path / "t.csv").write_bytes("archivo;español\na.wav;hola\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"column names are not in utf-8; .* --encoding cp1252 where 'español'"):
        table_columns(tmp_path / "t.csv")
    assert table_columns(tmp_path / "t.csv", "cp1252") == ["archivo", "español"]


def test_nemo_manifests_and_json_arrays_are_read_and_a_spreadsheet_is_named(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = [{"audio_filepath": f"src{i}.wav", "duration": 1.5, "text": f"oui {i}"} for i in range(3)]
    content[2]["note"] = "a key that the first object lacks"
    (tmp_path / "nemo.json").write_text("".join(json.dumps(row) + "\n" for row in content))
    (tmp_path / "array.json").write_text(json.dumps(content))
    columns = ["--src-audio", "audio_filepath", "--src-text", "text", "--speaker", "note", *LANGUAGES]
    for name in ("nemo", "array"):
        pairs = build(clips, tmp_path / f"{name}.json", tmp_path / name, *columns)
        assert {p.src_text_raw for p in pairs} == {"oui 0", "oui 1", "oui 2"}
    for table, words in (("nemo.json", "for instance --src-audio audio_filepath"), ("t.xlsx", "save it as CSV")):
        (tmp_path / "t.xlsx").write_bytes(b"PK")
        assert (
            main(["corpus", "table", "--table", str(tmp_path / table), "--out", str(tmp_path / "o"), *LANGUAGES]) == 2
        )
        assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("zip.csv", b"PK\x03\x04 sheet.xml", "a spreadsheet or another ZIP archive"),
        ("old.tsv", b"\xd0\xcf\x11\xe0" + bytes(600), "another Office document"),
        ("login.csv", b"\xef\xbb\xbf\n<!DOCTYPE html><body>", "a web page"),
        ("lfs.jsonl", b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (
            "pretty.json",
            b'{\n "data": [\n  {\n   "a": 1\n  }\n ',
            "an object a line, or one array of objects",
        ),
        ("title.csv", b"My recordings\nfile,es,en\na.wav,b,c\n", "a table has column names first"),
    ],
)
def test_a_file_that_is_no_table_is_called_what_it_is(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=told) as caught:
        table_columns(tmp_path / name)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"\r\n \r\nfile,es,en\r\na.wav,hola,hello\r\n",
        b"\nsep=;\nfile;es;en\na.wav;hola;hello\n   \n",
        "file,es,en\na.wav,hola,hello\n".encode("utf-32"),
        b"file,es,en\ra.wav,hola,hello\r",
    ],
)
def test_empty_lines_above_a_header_and_any_ends_of_lines_are_read(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    records = list(read_records(tmp_path / "t.csv"))
    assert [record.values for record in records] == [{"file": "a.wav", "es": "hola", "en": "hello"}]
    assert count_rows(tmp_path / "t.csv") in range(1, 6), "about as many as there are lines"


def test_columns_are_found_in_any_case_where_only_one_can_be_meant() -> None:
    found = resolve(Columns(src_audio="file", src_lang="es", tgt_lang="en"), ["File", "Split"], "t.csv")
    assert found.src_audio == "File"
    with pytest.raises(InputError, match="no column 'file'"):
        resolve(Columns(src_audio="file", src_lang="es", tgt_lang="en"), ["File", "FILE"], "t.csv")


def test_cells_that_are_no_text_are_not_trained_on(clips: Path, tmp_path: Path) -> None:
    texts = ["bonjour", ["a", "b"], {"fr": "x"}, True, float("nan"), "#N/A", "NULL", "l&eacute;gume", "<b>gras</b>", 7]
    texts += ["AT&T; moins < plus >", "Null"]  # German for zero
    rows = [{"audio": f"src{i % 8}.wav", "fr": text, "en": f"hello {i}"} for i, text in enumerate(texts)]
    (clips / "odd.jsonl").write_text("\n".join(map(json.dumps, rows)))
    columns = ["--src-audio", "audio", "--src-text", "fr", "--tgt-text", "en", *LANGUAGES, "--allow-skipped"]
    assert main(["corpus", "table", "--table", str(clips / "odd.jsonl"), "--out", str(tmp_path / "c"), *columns]) == 0
    kept = {pair.src_text_raw for pair in read_manifest(tmp_path / "c")}
    assert kept == {"bonjour", "7", "AT&T; moins < plus >", "Null"}
    reasons = Counter(skipped(tmp_path / "c").values())
    assert reasons == {
        "the column fr is not text": 3,
        "source: no words in the text": 3,
        "source: markup in the text": 2,
    }


def test_a_missing_recording_is_named_by_the_path_that_was_tried(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "t.csv").write_text("audio,en\nnowhere/a.wav,hello\nhttps://example.org/b.wav,bye\n")
    columns = ["--src-audio", "audio", "--tgt-text", "en", *LANGUAGES]
    assert main(["corpus", "table", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "c"), *columns]) == 2
    assert str(tmp_path / "nowhere/a.wav") in " ".join(capsys.readouterr().err.split())
    assert "download the recordings first" in (tmp_path / "c/skipped.tsv").read_text()


def test_bytes_that_are_not_utf8_are_shown_as_they_may_be_meant() -> None:
    read = "mañana".encode("cp1252").decode("utf-8", "surrogateescape")
    assert encoding_problem(read, "es") == "bytes that are not UTF-8; with --encoding cp1252 it is 'mañana'"
    read = "łąka".encode("cp1250").decode("utf-8", "surrogateescape")
    assert encoding_problem(read, "pl").endswith("with --encoding cp1250 it is 'łąka'")


def test_an_unclosed_quote_costs_one_row_and_not_the_rest(clips: Path, tmp_path: Path) -> None:
    lines = ["id,src_audio,src_text", *(f"r{i},src{i % 8}.wav,oui" for i in range(40))]
    lines[3] += ',"and another'
    lines[5] = lines[5].replace("oui", '"oui')
    lines[9] = lines[9].replace("oui", '"oui, ""oui"",\noui"')  # a good one, of two lines
    lines[20] = lines[20].replace("oui", '"oui')  # goes on to the end
    table = tmp_path / "t.csv"
    table.write_text("\n".join(lines) + "\n")
    pairs = build(clips, table, tmp_path / "out", *LANGUAGES)
    assert {p.id for p in pairs} == {f"r{i}" for i in range(40)} - {"r2", "r4", "r19"}
    assert next(p for p in pairs if p.id == "r8").src_text_raw == 'oui, "oui",\noui'
    problems = [line.split("\t")[3] for line in (tmp_path / "out/skipped.tsv").read_text().splitlines()[1:]]
    assert [p.split(" (")[0] for p in problems] == [
        "line 4: a quote is not closed before line 6",
        "line 6: a quote is not closed before line 10",
        "line 22: a quote is not closed before line 42",
    ]


def test_a_header_that_csv_refuses_is_named(clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "t.csv").write_text('"id"x,src_audio\na,src1.wav\n')
    assert main(["corpus", "table", "--table", str(tmp_path / "t.csv"), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert "t.csv, line 1: the column names cannot be read" in error and error.count("\n") == 0


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("t.csv", 'src_audio,src_text\na.wav,"oui\nb.wav,non\n', None),
        (
            "t.csv",
            'src_audio,src_text\na.wav,"oui\n',
            "none of its 1 rows can be read; line 2: .*unexpected end",
        ),
        ("t.jsonl", '{"a": 1\n{"b"\n', "none of its 2 rows can be read; line 1: not valid JSON"),
        ("t.jsonl", '{"a": ' + "9" * 5_000 + "}\n", "none of its 1 rows can be read; line 1: not valid JSON .*digits"),
        ("t.jsonl", "[" * 100_000 + "\n", r"line 1: not valid JSON \(nested too deeply\)"),
        ("t.jsonl", '\n["a"]\n', r"line 2: expected a JSON object \(got list\)"),
        ("t.jsonl", '{"a": "' + "x" * (1 << 24) + '"}', "line 1: longer than 16 million characters"),
        ("t.tsv", "src_audio\n" + "x" * (1 << 25) + "\n", "line 2: .*longer than 16 million characters"),
        ("t.csv", "", "the table is empty"),
        ("t.tsv", "src_audio\n", "the table has no rows"),
    ],
)
def test_rows_that_are_there_but_cannot_be_read_are_counted(
    tmp_path: Path, name: str, content: str, words: str | None
) -> None:
    (tmp_path / name).write_text(content)
    if words is None:
        assert table_columns(tmp_path / name) == ["src_audio", "src_text"], "the second row is whole"
        return
    with pytest.raises(InputError, match=words) as caught:
        table_columns(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_line_that_is_too_long_costs_one_row(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\t2\n" + "x" * (40 << 20) + "\n3\t4\n")
    records = list(read_records(tmp_path / "t.tsv"))
    assert [dict(r.values) for r in records] == [{"a": "1", "b": "2"}, {}, {"a": "3", "b": "4"}]
    assert records[1].problem == "line 3: longer than 16 million characters"


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.99])
def test_a_cut_off_parquet_table_is_named(tmp_path: Path, fraction: float) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"a": [str(i) for i in range(1000)]}), path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * fraction)])
    with pytest.raises(InputError, match=r"t\.parquet: (not readable as Parquet|damaged)"):
        table_columns(path)


def test_tables_of_the_same_name_give_ids_of_their_own(clips: Path, tmp_path: Path) -> None:
    tables = [tmp_path / part for part in ("es/train.tsv", "fr/train.tsv", "2/fr/train.tsv", "fr/train.csv", "dev.tsv")]
    for table in tables:
        table.parent.mkdir(parents=True, exist_ok=True)
        write(table, [{"src_audio": f"src{i}.wav", "src_text": "oui"} for i in range(2)])
    pairs = build(clips, tables[0], tmp_path / "out", *LANGUAGES, "--table", *map(str, [*tables, tables[1]]))
    names = {"es-train", "fr-train", "fr-train-2", "fr-train-3", "dev"}
    assert {p.id for p in pairs} == {f"{name}-00000{i}" for name in names for i in (1, 2)}
    assert skipped(tmp_path / "out") == dict.fromkeys(("fr-train-000001", "fr-train-000002"), "duplicate id")


def test_text_is_needed_unless_a_column_says_which_side_lacks_it(clips: Path, tmp_path: Path) -> None:
    content = [
        {"id": f"r{i}", "src_audio": f"src{i}.wav", "src_text": s, "tgt_text": t, "without": w}
        for i, (s, t, w) in enumerate(
            [
                ("oui", "yes", ""),
                ("", "yes", "source"),
                ("oui", "", "target"),
                ("", "", "both"),
                ("", "yes", ""),
                ("x", "x", "?"),
            ]
        )
    ]
    table = write(tmp_path / "t.csv", content)
    pairs = {p.id: p for p in build(clips, table, tmp_path / "out", *LANGUAGES, "--lacks-text", "without")}
    assert set(pairs) == {"r0", "r1", "r2", "r3"}
    assert pairs["r1"].src_text is None and pairs["r1"].src_text_raw is None and pairs["r1"].tgt_text == "yes"
    assert skipped(tmp_path / "out")["r4"] == "source: no words in the text"


def test_languages_and_splits_come_from_columns(clips: Path, tmp_path: Path) -> None:
    content = [
        {"id": f"r{i}", "src_audio": f"src{i}.wav", "l": code, "split": split}
        for i, (code, split) in enumerate([("fr", "train"), ("zh-CN", "valid"), ("klingon", "test"), ("es", "holdout")])
    ]
    table = write(tmp_path / "t.csv", content)
    arguments = ["--src-lang-column", "l", "--tgt-lang", "en", "--allow-skipped"]
    assert {(p.src_lang, p.split) for p in build(clips, table, tmp_path / "out", *arguments)} == {
        ("fr", "train"),
        ("zh", "dev"),
    }
    assert skipped(tmp_path / "out") == {
        "r2": "the language is not an ISO 639 code",
        "r3": "the split must be train, dev or test",
    }


def test_drawn_splits_have_their_shares_keep_groups_together_and_do_not_move() -> None:
    drawn = {key: drawn_split(str(key), 0.1, 0.2, 7) for key in range(5000)}
    shares = Counter(drawn.values())
    assert shares["dev"] / 5000 == pytest.approx(0.1, abs=0.02) and shares["test"] / 5000 == pytest.approx(
        0.2, abs=0.02
    )
    assert drawn[17] == drawn_split("17", 0.1, 0.2, 7)
    wider = {key: drawn_split(str(key), 0.1, 0.3, 7) for key in range(5000)}
    assert all(wider[key] == "test" for key in drawn if drawn[key] == "test"), (
        "a larger test split keeps the smaller one"
    )


@pytest.mark.parametrize("by", ["text", "speaker"])
def test_no_group_is_divided_between_splits(by: str, clips: Path, tmp_path: Path) -> None:
    texts = [f"Sentence, {i % 9}!" if i % 2 else f"sentence {i % 9}" for i in range(45)]
    content = [
        {"id": f"r{i}", "src_audio": f"src{i % 8}.wav", "tgt_text": text, "speaker": f"s{i % 5}"}
        for i, text in enumerate(texts)
    ]
    table = write(tmp_path / "t.csv", content)
    shares = ["--dev-ratio", "0.3", "--test-ratio", "0.3", "--split-by", by]
    pairs = build(clips, table, tmp_path / "out", *LANGUAGES, *shares)
    splits: dict[str, set[str]] = {}
    for pair in pairs:
        splits.setdefault(str(pair.tgt_text) if by == "text" else pair.speaker, set()).add(pair.split)
    assert all(len(found) == 1 for found in splits.values()) and len({p.split for p in pairs}) > 1


@given(st.text(st.characters(), min_size=1, max_size=300))
@example("日本語/" * 40)
@example("a" + "日" * 100)
@example("ab" + "🎈é" * 100)
@example("abc" + "語" * 200)
def test_any_id_becomes_a_file_name_and_stays_one(id: str) -> None:
    name = file_name(id)
    assert is_file_name(name) and file_name(name) == name and "/" not in name and name not in (".", "..")
    assert (name == id) == is_file_name(id)


def test_ids_that_are_paths_stay_apart(clips: Path, tmp_path: Path) -> None:
    ids = ["a/b", "a_b", "../../etc/x", "a b"]
    content = [{"id": id, "src_audio": f"src{i}.wav"} for i, id in enumerate(ids)]
    pairs = build(clips, write(tmp_path / "t.csv", content), tmp_path / "out", *LANGUAGES)
    assert len({p.id for p in pairs}) == len({p.src_audio for p in pairs}) == 4
    assert all((tmp_path / "out") in Path(str(p.src_audio)).resolve().parents for p in pairs)


def test_long_ids_that_begin_or_end_alike_stay_apart() -> None:
    long = "語" * 100
    assert len({file_name(id) for id in (long, "a" + long, long + "a", long[1:], long + "/")}) == 5


@pytest.mark.parametrize(
    "text",
    [
        "¿Dónde está el niño?",
        "été français",
        "Привет, мир",
        "да",
        "日本語です",
        "Größe",
        "Ελλάδα",
        "“yes”",
        "ñ",
        "😀 hi",
    ],
)
@pytest.mark.parametrize(
    "encoding",
    ["cp1252", "latin-1", "cp1251", "cp1250", "cp1254", "mac-roman", "cp437", "cp850", "koi8-r"],
)
def test_utf8_read_in_another_encoding_is_told(text: str, encoding: str) -> None:
    with contextlib.suppress(UnicodeError):  # some bytes have no character in some encodings
        assert encoding_problem(text.encode().decode(encoding), "xx")


@pytest.mark.parametrize(
    ("encoding", "text"),
    [
        ("cp1251", "Привет, как дела"),
        ("koi8-r", "Привет, как дела"),
        ("cp1253", "Ελληνικά γράμματα"),
        ("cp1251", "Москва 2024"),
    ],
)
def test_other_letters_read_as_latin_ones_are_told_with_what_they_should_be(encoding: str, text: str) -> None:
    assert f"should be {text!r}" in encoding_problem(text.encode(encoding).decode("cp1252"), "xx")


@pytest.mark.parametrize(
    ("language", "encoding", "read", "text"),
    [
        ("pl", "cp1250", "cp1252", "Zażółć gęślą jaźń"),
        ("pl", "iso8859-2", "latin-1", "za ścianą"),
        ("cs", "iso8859-2", "latin-1", "Příliš žluťoučký kůň"),
        ("hu", "cp1250", "cp1252", "Árvíztűrő tükörfúrógép"),
        ("tr", "cp1254", "cp1252", "Şişli'de güneş çıktı"),
        ("ru", "koi8-r", "latin-1", "ПРИВЕТ МИР"),
        ("he", "cp1255", "cp1252", "שלום עולם"),
        ("ar", "cp1256", "cp1252", "مرحبا بالعالم"),
        ("th", "cp874", "latin-1", "สวัสดีครับ"),
        ("ja", "euc-jp", "latin-1", "こんにちは"),
        ("zh", "gbk", "latin-1", "你好，世界"),
        ("zh", "big5", "latin-1", "世界你好"),
        ("ko", "cp949", "latin-1", "안녕하세요"),
        ("fr", "utf-8", "cp1252", "Voilà."),
        ("fr", "utf-8", "gbk", "un café"),
        ("ro", "utf-8", "koi8-r", "Știi că"),
        ("fr", "cp1252", "cp1251", "Noël dernier"),
        ("ru", "cp1251", "cp866", "Привет"),
    ],
)
def test_what_a_language_was_written_in_is_told_from_what_it_was_read_in(
    language: str, encoding: str, read: str, text: str
) -> None:
    assert encoding_problem(text.encode(encoding).decode(read), language)
    assert not encoding_problem(text, language)


@pytest.mark.parametrize(
    "text",
    [
        "naïve façade, Größe, ¿qué?, слово, 日本語, مرحبا, Ærø – “yes”",
        "CAFÉ»",
        "«É»",
        "MAÇÃ»",
        "café»…",
        "CAFÉ\xa0!",
        "NIÑO”",
        "JOSÉ’",
        "Рік",
        "Сім’я їсть",
        "Ўсё",
        "СССР»",
        "ΕΛΛΆΔΑ»",
        "łódź”",
        "Ř…",
        "À»",
        "Þórður æði",
        "Ê°",
        "Đặng Ưu",
        "PÂ®",
        "ÉÉÉÉ",
        "El Niño, São Paulo, Søren, Côte d'Azur",
        "“OK”……",
        "T恤 K歌 A股 app下载 iPhone手机",
        "ABCﾃｽﾄ",
        "SMS-ка, VIP-персона, iPhone",
        "la lettre α",
        "ĐÃ\xa0!",
    ],
)
def test_text_that_was_read_rightly_is_not_taken_for_a_wrong_encoding(text: str) -> None:
    for language in ("xx", "pl", "ro", "zh", "ja", "ru")[: 6 if sum(map(str.isascii, text)) > len(text) / 2 else 1]:
        assert not encoding_problem(text, language)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--table", "/nowhere.csv", *LANGUAGES], "/nowhere.csv"),
        (["--table", "TABLE", "--src-audio", "nope", *LANGUAGES], "nope"),
        (["--table", "TABLE", *LANGUAGES], "--src-audio"),
        (["--table", "TABLE", "--src-audio", "fr_audio"], "--src-lang"),
        (["--table", "TABLE", "--src-audio", "fr_audio", *LANGUAGES, "--split-by", "moon"], "moon"),
        (["--table", "TABLE", "--src-audio", "fr_audio", *LANGUAGES, "--test-ratio", "1.5"], "--test-ratio"),
        (["--table", "TABLE", "--src-audio", "fr_audio", *LANGUAGES, "--encoding", "klingon"], "klingon"),
        (["--table", "TABLE", "--src-audio", "fr_audio", *LANGUAGES, "--max-seconds", "abc"], "abc"),
        (["--table", "EMPTY", *LANGUAGES], "empty"),
        (["--table", "FAKE", *LANGUAGES], "Parquet"),
        (["--table", "OTHER", *LANGUAGES], ".xlsx"),
        (["--table", "TABLE", "--src-audio", "fr_audio", *LANGUAGES, "--out", "FILE"], "is a file"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(
    arguments: list[str], word: str, clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    places = {
        "TABLE": write(tmp_path / "t.csv", rows(2)),
        "EMPTY": tmp_path / "empty.csv",
        "FAKE": tmp_path / "f.parquet",
    }
    places |= {"OTHER": tmp_path / "t.xlsx", "FILE": tmp_path / "f.parquet"}
    for name in ("EMPTY", "FAKE", "OTHER"):
        places[name].write_text("" if name == "EMPTY" else "PAR1 no table")
    out = [] if "--out" in arguments else ["--out", str(tmp_path / "out")]
    assert main(["corpus", "table", *(str(places.get(a, a)) for a in arguments), *out]) == 2
    error = capsys.readouterr().err.strip()
    assert word in error and error.count("\n") == 0
    assert not (tmp_path / "out/manifest.parquet").exists()


def test_a_hub_dataset_comes_in_by_its_columns_and_splits(clips: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    (tmp_path / "hub/data").mkdir(parents=True)
    for split, numbers in (("train", range(5)), ("validation", range(5, 7)), ("extra", range(7, 8))):
        sounds = {i: {"bytes": (clips / f"src{i}.wav").read_bytes(), "path": None} for i in numbers}
        content = [{"uid": f"u{i}", "speech": sounds[i], "fr": FRENCH[i % 4], "en": f"yes {i}"} for i in numbers]
        table = datasets.Dataset.from_list(content).cast_column("speech", datasets.Audio(decode=False))
        table.to_parquet(tmp_path / f"hub/data/{split}-00000-of-00001.parquet")
    columns = ["--src-audio", "speech", "--src-text", "fr", "--tgt-text", "en", "--id", "uid", *LANGUAGES]
    for further, expected in (([], 7), (["--splits", "extra=test"], 1)):
        out = tmp_path / f"out{expected}"
        assert main(["corpus", "hub", "--dataset", str(tmp_path / "hub"), "--out", str(out), *columns, *further]) == 0
        assert len(read_manifest(out)) == expected and not skipped(out)
    assert Counter(p.split for p in read_manifest(tmp_path / "out7")) == {"train": 5, "dev": 2}
    assert [p.split for p in read_manifest(tmp_path / "out1")] == ["test"]


def test_a_hub_dataset_that_is_not_there_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pytest.importorskip("datasets")
    arguments = ["--dataset", str(tmp_path / "nothing"), "--out", str(tmp_path / "out"), "--src-audio", "a", *LANGUAGES]
    assert main(["corpus", "hub", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "nothing" in error and not (tmp_path / "out").exists()
