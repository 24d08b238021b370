"""Stages without a training, on two processes: each does its part, and the results are those of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.serving import make_run, make_test_split
from helpers.shared_stages import everything, prepare, script
from unitweave.score.asr import recognizers, transcripts


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
    program = tmp_path / "program.py"
    program.write_text(script(run, tmp_path, tmp_path / "two"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    monkeypatch.setitem(recognizers.RECOGNIZERS, "moonshine", recognizers.RECOGNIZERS["moonshine"])  # put back later
    monkeypatch.setattr(transcripts, "BATCH", transcripts.BATCH)
    everything(run, tmp_path, tmp_path / "one")
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys() and {"score/scores.json", "units/units-00002.parquet"} <= one.keys()
    assert [name for name in one if one[name] != two[name]] == []
