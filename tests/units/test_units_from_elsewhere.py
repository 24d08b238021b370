"""Units, word times, tokenizer and vocoder from elsewhere, at 25 units a second, up to a translated recording."""

import json
import math
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml

from helpers.units_corpus import waveform, write_corpus, write_encoder
from unitweave.cli import main
from unitweave.config.recipe import parse_recipe
from unitweave.config.units import ExtractionSettings
from unitweave.core.audio import read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import read_json
from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.core.sequences import deduplicate
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.pipeline import Run
from unitweave.serve.export import export_run
from unitweave.translate.translator import Translator
from unitweave.units.dataset import (
    SCHEMA,
    UnitRow,
    UnitTable,
    read_units,
    read_units_metadata,
    row_batches,
    write_shard,
)
from unitweave.units.importing import UnitSource, import_units
from unitweave.units.tokenizer import ExternalTokenizer, check_repeatable
from unitweave.units.word_times import TimedWord, match_words, read_word_times

EXAMPLES = Path(__file__).parents[2] / "examples"
ABOUT = UnitSource(num_units=41, frame_rate=25.0)


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A corpus, with the example tokenizer in the current folder."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(EXAMPLES / "own_tokenizer.py", tmp_path)
    yield write_corpus(tmp_path / "corpus", 8)
    sys.modules.pop("own_tokenizer", None)


def own_units(pair: Pair, side: str) -> np.ndarray:
    tokenizer = ExternalTokenizer("own_tokenizer:load_tokenizer", {})
    return tokenizer.tokenize([read_audio(getattr(pair, f"{side}_audio"))])[0].units


def sides(corpus: Path) -> list[tuple[Pair, str, np.ndarray]]:
    return [(pair, side, own_units(pair, side)) for pair in read_manifest(corpus) for side in ("src", "tgt")]


def times_of(pair: Pair, side: str) -> list[TimedWord]:
    """Words of equal length, all over the recording."""
    words, seconds = str(getattr(pair, f"{side}_text")).split(), getattr(pair, f"{side}_seconds")
    edges = np.linspace(0, seconds, len(words) + 1).round(4).tolist()
    return [TimedWord(word, *edges[i : i + 2]) for i, word in enumerate(words)]


def text_grid(words: list[TimedWord], seconds: float, short: bool = False) -> str:
    """As the Montreal Forced Aligner writes it: words in capitals, a tier of phones, and a silence at the end."""
    intervals = [(word.start, word.end, word.word.upper()) for word in words] + [(words[-1].end, seconds + 0.001, "")]
    tiers = [("words", intervals), ("phones", [(0.0, seconds, 'a "b"')])]
    if short:
        lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "0", f"{seconds}", "<exists>", "2"]
        for name, rows in tiers:
            lines += ['"IntervalTier"', f'"{name}"', "0", f"{seconds}", f"{len(rows)}"]
            for start, end, text in rows:
                quoted = text.replace('"', '""')
                lines += [f"{start}", f"{end}", f'"{quoted}"']
        return "\n".join(lines)
    lines = ['File type = "ooTextFile"', 'Object class = "TextGrid"', "", "xmin = 0", f"xmax = {seconds}"]
    lines += ["tiers? <exists>", "size = 2", "item []:"]
    for number, (name, rows) in enumerate(tiers, start=1):
        lines += [f"    item [{number}]:", '        class = "IntervalTier"', f'        name = "{name}"']
        lines += ["        xmin = 0", f"        xmax = {seconds}", f"        intervals: size = {len(rows)}"]
        for i, (start, end, text) in enumerate(rows, start=1):
            quoted = text.replace('"', '""')
            lines += [f"        intervals [{i}]:", f"            xmin = {start}", f"            xmax = {end}"]
            lines += [f'            text = "{quoted}"']
    return "\n".join(lines)


def write_units(folder: Path, corpus: Path, reduced: bool = False) -> Path:
    folder.mkdir()
    with (folder / "units.jsonl").open("w") as file:
        for pair, side, units in sides(corpus):
            runs, durations = deduplicate(units)
            record = {"id": pair.id, "side": side, "units": (runs if reduced else units).tolist()}
            file.write(json.dumps(record | ({"durations": durations.tolist()} if reduced else {})) + "\n")
    return folder


def write_times(folder: Path, corpus: Path, kind: str) -> Path:
    for pair in read_manifest(corpus):
        for side in ("src", "tgt"):
            words, place = times_of(pair, side), folder / side
            place.mkdir(parents=True, exist_ok=True)
            if kind == "ctm":
                lines = [f"{pair.id} 1 {w.start:.4f} {w.end - w.start:.4f} {w.word} 0.8\n" for w in words]
                with (place / "all.ctm").open("a") as file:
                    file.writelines(lines)
            elif kind == "json":
                own = [{"word": w.word, "start": w.start, "end": w.end, "score": w.score} for w in words]
                (place / f"{pair.id}.json").write_text(json.dumps({"segments": [{"words": own}]}))
            else:
                seconds = getattr(pair, f"{side}_seconds")
                path = place / f"{Path(str(getattr(pair, f'{side}_audio'))).stem}.TextGrid"  # named like the recording
                grid = text_grid(words, seconds, short=kind == "short")
                path.write_text(grid, encoding="utf-16" if kind == "short" else "utf-8")
    return folder


@pytest.mark.parametrize("kind", ["ctm", "json", "long", "short"])
def test_word_times_of_every_format_become_the_same_frames(kind: str, corpus: Path, tmp_path: Path) -> None:
    source, times = write_units(tmp_path / "units", corpus), write_times(tmp_path / "times", corpus, kind)
    result = import_units(tmp_path / "out", "json", source, corpus, ABOUT, times)
    rows = read_units(tmp_path / "out")
    assert result.counts["aligned_words"] == result.counts["words"] > 20 and not result.skipped
    assert read_units_metadata(tmp_path / "out")["frame_rate"] == "25"
    for pair in read_manifest(corpus):
        row, words = rows[pair.id, "src"], times_of(pair, "src")
        assert row.words == str(pair.src_text).split()
        expected = [min(len(row.units), round(25 * word.start)) for word in words]
        assert row.starts.tolist() == expected and row.ends[-1] == len(row.units)
        assert row.scores.tolist() == pytest.approx([0.8 if kind == "ctm" else 1.0] * len(words))


def test_units_with_durations_are_repeated_and_without_them_they_count_as_deduplicated(
    corpus: Path, tmp_path: Path
) -> None:
    source, times = write_units(tmp_path / "units", corpus, reduced=True), write_times(tmp_path / "t", corpus, "ctm")
    import_units(tmp_path / "whole", "json", source, corpus, ABOUT, times)
    whole = read_units(tmp_path / "whole")
    assert all(np.array_equal(whole[pair.id, side].units, units) for pair, side, units in sides(corpus))
    lines = [json.loads(line) for line in (source / "units.jsonl").read_text().splitlines()]
    (source / "units.jsonl").write_text(
        "".join(json.dumps(one | {"durations": [1] * len(one["units"])}) + "\n" for one in lines)
    )
    with pytest.raises(InputError, match=r"units a second: give that rate, or --deduplicated"):
        import_units(tmp_path / "no", "json", source, corpus, ABOUT, times)
    about = replace(ABOUT, deduplicated=True)
    import_units(tmp_path / "short", "json", source, corpus, about, times)
    assert read_units_metadata(tmp_path / "short")["deduplicated"] == "true"
    for (id_, side), row in read_units(tmp_path / "short").items():
        assert np.array_equal(row.units, deduplicate(whole[id_, side].units)[0])
        assert row.ends.max() == len(row.units), "words lie over the whole recording, and so over all units"
    with pytest.raises(InputError, match="repeats a unit, so these units are not deduplicated"):
        import_units(tmp_path / "no", "json", write_units(tmp_path / "repeated", corpus), corpus, about)


@pytest.mark.parametrize("deduplicated", [False, True])
def test_a_recording_whose_line_has_no_units_is_left_out_with_the_reason(
    deduplicated: bool, corpus: Path, tmp_path: Path
) -> None:
    source, about = write_units(tmp_path / "units", corpus, reduced=True), replace(ABOUT, deduplicated=deduplicated)
    lines = [json.loads(line) for line in (source / "units.jsonl").read_text().splitlines()]
    if deduplicated:
        lines = [{key: value for key, value in line.items() if key != "durations"} for line in lines]
    name = f"{lines[1]['id']}/{lines[1]['side']}"
    lines[1] = {"id": lines[1]["id"], "side": lines[1]["side"], "units": []}
    (source / "units.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    result = import_units(tmp_path / "own", "json", source, corpus, about)
    assert result.skipped == [{"id": name, "reason": f"no units in {source}"}]
    assert len(read_units(tmp_path / "own")) == result.counts["recordings"] == len(lines) - 1
    (source / "units.jsonl").write_text(
        "".join(json.dumps(line | {"units": [], "durations": []}) + "\n" for line in lines)
    )
    with pytest.raises(InputError, match=r"no recording of .* has any units there"):
        import_units(tmp_path / "none", "json", source, corpus, about)


def test_our_own_columns_come_back_with_their_word_frames(corpus: Path, tmp_path: Path) -> None:
    rows = []
    for pair, side, units in sides(corpus):
        words = str(getattr(pair, f"{side}_text")).split()
        ends = ((1 + np.arange(len(words))) * len(units) // len(words)).astype(np.int32)
        scores = np.linspace(0.2, 0.9, len(words), dtype=np.float32)
        rows.append(UnitRow(pair.id, side, units, words, np.append(0, ends[:-1]).astype(np.int32), ends, scores))
    write_shard(tmp_path / "theirs", 0, rows, {})
    import_units(tmp_path / "out", "parquet", tmp_path / "theirs", corpus, ABOUT)
    assert pq.read_table(tmp_path / "out").equals(pq.read_table(tmp_path / "theirs"))


def test_the_encoder_of_the_run_aligns_where_no_times_are_given(corpus: Path, tmp_path: Path) -> None:
    encoder, _ = write_encoder(tmp_path)
    source = write_units(tmp_path / "units", corpus)
    result = import_units(tmp_path / "out", "json", source, corpus, ABOUT, encoder=encoder)
    assert result.counts["aligned_words"] > 0.8 * result.counts["words"]
    for row in read_units(tmp_path / "out").values():
        assert row.ends.max() <= len(row.units) and (row.starts <= row.ends).all()


def matched(words: str, *timed: TimedWord, language: str = "en") -> list[tuple[int, int, float]]:
    found = match_words(words.split(), language, timed, 4.0, 100, 25.0, "u/src")
    return list(zip(found.starts.tolist(), found.ends.tolist(), found.scores.round(2).tolist(), strict=True))


def test_an_alignment_that_spells_otherwise_is_matched_word_by_word() -> None:
    timed = TimedWord("Twenty-one", 0.0, 2.0), TimedWord("DOGS,", 2.0, 3.0, 0.5), TimedWord("sleep.", 3.0, 4.0)
    assert matched("twenty one dogs sleep", *timed) == [(0, 33, 1.0), (33, 50, 1.0), (50, 75, 0.5), (75, 100, 1.0)]
    assert matched("l'eau", TimedWord("L'eau", 1.0, 2.0), language="fr")[0][2] == 1.0
    missing = matched("a b c d", TimedWord("a", 0.0, 1.0), TimedWord("d", 3.0, 4.0))
    assert missing == [(0, 25, 1.0), (25, 50, 0.0), (50, 75, 0.0), (75, 100, 1.0)], "the gap is theirs, but not surely"
    assert matched("a b", TimedWord("x", 0.0, 1.0)) == [(0, 0, 0.0)] * 2


@pytest.mark.parametrize("frame_rate", [6.25, 12.5, 40, 75, 86.1328125])
@pytest.mark.parametrize("padding", [0, 2])
def test_units_at_any_rate_come_in_with_their_word_frames(
    frame_rate: float, padding: int, corpus: Path, tmp_path: Path
) -> None:
    (tmp_path / "u").mkdir()
    with (tmp_path / "u/units.jsonl").open("w") as file:
        for pair in read_manifest(corpus):
            units = (np.arange(int(pair.src_seconds * frame_rate) + padding) % 41).tolist()
            file.write(json.dumps({"id": pair.id, "side": "src", "units": units}) + "\n")
    times = write_times(tmp_path / "times", corpus, "ctm")
    about = UnitSource(41, round(frame_rate, 2))  # 86.13, as people write it
    result = import_units(tmp_path / "out", "json", tmp_path / "u", corpus, about, times)
    assert result.counts["recordings"] == 8 and result.counts["aligned_words"] > 0
    for (id_, _), row in read_units(tmp_path / "out").items():
        assert row.ends.max(initial=0) <= len(row.units), id_


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_rate": 50.0}, r"--frame-rate 50 does not fit: only \d+ units for \d+ frames .* about 2[45]\.\d"),
        ({"num_units": 5}, "has unit .* but --num-units is 5"),
        ({"num_units": 70_000}, "at most 65536"),
        ({"frame_rate": math.nan}, "--frame-rate: must be the number of units per second"),
        ({"frame_rate": math.inf}, "--frame-rate: must be the number of units per second"),
    ],
)
def test_what_cannot_be_these_recordings_units_is_refused(
    change: dict, message: str, corpus: Path, tmp_path: Path
) -> None:
    source = write_units(tmp_path / "units", corpus)
    with pytest.raises(InputError, match=message):
        import_units(tmp_path / "out", "json", source, corpus, replace(ABOUT, **change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"units": None}, "record 1: units must be integers from 0"),
        ({"units": [[1], [1, 2]]}, "record 1: units must be integers from 0"),
        ({"units": [10**30]}, "record 1: units must be integers from 0"),
        ({"units": [True, False]}, "record 1: units must be integers from 0"),
        ({"side": ...}, "record 1: must be an object with id, side and units; it has no 'side'"),
        ({"durations": 3}, "record 1: durations must be a positive integer"),
        ({"durations": [10**12] * 8}, "record 1: durations must be a positive integer"),
        ({"durations": [1]}, "record 1: durations must be a positive integer"),
        ({"words": {"una": 1}}, "'words' must be a list of objects"),
        ({"words": [{"w": "una", "begin": 0}]}, "a word has 'word', 'start' and 'end'; it has 'w', 'begin'"),
        ({"units": "1 2 x"}, "record 1: units must be integers from 0 to 65535, in a list or a text"),
        ({"words": ["una"]}, "'words' must be a list of objects"),
        ({"words": [{"word": "una", "start": "0:01", "end": "0:02"}]}, "could not convert"),
        (
            {"words": [{"word": "a", "start": math.nan, "end": 0.1}]},
            "at nan to 0.1 s has a time that is not a number",
        ),
        ({"words": [{"word": "a", "start": 0.1, "end": 0.0}]}, "'a' at 0.1 to 0 s ends before it begins"),
        ({"words": [{"word": "a", "start": 0, "end": math.inf}]}, "'a' at 0 to inf s has a time that is not a number"),
        (
            {"words": [{"word": "a", "start": 0.2, "end": 0.3}, {"word": "b", "start": 0.0, "end": 0.1}]},
            "'b' at 0 to 0.1 s does not come after 'a' at 0.2 to 0.3 s",
        ),
        (
            {"segments": [{"words": [{"word": w, "start": 0, "end": 0.25} for w in "ab"]}]},
            "'b' at 0 to 0.25 s does not come after 'a'",
        ),
    ],
)
def test_records_that_cannot_be_taken_end_in_one_line(change: dict, message: str, corpus: Path, tmp_path: Path) -> None:
    source = write_units(tmp_path / "units", corpus)
    first, *others = (source / "units.jsonl").read_text().splitlines()
    record = {key: value for key, value in (json.loads(first) | change).items() if value is not ...}
    if change.get("durations") == [10**12] * 8:
        record["units"] = record["units"][:8]
    (source / "units.jsonl").write_text("\n".join([json.dumps(record), *others]))
    with pytest.raises(InputError, match=message) as refused:
        import_units(tmp_path / "out", "json", source, corpus, ABOUT)
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_units_as_text_and_recordings_by_any_name_come_in(encoding: str, corpus: Path, tmp_path: Path) -> None:
    names = {"src": "source", "tgt": "target"}
    (tmp_path / "u").mkdir()
    (tmp_path / "times/src").mkdir(parents=True)
    lines, ctm = [], []
    for i, (pair, side, units) in enumerate(sides(corpus)):
        audio = getattr(pair, f"{side}_audio")
        name = (pair.id, f"{pair.id}.wav", f"C:\\clips\\{pair.id}.mp3", audio, Path(audio).name)[i % 5]
        text = (" ", ", ")[i % 2].join(map(str, units.tolist()))
        lines.append(json.dumps({"id": name, "side": names[side], "units": text}))
        words = times_of(pair, side) if side == "src" else []
        ctm += [f"{name.split(chr(92))[-1]} 1 {w.start:.4f} {w.end - w.start:.4f} {w.word}\n" for w in words]
    (tmp_path / "u/units.jsonl").write_text("\n".join(lines), encoding=encoding)
    (tmp_path / "times/src/all.ctm").write_text("".join(ctm))
    import_units(tmp_path / "out", "json", tmp_path / "u", corpus, ABOUT, tmp_path / "times")
    rows = read_units(tmp_path / "out")
    assert all(np.array_equal(rows[pair.id, side].units, units) for pair, side, units in sides(corpus))
    assert all((rows[pair.id, "src"].scores == 1).all() for pair in read_manifest(corpus))


def test_our_own_columns_may_spell_the_words_otherwise(corpus: Path, tmp_path: Path) -> None:
    rows = []
    for pair, side, units in sides(corpus):
        words = [word.upper() + "." for word in str(getattr(pair, f"{side}_text")).split()]
        ends = ((1 + np.arange(len(words))) * len(units) // len(words)).astype(np.int32)
        starts = np.append(0, ends[:-1]).astype(np.int32)
        rows.append(UnitRow(pair.id, side, units, words, starts, ends, np.full(len(words), 0.9, np.float32)))
    write_shard(tmp_path / "theirs", 0, rows, {})
    result = import_units(tmp_path / "out", "parquet", tmp_path / "theirs", corpus, ABOUT)
    assert result.counts["aligned_words"] == result.counts["words"] > 20
    back = read_units(tmp_path / "out")
    assert all(np.array_equal(back[row.id, row.side].ends, row.ends) for row in rows)
    write_shard(tmp_path / "theirs", 0, [replace(row, words=["zzz"] * len(row.words)) for row in rows], {})
    with pytest.raises(InputError, match=r"none of the corpus's .* words has a time there"):
        import_units(tmp_path / "no", "parquet", tmp_path / "theirs", corpus, ABOUT)


@pytest.mark.parametrize(
    ("edges", "scores", "message"),
    [
        (([0], [4, 6]), [1, 1], "words, starts, ends and scores must be of the same length"),
        (([0, 3], [4, 6]), [1, 1], "begin before those of the word before it end"),
        (([0, 4], [4, 9999]), [1, 1], "word frames lie outside of its"),
        (([0, 4], [4, 6]), [1, math.nan], "the score of a word must be 0 to 1"),
        (([0, 4], [4, 6]), [1, -2], "the score of a word must be 0 to 1"),
    ],
)
def test_our_own_columns_are_checked_as_others_are(
    edges: tuple, scores: list, message: str, corpus: Path, tmp_path: Path
) -> None:
    pair, side, units = next(one for one in sides(corpus) if len(str(getattr(one[0], f"{one[1]}_text")).split()) == 2)
    starts, ends = (np.array(edge, np.int32) for edge in edges)
    words = str(getattr(pair, f"{side}_text")).split()
    row = UnitRow(pair.id, side, units.astype(np.uint16), words, starts, ends, np.array(scores, np.float32))
    write_shard(tmp_path / "own", 0, pa.Table.from_batches(row_batches([row]), SCHEMA), {})
    with pytest.raises(InputError, match=message):
        import_units(tmp_path / "out", "parquet", tmp_path / "own", corpus, ABOUT)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ctm", "u000 A 0.0 0.1 una\nu000 B 0.1 0.1 una", "line 2: 'u000' has words on the channels A and B"),
        ("a.ctm", "u000 1 0.0 9.5 una", "the word 'una' at 0 to 9.5 s lies outside of the recording of"),
        ("a.ctm", "u000 1 zero 0.5 una", "a.ctm, line 1: expected 'id channel start duration word"),
        ("000_src.TextGrid", "nonsense", "could not be read as an alignment"),
        ("000_src.TextGrid", text_grid([TimedWord("una", 0, 0.2)], 0.3)[:300], "could not be read as an alignment"),
        ("u000.json", "{", "could not be read as an alignment"),
        ("u000.json", "[1]", "could not be read as an alignment"),
        ("u000.ctm", "u000 1 0.0 0.1 zzz", "none of the corpus's .* words has a time there"),
        ("u000.json", '[{"word": "una", "start": 0, "end": 0.1, "score": -3.2}]', "score of 'una' must be 0 to 1"),
        ("other.ctm", "unknown 1 0.0 0.5 una", "no alignment of an utterance of the corpus"),
        ("readme.txt", "", "no alignments; expected .ctm"),
    ],
)
def test_bad_alignments_end_in_one_line(name: str, content: str, message: str, corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "times/src").mkdir(parents=True)
    (tmp_path / "times/src" / name).write_text(content)
    source = write_units(tmp_path / "units", corpus)
    with pytest.raises(InputError, match=message) as refused:
        import_units(tmp_path / "out", "json", source, corpus, ABOUT, tmp_path / "times")
    assert "\n" not in str(refused.value) and not (tmp_path / "out").exists()


def test_alignments_of_the_same_utterance_twice_are_refused(tmp_path: Path) -> None:
    for name in ("a.ctm", "b.ctm"):
        (tmp_path / name).write_text("u 1 0.0 0.5 una\n")
    with pytest.raises(InputError, match="duplicate alignment of 'u'"):
        list(read_word_times(tmp_path))


def test_an_alignment_whose_name_two_recordings_share_is_that_of_neither(corpus: Path, tmp_path: Path) -> None:
    pairs = list(read_manifest(corpus))
    for i in (0, 1):  # as clips of several speakers are called
        (tmp_path / f"speaker{i}").mkdir()
        clip = shutil.copy(str(pairs[i].src_audio), tmp_path / f"speaker{i}/clip.wav")
        pairs[i] = replace(pairs[i], src_audio=str(clip), src_text="una")
    write_manifest(corpus, pairs)
    source, times = write_units(tmp_path / "units", corpus), tmp_path / "times/src"
    times.mkdir(parents=True)
    word = str(pairs[2].src_text).split()[0]
    (times / "all.ctm").write_text(f"clip 1 0.0 0.2 una\n{pairs[2].id} 1 0.0 0.2 {word}\n")
    import_units(tmp_path / "out", "json", source, corpus, ABOUT, tmp_path / "times")
    aligned = [id_ for (id_, _), row in read_units(tmp_path / "out").items() if row.scores.any()]
    assert aligned == [pairs[2].id], "the alignment called clip is that of neither"
    with (times / "all.ctm").open("a") as file:
        file.write(f"{Path(str(pairs[2].src_audio)).name} 1 0.0 0.2 {word}\n")
    with pytest.raises(InputError, match=r"two alignments of u002/src, by its id and by the recording's name"):
        import_units(tmp_path / "no", "json", source, corpus, ABOUT, tmp_path / "times")


TOKENIZERS = """
import numpy as np

class Made:
    num_units, frame_rate = 10, 25.0
    def __init__(self, **changes): vars(self).update(changes)
    def tokenize(self, waveforms): return [self.units(len(w)) for w in waveforms]
    def units(self, samples): return np.arange(samples // 640) % 10

class Large(Made):
    def units(self, samples): return np.arange(samples // 640) % 11

class Fast(Made):
    def units(self, samples): return np.arange(samples // 320) % 10

class Floats(Made):
    def units(self, samples): return np.zeros(samples // 640)

class Lost(Made):
    def tokenize(self, waveforms): return []

class Nothing(Made):
    def tokenize(self, waveforms): return None

class Pairs(Made):
    def tokenize(self, waveforms): return [(Made.units(self, len(w)), np.zeros((9, 4))) for w in waveforms]

class Rows(Made):
    def units(self, samples): return Made.units(self, samples)[None]

class Fails(Made):
    def units(self, samples): raise ValueError("no such layer\\nsecond line")

class Shifting(Made):
    def tokenize(self, waveforms): return [(self.units(len(w)) + len(waveforms)) % 10 for w in waveforms]

class Lazy:
    @property
    def units(self): raise KeyError("codes")

class Lazily(Made):
    def tokenize(self, waveforms): return [Lazy() for _ in waveforms]

class Unnamed(Made):
    @property
    def fingerprint(self): raise OSError("no checkpoint")

class Named(Made):
    fingerprint = np.zeros(3)

class Tensors(Made):
    def units(self, samples):
        import torch
        return torch.arange(samples // 640, dtype=torch.int32) % 10

class Loud(Made):
    def tokenize(self, waveforms):
        for waveform in waveforms:
            waveform *= 2
        return [np.minimum(abs(w[: len(w) // 640]) * 10, 9).astype(int) for w in waveforms]

def needs_folder(folder): return Made()
"""


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        ("Large", {}, "gave unit 10, but its num_units is 10"),
        ("Fast", {}, "50 units but only 25 frames of audio at its frame_rate of 25"),
        ("Floats", {}, r"must be a one-dimensional array of integers \(got float64 \[25\]\)"),
        ("Rows", {}, r"must be a one-dimensional array of integers \(got int64 \[1, 25\]\)"),
        ("Pairs", {}, r"must be a one-dimensional array of integers \(got tuple\)"),
        ("Lost", {}, "gave 0 results for 1 recordings"),
        ("Nothing", {}, r"must return a list, with the units of each recording \(got None\)"),
        ("Fails", {}, r"their_tokenizers:Fails: raised ValueError: no such layer \(their_tokenizers.py, line \d+\)"),
        ("needs_folder", {}, r"their_tokenizers:needs_folder: raised TypeError: .* missing 1 required .* 'folder'"),
        ("Lazily", {}, r"their_tokenizers:Lazily: raised KeyError: .*codes.* \(their_tokenizers.py, line \d+\)"),
        ("Unnamed", {}, r"their_tokenizers:Unnamed: raised OSError: no checkpoint \(their_tokenizers.py, line \d+\)"),
        ("Named", {}, r"its fingerprint must be a string \(got ndarray\)"),
        ("Made", {"num_units": 70_000}, "its num_units must be an integer from 1 to 65536"),
        ("Made", {"frame_rate": 0}, "frame_rate must be the number of units per second"),
        ("Made", {"num_units": None}, "must return an object with num_units"),
        ("None_", {}, "could not be imported"),
    ],
)
def test_a_tokenizer_that_does_not_keep_its_word_is_named(
    function: str, options: dict, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "their_tokenizers", raising=False)
    (tmp_path / "their_tokenizers.py").write_text(TOKENIZERS)
    with pytest.raises(InputError, match=message) as refused:
        ExternalTokenizer(f"their_tokenizers:{function}", options).tokenize([np.zeros(16_000, np.float32)])
    assert "\n" not in str(refused.value)


def test_a_tokenizer_may_return_tensors_and_lists_but_not_other_units_next_to_other_recordings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "their_tokenizers", raising=False)
    (tmp_path / "their_tokenizers.py").write_text(TOKENIZERS)
    waveforms, names = [np.zeros(16_000, np.float32), np.zeros(8_000, np.float32)], ["a/src", "b/src"]
    tensors = ExternalTokenizer("their_tokenizers:Tensors", {})
    assert tensors.tokenize(waveforms)[1].units.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    check_repeatable(tensors, waveforms, names)
    with pytest.raises(InputError, match=r"the units of a/src depend on the recordings next to it: 0 % agree"):
        check_repeatable(ExternalTokenizer("their_tokenizers:Shifting", {}), waveforms, names)
    waveforms = [np.full(16_000, 0.2, np.float32), np.full(8_000, 0.1, np.float32)]
    loud = ExternalTokenizer("their_tokenizers:Loud", {})
    check_repeatable(loud, waveforms, names)
    assert (waveforms[0] == np.float32(0.2)).all(), "a tokenizer that works in place changes no recording"


@pytest.mark.parametrize(
    ("module", "message"),
    [
        ("def load(:\n", r"could not be imported \(SyntaxError: "),
        ("raise RuntimeError('no GPU')\n", r"could not be imported \(RuntimeError: no GPU \(broken.py, line 1\)\)"),
        ("import no_such_package\n", r"could not be imported \(No module named 'no_such_package'\)"),
    ],
)
def test_a_module_that_cannot_be_imported_is_named(
    module: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.py").write_text(module)
    with pytest.raises(InputError, match=rf"units.tokenizer broken:load: {message}"):
        ExternalTokenizer("broken:load", {})
    with pytest.raises(InputError, match="must be MODULE:NAME"):
        ExternalTokenizer("./broken:load", {})


def recipe(text_lm: Path, **units: object) -> dict:
    training = {"steps": 2, "batch_size": 4, "learning_rate": 1e-3, "logging_steps": 1, "report_to": []}
    return {
        "corpus": {"manifest": "corpus"},
        "units": {"tokenizer": "own_tokenizer:load_tokenizer", "tokenizer_options": {"bands": 40}} | units,
        "lm": {"pretrained": str(text_lm), "training": training, "evaluation": {"eval_steps": 0}},
        "systems": {"scheduled": {}},
        "vocoder": {"function": "own_tokenizer:load_vocoder", "sample_rate": 24_000},
        "translate": {"max_units_per_frame": 0.3, "max_text_tokens_per_second": 2.0},
    }


def test_runs_with_units_of_the_same_name_have_the_same_codebook(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_units(tmp_path / "my-units", corpus)
    Path("my.yaml").write_text(yaml.safe_dump({"corpus": {"manifest": "corpus"}}))
    imported = ["--format", "json", "--from", "my-units", "--num-units", "41", "--frame-rate", "25"]
    for run in ("one", "two"):
        assert main(["corpus", run, "--recipe", "my.yaml"]) == 0
        assert main(["units", "import", run, *imported, "--codebook", "hubert-k41"]) == 0
        assert read_units_metadata(Path(run, "units"))["codebook"] == "named-hubert-k41"
        record = json.loads((tmp_path / "my-units/units.jsonl").read_text().splitlines()[0])
        (tmp_path / "my-units/units.jsonl").write_text(json.dumps(record))  # the other run has other recordings
    named = ["--codebook", "x", "--units.tokenizer", "own_tokenizer:load_tokenizer"]
    assert main(["units", "import", "one", *imported, *named]) == 2
    assert "--codebook: units.tokenizer names the codebook already" in capsys.readouterr().err


@pytest.mark.slow
def test_my_units_my_text_grids_and_my_vocoder_up_to_a_translated_recording(
    corpus: Path, tmp_path: Path, text_lm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The walk through docs/units.md."""
    Path("my.yaml").write_text(yaml.safe_dump(recipe(text_lm_folder)))
    write_units(tmp_path / "my-units", corpus)
    write_times(tmp_path / "my-grids", corpus, "long")
    assert main(["corpus", "run", "--recipe", "my.yaml"]) == 0
    imported = ["units", "import", "run", "--format", "json", "--from", "my-units", "--num-units", "41"]
    assert main([*imported, "--alignments", "my-grids"]) == 2
    assert "--frame-rate 50 does not fit" in capsys.readouterr().err
    assert main([*imported, "--frame-rate", "25", "--alignments", "my-grids"]) == 0
    assert main(["lm", "train", "run"]) == 0
    assert main(["vocoder", "train", "run"]) == 0
    vocabulary = Vocabulary.load(Path("run/lm/scheduled/model"))
    assert vocabulary.frame_rate == 25 and vocabulary.codebook.startswith("tokenizer-")
    soundfile.write("talk.wav", waveform(77, 12_000), 16_000)
    translator = Translator.from_pretrained("run", trust_functions=True)
    result = translator.translate(Path("talk.wav"))
    result.save(Path("out.wav"))
    info = soundfile.info("out.wav")
    assert info.samplerate == 24_000 and info.frames == max(1600, 960 * len(result.units))
    assert len(result.units) <= 0.3 * 31 + 25 + 1, "the limit is a second of units and not 50"
    assert translator.align(read_audio("talk.wav"), "una casa", "es") == [("una", 0.0, 0.0), ("casa", 0.0, 0.0)]
    with pytest.raises(InputError, match="own_tokenizer:load_tokenizer is Python code, which an exported model"):
        export_run(Path("run"), "scheduled", tmp_path / "exported")
    content = recipe(text_lm_folder, tokenizer_options={"bands": 39})
    Path("run/recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["translate", "run", "talk.wav", "--out", "other", "--trust-functions"]) == 2
    assert "units.tokenizer: makes units of codebook tokenizer-" in capsys.readouterr().err
    del content["units"]
    Path("run/recipe.yaml").write_text(yaml.safe_dump(content))
    assert main(["translate", "run", "talk.wav", "--out", "other"]) == 2
    assert "its units were imported" in capsys.readouterr().err and not Path("other").exists()


@pytest.mark.parametrize(
    ("vocoder", "message"),
    [
        ({"sample_rate": 16_010}, "vocoder.sample_rate: must be a multiple of the units' 25 a second"),
        ({"function": "own_tokenizer:load_vocoder", "sample_rate": 8_000}, "makes 6.00 s of speech from 2.00 s"),
        ({"function": "own_tokenizer:nothing"}, "could not be imported"),
        ({"pretrained": "nowhere"}, "vocoder.pretrained nowhere: no such file or folder"),
    ],
)
def test_a_vocoder_that_does_not_fit_is_refused_before_anything_is_done(
    vocoder: dict, message: str, corpus: Path, tmp_path: Path, text_lm_folder: Path
) -> None:
    pairs = list(read_manifest(corpus))
    write_manifest(corpus, [*pairs[1:], replace(pairs[0], split="test")])
    write_times(tmp_path / "times", corpus, "ctm")
    run = Run(tmp_path / "run", parse_recipe(recipe(text_lm_folder, alignments="times") | {"vocoder": vocoder}))
    with pytest.raises(InputError, match=message):
        run.all()
    assert not run.folder.exists()


def test_units_that_the_named_tokenizer_does_not_make_are_refused(corpus: Path, tmp_path: Path) -> None:
    source = write_units(tmp_path / "units", corpus)
    text = (source / "units.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in text]
    shifted = [one | {"units": [(unit + 1) % 41 for unit in one["units"]]} for one in records]
    (source / "units.jsonl").write_text("".join(json.dumps(one) + "\n" for one in shifted))
    tokenizer = ExternalTokenizer("own_tokenizer:load_tokenizer", {})
    with pytest.raises(InputError, match="makes other units than the imported ones: 0 % of those of u000/src"):
        import_units(tmp_path / "out", "json", source, corpus, ABOUT, tokenizer=tokenizer)


@pytest.mark.slow
def test_a_tokenizer_in_the_recipe_takes_the_place_of_encoder_and_codebook(
    corpus: Path, tmp_path: Path, text_lm_folder: Path
) -> None:
    from unitweave.pipeline import open_run

    times = write_times(tmp_path / "times", corpus, "json")
    Path("my.yaml").write_text(yaml.safe_dump(recipe(text_lm_folder, alignments=str(times), shard_size=3)))
    run = open_run(tmp_path / "run", Path("my.yaml"))
    run.corpus_and_units()
    assert not run.layout.encoder.exists() and not run.layout.codebook.exists()
    rows = read_units(run.layout.units)
    assert all(np.array_equal(rows[pair.id, side].units, units) for pair, side, units in sides(corpus))
    assert all((row.scores == 1).all() for row in rows.values())
    files = {path: path.read_bytes() for path in run.layout.units.glob("*.parquet")}
    assert len(files) == 3
    stage = run.layout.units / "stage.json"
    stage.write_text(json.dumps(read_json(stage) | {"status": "running"}))
    next(iter(files)).unlink()
    run.corpus_and_units()
    assert {path: path.read_bytes() for path in run.layout.units.glob("*.parquet")} == files
    table = next((times / "src").glob("*.json"))  # the word times themselves count, not only where they are
    table.write_text(re.sub(r'"score": 1(\.0)?', '"score": 0.5', table.read_text()))
    run.corpus_and_units()
    assert {path: path.read_bytes() for path in run.layout.units.glob("*.parquet")} != files


def test_a_tokenizer_that_recordings_do_not_fit_ends_before_anything_is_written(corpus: Path, tmp_path: Path) -> None:
    from unitweave.units.importing import tokenize_corpus

    pairs = [replace(pair, src_seconds=9.0) for pair in read_manifest(corpus)]
    write_manifest(corpus, pairs)
    settings = ExtractionSettings(tokenizer="own_tokenizer:load_tokenizer")
    with pytest.raises(InputError, match="changed after the corpus was built"):
        tokenize_corpus(tmp_path / "out", settings, corpus, None)
    (tmp_path / "their_tokenizers.py").write_text(TOKENIZERS)
    write_manifest(corpus, [replace(pair, src_seconds=0.0) for pair in pairs])
    settings = ExtractionSettings(tokenizer="their_tokenizers:Fast")
    with pytest.raises(
        InputError, match=r"u000/src: units.tokenizer their_tokenizers:Fast: .* at its frame_rate of 25"
    ):
        tokenize_corpus(tmp_path / "out", settings, corpus, None)
    settings = ExtractionSettings(tokenizer="their_tokenizers:Shifting")
    with pytest.raises(InputError, match=r"the units of u000/src depend on the recordings next to it"):
        tokenize_corpus(tmp_path / "out", settings, corpus, None)
    assert not (tmp_path / "out").exists()


def test_a_shard_has_the_bytes_of_all_rows_at_once_and_a_row_that_stands_twice_is_found(tmp_path: Path) -> None:
    rows = [
        UnitRow(f"u{i}", "src", np.arange(i % 7, dtype=np.uint16), ["a"] * (i % 3), *[np.arange(i % 3)] * 3)
        for i in range(4096 + 50)
    ]
    metadata = {"codebook": "x", "num_units": "7", "frame_rate": "50"}
    path = write_shard(tmp_path, 0, iter(rows), metadata)
    whole = pa.Table.from_pylist([vars(row) for row in rows], schema=SCHEMA.with_metadata(metadata))
    pq.write_table(whole, tmp_path / "whole", compression="zstd")
    assert path.read_bytes() == (tmp_path / "whole").read_bytes()
    assert read_units(tmp_path).duplicate() is None
    assert UnitTable(row_batches([*rows, rows[4]])).duplicate() == ("u4", "src")
