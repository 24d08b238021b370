"""Help says of every key what it means, from the one place where that stands."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_args, get_type_hints

import pytest

from unitweave.cli import COMMANDS, main
from unitweave.commands.base import SECTIONS
from unitweave.commands.explain import comments, explain
from unitweave.config.recipe import Recipe


@dataclass
class Inner:
    """What is inside."""

    width: int = 3  # of a thing, in %


@dataclass
class Outer:
    """An example."""

    name: str | None = None  # what it is called
    shape: str = "round"  # "round" or "square"
    size: dict[str, float] | None = None  # a long meaning
    # that goes on below
    inner: Inner | None = None  # may be left out
    plain: list[tuple[int, float]] | None = None
    """Said in a string."""


def test_a_keys_meaning_is_what_stands_beside_it() -> None:
    assert comments(Outer) == {
        "name": "what it is called",
        "shape": '"round" or "square"',
        "size": "a long meaning that goes on below",
        "inner": "may be left out",
        "plain": "Said in a string.",
    }
    shown = " ".join(explain(Outer, "outer").split())
    for part in (
        "outer: An example:",
        "--outer.name TEXT what it is called (default: null)",
        "--outer.size {TEXT: NUMBER} a long meaning that goes on below",
        "--outer.plain [[INT,NUMBER],...] Said in a string.",
        "--outer.inner ... may be left out",
        "outer.inner: What is inside:",
        "--outer.inner.width INT of a thing, in % (default: 3)",
    ):
        assert part in shown, part


def keys(kind: Any, name: str) -> Iterator[tuple[str, str]]:
    hints, meanings = get_type_hints(kind), comments(kind)
    for entry in fields(kind):
        hint = hints[entry.name]
        inner = [part for part in (hint, *get_args(hint)) if is_dataclass(part)]
        if inner:
            yield from keys(inner[0], f"{name}.{entry.name}")
        else:
            yield f"{name}.{entry.name}", meanings[entry.name]


def test_every_key_of_a_recipe_is_explained() -> None:
    hints = get_type_hints(Recipe)
    found = [pair for section in SECTIONS for pair in keys(hints[section], section)]
    assert len(found) > 100 and not [key for key, meaning in found if not meaning]


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("lm train", "--lm.schedule.stair_steps NUMBER staircase: optimizer steps of one stair (default: 300)"),
        ("corpus", "--corpus.embedded.unseen_speaker_ratio NUMBER Part of the dev and test recordings"),
        ("vocoder train", "--vocoder.side tgt|src"),
        ("run", "--score.mos [TEXT,...]"),
    ],
)
def test_help_of_a_stage_has_its_keys(words: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*words.split(), "--help"]) == 0
    assert shown in " ".join(capsys.readouterr().out.split())


def test_the_first_word_of_a_command_lists_those_that_begin_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["lm", "--help"]) == 0
    shown = capsys.readouterr().out
    assert all((command.words in shown) == command.words.startswith("lm ") for command in COMMANDS)
