"""Corpora as they are downloaded: Kaldi, LibriSpeech, MuST-C, FLEURS, Common Voice with CoVoST 2, spreadsheets."""

import zipfile
from collections import Counter
from html import escape
from pathlib import Path

import pytest
import soundfile

from helpers.cvss_miniature import tone
from unitweave.cli import main
from unitweave.core.audio import read_audio
from unitweave.core.manifest import Pair, read_manifest
from unitweave.corpus.readers.folders import split_in_name
from unitweave.corpus.readers.records import table_columns

ES_EN = ["--src-lang", "es", "--tgt-lang", "en"]
EN_DE = ["--src-lang", "en", "--tgt-lang", "de"]


def record(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds, 16_000, seed), 16_000)
    return path


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def build(*arguments: object) -> list[Pair]:
    *tables, out = [a for a in arguments if isinstance(a, Path)]
    flags = [str(a) for a in arguments if not isinstance(a, Path)]
    assert main(["corpus", "table", "--table", *map(str, tables), "--out", str(out), *flags]) == 0
    return list(read_manifest(out))


def refused(capsys: pytest.CaptureFixture, *arguments: object) -> str:
    assert main(["corpus", "table", *map(str, arguments)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_a_kaldi_folder_with_segments_speakers_and_translations(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    data = tmp_path / "data" / "train"
    record(data / "wav" / "talk.wav", 6.0)
    write(data / "wav.scp", "talk wav/talk.wav", "piped sox x.sph -t wav - |")
    write(data / "segments", "talk-1 talk 0.5 2.0", "talk-2\ttalk\t2.5\t5.5", "piped-1 piped 0 1", "lost-1 lost 0 1")
    write(data / "text", "talk-1 good morning", "talk-2 and good night", "piped-1 no")
    write(data / "text.de", "talk-1 guten Morgen", "talk-2 und gute Nacht", "piped-1 nein")
    write(data / "utt2spk", "talk-1 anna", "talk-2 anna")
    pairs = build(data, tmp_path / "out", *EN_DE, "--tgt-text", "text.de", "--dev-ratio", "0", "--test-ratio", "0")
    assert [(p.id, p.src_text_raw, p.tgt_text_raw, p.speaker) for p in pairs] == [
        ("talk-1", "good morning", "guten Morgen", "anna"), ("talk-2", "and good night", "und gute Nacht", "anna"),
    ]  # fmt: skip
    assert [len(read_audio(str(p.src_audio))) / 16_000 for p in pairs] == [1.5, 3.0]
    skipped = (tmp_path / "out" / "skipped.tsv").read_text()
    assert "its recording is a command (sox x.sph -t wav - |)" in skipped and "has no 'lost'" in skipped


def test_a_kaldi_folder_without_segments_takes_whole_recordings(tmp_path: Path) -> None:
    record(tmp_path / "train" / "a.wav", 1.25)
    write(tmp_path / "train" / "wav.scp", "u1 a.wav")
    write(tmp_path / "train" / "text", "u1 hola")
    (pair,) = build(tmp_path / "train", tmp_path / "out", *ES_EN, "--dev-ratio", "0", "--test-ratio", "0")
    assert pair.src_text == "hola" and pair.src_seconds == 1.25 and pair.tgt_text is None


def test_librispeech_has_its_speakers_and_splits(tmp_path: Path) -> None:
    for name, speaker in (("train-clean-100", "103"), ("dev-clean", "84"), ("test-other", "367")):
        chapter = tmp_path / "LibriSpeech" / name / speaker / "1240"
        keys = [f"{speaker}-1240-{i:04d}" for i in range(2)]
        for i, key in enumerate(keys):
            record(chapter / f"{key}.flac", 1.0, i)
        write(chapter / f"{speaker}-1240.trans.txt", *(f"{key} SPEAKER {key[-1]}" for key in keys))
    pairs = build(tmp_path / "LibriSpeech", tmp_path / "out", "--src-lang", "en", "--tgt-lang", "es")
    assert Counter((p.split, p.speaker) for p in pairs) == {("train", "103"): 2, ("dev", "84"): 2, ("test", "367"): 2}
    assert {p.src_text_raw for p in pairs if p.split == "dev"} == {"SPEAKER 0", "SPEAKER 1"}
    one = build(tmp_path / "LibriSpeech" / "dev-clean", tmp_path / "dev", "--src-lang", "en", "--tgt-lang", "es")
    assert [p.split for p in one] == ["dev", "dev"]


def must_c(root: Path) -> Path:
    for number, split in enumerate(("train", "dev", "tst-COMMON")):
        folder = root / "data" / split
        record(folder / "wav" / f"ted_{number}.wav", 5.0, number)
        write(
            folder / "txt" / f"{split}.yaml",
            f"- {{duration: 1.5, offset: 0.25, rW: 3, speaker_id: spk.{number}, uW: 0, wav: ted_{number}.wav}}",
            f"- {{duration: 2.000000, offset: 2.5, rW: 3, speaker_id: spk.{number}, uW: 0, wav: ted_{number}.wav}}",
        )
        write(folder / "txt" / f"{split}.de", f"Guten Tag {number}.", "Wie geht's?")
        write(folder / "txt" / f"{split}.en", f"Hello {number}.", "How are you?")
    return root


def test_must_c_cuts_its_talks_and_its_source_is_english(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pairs = build(must_c(tmp_path / "en-de"), tmp_path / "out", *EN_DE)
    assert Counter(p.split for p in pairs) == {"train": 2, "dev": 2, "test": 2}
    first = next(p for p in pairs if p.split == "test")
    assert (first.id, first.src_text_raw, first.tgt_text_raw) == ("ted_2-000000", "Hello 2.", "Guten Tag 2.")
    assert first.speaker == "spk.2" and len(read_audio(str(first.src_audio))) == 24_000
    write(tmp_path / "en-de" / "data" / "dev" / "txt" / "dev.de", "only one")
    assert "2 segments, but 1 lines in dev.de" in refused(
        capsys, "--table", tmp_path / "en-de", "--out", tmp_path / "x", *EN_DE
    )


def fleurs(root: Path, code: str, copies: int) -> Path:
    for first, split in ((11, "train"), (21, "dev"), (31, "test")):
        lines = []
        for sentence, copy in ((s, c) for s in (first, first + 1) for c in range(copies)):
            name = f"{sentence}{copy}{len(split)}{len(code)}.wav"
            record(root / code / "audio" / split / name, 1.0, sentence + copy)
            text = f"{code}, {split} {sentence}."
            lines.append(f"{sentence}\t{name}\t{text}\t{text.lower()}\tx | y\t16000\tFEMALE")
        write(root / code / f"{split}.tsv", *lines)
    return root / code


def test_two_languages_of_fleurs_are_joined_by_their_sentences(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    spanish, english = fleurs(tmp_path, "es_419", 3), fleurs(tmp_path, "en_us", 2)
    pairs = build(spanish, tmp_path / "out", "--join", str(english), *ES_EN)
    assert Counter(p.split for p in pairs) == {"train": 6, "dev": 6, "test": 6}
    for pair in pairs:
        assert str(pair.src_text_raw).removeprefix("es_419") == str(pair.tgt_text_raw).removeprefix("en_us")
        assert pair.src_seconds == pair.tgt_seconds == 1.0
    alone = build(english, tmp_path / "english", "--src-lang", "en", "--tgt-lang", "es")
    assert len(alone) == 12 and {p.split for p in alone} == {"train", "dev", "test"}
    write(english / "train.tsv", "99\tx.wav\tA\ta\tx\t1\tMALE")
    (english / "dev.tsv").unlink()
    (english / "test.tsv").unlink()
    error = refused(capsys, "--table", spanish, "--join", english, "--out", tmp_path / "x", *ES_EN)
    assert "none of its sentence, such as '99', is a" in error


def test_common_voice_with_covost_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("unitweave.corpus.readers.joins.echo", said.append)
    voices = tmp_path / "cv" / "es"
    for i in range(4):
        record(voices / "clips" / f"common_voice_es_{i}.mp3", 1.0, i)
    head = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent"
    rows = [f'c{i}\tcommon_voice_es_{i}.mp3\tFrase número {i}, "sí"\t2\t0\t\t\t' for i in range(4)]
    write(voices / "validated.tsv", head, *rows)
    for name, row in zip(("train", "dev", "test"), rows, strict=False):
        write(voices / f"{name}.tsv", head, row)
    clips = [
        "--audio-root",
        str(voices / "clips"),
        "--src-audio",
        "path",
        "--src-text",
        "sentence",
        "--speaker",
        "client_id",
    ]
    parts = [voices / f"{name}.tsv" for name in ("train", "dev", "test")]
    pairs = build(*parts, tmp_path / "asr", *clips, *ES_EN)
    assert [(p.split, p.speaker) for p in pairs] == [("train", "c0"), ("dev", "c1"), ("test", "c2")]
    covost = write(
        tmp_path / "covost_v2.es_en.tsv",
        "path\ttranslation\tsplit",
        'common_voice_es_0.mp3\tSentence zero, "yes"\ttrain',
        "common_voice_es_3.mp3\tSentence three\ttest",
    )
    flags = ["--join", str(covost), "--tgt-text", "joined.translation", "--split", "joined.split"]
    pairs = build(voices / "validated.tsv", tmp_path / "s2tt", *clips, *flags, *ES_EN)
    assert [(p.split, p.src_text_raw, p.tgt_text_raw) for p in pairs] == [
        ("train", 'Frase número 0, "sí"', 'Sentence zero, "yes"'), ("test", 'Frase número 3, "sí"', "Sentence three"),
    ]  # fmt: skip
    assert "2 of 4 rows of" in said[0]
    wrong = ["--table", voices / "validated.tsv", "--out", tmp_path / "x", *clips, *ES_EN, "--join", covost]
    assert "--on sentence" in refused(capsys, *wrong, "--on", "sentence")
    assert "'joined.text'" in refused(capsys, *wrong, "--tgt-text", "joined.text")


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("covost_v2.es_en.train", "train"), ("tst-COMMON", "test"), ("dev-clean", "dev"), ("validated", ""),
        ("train-without-test", ""), ("latest", ""), ("valid", "dev"),
    ],
)  # fmt: skip
def test_the_split_is_in_a_name_that_says_one(name: str, split: str) -> None:
    assert split_in_name(name) == split


def test_a_folder_that_is_no_corpus_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "clips").mkdir()
    error = refused(capsys, "--table", tmp_path / "clips", "--out", tmp_path / "o", *ES_EN)
    assert "wav.scp" in error and not (tmp_path / "o").exists()


ROWS = [["file", "Texto", "English", "n"], ["a.wav", "Hola & adiós", "Hello, bye", 3.0], ["b.wav", "Sí", "Yes", 2.5]]


def xlsx(path: Path, rows: list[list]) -> None:
    def cell(value: object) -> str:
        text = isinstance(value, str)
        return f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>' if text else f"<c><v>{value}</v></c>"

    main_ns = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    sheet = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr(
            "xl/workbook.xml",
            f'<workbook xmlns="{main_ns}" xmlns:r="{rels}"><sheets><sheet name="S" sheetId="1" r:id="r1"/></sheets>'
            "</workbook>",
        )
        for name, kind, target in (
            ("_rels/.rels", "officeDocument", "xl/workbook.xml"),
            ("xl/_rels/workbook.xml.rels", "worksheet", "worksheets/sheet1.xml"),
        ):
            file.writestr(
                name,
                '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
                f'<Relationship Id="r1" Type="{rels}/{kind}" Target="{target}"/></Relationships>',
            )
        file.writestr(
            "xl/worksheets/sheet1.xml", f'<worksheet xmlns="{main_ns}"><sheetData>{sheet}</sheetData></worksheet>'
        )


def ods(path: Path, rows: list[list]) -> None:
    def cell(value: object) -> str:
        if isinstance(value, str):
            return f'<t:table-cell o:value-type="string"><x:p>{escape(value)}</x:p></t:table-cell>'
        return f'<t:table-cell o:value-type="float" o:value="{value}"/>'

    base = "urn:oasis:names:tc:opendocument:xmlns"
    spaces = " ".join(f'xmlns:{k}="{base}:{v}:1.0"' for k, v in (("o", "office"), ("t", "table"), ("x", "text")))
    table = "".join(f"<t:table-row>{''.join(map(cell, row))}</t:table-row>" for row in rows)
    content = (
        f"<o:document-content {spaces}><o:body><o:spreadsheet>"
        f'<t:table t:name="S">{table}</t:table></o:spreadsheet></o:body></o:document-content>'
    )
    for short, name in (("o:", "office:"), ("t:", "table:"), ("x:", "text:")):
        content = (
            content.replace(f"<{short}", f"<{name}").replace(f"</{short}", f"</{name}").replace(f" {short}", f" {name}")
        )
    content = (
        content.replace("xmlns:o=", "xmlns:office=")
        .replace("xmlns:t=", "xmlns:table=")
        .replace("xmlns:x=", "xmlns:text=")
    )
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("mimetype", "application/vnd.oasis.opendocument.spreadsheet")
        file.writestr("META-INF/manifest.xml", f'<m:manifest xmlns:m="{base}:manifest:1.0"/>')
        file.writestr("content.xml", content)


@pytest.mark.parametrize("kind", ["xlsx", "ods"])
def test_a_spreadsheet_is_a_table(tmp_path: Path, capsys: pytest.CaptureFixture, kind: str) -> None:
    pytest.importorskip("python_calamine")
    for name in ("a", "b"):
        record(tmp_path / f"{name}.wav")
    table = tmp_path / f"t.{kind}"
    {"xlsx": xlsx, "ods": ods}[kind](table, ROWS)
    assert table_columns(table) == ["file", "Texto", "English", "n"]
    columns = ["--src-audio", "file", "--src-text", "texto", "--tgt-text", "English", "--id", "n"]
    pairs = build(table, tmp_path / "out", *columns, *ES_EN)
    assert [(p.id, p.src_text_raw, p.tgt_text_raw) for p in pairs] == [
        ("2.5", "Sí", "Yes"), ("3", "Hola & adiós", "Hello, bye"),
    ]  # fmt: skip
    table.write_bytes(table.read_bytes()[:200])
    error = refused(capsys, "--table", table, "--out", tmp_path / "x", *columns, *ES_EN)
    assert "not readable as a spreadsheet" in error
