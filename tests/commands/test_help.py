"""Help explains every command and every key of a recipe, from the one place where that is written."""

import re

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
