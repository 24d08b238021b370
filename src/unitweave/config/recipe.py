"""A recipe: the settings of every stage of a run, read from one YAML file."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser, Namespace

from unitweave.core.errors import InputError
from unitweave.core.files import read_yaml
from unitweave.corpus.embedded.corpus import EmbeddedCorpus
from unitweave.corpus.embedded.spoken import SpokenCorpus
from unitweave.lm.text_lm import TextLmSettings
from unitweave.lm.train.finetune import LmSettings
from unitweave.lm.train.finetune import check_settings as check_lm
from unitweave.score.score import ScoreSettings
from unitweave.score.score import check_settings as check_score
from unitweave.translate.constraints import check_settings as check_decoding
from unitweave.translate.decode import DecodeSettings
from unitweave.units.extract import CodebookSettings, ExtractSettings, check_extract
from unitweave.units.train_codebook import check_codebook
from unitweave.units.train_encoder import EncoderSettings, check_encoder
from unitweave.vocoder.settings import VocoderSettings
from unitweave.vocoder.settings import check_settings as check_vocoder


@dataclass
class CorpusChoice:
    """Where the corpus comes from: one of these."""

    manifest: str | None = None  # folder with a manifest that a 'unitweave corpus' command wrote
    embedded: EmbeddedCorpus | None = None  # speech made on the spot; needs no download
    spoken: SpokenCorpus | None = None  # the same engines, speaking a table of your own parallel text


@dataclass
class Recipe:
    """All settings of a run; each field is a stage. In YAML, `systems` maps a name to what differs from `lm`."""

    corpus: CorpusChoice = field(default_factory=CorpusChoice)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    codebook: CodebookSettings = field(default_factory=CodebookSettings)
    units: ExtractSettings = field(default_factory=ExtractSettings)
    text_lm: TextLmSettings = field(default_factory=TextLmSettings)
    lm: LmSettings = field(default_factory=LmSettings)
    systems: dict[str, LmSettings] = field(default_factory=dict)
    vocoder: VocoderSettings = field(default_factory=VocoderSettings)
    translate: DecodeSettings = field(default_factory=DecodeSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InputError that names the file and the key."""
    path = Path(path)
    if not path.exists():
        known = ", ".join(sorted(p.stem for p in builtin_recipes()))
        raise InputError(f"{path}: no such recipe; built in are: {known}")
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a recipe is a mapping of stages to settings, this is {type(content).__name__}")
    try:
        return parse_recipe(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values; systems inherit what they do not set from `lm`."""
    content = dict(content)
    known = [f.name for f in fields(Recipe)]
    for key in content:
        if key not in known:
            raise InputError(f"unknown key {key!r}; a recipe has: {', '.join(known)}")
    shared = content.get("lm") or {}
    systems = content.get("systems") or {"scheduled": {}}
    if not isinstance(systems, dict) or not isinstance(shared, dict):
        raise InputError("systems and lm must be mappings")
    content["systems"] = {str(name): merged(shared, own or {}) for name, own in systems.items()}
    for name in content["systems"]:
        if not name.replace("-", "").replace("_", "").isalnum():
            raise InputError(f"systems.{name}: a system's name has letters, digits, - and _ only")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Recipe, "recipe")
    try:
        parsed: Namespace = parser.parse_object({"recipe": content})
    except ArgumentError as error:
        raise InputError(_clear(one_line(error))) from None
    recipe: Recipe = parser.instantiate(parsed).recipe
    check_recipe(recipe)
    return recipe


def check_recipe(recipe: Recipe) -> None:
    """Raise InputError for values that cannot be, in whichever stage, and for stages that do not fit together."""
    check_encoder(recipe.encoder)
    check_codebook(recipe.codebook)
    check_extract(recipe.units)
    check_vocoder(recipe.vocoder)
    check_decoding(recipe.translate)
    check_score(recipe.score)
    for name, system in recipe.systems.items():
        try:
            check_lm(system)
        except InputError as error:
            raise InputError(f"systems.{name} (or lm): {error}") from None
    for name, system in recipe.systems.items():
        if system.deduplicate and not recipe.vocoder.durations:
            raise InputError(f"systems.{name}.deduplicate needs a duration predictor: set vocoder.durations: true")


def merged(base: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own` in their places, mappings merged key by key."""
    if not isinstance(own, Mapping):
        raise InputError(f"expected a mapping of settings, not {own!r}")
    result = dict(base)
    for key, value in own.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def builtin_recipes() -> list[Path]:
    """The recipes that come with the package."""
    return sorted((Path(__file__).parent / "recipes").glob("*.yaml"))


def _clear(text: str) -> str:
    """jsonargparse's word for an unknown key of a system, in plain ones; it tells the class and not the section."""
    found = re.search(r"Option '([\w.-]+)' is not accepted", text)
    return f"lm or systems: no setting {found.group(1)!r}; 'unitweave lm train --help' lists them" if found else text


def one_line(error: Exception) -> str:
    """What jsonargparse says, without its nesting, on one line."""
    text = " ".join(str(error).split()).replace("recipe.", "")
    return text.removeprefix("Validation failed: ").removeprefix("Parser key 'recipe': ")
