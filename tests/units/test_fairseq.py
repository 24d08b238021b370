"""fairseq's formats are written as its scripts write them, and come back as they were."""

from pathlib import Path

import numpy as np
import pytest

from helpers.units_corpus import write_corpus
from unitweave.core.errors import InputError
from unitweave.core.manifest import read_manifest
from unitweave.units.dataset import UnitRow, read_units, read_units_metadata, write_shard
from unitweave.units.fairseq import export_units, read_s2ut, read_unit_file
from unitweave.units.importing import UnitSource, import_units


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A corpus and random units for it."""
    corpus = write_corpus(tmp_path / "corpus", 8)
    rng = np.random.default_rng(0)
    rows = []
    for pair in read_manifest(corpus):
        for side in ("src", "tgt"):
            frames = round(getattr(pair, f"{side}_seconds") * 50)
            units = np.repeat(rng.integers(0, 50, frames), rng.integers(1, 4, frames))[:frames].astype(np.uint16)
            zero = np.zeros(1, np.int32)
            rows.append(UnitRow(pair.id, side, units, ["x"], zero, zero + 1, zero.astype(np.float32)))
    write_shard(tmp_path / "units", 0, rows, {"codebook": "abc", "num_units": "50", "frame_rate": "50"})
    return corpus, tmp_path / "units"


def test_unit_files_and_manifests_have_fairseqs_layout(folders: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, units = folders
    files = export_units(tmp_path / "out", "fairseq", corpus, units)
    names = {str(path.relative_to(tmp_path / "out")) for path in files}
    assert names == {
        f"{side}/{split}.{end}" for side in ("src", "tgt") for split in ("train", "valid") for end in ("txt", "tsv")
    }
    rows = read_units(units)
    lines = (tmp_path / "out/tgt/valid.txt").read_text().split("\n")
    assert lines[0] == "u003|" + " ".join(map(str, rows["u003", "tgt"].units)) and lines[-1] == ""
    manifest = (tmp_path / "out/tgt/valid.tsv").read_text().split("\n")
    pair = next(p for p in read_manifest(corpus) if p.id == "u003")
    assert manifest[0] == str(corpus / "audio") and manifest[1] == f"003_tgt.wav\t{round(pair.tgt_seconds * 16_000)}"
    root, *recordings = manifest[:-1]
    assert recordings and all((Path(root) / line.split("\t")[0]).exists() for line in recordings)


def test_the_s2ut_table_is_that_of_prep_s2ut_data(folders: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, units = folders
    export_units(tmp_path / "out", "s2ut", corpus, units, reduce=True)
    header, first, *_ = (tmp_path / "out/train.tsv").read_text().split("\n")
    assert header == "id\tsrc_audio\tsrc_n_frames\ttgt_audio\ttgt_n_frames"
    id_, audio, frames, spelled, number = first.split("\t")
    pair, own = read_manifest(corpus)[0], read_units(units)["u000", "tgt"].units
    assert id_ == "u000" and audio == pair.src_audio and frames == str(round(pair.src_seconds * 16_000) // 160)
    reduced = [unit for i, unit in enumerate(own) if i == 0 or unit != own[i - 1]]
    assert spelled.split() == list(map(str, reduced)) and number == str(len(reduced))


@pytest.mark.parametrize(("kind", "sides"), [("fairseq", ("src", "tgt")), ("s2ut", ("tgt",))])
def test_exported_units_come_back(kind: str, sides: tuple, folders: tuple[Path, Path], tmp_path: Path) -> None:
    corpus, units = folders
    export_units(tmp_path / "out", kind, corpus, units)
    outcome = import_units(tmp_path / "back", kind, tmp_path / "out", corpus, UnitSource(50))
    before, after = read_units(units), read_units(tmp_path / "back")
    assert set(after) == {key for key in before if key[1] in sides}
    assert len(outcome.skipped) == len(before) - len(after)
    for key, row in after.items():
        assert np.array_equal(row.units, before[key].units)
        assert len(row.words) == len(row.scores) == len(row.starts) and not row.scores.any()
    metadata = read_units_metadata(tmp_path / "back")
    assert metadata["num_units"] == "50" and metadata["codebook"].startswith("imported-")


def test_labels_beside_a_manifest_and_recordings_by_their_names_come_in(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    corpus, units = folders
    export_units(tmp_path / "out", "fairseq", corpus, units)
    for path in sorted((tmp_path / "out/src").glob("*.txt")):  # as HuBERT's dump_km_label.py writes them
        path.with_suffix(".km").write_text("".join(line.split("|")[1] for line in path.open()))
        path.unlink()
    for path in sorted((tmp_path / "out/tgt").glob("*.txt")):  # as textless_nlp's scripts name them, on Windows
        lines = [f"{line.split('|')[0][1:]}_tgt|{line.split('|')[1]}" for line in path.open()]
        path.write_text("".join(lines), encoding="utf-8-sig")
    (tmp_path / "out/tgt/valid.txt").rename(tmp_path / "out/tgt/dev.txt")
    import_units(tmp_path / "back", "fairseq", tmp_path / "out", corpus, UnitSource(50))
    before, after = read_units(units), read_units(tmp_path / "back")
    assert set(after) == set(before) and all(np.array_equal(after[key].units, before[key].units) for key in before)
    with (tmp_path / "out/src/train.km").open("a") as file:
        file.write("1 2 3\n")
    with pytest.raises(InputError, match=r"train\.km: has 7 lines, but .*train\.tsv 6 recordings"):
        import_units(tmp_path / "no", "fairseq", tmp_path / "out", corpus, UnitSource(50))


def test_units_without_their_repetitions_are_refused_and_a_single_misfit_is_skipped(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    export_units(tmp_path / "reduced", "fairseq", *folders, reduce=True)
    with pytest.raises(InputError, match=r"only \d+ units for \d+ frames of audio, and \d+ more .* or --deduplicated"):
        import_units(tmp_path / "back", "fairseq", tmp_path / "reduced", folders[0], UnitSource(50))
    export_units(tmp_path / "whole", "fairseq", *folders)
    path = tmp_path / "whole/src/valid.txt"
    first, *others = path.read_text().split("\n")
    path.write_text("\n".join([first[:12], *others]))
    outcome = import_units(tmp_path / "back", "fairseq", tmp_path / "whole", folders[0], UnitSource(50))
    (skipped,) = outcome.skipped
    assert skipped["id"] == "u003/src" and "frames of audio" in skipped["reason"]


def test_ids_are_split_at_the_first_bar(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("common_voice_3.mp3|7 7 12\nempty|\n")
    read = dict(read_unit_file(tmp_path / "train.txt"))
    assert read["common_voice_3.mp3"].tolist() == [7, 7, 12] and read["empty"].tolist() == []


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("no bar", "line 2"),
        ("a|1 x", "integers from 0"),
        ("a|70000", "65535"),
        ("ok|3", "duplicate id"),
        ("a|-1", "integers from 0"),
    ],
)
def test_bad_unit_files_are_named_with_their_line(line: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(f"ok|1 2\n{line}\n")
    with pytest.raises(InputError, match=complaint):
        list(read_unit_file(tmp_path / "train.txt"))


def test_bad_s2ut_tables_and_strange_units_are_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    path = tmp_path / "train.tsv"
    path.write_text("id\ttgt_audio\ttgt_n_frames\na\t1 2 3\t2\n")
    with pytest.raises(InputError, match="tgt_n_frames is 2"):
        list(read_s2ut(path))
    path.write_text("id\tsrc_audio\n")
    with pytest.raises(InputError, match="tgt_audio"):
        list(read_s2ut(path))
    export_units(tmp_path / "out", "fairseq", *folders)
    with pytest.raises(InputError, match="--num-units is 10"):
        import_units(tmp_path / "back", "fairseq", tmp_path / "out", folders[0], UnitSource(10))
    with pytest.raises(InputError, match="no s2ut files"):
        import_units(tmp_path / "back", "s2ut", tmp_path / "nothing", folders[0], UnitSource(50))
