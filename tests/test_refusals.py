"""What is refused changes nothing: finished stages, units and recipes stay as they were."""

import shutil
from pathlib import Path

import pytest
import yaml

from unitweave.cli import main
from unitweave.core.errors import InputError
from unitweave.core.files import read_json
from unitweave.core.stage import Outcome, run_stage
from unitweave.recipe import parse_recipe


def write(text: str, fails: bool = False):
    def work(folder: Path) -> Outcome:
        if fails:
            raise InputError("it cannot be")
        (folder / "result").write_text(text)
        return Outcome()

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

    def interrupted(folder: Path) -> Outcome:
        (folder / "half").write_text("")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_stage(tmp_path, "one", {"a": 2}, {}, interrupted)
    assert (tmp_path / "one/half").exists()
    run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    assert (tmp_path / "one/result").read_text() == "second" and (tmp_path / "one/half").exists()
    assert not (tmp_path / ".one.before").exists()


def test_progress_of_a_change_that_fails_later_is_kept(tmp_path: Path) -> None:
    run_stage(tmp_path, "one", {"a": 1}, {}, write("first"))

    def full(folder: Path) -> Outcome:
        (folder / "checkpoint").write_text("")
        raise InputError("no space left")

    with pytest.raises(InputError, match="no space left"):
        run_stage(tmp_path, "one", {"a": 2}, {}, full)
    assert (tmp_path / "one/checkpoint").exists() and (tmp_path / ".one.before/result").exists()
    run_stage(tmp_path, "one", {"a": 2}, {}, write("second"))
    assert (tmp_path / "one/checkpoint").exists() and not (tmp_path / ".one.before").exists()


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ({"lm": {"weave": {"sides": "left"}}}, "left"),
        ({"lm": {"lerning_rate": 1}}, "no setting 'lerning_rate'"),
        ({"encoder": {"steps": -5}}, "encoder.steps -5"),
        ({"encoder": {"optimiser": "sgd"}}, "encoder.optimiser 'sgd'"),
        ({"codebook": {"num_units": -3}}, "codebook.num_units -3"),
        ({"vocoder": {"steps": -4}}, "vocoder.steps -4"),
        ({"score": {"recogniser": "siri"}}, "score.recogniser 'siri'"),
        ({"translate": {"beam": 0}}, "beam"),
        ({"units": {"engine": "spark"}}, "units.engine 'spark'"),
        ({"systems": {"a": {"optimiser": {"steps": 0}}}}, "systems.a"),
    ],
)
def test_impossible_values_of_any_stage_are_refused_with_the_recipe(content: dict, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        parse_recipe(content)
    assert complaint in str(raised.value) and "\n" not in str(raised.value)


def test_refused_flags_do_not_stay_in_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"encoder": {"steps": 3}}))
    before = (tmp_path / "recipe.yaml").read_text()
    assert main(["score", str(tmp_path), "--score.recogniser", "siri"]) == 2
    assert main(["units", "train-encoder", str(tmp_path), "--encoder.steps", "-5"]) == 2
    assert (tmp_path / "recipe.yaml").read_text() == before
    shutil.rmtree(tmp_path)
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["translate", "{model}", "x.wav", "-o", "{file}"], "is a file"),
        (["translate", "{model}", "x.wav", "--device", "toaster"], "--device 'toaster'"),
        (["translate", "{model}", "x.wav", "--longest", "0"], "--longest"),
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
