"""Stages on two processes: the main one decides and writes, both take part in a training, and no failure hangs."""

import json
from pathlib import Path

import pytest
import torch

from helpers.processes import Program, run_ranks
from unitweave.core.distributed import process_group
from unitweave.core.errors import InputError

PROGRAM = """
from pathlib import Path
from accelerate import PartialState
from unitweave.core.distributed import process_group, process_index
from unitweave.core.errors import InputError
from unitweave.core.stage import StageResult, run_stage

run, failing = Path({run!r}), {failing!r}

def alone(folder):
    (folder / f"by-{{process_index()}}").touch()
    if failing == "alone":
        raise InputError("no such corpus")
    return StageResult()

def together(folder):
    if failing == "together" and process_index() == 1:
        raise InputError("a file is missing here")
    PartialState().wait_for_everyone()
    (folder / f"by-{{process_index()}}").touch()
    PartialState().wait_for_everyone()
    return StageResult({{"processes": PartialState().num_processes}})

with process_group():
    for _ in range(2):
        one = run_stage(run, "corpus", {{}}, {{}}, alone)
        run_stage(run, "lm/x", {{}}, {{"corpus": one}}, together, every_process=True)
"""


def on_two_processes(folder: Path, failing: str) -> list[Program]:
    return run_ranks(PROGRAM.format(run=str(folder / "run"), failing=failing), folder)


@pytest.mark.processes
def test_the_main_process_decides_what_is_done_and_works_alone_unless_all_take_part(tmp_path: Path) -> None:
    ranks = on_two_processes(tmp_path, "nothing")
    assert [rank.code for rank in ranks] == [0, 0], ranks[0].printed
    names = {name: sorted(p.name for p in (tmp_path / "run" / name).iterdir()) for name in ("corpus", "lm/x")}
    assert names == {"corpus": ["by-0", "stage.json"], "lm/x": ["by-0", "by-1", "stage.json"]}
    assert json.loads((tmp_path / "run/lm/x/stage.json").read_text())["counts"] == {"processes": 2}
    printed = "".join(rank.printed for rank in ranks)
    assert printed.count("lm/x: done in") == 1 and printed.count("up to date") == 2


@pytest.mark.processes
def test_an_error_of_one_process_ends_all(tmp_path: Path) -> None:
    for failing, message in (("alone", "no such corpus"), ("together", "a file is missing here")):
        ranks = on_two_processes(tmp_path / failing, failing)
        printed = "".join(rank.printed for rank in ranks)
        assert all(rank.code for rank in ranks) and printed.count(f"InputError: {message}") == 1, printed


def test_more_processes_than_gpus_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with (
        pytest.raises(InputError, match="--nproc-per-node 1"),
        process_group(),
    ):
        pass
