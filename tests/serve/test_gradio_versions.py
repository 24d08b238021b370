"""The guard holds for the lowest gradio that pyproject.toml admits, too; the other tests run with the pinned one."""

import os
import re
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

if find_spec("gradio") is None:  # which is not imported here: it takes seconds, in quick runs for nothing
    pytest.skip("needs unitweave[serve]", allow_module_level=True)
pytestmark = [pytest.mark.slow, pytest.mark.processes]

ROOT = Path(__file__).parents[2]


def install(folder: Path, requirement: str) -> None:
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), requirement]
    if subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip(f"pip cannot install {requirement} here")


def test_the_lowest_gradio_is_guarded(tmp_path: Path) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    (bounds,) = [requirement for requirement in extras["serve"] if requirement.startswith("gradio")]
    lowest = bounds.split(">=")[1].split(",")[0] + ".0"
    install(tmp_path, f"gradio=={lowest}")
    metadata = next(tmp_path.glob("gradio-*.dist-info/METADATA")).read_text()
    install(tmp_path, re.search(r"^Requires-Dist: (gradio-client==[\w.]+)", metadata, re.M)[1])  # type: ignore[index]
    places = os.pathsep.join([str(tmp_path), str(ROOT / "src")])
    environment = {**os.environ, "PYTHONPATH": places}
    version = [sys.executable, "-c", "import gradio; print(gradio.__version__)"]
    shown = subprocess.run(version, env=environment, capture_output=True, text=True)
    assert shown.stdout.strip() == lowest, shown.stderr
    tests = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/serve/test_guard.py"]
    tests += ["-k", "page or link or guard or routes or path"]  # those that gradio has a part in
    result = subprocess.run(tests, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-3000:]
