"""Rows of a table that are parts of longer recordings."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from unitweave.cli import main
from unitweave.core.audio import SAMPLE_RATE, read_audio, read_parts
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest
from unitweave.corpus.readers.parts import seconds

HERTZ = [200 + 50 * i for i in range(8)]  # the tone of each second


@pytest.fixture
def long(tmp_path: Path) -> Path:
    places = np.arange(SAMPLE_RATE) / SAMPLE_RATE
    tones = np.concatenate([0.3 * np.sin(2 * np.pi * hertz * places) for hertz in HERTZ])
    soundfile.write(tmp_path / "long.flac", tones, SAMPLE_RATE)
    return tmp_path / "long.flac"


def build(folder: Path, rows: str, *flags: str) -> tuple[int, dict[str, list[int]], list[str]]:
    """Exit code, the tones of each kept row, and the reasons for which others were skipped."""
    (folder / "t.csv").write_text(rows)
    given = ["--src-audio", "f", "--src-text", "es", "--src-lang", "es", "--tgt-lang", "en", "--allow-skipped"]
    code = main(["corpus", "table", "--table", str(folder / "t.csv"), "--out", str(folder / "c"), *given, *flags])
    tones = {}
    for pair in read_manifest(folder / "c") if code == 0 else []:
        sound = read_audio(str(pair.src_audio)).reshape(-1, SAMPLE_RATE)
        tones[pair.id] = [int(np.abs(np.fft.rfft(second)).argmax()) for second in sound]
    path = folder / "c/skipped.tsv"
    return code, tones, [line.split("\t")[2] for line in path.read_text().splitlines()[1:]] if path.exists() else []


def test_each_row_gets_its_part_whatever_their_order_and_however_its_times_are_written(
    long: Path, tmp_path: Path
) -> None:
    rows = 'id,f,start,end,es\na,long.flac,5,7,cinco\nb,long.flac,"0,0",1.0,cero\n'
    rows += 'c,long.flac,00:00:02,"00:00:04,000",dos'
    rows += "\nd,long.flac,3000 ms,6 s,tres\ne,long.flac,6,,seis\nf,long.flac,7,9,corto\ng,long.flac,9,10,nada"
    rows += "\nh,long.flac,2,2,vacío\ni,long.flac,soon,3,pronto\nj,none.flac,1,2,nada\n"
    expected = {"a": [5, 6], "b": [0], "c": [2, 3], "d": [3, 4, 5], "e": [6, 7]}
    for _ in range(2):  # the second time nothing is cut again
        code, tones, skipped = build(tmp_path, rows, "--src-start", "start", "--src-end", "end")
        assert code == 0 and tones == {id: [HERTZ[i] for i in seconds] for id, seconds in expected.items()}
        assert skipped == [
            *("source: the recording ends before the part",) * 2, *("the times cannot be read",) * 2,
            "source: no such audio file",
        ]  # fmt: skip


def test_a_duration_counts_from_the_start_and_other_times_cut_anew(long: Path, tmp_path: Path) -> None:
    flags = ("--src-start", "offset", "--src-duration", "duration")
    assert build(tmp_path, "id,f,offset,duration,es\na,long.flac,1,2,uno\n", *flags)[1] == {"a": HERTZ[1:3]}
    assert build(tmp_path, "id,f,offset,duration,es\na,long.flac,2,2,uno\n", *flags)[1] == {"a": HERTZ[2:4]}


def test_times_that_no_flag_names_are_noted_and_an_end_needs_a_start(
    long: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    lines: list[str] = []
    monkeypatch.setattr("unitweave.corpus.readers.table.echo", lines.append)
    build(tmp_path, "id,f,offset,es\na,long.flac,1,uno dos tres\n")
    assert "whole recordings are read; if 'offset' says where a row begins, give --src-start" in lines[0]
    assert build(tmp_path, "id,f,offset,es\na,long.flac,1,uno\n", "--src-end", "offset")[0] == 2
    assert "--src-end: needs the column with the start, src_start" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("cell", "column", "expected"),
    [
        ("83.5", "start", 83.5), ("83,5", "start", 83.5), (83.5, "x", 83.5), ("1:23.5", "x", 83.5), ("", "x", None),
        ("01:01:23,500", "x", 3683.5), ("1500 ms", "x", 1.5), ("1500", "start_ms", 1.5), ("1500", "start (ms)", 1.5),
        ("0:01.5", "start_ms", 1.5), ("1500", "items", 1500.0), (float("nan"), "x", None), (None, "x", None),
        ("1.5s", "x", 1.5), (1500, "startMs", 1.5),
    ],
)  # fmt: skip
def test_times_as_tables_have_them(cell: object, column: str, expected: float | None) -> None:
    assert seconds(cell, column) == expected


@pytest.mark.parametrize("cell", ["-1", "soon", "1:2:3:4", "1e3", "12.30.5"])
def test_what_is_no_time_is_refused(cell: str) -> None:
    with pytest.raises(InputError, match="must be seconds or a time"):
        seconds(cell, "start")


def test_parts_are_those_of_the_whole_in_any_blocks(long: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read_audio(long)
    spans = [(0.0, 0.5), (0.25, 6.0), (0.3, 0.4), (5.0, 5.5), (7.5, 20.0), (9.0, 10.0)]
    expected = [whole[round(a * SAMPLE_RATE) : round(b * SAMPLE_RATE)] for a, b in spans]
    for size in (1_000, 50_000, 1_000_000):
        monkeypatch.setattr("unitweave.core.audio._BLOCK_VALUES", size)
        parts = list(read_parts(long, spans))
        assert all(np.array_equal(part, right) for part, right in zip(parts, expected, strict=True))


@pytest.mark.parametrize("other", [-1.0, -0.98])
def test_channels_of_opposite_polarity_do_not_cancel_each_other(other: float, tmp_path: Path) -> None:
    tone = 0.3 * np.sin(np.arange(SAMPLE_RATE) / 10)
    soundfile.write(tmp_path / "a.wav", np.stack([tone, other * tone], 1), SAMPLE_RATE)
    assert np.abs(read_audio(tmp_path / "a.wav") - tone).max() < 1e-3
