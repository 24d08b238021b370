"""`import unitweave` is light, and what it offers is enough to use the method in a training loop of one's own."""

import ast
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import unitweave

ROOT = Path(__file__).parents[1]
HEAVY = ("torch", "transformers", "numpy", "pyarrow", "jsonargparse", "matplotlib")


def loaded_after(code: str) -> set[str]:
    """Names of the modules that a fresh interpreter has loaded after running `code`."""
    found = subprocess.run(
        [sys.executable, "-c", f"import sys\n{code}\nprint(*sys.modules)"], capture_output=True, text=True, check=True
    )
    return set(found.stdout.split())


@pytest.mark.processes
def test_importing_the_package_imports_nothing_heavy():
    assert not loaded_after("import unitweave; unitweave.__version__; dir(unitweave)") & set(HEAVY)


@pytest.mark.processes
def test_the_interleaving_is_used_without_torch():
    code = "from unitweave import InterleaveSettings, ScheduleSettings, interleave, prepare_speech, text_ratio"
    assert "torch" not in loaded_after(code)


@pytest.mark.parametrize("name", unitweave.__all__)
def test_every_name_on_offer_is_there_and_documented(name):
    value = getattr(unitweave, name)
    assert name in dir(unitweave)
    assert isinstance(value, str) or value.__doc__


def test_no_name_on_offer_is_that_of_a_module_which_would_take_its_place_when_imported():
    assert not set(unitweave.__all__) & {path.stem for path in Path(unitweave.__file__).parent.iterdir()}


def test_type_checkers_are_told_of_the_same_names():
    tree = ast.parse(Path(unitweave.__file__).read_text())
    imports = {
        alias.name: node.module.removeprefix("unitweave.")
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module.startswith("unitweave.")
        for alias in node.names
    }
    assert imports == unitweave._HOME_OF
    assert (Path(unitweave.__file__).parent / "py.typed").exists()


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'weave'"):
        unitweave.weave  # noqa: B018


@pytest.mark.slow
def test_the_example_trains_in_a_trainer_of_its_own_and_its_model_translates(text_lm_folder, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "own_trainer.py"))
    example["main"](str(text_lm_folder), str(tmp_path))
    decoder = unitweave.PhaseDecoder.load(tmp_path)
    units = np.arange(60, dtype=np.uint16) % example["NUM_UNITS"]
    (translated,) = decoder.translate(
        [units], unitweave.DecodingSettings(max_text_tokens_per_second=1.0, max_units_per_frame=0.2)
    )
    assert translated.language in ("es", "en")
    assert all(0 <= unit < example["NUM_UNITS"] for unit in translated.units)


def test_the_examples_sequences_follow_the_schedule(text_lm_folder, tmp_path):
    example = runpy.run_path(str(ROOT / "examples" / "own_trainer.py"))
    steps, batch = example["STEPS"], example["BATCH"]
    markers = unitweave.Markers(200, 201, 202, 203, 204, 205)
    tokens = [np.array([i], np.int32) for i in range(10)]
    ends = np.arange(1, 11) * 5
    speech = unitweave.prepare_speech(
        np.full(50, 100), ends - 5, ends, np.ones(10), tokens, unitweave.InterleaveSettings()
    )
    text = np.array([1], np.int32)
    rows = list(example["Interleaved"]([unitweave.Example(speech, speech, text, text)], markers))
    assert len(rows) == steps * batch
    units = [int((row == 100).sum()) for row in rows]
    assert units[:batch] == [10] * batch  # one of ten words on each side, of five frames each
    assert units[-batch:] == [100] * batch


def test_the_api_reference_names_modules_that_exist():
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    modules = [line.split()[1] for page in pages for line in page.read_text().splitlines() if line.startswith("::: ")]
    assert len(modules) > 20
    for module in modules:
        path = ROOT / "src" / module.replace(".", "/")
        assert path.with_suffix(".py").exists(), module
