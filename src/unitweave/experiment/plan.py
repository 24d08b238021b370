"""An experiment: a grid of trainings that share everything but the language model, read from one YAML file."""

import copy
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from unitweave.config.interleave import SPEECH_TO_SPEECH
from unitweave.config.recipe import Recipe, merged, one_line, parse_recipe
from unitweave.core.errors import InputError
from unitweave.core.files import read_yaml

_AXES = ("models", "data", "systems", "seeds", "steps")
_OF_THE_GRID = ("steps", "seed", "batch_size")  # keys of lm.training that no system may set for itself


@dataclass
class Block:
    """A part of the grid: every combination of these. An empty list stands for all, but seeds are named."""

    models: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    steps: list[int] = field(default_factory=list)  # optimizer steps of a training; empty: the recipe's
    until: str = "all"  # "dev": a longer training only while the last lengthening raised the dev score; "all": each


@dataclass
class Versus:
    """A comparison beside those with method and baseline."""

    system: str
    against: str


@dataclass
class Experiment:
    """What is compared with what; the YAML's keys."""

    title: str
    question: str = ""  # what the experiment is to answer, for the page of results
    remark: str = ""  # what a reader has to know beside it, as how its cells were chosen
    base: str | None = None  # a recipe that `recipe` adds to: a built-in one's name, or a file beside the experiment's
    recipe: dict[str, Any] = field(default_factory=dict)  # settings of the stages, as in a recipe, without systems
    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {"scratch": {}})  # name -> what differs from lm
    data: dict[str, float | dict[str, float]] = field(default_factory=lambda: {"all": 1.0})
    # name -> how much of each language's training speech: up to 1 a share, above 1 utterance pairs; or by language
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> what differs from lm
    baseline: str = "baseline"  # the system that the others are compared with
    method: str = "scheduled"  # the system that the ablations are compared with
    versus: list[Versus] = field(default_factory=list)  # further comparisons, as at another learning rate
    looks: int = 5  # times that the dev split is decoded in a training, the last at its end; 0 never
    grid: list[Block] = field(default_factory=lambda: [Block()])


@dataclass(frozen=True)
class Cell:
    """One training of the grid."""

    model: str
    data: str
    system: str
    steps: int
    seed: int
    shorter: "Cell | None" = field(default=None, compare=False)  # needed only if this one's dev score still rose

    @property
    def name(self) -> str:
        """Its name in the run folder: lm/NAME, translate/NAME, scores/NAME."""
        return f"{self.model}_{self.data}_{self.system}_{self.steps}_s{self.seed}"

    @property
    def group(self) -> tuple[str, str, int]:
        """What compared systems have in common, but for the seed."""
        return self.model, self.data, self.steps


@dataclass(frozen=True)
class Plan:
    """An experiment with its recipe, whose systems are the cells, and the cells in the order of their doing."""

    experiment: Experiment
    recipe: Recipe
    cells: list[Cell]


def load_experiment(path: Path, pretrained: Mapping[str, str] | None = None) -> tuple[Plan, dict[str, Any]]:
    """Read and check an experiment; also returns its plain content, with the base recipe written out.

    pretrained  model -> folder, in place of what the file says
    Raises InputError that names the file and the key.
    """
    path = Path(path)
    content = _read(path)
    try:
        content = _with_base(content, path.parent)
        for name, folder in (pretrained or {}).items():
            models = content.get("models")
            if not isinstance(models, dict) or name not in models:
                raise InputError(f"--pretrained {name}: the experiment has no such model")
            models[name] = merged(models[name] or {}, {"pretrained": folder})
        return parse_experiment(content), content
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def joined(contents: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """One experiment from those of several folders that each did a part of its grid.

    What is named (models, amounts of data, systems), further comparisons and blocks of the grid add up; question and
    remark are the first one's. Raises InputError where the same name stands for different things, or where
    anything else differs; only where pretrained weights lie does not count.
    """
    (first, whole), *others = [(folder, dict(content)) for folder, content in contents.items()]
    for folder, content in others:
        for key in dict.fromkeys([*whole, *content]):
            if key in ("question", "remark"):
                continue
            ours, theirs = whole.get(key), content.get(key)
            if key in ("models", "data", "systems"):
                ours, theirs = ours or {}, theirs or {}
                for name in ours.keys() & theirs.keys():
                    if _placeless(ours[name]) != _placeless(theirs[name]):
                        raise _differ(first, folder, f"{key}.{name}")
                whole[key] = {**ours, **{name: theirs[name] for name in theirs if name not in ours}}
            elif key in ("grid", "versus"):
                whole[key] = [*(ours or []), *(x for x in theirs or [] if x not in (ours or []))]
            elif ours != theirs:
                raise _differ(first, folder, key)
    return whole


def _placeless(settings: Any) -> Any:
    """A model's settings without the folder of its weights, which count by their digest."""
    return {k: v for k, v in settings.items() if k != "pretrained"} if isinstance(settings, dict) else settings


def _differ(first: Path, other: Path, key: str) -> InputError:
    return InputError(f"{first}, {other}: both are of the experiment of the same title, but {key} differs between them")


def _read(path: Path) -> dict[str, Any]:
    content = read_yaml(path)
    if not isinstance(content, dict):
        raise InputError(f"{path}: a mapping belongs here, this is {type(content).__name__}")
    return content


def _with_base(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content with its base recipe, less that one's systems, merged in."""
    if content.get("base") is None:
        return content
    name = str(content["base"])
    builtin = Path(__file__).parent.parent / "config" / "recipes" / f"{name}.yaml"
    source = builtin if builtin.exists() else folder / name
    if not source.exists():
        raise InputError(f"base: no recipe {name!r}, neither built in nor at {source}")
    base = _read(source)
    base.pop("systems", None)
    return content | {"base": None, "recipe": merged(base, content.get("recipe") or {})}


def parse_experiment(content: Mapping[str, Any]) -> Plan:
    """A plan from plain values, without a base. Raises InputError that names the key."""
    known = [f.name for f in fields(Experiment)]
    for key in content:
        if key not in known:
            raise InputError(f"unknown key {key!r}; an experiment has: {', '.join(known)}")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, "experiment")
    content = copy.deepcopy(dict(content))  # jsonargparse puts its own classes into the lists that it is given
    try:
        experiment: Experiment = parser.instantiate(parser.parse_object({"experiment": content})).experiment
    except ArgumentError as error:
        raise InputError(one_line(error).replace("experiment.", "")) from None
    _check(experiment)
    default = parse_recipe(experiment.recipe | {"systems": {"any": {}}}).systems["any"].training.steps
    cells = make_cells(experiment, default)
    for steps in sorted({cell.steps for cell in cells}):
        if experiment.looks and steps % experiment.looks:
            raise InputError(f"looks: {steps} steps do not divide into {experiment.looks} looks at the dev split")
    systems = {cell.name: _settings(experiment, cell) for cell in cells}
    plan = Plan(experiment, parse_recipe(experiment.recipe | {"systems": systems}), cells)
    for cell in cells:
        if not plan.recipe.systems[cell.name].speech_to_speech:
            needed = " or ".join(SPEECH_TO_SPEECH)
            raise InputError(f"systems.{cell.system}: it cannot be scored; tasks needs {needed} for that")
    return plan


def make_cells(experiment: Experiment, default_steps: int) -> list[Cell]:
    """The cells of all blocks, each once, in the order of the blocks.

    Within a block the smallest amounts of work that can be compared come first: all systems of a seed
    side by side, so that a sitting that ends early has whole comparisons.
    """
    cells: dict[Cell, Cell] = {}
    for block in experiment.grid:
        models, data = block.models or list(experiment.models), block.data or list(experiment.data)
        systems, steps = block.systems or list(experiment.systems), sorted(block.steps or [default_steps])
        for model, amount, seed, system in itertools.product(models, data, block.seeds, systems):
            shorter = None
            for length in steps:
                cell = Cell(model, amount, system, length, seed, shorter)
                known = cells.get(cell)
                if known is None or cell.shorter is None:  # asked for on its own, it does not wait for a shorter one
                    cells[cell] = cell
                shorter = cell if block.until == "dev" else None
    return list(cells.values())


def _settings(experiment: Experiment, cell: Cell) -> dict[str, Any]:
    """What differs from the recipe's lm in one cell."""
    looks = {"evaluation": {"eval_steps": cell.steps // experiment.looks if experiment.looks else 0}}
    own = merged(experiment.models[cell.model] or {}, experiment.systems[cell.system] or {})
    return merged(own, looks | {"training": {"steps": cell.steps, "seed": cell.seed}})


def _check(experiment: Experiment) -> None:
    """Raise InputError for a grid that names what is not there, or compares what cannot be compared."""
    if "systems" in experiment.recipe:
        raise InputError("recipe.systems: an experiment's systems stand beside its recipe, not in it")
    if not experiment.systems:
        raise InputError("systems: name at least one")
    for axis in ("models", "data", "systems"):
        for name in getattr(experiment, axis):
            if not name.replace("-", "").isalnum():
                raise InputError(f"{axis}.{name}: a name has letters, digits and - only")
    for name, amount in experiment.data.items():
        for value in amount.values() if isinstance(amount, dict) else [amount]:
            if value <= 0:
                raise InputError(f"data.{name}: {value} must be above 0")
    for axis in ("models", "systems"):
        for name, own in getattr(experiment, axis).items():
            found = [key for key in _OF_THE_GRID if key in ((own or {}).get("training") or {})]
            # A model may need batches of its own; of compared systems each sees the same.
            found = [key for key in found if axis == "systems" or key != "batch_size"]
            if found:
                raise InputError(f"{axis}.{name}.training.{found[0]}: all compared systems have the same")
    if not experiment.grid:
        raise InputError("grid: name at least one block")
    for number, block in enumerate(experiment.grid, 1):
        if not block.seeds:
            raise InputError(f"grid, block {number}: seeds has to name at least one")
        if block.until not in ("all", "dev"):
            raise InputError(f"grid, block {number}: until {block.until!r} is neither 'all' nor 'dev'")
        if block.until == "dev" and not experiment.looks:
            raise InputError(f"grid, block {number}: until 'dev' needs looks at the dev split; set looks above 0")
        for axis in ("models", "data", "systems"):
            for name in getattr(block, axis):
                if name not in getattr(experiment, axis):
                    raise InputError(f"grid, block {number}: {axis} has no {name!r}")
        for axis in ("seeds", "steps"):
            values = getattr(block, axis)
            if len(set(values)) < len(values) or any(value < (axis == "steps") for value in values):
                raise InputError(f"grid, block {number}: {axis} {values} should be different numbers, none below 0")
    named = [name for pair in experiment.versus for name in (pair.system, pair.against)]
    for name in (experiment.baseline, experiment.method, *named):
        if name not in experiment.systems:
            raise InputError(f"systems has no {name!r}, which baseline, method or versus names")


def builtin_experiments() -> list[Path]:
    """The experiments that come with the package."""
    return sorted((Path(__file__).parent.parent / "config" / "recipes" / "experiments").glob("*.yaml"))
