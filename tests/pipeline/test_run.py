"""The order of a run's stages, and which of them a recipe needs."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from helpers.encoders import random_checkpoint
from unitweave.config.recipe import builtin_recipes, load_recipe, parse_recipe
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, write_manifest
from unitweave.pipeline import Run, run
from unitweave.preflight import _check_vocoder
from unitweave.units.dataset import SCHEMA, write_shard
from unitweave.units.importing import UnitSource

STAGES = ("corpus_and_units", "text_lm", "lm", "vocoder", "translate", "score")


def planned_stages(monkeypatch: pytest.MonkeyPatch, folder: Path, systems: dict[str, dict]) -> list[str]:
    """What `unitweave run` would do for these systems, without doing it."""
    done: list[str] = []
    monkeypatch.setattr("unitweave.pipeline.check_trainable", lambda *_: None)  # there are no units
    for stage in STAGES:
        monkeypatch.setattr(Run, stage, lambda self, *names, stage=stage: done.append("/".join([stage, *names])))
    Run(folder, parse_recipe({"corpus": {"embedded": {}}, "systems": systems})).all()
    return done


def test_a_vocoder_that_could_not_be_trained_ends_a_run_before_its_language_models_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = UnitSource(16, 50.0, deduplicated=True).metadata("theirs")
    write_shard(tmp_path / "units", 0, pa.Table.from_batches([], SCHEMA), about)
    done: list[str] = []
    for stage in STAGES:
        monkeypatch.setattr(Run, stage, lambda self, *names, stage=stage: done.append(stage))
    recipe = parse_recipe({"corpus": {"embedded": {}}})
    monkeypatch.setattr(Run, "check", lambda self: None)
    with pytest.raises(InputError, match="a vocoder cannot be trained on units without repetitions"):
        Run(tmp_path, recipe).all()
    assert done == ["corpus_and_units"]
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InputError, match=r"vocoder.training.batch_size: must be a multiple of the 3 .* \(got 16\)"):
        _check_vocoder(recipe, [], 16, 50.0)


@pytest.mark.parametrize(
    ("seconds", "stride", "frames"),  # at 16 kHz the strides are 25 and 100 frames a second
    [(4.0, None, 400), (12.0, None, None), (0.0, None, None), (12.0, 16, 600), (6.0, 4, None)],
)
def test_too_little_speech_for_the_codebook_ends_a_run_before_the_encoder_is_trained(
    seconds: float, stride: int | None, frames: int | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe: dict = {"corpus": {"manifest": "x"}, "codebook": {"num_units": 1000}}
    if stride:  # an encoder with another number of frames a second than the one that is trained from scratch
        random_checkpoint(tmp_path / "hub", "wav2vec2")
        config = json.loads((tmp_path / "hub/config.json").read_text())
        changes = {"conv_stride": [5, 8, stride], "conv_kernel": [10, 8, stride]}
        (tmp_path / "hub/config.json").write_text(json.dumps(config | changes))
        recipe["encoder"] = {"pretrained": str(tmp_path / "hub")}
    pair = Pair("p", "train", "es", "en", "a.wav", "b.wav", "hola", "hello", src_seconds=seconds, tgt_seconds=seconds)
    write_manifest(tmp_path / "corpus", [pair, replace(pair, id="q", split="test", src_seconds=60.0)])
    done: list[str] = []
    for stage in ("corpus", "encoder", "codebook", "units"):
        monkeypatch.setattr(Run, stage, lambda self, stage=stage: done.append(stage))
    run = Run(tmp_path, parse_recipe(recipe))
    if frames is not None:
        message = rf"num_units: the train split has {2 * seconds} s of speech, about {frames} frames, which"
        with pytest.raises(InputError, match=message):
            run.corpus_and_units()
    else:
        run.corpus_and_units()
    assert done == (["corpus", "encoder", "codebook", "units"] if frames is None else ["corpus"])


@pytest.mark.parametrize(("tasks", "refused"), [({"s2st": 1.0}, True), ({"s2st": 0.0, "mt": 1.0}, False)])
def test_a_test_utterance_without_reference_ends_a_run_before_anything_is_trained(
    tasks: dict, refused: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [Pair(f"p{i}", "test", "es", "en", "a.wav", "b.wav", "hola", "hello", "¿Hola?", "Hello.") for i in range(6)]
    rows[1] = replace(rows[1], tgt_text_raw=None)
    rows[2] = replace(rows[2], tgt_text=None)
    rows[3] = replace(rows[3], tgt_text=None, tgt_text_raw=None, src_audio=None)  # cannot be translated
    rows[4] = replace(rows[4], tgt_text=None, tgt_text_raw=None)
    rows[5] = replace(rows[5], tgt_text=None, tgt_text_raw="  ")
    write_manifest(tmp_path / "corpus", [replace(rows[0], id="t", split="train"), *rows])
    done: list[str] = []
    for stage in ("corpus", "encoder", "codebook", "units"):
        monkeypatch.setattr(Run, stage, lambda self, stage=stage: done.append(stage))
    run = Run(tmp_path, parse_recipe({"corpus": {"manifest": "x"}, "systems": {"scheduled": {"tasks": tasks}}}))
    if refused:
        with pytest.raises(InputError, match=r"no reference translation .* test utterance p4, and 1 more"):
            run.corpus_and_units()
        assert done == ["corpus"]
    else:
        run.corpus_and_units()


@pytest.mark.slow
def test_a_system_that_takes_no_speech_is_trained_and_left_out_and_one_that_gives_text_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("unitweave.pipeline.echo", said.append)
    systems = {
        "scheduled": {},
        "heard": {"tasks": {"s2st": 0.0, "asr": 1.0}},
        "read": {"tasks": {"s2st": 0.0, "mt": 1.0}},
        "direct": {"tasks": {"direct": 1.0}},
    }
    done = planned_stages(monkeypatch, tmp_path, systems)
    trained = [f"lm/{name}" for name in systems]
    translated = ["translate/scheduled", "translate/heard", "translate/direct"]
    assert done == ["corpus_and_units", "text_lm", *trained, "vocoder", *translated, "score"]
    assert len(said) == 1 and said[0].startswith("lm/read: trained only; without one of s2st, direct, s2tt, asr")


def test_where_no_system_speaks_no_vocoder_is_trained_and_where_none_takes_speech_nothing_is_scored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    systems = {"read": {"tasks": {"s2st": 0.0, "mt": 1.0}}}
    recipe = parse_recipe({"corpus": {"embedded": {}}, "systems": systems})
    with pytest.raises(InputError, match="score: no system takes speech"):
        Run(tmp_path, recipe).score()
    assert planned_stages(monkeypatch, tmp_path, systems) == ["corpus_and_units", "text_lm", "lm/read"]
    systems = {"heard": {"tasks": {"s2st": 0.0, "asr": 1.0}}}
    after = ["lm/heard", "translate/heard", "score"]
    assert planned_stages(monkeypatch, tmp_path, systems) == ["corpus_and_units", "text_lm", *after]


@pytest.mark.parametrize("kind", ["name", "path", "recipe"])
def test_run_takes_a_recipe_its_file_or_the_name_of_a_built_in_one(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[Run] = []
    monkeypatch.setattr(Run, "all", lambda self: done.append(self))
    demo = next(path for path in builtin_recipes() if path.stem == "demo")
    path = tmp_path / "mine.yaml"
    path.write_bytes(demo.read_bytes())
    recipe = load_recipe(demo)
    given = run({"name": "demo", "path": path, "recipe": recipe}[kind], tmp_path / "run")
    assert done == [given] and given.recipe == recipe
    assert load_recipe(given.layout.recipe) == recipe, "the folder keeps what it was made with"
    with pytest.raises(InputError, match="no such recipe"):
        run("no-such-recipe", tmp_path / "other")
    assert not (tmp_path / "other").exists()
