"""Settings are checked by their types, the same from a recipe and in Python."""

import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from transformers import SchedulerType

from unitweave.config.interleave import ScheduleSettings
from unitweave.config.lm import LmSettings, LoraSettings
from unitweave.config.recipe import builtin_recipes, load_recipe, parse_recipe
from unitweave.config.serve import ServerLimits
from unitweave.config.training import LmTraining, LrScheduler
from unitweave.config.translate import DecodingSettings
from unitweave.core.errors import InputError
from unitweave.interleaving.schedule import text_ratio

RECIPES = {path.stem: path for path in builtin_recipes()}
NEEDING_ARGUMENTS = sorted({kind.value for kind in SchedulerType} - set(LrScheduler.__args__))
ABOVE_0 = "must be a whole number above 0 (got 0)"


@pytest.mark.processes
def test_reading_a_recipe_loads_no_heavy_library() -> None:
    code = (
        "import sys; from unitweave.config.recipe import *; load_recipe(builtin_recipes()[0]);"
        "print({'torch', 'transformers', 'numpy', 'pyarrow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_can_be_read_and_every_key_has_a_comment(name: str) -> None:
    load_recipe(RECIPES[name])
    for line in RECIPES[name].read_text().splitlines():
        key = re.match(r" *([\w-]+):", line)
        assert not key or "#" in line or line.rstrip().endswith(":"), line


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"lm": {"schedule": {"shape": "points"}}}, "schedule.points: must be pairs"),
        ({"lm": {"schedule": {"shape": "function"}}}, "schedule.function: needs the shape 'function'"),
        ({"lm": {"schedule": {"shape": "function", "function": "name"}}}, "schedule.function: must be MODULE:NAME"),
        ({"lm": {"interleave": {"sides": "left"}}}, "interleave.sides: must be one of both, source, target (got left)"),
        ({"lm": {"tasks": {"s2xt": 1.0}}}, "tasks: must be one of s2st, s2tt, asr, mt, tts, direct (got 's2xt')"),
        ({"lm": {"tasks": {"s2st": 0}}}, "tasks: at least one task needs a weight above 0"),
        ({"lm": {"tasks": {}}}, "tasks: at least one task needs a weight above 0"),
        ({"lm": {"tasks": {"asr": -1.0, "mt": 2.0}}}, "tasks: must be a finite number, 0 or above (got -1.0)"),
        ({"lm": {"overlong": "x"}}, "overlong: must be one of drop, truncate (got x)"),
        ({"lm": {"embedding_init": "aligned", "interleave": {"boundaries": "uniform"}}}, "needs the alignment"),
        ({"lm": {"extra_text_ratio": 1.0}}, "extra_text_ratio: must be a number from 0 to below 1 (got 1.0)"),
        ({"lm": {"max_tokens": 3}}, "max_tokens: must be at least 16 (got 3)"),
        ({"lm": {"lora": {"rank": 0}}}, f"lora.rank: {ABOVE_0}"),
        ({"codebook": {"num_units": 500, "max_frames": 499}}, "codebook.max_frames: must be at least num_units"),
        ({"lm": {"lora": {"rnk": 1}}}, "lora.rnk: no such setting"),
        ({"lm": {"lora": 3}}, "lora"),
        ({"lm": {"training": None}}, "lm.training: must be a mapping of settings (got None)"),
        ({"lm": {"training": {"optimizer": "sgd"}}}, "training.optimizer: must be one of adam, muon (got sgd)"),
        ({"lm": {"training": {"precision": "fp8"}}}, "training.precision: must be one of bf16, fp32 (got fp8)"),
        ({"lm": {"training": {"steps": 0}}}, f"training.steps: {ABOVE_0}"),
        ({"lm": {"training": {"optimizer": "muon", "fsdp": True}}}, "muon needs whole matrices"),
        ({"lm": {"training": {"max_tokens_per_forward": 0}}}, f"max_tokens_per_forward: {ABOVE_0}"),
        ({"lm": {"training": {"warmup_ratio": 100}}}, "warmup_ratio: must be a number from 0 to 1 (got 100)"),
        ({"lm": {"training": {"seed": -1}}}, "training.seed: must be a whole number from 0 to below 2**32 (got -1)"),
        ({"lm": {"training": {"learning_rate": float("inf")}}}, "must be a finite number above 0 (got inf)"),
        ({"lm": {"training": {"loss_weights": {"source": float("nan")}}}}, "must be a finite number, 0 or above"),
        ({"lm": {"training": {"report_to": ["nonesuch"]}}}, "training.report_to: must be one of tensorboard"),
        *(
            ({"lm": {"training": {"lr_scheduler_type": name}}}, "training.lr_scheduler_type: must be one of linear")
            for name in NEEDING_ARGUMENTS
        ),
        (
            {"lm": {"tasks": {"asr": 1}, "training": {"loss_weights": {"source": 0, "transcript": 0}}}},
            "loss_weights: give weight to a segment that the tasks predict",
        ),
        ({"encoder": {"training": {"fsdp": True}}}, "encoder.training.fsdp: no such setting"),
        ({"encoder": {"training": {"dataloader_num_workers": -1}}}, "a whole number, 0 or above (got -1)"),
        ({"encoder": {"eval_recordings": 0}}, f"encoder.eval_recordings: {ABOVE_0}"),
        ({"encoder": {"early_stopping_patience": 3}}, "set eval_steps above 0"),
        ({"encoder": {"shape": {"conv_depthwise_kernel_size": 4}}}, "must be odd (got 4)"),
        ({"encoder": {"shape": {"hidden_size": 50}}}, "must be a multiple of twice the number of heads, 8 (got 50)"),
        ({"vocoder": {"training": {"save_steps": 0}}}, f"vocoder.training.save_steps: {ABOVE_0}"),
        ({"vocoder": {"training": {"learning_rate": 0.0}}}, "must be a finite number above 0 (got 0.0)"),
        ({"vocoder": {"training": {"gradient_accumulation_steps": 2}}}, "no such setting"),
        ({"corpus": {"embedded": {"noise_db": 2}}}, "corpus.embedded.noise_db: must be at least 5 dB"),
        ({"corpus": {"embedded": {"train": {"fr": 2}}}}, "corpus.embedded.train: 'fr' is not one of es"),
        ({"corpus": {"synthesized": {}}}, "corpus.synthesized.text: name a table of parallel text"),
        ({"score": {"mos": ["dnsmos", "mine"]}}, "score.mos: must be one of dnsmos, utmos (got mine)"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_the_key(content: dict, message: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_recipe(content)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_settings_made_in_python_are_checked_alike() -> None:
    for make in (
        lambda: LmTraining(steps=0),
        lambda: replace(LmTraining(), optimizer="sgd"),  # type: ignore[arg-type]
        lambda: DecodingSettings(temperature=float("nan")),
        lambda: LoraSettings(dropout=1.0),
        lambda: ServerLimits(max_queue=0),
        lambda: ServerLimits(max_upload_mb=float("inf")),
        lambda: LmSettings(tasks={"s2st": -1.0}),
        lambda: ScheduleSettings(shape="function", function=3),  # type: ignore[arg-type]
    ):
        with pytest.raises(InputError, match="must be"):
            make()


def test_numbers_are_plain_after_they_were_checked() -> None:
    system = parse_recipe({"lm": {"training": {"learning_rate": "1e-3"}, "max_tokens": 64}}).systems["scheduled"]
    assert type(system.training.learning_rate) is float and type(system.max_tokens) is int
    assert type(system.schedule.start) is float and system.training.steps == 600


def test_systems_take_from_lm_what_they_do_not_set() -> None:
    recipe = parse_recipe(
        {"lm": {"training": {"steps": 7}}, "systems": {"a": {}, "b": {"training": {"seed": 3}, "max_tokens": 99}}}
    )
    assert [s.training.steps for s in recipe.systems.values()] == [7, 7]
    assert [s.training.seed for s in recipe.systems.values()] == [1, 3] and recipe.systems["b"].max_tokens == 99


def test_a_warm_up_is_a_whole_number_of_steps() -> None:
    assert LmTraining(steps=100, warmup_ratio=0.29).warmup_steps == 29
    for steps, ratio in ((400, 0.05), (10_000, 0.002), (20_000, 0.001), (200_000, 0.0001)):
        assert LmTraining(steps=steps, warmup_ratio=ratio).warmup_steps == 20


def halfway(step: int, total_steps: int) -> float:
    return 0.5 if step < total_steps / 2 else 0.0


def test_a_schedule_may_be_a_function_or_its_name(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = ScheduleSettings(shape="function", function=halfway)
    assert [text_ratio(own, 4)(step) for step in range(5)] == [0.5, 0.5, 0.0, 0.0, 0.0]
    assert own.function_name is not None and own.function_name.endswith(":halfway")
    (tmp_path / "my_schedules.py").write_text(
        "def falling(step, total_steps):\n    return 1 - step / total_steps\n\n"
        "def outside(step, total_steps):\n    return step - 1\n\nnumber = 3\n\n"
        "def broken(step, total_steps):\n    return {}[step]\n\n"
        "def leaving(step, total_steps):\n    raise SystemExit(3)\n"
    )
    (tmp_path / "my_script.py").write_text("import argparse\nargparse.ArgumentParser().exit(0)\n")
    monkeypatch.chdir(tmp_path)
    named = parse_recipe({"lm": {"schedule": {"shape": "function", "function": "my_schedules:falling"}}})
    ratio = text_ratio(named.systems["scheduled"].schedule, 4)
    assert [ratio(step) for step in range(4)] == [1.0, 0.75, 0.5, 0.25]
    numpys = ScheduleSettings(shape="function", function=lambda step, total_steps: np.float32(0.5))
    assert text_ratio(numpys, 1)(0) == 0.5
    for name, message in (
        ("nowhere:f", "could not be imported"),
        ("my_schedules:f", "could not be imported"),
        ("my_schedules:number", "is not a function"),
        ("os:system", r"called with \(0, 4\): raised TypeError: "),
        ("my_schedules:broken", r"called with \(0, 4\): raised KeyError: 0 \(my_schedules.py, line 10\)"),
        ("my_schedules:leaving", r"raised SystemExit: 3 \(my_schedules.py, line 13\)"),
        ("my_script:f", r"could not be imported \(SystemExit: 0 \(my_script.py, line 2\)\)"),
        ("my_schedules:outside", r"must return a number from 0 to 1 \(got -1 at step 0\)"),
    ):
        with pytest.raises(InputError, match=message) as raised:
            text_ratio(ScheduleSettings(shape="function", function=name), 4)
        assert "\n" not in str(raised.value)
