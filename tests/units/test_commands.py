"""The units commands on a small run folder: what they print, what they write, what they refuse."""

import json
from pathlib import Path

import pytest
import yaml

from helpers.units_corpus import write_corpus
from unitweave.cli import main
from unitweave.config.recipe import load_recipe
from unitweave.pipeline import Run
from unitweave.units.dataset import read_units

pytestmark = pytest.mark.slow

TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_depthwise_kernel_size": 5,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a corpus, an encoder, a codebook and units."""
    folder = tmp_path_factory.mktemp("commands")
    content = {
        "corpus": {"manifest": str(write_corpus(folder / "made", 16))},
        "encoder": {"shape": TINY, "batch_seconds": 8, "training": {"steps": 1, "precision": "fp32"}},
        "codebook": {"num_units": 8, "layer": 2, "max_frames": 500, "max_iterations": 3},
        "units": {"shard_size": 5},
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(content))
    run = folder / "run"
    assert main(["corpus", str(run), "--recipe", str(folder / "tiny.yaml")]) == 0
    for command in ("train-encoder", "codebook", "extract"):
        assert main(["units", command, str(run)]) == 0
    return run


def test_the_stages_report_what_they_found(run: Path) -> None:
    counts = {name: json.loads((run / name / "stage.json").read_text())["counts"] for name in ("codebook", "units")}
    assert {"inertia", "dead", "perplexity", "character_purity", "sample_mib"} <= set(counts["codebook"])
    assert counts["units"]["recordings"] == 32


def test_layers_are_probed_without_changing_the_run(run: Path, capsys: pytest.CaptureFixture) -> None:
    before = (run / "recipe.yaml").read_text()
    assert main(["units", "probe-layers", str(run), "--layers", "1,2", "--codebook.num_units", "4"]) == 0
    table = capsys.readouterr().out.strip().split("\n")
    assert len(table) == 4 and table[2].startswith("| 1 |") and table[3].startswith("| 2 |")
    assert (run / "recipe.yaml").read_text() == before


def test_units_go_out_and_come_back(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["units", "export", str(run), "--format", "fairseq", "-o", str(tmp_path / "out")]) == 0
    assert str(tmp_path / "out/src/train.txt") in capsys.readouterr().out
    other = tmp_path / "other"
    assert main(["corpus", str(other), "--recipe", str(run / "recipe.yaml")]) == 0
    back = ["units", "import", str(other), "--format", "fairseq", "--from", str(tmp_path / "out"), "--num-units", "8"]
    assert main(back) == 0
    before, after = read_units(run / "units"), read_units(other / "units")
    assert list(before) == list(after)
    assert all((before[key].units == after[key].units).all() for key in before)
    assert json.loads((other / "units/stage.json").read_text())["status"] == "done"
    assert Run(other, load_recipe(other / "recipe.yaml")).has_imported_units()  # so `unitweave run` keeps them
    assert not Run(run, load_recipe(run / "recipe.yaml")).has_imported_units()


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["probe-layers", "{run}", "--layers", "a"], "--layers a"),
        (["probe-layers", "{run}", "--layers", "9"], "layers 1 to 2 (got 9)"),
        (["probe-layers", "nowhere"], "not a run folder"),
        (["extract", "{run}", "--units.backend", "spark"], "spark"),
        (["extract", "{run}", "--units.precision", "fp8"], "fp8"),
        (["export", "{run}", "--format", "other", "-o", "x"], "other"),
        (["import", "{run}", "--format", "s2ut", "--from", "nowhere", "--num-units", "8"], "no such folder"),
        (["plan", "nothing"], "no such recipe"),
    ],
)
def test_bad_input_ends_in_one_line(
    arguments: list[str], complaint: str, run: Path, capsys: pytest.CaptureFixture
) -> None:
    kept = {path: path.read_bytes() for path in (run / "units").iterdir()} | {
        run / "recipe.yaml": (run / "recipe.yaml").read_bytes()
    }
    try:
        assert main(["units", *(argument.format(run=run) for argument in arguments)]) == 2
        printed = capsys.readouterr().err.strip().split("\n")[-1]
        assert complaint in printed and "Traceback" not in printed
    finally:
        (run / "units").mkdir(exist_ok=True)
        for path, content in kept.items():
            path.write_bytes(content)
