"""Stages without a training, on two processes: each does its part, and the results are those of one process."""

from pathlib import Path

import pytest

from helpers.processes import run_ranks
from helpers.serving import make_run, make_test_split
from helpers.shared_stages import everything, prepare, script
from unitweave.score.asr import transcripts
from unitweave.score.asr.recognizers import moonshine


def contents(folder: Path) -> dict[str, bytes]:
    """All files, but the shards of a translation, which go when stage.json says that it is done."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.parent.name != "shards"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.mark.slow
@pytest.mark.processes
def test_two_processes_translate_score_and_extract_as_one_does(
    tmp_path: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "run").mkdir()
    run = make_run(tmp_path / "run", text_lm_folder)
    make_test_split(run, 10)
    prepare(tmp_path)
    ranks = run_ranks(script(run, tmp_path, tmp_path / "two"), tmp_path)
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].printed
    monkeypatch.setattr(moonshine, "Moonshine", moonshine.Moonshine)  # put back later
    monkeypatch.setattr(transcripts, "BATCH", transcripts.BATCH)
    everything(run, tmp_path, tmp_path / "one")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys() and {"score/scores.json", "units/units-00002.parquet"} <= one.keys()
    assert [name for name in one if one[name] != two[name]] == []
