"""Settings from a file are plain values: none of them has a class imported."""

import sys
from pathlib import Path
from typing import Any

import pytest

from unitweave.config.recipe import parse_recipe
from unitweave.core.errors import InputError
from unitweave.experiment.plan import parse_experiment

EXPERIMENT = {"title": "T", "systems": {"baseline": {}, "scheduled": {}}, "grid": [{}]}
ESCAPED = '{"class\\u005fpath": "imported_by_settings.Made"}'
FOLDED = '"class\\\n   _path": imported_by_settings.Made'
CLASSES: list[Any] = [
    "imported_by_settings.Made",
    ["imported_by_settings.Made"],
    {"class_path": "imported_by_settings.Made"},
    [{"class_path": "imported_by_settings.Made", "init_args": {}}],
    {"a": {"class_path": "imported_by_settings.Made"}},
    {"a": {"b": {"class_path": "imported_by_settings.Made"}}},
    '{"class_path": "imported_by_settings.Made"}',
    ESCAPED,
    [ESCAPED],
    {"a": ESCAPED},
    {"a": {"b": ESCAPED}},
    {"a": FOLDED},
]
PLACES = {
    "recipe": ["lm", "systems", "corpus.embedded", "lm.lora", "lm.schedule", "lm.schedule.function", "lm.unit_noise"],
    "options": ["units.tokenizer_options", "vocoder.options", "vocoder.options.x", "score.cascades", "lm.tasks"],
    "experiment": ["grid", "comparisons", "recipe", "recipe.lm", "recipe.score.cascades", "models", "models.m", "data"],
    "further": ["models.m.lora", "systems.scheduled.schedule", "parts", "title", "evaluations"],
}


@pytest.fixture
def importable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "imported_by_settings.py").write_text("class Made:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize("place", [place for places in PLACES.values() for place in places])
def test_nothing_is_imported_for_settings(importable: None, place: str) -> None:
    of_recipe = place in PLACES["recipe"] + PLACES["options"]
    for value in CLASSES:
        content: Any = value
        for key in reversed(place.split(".")):
            content = {key: content}
        try:
            parse_recipe(content) if of_recipe else parse_experiment(EXPERIMENT | content)
        except InputError as error:
            assert "\n" not in str(error)
        assert "imported_by_settings" not in sys.modules, value


def test_a_class_is_refused_by_the_name_of_its_key() -> None:
    with pytest.raises(InputError, match=r"^lm.schedule: class_path is no setting; settings are plain values$"):
        parse_recipe({"lm": {"schedule": {"class_path": "x.Y", "init_args": {}}}})
    with pytest.raises(InputError, match=r"^vocoder.options.x: class_path is no setting"):
        parse_recipe({"vocoder": {"options": {"x": ESCAPED}}})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"grid": None}, "grid: has no value"),
        ({"models": None}, "models: has no value"),
        ({"grid": [{"threads": None}]}, "grid, entry 1.threads: has no value"),
        ({"grid": ["baseline"]}, "grid, entry 1: must be a mapping of settings"),
        ({"comparisons": {"system": "scheduled"}}, "comparisons: must be a list"),
    ],
)
def test_lists_without_value_are_refused_with_their_key(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        parse_experiment(EXPERIMENT | changes)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match="baseline and method are both 'scheduled'"):
        parse_experiment(EXPERIMENT | {"baseline": "scheduled"})
    for amount in (float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"data\.all: must be a finite number greater than 0"):
            parse_experiment(EXPERIMENT | {"data": {"all": amount}})


def test_a_name_is_a_text() -> None:
    with pytest.raises(InputError, match=r"data\.100: a name may contain only letters"):
        parse_experiment(EXPERIMENT | {"data": {100: 1.0}})


def test_an_empty_block_means_all() -> None:
    assert [trial.system for trial in parse_experiment(EXPERIMENT).trials] == ["baseline", "scheduled"]
