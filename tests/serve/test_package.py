"""Exported models: the folder, its card, the parts that belong together, the hub's edge, engines."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from helpers.scoring import SIGNATURE, system_scores
from helpers.serving import SETTINGS, make_run, speech, wav
from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair, write_manifest
from unitweave.metrics.intervals import Interval
from unitweave.score.scores import Scores, write_scores
from unitweave.serve.export import export_run, push
from unitweave.translate.package import Parts, find_parts
from unitweave.translate.translator import Translator


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, text_lm_folder: Path) -> Path:
    return make_run(tmp_path_factory.mktemp("run"), text_lm_folder)


@pytest.fixture(scope="module")
def package(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("export") / "model"
    assert main(["export", str(run), "-o", str(out), "--license", "apache-2.0", "--engine", "vllm"]) == 0
    return out


@pytest.mark.slow
def test_an_export_translates_as_its_run_does(run: Path, package: Path) -> None:
    a, b = (Translator.from_pretrained(folder).translate(speech(1.0)) for folder in (run, package))
    assert a.transcript == b.transcript and np.array_equal(a.waveform, b.waveform) and len(a.waveform)
    assert (
        Translator.from_pretrained(package).settings.max_text_tokens_per_second == SETTINGS.max_text_tokens_per_second
    )


def test_an_export_has_safetensors_and_no_pickles_and_is_written_whole(run: Path, package: Path) -> None:
    suffixes = {path.suffix for path in package.rglob("*") if path.is_file()}
    assert suffixes <= {".safetensors", ".json", ".md"}
    (package.parent / "other").mkdir()
    (package.parent / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(InputError, match="contains other files"):
        export_run(run, None, package.parent / "other")
    export_run(run, None, package.parent / "again")
    export_run(run, None, package.parent / "again")  # over an earlier export is fine


def test_an_export_keeps_what_no_export_wrote(run: Path, tmp_path: Path) -> None:
    web, model = tmp_path / "web", tmp_path / "model"
    web.mkdir()
    (web / "package.json").write_text(json.dumps({"name": "web-shop", "version": "1.0.0"}))
    (web / "index.js").write_text("precious")
    with pytest.raises(InputError, match="contains other files"):
        export_run(run, None, web)
    assert (web / "index.js").read_text() == "precious"
    first = export_run(run, None, model, engine="vllm")
    added = (".git/HEAD", "mine.txt", "notes.json", "encoder/thesis.tex", "examples/deep/a.wav")
    for name in added:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_text("precious")
    (model / "README.md").write_text("outdated")
    second = export_run(run, None, model)
    assert all((model / name).read_text() == "precious" for name in added)
    assert "outdated" not in (model / "README.md").read_text() and not (model / "vllm.json").exists()
    assert set(first["files"]) - set(second["files"]) == {"vllm.json"}
    written = {p.relative_to(model).as_posix() for p in model.rglob("*") if p.is_file()}
    assert written - set(added) - {"package.json"} == set(second["files"])
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    (model / "vllm.json").write_text("precious")
    with pytest.raises(InputError, match=r"vllm\.json: was not written by an export"):
        export_run(run, None, model, engine="vllm")
    assert (model / "vllm.json").read_text() == "precious"


@pytest.mark.parametrize(
    "listed", [["../secret.txt"], ["/etc/x"], ["a/b.json"], ["encoder/../../x"], [5], [], None, ["."]]
)
def test_an_export_deletes_nothing_outside_of_its_folder(run: Path, tmp_path: Path, listed: object) -> None:
    model, secret = tmp_path / "model", tmp_path / "secret.txt"
    secret.write_text("precious")
    export_run(run, None, model)
    about = json.loads((model / "package.json").read_text())
    (model / "package.json").write_text(json.dumps(about | {"files": listed}))
    for act in (lambda: export_run(run, None, model), lambda: push(model, "me/model")):
        with pytest.raises(InputError, match=r"package\.json"):
            act()
    assert secret.read_text() == "precious"


@pytest.mark.parametrize("place", ["vocoder/leak.json", "encoder/model/leak.txt", "lm/scheduled/model/leak.json"])
def test_links_inside_a_run_are_refused(run: Path, tmp_path: Path, place: str) -> None:
    copy, secret = tmp_path / "run", tmp_path / "secret"
    shutil.copytree(run, copy)
    secret.write_text("private")
    (copy / place).symlink_to(secret)
    with pytest.raises(InputError, match="is a link"):
        export_run(copy, None, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    (copy / place).unlink()
    folder = (copy / place).parent
    folder.rename(tmp_path / "moved")
    folder.symlink_to(tmp_path / "moved")
    with pytest.raises(InputError, match="is a link"):
        export_run(copy, None, tmp_path / "out")
    export_run(run, None, tmp_path / "model")
    (tmp_path / "model" / "README.md").unlink()
    (tmp_path / "model" / "README.md").symlink_to(secret)
    with pytest.raises(InputError, match="is a link"):
        push(tmp_path / "model", "me/model")


def test_an_export_into_the_working_folder_is_refused_in_one_line(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "deep").mkdir()
    monkeypatch.chdir(tmp_path / "deep")
    for out in (".", "../deep", ".."):
        assert main(["export", str(run), "-o", out]) == 2
        error = capsys.readouterr().err
        assert "is the current folder" in error and error.count("\n") == 1
    assert Path.cwd() == tmp_path / "deep"


def test_a_broken_recipe_is_named_in_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    broken = tmp_path / "run"
    shutil.copytree(run, broken)
    for text in (b"corpus: [es\ntranslate: {", "corpus: {a: ü}".encode("latin-1"), b"translate: fast"):
        (broken / "recipe.yaml").write_bytes(text)
        for command in (["export", str(broken), "-o", str(tmp_path / "out")], ["translate", str(broken), "a.wav"]):
            assert main(command) == 2
            error = capsys.readouterr().err
            assert "recipe.yaml" in error and error.count("\n") == 1


def test_the_language_model_alone_loads_in_plain_transformers(package: Path) -> None:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(package), AutoTokenizer.from_pretrained(package)
    prompt = tokenizer("<|source|><|unit_3|><|unit_7|><|transcript|>", return_tensors="pt", add_special_tokens=False)
    assert prompt["input_ids"].shape == (1, 4)
    assert model.generate(**prompt, max_new_tokens=3, pad_token_id=0).shape[1] > 4


def test_the_card_tells_data_scores_with_signature_license_and_limits(run: Path, tmp_path: Path) -> None:
    from huggingface_hub import ModelCard

    row = system_scores(Interval(12.34), utterances=4, text_bleu=Interval(20.0))
    write_scores(run / "score" / "scores.json", Scores(SIGNATURE, {"scheduled": row}, notes=["a note"]))
    export_run(run, "scheduled", tmp_path / "model", license="cc-by-4.0")
    card = ModelCard.load(tmp_path / "model" / "README.md")
    assert card.data.license == "cc-by-4.0" and card.data.pipeline_tag == "audio-to-audio"
    assert card.data.eval_results[0].metric_value == 12.34
    assert card.data.eval_results[0].metric_config == str(SIGNATURE)
    for part in ("12.3", str(SIGNATURE), "a note", "limits", "eSpeak"):
        assert part in card.text
    assert "Translates Spanish speech into English speech." in " ".join(card.text.split())
    assert card.data.language == ["en", "es"]
    (run / "score" / "scores.json").unlink()


def test_parts_of_different_codebooks_are_refused_in_one_line(
    run: Path, tmp_path: Path, text_lm_folder: Path, capsys: pytest.CaptureFixture
) -> None:
    other = make_run(tmp_path / "other", text_lm_folder, codebook_seed=5)
    for part in ("vocoder", "lm"):
        mixed = tmp_path / f"mixed-{part}"
        shutil.copytree(run, mixed)
        shutil.rmtree(mixed / part)
        shutil.copytree(other / part, mixed / part)
        capsys.readouterr()
        assert main(["export", str(mixed), "-o", str(tmp_path / "out")]) == 2
        error = capsys.readouterr().err.strip()
        assert "codebook" in error and part in error and error.count("\n") == 0
        assert not (tmp_path / "out").exists()
        with pytest.raises(InputError, match="codebook"):
            Translator.from_pretrained(mixed)
    mixed = tmp_path / "mixed-encoder"
    shutil.copytree(run, mixed)
    weights = load_file(mixed / "encoder/model/model.safetensors")
    save_file({k: v + 1 for k, v in weights.items()}, mixed / "encoder/model/model.safetensors")
    with pytest.raises(InputError, match="another encoder"):
        Translator.from_pretrained(mixed)


def test_what_is_no_model_is_named(tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="no trained system"):
        find_parts(tmp_path)
    with pytest.raises(InputError, match="must be a run folder, an exported model, or the name"):
        find_parts("/nowhere/at/all")
    for mistyped in ("läufe/übung", "runs/demo.", "runs/a--b"):
        with pytest.raises(InputError, match="must be a run folder, an exported model, or the name"):
            find_parts(mistyped)
    with pytest.raises(InputError, match="single system"):
        find_parts(package, "baseline")
    about = json.loads((package / "package.json").read_text())
    (tmp_path / "package.json").write_text(json.dumps(about | {"format": 99}))
    with pytest.raises(InputError, match="another version"):
        Parts.of_package(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="hub"):
        find_parts("nobody/has-this-model-cached")


def test_a_name_on_the_hub_is_fetched_without_pickles(package: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict = {}

    def snapshot_download(name: str, allow_patterns: list[str]) -> str:
        asked.update(name=name, patterns=allow_patterns)
        return str(package)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    assert Translator.from_pretrained("someone/a-model").translate(speech(0.5)).language in ("en", "es")
    assert asked["name"] == "someone/a-model" and not any("bin" in p or "pkl" in p for p in asked["patterns"])


def test_push_gives_the_hub_a_checked_folder(
    run: Path, package: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    calls: list = []

    class Api:
        def create_repo(self, name: str, **options: object) -> str:
            calls.append((name, options))
            return f"https://hub/{name}"

        def upload_folder(self, **options: object) -> None:
            calls.append(options)

    monkeypatch.setattr("huggingface_hub.HfApi", Api)
    assert main(["push", str(package), "me/model", "--private"]) == 0
    assert calls[0] == ("me/model", {"private": True, "exist_ok": True, "repo_type": "model"})
    assert calls[1]["folder_path"] == package
    assert set(calls[1]["allow_patterns"]) == {
        path.relative_to(package).as_posix() for path in package.rglob("*") if path.is_file()
    }
    assert capsys.readouterr().out.strip() == "https://hub/me/model"
    with pytest.raises(InputError, match="not an exported model"):
        push(run, "me/model")
    from huggingface_hub.errors import LocalTokenNotFoundError

    def nobody(*_: object, **__: object) -> None:
        raise LocalTokenNotFoundError("no token")

    monkeypatch.setattr(Api, "create_repo", nobody)
    with pytest.raises(InputError, match="hf auth login"):
        push(package, "me/model")


def test_an_unknown_engine_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vllm"):
        export_run(run, None, tmp_path / "x", engine="tgi")


def test_an_export_for_vllm_has_the_limits_that_the_run_decodes_with(package: Path) -> None:
    *_, units = json.loads((package / "vllm.json").read_text())["phases"]
    assert units["name"] == "units" and units["max_tokens"]["per_source_unit"] == SETTINGS.max_units_per_frame
    assert units["max_tokens"]["in_a_row"] == SETTINGS.max_unit_repeats


@pytest.mark.parametrize(
    "command", [["translate", "RUN", "a.wav"], ["serve", "RUN"], ["live", "RUN", "--audio", "a.wav", "-o", "o"]]
)
@pytest.mark.parametrize("part", ["tokenizer", "vocoder"])
def test_a_run_folder_from_elsewhere_runs_no_code_of_its_own(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, command: list, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(run, "RUN")
    order = {"command": "touch ran"}
    if part == "tokenizer":
        recipe = yaml.safe_load(Path("RUN/recipe.yaml").read_text())
        recipe["units"] = {"tokenizer": "os:system", "tokenizer_options": order}
        Path("RUN/recipe.yaml").write_text(yaml.safe_dump(recipe))
    else:
        config = json.loads(Path("RUN/vocoder/config.json").read_text())
        config |= {"generator": "function", "function": "os:system", "options": order}
        Path("RUN/vocoder/config.json").write_text(json.dumps(config))
    Path("a.wav").write_bytes(wav(1.0))
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "os:system" in error and "--trust-functions" in error and not Path("ran").exists()


@pytest.mark.parametrize("way", ["named by the manifest", "linked in the corpus", "linked in an export"])
def test_a_folder_from_elsewhere_shows_no_recording_that_did_not_come_with_it(
    run: Path, package: Path, tmp_path: Path, way: str
) -> None:
    secret, folder = tmp_path / "secret.txt", tmp_path / "folder"
    secret.write_text("a private line")
    shutil.copytree(package if way.endswith("export") else run, folder)
    audio = folder / ("examples" if way.endswith("export") else "corpus")
    shutil.rmtree(audio, ignore_errors=True)
    audio.mkdir()
    (audio / "own.wav").write_bytes(wav(0.5))
    (audio / "link.wav").symlink_to(secret)
    named = [secret, audio / "../../secret.txt"] if way.startswith("named") else [audio / "link.wav"]
    if audio.name == "corpus":
        recordings = [*named, audio / "own.wav"]
        pairs = [Pair(f"u{i}", "test", "es", "en", str(p), None, "si", "yes") for i, p in enumerate(recordings)]
        write_manifest(audio, pairs)
    assert [path.name for path in find_parts(folder).examples()] == ["own.wav"]
