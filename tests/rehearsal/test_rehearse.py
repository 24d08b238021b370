"""A recipe rehearsed at a small size: every stage, killed and resumed, with a report against the plans."""

import json
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from helpers.tiny_run import tiny_recipe
from unitweave.cli import main
from unitweave.rehearsal import child, rehearse
from unitweave.rehearsal.rehearse import Rehearsal, Step, as_table
from unitweave.training.checkpoints import CheckpointedTrainer
from unitweave.vocoder import train


class Killed(BaseException):
    """In place of SIGKILL, since the stages are done in this process."""


@pytest.fixture
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Stages without processes of their own; returns those that were done, with their exit codes."""
    done: list[tuple[str, int]] = []

    def killed(*_: object) -> None:
        raise Killed

    def do(self: Rehearsal, stage: str, system: str, kill: bool) -> tuple[int, str]:
        self.layout.folder.mkdir(parents=True, exist_ok=True)
        self.layout.recipe.write_bytes(self.recipe_file.read_bytes())
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(os, "kill", killed)
            patch.setattr(CheckpointedTrainer, "_save_checkpoint", CheckpointedTrainer._save_checkpoint)
            patch.setattr(train._Trainer, "_save_checkpoint", train._Trainer._save_checkpoint)
            try:
                code = child.do(self.layout.folder, self.folder / "step.json", kill, stage, [system] if system else [])
            except Killed:
                code = -9
        done.append((stage, code))
        return code, "the last line"

    monkeypatch.setattr(Rehearsal, "_child", do)
    return done


@pytest.mark.slow
def test_a_rehearsal_does_every_stage_once_and_goes_on_where_it_stopped(
    tmp_path: Path, text_lm_folder: Path, in_this_process: list, capsys: pytest.CaptureFixture
) -> None:
    recipe, out = tiny_recipe(tmp_path, text_lm_folder), tmp_path / "out"
    assert main(["rehearse", str(recipe), "--out", str(out), "--size", "small"]) == 0
    trained = [(stage, code) for stage in ("encoder", "lm", "vocoder") for code in (-9, 0)]
    once = [("corpus", 0), *trained[:2], ("codebook", 0), ("units", 0), *trained[2:], ("translate", 0), ("export", 0)]
    assert in_this_process[:-1] == once and in_this_process[-1][0] == "score"
    report = json.loads((out / "rehearsal.json").read_text())
    assert [step["status"] for step in report["steps"][:-1]] == ["done"] * len(once)
    (tokens,) = report["tokens"]
    assert tokens["tokens of the last step"] > 0 and tokens["pairs of a step"] == 2
    assert "| lm/" in capsys.readouterr().out
    for stage in ("encoder", "lm/scheduled"):
        assert json.loads((out / "run" / stage / "stage.json").read_text())["status"] == "done"
    assert (out / "export/package.json").exists()
    in_this_process.clear()
    assert main(["rehearse", str(recipe), "--out", str(out), "--size", "small", "--json"]) == 0
    assert [stage for stage, _ in in_this_process] in ([], ["score"]), "a skipped scoring is tried again"
    in_this_process.clear()
    shutil.rmtree(out / "run/codebook")
    assert main(["rehearse", str(recipe), "--out", str(out), "--size", "small", "--again", "vocoder"]) == 0
    again = [(stage, code) for stage, code in in_this_process if stage != "score"]
    assert again == [("codebook", 0), ("vocoder", -9), ("vocoder", 0)], "what is gone, and what is asked for"


@pytest.mark.slow
def test_a_tokenizer_and_a_vocoder_from_elsewhere_are_rehearsed_without_what_they_replace(
    tmp_path: Path, text_lm_folder: Path, in_this_process: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "own_tokenizer", raising=False)
    shutil.copy(Path(__file__).parents[2] / "examples/own_tokenizer.py", tmp_path)
    recipe = tiny_recipe(tmp_path, text_lm_folder)
    content = yaml.safe_load(recipe.read_text()) | {
        "units": {"tokenizer": "own_tokenizer:load_tokenizer", "alignments": "of-another-corpus"},
        "vocoder": {"function": "own_tokenizer:load_vocoder", "sample_rate": 24_000},
    }
    recipe.write_text(yaml.safe_dump(content))
    assert main(["rehearse", str(recipe), "--out", "out", "--size", "small"]) == 0
    stages = ["corpus", "encoder", "encoder", "units", "lm", "lm", "vocoder", "translate"]
    assert [stage for stage, _ in in_this_process[:-1]] == stages and in_this_process[-1][0] == "score"
    report = json.loads(Path("out/rehearsal.json").read_text())
    assert {step["status"] for step in report["steps"][:-1]} == {"done"}


def test_a_measurement_that_is_not_as_planned_is_marked() -> None:
    as_planned, more = Step("lm/a", "trained", gib=1.1, planned=1.0), Step("lm/b", "trained", gib=1.2, planned=1.0)
    tiny, failed = Step("lm/c", "trained", gib=0.3, planned=0.1), Step("score", "scored", "failed", note="no disk")
    assert [step.good for step in (as_planned, more, tiny, failed)] == [True, False, True, False]
    table = as_table([as_planned, more, failed], [])
    assert "+20 % !" in table and "+10 % |" in table and "failed: no disk" in table


@pytest.mark.slow
def test_what_does_not_fit_is_refused_before_it_is_begun(
    tmp_path: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(rehearse, "_available", lambda: 1e-6)
    monkeypatch.setattr(Rehearsal, "_do", lambda *_, **__: None)
    monkeypatch.setattr(Rehearsal, "_plan_encoder", lambda *_: 9.3)
    recipe = tiny_recipe(tmp_path, text_lm_folder)
    assert main(["rehearse", str(recipe), "--out", str(tmp_path / "out"), "--size", "small"]) == 2
    assert "encoder: the plan needs 9.3 GiB" in capsys.readouterr().err
