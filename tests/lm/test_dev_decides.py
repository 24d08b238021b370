"""What is seen on the dev split may end a training, choose its checkpoint, or lower its text ratio."""

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import PreTrainedModel

from helpers.lm_corpus import made_up_corpus, settings
from unitweave.config.interleave import ScheduleSettings
from unitweave.config.lm import EvaluationSettings, LoraSettings
from unitweave.core.errors import InputError
from unitweave.core.stage import StageResult
from unitweave.lm.train.finetune import train_lm
from unitweave.lm.train.trainer import LmTrainer

pytestmark = pytest.mark.slow

SCORES = [1.0, 9.0, 5.0, 4.0, 3.0, 99.0]  # of the dev split after each step


class Cut(Exception):
    """Stands in for a kill."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up_corpus(tmp_path_factory.mktemp("data"))


def train(
    folder: Path, data: Path, text_lm: Path, patience: int = 0, cut_at: int = 0, **changes: Any
) -> tuple[StageResult, dict[int, dict[str, torch.Tensor]]]:
    """Train for six steps with made-up dev scores; returns the result, and the weights at each evaluation."""
    torch.set_num_threads(1)
    seen: dict[int, dict[str, torch.Tensor]] = {}

    def evaluator(*_: Any) -> Callable[[PreTrainedModel, int], Mapping[str, float]]:
        def score(model: PreTrainedModel, step: int) -> Mapping[str, float]:
            if step == cut_at:
                raise Cut
            seen[step] = {name: weight.cpu().clone() for name, weight in model.state_dict().items()}
            return {"eval_bleu": SCORES[step - 1]}

        return score

    training = {"steps": len(SCORES), "save_steps": 1, "learning_rate": 1e-2} | changes.pop("training", {})
    evaluation = EvaluationSettings(eval_steps=1, utterances=2, early_stopping_patience=patience)
    schedule = ScheduleSettings(**changes.pop("schedule", {"stair_steps": 1}))
    chosen = settings(evaluation=evaluation, training=training, schedule=schedule, **changes)
    folder.mkdir(exist_ok=True)
    return train_lm(folder, chosen, data / "corpus", data / "units", text_lm, evaluator), seen  # type: ignore[arg-type]


def log_of(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in ("tokens_per_second", "mfu")} for line in lines]


def test_the_best_checkpoint_is_kept_and_a_training_that_gets_no_better_stops(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    result, seen = train(tmp_path / "whole", data, text_lm_folder, patience=2, schedule={"shape": "none"})
    assert (result.counts["steps"], result.counts["best step"]) == (4, 2) and sorted(seen) == [1, 2, 3, 4]
    kept = load_file(tmp_path / "whole/model/model.safetensors")
    assert all(torch.equal(kept[name], seen[2][name]) for name in kept)
    assert not all(torch.equal(kept[name], seen[4][name]) for name in kept)
    for cut_at in (3, 4):
        folder = tmp_path / f"cut-{cut_at}"
        with pytest.raises(Cut):
            train(folder, data, text_lm_folder, patience=2, cut_at=cut_at, schedule={"shape": "none"})
        again, _ = train(folder, data, text_lm_folder, patience=2, schedule={"shape": "none"})
        assert again.counts == result.counts and log_of(folder) == log_of(tmp_path / "whole")
        mine = load_file(folder / "model/model.safetensors")
        assert all(torch.equal(kept[name], mine[name]) for name in kept)


@pytest.mark.parametrize(("patience", "lora"), [(9, None), (9, LoraSettings(rank=2)), (2, None)])
def test_the_best_checkpoint_is_found_where_the_run_was_moved_to_after_its_last_step(
    patience: int,
    lora: LoraSettings | None,
    tmp_path: Path,
    data: Path,
    text_lm_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.modules[__name__], "SCORES", [*SCORES[:5], 2.0])
    changes: dict[str, Any] = {"patience": patience, "schedule": {"shape": "none"}, "lora": lora}
    result, _ = train(tmp_path / "whole", data, text_lm_folder, **changes)
    expected = load_file(tmp_path / "whole/model/model.safetensors")

    def cut(self: object) -> None:
        raise Cut

    with monkeypatch.context() as patch, pytest.raises(Cut):
        patch.setattr(LmTrainer, "_load_best_model", cut)
        train(tmp_path / "here", data, text_lm_folder, **changes)
    folder = (tmp_path / "here").rename(tmp_path / "there")
    moved, _ = train(folder, data, text_lm_folder, **changes)
    assert moved.counts == result.counts
    mine = load_file(folder / "model/model.safetensors")
    assert all(torch.equal(expected[name], mine[name]) for name in expected)


def test_the_best_adapters_are_kept_with_lora(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    kept = {}
    for patience, name in ((2, "best"), (0, "last")):
        train(
            tmp_path / name,
            data,
            text_lm_folder,
            patience,
            lora=LoraSettings(rank=2, alpha=4),
            schedule={"shape": "none"},
        )
        kept[name] = load_file(tmp_path / name / "model/model.safetensors")
    assert kept["best"].keys() == kept["last"].keys()
    assert not all(torch.equal(kept["best"][name], kept["last"][name]) for name in kept["best"])


def test_evaluations_count_from_the_end_of_the_schedule(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    schedule = {"shape": "linear", "end": 5, "unit": "steps"}
    result, seen = train(tmp_path, data, text_lm_folder, patience=2, schedule=schedule)
    assert (result.counts["steps"], result.counts["best step"]) == (6, 6) and len(seen) == 6


def test_patience_without_anything_to_go_by_is_refused(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    chosen = settings(evaluation=EvaluationSettings(eval_steps=1, early_stopping_patience=1))
    with pytest.raises(InputError, match="early_stopping_patience: needs a dev split"):
        train_lm(tmp_path, chosen, data / "corpus", data / "units", text_lm_folder)
    with pytest.raises(InputError, match="set eval_steps above 0"):
        EvaluationSettings(eval_steps=0, early_stopping_patience=1).check()


def test_an_adaptive_ratio_falls_by_what_dev_says_and_a_resumed_training_by_the_same(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    # With no loss good enough, the ratio falls at every look but the first; a look counts one step later.
    schedule = {"shape": "adaptive", "stair_steps": 1, "decrement": 0.2, "end": 100, "min_improvement": 1.0}
    train(tmp_path / "whole", data, text_lm_folder, schedule=schedule)
    assert [line["ratio"] for line in log_of(tmp_path / "whole")] == pytest.approx(
        [0.9, 0.891, 0.882, 0.7, 0.5, 0.3], abs=1e-6
    )
    with pytest.raises(Cut):
        train(tmp_path / "cut", data, text_lm_folder, cut_at=4, schedule=schedule)
    train(tmp_path / "cut", data, text_lm_folder, schedule=schedule)
    assert log_of(tmp_path / "cut") == log_of(tmp_path / "whole")
    one, other = ((tmp_path / name / "model/model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other
    train(tmp_path / "easy", data, text_lm_folder, schedule=schedule | {"min_improvement": 0.0, "end": 12})
    easy = [line["ratio"] for line in log_of(tmp_path / "easy")]
    assert easy[0] == 0.9 and easy[-1] <= 0.9 * (1 - 5 / 12) + 1e-9, "never above the line to its end"


def test_utterances_have_ratios_of_their_own_around_the_schedules(
    tmp_path: Path, data: Path, text_lm_folder: Path
) -> None:
    for name, spread in (("same", 0.0), ("spread", 0.4)):
        train(tmp_path / name, data, text_lm_folder, schedule={"shape": "constant", "start": 0.5, "spread": spread})
    same, spread = (log_of(tmp_path / name) for name in ("same", "spread"))
    assert [line["ratio"] for line in same] == [line["ratio"] for line in spread] == [0.5] * len(SCORES)
    assert [line["loss"] for line in same] != [line["loss"] for line in spread]


def test_a_part_of_the_pairs_may_be_trained_on(tmp_path: Path, data: Path, text_lm_folder: Path) -> None:
    whole, _ = train(tmp_path / "all", data, text_lm_folder, training={"steps": 1})
    part, _ = train(tmp_path / "part", data, text_lm_folder, train_pairs=2, training={"steps": 1})
    assert part.counts["pairs"] == 2 < whole.counts["pairs"]
    with pytest.raises(InputError, match="the corpus has only"):
        train(tmp_path / "many", data, text_lm_folder, train_pairs=10_000)
