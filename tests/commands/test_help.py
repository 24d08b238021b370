"""Help explains every command and every key of a recipe, from the one place where that is written."""

import re
import subprocess
import sys

import pytest

from unitweave.cli import COMMANDS, main


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_every_option_of_every_command_is_explained(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.words.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: unitweave {command.words}")
    for option in re.split(r"\n  (?=-|\w)", shown.partition("\noptions:")[2])[1:]:
        meaning = re.sub(r"\s+", " ", option.partition("  ")[2] or option.partition("\n")[2]).strip()
        assert meaning and not meaning.startswith("("), option


def test_all_keys_of_a_recipe_are_flags_of_run(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--help"]) == 0
    keys = set(re.findall(r"^  --([a-z_]+\.[a-z_.]+)", capsys.readouterr().out, re.MULTILINE))
    assert len(keys) > 140
    assert {"corpus.embedded.noise_db", "lm.lora.rank", "vocoder.training.steps", "score.mos"} <= keys


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("lm train", "--lm.schedule.stair_steps X staircase: length of a stair"),
        ("corpus", "--corpus.embedded.unseen_speaker_ratio X Fraction of the dev and test recordings"),
        ("vocoder train", "--vocoder.side {tgt,src}"),
        ("run", "--lm.lora.rank N Rank of each update."),
    ],
)
def test_help_of_a_stage_has_its_keys(words: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_first_word_of_a_command_lists_those_that_begin_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lm", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all((command.words in shown) == command.words.startswith("lm ") for command in COMMANDS)


def test_the_list_of_commands_and_a_refusal_load_no_heavy_library(tmp_path) -> None:
    for arguments, code in (
        (["--help"], 0),
        (["serve", "model", "--max-queue", "0"], 2),
        (["run", "demo", "--out", str(tmp_path / "x"), "--lm.training.steps", "0"], 2),
        (["lm", "train", str(tmp_path)], 2),
        (["translate", "model", "a.wav", "--num-beams", "0"], 2),
    ):
        script = (
            f"import sys; from unitweave.cli import main; code = main({arguments!r});"
            "assert not {'torch', 'transformers'} & set(sys.modules), arguments; sys.exit(code)"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
        assert done.returncode == code, done.stderr
