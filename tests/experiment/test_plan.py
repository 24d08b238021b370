"""Grids: which trials, in which order; nested amounts of data; longer trainings on demand."""

import copy
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.files import write_json
from unitweave.core.manifest import Pair
from unitweave.core.stage import FORMAT
from unitweave.experiment.driver import chosen, torch_threads
from unitweave.experiment.hours import estimate
from unitweave.experiment.plan import ExperimentPlan, builtin_experiments, load_experiment, parse_experiment
from unitweave.experiment.state import is_needed
from unitweave.experiment.subsets import count_training
from unitweave.lm.data.subset import choose_subset

CONTENT: dict[str, Any] = {
    "title": "A grid",
    "recipe": {"corpus": {"embedded": {}}, "lm": {"training": {"steps": 20}}},
    "models": {"scratch": {}, "big": {"pretrained": "somewhere", "training": {"learning_rate": 1e-4}}},
    "data": {"all": 1.0, "some": 0.3},
    "systems": {
        "baseline": {"schedule": {"shape": "none"}},
        "scheduled": {},
        "mask": {"interleave": {"replace_with": "mask"}},
    },
    "grid": [
        {"systems": ["baseline", "scheduled"], "seeds": [1, 2]},
        {"systems": ["scheduled", "mask"], "data": ["some"], "models": ["big"]},
    ],
}


def plan(**changes: Any) -> ExperimentPlan:
    return parse_experiment(json.loads(json.dumps(CONTENT | changes)))


def test_cells_are_the_blocks_combinations_each_once_and_always_the_same() -> None:
    trials = plan().trials
    assert len(trials) == 2 * 2 * 2 * 2 + 1  # the second block adds only mask
    assert len({trial.name for trial in trials}) == len(trials)
    assert [trial.name for trial in plan().trials] == [trial.name for trial in trials]
    assert trials[0].name == "scratch_all_baseline_20_s1"
    assert trials[1].name == "scratch_all_scheduled_20_s1"  # what is compared is done side by side
    assert trials[-1].name == "big_some_mask_20_s1"


def test_threads_are_an_axis_of_the_grid_as_seeds_are() -> None:
    trials = plan(grid=[{"systems": ["baseline", "scheduled"], "models": ["scratch"], "threads": [1, 2]}]).trials
    assert [trial.name for trial in trials[:4]] == [
        f"scratch_all_{system}_20_s1_t{threads}" for threads in (1, 2) for system in ("baseline", "scheduled")
    ]
    assert {trial.group for trial in trials[:4]} == {("scratch", "all", 20)}
    before = torch.get_num_threads()
    with torch_threads(3):
        assert torch.get_num_threads() == 3
        with torch_threads(0):
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == before


def test_compared_cells_differ_in_nothing_but_their_system() -> None:
    systems = plan().recipe.systems
    ours, theirs = systems["big_some_scheduled_20_s2"], systems["big_some_baseline_20_s2"]
    assert ours.training == theirs.training
    assert (ours.training.steps, ours.training.seed, ours.training.learning_rate) == (20, 2, 1e-4)
    assert ours.evaluation.eval_steps == theirs.evaluation.eval_steps == 4  # five evaluations, the last at the end
    assert (ours.schedule.shape, theirs.schedule.shape) == ("staircase", "none")
    assert ours.pretrained == "somewhere" and systems["scratch_all_baseline_20_s1"].pretrained is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"systems": CONTENT["systems"] | {"mask": {"training": {"steps": 40}}}}, "training.steps"),
        ({"systems": CONTENT["systems"] | {"mask": {"training": {"seed": 4}}}}, "training.seed"),
        ({"systems": {"scheduled": {}}}, "'baseline'"),
        (
            {"systems": CONTENT["systems"] | {"scheduled": {"tasks": {"asr": 1.0}}}},
            "systems.scheduled: tasks",
        ),
        ({"comparisons": [{"system": "mask", "against": "nobody"}]}, "no 'nobody'"),
        ({"grid": [{"data": ["none"]}]}, "data has no 'none'"),
        ({"grid": [{"steps": [7]}]}, "7 steps are not divisible"),
        ({"grid": [{"seeds": [1, 1]}]}, "seeds"),
        ({"grid": [{"seeds": []}]}, "seeds must name"),
        ({"grid": [{"threads": [0]}]}, "threads must be different numbers from 1 to 1024"),
        ({"grid": [{"threads": [100000]}]}, "threads must be different numbers from 1 to 1024"),
        ({"data": {"all": {"es": 1.0, "fr": 0.5}}}, "data.all: training data in 'fr': the corpus has none of it"),
        (
            {"recipe": {"corpus": {"embedded": {"languages": ["es", "fr"]}}}, "data": {"all": {"es": 1.0}}},
            "data.all: training data in 'fr': no amount is given for it",
        ),
        ({"grid": []}, "at least one block"),
        ({"recipe": {"lm": {"training": {"steps": 10**400}}}}, "lm.training.steps: must be at most 1000000000"),
        ({"grid": [{"seeds": [1]}, {"seed": [1]}]}, "grid, block 2: unknown key 'seed'; a block has: models, data"),
        (
            {"comparisons": [{"system": "mask", "with": "baseline"}]},
            "comparisons, entry 1: unknown key 'with'; a comparison has: system, against",
        ),
        (
            {"models": {"scratch": {"pretraind": "x"}}},
            "recipe.lm, models.scratch or systems.scheduled: pretraind: no such",
        ),
        ({"grid": [{"early_stopping": "bored"}]}, "early_stopping"),
        ({"data": {"all": 0.0}}, "greater than 0"),
        ({"data": {"a_b": 1.0}}, "letters, digits and -"),
        ({"data": {}}, "data: name at least one"),
        ({"models": {}}, "models: name at least one"),
        ({"systems": CONTENT["systems"] | {"scheduled": {"training": 5}}}, "training: must be a mapping"),
        ({"recipe": {"systems": {}}}, "recipe.systems"),
        ({"color": "red"}, "unknown key 'color'"),
        ({"recipe": {"lm": {"optimizer": {"batch_size": 4}}}}, "lm.optimizer.batch_size: no such setting"),
    ],
)
def test_a_grid_that_cannot_be_is_refused_with_its_key(changes: dict[str, Any], words: str) -> None:
    grid = [{"systems": ["scheduled"]}]
    with pytest.raises(InputError, match=words.replace("(", r"\(")):
        plan(**({"grid": grid} | changes))


@pytest.mark.slow
def test_built_in_experiments_can_be_read() -> None:
    found = {path.stem: load_experiment(path)[0] for path in builtin_experiments()}
    assert set(found) == {
        "demo",
        "replication",
        "gemma",
        "human",
        "languages",
        "reduced",
        "reduced-pretrained",
        "reduced-languages",
        "reduced-open",
        "three-languages",
    }
    assert {trial.system for trial in found["reduced"].trials} == set(found["reduced"].experiment.systems)


def but_for_the_seed(found: ExperimentPlan, name: str) -> LmSettings:
    settings = found.recipe.systems[name]
    return replace(settings, training=replace(settings.training, seed=0))


@pytest.mark.slow
def test_part_of_the_grids_is_made_again_with_the_same_settings() -> None:
    replication, *originals = (
        load_experiment(path)[0]
        for name in ("replication", "reduced", "reduced-pretrained")
        for path in builtin_experiments()
        if path.stem == name
    )
    for trial in replication.trials:
        alike = [
            but_for_the_seed(found, other.name)
            for found in originals
            for other in found.trials
            if (other.model, other.system, other.steps) == (trial.model, trial.system, trial.steps)
        ]
        assert alike and all(other == but_for_the_seed(replication, trial.name) for other in alike), trial.name
    stages = ("corpus", "encoder", "codebook", "units", "text_lm", "vocoder", "translate", "score")
    for found in originals:
        assert all(getattr(replication.recipe, stage) == getattr(found.recipe, stage) for stage in stages)


def test_reading_an_experiment_leaves_its_content_as_it_is() -> None:
    content = copy.deepcopy(CONTENT)
    parse_experiment(content)
    assert yaml.safe_dump(content) == yaml.safe_dump(CONTENT)


def test_a_base_recipe_may_lie_beside_the_experiment_and_a_model_elsewhere(tmp_path: Path) -> None:
    base = {"corpus": {"embedded": {"train": 50}}, "systems": {"own": {}}, "lm": {"training": {"batch_size": 7}}}
    (tmp_path / "base.yaml").write_text(yaml.safe_dump(base))
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(CONTENT | {"base": "base.yaml"}))
    read, content = load_experiment(tmp_path / "grid.yaml", {"big": "/elsewhere"})
    assert read.recipe.systems["big_all_baseline_20_s1"].training.batch_size == 7
    assert read.recipe.systems["big_all_baseline_20_s1"].pretrained == "/elsewhere"
    assert parse_experiment(content).trials == read.trials  # what is kept in the folder says the same
    with pytest.raises(InputError, match="no such model"):
        load_experiment(tmp_path / "grid.yaml", {"small": "/elsewhere"})
    (tmp_path / "grid.yaml").write_text(yaml.safe_dump(CONTENT | {"base": "base.yaml", "models": ["big"]}))
    with pytest.raises(InputError, match="no such model"):
        load_experiment(tmp_path / "grid.yaml", {"big": "/elsewhere"})
    (tmp_path / "base.yaml").write_text("lm: {learning_rate: 1}")
    with pytest.raises(InputError, match=r"base: .*base\.yaml: lm\.learning_rate"):
        load_experiment(tmp_path / "grid.yaml")
    (tmp_path / "base.yaml").write_text("corpus: [")
    with pytest.raises(InputError, match=r"base\.yaml: not readable as YAML"):
        load_experiment(tmp_path / "grid.yaml")


def test_only_takes_names_and_patterns() -> None:
    trials = plan().trials
    assert [c.name for c in chosen(trials, ["*_mask_*"])] == ["big_some_mask_20_s1"]
    assert len(chosen(trials, ["big_all_*", "*_mask_*"])) == 5
    assert chosen(trials, []) == trials
    with pytest.raises(InputError, match="matches no trial"):
        chosen(trials, ["nothing*"])


def pairs(number: int, language: str) -> list[Pair]:
    def one(i: int, split: str) -> Pair:
        return Pair(f"{language}_{split}_{i}", split, language, "en", "a", "b", "x", "y", src_seconds=3.6)

    return [one(i, "train") for i in range(number)] + [one(0, "dev"), one(0, "test")]


def test_less_data_is_part_of_more_and_dev_and_test_stay_whole() -> None:
    corpus = pairs(200, "es") + pairs(50, "fr")
    parts = [{p.id for p in choose_subset(corpus, amount)} for amount in (0.033, 0.08, 0.3, 1.0)]
    for smaller, larger in itertools.pairwise(parts):
        assert smaller < larger
    assert parts[-1] == {p.id for p in corpus}
    for part in parts:
        assert {"es_dev_0", "es_test_0", "fr_dev_0", "fr_test_0"} <= part
    assert count_training(choose_subset(corpus, 0.3)) == {
        "es": {"pairs": 60, "hours": 0.06},
        "fr": {"pairs": 15, "hours": 0.015},
    }


def test_amounts_may_differ_by_language_and_be_numbers() -> None:
    corpus = pairs(200, "es") + pairs(50, "fr")
    assert {k: v["pairs"] for k, v in count_training(choose_subset(corpus, {"es": 1.0, "fr": 7})).items()} == {
        "es": 200,
        "fr": 7,
    }
    with pytest.raises(InputError, match="'fr': no amount"):
        choose_subset(corpus, {"es": 1.0})
    with pytest.raises(InputError, match="the corpus has only 50"):
        choose_subset(corpus, 60)


def finish(run: Path, name: str, steps: int, bleu: float) -> None:
    for stage in ("lm", "translate", "scores"):
        write_json(run / stage / name / "stage.json", {"format": FORMAT, "status": "done", "seconds": 10.0 * steps})
    row = json.dumps({"step": steps, "bleu": bleu})
    (run / "lm" / name / "dev.jsonl").write_text(f'{{"step": {steps}, "bleu": 0.0}}\n{row}\n')


def test_a_longer_training_is_needed_only_while_the_dev_score_rises(tmp_path: Path) -> None:
    grid = [
        {
            "models": ["scratch"],
            "data": ["all"],
            "systems": ["scheduled"],
            "steps": [10, 20, 40, 80],
            "early_stopping": True,
        }
    ]
    made = plan(grid=grid)
    first, second, third, fourth = made.trials
    assert [is_needed([tmp_path], made, c) for c in (first, second, third, fourth)] == [True, None, None, None]
    finish(tmp_path, first.name, 10, 5.0)
    assert is_needed([tmp_path], made, second) is True  # the first lengthening is always tried
    finish(tmp_path, second.name, 20, 9.0)
    assert is_needed([tmp_path], made, third) is True
    finish(tmp_path, third.name, 40, 8.0)
    assert is_needed([tmp_path], made, fourth) is False
    finish(tmp_path, second.name, 20, 4.0)
    assert (is_needed([tmp_path], made, third), is_needed([tmp_path], made, fourth)) == (False, False)
    asked_for = {"models": ["scratch"], "data": ["all"], "systems": ["scheduled"], "steps": [80]}
    for blocks in ([*grid, asked_for], [asked_for, *grid]):
        made = plan(grid=blocks)
        last = next(trial for trial in made.trials if trial.steps == 80)
        assert len(made.trials) == 4 and is_needed([tmp_path], made, last) is True
    for name in (first.name, second.name):
        (tmp_path / "lm" / name / "dev.jsonl").unlink()
    assert is_needed([tmp_path], made, third) is True, "without dev scores nothing spares it"


def test_hours_come_from_finished_cells_of_the_same_model(tmp_path: Path) -> None:
    made = plan()
    first, second = made.trials[:2]
    other = next(trial for trial in made.trials if trial.model == "big")
    assert estimate(tmp_path, made, first) is None
    finish(tmp_path, first.name, 20, 1.0)  # 10 s a step, 200 s each for translation and scores
    assert estimate(tmp_path, made, first) == 0
    assert estimate(tmp_path, made, second) == 600
    state = tmp_path / "lm" / second.name / "checkpoints/checkpoint-15/trainer_state.json"
    write_json(state, {"global_step": 15})
    assert estimate(tmp_path, made, second) == 450
    assert estimate(tmp_path, made, other) is None
    write_json(tmp_path / "measured.json", {"big": 2.0})
    assert estimate(tmp_path, made, other) == 440
