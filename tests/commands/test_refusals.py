"""A command that refuses its input does so before it loads torch, which takes seconds."""

import subprocess
import sys

import pytest

CASES = [
    ("translate", "nowhere", "a.wav"),
    ("translate", "nowhere", "a.wav", "--engine", "int8"),
    ("translate", "nowhere", "a.wav", "--num-beams", "0"),
    ("serve", "nowhere"),
    ("serve", "nowhere", "--max-queue", "0"),
    ("export", "nowhere", "--out", "exported"),
    ("run", "nowhere", "--out", "run"),
    ("run", "demo", "--out", "run", "--lm.training.steps", "-3"),
    ("lm", "plan", "nowhere"),
    ("lm", "train", "nowhere"),
    ("units", "extract", "nowhere"),
    ("score", "nowhere"),
    ("corpus", "table", "--table", "nowhere.csv", "--src-lang", "es", "--tgt-lang", "en", "--out", "corpus"),
]
SCRIPT = """
import sys
from unitweave.cli import main
assert main(["--help"]) == 0 and not {{"torch", "transformers"}} & set(sys.modules)
for arguments in {cases!r}:
    status = main(list(arguments))
    assert status == 2, (arguments, status)
    assert not {{"torch", "transformers"}} & set(sys.modules), arguments
"""


@pytest.mark.processes
def test_no_torch_before_a_refusal(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(cases=CASES)], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == len(CASES) and all(line.startswith("unitweave: ") for line in lines)
