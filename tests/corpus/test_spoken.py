"""A corpus spoken from given text: one split for all languages, nothing of the test set in training."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from unitweave.config.corpus import SynthesisSettings, SynthesizedCorpus
from unitweave.config.recipe import parse_recipe
from unitweave.core.audio import SAMPLE_RATE, read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.corpus.embedded.engines import Utterance, synthesize_all
from unitweave.corpus.embedded.spoken import build_spoken, plan_spoken, spoken_digest, spoken_settings
from unitweave.corpus.embedded.voices import speakers
from unitweave.corpus.readers.text_table import read_parallel_text
from unitweave.pipeline import Run

pytestmark = [pytest.mark.slow, pytest.mark.processes]

NUMBERS = ["uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez", "once", "doce"]
FRENCH = ["un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze"]
ENGLISH = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    lines = ["src_lang\ttgt_lang\tsrc_text\ttgt_text\torigin"]
    lines += [f"es\ten\tQuiero {n}.\tI want {e}.\tx" for n, e in zip(NUMBERS, ENGLISH, strict=True)]
    lines += [f"fr\ten\tJe veux {n}.\tI want {e}.\tx" for n, e in zip(FRENCH[:8], ENGLISH, strict=False)]
    lines += ["es\ten\t¡Quiero uno!\tI would like one.\tx", "es\ten\tQuiero otro.\tI WANT ONE\tx"]
    lines += ["de\ten\tIch will eins.\tI want one.\tx", "es\tfr\tQuiero uno.\tJe veux un.\tx"]
    path = tmp_path / "text.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def settings(table: Path, **changes: object) -> SynthesizedCorpus:
    return SynthesizedCorpus(**({"text": str(table), "languages": ["es", "fr"], "dev": 2, "test": 4} | changes))  # type: ignore[arg-type]


def test_no_test_sentence_is_trained_on_in_any_language(table: Path, tmp_path: Path) -> None:
    for seed in range(8):
        plan = plan_spoken(tmp_path, settings(table, seed=seed))
        english, source, heard = ({"train": set(), "held out": set()} for _ in range(3))
        for pair in (recording.pair for recording in plan):
            part = "train" if pair.split == "train" else "held out"
            english[part].add(pair.tgt_text)
            source[part].add((pair.src_lang, pair.src_text))
            heard[part].add(pair.speaker)
        assert not english["train"] & english["held out"]
        assert not source["train"] & source["held out"]  # "Quiero uno." has two translations
        assert all(sum(r.pair.split == "test" and r.pair.src_lang == x for r in plan) == 4 for x in ("es", "fr"))
        apart = {
            voice.name for language in ("es", "fr") for voice in speakers(language, SynthesisSettings(), unseen=True)
        }
        assert not apart & heard["train"]
        assert sum(r.pair.split == "test" and r.pair.speaker in apart for r in plan) == 4


def test_the_same_english_sentence_is_one_recording(table: Path, tmp_path: Path) -> None:
    plan = plan_spoken(tmp_path, settings(table))
    said: dict[str, set[Path]] = {}
    for recording in plan:
        said.setdefault(recording.pair.tgt_text or "", set()).add(recording.target.path)
    assert all(len(paths) == 1 for paths in said.values())
    assert {r.pair.src_lang for r in plan} == {"es", "fr"}


def test_amounts_per_language(table: Path, tmp_path: Path) -> None:
    plan = plan_spoken(tmp_path, settings(table, train={"es": 3, "fr": 1}))
    assert [sum(r.pair.split == "train" and r.pair.src_lang == x for r in plan) for x in ("es", "fr")] == [3, 1]


def test_a_run_speaks_it_once_wherever_the_table_lies(table: Path, tmp_path: Path) -> None:
    spoken = {"text": str(table), "languages": ["es"], "train": 2, "dev": 0, "test": 1, "workers": 1}
    run = Run(tmp_path / "run", parse_recipe({"corpus": {"synthesized": spoken}}))
    first = run.corpus()
    pairs = read_manifest(tmp_path / "run/corpus")
    assert [p.split for p in pairs] == ["train", "train", "test"]
    assert all(Path(str(p.src_audio)).exists() and p.src_seconds > 0.3 and p.tgt_seconds > 0.3 for p in pairs)
    moved = table.rename(tmp_path / "elsewhere.tsv")
    again = Run(
        tmp_path / "run", parse_recipe({"corpus": {"synthesized": spoken | {"text": str(moved), "workers": 2}}})
    )
    assert again.corpus() == first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"languages": ["es", "xx"]}, "xx"),
        ({"languages": ["es", "it"]}, "no pairs from it"),
        ({"dev": 5, "test": 5}, "8 English sentences have all of es, fr"),
        ({"train": {"de": 4}}, "'de'"),
        ({"train": 0}, "above 0"),
        ({"noise_db": 1.0}, "at least 5 dB"),
        ({"text": ""}, "name a table"),
    ],
)
def test_bad_settings_are_refused(table: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(InputError, match=words):
        spoken_digest(settings(table, **changes))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", 'src_lang;tgt_lang;src_text;tgt_text\r\nSpanish;EN;"Hola; amigo";Hi\r\n'.encode("utf-16")),
        ("t.tsv", b"\xef\xbb\xbfsrc_lang\ttgt_lang\tsrc_text\ttgt_text\nspa\ten-US\tHola; amigo\tHi\n\n"),
        ("t.jsonl", b'{"src_lang": "es", "tgt_lang": "en", "src_text": "Hola; amigo", "tgt_text": "Hi"}\n'),
    ],
)
def test_parallel_text_may_be_any_table(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    (row,) = read_parallel_text(tmp_path / name)
    assert (row.src_lang, row.tgt_lang, row.src_text, row.tgt_text) == ("es", "en", "Hola; amigo", "Hi")


def test_a_bad_table_is_named_with_its_line(table: Path, tmp_path: Path) -> None:
    table.write_text(table.read_text() + "es\ten\t\tNothing.\tx\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"text.tsv, row 25: no src_text"):
        read_parallel_text(table)
    table.write_text("src_lang\ttgt_lang\tsrc_text\ttgt_text\nes\ten\ta\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"text.tsv, line 2: 3 fields, the header has 4"):
        read_parallel_text(table)
    table.write_bytes("src_lang\ttgt_lang\tsrc_text\ttgt_text\nes\ten\tmañana\ta\n".encode("cp1252"))
    with pytest.raises(InputError, match=r"text.tsv, row 1: the text has the wrong encoding"):
        read_parallel_text(table)
    with pytest.raises(InputError, match="no such file"):
        spoken_settings(settings(tmp_path / "nothing.tsv"))
    with pytest.raises(InputError, match="no such table"):
        build_spoken(tmp_path / "corpus", settings(tmp_path / "nothing.tsv"))


def test_a_table_serves_both_directions_and_other_targets(table: Path, tmp_path: Path) -> None:
    plan = plan_spoken(tmp_path, settings(table, directions=["es-en", "en-es", "en-fr"], test=2, seed=1))
    pairs = [recording.pair for recording in plan]
    assert {(p.src_lang, p.tgt_lang) for p in pairs} == {("es", "en"), ("en", "es"), ("en", "fr")}
    assert len({p.id for p in pairs}) == len(pairs)
    assert {r.target.voice.name for r in plan} == {"en_pico", "es_pico", "fr_pico"}
    paths = {u.path: (u.text, u.voice, u.noise_db) for r in plan for u in (r.source, r.target)}
    for recording in plan:
        for one in (recording.source, recording.target):
            assert paths[one.path] == (one.text, one.voice, one.noise_db), "one file, one recording"
    held_out = {p.tgt_text if p.tgt_lang == "en" else p.src_text for p in pairs if p.split != "train"}
    trained = {p.tgt_text if p.tgt_lang == "en" else p.src_text for p in pairs if p.split == "train"}
    assert held_out and trained and not held_out & trained


def test_directions_into_english_are_the_languages(table: Path, tmp_path: Path) -> None:
    named = settings(table, directions=["es-en", "fr-en"], train={"es-en": 3, "fr-en": 2})
    assert plan_spoken(tmp_path, named) == plan_spoken(tmp_path, settings(table, train={"es": 3, "fr": 2}))


@pytest.mark.parametrize(
    ("directions", "message"),
    [
        (["es"], "such as en-es"),
        (["es-en", "es-en"], "different pairs"),
        (["es-en", "fr-de"], "in common"),
        (["en-en"], "must differ"),
    ],
)
def test_directions_that_cannot_be_are_refused(table: Path, directions: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        settings(table, directions=directions)


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A corpus folder of two recordings: one with the translation spoken by a person, one without."""
    folder = tmp_path / "people"
    folder.mkdir()
    for name in ("a", "b", "b-en"):
        write_audio(folder / f"{name}.wav", 0.1 * np.sin(np.arange(SAMPLE_RATE) / 20).astype(np.float32))
    heard = Pair(
        "A1", "train", "es", "en", str(folder / "a.wav"), None, "hola a todos", "hello everybody", src_seconds=1
    )
    both = replace(
        heard, id="B1", split="test", src_audio=str(folder / "b.wav"), tgt_audio=str(folder / "b-en.wav"), tgt_seconds=1
    )
    write_manifest(folder, [heard, both], {})
    return folder


def test_recordings_of_people_join_and_what_they_lack_is_spoken(table: Path, people: Path, tmp_path: Path) -> None:
    wanted = settings(table, languages=["es"], train=2, dev=0, test=1, recordings=str(people), workers=1)
    build_spoken(tmp_path / "corpus", wanted)
    pairs = {pair.id: pair for pair in read_manifest(tmp_path / "corpus")}
    assert [pair.split for pair in pairs.values()].count("test") == 2
    a, b, b_before = pairs["A1"], pairs["B1"], {pair.id: pair for pair in read_manifest(people)}["B1"]
    assert b == b_before, "nothing is made of what is there"
    assert a.src_audio == str(people / "a.wav") and a.src_seconds == 1
    assert Path(str(a.tgt_audio)).is_relative_to(tmp_path / "corpus") and a.tgt_seconds > 0.3
    alone = settings(table, languages=["es"], train=2, dev=0, test=1)
    assert plan_spoken(tmp_path, wanted)[:3] == plan_spoken(tmp_path, alone), "nothing else changes"
    before = spoken_settings(wanted)
    write_manifest(people, list(read_manifest(people))[:1], {})
    assert spoken_settings(wanted) != before, "other recordings are another corpus"


def test_recordings_that_do_not_fit_are_named(table: Path, people: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="A1 translates es-en, but the corpus has only the directions fr-en"):
        plan_spoken(tmp_path, settings(table, languages=["fr"], recordings=str(people)))
    with pytest.raises(InputError, match="no manifest there"):
        spoken_settings(settings(table, recordings=str(tmp_path)))
    clash = [replace(pair, id="es_train_000000") for pair in read_manifest(people)][:1]
    write_manifest(people, clash, {})
    with pytest.raises(InputError, match="'es_train_000000' is also the id of a synthesized pair"):
        plan_spoken(tmp_path, settings(table, languages=["es"], recordings=str(people)))


def test_many_speakers_levels_and_noises(table: Path, tmp_path: Path) -> None:
    small, large = SynthesisSettings(), SynthesisSettings(speakers="many")
    few, many, apart = speakers("es", small), speakers("es", large), speakers("es", small, unseen=True)
    assert many[: len(few)] == few and len(many) > 3 * len(few) and len({v.name for v in many}) == len(many)
    assert speakers("es", large, unseen=True) == apart
    assert not {v.voice for v in many} & {v.voice for v in apart if v.engine == "espeak"}
    varied = settings(table, languages=["es"], speakers="many", noise_db=20, noise_spread_db=15, level_db=12)
    sources = [recording.source for recording in plan_spoken(tmp_path, varied)]
    levels, noises = ({getattr(s, name) for s in sources if s} for name in ("level_db", "noise_db"))
    assert len(levels) > 5 and -12 <= min(levels) < -6 < max(levels) <= 0
    assert len(noises) > 5 and 5 <= min(noises) < 14 < 26 < max(noises) <= 35
    with pytest.raises(InputError, match="at least 30 dB"):
        settings(table, noise_db=20, noise_spread_db=30)
    quiet, loud = (Utterance(tmp_path / f"{x}.wav", "Hola.", many[0], 30.0, x) for x in (-20.0, 0.0))
    assert [problem for _, problem in synthesize_all([quiet, loud], 1)] == ["", ""]
    assert np.allclose(10 * read_audio(quiet.path), read_audio(loud.path), atol=2e-3)


def test_every_one_of_many_speakers_speaks(tmp_path: Path) -> None:
    for language in ("es", "en"):
        said = [
            Utterance(tmp_path / f"{v.name}.wav", "Hola, no.", v)
            for v in speakers(language, SynthesisSettings(speakers="many"))
        ]
        assert [(u.voice.name, problem) for u, problem in synthesize_all(said) if problem] == []
