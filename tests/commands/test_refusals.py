"""What is refused changes nothing: finished stages, units and recipes stay as they were."""

import contextlib
import errno
import os
import shutil
from pathlib import Path

import pytest
import yaml

from unitweave import cli
from unitweave.cli import main
from unitweave.config.recipe import parse_recipe
from unitweave.core import files
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, read_json, write_json
from unitweave.core.manifest import Pair, write_manifest
from unitweave.core.stage import FORMAT, StageResult, run_stage


def write(text: str, fails: bool = False):
    def work(folder: Path) -> StageResult:
        if fails:
            raise InputError("it cannot be")
        (folder / "result").write_text(text)
        return StageResult()

    return work


def test_a_refused_change_leaves_the_finished_stage(tmp_path: Path) -> None:
    run_stage(tmp_path, "lm/one", {"a": 1}, {}, write("first"))
    with pytest.raises(InputError, match="it cannot be"):
        run_stage(tmp_path, "lm/one", {"a": 2}, {}, write("second", fails=True))
    assert (tmp_path / "lm/one/result").read_text() == "first"
    assert read_json(tmp_path / "lm/one/stage.json")["status"] == "done"
    run_stage(tmp_path, "lm/one", {"a": 3}, {}, write("third"))
    assert (tmp_path / "lm/one/result").read_text() == "third"
    assert [path.name for path in (tmp_path / "lm").iterdir()] == ["one"], "nothing stands aside"


def test_an_interrupted_change_goes_on_with_the_new_settings(tmp_path: Path) -> None:
    run_stage(tmp_path, "one", {"a": 1}, {}, write("first"))

    def interrupted(folder: Path) -> StageResult:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "one", {"a": 2}, {}, interrupted)
    assert (tmp_path / "one/half").exists()
    run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    assert (tmp_path / "one/result").read_text() == "second" and (tmp_path / "one/half").exists()
    assert not (tmp_path / ".one.before").exists()


def test_a_change_taken_back_before_it_is_done_brings_the_finished_stage_back(tmp_path: Path) -> None:
    first = run_stage(tmp_path, "one", {"a": 1}, {}, write("first"))

    def interrupted(folder: Path) -> StageResult:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "one", {"a": 2}, {}, interrupted)
    assert run_stage(tmp_path, "one", {"a": 1}, {}, lambda folder: pytest.fail("it was done")) == first
    assert [path.name for path in tmp_path.iterdir()] == ["one"]
    assert (tmp_path / "one/result").read_text() == "first" and not (tmp_path / "one/half").exists()


def test_checkpoints_go_when_the_stage_says_that_it_is_done_and_not_before(tmp_path: Path) -> None:
    def work(folder: Path) -> StageResult:
        (folder / "checkpoints").mkdir(exist_ok=True)
        return StageResult(obsolete=(folder / "checkpoints", folder / "never made"))

    def killed(path: Path, value: dict) -> None:
        if value["status"] == "done":
            raise KeyboardInterrupt
        write_json(path, value)

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("unitweave.core.stage.write_json", killed)
        run_stage(tmp_path, "one", {}, {}, work)
    assert (tmp_path / "one/checkpoints").exists()
    run_stage(tmp_path, "one", {}, {}, work)
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["stage.json"]


def test_a_kill_at_the_very_beginning_of_a_stage_is_no_foreign_folder(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one/.tmp-x-stage.json").write_text("{")
    run_stage(tmp_path, "one", {}, {}, write("first"))
    assert sorted(path.name for path in (tmp_path / "one").iterdir()) == ["result", "stage.json"]


def test_seconds_of_earlier_sittings_outlive_a_kill(tmp_path: Path) -> None:
    write_json(tmp_path / "one/stage.json", {"format": FORMAT, "status": "running", "fingerprint": "", "settings": {}})
    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "one", {}, {}, interrupt)
    record = read_json(tmp_path / "one/stage.json")
    write_json(tmp_path / "one/stage.json", record | {"seconds": 3600.0})
    seen: list[float] = []

    def work(folder: Path) -> StageResult:
        seen.append(read_json(folder / "stage.json")["seconds"])  # what a kill would leave
        return StageResult()

    run_stage(tmp_path, "one", {}, {}, work)
    assert seen == [3600.0] and read_json(tmp_path / "one/stage.json")["seconds"] >= 3600


def interrupt(folder: Path) -> StageResult:
    raise KeyboardInterrupt


def test_progress_of_a_change_that_fails_later_is_kept(tmp_path: Path) -> None:
    run_stage(tmp_path, "one", {"a": 1}, {}, write("first"))

    def full(folder: Path) -> StageResult:
        (folder / "checkpoint").write_text("")
        raise InputError("no space left")

    with pytest.raises(InputError, match="no space left"):
        run_stage(tmp_path, "one", {"a": 2}, {}, full)
    assert (tmp_path / "one/checkpoint").exists() and (tmp_path / ".one.before/result").exists()
    run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    assert (tmp_path / "one/checkpoint").exists() and not (tmp_path / ".one.before").exists()


class Killed(BaseException):
    pass


@pytest.fixture
def killed_while_deleting(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill after the first of a folder's files is deleted: the clean-up of the dying process does not happen."""

    def rmtree(folder: Path) -> None:
        sorted(path for path in Path(folder).rglob("*") if path.is_file())[-1].unlink()
        monkeypatch.setattr(files, "remove", lambda path: None)
        raise Killed

    monkeypatch.setattr(shutil, "rmtree", rmtree)


def test_a_folder_that_is_replaced_is_whole_whenever_the_process_is_killed(
    tmp_path: Path, killed_while_deleting: None
) -> None:
    for text in ("old", "new"):
        with contextlib.suppress(Killed), atomic_path(tmp_path / "folder") as temporary:
            temporary.mkdir()
            for name in ("a", "b"):
                (temporary / name).write_text(text)
    assert [(tmp_path / "folder" / name).read_text() for name in ("a", "b")] == ["new", "new"]


def test_a_stage_killed_while_it_drops_what_no_longer_counts_goes_on(
    tmp_path: Path, killed_while_deleting: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(folder: Path) -> StageResult:
        (folder / "aaa").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "one", {"a": 1}, {}, interrupted)
    with pytest.raises(Killed):
        run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    monkeypatch.undo()
    run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    assert (tmp_path / "one/result").read_text() == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["one"]


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"lm": {"interleave": {"sides": "left"}}}, "left"),
        ({"lm": {"lerning_rate": 1}}, "lm.lerning_rate: no such setting"),
        ({"encoder": {"training": {"steps": -5}}}, "encoder.training.steps: must be a whole number above 0 (got -5)"),
        (
            {"encoder": {"training": {"optimizer": "sgd"}}},
            "encoder.training.optimizer: must be one of adam, muon (got sgd)",
        ),
        ({"codebook": {"num_units": -3}}, "codebook.num_units: must be a whole number above 0 (got -3)"),
        ({"vocoder": {"training": {"steps": -4}}}, "vocoder.training.steps: must be a whole number above 0 (got -4)"),
        ({"score": {"recognizer": "siri"}}, "score.recognizer: must be one of moonshine, fairseq, whisper (got siri)"),
        ({"translate": {"num_beams": 0}}, "translate.num_beams"),
        ({"units": {"backend": "spark"}}, "units.backend: must be one of local, ray (got spark)"),
        ({"units": {"precision": "fp16"}}, "units.precision: must be one of bf16, fp32 (got fp16)"),
        ({"units": {"shard_size": 0}}, "units.shard_size: must be a whole number above 0 (got 0)"),
        ({"units": {"workers": -1}}, "units.workers: must be a whole number, 0 or above (got -1)"),
        ({"systems": {"a": {"training": {"steps": 0}}}}, "systems.a"),
    ],
)
def test_impossible_values_of_any_stage_are_refused_with_the_recipe(content: dict, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_recipe(content)
    assert complaint in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.slow
def test_refused_flags_do_not_stay_in_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"encoder": {"training": {"steps": 3}}}))
    before = (tmp_path / "recipe.yaml").read_text()
    assert main(["score", str(tmp_path), "--score.recognizer", "siri"]) == 2
    assert main(["units", "train-encoder", str(tmp_path), "--encoder.training.steps", "-5"]) == 2
    assert (tmp_path / "recipe.yaml").read_text() == before
    shutil.rmtree(tmp_path)
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["translate", "{model}", "x.wav", "-o", "{file}"], "is a file"),
        (["translate", "{model}", "x.wav", "--device", "toaster"], "--device 'toaster'"),
        (["translate", "{model}", "x.wav", "--max-speech-seconds", "0"], "--max-speech-seconds"),
        (["serve", "{model}", "--port", "99999999"], "--port 99999999"),
    ],
)
def test_impossible_flags_end_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, arguments: list[str], complaint: str
) -> None:
    (tmp_path / "file").write_text("")
    given = [a.format(model=tmp_path / "model", file=tmp_path / "file") for a in arguments]
    assert main(given) == 2
    error = capsys.readouterr().err
    assert complaint in error and error.count("\n") == 1


@pytest.mark.parametrize(("picture", "named"), [("file/x.svg", "file"), ("folder.svg", "folder.svg")])
def test_an_output_that_cannot_be_written_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture, picture: str, named: str
) -> None:
    pair = Pair("a", "train", "es", "en", "a.wav", None, None, None, src_seconds=1.0)
    write_manifest(tmp_path, [pair])
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.svg").mkdir()
    assert main(["corpus", "stats", str(tmp_path), "--picture", str(tmp_path / picture)]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"unitweave: {tmp_path / named}: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("number", "filename", "told"),
    [
        (errno.EACCES, "/c/.tmp-12345678-stats.png", "unitweave: /c/stats.png: Permission denied\n"),
        (errno.EROFS, "/c/x", "unitweave: /c/x: Read-only file system\n"),
        (errno.EACCES, None, None),
        (errno.ENOENT, "/c/x", None),
        (errno.EBADF, 3, None),
    ],
)
def test_errors_of_files_are_one_line_only_where_they_name_one_that_is_refused(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
    number: int,
    filename: str | int | None,
    told: str | None,
) -> None:
    def refused(_: list[str]) -> int:
        raise OSError(number, os.strerror(number), filename)

    monkeypatch.setattr(cli, "_dispatch", refused)
    if told is None:
        with pytest.raises(OSError, match=os.strerror(number)):
            main([])
    else:
        assert main([]) == 2 and capsys.readouterr().err == told
