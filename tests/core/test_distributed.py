"""Stages on two processes: the main one decides and writes, both take part in a training, and no failure hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unitweave.core.distributed import process_group
from unitweave.core.errors import InputError

PROGRAM = """
import sys
from pathlib import Path
from accelerate import PartialState
from unitweave.core.distributed import process_group, process_index
from unitweave.core.errors import InputError
from unitweave.core.stage import StageResult, run_stage

run, failing = Path(sys.argv[1]), sys.argv[2]

def alone(folder):
    (folder / f"by-{process_index()}").touch()
    if failing == "alone":
        raise InputError("no such corpus")
    return StageResult()

def together(folder):
    if failing == "together" and process_index() == 1:
        raise InputError("a file is missing here")
    PartialState().wait_for_everyone()
    (folder / f"by-{process_index()}").touch()
    PartialState().wait_for_everyone()
    return StageResult({"processes": PartialState().num_processes})

with process_group():
    for _ in range(2):
        one = run_stage(run, "corpus", {}, {}, alone)
        run_stage(run, "lm/x", {}, {"corpus": one}, together, every_process=True)
"""


def on_two_processes(folder: Path, failing: str) -> subprocess.CompletedProcess[str]:
    program = folder / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(program)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, str(folder / "run"), failing], env=environment, capture_output=True, text=True, timeout=300
    )


def test_the_main_process_decides_what_is_done_and_works_alone_unless_all_take_part(tmp_path: Path) -> None:
    done = on_two_processes(tmp_path, "nothing")
    assert done.returncode == 0, done.stderr[-3000:]
    names = {name: sorted(p.name for p in (tmp_path / "run" / name).iterdir()) for name in ("corpus", "lm/x")}
    assert names == {"corpus": ["by-0", "stage.json"], "lm/x": ["by-0", "by-1", "stage.json"]}
    assert json.loads((tmp_path / "run/lm/x/stage.json").read_text())["counts"] == {"processes": 2}
    assert done.stderr.count("lm/x: done in") == 1 and done.stderr.count("up to date") == 2


def test_an_error_of_one_process_ends_all(tmp_path: Path) -> None:
    for failing, message in (("alone", "no such corpus"), ("together", "a file is missing here")):
        folder = tmp_path / failing
        folder.mkdir()
        failed = on_two_processes(folder, failing)
        assert failed.returncode != 0 and failed.stderr.count(f"InputError: {message}") == 1, failed.stderr[-3000:]


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match="--nproc-per-node 1"),
        process_group(),
    ):
        pass
