"""benchmarks/gpu.py: what is measured on a GPU also runs on a CPU, with small shapes."""

import runpy
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


@pytest.mark.slow
def test_all_parts_run_on_a_cpu_with_small_shapes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--small"])
    runpy.run_path(str(SCRIPT), run_name="__main__")
    shown = capsys.readouterr().out
    for row in (
        "| buckets | ",
        "| flash | ",
        " pairs | ",
        "| fp32 | ",
        "| bf16 | ",
        "| 2 | ",
        "| local, kernels launched one by one | ",
        "| vllm | ",
    ):
        assert row in shown, shown
    (loss,) = [line.split("|")[2] for line in shown.splitlines() if line.startswith("| buckets")]
    assert 5.5 < float(loss) < 7.5, "about the logarithm of 512 rows"
