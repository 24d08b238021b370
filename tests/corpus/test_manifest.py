"""The manifest, its adoption into a run, the statistics, and what counts as a change of the corpus."""

import errno
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from helpers.cvss_miniature import encoded, tone
from unitweave import pipeline as run_module
from unitweave.cli import main
from unitweave.config.recipe import parse_recipe
from unitweave.core.audio import is_silent, read_audio
from unitweave.core.errors import AudioError, InputError
from unitweave.core.languages import language_code
from unitweave.core.manifest import Pair, read_manifest, read_metadata, write_manifest
from unitweave.core.stage import StageResult, read_stage
from unitweave.core.text import NORMALIZER, normalize, rules
from unitweave.corpus import assemble, recording_store, stats
from unitweave.corpus.recording_store import RecordingTask
from unitweave.corpus.stats import language_splits
from unitweave.pipeline import Run


def pair(folder: Path, name: str = "a", **changes: object) -> Pair:
    """A pair whose recordings exist."""
    for side in ("src", "tgt"):
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / f"{name}.{side}.wav").exists():
            soundfile.write(folder / f"{name}.{side}.wav", tone(0.5, 16_000, 1), 16_000)
    made = Pair(
        id=name,
        split="train",
        src_lang="es",
        tgt_lang="en",
        src_audio=str(folder / f"{name}.src.wav"),
        tgt_audio=str(folder / f"{name}.tgt.wav"),
        src_text="hola",
        tgt_text="hello",
        src_text_raw="¡Hola!",
        tgt_text_raw="Hello!",
        speaker="s",
        src_seconds=0.5,
        tgt_seconds=0.5,
    )
    return replace(made, **changes)


def adopted(folder: Path, run: Path) -> list[Pair]:
    Run(run, parse_recipe({"corpus": {"manifest": str(folder)}})).corpus()
    return read_manifest(run / "corpus")


def test_a_manifest_is_read_as_it_was_written_wherever_the_folder_moves(tmp_path: Path) -> None:
    pairs = [pair(tmp_path / "c"), pair(tmp_path / "c", "b", tgt_audio=None, tgt_text=None)]
    write_manifest(tmp_path / "c", pairs, {"corpus": "x"})
    assert read_manifest(tmp_path / "c") == pairs and read_metadata(tmp_path / "c")["corpus"] == "x"
    (tmp_path / "c").rename(tmp_path / "moved")
    assert all(Path(str(p.src_audio)).exists() for p in read_manifest(tmp_path / "moved"))


@pytest.mark.parametrize("id", ["../x", "a/b", "a\\b", "", ".hidden", "a\nb", "x" * 201, "a:b"])
def test_an_id_that_cannot_name_a_file_is_refused_on_writing_and_on_reading(id: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot name a file"):
        write_manifest(tmp_path, [pair(tmp_path, "ok", id=id)])
    write_manifest(tmp_path, [pair(tmp_path, "ok")])
    table = pq.read_table(tmp_path / "manifest.parquet")
    pq.write_table(table.set_column(0, table.schema.field(0), [[id]]), tmp_path / "manifest.parquet")
    with pytest.raises(InputError, match="cannot name a file"):
        read_manifest(tmp_path)


def test_a_manifest_that_lost_rows_after_its_stage_is_refused_by_every_reader(tmp_path: Path) -> None:
    pairs = [pair(tmp_path / "c"), pair(tmp_path / "c", "b"), pair(tmp_path / "c", "d", split="dev")]
    write_manifest(tmp_path / "c", pairs, {"normalizer": NORMALIZER})
    assert len(adopted(tmp_path / "c", tmp_path / "run")) == 3
    write_manifest(tmp_path / "run/corpus", pairs[1:], {"normalizer": NORMALIZER})
    for split, words in (
        (None, "2 pairs found, but stage.json counts 3"),
        ("train", "1 pairs of the train split found.* counts 2"),
    ):
        with pytest.raises(InputError, match=words):
            read_manifest(tmp_path / "run/corpus", split)
    assert len(read_manifest(tmp_path / "run/corpus", "dev")) == 1


def test_a_recipe_adopts_a_manifest_and_its_counts(tmp_path: Path) -> None:
    write_manifest(tmp_path / "c", [pair(tmp_path / "c")], {"normalizer": NORMALIZER})
    (tmp_path / "c/corpus.json").write_text(json.dumps({"skipped": {"source: too loud": 3}}))
    assert adopted(tmp_path / "c", tmp_path / "run") == [pair(tmp_path / "c")]
    counts = read_stage(tmp_path / "run", "corpus")["counts"]
    assert counts["pairs"] == counts["train"] == 1 and counts["skipped"] == {"source: too loud": 3}


def test_recordings_from_changed_sources_change_the_manifest(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("id,src_audio\na,a.wav\nb,b.wav\nbad,none.wav\n")
    for name in ("a", "b"):
        soundfile.write(tmp_path / f"{name}.wav", tone(0.5, 16_000, 1), 16_000)
    languages = ["--src-lang", "es", "--tgt-lang", "en"]
    arguments = ["corpus", "table", "--table", str(table), "--out", str(tmp_path / "c"), *languages]

    def manifest() -> bytes:
        assert main(arguments) == 0
        return (tmp_path / "c/manifest.parquet").read_bytes()

    first = manifest()
    adopted(tmp_path / "c", tmp_path / "run")
    before = read_metadata(tmp_path / "run/corpus")["recordings"]
    assert before == read_metadata(tmp_path / "c")["recordings"] and manifest() == first
    soundfile.write(tmp_path / "b.wav", tone(0.5, 16_000, 2), 16_000)
    assert manifest() != first, "although all recordings last as long as before"
    adopted(tmp_path / "c", tmp_path / "run")
    assert read_metadata(tmp_path / "run/corpus")["recordings"] != before


@pytest.mark.parametrize("metadata", [{}, {"normalizer": "unitweave-0"}])
def test_texts_that_others_normalized_are_normalized_anew(metadata: dict[str, str], tmp_path: Path) -> None:
    pairs = [
        pair(tmp_path / "c", src_text="HOLA 3", src_text_raw="¡Hola, 3!", tgt_text="Hello", tgt_text_raw=None),
        pair(tmp_path / "c", "b", src_text=None, src_text_raw=None),
    ]
    write_manifest(tmp_path / "c", pairs, metadata)
    found = {p.id: p for p in adopted(tmp_path / "c", tmp_path / "run")}
    assert (found["a"].src_text, found["a"].tgt_text, found["b"].src_text) == ("hola tres", "hello", None)
    assert read_metadata(tmp_path / "run/corpus")["normalizer"] == NORMALIZER


def test_a_corpus_whose_recordings_are_gone_is_refused(tmp_path: Path) -> None:
    write_manifest(tmp_path / "c", [pair(tmp_path / "c")])
    (tmp_path / "c/a.tgt.wav").unlink()
    with pytest.raises(InputError, match=r"1 of 2 recordings are missing.*a\.tgt\.wav"):
        adopted(tmp_path / "c", tmp_path / "run")


def test_a_changed_manifest_is_adopted_again_and_an_equal_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_manifest(tmp_path / "c", [pair(tmp_path / "c")], {"normalizer": NORMALIZER})
    adopted(tmp_path / "c", tmp_path / "run")
    calls = []
    monkeypatch.setattr(run_module, "import_manifest", lambda *a: (calls.append(a), assemble.import_manifest(*a))[1])
    write_manifest(tmp_path / "c", [pair(tmp_path / "c")], {"normalizer": NORMALIZER})
    adopted(tmp_path / "c", tmp_path / "run")
    assert not calls
    write_manifest(tmp_path / "c", [pair(tmp_path / "c"), pair(tmp_path / "c", "b")], {"normalizer": NORMALIZER})
    assert len(adopted(tmp_path / "c", tmp_path / "run")) == 2 and len(calls) == 1


@pytest.mark.slow
def test_the_number_of_workers_does_not_redo_the_embedded_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = []
    monkeypatch.setattr(
        run_module, "build_embedded", lambda folder, settings: (built.append(settings), StageResult())[1]
    )
    prints = set()
    for workers in (0, 1, 3):
        embedded = {"languages": ["es"], "train": 4, "dev": 1, "test": 1, "workers": workers}
        prints.add(Run(tmp_path / "run", parse_recipe({"corpus": {"embedded": embedded}})).corpus())
    assert len(built) == len(prints) == 1
    Run(tmp_path / "run", parse_recipe({"corpus": {"embedded": embedded | {"seed": 5}}})).corpus()
    assert len(built) == 2 and built[1].workers == 3


@pytest.mark.slow
def test_stats_count_pairs_speakers_hours_and_shared_recordings_once(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "c"
    pairs = [
        pair(folder, f"p{i}", speaker=f"s{i % 2}", src_seconds=float(i + 1), tgt_audio=str(folder / "p0.tgt.wav"))
        for i in range(4)
    ]
    pairs.append(pair(folder, "fr", src_lang="fr", split="test", speaker="", tgt_audio=None, tgt_text=None))
    write_manifest(folder, pairs)
    spanish, french = language_splits(read_manifest(folder))
    assert (spanish.languages, spanish.split, spanish.pairs, spanish.speakers) == ("es > en", "train", 4, 2)
    assert spanish.src_seconds.sum() == 10 and spanish.tgt_seconds.sum() == 0.5
    assert (french.split, french.speakers, len(french.tgt_seconds), french.tgt_words) == ("test", 0, 0, 0)
    assert main(["corpus", "stats", str(folder), "--picture", str(tmp_path / "lengths.svg")]) == 0
    printed = capsys.readouterr().out
    assert "es > en" in printed and "2.5" in printed and "lengths.svg" in printed
    assert "<svg" in (tmp_path / "lengths.svg").read_text()


@pytest.mark.parametrize("arguments", [["/nowhere"], [], ["FOLDER", "--picture", "x.docx"]])
def test_stats_of_nothing_are_one_line_and_code_2(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    write_manifest(tmp_path / "c", [pair(tmp_path / "c")])
    assert main(["corpus", "stats", *(str(tmp_path / "c") if a == "FOLDER" else a for a in arguments)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_stats_of_a_corpus_in_a_read_only_place_have_no_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    write_manifest(tmp_path, [Pair("a", "train", "es", "en", None, None, "uno", "one")])
    monkeypatch.setattr(stats, "draw", refused)
    assert main(["corpus", "stats", str(tmp_path)]) == 0
    assert "is read-only; --picture names another place" in capsys.readouterr().out


def test_what_would_fill_the_memory_is_refused_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    flac = encoded(tone(1.0, 48_000, 1, channels=8), 48_000, "FLAC")
    assert len(read_audio(flac)) == len(read_audio(flac, max_seconds=4)) == 16_000
    monkeypatch.setattr(soundfile.SoundFile, "read", lambda *_, **__: pytest.fail("decoded"))
    for seconds in (0.9, 3.9):  # too long; more samples than 3.9 seconds of stereo
        with pytest.raises(AudioError, match="too long"):
            read_audio(flac, max_seconds=seconds)


def test_recordings_that_wait_for_a_thread_are_bounded_in_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audio = encoded(tone(0.5, 16_000, 1), 16_000, "WAV")
    monkeypatch.setattr(recording_store, "_MAX_WAITING_BYTES", 3 * len(audio))

    def tasks() -> Iterator[RecordingTask]:
        for i in range(20):
            done = (tmp_path / recording_store.JOURNAL).read_text().count("\n")
            assert i - done <= 3
            yield RecordingTask(f"audio/{i}.flac", str(i), audio)

    with recording_store.RecordingStore(tmp_path, workers=8) as made:
        made.make(tasks())
        assert all(made.has(f"audio/{i}.flac", str(i)) for i in range(20))


def test_problems_of_recordings_have_names_of_their_own(tmp_path: Path) -> None:
    for source, problem in ((tmp_path / "none.wav", "no such audio file"), (b"junk", "not readable as audio")):
        with pytest.raises(AudioError) as caught:
            read_audio(source)
        assert caught.value.problem == problem and problem in str(caught.value)
    assert is_silent(np.full(100, 0.7, np.float32)) and not is_silent(0.01 * tone(0.1, 16_000, 0))


@pytest.mark.parametrize("language", ["en", "fr", "tr", "zh", "ja", "mn", "xx"])
def test_the_recorded_rules_say_what_normalization_does(language: str) -> None:
    said = rules(language)
    assert ("digits" in said["numbers"]) == any(c.isdigit() for c in normalize("a 7", language))
    assert ("ideograph" in said["words"]) == (normalize("猫犬", language) == "猫 犬")
    if "point" in said["numbers"]:
        point = said["numbers"].split("point '")[1][0]
        assert normalize(f"2{point}5", language) != normalize("2 5", language)
    assert rules(f"{language}-XX") == said and language_code(f"{language}_XX") == language


@pytest.mark.parametrize(
    ("language", "text", "expected"),
    [
        ("fr", "L'œuvre qu’elle aimait… n'est-ce pas ?", "l'œuvre qu'elle aimait n'est ce pas"),
        ("it", "Dov'è l’acqua? È un po'…", "dov'è l'acqua è un po"),
        ("es", "¡Mañana, pingüino!", "mañana pingüino"),
        ("ca", "Col·lecció, plaça·", "col·lecció plaça"),
        ("de", "Straße, GRÖSSE", "straße grösse"),
        ("pt", "Não, coração", "não coração"),
        ("ru", "Ещё раз, пожалуйста!", "ещё раз пожалуйста"),
        ("ar", "مَرْحَبًا، كيف الحال؟", "مرحبا كيف الحال"),
        ("zh-CN", "你好，世界！", "你 好 世 界"),
        ("ja", "東京タワー。", "東 京 タ ワ ー"),
    ],
)
def test_letters_of_every_script_stay_and_signs_go(language: str, text: str, expected: str) -> None:
    assert normalize(text, language) == expected
