"""The whole chain through the command line, on tiny models: every stage, resuming, skipping, and bad input."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from helpers.processes import Program, command
from unitweave.cli import main
from unitweave.core.audio import read_audio

pytestmark = pytest.mark.slow

STAGES = [
    "corpus",
    "encoder",
    "codebook",
    "units",
    "lm/baseline",
    "lm/scheduled",
    "vocoder",
    "translate/scheduled",
    "score",
]


@pytest.fixture(scope="module")
def recipe(finished_run: tuple[Path, Path]) -> Path:
    return finished_run[1]


@pytest.fixture(scope="module")
def run(finished_run: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shutil.copytree(finished_run[0], tmp_path_factory.mktemp("run") / "run")


def test_a_recipe_runs_every_stage_and_ends_with_a_report(run: Path) -> None:
    for stage in STAGES:
        record = json.loads((run / stage / "stage.json").read_text())
        assert record["status"] == "done" and record["seconds"] >= 0 and record["versions"]["unitweave"]
    assert "<audio" in (run / "report.html").read_text()
    outputs = [json.loads(line) for line in (run / "translate/scheduled/outputs.jsonl").read_text().splitlines()]
    assert len(outputs) == 4
    for output in outputs:
        assert len(read_audio(run / "translate/scheduled" / output["audio"])) >= 320 * len(output["units"])
    assert not list(run.rglob("*.pkl")) and not list(run.rglob("*.pt")), "no pickles are left among the artifacts"


def test_a_finished_run_is_not_done_again(run: Path, recipe: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file() and "lm" in p.parts}
    assert main(["run", str(recipe), "--out", str(run)]) == 0
    assert before == {p: p.stat().st_mtime_ns for p in before}


@pytest.mark.processes
def test_that_nothing_is_to_be_done_is_known_without_torch(run: Path, recipe: Path) -> None:
    report = (run / "report.html").stat().st_mtime_ns
    code = (
        "import sys; from unitweave.cli import main; "
        "assert main(sys.argv[1:]) == 0; heavy = {'torch', 'transformers', 'matplotlib'} & set(sys.modules); "
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "run", str(recipe), "--out", str(run)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"report: {run / 'report.html'}" in done.stdout and (run / "report.html").stat().st_mtime_ns == report


def test_a_changed_setting_redoes_its_stage_and_what_depends_on_it(run: Path, recipe: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run"
    shutil.copytree(run, copy)
    before = {stage: json.loads((copy / stage / "stage.json").read_text())["fingerprint"] for stage in STAGES}
    assert main(["run", str(recipe), "--out", str(copy), "--codebook.num_units", "12"]) == 0
    after = {stage: json.loads((copy / stage / "stage.json").read_text())["fingerprint"] for stage in STAGES}
    assert [stage for stage in STAGES if before[stage] == after[stage]] == ["corpus", "encoder"]


def test_recordings_are_translated_from_a_run_folder(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = next((run / "corpus").rglob("*test*.wav"))
    assert main(["translate", str(run), str(source), "-o", str(tmp_path)]) == 0
    about = json.loads(capsys.readouterr().out)
    assert set(about) == {"audio", "transcript", "translation", "confidence"}
    assert len(read_audio(about["audio"])) > 0


@pytest.mark.processes
def test_a_run_killed_in_the_middle_goes_on_to_the_same_result(run: Path, recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    process = Program(command("run", recipe, "--out", folder), tmp_path)
    while not (folder / "encoder/stage.json").exists():
        assert process.code is None, process.printed
        time.sleep(0.01)
    process.send(signal.SIGKILL)
    process.wait()
    assert main(["run", str(recipe), "--out", str(folder)]) == 0
    for name in ("codebook/codebook.safetensors", "lm/scheduled/model/model.safetensors"):
        assert (folder / name).read_bytes() == (run / name).read_bytes()


BAD = [
    ({"encoder": {"stepz": 3}}, "stepz"),
    ({"encoder": {"training": {"steps": "many"}}}, "many"),
    ({"encoderr": {}}, "encoderr"),
    ({"systems": {"a": {"interleave": {"side": "both"}}}}, "side"),
    ({"corpus": {"embedded": {"languages": ["xx"]}}}, "xx"),
    ({"corpus": {"manifest": "/nowhere"}}, "/nowhere"),
    ({"corpus": {}}, "corpus"),
]


@pytest.mark.parametrize(("content", "word"), BAD)
def test_a_wrong_recipe_is_one_line_and_code_2(
    content: dict, word: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    assert main(["run", str(path), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err.strip()
    assert word in error and error.count("\n") == 0
    assert not list((tmp_path / "run").rglob("*.parquet"))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["frobnicate"], "frobnicate"),
        (["run", "no-such-recipe", "--out", "x"], "no-such-recipe"),
        (["run"], "RECIPE"),
        (["run", "demo", "--out", ""], "--out: must not be empty"),
        (["run", "demo", "--out", "x" * 300], "name too long"),
        (["corpus", "stats", ""], "must not be empty"),
        (["units", "extract", "/nowhere"], "/nowhere"),
        (["translate", "/nowhere", "x.wav"], "/nowhere"),
        (["report", "/nowhere"], "/nowhere"),
        (["score", "/nowhere"], "/nowhere"),
    ],
)
def test_bad_input_is_one_line_and_code_2(arguments: list[str], word: str, capsys: pytest.CaptureFixture) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err.strip()
    assert word in error and error.count("\n") == 0


@pytest.mark.parametrize("kind", ["missing", "text", "empty", "short"])
def test_recordings_that_cannot_be_translated_are_named(
    run: Path, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    import soundfile

    wav = tmp_path / "bad.wav"
    if kind == "text":
        wav.write_text("this is no audio")
    elif kind != "missing":
        soundfile.write(wav, [0.0] * (0 if kind == "empty" else 100), 16_000)
    assert main(["translate", str(run), str(wav), "-o", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert "bad.wav" in error and error.count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_a_folder_of_another_version_and_a_foreign_folder_are_refused(
    run: Path, recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    other = tmp_path / "other"
    (other / "corpus").mkdir(parents=True)
    record = json.loads((run / "corpus/stage.json").read_text())
    (other / "corpus/stage.json").write_text(json.dumps(record | {"format": 99}))
    assert main(["run", str(recipe), "--out", str(other)]) == 2
    assert "another version" in capsys.readouterr().err
    foreign = tmp_path / "foreign"
    (foreign / "corpus").mkdir(parents=True)
    (foreign / "corpus/thesis.txt").write_text("precious")
    assert main(["run", str(recipe), "--out", str(foreign)]) == 2
    assert (foreign / "corpus/thesis.txt").read_text() == "precious"


def test_help_version_and_env(capsys: pytest.CaptureFixture) -> None:
    assert main(["--help"]) == 0 and main(["--version"]) == 0 and main(["env"]) == 0
    printed = capsys.readouterr().out
    assert "demo" in printed and "unitweave 0." in printed and "torch" in printed
