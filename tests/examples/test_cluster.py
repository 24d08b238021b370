"""The Slurm script passes on the warning, waits for the checkpoint, and puts the job back into the queue."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# In place of Slurm's and torch's programs; a training that ends within half a second of the warning.
PROGRAMS = {
    "srun": 'shift; trap \'kill -USR1 "$child"\' USR1; trap \'kill -TERM "$child"\' TERM\n"$@" & child=$!\n'
    'while kill -0 "$child" 2>/dev/null; do wait "$child" && code=0 || code=$?; done; exit "$code"\n',
    "scontrol": 'case "$1 $2" in "show job") echo "PreemptEligibleTime=2026 PreemptTime=$PREEMPTED" ;;\n'
    'show*) echo first; echo second ;; *) echo "$@" >> "$LOG" ;; esac\n',
    "torchrun": 'echo "torchrun $*" >> "$LOG"; [ -z "$QUICK" ] || exit "$QUICK"\n'
    'exec python3 -c "\nimport signal, sys, time\n'
    "def stop(number, frame):\n    time.sleep(0.3); print('checkpoint', file=open(sys.argv[1], 'a')); sys.exit(1)\n"
    "assert signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN, 'the launcher itself must not die of it'\n"
    "signal.signal(signal.SIGUSR1, stop); signal.signal(signal.SIGTERM, stop)\n"
    "print('training', file=open(sys.argv[1], 'a')); time.sleep(60)\n\" \"$LOG\"\n",
}


@pytest.fixture
def slurm(tmp_path: Path) -> dict[str, str]:
    """An environment with these programs."""
    for name, text in PROGRAMS.items():
        (tmp_path / name).write_text("#!/bin/bash\n" + text)
        (tmp_path / name).chmod(0o755)
    own = {
        "PREEMPTED": "None",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
        "LOG": str(tmp_path / "log"),
        "QUICK": "",
        "PROCESSES": "8",
    }
    job = {
        "PREEMPTED": "None",
        "SLURM_NNODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_JOB_NODELIST": "x",
        "SLURM_JOB_ID": "17",
    }
    return os.environ | own | job | {"SLURM_SUBMIT_DIR": str(ROOT)}


def begin(environment: dict[str, str]) -> subprocess.Popen:
    command = ["bash", str(ROOT / "examples/cluster/slurm.sh"), "paper", "/shared/run", "--score.mos", "[]"]
    return subprocess.Popen(command, env=environment)


@pytest.mark.processes
@pytest.mark.parametrize(
    ("number", "preempted", "requeued"),
    [(signal.SIGUSR1, "None", True), (signal.SIGTERM, "2026-11-26T10:16:09", True), (signal.SIGTERM, "None", False)],
    ids=["out of time", "preempted", "cancelled"],
)
def test_a_job_that_has_to_end_writes_a_checkpoint_and_is_requeued(
    slurm: dict[str, str], number: int, preempted: str, requeued: bool
) -> None:
    log, job = Path(slurm["LOG"]), begin(slurm | {"PREEMPTED": preempted})
    for _ in range(200):
        if log.exists() and "training" in log.read_text():
            break
        time.sleep(0.05)
    time.sleep(0.2)
    job.send_signal(number)
    assert job.wait(30) == (0 if requeued else 1)
    first, _, *rest = log.read_text().splitlines()
    assert rest == ["checkpoint", *(["requeue 17"] if requeued else [])]
    assert "--nnodes 2 --node-rank 1 --master-addr first" in first and "--nproc-per-node 8" in first
    assert first.endswith("-m unitweave run paper --out /shared/run --score.mos []")


@pytest.mark.processes
@pytest.mark.parametrize("code", [0, 2])
def test_a_job_that_ends_by_itself_is_not_requeued(slurm: dict[str, str], code: int) -> None:
    job = begin(slurm | {"QUICK": str(code)})
    assert job.wait(30) == code
    assert "requeue" not in Path(slurm["LOG"]).read_text()
