"""A recipe: the settings of every stage of a run, read from one YAML file."""

import copy
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar, cast, get_type_hints

import yaml
from jsonargparse import ArgumentError, ArgumentParser

from unitweave.config import RECIPES
from unitweave.config.corpus import CorpusSettings
from unitweave.config.lm import LmSettings, TextLmSettings
from unitweave.config.plain import check_plain
from unitweave.config.score import ScoreSettings
from unitweave.config.translate import TranslateSettings
from unitweave.config.types import RANGES, Settings
from unitweave.config.units import CodebookSettings, EncoderSettings, ExtractionSettings
from unitweave.config.vocoder import VocoderSettings
from unitweave.core.distributed import on_main
from unitweave.core.errors import InputError
from unitweave.core.files import read_yaml, write_text
from unitweave.core.layout import RunLayout, check_run_folder
from unitweave.core.lock import in_use

_Settings = TypeVar("_Settings")


@dataclass
class Recipe(Settings):
    """All settings of a run; each field is a stage. In YAML, `systems` maps a name to what differs from `lm`."""

    corpus: CorpusSettings = field(default_factory=CorpusSettings)
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    codebook: CodebookSettings = field(default_factory=CodebookSettings)
    units: ExtractionSettings = field(default_factory=ExtractionSettings)
    text_lm: TextLmSettings = field(default_factory=TextLmSettings)
    lm: LmSettings = field(default_factory=LmSettings)
    systems: dict[str, LmSettings] = field(default_factory=dict)
    vocoder: VocoderSettings = field(default_factory=VocoderSettings)
    translate: TranslateSettings = field(default_factory=TranslateSettings)
    score: ScoreSettings = field(default_factory=ScoreSettings)

    def check(self) -> None:
        """Raise InputError for stages that do not fit together."""
        for name, system in self.systems.items():
            if not re.fullmatch(r"[\w-]+", name):
                raise InputError(f"systems.{name}: a system's name has letters, digits, - and _ only")
            if system.deduplicate and not (self.vocoder.duration_predictor or self.vocoder.pretrained):
                raise InputError(
                    f"systems.{name}.deduplicate needs a duration predictor: set vocoder.duration_predictor: true"
                )


SECTIONS = tuple(entry.name for entry in fields(Recipe) if entry.name != "systems")


def find_recipe(name: Path | str) -> Path:
    """The file of a recipe: a path, or the name of a built-in one. Raises InputError when there is none."""
    path, builtin = Path(name), RECIPES / f"{name}.yaml"
    chosen = builtin if builtin.exists() and (not path.exists() or path.is_dir()) else path
    if not chosen.exists() or chosen.is_dir():
        names = ", ".join(recipe.stem for recipe in builtin_recipes())
        raise InputError(f"{name}: no such recipe; give a YAML file or one of: {names}")
    return chosen


def load_recipe(path: Path) -> Recipe:
    """Read and check a recipe. Raises InputError that names the file and the key."""
    return load_with(path, {})[0]


def load_with(path: Path, overrides: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """A recipe with other values for some settings, checked, and its plain content.

    The file is read once: it may be a pipe. Raises InputError that names the file and the key.
    """
    content = read_mapping(path)
    try:
        recipe = parse_recipe(content)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    if overrides:
        content = merged(content, overrides)
        recipe = parse_recipe(content)
    return recipe, content


def keep_recipe(folder: Path, recipe: Recipe | Path | str | None, overrides: Mapping[str, Any]) -> Recipe:
    """The recipe of a run folder, checked and kept in it.

    Args:
        folder: The run folder.
        recipe: A recipe, its file, or the name of a built-in one; None for the folder's own.
        overrides: Settings that take the place of the recipe's, as nested plain values.

    Raises:
        InputError: There is no such recipe, it has invalid values, `folder` cannot be a run folder, or the recipe would
            change while another process is doing a stage of it.
    """
    check_run_folder(folder)
    overrides = json.loads(json.dumps(overrides, default=_function_name))  # plain numbers: flags give restricted types
    kept = RunLayout(folder).recipe
    if recipe is None and not kept.exists():
        raise InputError(
            f"{folder}: not a run folder (no {kept.name}); begin one with 'unitweave run RECIPE --out {folder}'"
        )
    if isinstance(recipe, Recipe):
        content = merged(
            json.loads(json.dumps(asdict(recipe), default=_function_name)), overrides
        )  # tuples become lists
        checked = parse_recipe(content) if overrides else recipe
    else:
        checked, content = load_with(kept if recipe is None else find_recipe(recipe), overrides)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)

    def keep() -> None:
        # A finished run may lie in a place that is read-only.
        if kept.exists() and kept.read_bytes() == text.encode():
            return
        if holder := in_use(folder):
            raise InputError(f"{kept}: cannot change now, since {holder}; wait until it has finished, or stop it")
        try:
            write_text(kept, text)
        except PermissionError:
            raise InputError(f"{folder}: no permission to write there") from None

    on_main(keep)  # the main process alone looks, too: another one might already see what it has written
    return checked


def _function_name(value: Any) -> str:
    """A function, such as a schedule's, as a recipe file names it."""
    return f"{value.__module__}:{value.__qualname__}" if callable(value) else str(value)


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file. Raises InputError when it cannot be read or is something else."""
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must be a mapping of names to settings (got {type(content).__name__})")
    return content


def parse_recipe(content: Mapping[str, Any]) -> Recipe:
    """A recipe from plain values; systems inherit from `lm` what they do not set. Raises InputError."""
    check_keys(content, Recipe, "a recipe")
    shared, by_system = content.get("lm") or {}, content.get("systems") or {"scheduled": {}}
    if not isinstance(by_system, Mapping) or not isinstance(shared, Mapping):
        raise InputError("systems and lm must be mappings")
    parsed = {key: value for key, value in content.items() if key != "systems" and value is not None}
    sections = {name: parse_settings(kind, parsed.get(name, {}), name) for name, kind in section_types().items()}
    systems = {}
    for name, different in by_system.items():
        try:
            systems[str(name)] = parse_settings(LmSettings, merged(shared, different or {}), "lm")
        except InputError as error:
            raise InputError(f"systems.{name} (or lm): {str(error).removeprefix('lm.')}") from None
    return Recipe(systems=systems, **sections)


def check_keys(content: Mapping[str, Any], kind: type, what: str, where: str = "") -> None:
    """Raise InputError for a key that is no field of `kind`; `what` and `where` stand in the message."""
    known = [entry.name for entry in fields(kind)]
    for key in content:
        if key not in known:
            raise InputError(f"{where}unknown key {key!r}; {what} has: {', '.join(known)}")


def section_types() -> dict[str, type[Any]]:
    """The settings class of each section, but for systems."""
    hints = get_type_hints(Recipe)
    return {name: hints[name] for name in SECTIONS}


def parse_settings(kind: type[_Settings], content: Mapping[str, Any], name: str) -> _Settings:
    """Settings of a class from plain values; `name` stands before the keys in errors. Raises InputError."""
    check_plain(kind, content, name)
    try:
        text = json.dumps(content)
    except (TypeError, ValueError, RecursionError):  # what YAML can say and JSON cannot, such as a date
        return _parse_settings(kind, _plain(content), name)
    return copy.deepcopy(_parse_once(cast(Any, kind), text, name))


@lru_cache(maxsize=1024)
def _parse_once(kind: type[_Settings], text: str, name: str) -> _Settings:
    """Most sections are the same in the next recipe, and all systems but for a few keys: parsing takes a while."""
    return _parse_settings(kind, json.loads(text), name)


def _parse_settings(kind: type[_Settings], content: Mapping[str, Any], name: str) -> _Settings:
    parser = _parser(cast(Any, kind), name)
    try:
        made: _Settings = parser.instantiate(parser.parse_object({name: content}))[name]
    except ArgumentError as error:
        raise InputError(one_line(error)) from None
    except (InputError, ValueError) as error:
        # jsonargparse wraps what the settings themselves refuse, where they are ones that may be left out.
        refused = error if isinstance(error, InputError) else error.__cause__
        if not isinstance(refused, InputError):
            raise
        raise InputError(f"{name}.{refused}") from None
    return made


@cache
def _parser(kind: type, name: str) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(kind, name)
    return parser


def _plain(content: Any) -> Any:
    """A copy: jsonargparse puts its own classes into the lists that it is given."""
    if isinstance(content, Mapping):
        return {key: _plain(value) for key, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list) else content


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `own` in their places, mappings merged key by key."""
    if not isinstance(overrides, Mapping):
        raise InputError(f"must be a mapping of settings (got {overrides!r})")
    result = dict(base)
    for key, value in overrides.items():
        both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
        result[key] = merged(result[key], value) if both else value
    return result


def builtin_recipes() -> list[Path]:
    """The recipes that come with the package."""
    return sorted(RECIPES.glob("*.yaml"))


def one_line(error: Exception) -> str:
    """What jsonargparse says of a value or a key, on one line and in plain words."""
    text = " ".join(str(error).split())
    keys = re.findall(r'Parser key "([\w.]+)"(?: element \d+)?:', text)
    key = ".".join(keys)
    if match := re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", text):
        return f"{match[1]}.{match[2]}: no such setting; {_where_listed(match[1])}"
    if match := re.search(r"Option '([\w.-]+)' is not accepted", text):
        return f"{key}.{match[1]}: no such setting; {_where_listed(key)}"
    given = re.search(
        r"(?:Given value: (.*?)(?: - | Given| Parser|$))", text
    )  # of the innermost type that allows several
    if match := re.search(
        r"Not of type (\w+):(?: (?!does )(\S+) (?:does not conform|not an?)|.*?(?:base 10|to float): ('.*?'))?", text
    ):
        got = next((one for one in (match[2], match[3], given and given[1]) if one), "?")
        return f"{key}: must be {RANGES.get(match[1], match[1])} (got {got})"
    if match := re.search(r"Expected a typing.Literal\[(.*?)\]", text):
        got = given or re.search(r"Got value: (.*)", text)
        return f"{key}: must be one of {match[1].replace(chr(39), '')} (got {got[1] if got else '?'})"
    if match := re.search(r"Expected a <class '(\w+)'>(?:. Got value: (.*))?", text):
        wanted = {
            "str": "text",
            "dict": "a mapping",
            "list": "a list",
            "bool": "true or false",
            "NoneType": "a mapping",
        }.get(match[1], match[1])
        return f"{key}: must be {wanted} (got {given[1] if given else match[2]})"
    return text.removeprefix("Validation failed: ")


def _where_listed(key: str) -> str:
    return f"'unitweave run --help' lists those of {key.partition('.')[0]}"
