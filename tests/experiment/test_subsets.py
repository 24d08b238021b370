"""Amounts of training speech."""

from pathlib import Path

from unitweave.core.manifest import Pair, read_manifest, write_manifest
from unitweave.experiment.subsets import write_subset


def test_a_part_counts_what_the_language_model_gets(tmp_path: Path) -> None:
    pairs = [
        Pair(f"{split}{n}", split, "es", "en", "a.wav", "b.wav", "hola", "hello", src_seconds=36.0)
        for split, number in (("train", 100), ("dev", 3))
        for n in range(number)
    ]
    write_manifest(tmp_path / "corpus", pairs, {})
    counts = {}
    for limit in (None, 0.3, 10):
        result = write_subset(tmp_path / str(limit), tmp_path / "corpus", 0.5, limit)
        counts[limit] = result.counts["es"]
        assert len(read_manifest(tmp_path / str(limit))) == 53  # the training takes its part of these itself
    assert counts == {
        None: {"pairs": 50, "hours": 0.5},
        0.3: {"pairs": 15, "hours": 0.15},
        10: {"pairs": 10, "hours": 0.1},
    }
