"""`torchrun -m unitweave lm train`: every process runs the command, the main one writes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.lm_corpus import made_up_corpus
from unitweave.cli import main
from unitweave.core.files import write_json
from unitweave.core.stage import FORMAT

pytestmark = [pytest.mark.slow, pytest.mark.processes]

RECIPE = """
corpus: {{manifest: x}}
lm:
  pretrained: {model}
  evaluation: {{eval_steps: 2, utterances: 2}}
  training: {{steps: 2, batch_size: 4, logging_steps: 1, precision: fp32, report_to: []}}
systems: {{done: {{}}, first: {{}}, second: {{schedule: {{shape: none}}}}}}
"""


@pytest.mark.cpu
def test_two_processes_train_the_systems_that_are_not_yet_done(tmp_path: Path, text_lm_folder: Path) -> None:
    run = made_up_corpus(tmp_path / "run")
    for stage in ("corpus", "units"):
        write_json(run / stage / "stage.json", {"format": FORMAT, "status": "done", "fingerprint": stage})
    (run / "recipe.yaml").write_text(RECIPE.format(model=text_lm_folder))
    assert main(["lm", "train", str(run), "--system", "done"]) == 0
    before = (run / "lm/done/stage.json").read_bytes()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "unitweave"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "lm", "train", str(run)], env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (run / "lm/done/stage.json").read_bytes() == before
    for system in ("first", "second"):
        assert json.loads((run / f"lm/{system}/stage.json").read_text())["status"] == "done"
        lines = [json.loads(line) for line in (run / f"lm/{system}/log.jsonl").read_text().splitlines()]
        assert [line["step"] for line in lines] == [1, 2], "one process writes the log"
        assert len((run / f"lm/{system}/dev.jsonl").read_text().splitlines()) == 1
    losses = [
        [json.loads(line)["loss"] for line in (run / f"lm/{name}/log.jsonl").read_text().splitlines()]
        for name in ("done", "first")
    ]
    assert all(abs(a - b) < 1e-4 for a, b in zip(*losses, strict=True)), "as one process trains"
