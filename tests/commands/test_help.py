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


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.words)
def test_help_shows_nothing_of_python(command, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.words.split(), "--help"]) == 0
    shown = capsys.readouterr().out
    insides = (
        r"<function|<class|0x|NoneType|typing\.|PathLike|Literal\[|Optional\[|Union\[|dict\[|type: |: null\)|\+ \["
    )
    assert not re.search(insides, shown), re.search(f".*(?:{insides}).*", shown)
    positional, _, options = shown.partition("\noptions:")
    assert "required" not in positional
    assert shown.split("\n\n")[1].strip(), "no description"
    for entry in re.findall(r"^  (?:-\w \w+, )?--\S+ (\S+) ?", options, re.MULTILINE):
        # What follows an option is a short word or its choices, not the option's name in capitals.
        assert re.match(r"(N|X|PATH|TEXT|N\|\{KEY:|\{[\w,.-]+\}|\{KEY:|\[ITEM,\.\.\.\]|[A-Z][a-z]+|0;)", entry), entry


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("translate", "-o PATH, --out PATH Folder for the results. (default: translations)"),
        ("translate", "--num-beams N Beams of the search over the texts. (at least 1, default: the model's settings)"),
        ("run", "-o PATH, --out PATH The run folder. (required)"),
        ("run", "--vocoder.training.learning_rate X Peak learning rate, after the warm-up; the matrices that Muon"),
        ("run", "--lm.schedule.start X Text ratio at step 0 (not for points and function). (0 to 1, default: 0.9)"),
        ("corpus cvss", "--splits {train,dev,test} ... Splits to take. (default: train dev test)"),
        ("corpus", "--corpus.embedded.train N|{KEY: VALUE,...} Utterance pairs for training"),
    ],
)
def test_an_option_shows_what_it_takes_its_range_and_its_default(words, shown, capsys) -> None:
    assert main([*words.split(), "--help"]) == 0
    assert shown in " ".join(capsys.readouterr().out.split())
