"""Examples out of mapped files are those that are made one by one, and nothing that is missing goes unnoticed."""

import pickle
import shutil
from dataclasses import fields, replace
from pathlib import Path
from random import Random

import numpy as np
import pyarrow as pa
import pytest
from tokenizers.pre_tokenizers import ByteLevel

from helpers.lm_corpus import UNITS
from unitweave.config.interleave import InterleaveSettings
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.core.manifest import Manifest, Pair, read_manifest, write_manifest
from unitweave.core.stage import FORMAT
from unitweave.interleaving.sequence import TASKS, Example, Markers, Speech, has_segments, interleave
from unitweave.lm.data import examples as examples_module
from unitweave.lm.data.dataset import all_languages, load_pairs, make_example
from unitweave.lm.data.examples import ExampleTable, load_examples
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.sizes import Sizes
from unitweave.lm.data.stream import InterleavedDataset
from unitweave.lm.data.tokens import WordTokens
from unitweave.lm.model.start import load_tokenizer
from unitweave.lm.model.vocabulary import Vocabulary, extend_tokenizer
from unitweave.units import dataset as dataset_module
from unitweave.units.dataset import UnitRow, describe_shards, read_units, write_shard

WORDS = ["la", "casa", "roja", "está", "donde", "el", "perro", "duerme", "sí", "oído"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs of every kind: without a side, a text, words or units, with pauses, unaligned words, long repetitions."""
    folder, rng = tmp_path_factory.mktemp("examples"), np.random.default_rng(7)
    pairs, rows = [], []
    for i in range(120):
        name, texts = f"u{i:03}", [" ".join(rng.choice(WORDS, rng.integers(0, 7))) for _ in range(2)]
        audio = [f"{name}-{side}.wav" if rng.random() > 0.1 else None for side in ("src", "tgt")]
        known = [text if rng.random() > 0.1 else None for text in texts]
        split = "train" if i % 5 else "dev"
        raw = [text and text.capitalize().replace(" ", ", ", 1) for text in known]
        language = "es" if i % 3 else "de"
        pairs.append(Pair(name, split, language, "en", *audio, *known, *raw))
        for side, text, path in zip(("src", "tgt"), texts, audio, strict=True):
            if path is None:
                continue
            words = text.split()
            frames = int(rng.integers(0, 9) + 4 * len(words))
            bounds = np.sort(rng.integers(0, frames + 1, (len(words), 2)), axis=None).reshape(-1, 2).astype(np.int32)
            bounds[rng.random(len(words)) < 0.2] = 0  # not aligned
            units = np.repeat(rng.integers(0, UNITS, frames), rng.integers(1, 4, frames))[:frames].astype(np.uint16)
            scores = rng.random(len(words)).astype(np.float32)
            rows.append(UnitRow(name, side, units, words, bounds[:, 0].copy(), bounds[:, 1].copy(), scores))
    write_manifest(folder / "corpus", pairs)
    for number, first in enumerate(range(0, len(rows), 50)):
        metadata = {"codebook": "cb", "num_units": str(UNITS), "frame_rate": "50"}
        write_shard(folder / "units", number, rows[first : first + 50], metadata)
    return folder


def tables(
    corpus: Path,
    text_lm: Path,
    folder: Path,
    settings: InterleaveSettings,
    deduplicate: bool,
    texts: str = "normalized",
) -> tuple[ExampleTable, Sizes, list[Example], Manifest, Vocabulary]:
    """The examples out of mapped files, and the same made one by one."""
    pairs = load_pairs(corpus / "corpus", corpus / "units", "train")
    tokenizer = load_tokenizer(text_lm)
    vocabulary = replace(extend_tokenizer(tokenizer, UNITS, all_languages(pairs), "cb"), texts=texts)
    tokens = WordTokens(tokenizer)
    table, sizes = load_examples(folder, pairs, corpus / "units", vocabulary, tokens, settings, deduplicate)
    rows = read_units(corpus / "units")
    made = [make_example(pair, rows, vocabulary, tokens, settings, deduplicate) for pair in pairs]
    return table, sizes, made, pairs, vocabulary


def same(one: Example, two: Example) -> bool:
    for a, b in zip(one, two, strict=True):
        if (a is None) != (b is None):
            return False
        parts = [(a, b)] if not isinstance(a, Speech) else zip(a, b, strict=True)
        if a is not None and not all(x.tolist() == y.tolist() for x, y in parts):
            return False
    return True


def max_length(example: Example, task: str, markers: Markers) -> int:
    return len(interleave(example, task, 0.0, InterleaveSettings(), markers, Random(0)).ids)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("boundaries", "deduplicate", "texts"),
    [
        ("alignment", False, "normalized"),
        ("alignment", True, "normalized"),
        ("uniform", True, "normalized"),
        ("alignment", True, "natural"),
    ],
)
def test_examples_of_mapped_files_are_those_made_one_by_one(
    corpus: Path,
    text_lm_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    boundaries: str,
    deduplicate: bool,
    texts: str,
) -> None:
    monkeypatch.setattr(dataset_module, "_ROWS_AT_ONCE", 60)  # several batches
    monkeypatch.setattr(examples_module, "_PAIRS_AT_ONCE", 25)
    settings = InterleaveSettings(boundaries=boundaries, min_alignment_score=0.4)
    table, sizes, made, pairs, vocabulary = tables(corpus, text_lm_folder, tmp_path / "x", settings, deduplicate, texts)
    assert len(table) == len(made) == len(pairs) > 60
    assert all(same(one, two) for one, two in zip(table, made, strict=True))
    markers = vocabulary.sequence_markers
    for tasks in (["s2st"], ["asr", "mt"], list(TASKS)):
        lengths = [
            max((max_length(e, task, markers) for task in tasks if has_segments(e, task)), default=-1) for e in made
        ]
        assert sizes.max_lengths(tasks, markers).tolist() == lengths
    for side, of in enumerate(("source", "target")):
        speech = [getattr(example, of) for example in made]
        assert sizes.words[side].tolist() == [0 if s is None else len(s.cuts) - 1 for s in speech]
        assert sizes.replaceable[side].tolist() == [0 if s is None else len(s.eligible) for s in speech]
    kept = np.flatnonzero([has_segments(example, "s2st") for example in made])

    def sequences(of: list[Example] | ExampleTable) -> list[tuple[list[int], list[int]]]:
        sampler = UtteranceSampler([range(len(kept))], 3)
        stream = InterleavedDataset(of, sampler, 16, lambda step: 0.5, settings, markers)
        return [(s.ids.tolist(), s.segments.tolist()) for step in range(6) for s in stream.sequences(step)]

    part = table.take(kept)
    assert sequences(part) == sequences([made[i] for i in kept])
    assert len(part.take(np.array([2]))) == 1 and same(part.take(np.array([2]))[0], made[kept[2]])
    with pytest.raises(IndexError):
        part[len(part)]


def test_a_tokenizer_says_whether_its_tokens_stay_within_words(text_lm_folder: Path) -> None:
    tokens = WordTokens(load_tokenizer(text_lm_folder))
    assert tokens.word_by_word
    texts = [" ".join(WORDS[i:]) for i in range(len(WORDS))]
    for text in texts:
        ids, begins, ends = tokens.alone(pa.array(text.split()))
        alone = [ids[a:b] for a, b in zip(begins, ends, strict=True)]
        assert tokens.text(text).tolist() == np.concatenate(alone).tolist()
    ids, begins, ends = tokens.alone(pa.array(["", WORDS[0], "", "new"]))
    assert begins[0] == ends[0] and ids[begins[1] : ends[1]].tolist() == tokens.text(WORDS[0]).tolist()
    assert ids[begins[3] : ends[3]].tolist() == tokens.text("new").tolist(), "also a word that comes later"
    tokens.tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False, use_regex=False)
    assert not tokens.word_by_word, "a merge may reach over a space"


def test_examples_are_no_objects_of_a_process(corpus: Path, text_lm_folder: Path, tmp_path: Path) -> None:
    settings = InterleaveSettings()
    table, _, _, _, _ = tables(corpus, text_lm_folder, tmp_path / "x", settings, False)
    for batch in (*table._speech, *table._texts):
        for values, offsets in batch:
            assert not values.flags.owndata and not offsets.obj.flags.owndata, "they belong to the mapped file"
    part = table.take(np.array([1, 0]))
    copied = pickle.dumps(part)
    assert len(copied) < 1000, "a worker maps the files itself"
    assert all(same(a, b) for a, b in zip(pickle.loads(copied), part, strict=True))


def test_a_lost_shard_is_noticed_wherever_units_are_read(corpus: Path, tmp_path: Path) -> None:
    for path in sorted((corpus / "units").glob("*.parquet"))[1:]:
        (tmp_path / "units").mkdir(exist_ok=True)
        (tmp_path / "units" / path.name).write_bytes(path.read_bytes())
    load_pairs(corpus / "corpus", tmp_path / "units", "train")
    rows = len(read_units(corpus / "units"))
    record = {"format": FORMAT, "status": "done", "fingerprint": "x", "counts": {"recordings": rows}}
    write_json(tmp_path / "units/stage.json", record)
    words = (
        rf"units: {rows - 50} recordings found, but stage.json counts {rows}; delete the folder to extract or import"
    )
    with pytest.raises(InputError, match=words):
        load_pairs(corpus / "corpus", tmp_path / "units", "train")
    with pytest.raises(InputError, match=words):
        read_units(tmp_path / "units")


def test_a_shard_in_the_place_of_another_is_noticed(corpus: Path, tmp_path: Path) -> None:
    units = Path(shutil.copytree(corpus / "units", tmp_path / "units"))
    counts = {"recordings": len(read_units(units)), "shards": describe_shards(units)}
    write_json(units / "stage.json", {"format": FORMAT, "status": "done", "fingerprint": "x", "counts": counts})
    load_pairs(corpus / "corpus", units, "train")
    first, second = sorted(units.glob("*.parquet"))[:2]
    shutil.copy(first, second)
    with pytest.raises(InputError, match=r"units: a shard is not the one that was written; delete the folder"):
        load_pairs(corpus / "corpus", units, "train")


def test_a_manifest_is_a_sequence_of_pairs_that_are_made_when_looked_at(corpus: Path) -> None:
    pairs = read_manifest(corpus / "corpus")
    listed = list(pairs)
    assert pairs == listed and pairs[3] == listed[3] and pairs[-1] == listed[-1]
    assert pairs[5:9] == listed[5:9] and pairs[::7] == listed[::7]
    assert pairs.take(np.array([4, 2])) == [listed[4], listed[2]]
    with pytest.raises(IndexError):
        pairs[len(listed)]
    assert pairs != listed[:-1]


def test_a_table_of_units_is_a_mapping_whose_rows_are_made_when_looked_at(corpus: Path) -> None:
    table = read_units(corpus / "units")
    keys = list(table)
    assert len(table) == len(keys) == len(set(keys)) and all(key in table for key in keys)
    assert all((table[key].id, table[key].side) == key for key in keys)
    assert ("u001", "both") not in table and table.get(("nobody", "src")) is None and 3 not in table
    some = read_units(corpus / "units", ["u001", "u002", "u017"], ["tgt"])
    assert {id for id, _ in some} <= {"u001", "u002", "u017"} and {side for _, side in some} == {"tgt"}
    for key in some:
        assert all(np.array_equal(getattr(some[key], f.name), getattr(table[key], f.name)) for f in fields(UnitRow))
    assert pickle.loads(pickle.dumps(some[next(iter(some))])).id in {"u001", "u002", "u017"}
