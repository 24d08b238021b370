"""An experiment: a grid of trainings that share everything but the language model, read from one YAML file."""

import copy
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from jsonargparse import ArgumentError, ArgumentParser

from unitweave.config.interleave import SPEECH_TO_SPEECH
from unitweave.config.plain import check_plain
from unitweave.config.recipe import Recipe, check_keys, merged, one_line, parse_recipe, read_mapping
from unitweave.core.errors import InputError
from unitweave.core.languages import check_amounts

_RANGES = {"seeds": (0, 2**32 - 1), "threads": (1, 1024), "steps": (1, 10**9)}
_OF_THE_GRID = ("steps", "seed", "batch_size")  # keys of lm.training that no system may set itself


@dataclass
class Block:
    """A part of the grid: every combination of these. An empty list means all; seeds must be named.

    Seed, number of threads and machine all change a training at random: other threads add the same numbers in another
    order. So `threads` are trained side by side, as seeds are.
    """

    models: list[str] = field(default_factory=list)
    data: list[str] = field(default_factory=list)
    systems: list[str] = field(default_factory=list)
    seeds: list[int] = field(default_factory=lambda: [1])
    threads: list[int] = field(default_factory=list)  # of torch on the CPU; empty: as many as the process has
    steps: list[int] = field(default_factory=list)  # optimizer steps of a training; empty: the recipe's
    early_stopping: bool = False  # on dev: a longer training only if the last increase in steps raised the dev score


@dataclass
class RequestedComparison:
    """A comparison in addition to those with method and baseline."""

    system: str
    against: str


@dataclass
class Experiment:
    """What is compared with what; the YAML's keys."""

    title: str
    question: str = ""  # what the experiment is to answer, for the page of results
    notes: str = ""  # what else a reader has to know, such as how the trials were chosen
    base: str | None = None  # the recipe that `recipe` changes: a built-in one's name, or a file next to this one
    recipe: dict[str, Any] = field(default_factory=dict)  # settings of the stages, as in a recipe, without systems
    models: dict[str, dict[str, Any]] = field(default_factory=lambda: {"scratch": {}})  # name -> what differs from lm
    data: dict[str, float | dict[str, float]] = field(default_factory=lambda: {"all": 1.0})
    # name -> how much of each language's training speech: up to 1 a fraction, above 1 utterance pairs; or by language
    systems: dict[str, dict[str, Any]] = field(default_factory=dict)  # name -> what differs from lm
    baseline: str = "baseline"  # the system that the others are compared with
    method: str = "scheduled"  # the system that the ablations are compared with
    # further comparisons, for instance at another learning rate
    comparisons: list[RequestedComparison] = field(default_factory=list)
    # part of the test split -> pattern of ids, with * and ?; an utterance belongs to the first part that fits
    parts: dict[str, str] = field(default_factory=dict)
    evaluations: int = 5  # how often a training decodes the dev split, the last time at its end; 0: never
    grid: list[Block] = field(default_factory=lambda: [Block()])


@dataclass(frozen=True)
class Trial:
    """One training of the grid."""

    model: str
    data: str
    system: str
    steps: int
    seed: int
    shorter: "Trial | None" = field(default=None, compare=False)  # needed only if this one's dev score still rose
    threads: int = 0  # of torch on the CPU; 0: as many as the process has

    @property
    def name(self) -> str:
        """Its name in the run folder: lm/NAME, translate/NAME, scores/NAME."""
        threads = f"_t{self.threads}" if self.threads else ""
        return f"{self.model}_{self.data}_{self.system}_{self.steps}_s{self.seed}{threads}"

    @property
    def group(self) -> tuple[str, str, int]:
        """What compared systems have in common, except for seed, threads and machine."""
        return self.model, self.data, self.steps


@dataclass(frozen=True)
class ExperimentPlan:
    """An experiment with its recipe, whose systems are the trials, and the trials in the order in which they run."""

    experiment: Experiment
    recipe: Recipe
    trials: list[Trial]


def load_experiment(path: Path, pretrained: Mapping[str, str] | None = None) -> tuple[ExperimentPlan, dict[str, Any]]:
    """Read and check an experiment; also returns its plain content, with the base recipe written out.

    Args:
        pretrained: Model -> folder, in place of what the file says.

    Raises:
        InputError: It names the file and the key.
    """
    path = Path(path)
    content = read_mapping(path)
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


_JOINED = {"models": dict, "data": dict, "systems": dict, "grid": list, "comparisons": list}


def joined(contents: Mapping[Path, Mapping[str, Any]]) -> dict[str, Any]:
    """One experiment from those of several folders that each did a part of its grid.

    What is named (models, amounts of data, systems), further comparisons and blocks of the grid add up; question and
    notes are the first one's. Raises InputError where the same name means different things, or where
    anything else differs, except for the folder of pretrained weights.
    """
    for folder, content in contents.items():
        for key, kind in _JOINED.items():
            if not isinstance(content.get(key, kind()), kind):
                raise InputError(
                    f"{folder}: damaged experiment ({key} must be a {'mapping' if kind is dict else 'list'})"
                )
    (first, whole), *others = [(folder, dict(content)) for folder, content in contents.items()]
    for folder, content in others:
        for key in dict.fromkeys([*whole, *content]):
            if key in ("question", "notes"):
                continue
            ours, theirs = whole.get(key), content.get(key)
            if key in ("models", "data", "systems"):
                ours, theirs = ours or {}, theirs or {}
                for name in ours.keys() & theirs.keys():
                    if _placeless(ours[name]) != _placeless(theirs[name]):
                        raise _differ(first, folder, f"{key}.{name}")
                whole[key] = {**ours, **{name: theirs[name] for name in theirs if name not in ours}}
            elif key in ("grid", "comparisons"):
                whole[key] = [*(ours or []), *(x for x in theirs or [] if x not in (ours or []))]
            elif ours != theirs:
                raise _differ(first, folder, key)
    return whole


def _placeless(settings: Any) -> Any:
    """A model's settings without the folder of its weights, which count by their digest."""
    return {k: v for k, v in settings.items() if k != "pretrained"} if isinstance(settings, dict) else settings


def _differ(first: Path, other: Path, key: str) -> InputError:
    return InputError(
        f"{first}, {other}: both belong to the experiment of the same title, but {key} differs between them"
    )


def _with_base(content: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The content with its base recipe, without that one's systems, merged in."""
    if content.get("base") is None:
        return content
    name = str(content["base"])
    builtin = Path(__file__).parent.parent / "config" / "recipes" / f"{name}.yaml"
    source = builtin if builtin.exists() else folder / name
    if not source.exists():
        raise InputError(f"base: no recipe {name!r}: neither built in nor at {source}")
    base = read_mapping(source)
    base.pop("systems", None)
    try:
        parse_recipe(base)
    except InputError as error:
        raise InputError(f"base: {source}: {error}") from None
    return content | {"base": None, "recipe": merged(base, content.get("recipe") or {})}


def parse_experiment(content: Mapping[str, Any]) -> ExperimentPlan:
    """A plan from plain values, without a base. Raises InputError that names the key."""
    check_keys(content, Experiment, "an experiment")
    check_plain(Experiment, content)
    for number, block in enumerate(content.get("grid") or [], 1):
        check_keys(block, Block, "a block", f"grid, block {number}: ")
    for number, pair in enumerate(content.get("comparisons") or [], 1):
        check_keys(pair, RequestedComparison, "a comparison", f"comparisons, entry {number}: ")
    parser = ArgumentParser(exit_on_error=False)
    parser.add_class_arguments(Experiment, "experiment")
    values = copy.deepcopy(dict(content))  # jsonargparse puts its own classes into the lists that it is given
    if "grid" in values:  # it refuses an empty block, which means all
        values["grid"] = [block or {"seeds": [1]} for block in values["grid"]]
    try:
        experiment: Experiment = parser.instantiate(parser.parse_object({"experiment": values})).experiment
    except ArgumentError as error:
        raise InputError(one_line(error).replace("experiment.", "")) from None
    _check(experiment)
    default = parse_recipe(experiment.recipe | {"systems": {"any": {}}}).systems["any"].training.steps
    if default > _RANGES["steps"][1]:
        raise InputError(f"lm.training.steps: must be at most {_RANGES['steps'][1]} (got {default})")
    trials = make_trials(experiment, default)
    for steps in sorted({trial.steps for trial in trials}):
        if experiment.evaluations and steps % experiment.evaluations:
            raise InputError(
                f"evaluations: {steps} steps are not divisible by {experiment.evaluations} evaluations on the dev split"
            )
    plan = ExperimentPlan(experiment, _recipe(experiment, trials), trials)
    _check_languages(experiment, plan.recipe)
    for trial in trials:
        if plan.recipe.systems[trial.name].evaluation.early_stopping_patience:
            raise InputError("evaluation.early_stopping_patience: an experiment's trainings have the steps of its grid")
        if not plan.recipe.systems[trial.name].speech_to_speech:
            needed = " or ".join(SPEECH_TO_SPEECH)
            raise InputError(f"systems.{trial.system}: tasks must contain {needed}, since trials are scored on speech")
    return plan


def make_trials(experiment: Experiment, default_steps: int) -> list[Trial]:
    """The trials of all blocks, each once, in the order of the blocks.

    Within a block the smallest amounts of work that can be compared come first: all systems of a seed
    together, so that a session that ends early has complete comparisons.
    """
    trials: dict[Trial, Trial] = {}
    for block in experiment.grid:
        models, data = block.models or list(experiment.models), block.data or list(experiment.data)
        systems, steps = block.systems or list(experiment.systems), sorted(block.steps or [default_steps])
        axes = itertools.product(models, data, block.seeds, block.threads or [0], systems)
        for model, amount, seed, threads, system in axes:
            shorter = None
            for length in steps:
                trial = Trial(model, amount, system, length, seed, shorter, threads)
                existing = trials.get(trial)
                if (
                    existing is None or trial.shorter is None
                ):  # requested on its own, it does not wait for a shorter one
                    trials[trial] = trial
                shorter = trial if block.early_stopping else None
    return list(trials.values())


def _recipe(experiment: Experiment, trials: Sequence[Trial]) -> Recipe:
    """The recipe with the trials as its systems. Each model's settings of each system are parsed once."""
    by_system = {
        f"{model}_{system}": merged(experiment.models[model] or {}, experiment.systems[system] or {})
        for model, system in dict.fromkeys((trial.model, trial.system) for trial in trials)
    }
    try:
        recipe = parse_recipe(experiment.recipe | {"systems": by_system})
    except InputError as error:
        for model, system in dict.fromkeys((trial.model, trial.system) for trial in trials):
            if (text := str(error)) != (own := text.removeprefix(f"systems.{model}_{system} (or lm)")):
                raise InputError(f"recipe.lm, models.{model} or systems.{system}{own}") from None
        raise
    systems = {}
    for trial in trials:
        settings = recipe.systems[f"{trial.model}_{trial.system}"]
        eval_steps = trial.steps // experiment.evaluations if experiment.evaluations else 0
        try:
            systems[trial.name] = replace(
                settings,
                evaluation=replace(settings.evaluation, eval_steps=eval_steps),
                training=replace(settings.training, steps=trial.steps, seed=trial.seed),
            )
        except InputError as error:
            raise InputError(f"systems.{trial.name} (or lm): {error}") from None
    return replace(recipe, systems=systems)


def _check(experiment: Experiment) -> None:
    """Raise InputError for a grid that names what does not exist, or compares what is not comparable."""
    if "systems" in experiment.recipe:
        raise InputError("recipe.systems: an experiment's systems go under its own key 'systems'")
    for axis in ("models", "data", "systems"):
        if not getattr(experiment, axis):
            raise InputError(f"{axis}: name at least one")
        for name in getattr(experiment, axis):
            if not isinstance(name, str) or not name.replace("-", "").isalnum():
                raise InputError(f"{axis}.{name}: a name may contain only letters, digits and -")
    for name, amount in experiment.data.items():
        for value in amount.values() if isinstance(amount, dict) else [amount]:
            if not 0 < value < math.inf:
                raise InputError(f"data.{name}: must be a finite number greater than 0 (got {value})")
    for axis in ("models", "systems"):
        for name, own in getattr(experiment, axis).items():
            training = (own or {}).get("training")
            found = [key for key in _OF_THE_GRID if isinstance(training, dict) and key in training]
            # A model may need its own batch size; compared systems must see the same batches.
            found = [key for key in found if axis == "systems" or key != "batch_size"]
            if found:
                raise InputError(
                    f"{axis}.{name}.training.{found[0]}: belongs in the recipe or the grid, the same for all"
                )
    if not experiment.grid:
        raise InputError("grid: name at least one block")
    for number, block in enumerate(experiment.grid, 1):
        if not block.seeds:
            raise InputError(f"grid, block {number}: seeds must name at least one")
        if block.early_stopping and not experiment.evaluations:
            raise InputError(f"grid, block {number}: early_stopping needs dev scores; set evaluations above 0")
        for axis in ("models", "data", "systems"):
            for name in getattr(block, axis):
                if name not in getattr(experiment, axis):
                    raise InputError(f"grid, block {number}: {axis} has no {name!r}")
        for axis, (lowest, highest) in _RANGES.items():
            values = getattr(block, axis)
            if len(set(values)) < len(values) or not all(lowest <= value <= highest for value in values):
                raise InputError(
                    f"grid, block {number}: {axis} must be different numbers from {lowest} to {highest} (got {values})"
                )
    if experiment.baseline == experiment.method:
        raise InputError(f"baseline and method are both {experiment.method!r}, so there is nothing to compare")
    named = [name for pair in experiment.comparisons for name in (pair.system, pair.against)]
    for name in (experiment.baseline, experiment.method, *named):
        if name not in experiment.systems:
            raise InputError(f"systems has no {name!r}, which baseline, method or comparisons refers to")


def _check_languages(experiment: Experiment, recipe: Recipe) -> None:
    """Raise InputError for amounts by language that do not fit a corpus which the recipe makes."""
    settings = recipe.corpus.embedded or recipe.corpus.synthesized
    spoken = {source for source, _ in settings.pairs} if settings else set()
    for name, amount in experiment.data.items():
        if spoken and isinstance(amount, dict):
            check_amounts(amount, spoken, f"data.{name}: ")


def builtin_experiments() -> list[Path]:
    """The experiments that come with the package."""
    return sorted((Path(__file__).parent.parent / "config" / "recipes" / "experiments").glob("*.yaml"))
