"""CVSS-C with CoVoST 2 and Common Voice: what comes in, what is refused, what an interruption leaves, and the chain."""

import csv
import io
import json
import shutil
import signal
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from transformers import Wav2Vec2BertConfig, Wav2Vec2BertForCTC

from helpers.cvss_miniature import ENGLISH, Miniature, build, encoded, pack, parquet_layout, tone
from helpers.processes import run
from helpers.tiny_run import SHORT_DECODING, TINY_VOCODER
from unitweave.cli import main
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, read_metadata
from unitweave.core.text import NORMALIZER, normalize, rules
from unitweave.corpus import recording_store
from unitweave.corpus.readers.archives import members
from unitweave.corpus.readers.covost import clip_name


@pytest.fixture(scope="module")
def mini(tmp_path_factory: pytest.TempPathFactory) -> Miniature:
    return build(tmp_path_factory.mktemp("downloads"))


def command(mini: Miniature, out: Path, *further: str) -> list[str]:
    place = mini.folder
    covost = [str(place / f"covost_v2.{tag}_en.tsv") for tag in ("es", "zh-CN")]
    voices = [str(place / "es.tar.gz"), str(place / "zh-CN")]
    return ["corpus", "cvss", "--cvss", *mini.archives(), "--covost", *covost, "--common-voice", *voices,
            "--out", str(out), *further]  # fmt: skip


@pytest.fixture(scope="module")
def corpus(mini: Miniature, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("corpus") / "cvss"
    assert main(command(mini, out)) == 0
    return out


def pairs_of(folder: Path) -> dict[str, Pair]:
    return {pair.id: pair for pair in read_manifest(folder)}


def files_of(folder: Path) -> dict[str, bytes]:
    """Everything that a finished corpus is: manifest and recordings."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.suffix in (".flac", ".parquet")}


@pytest.mark.slow
def test_every_clip_of_every_language_and_split_comes_in_with_its_texts(mini: Miniature, corpus: Path) -> None:
    pairs = pairs_of(corpus)
    assert set(pairs) == set(mini.clips)
    for name, (split, source, english) in mini.clips.items():
        pair = pairs[name]
        assert pair.split == split and pair.src_lang == ("zh" if "_zh-CN_" in name else "es") and pair.tgt_lang == "en"
        assert pair.src_text_raw == source and pair.src_text == normalize(source, pair.src_lang)
        assert pair.tgt_text_raw == english.lower() and pair.tgt_text == normalize(english, "en")
        assert pair.speaker.startswith("speaker")
    assert {pair.src_text for pair in pairs.values()} >= {"dijo sí", "el niño la niña", "我 有 3 只 猫"}


@pytest.mark.slow
def test_recordings_are_the_clips_at_16_khz(mini: Miniature, corpus: Path) -> None:
    pair = read_manifest(corpus, "train")[0]
    for path, seconds in ((pair.src_audio, 1.5), (pair.tgt_audio, 1.2)):
        wave = read_audio(str(path))
        assert len(wave) == pytest.approx(16_000 * seconds, abs=2000)  # MP3 pads
    assert pair.tgt_seconds == pytest.approx(1.2, abs=1e-3)
    first = next(iter(mini.clips))
    expected = read_audio(encoded(tone(1.2, 24_000, 0), 24_000, "WAV"))
    assert abs(read_audio(str(pairs_of(corpus)[first].tgt_audio)) - expected).max() < 1e-4


def test_the_manifest_says_how_its_texts_were_normalized(corpus: Path) -> None:
    metadata = read_metadata(corpus)
    assert metadata["normalizer"] == NORMALIZER and metadata["corpus"] == "cvss"
    assert json.loads(metadata["normalization"]) == {code: rules(code) for code in ("en", "es", "zh")}


def test_a_clip_keeps_its_digits() -> None:
    assert clip_name("common_voice_fr_17299333.mp3") == "common_voice_fr_17299333"
    assert clip_name("train/common_voice_fr_33.mp3.wav") == "common_voice_fr_33"


@pytest.mark.slow
def test_unpacked_folders_and_the_parquet_layout_give_the_same_manifest(
    mini: Miniature, corpus: Path, tmp_path: Path
) -> None:
    for archive in mini.archives():
        with tarfile.open(archive) as tar:
            tar.extractall(tmp_path / "unpacked" / Path(archive).name.split(".")[0], filter="data")
    parquet_layout(mini, tmp_path / "covost2")
    out = tmp_path / "out"
    arguments = ["--cvss", str(tmp_path / "unpacked"), "--covost", str(tmp_path / "covost2"), "--out", str(out)]
    assert main(["corpus", "cvss", *arguments]) == 0
    ours, theirs = pairs_of(corpus), pairs_of(out)
    assert set(ours) == set(theirs)
    for name in ours:
        for field in ("split", "src_lang", "src_text_raw", "src_text", "tgt_text", "tgt_seconds"):
            assert getattr(ours[name], field) == getattr(theirs[name], field)


@pytest.mark.slow
def test_a_hub_name_is_downloaded_for_these_languages_and_splits_only(
    mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet_layout(mini, tmp_path / "cached")
    asked = {}

    def snapshot_download(name: str, repo_type: str, allow_patterns: list[str]) -> str:
        asked.update(name=name, repo_type=repo_type, patterns=allow_patterns)
        return str(tmp_path / "cached")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    arguments = ["--cvss", mini.archives()[1], "--covost", "fixie-ai/covost2", "--splits", "test", "dev"]
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert asked["name"] == "fixie-ai/covost2" and asked["repo_type"] == "dataset"
    assert "zh-CN_en/validation-*" in asked["patterns"] and not any(
        "train" in p or "es" in p[:2] for p in asked["patterns"]
    )
    assert {pair.split for pair in read_manifest(tmp_path / "out")} == {"dev", "test"}


def test_transcripts_come_from_common_voice_where_covost_has_none(mini: Miniature, tmp_path: Path) -> None:
    covost, validated = ["path\ttranslation\tsplit\n"], ["client_id\tpath\tsentence\tup_votes\n"]
    for name, (split, source, english) in mini.clips.items():
        if "_es_" in name:
            covost.append(f"{name}.mp3\t{english}\t{'train_covost' if split == 'train' else split}\n")
            validated.append(f"me\t{name}.mp3\t{source.replace(chr(92), chr(92) * 2)}\t2\n")
    pack(tmp_path / "covost_v2.es_en.tsv.tar.gz", {"covost_v2.es_en.tsv": "".join(covost).encode()})
    with tarfile.open(mini.folder / "es.tar.gz") as tar:
        clips = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    pack(tmp_path / "es.tar.gz", clips | {"es/validated.tsv": "".join(validated).encode()})
    arguments = ["--cvss", mini.archives()[0], "--covost", str(tmp_path), "--out", str(tmp_path / "out")]
    for _ in range(2):  # the second time from what was noted of the archive
        assert main(["corpus", "cvss", *arguments]) == 0
        found = {pair.src_text_raw for pair in read_manifest(tmp_path / "out")}
        assert found == {source for name, (_, source, _) in mini.clips.items() if "_es_" in name}


def without_sentences(mini: Miniature, folder: Path) -> tuple[Path, dict[str, str]]:
    """A table as it is published, and what the Spanish clips say."""
    table, texts = ["path\ttranslation\tsplit\n"], {}
    for name, (split, source, english) in mini.clips.items():
        if "_es_" in name:
            table.append(f"{name}.mp3\t{english}\t{split}\n")
            texts[name] = source
    (folder / "covost_v2.es_en.tsv").write_text("".join(table))
    return folder / "covost_v2.es_en.tsv", texts


def validated(texts: dict[str, str]) -> bytes:
    rows = [f"me\t{name}.mp3\t{text.replace(chr(92), chr(92) * 2)}\n" for name, text in texts.items()]
    return "".join(["client_id\tpath\tsentence\n", *rows]).encode(errors="surrogateescape")


def test_transcripts_that_are_given_later_are_used(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    table, texts = without_sentences(mini, tmp_path)
    arguments = ["--cvss", mini.archives()[0], "--covost", str(table), "--out", str(tmp_path / "out")]
    voices = ["--common-voice", str(mini.folder / "es.tar.gz")]
    assert main(["corpus", "cvss", *arguments, *voices]) == 2
    assert "no text" in capsys.readouterr().err
    (tmp_path / "es").mkdir()
    (tmp_path / "es/validated.tsv").write_bytes(validated(texts))
    assert main(["corpus", "cvss", *arguments, *voices, str(tmp_path / "es")]) == 0
    assert {name: pair.src_text_raw for name, pair in pairs_of(tmp_path / "out").items()} == texts


def test_a_new_table_counts_more_than_what_was_noted_of_an_archive(mini: Miniature, tmp_path: Path) -> None:
    table = tmp_path / "covost_v2.es_en.tsv"
    table.write_bytes((mini.folder / "covost_v2.es_en.tsv").read_bytes())
    arguments = ["--cvss", mini.archives()[0], "--covost", str(table), str(mini.folder / "es.tar.gz")]
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
    table.write_text(table.read_text().replace("El mar", "La mar"))
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert "La mar" in {pair.src_text_raw for pair in read_manifest(tmp_path / "out")}


def test_a_byte_that_is_no_utf_8_costs_one_clip_and_not_the_archive(mini: Miniature, tmp_path: Path) -> None:
    table, texts = without_sentences(mini, tmp_path)
    bad = next(iter(texts))
    with tarfile.open(mini.folder / "es.tar.gz") as tar:
        clips = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    transcripts = validated(texts | {bad: "caf\udce9"}).replace(b"me\t", b"m\xe9\t")
    pack(tmp_path / "es.tar.gz", clips | {"es/validated.tsv": transcripts})
    arguments = ["--cvss", mini.archives()[0], "--covost", str(table), str(tmp_path / "es.tar.gz")]
    for _ in range(2):  # the second time from what was noted of the archive
        assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
        pairs = pairs_of(tmp_path / "out")
        assert set(pairs) == set(texts) - {bad} and {pair.speaker for pair in pairs.values()} == {"m?"}
        assert f"{bad}\tes\tsource: the text has the wrong encoding" in (tmp_path / "out/skipped.tsv").read_text()


def test_a_stray_carriage_return_is_a_space(mini: Miniature, tmp_path: Path) -> None:
    table = tmp_path / "covost_v2.es_en.tsv"
    content = (mini.folder / "covost_v2.es_en.tsv").read_bytes()
    table.write_bytes(content.replace(b"El mar", b"El\rmar").replace(b"\n", b"\r\n"))
    arguments = ["--cvss", mini.archives()[0], "--covost", str(table), str(mini.folder / "es.tar.gz")]
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
    pairs = read_manifest(tmp_path / "out")
    assert len(pairs) == 10 and "El mar" in {pair.src_text_raw for pair in pairs}


@pytest.mark.slow
def test_a_bad_row_of_covost_costs_itself_alone(mini: Miniature, tmp_path: Path) -> None:
    """A line feed, a backslash before a tab or at the end, an extra tab, a field of megabytes, a last line cut off."""
    lines = (mini.folder / "covost_v2.es_en.tsv").read_text().splitlines()
    names = [line.split(".mp3")[0] for line in lines[1:]]
    lines[1] = lines[1].replace("sí", "s\ní")
    lines[2] = lines[2].replace("\t", "\\\t", 2).replace("\\\t", "\t", 1)
    lines[3] = lines[3].replace("\t", "\t\t", 1)
    lines[4] += "\\"
    lines[5] = lines[5].replace("\t", "\t" + "a" * (csv.field_size_limit() + 1), 1)
    lines[6] = lines[6].replace("\ttrain", "\ttrian")
    lines[7] = lines[7].replace("sí", "sí\\\nno")  # escaped, as CoVoST's own script writes it: one field
    lines[-1] = lines[-1][:30]
    (tmp_path / "covost_v2.es_en.tsv").write_text("\n".join(lines))
    arguments = ["--cvss", mini.archives()[0], "--covost", str(tmp_path), str(mini.folder / "es.tar.gz")]
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out"), "--allow-skipped"]) == 0
    bad = {*names[:6], names[-1]}
    assert set(pairs_of(tmp_path / "out")) == set(names) - bad
    assert "sí\nno" in str(pairs_of(tmp_path / "out")[names[6]].src_text_raw)
    skipped = [line.split("\t") for line in (tmp_path / "out/skipped.tsv").read_text().splitlines()[1:]]
    assert {row[0]: row[2] for row in skipped} == dict.fromkeys(bad, "the row cannot be read") | {
        names[5]: "the split must be train, dev or test"
    } and len(skipped) == 7
    details = {row[0]: row[3] for row in skipped}
    assert details[names[0]] == "line 2: 2 fields; the header has 5" and "6 fields" in details[names[2]]
    assert "field larger" in details[names[4]] and "ends in a backslash" in details[names[3]]
    counted = json.loads((tmp_path / "out/corpus.json").read_text())["skipped"]
    assert counted == {"the row cannot be read": 6, "the split must be train, dev or test": 1}


def test_the_header_of_covost_is_blamed_only_where_it_is_wrong(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    content = (mini.folder / "covost_v2.es_en.tsv").read_text()
    (tmp_path / "covost_v2.es_en.tsv").write_text(content.replace("split", "part", 1))
    arguments = ["--cvss", mini.archives()[0], "--covost", str(tmp_path), "--out", str(tmp_path / "out")]
    assert main(["corpus", "cvss", *arguments]) == 2
    assert "its header must name path" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("before", ["--common-voice", "--out"])
def test_of_two_places_with_the_same_clips_the_first_counts_in_every_call(
    before: str, mini: Miniature, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parquet_layout(mini, tmp_path / "covost2")
    arguments = command(mini, tmp_path / "out")
    arguments.insert(arguments.index(before), str(tmp_path / "covost2"))
    assert main(arguments) == 0
    first = files_of(tmp_path / "out")
    monkeypatch.setattr(recording_store, "read_audio", lambda *_: pytest.fail("decoded again"))
    assert main(arguments) == 0 and files_of(tmp_path / "out") == first


KILLED = """
import os, signal
from unitweave.corpus import recording_store
from unitweave.cli import main
write, count = recording_store.write_audio, 0
def dying(path, waveform):
    global count
    count += 1
    if count == {after}:
        path.with_name(".tmp-half-" + path.name).write_bytes(b"half")
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, waveform)
recording_store.write_audio = dying
main({arguments!r})
"""


@pytest.mark.processes
@pytest.mark.parametrize("after", [3, 27])  # while CVSS-C is read, while Common Voice is read
def test_a_build_killed_in_the_middle_goes_on_to_the_same_bytes(
    after: int, mini: Miniature, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cvss"
    arguments = command(mini, out, "--workers", "2")
    assert run(KILLED.format(after=after, arguments=arguments), tmp_path).code == -signal.SIGKILL
    with (out / "recordings.jsonl").open("a") as journal:
        journal.write('{"path": "audio/es/comm')  # as if killed while writing the line
    done = sum(1 for line in (out / "recordings.jsonl").read_text().splitlines() if line.endswith("}"))
    written: list[Path] = []
    write = recording_store.write_audio
    monkeypatch.setattr(recording_store, "write_audio", lambda path, wave: (written.append(path), write(path, wave)))
    assert main(arguments) == 0
    assert len(written) == 2 * len(mini.clips) - done, "what was finished is not done again"
    assert files_of(out) == files_of(corpus)
    assert not list(out.rglob(".tmp-*"))
    written.clear()
    assert main(arguments) == 0 and not written, "the journal is whole again"


def test_a_clip_that_is_in_two_splits_is_in_none(mini: Miniature, tmp_path: Path) -> None:
    table = (mini.folder / "covost_v2.es_en.tsv").read_text()
    name = next(name for name, (split, _, _) in mini.clips.items() if split == "test")
    lines = [line.replace("\ttest", "\ttrain") if name in line else line for line in table.splitlines()]
    lines += [lines[1].replace("common_voice_es_", "common_voice_es_9")]
    (tmp_path / "covost_v2.es_en.tsv").write_text("\n".join(lines) + "\n")
    arguments = ["--cvss", mini.archives()[0], "--covost", str(tmp_path), str(mini.folder / "es.tar.gz")]
    assert main(["corpus", "cvss", *arguments, "--out", str(tmp_path / "out")]) == 0
    assert name not in pairs_of(tmp_path / "out")
    skipped = (tmp_path / "out/skipped.tsv").read_text()
    assert f"{name}\tes\tCoVoST 2 and CVSS-C have it in different splits\ttrain and test" in skipped
    assert "not in CVSS-C" in skipped and len(pairs_of(tmp_path / "out")) == 9


def test_done_again_nothing_is_read_again_and_the_bytes_stay(
    mini: Miniature, corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "cvss"
    shutil.copytree(corpus, out, symlinks=True)
    monkeypatch.setattr(recording_store, "read_audio", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("tarfile.open", lambda *_, **__: pytest.fail("archive opened again"))
    assert main(command(mini, out)) == 0
    assert files_of(out) == files_of(corpus)


def test_a_recording_that_was_lost_or_has_changed_is_made_again(mini: Miniature, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "cvss"
    shutil.copytree(corpus, out)
    lost, changed = sorted((out / "audio/zh").glob("*.flac"))[:2]
    lost.unlink()
    clips = tmp_path / "downloads"
    shutil.copytree(mini.folder, clips)
    (clips / f"zh-CN/clips/{changed.stem}.mp3").write_bytes(encoded(tone(2.5, 48_000, 3), 48_000, "MP3"))
    assert main(command(Miniature(clips, mini.clips), out)) == 0
    assert lost.exists() and pairs_of(out)[changed.stem].src_seconds == pytest.approx(2.5, abs=0.2)


def rebuilt(mini: Miniature, folder: Path, changes: dict[str, bytes | None]) -> list[str]:
    """Arguments for a copy of the Spanish part whose Common Voice clips are changed (None: left out)."""
    with tarfile.open(mini.folder / "es.tar.gz") as tar:
        clips = {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]
    clips = {name: changes.get(Path(name).stem, content) for name, content in clips.items()}
    pack(folder / "es.tar.gz", {name: content for name, content in clips.items() if content is not None})
    return ["corpus", "cvss", "--cvss", mini.archives()[0], "--covost", str(mini.folder / "covost_v2.es_en.tsv"),
            "--common-voice", str(folder / "es.tar.gz"), "--out", str(folder / "out")]  # fmt: skip


@pytest.mark.slow
def test_bad_clips_are_skipped_with_id_and_reason(mini: Miniature, tmp_path: Path) -> None:
    names = [name for name in mini.clips if "_es_" in name][:4]
    silence = encoded(0 * tone(1.0, 48_000, 0), 48_000, "MP3")
    long = encoded(tone(70, 8_000, 0), 8_000, "MP3")
    bad = dict(zip(names, (None, b"no audio", silence, long), strict=True))
    assert main(rebuilt(mini, tmp_path, bad)) == 0
    rows = [line.split("\t") for line in (tmp_path / "out/skipped.tsv").read_text().splitlines()[1:]]
    assert {row[0]: row[2] for row in rows} == dict(
        zip(
            names,
            (
                "source: no recording",
                "source: not readable as audio",
                "source: the recording is silent",
                "source: the recording is too long",
            ),
            strict=True,
        )
    )
    about = json.loads((tmp_path / "out/corpus.json").read_text())
    assert about["counts"]["skipped"] == 4 and sum(about["skipped"].values()) == 4
    assert set(pairs_of(tmp_path / "out")) == {n for n in mini.clips if "_es_" in n} - set(names)


def test_too_little_left_is_an_error_unless_allowed(
    mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    bad: dict[str, bytes | None] = dict.fromkeys([n for n in mini.clips if "_es_" in n][:6])
    arguments = rebuilt(mini, tmp_path, bad)
    assert main(arguments) == 2
    assert "only 4 of 10 pairs of es" in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "out/manifest.parquet").exists() and (tmp_path / "out/skipped.tsv").exists()
    assert main([*arguments, "--allow-skipped"]) == 0 and len(pairs_of(tmp_path / "out")) == 4


def _tar(path: Path, **changes: object) -> Path:
    """An archive with one member that no corpus has."""
    with tarfile.open(path, "w:gz") as tar:
        info = tarfile.TarInfo("train/common_voice_es_1.mp3.wav")
        for key, value in changes.items():
            setattr(info, key, value)
        tar.addfile(info, io.BytesIO(b"x" * 64))
    return path


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "../../train/common_voice_es_1.mp3.wav"},
        {"name": "/etc/train/common_voice_es_1.mp3.wav"},
        {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"type": tarfile.LNKTYPE, "linkname": "train.tsv"},
        {"type": tarfile.CHRTYPE},
        {"size": 1 << 40},
        {"size": 1 << 27},
        {"type": tarfile.XHDTYPE, "size": 1 << 35},
        {"type": tarfile.GNUTYPE_LONGNAME, "size": 1 << 35},
    ],
)
def test_an_archive_that_is_not_safe_is_refused(changes: dict, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    path = tmp_path / "cvss_c_es_en_v1.0.tar.gz"
    info = tarfile.TarInfo("train/common_voice_es_1.mp3.wav")
    for key, value in changes.items():
        setattr(info, key, value)
    import gzip

    path.write_bytes(gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + b"x" * 2048))
    (tmp_path / "covost_v2.es_en.tsv").write_text(
        "path\tsentence\ttranslation\tclient_id\tsplit\ncommon_voice_es_1.mp3\ta\tb\tc\ttrain\n"
    )
    before = set(tmp_path.rglob("*"))
    arguments = ["--cvss", str(path), "--covost", str(tmp_path / "covost_v2.es_en.tsv"), "--out", str(tmp_path / "out")]
    assert main(["corpus", "cvss", *arguments]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(path) in error and "refused" in error
    made = {p for p in tmp_path.rglob("*") if tmp_path / "out" not in (p, *p.parents)}
    assert made == before and not list((tmp_path / "out").rglob("*.flac"))


def headers(kind: bytes, content: bytes, times: int = 1) -> bytes:
    """Headers that announce what follows them."""
    info = tarfile.TarInfo("././@Announced")
    info.type, info.size = kind, len(content)
    return (info.tobuf(tarfile.GNU_FORMAT) + content.ljust(512, b"\0")) * times


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize(
    "content",
    [headers(tarfile.GNUTYPE_LONGNAME, b"train.tsv", 2000), headers(tarfile.XHDTYPE, b"22 GNU.sparse.map=abc\n")],
)
def test_an_archive_with_impossible_headers_is_named(content: bytes, first: bool, tmp_path: Path) -> None:
    member = tarfile.TarInfo("train.tsv").tobuf()
    (tmp_path / "cvss_c_es_en_v1.0.tar").write_bytes((b"" if first else member) + content + member + b"\0" * 1024)
    with pytest.raises(InputError, match=r"cvss_c_es_en_v1.0.tar: damaged"):
        list(members(tmp_path / "cvss_c_es_en_v1.0.tar"))


def test_an_archive_that_is_cut_off_within_a_clip_is_named(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).bytes(3 << 20)  # more than is read ahead
    pack(tmp_path / "es.tar.gz", {"es/clips/a.mp3": noise, "es/clips/b.mp3": noise})
    whole = (tmp_path / "es.tar.gz").read_bytes()
    (tmp_path / "es.tar.gz").write_bytes(whole[: len(whole) // 3])
    with pytest.raises(InputError, match="download it again"):
        for member in members(tmp_path / "es.tar.gz"):
            member.read()


@pytest.mark.parametrize("keep", [0.5, 0.99])
def test_an_archive_that_is_cut_off_is_named(
    keep: float, mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    whole = Path(mini.archives()[0]).read_bytes()
    cut = tmp_path / Path(mini.archives()[0]).name
    cut.write_bytes(whole[: int(len(whole) * keep)])
    assert main([*command(mini, tmp_path / "out"), "--cvss", str(cut), "--languages", "es"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert cut.name in error and "download it again" in error
    cut.write_bytes(whole[:1000] + b"\0" * 1000 + whole[2000:])
    with pytest.raises(Exception, match="download it again"):
        for member in members(cut):
            member.read()


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--cvss", "/nowhere.tar.gz", "--covost", "x"], "/nowhere.tar.gz"),
        (["--covost", "x"], "--cvss"),
        (["--cvss", "CVSS", "--covost", "/nowhere"], "/nowhere"),
        (["--cvss", "CVSS", "--covost", "EMPTY"], "no covost_v2"),
        (["--cvss", "EMPTY", "--covost", "COVOST"], "no cvss_c"),
        (["--cvss", "CVSS", "--covost", "COVOST", "--splits", "foo"], "foo"),
        (["--cvss", "CVSS", "--covost", "COVOST", "--bogus", "1"], "--bogus"),
    ],
)
def test_wrong_arguments_are_one_line_and_code_2(
    arguments: list[str], word: str, mini: Miniature, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    places = {
        "CVSS": mini.archives()[0],
        "COVOST": str(mini.folder / "covost_v2.es_en.tsv"),
        "EMPTY": str(tmp_path / "empty"),
    }
    assert main(["corpus", "cvss", *(places.get(a, a) for a in arguments), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert word in error and error.count("\n") == 0
    assert not (tmp_path / "out/manifest.parquet").exists()


def test_a_folder_with_other_things_is_left_alone(mini: Miniature, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    assert main(command(mini, tmp_path)) == 2
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_the_miniature_goes_through_the_whole_chain(
    corpus: Path, tmp_path: Path, text_lm_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    config = Wav2Vec2BertConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        vocab_size=7,
        conv_depthwise_kernel_size=5,
    )
    torch.manual_seed(0)
    Wav2Vec2BertForCTC(config).save_pretrained(tmp_path / "w2v-bert")
    recipe = {
        "corpus": {"manifest": str(corpus)},
        "encoder": {"pretrained": str(tmp_path / "w2v-bert"), "batch_seconds": 10, "training": {"steps": 1}},
        "codebook": {"num_units": 8, "layer": 2, "max_frames": 500, "max_iterations": 2},
        "lm": {
            "pretrained": str(text_lm_folder),
            "interleave": {"min_alignment_score": 0.0},
            "training": {"steps": 1, "batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1},
        },
        "systems": {"scheduled": {}},
        "vocoder": TINY_VOCODER,
        "translate": SHORT_DECODING,
        "score": {"mos": [], "bootstrap_samples": 10, "randomization_trials": 10, "examples": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = tmp_path / "run"
    assert main(["run", str(tmp_path / "recipe.yaml"), "--out", str(run)]) == 0
    words = {row["id"]: row["words"] for row in _units(run) if row["side"] == "src"}
    for pair in read_manifest(corpus):
        assert words[pair.id] == str(pair.src_text).split(" ")
    outputs = (run / "translate/scheduled/outputs.jsonl").read_text().splitlines()
    assert len(outputs) == len(read_manifest(corpus, "test"))
    assert set(map(str.lower, ENGLISH[:2])) <= {str(p.tgt_text) for p in read_manifest(run / "corpus", "test")}
    assert main(["corpus", "stats", str(run)]) == 0
    assert "zh > en" in capsys.readouterr().out and (run / "corpus/stats.png").stat().st_size > 1000


def _units(run: Path) -> list[dict]:
    return [row for shard in sorted((run / "units").glob("*.parquet")) for row in pq.read_table(shard).to_pylist()]
