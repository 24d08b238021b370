"""A grid done on tiny models: shared stages, trials that are skipped, killed, gone on with, and compared fairly."""

import errno
import json
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import unitweave.lm.train.finetune as lm_train
from helpers.processes import Program, command
from helpers.tiny_run import SHORT_DECODING, TINY_VOCODER
from unitweave.cli import main
from unitweave.core import files
from unitweave.core.manifest import read_manifest
from unitweave.experiment import driver, hours
from unitweave.experiment.hours import estimate, measure, shared_to_do
from unitweave.experiment.plan import load_experiment
from unitweave.experiment.results import read_grid

pytestmark = [pytest.mark.slow, pytest.mark.processes]

STEPS = 12


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    """A grid of seconds: two amounts of data, two systems."""
    content = {
        "title": "Tiny",
        "recipe": {
            "corpus": {"embedded": {"languages": ["es"], "train": 12, "dev": 2, "test": 3}},
            "encoder": {
                "shape": {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64},
                "batch_seconds": 10,
                "training": {"steps": 1},
            },
            "codebook": {"num_units": 16, "layer": 1, "max_frames": 1000, "max_iterations": 1},
            "lm": {
                "interleave": {"min_alignment_score": 0.0},
                "training": {
                    "batch_size": 4,
                    "logging_steps": 1,
                    "save_steps": 2,
                    "learning_rate": 1e-3,
                    "report_to": [],
                },
                "evaluation": {"utterances": 1, "examples": 0},
            },
            "vocoder": TINY_VOCODER,
            "translate": SHORT_DECODING,
            "score": {"mos": [], "bootstrap_samples": 10, "randomization_trials": 0, "examples": 0},
        },
        "models": {"tiny": {"pretrained": str(text_lm_folder)}},
        "data": {"all": 1.0, "half": 0.5},
        "systems": {"baseline": {"schedule": {"shape": "none"}}, "scheduled": {}},
        "evaluations": 2,
        "grid": [
            {"data": ["half"], "steps": [STEPS]},
            {"data": ["all"], "systems": ["scheduled"], "steps": [STEPS], "threads": [1]},
        ],
    }
    path = tmp_path_factory.mktemp("experiment") / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


FIRST, SECOND, THIRD = (
    f"tiny_half_baseline_{STEPS}_s1",
    f"tiny_half_scheduled_{STEPS}_s1",
    f"tiny_all_scheduled_{STEPS}_s1_t1",
)


@pytest.fixture(scope="module")
def run(experiment: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The first two trials, done."""
    folder = tmp_path_factory.mktemp("run") / "tiny"
    assert main(["experiment", str(experiment), "--out", str(folder), "--only", "*_half_*"]) == 0
    return folder


def scores(run: Path, trial: str) -> Any:
    return json.loads((run / "scores" / trial / "scores.json").read_text())


def test_cells_share_all_but_the_language_model_and_train_on_their_part(run: Path) -> None:
    assert {path.name for path in (run / "lm").iterdir()} == {FIRST, SECOND}
    half, whole = (
        {p.id for p in read_manifest(folder, "train")} for folder in (run / "subsets/half", run / "subsets/all")
    )
    assert len(half) == 6 and half < whole and len(whole) == 12
    stage = json.loads((run / "lm" / FIRST / "stage.json").read_text())
    assert stage["counts"]["pairs"] == 6
    grid = read_grid(run)
    assert [r.trial.name for r in grid.results] == [FIRST, SECOND]
    assert [c.name for c, _ in grid.missing] == [THIRD]
    assert [step for step, _ in grid.results[0].curve] == [STEPS // 2, STEPS]
    assert set(grid.ceilings) == {"reference speech", "resynthesized units"}  # with the first trial, and only there
    assert not scores(run, SECOND).get("ceilings")
    session = grid.results[0].sessions[-1]
    assert session["command"] == "unitweave experiment tiny.yaml --out FOLDER" and session["machine"]
    assert session["threads"] == torch.get_num_threads() == grid.results[0].training.threads
    assert "**Partial: 2 of 3 trials are done.**" in (run / "results.md").read_text()


def test_a_finished_experiment_passes_where_nothing_can_be_written(
    run: Path, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    readable, temporary = Path.open, files.tempfile.mktemp

    def opened(path: Path, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        if run in path.parents and mode not in ("r", "rb"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return readable(path, mode, *args, **kwargs)

    def named(dir: Path, **kwargs: Any) -> str:
        if run in (dir, *dir.parents):
            raise OSError(errno.EROFS, "Read-only file system", str(dir))
        return temporary(dir=dir, **kwargs)

    monkeypatch.setattr(Path, "open", opened)
    monkeypatch.setattr(files.tempfile, "mktemp", named)
    call = ["experiment", str(experiment), "--out", str(run), "--only", "*_half_*"]
    assert main(call) == 0
    assert "all chosen trials are done; " in (shown := capsys.readouterr().out) and "is read-only" in shown
    assert main([*call, "--page", str(tmp_path / "page.md")]) == 0
    assert (tmp_path / "page.md").exists()


def test_what_is_done_is_not_done_again(run: Path, experiment: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.glob("*/*/stage.json")}
    assert len(before) == 8
    assert main(["experiment", str(experiment), "--out", str(run), "--only", "*_half_*"]) == 0
    assert {path: path.stat().st_mtime_ns for path in run.glob("*/*/stage.json")} == before
    capsys.readouterr()
    assert main(["experiment", str(experiment), "--out", str(run), "--plan"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("done\n") == 2 and f"{THIRD}  " in shown and "3 trials, 2 done" in shown
    assert "not counted" not in shown


def test_weights_that_are_not_there_leave_what_was_made_with_them(
    run: Path, experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    before = {path: path.read_bytes() for path in (folder / "lm").rglob("*") if path.is_file()}
    command = ["experiment", str(experiment), "--out", str(folder), "--only", "*_half_*"]
    assert main([*command, "--pretrained", f"tiny={tmp_path}/moved"]) == 2
    assert "moved: no such model folder" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (folder / "lm").rglob("*") if path.is_file()} == before
    (tmp_path / "broken").mkdir()
    weights = Path(yaml.safe_load(experiment.read_text())["models"]["tiny"]["pretrained"])
    shutil.copy(weights / "config.json", tmp_path / "broken")
    assert main([*command, "--pretrained", f"tiny={tmp_path}/broken"]) == 2  # a configuration, but no weights
    assert {path: path.read_bytes() for path in (folder / "lm").rglob("*") if path.is_file()} == before


def test_the_folder_may_be_called_like_a_built_in_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reduced").mkdir()
    assert main(["experiment", "reduced", "--out", "reduced", "--plan"]) == 0
    assert "scratch_18pct_scheduled_200_s1" in capsys.readouterr().out


def test_a_plan_names_the_shared_stages_that_it_does_not_count(
    experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["experiment", str(experiment), "--out", str(tmp_path / "new"), "--plan"]) == 0
    assert "not counted: corpus, encoder, codebook, units, vocoder, which" in capsys.readouterr().out
    assert not (tmp_path / "new").exists()


def test_imported_units_are_kept_and_need_no_encoder(run: Path, experiment: Path, tmp_path: Path) -> None:
    other, units = tmp_path / "other", tmp_path / "units"
    shutil.copytree(run / "corpus", other / "corpus")
    assert main(["units", "export", str(run), "--format", "fairseq", "-o", str(units)]) == 0
    back = ["units", "import", str(other), "--format", "fairseq", "--from", str(units), "--num-units", "16"]
    assert main(back) == 0
    plan, _ = load_experiment(experiment)
    driver.Grid(other, plan).corpus_and_units()
    assert not (other / "encoder").exists()
    assert shared_to_do(other, plan) == ["vocoder"]


def test_compared_systems_see_the_same_utterances_in_the_same_order(
    run: Path, experiment: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    class SeenEnough(Exception):
        pass

    orders, ratios = [], []

    def record(model: Any, source: Any, settings: Any, *rest: Any, **named: Any) -> None:
        orders.append([source.sampler[i] for i in range(settings.steps * settings.batch_size)])
        ratios.append(source.ratio(0))
        raise SeenEnough

    monkeypatch.setattr(lm_train, "fit", record)
    plan, _ = load_experiment(experiment)
    for name in (FIRST, SECOND):
        settings = plan.recipe.systems[name]
        with pytest.raises(SeenEnough):
            lm_train.train_lm(tmp_path / name, settings, run / "subsets/half", run / "units")
    assert orders[0] == orders[1] and len(orders[0]) == 4 * STEPS and ratios == [0.0, 0.9]


def test_a_killed_experiment_goes_on_to_the_same_results(run: Path, experiment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("lm", "translate", "scores", "results*"))
    arguments = ["experiment", str(experiment), "--out", str(folder), "--only", SECOND]
    process = Program(command(*arguments), tmp_path)
    checkpoints = folder / "lm" / SECOND / "checkpoints"
    while process.code is None and not list(checkpoints.glob("checkpoint-*")):
        time.sleep(0.01)
    process.send(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert json.loads((folder / "lm" / SECOND / "stage.json").read_text())["status"] == "running"
    assert main(arguments) == 0
    ours, theirs = ((x / "scores" / SECOND / "utterances.jsonl").read_text() for x in (folder, run))
    assert ours == theirs
    assert scores(folder, SECOND)["systems"] == scores(run, SECOND)["systems"]
    weights = [(x / "lm" / SECOND / "model/model.safetensors").read_bytes() for x in (folder, run)]
    assert weights[0] == weights[1]


def test_hours_end_a_sitting_and_cells_of_others_are_left_alone(
    run: Path, experiment: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, content = load_experiment(experiment)
    done: list[str] = []
    monkeypatch.setattr(driver.Grid, "shared", lambda grid: None)
    monkeypatch.setattr(driver.Grid, "do", lambda grid, trial: done.append(trial.name))
    with driver._locked(tmp_path / "x", FIRST) as free:
        assert free and not driver.run_session(tmp_path / "x", plan, content, "")
    assert done == [SECOND, THIRD]  # another process is at the first
    done.clear()
    monkeypatch.setattr(driver, "estimate", lambda *rest: 7200.0)
    assert not driver.run_session(tmp_path / "y", plan, content, "", hours=1.0)
    assert done == [FIRST]  # the first is begun, the others would not end in time
    monkeypatch.setattr(driver.Grid, "do", lambda grid, trial: time.sleep(60))
    start = time.monotonic()
    assert not driver.run_session(tmp_path / "z", plan, content, "", hours=0.2 / 3600)
    assert time.monotonic() - start < 50


def test_steps_can_be_timed_beforehand(run: Path, experiment: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, _ = load_experiment(experiment)
    third = plan.trials[2]

    def slowly(*args: object, **kwargs: object) -> object:  # as where a model is loaded and compiled for the first time
        monkeypatch.setattr(hours, "train_lm", train_lm)
        time.sleep(2)
        return train_lm(*args, **kwargs)  # type: ignore[arg-type]

    train_lm = hours.train_lm
    monkeypatch.setattr(hours, "train_lm", slowly)
    measure(run, plan, [third], 2)
    measured = json.loads((run / "measured.json").read_text())
    assert measured.keys() == {"tiny"}
    assert measured["tiny"] > 0
    assert not list(run.glob(".tmp-*"))
    assert estimate(run, plan, third) is not None


def test_measuring_prints_the_plan_and_trains_nothing(
    run: Path, experiment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in (run / "lm").iterdir())
    assert main(["experiment", str(experiment), "--out", str(run), "--measure", "1"]) == 0
    assert f"{len(load_experiment(experiment)[0].trials)} trials" in capsys.readouterr().out
    assert sorted(path.name for path in (run / "lm").iterdir()) == before


def test_bad_input_ends_with_a_line(experiment: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = ["--out", str(tmp_path / "run")]
    for arguments, words in (
        (["experiment", "nowhere", *out], "no such experiment"),
        (["experiment", str(experiment), *out, "--only", "x*"], "matches no trial"),
        (["experiment", str(experiment), *out, "--hours", "0"], "above 0"),
        (["experiment", str(experiment), *out, "--pretrained", "tiny"], "MODEL=FOLDER"),
        (["experiment", str(experiment), *out, "--measure", "0"], "above 0"),
        (["experiment", "results", str(tmp_path), "--page", str(tmp_path / "r.md")], "not the folder of an experiment"),
    ):
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1
    assert not (tmp_path / "run").exists()
