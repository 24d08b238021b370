"""`unitweave lm plan` and the recipes: everything can be planned from a configuration alone."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from transformers import AutoConfig

from helpers.lm_corpus import made_up_corpus, settings
from unitweave.cli import main
from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.config.lm import LmSettings, LoraSettings, SmallLm
from unitweave.config.recipe import builtin_recipes, load_recipe
from unitweave.core.errors import InputError
from unitweave.lm.estimate import count_weights, memory_per_gpu, model_config
from unitweave.lm.plan import make_plan, measure, ratio_stages, schedule_warnings

RECIPES = {path.stem: path for path in builtin_recipes()}


def test_the_ablations_differ_from_the_method_in_what_they_say() -> None:
    systems = load_recipe(RECIPES["paper-ablations"]).systems
    method = systems["scheduled"]
    assert systems["source-only"].interleave.sides == "source" and systems["target-only"].interleave.sides == "target"
    assert systems["mask"].interleave.replace_with == "mask" and systems["uniform"].interleave.boundaries == "uniform"
    assert systems["constant"].schedule.shape == "constant" and systems["baseline"].schedule.shape == "none"
    for system in systems.values():
        assert system.training == method.training and system.pretrained == method.pretrained
    paper = load_recipe(RECIPES["paper"]).systems["scheduled"]
    assert (method.interleave, method.schedule) == (paper.interleave, paper.schedule)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("meta-llama/Llama-3.2-1B", 1_235_814_400),
        ("meta-llama/Llama-3.2-3B", 3_212_749_824),
        ("meta-llama/Llama-3.1-8B", 8_030_261_248),
    ],
)
def test_parameters_of_known_models_are_those_of_their_model_cards(
    name: str, parameters: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(*args: object, **kwargs: object) -> None:
        raise OSError("no hub")

    monkeypatch.setattr(AutoConfig, "from_pretrained", absent)
    weights = count_weights(model_config(name, SmallLm()), 128_256)
    assert weights.total == weights.trained == parameters
    low = count_weights(model_config(name, SmallLm()), 128_256 + 64, lora_rank=8)
    assert low.trained < 0.01 * parameters and low.flops_per_token < 0.75 * weights.flops_per_token
    with pytest.raises(InputError, match="nobody/nothing"):
        model_config("nobody/nothing", SmallLm())


def test_a_folder_with_a_wrong_value_in_its_config_is_refused_in_one_line(text_lm_folder: Path, tmp_path: Path) -> None:
    about = json.loads((text_lm_folder / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(about | {"hidden_act": 5}))
    with pytest.raises(InputError, match=r"could not load the model's config .*'hidden_act' expected str") as raised:
        model_config(str(tmp_path), SmallLm())
    assert "\n" not in str(raised.value)


def test_stages_add_up_to_the_run() -> None:
    paper = LmSettings()
    paper.training.steps = 3000
    stages = ratio_stages(paper)
    assert stages[0] == (0.9, 0, 300) and stages[-1] == (0.0, 2700, 300) and len(stages) == 10
    smooth = settings(schedule=ScheduleSettings(shape="linear", end=50), training={"steps": 80})
    assert sum(count for _, _, count in ratio_stages(smooth)) == 80 and ratio_stages(smooth)[-1][0] == 0.0


@pytest.mark.parametrize(
    ("schedule", "steps", "expected"),
    [
        (ScheduleSettings(), 1000, ["takes 2700 steps", "ends at text ratio 0.60"]),
        (ScheduleSettings(shape="constant", start=0.5), 1000, ["ends at text ratio 0.50"]),
        (ScheduleSettings(), 2800, ["less than a tenth"]),
        (ScheduleSettings(), 5000, []),
        (ScheduleSettings(shape="none"), 5000, []),
    ],
)
def test_odd_schedules_are_warned_of(schedule: ScheduleSettings, steps: int, expected: list[str]) -> None:
    found = schedule_warnings(settings(schedule=schedule, training={"steps": steps}))
    assert len(found) == len(expected) and all(part in text for part, text in zip(expected, found, strict=True)), found


@pytest.mark.slow
def test_lengths_are_exact_with_units_and_near_without(tmp_path: Path, text_lm_folder: Path) -> None:
    from unitweave.lm.train.finetune import train_lm

    data = made_up_corpus(tmp_path)
    one = settings(pretrained=str(text_lm_folder))
    exact = measure(one, data / "corpus", data / "units", str(text_lm_folder))
    assert exact is not None and len(exact.tokens) == 8
    limit = int(sorted(exact.tokens)[-2])  # one length above, ties included
    above = int((exact.tokens > limit).sum())
    one.max_tokens = limit
    plan = make_plan("x", one, 12, SmallLm(), exact, "h100", 1)
    assert plan.facts[f"longer than {limit} tokens, dropped"].startswith(f"{above} (")
    outcome = train_lm(tmp_path / "x", one, data / "corpus", data / "units")
    assert len(outcome.skipped) == above, "the plan foretells what training drops"
    assert outcome.counts["parameters"] == plan.facts["parameters"]
    some = settings(pretrained=str(text_lm_folder), train_pairs=0.5)
    for units in (data / "units", None):
        lengths = measure(some, data / "corpus", units, str(text_lm_folder))
        assert lengths is not None and len(lengths.tokens) == 4, "as many as are trained on"


def test_memory_falls_with_sharding_checkpointing_and_lora() -> None:
    config = model_config("meta-llama/Llama-3.2-1B", SmallLm())
    whole = count_weights(config, 130_368)
    need = sum(memory_per_gpu(whole, 16_384, 1, False, False, False).values())
    assert sum(memory_per_gpu(whole, 16_384, 8, True, False, False).values()) < need
    assert sum(memory_per_gpu(whole, 16_384, 1, False, True, False).values()) < need
    low = count_weights(config, 130_368, 64)
    assert sum(memory_per_gpu(low, 16_384, 1, False, False, True).values()) < need


@pytest.mark.slow
def test_the_command_plans_every_system_and_names_what_does_not_fit(
    tmp_path: Path, text_lm_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = made_up_corpus(tmp_path / "run")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"corpus: {{manifest: x}}\nlm: {{pretrained: {text_lm_folder}}}\nsystems: {{a: {{}}, b: {{}}}}\n")
    assert main(["lm", "plan", str(recipe), "--units", str(data), "--json"]) == 0
    plans = json.loads(capsys.readouterr().out)
    assert [plan["system"] for plan in plans] == ["a", "b"] and plans[0]["hours"]["h100"] > 0
    operations = float(plans[0]["facts"]["floating-point operations"])
    assert plans[0]["hours"]["cpu"] == pytest.approx(operations / (0.4 * 1e11) / 3600, rel=0.01)
    assert any("schedule takes 2700 steps" in warning for warning in plans[0]["warnings"])
    local, vllm = (plans[0]["translation_hours"][engine] for engine in ("local", "vllm"))
    assert local[0] == 8 * local[3] > vllm[0] > 0, "for 1, 2, 4 and 8 GPUs"
    assert main(["lm", "plan", str(recipe), "--units", str(data), "--system", "b"]) == 0
    shown = capsys.readouterr().out
    assert "steps at each text ratio" in shown and "time on the CPU of this machine" in shown
    assert "hours to translate 73,000 utterances" in shown, "the paper's, where there is no test split"
    (data / "recipe.yaml").write_text(recipe.read_text())
    assert main(["lm", "plan", str(data), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == plans, "a run folder has its own recipe, corpus and units"
    assert main(["lm", "plan", str(recipe), "--gpu", "abacus"]) == 2
    assert "abacus" in capsys.readouterr().err
    large = settings(pretrained="meta-llama/Llama-3.1-8B", training={"batch_size": 512}, lora=None)
    lengths = measure(large, data / "corpus", data / "units", str(text_lm_folder))
    assert any("do not fit" in warning for warning in make_plan("x", large, 12, SmallLm(), lengths, "l4").warnings)
    low = settings(pretrained="meta-llama/Llama-3.1-8B", training={"batch_size": 4}, lora=LoraSettings())
    assert not any("do not fit" in warning for warning in make_plan("x", low, 12, SmallLm(), lengths).warnings)


@pytest.mark.slow
def test_what_the_alignment_allows_is_said_per_language_warned_of_and_refused_where_it_is_nothing(
    tmp_path: Path, text_lm_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unitweave.lm.train.finetune import train_lm

    few = made_up_corpus(tmp_path / "few", unsure=2)  # of 3, 3, 4 and 1 Spanish words 1, 1, 2 and 0 are sure
    one = settings(pretrained=str(text_lm_folder))
    for tokenizer in (str(text_lm_folder), None):
        lengths = measure(one, few / "corpus", few / "units", tokenizer)
        plan = make_plan("x", one, 12, SmallLm(), lengths)
        assert plan.facts["words that can be replaced by text"] == "en 100.0 % of 22, es 36.4 % of 22"
        assert [w for w in plan.warnings if "reliably" in w] == [
            "es: text ratio 0.90 becomes 0.36, since only 36 % of its words are reliably aligned "
            "(interleave.min_alignment_score 0.3)"
        ]
    printed: list[str] = []
    monkeypatch.setattr("unitweave.lm.train.finetune.echo", printed.append)
    outcome = train_lm(tmp_path / "x", one, few / "corpus", few / "units")
    assert outcome.counts["replaceable words"] == {"en": 1.0, "es": 0.3636}
    assert "en 100.0 % of 22, es 36.4 % of 22" in printed[0] and "warning: es: text ratio 0.90 becomes" in printed[1]
    only_target = settings(pretrained=str(text_lm_folder), interleave=InterleaveSettings(sides="target"))
    lengths = measure(only_target, few / "corpus", few / "units", None)
    assert lengths is not None and list(lengths.coverage) == ["en"], "the other side is not asked for text"
    none = made_up_corpus(tmp_path / "none", unsure=-1)
    with pytest.raises(InputError, match="none of the speech's 44 words can be replaced") as refused:
        train_lm(tmp_path / "y", one, none / "corpus", none / "units")
    assert not (tmp_path / "y/model").exists()
    with pytest.raises(InputError, match="none of the speech's") as planned:
        make_plan("x", one, 12, SmallLm(), measure(one, none / "corpus", none / "units", None))
    assert str(planned.value) == str(refused.value), "the plan foretells what training refuses"
    baseline = settings(pretrained=str(text_lm_folder), schedule=ScheduleSettings(shape="none"))
    assert train_lm(tmp_path / "z", baseline, none / "corpus", none / "units").counts["pairs"] == 8


def test_units_without_repetitions_are_refused_in_the_plan_as_in_training(tmp_path: Path, text_lm_folder: Path) -> None:
    from unitweave.lm.train.finetune import train_lm

    data = made_up_corpus(tmp_path)
    shard = data / "units/units-00000.parquet"
    table = pq.read_table(shard)
    pq.write_table(table.replace_schema_metadata(table.schema.metadata | {b"deduplicated": b"true"}), shard)
    repeated = settings(pretrained=str(text_lm_folder))
    for asked in (
        lambda: measure(repeated, data / "corpus", data / "units", None),
        lambda: train_lm(tmp_path / "x", repeated, data / "corpus", data / "units"),
    ):
        with pytest.raises(InputError, match=r"lm.deduplicate: set it to true; the units were imported without"):
            asked()
    assert measure(settings(deduplicate=True), data / "corpus", data / "units", None)
