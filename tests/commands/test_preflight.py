"""What a run names and is not there is refused before its first stage, in one line, with nothing left behind."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import pytest
import yaml
from transformers import BloomConfig, BloomForCausalLM, Gemma2Config, Gemma2ForCausalLM

from unitweave import pipeline
from unitweave.cli import main
from unitweave.core.manifest import Pair, write_manifest
from unitweave.rehearsal import rehearse

PART = {"recognizer": {"engine": "function", "function": "os:getcwd"}, "speech": {"engine": "pico"}}
TRANSLATOR = {"translator": {"model": "./nowhere"}}
CASES = {
    "a path as the encoder": ({"encoder": {"pretrained": "./nowhere"}}, "encoder.pretrained: ./nowhere: no such model"),
    "a hub name as the encoder": ({"encoder": {"pretrained": "NOWHERE"}}, "encoder.pretrained"),
    "a text LM as the encoder": ({"encoder": {"pretrained": "LM"}}, "must be a speech encoder"),
    "an encoder's layer": ({"codebook": {"layer": 9}}, "codebook.layer: the encoder has layers 1 to 4 (got 9)"),
    "a tokenizer": ({"units": {"tokenizer": "no:thing"}}, "units.tokenizer no:thing"),
    "word times": (
        {"units": {"tokenizer": "no:thing", "alignments": "nowhere"}},
        "units.alignments nowhere: must be a folder",
    ),
    "Ray": ({"units": {"backend": "ray"}}, "units.backend: ray needs the package ray"),
    "the text LM's shape": ({"text_lm": {"shape": {"hidden_size": 255}}}, "text_lm.shape.hidden_size: must be"),
    "a system's LM": ({"systems": {"a": {}, "b": {"pretrained": "/no/where"}}}, "systems.b (or lm): /no/where:"),
    "an encoder as the LM": ({"lm": {"pretrained": "W2V"}}, "must be a causal language model (got wav2vec2)"),
    "an LM of another size": ({"lm": {"pretrained": "LARGE"}}, "mlp.gate_proj.weight as [1000000000, "),
    "an LM of no size": ({"lm": {"pretrained": "EMPTY"}}, "config.json describes model.embed_tokens.weight as ["),
    "an LM without layers": ({"lm": {"pretrained": "FLAT"}}, "num_hidden_layers must be 1 or more (got -1)"),
    "an LM of fewer layers": ({"lm": {"pretrained": "SHORT"}}, "config.json describes a model without it"),
    "an LM without tokenizer": ({"lm": {"pretrained": "BARE"}}, "could not load the tokenizer"),
    "an LM that caps its logits": ({"lm": {"pretrained": "CAPPED"}}, "set training.cross_entropy: plain"),
    "an LM that cannot be packed": (
        {"lm": {"pretrained": "BLOOM", "max_tokens": 512}},
        "systems.scheduled (or lm): BloomForCausalLM cannot be trained: training packs several sequences into a row",
    ),
    "extra text": ({"lm": {"extra_text": "no.tsv"}}, "no.tsv: no such table"),
    "a schedule's function": ({"lm": {"schedule": {"shape": "function", "function": "no:thing"}}}, "schedule.function"),
    "DeepSpeed's file": ({"lm": {"training": {"deepspeed": "no.json"}}}, "deepspeed"),
    "a compiler": ({"lm": {"training": {"torch_compile_backend": "gcc"}}}, "torch_compile_backend: must be one of"),
    "LoRA's layers": (
        {"lm": {"pretrained": "LM", "lora": {"target_modules": ["nope"]}}},
        "lora.target_modules: the model has no layers named nope",
    ),
    "a vocoder": ({"vocoder": {"pretrained": "nowhere"}}, "vocoder.pretrained nowhere: no such file or folder"),
    "a vocoder's function": ({"vocoder": {"function": "no:thing"}}, "vocoder.function no:thing"),
    "its sampling rate": ({"vocoder": {"sample_rate": 16_020}}, "vocoder.sample_rate: must be a multiple"),
    "a voice": ({"translate": {"speaker": "Bob"}}, "translate.speaker: the vocoder has a single voice"),
    "vLLM": ({"translate": {"engine": "vllm"}}, "translate.engine: vllm needs the package vllm"),
    "a recognizer": ({"score": {"recognizer": "fairseq"}}, "facebook/wav2vec2-large-960h-lv60-self"),
    "its checkpoint": ({"score": {"recognizer": "whisper", "recognizer_model": "./no/such"}}, "./no/such: no such"),
    "a recognizer's class": ({"score": {"recognizer": "no:Thing"}}, "score.recognizer no:Thing"),
    "a speaker model": ({"score": {"speaker_model": "/no/where"}}, "score.speaker_model: /no/where: no such model"),
    "COMET": ({"score": {"comet": "x", "comet_command": "no-such-program"}}, "score.comet: the program"),
    "a target language": (
        {"translate": {"target_language": "fr"}},
        "translate.target_language: the corpus has translations into en (got 'fr')",
    ),
    "a device": ({"score": {"device": "cuda:99"}}, "score.device"),
    "a part of a cascade": ({"score": {"cascades": {"c": PART | TRANSLATOR}}}, "score.cascades.c: translator.model"),
    "a test split": ({"corpus": {"embedded": {"test": 0}}}, "corpus: the test split has no pairs, which translating"),
    "a dev split": (
        {"corpus": {"embedded": {"dev": 0}}, "encoder": {"eval_steps": 2}},
        "corpus: the dev split has no pairs, which encoder.eval_steps needs",
    ),
    "a task": ({"corpus": {"manifest": "TEXTS"}}, "no pair of the train split can serve the task s2st"),
}  # fmt: skip


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> dict[str, str]:
    """Folders of models that are there, but not what is asked for; and a corpus of texts alone."""
    folder = tmp_path_factory.mktemp("models")
    shutil.copytree(text_lm_folder, folder / "LARGE")
    config = json.loads((folder / "LARGE/config.json").read_text())
    (folder / "LARGE/config.json").write_text(json.dumps(config | {"intermediate_size": 10**9}))
    shutil.copytree(text_lm_folder, folder / "EMPTY")
    (folder / "EMPTY/config.json").write_text(json.dumps(config | {"hidden_size": 0}))
    for name, layers in (("FLAT", -1), ("SHORT", config["num_hidden_layers"] - 1)):
        shutil.copytree(text_lm_folder, folder / name)
        (folder / name / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers}))
    shutil.copytree(text_lm_folder, folder / "BARE", ignore=shutil.ignore_patterns("token*"))
    shutil.copytree(text_lm_folder, folder / "W2V")
    (folder / "W2V/config.json").write_text(json.dumps({"model_type": "wav2vec2"}))
    shape = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
    }
    Gemma2ForCausalLM(Gemma2Config(vocab_size=300, num_key_value_heads=1, **shape)).save_pretrained(folder / "CAPPED")
    bloom = BloomConfig(vocab_size=300, hidden_size=32, n_layer=2, n_head=2, initializer_range=0.5)
    BloomForCausalLM(bloom).save_pretrained(folder / "BLOOM")
    for path in text_lm_folder.glob("token*"):
        shutil.copy(path, folder / "CAPPED")
        shutil.copy(path, folder / "BLOOM")
    write_manifest(folder / "TEXTS", [Pair("a", "train", "es", "en", None, None, "hola", "hello")], {})
    return {path.name: str(path) for path in folder.iterdir()} | {"LM": str(text_lm_folder)}


@pytest.fixture
def nothing_done(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A current folder, in which no stage of a run may begin."""

    def begun(*_: object, **__: object) -> None:
        raise AssertionError("a stage began")

    monkeypatch.setattr(pipeline, "run_stage", begun)
    monkeypatch.setattr(rehearse, "write_language_model", begun)
    monkeypatch.setattr(rehearse, "write_encoder", begun)
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "ray" else find(name))
    monkeypatch.syspath_prepend(tmp_path_factory.mktemp("current"))  # as the current folder of `python -c`
    (Path(sys.path[0]) / "vllm").mkdir()  # no package, but a folder of its name
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_file(folder: Path, content: dict, models: dict[str, str]) -> str:
    """A recipe in which the names of `models` are their folders."""
    text = json.dumps({"corpus": {"embedded": {}}} | content)
    for name, place in models.items():
        text = text.replace(f'"{name}"', json.dumps(place))
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(json.loads(text)))
    return str(path)


@pytest.mark.parametrize("case", CASES)
def test_what_is_missing_is_known_before_the_first_stage(
    case: str, nothing_done: Path, models: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    content, message = CASES[case]
    assert main(["run", recipe_file(nothing_done, content, models), "--out", "run"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said, said
    assert [path.name for path in nothing_done.iterdir()] == ["recipe.yaml"]


def test_a_compiler_that_is_missing_is_known_before_the_first_stage(
    nothing_done: Path, models: dict[str, str], capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setenv("CXX", "no-such-compiler")
    recipe = recipe_file(nothing_done, {"lm": {"training": {"torch_compile_backend": "inductor"}}}, models)
    assert main(["run", recipe, "--out", "run"]) == 2
    assert "training.torch_compile_backend: no C++ compiler no-such-compiler" in capsys.readouterr().err


@pytest.mark.slow
def test_a_rehearsal_looks_for_all_before_it_writes_models(
    nothing_done: Path, models: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    pretrained = {"encoder": {"pretrained": "facebook/w2v-bert-2.0"}, "codebook": {"layer": 20}}
    for content, message in (
        (pretrained | {"lm": {"pretrained": "./nowhere"}}, "./nowhere: no such model folder"),
        (pretrained | {"codebook": {"layer": 25}}, "codebook.layer: the encoder has layers 1 to 24"),
        (pretrained | {"vocoder": {"pretrained": "nowhere"}}, "vocoder.pretrained nowhere"),
        ({"lm": {"extra_text": "no.tsv"}}, "no.tsv: no such table"),
        ({"units": {"tokenizer": "no:thing"}}, "units.tokenizer no:thing"),
    ):
        assert main(["rehearse", recipe_file(nothing_done, content, models), "--out", "out"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and message in said, said


@pytest.mark.slow
def test_an_experiment_looks_for_what_its_trials_need(
    nothing_done: Path, models: dict[str, str], capsys: pytest.CaptureFixture
) -> None:
    gemma = ["experiment", "gemma", "--out", "out", "--pretrained"]
    for name, message in (("./no", "./no: no such"), (models["BARE"], "could not load the tokenizer")):
        assert main([*gemma, f"gemma={name}"]) == 2
        said = capsys.readouterr().err
        assert said.count("\n") == 1 and message in said, said
        assert not list(nothing_done.rglob("*.yaml"))


@pytest.mark.slow
def test_what_is_done_already_needs_nothing(
    tmp_path: Path, finished_run: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    run, recipe = finished_run
    copy = shutil.copytree(run, tmp_path / "run")

    def asked(*_: object) -> None:
        raise AssertionError("a model was looked for")

    for name in ("check_initial_encoder", "check_system", "named_vocoder", "check_scoring"):
        monkeypatch.setattr(f"unitweave.preflight.{name}", asked)
    assert main(["run", str(recipe), "--out", str(copy)]) == 0
    shutil.rmtree(copy / "score")
    with pytest.raises(AssertionError, match="looked for"):
        main(["run", str(recipe), "--out", str(copy)])


@pytest.mark.slow
def test_the_systems_and_scores_of_single_stages_are_looked_at_first(
    finished_run: tuple[Path, Path], nothing_done: Path, capsys: pytest.CaptureFixture
) -> None:
    run = shutil.copytree(finished_run[0], nothing_done / "run")
    recipe = run / "recipe.yaml"
    content = yaml.safe_load(recipe.read_text())
    shutil.rmtree(run / "lm/baseline")
    content["systems"]["scheduled"] = {"pretrained": "./nowhere"}
    recipe.write_text(yaml.safe_dump(content))
    assert main(["lm", "train", "run"]) == 2
    assert "systems.scheduled (or lm): ./nowhere: no such model" in capsys.readouterr().err
    content["systems"]["scheduled"] = {}
    content["score"] |= {"recognizer": "no:Thing", "cascades": {"c": PART | {"translator": {"model": "x"}}}}
    recipe.write_text(yaml.safe_dump(content))
    assert main(["score", "run"]) == 2
    assert "score.cascades.c: translator.model x" in capsys.readouterr().err
    assert main(["units", "error-rates", "run/corpus", "run", "nowhere"]) == 2
    said = capsys.readouterr()
    assert not said.out and said.err.startswith("unitweave: nowhere/encoder/model: no encoder here")
