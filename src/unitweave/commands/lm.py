"""The plan of a training of the language model."""

from dataclasses import asdict
from pathlib import Path
from typing import Literal

from unitweave.config.recipe import find_recipe, load_with
from unitweave.config.types import PositiveInt
from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout


def plan(
    recipe: str,
    *,
    units: Path | None = None,
    system: str | None = None,
    gpu: Literal["h200", "h100", "a100", "l40s", "l4", "rtx4090", "rtx3090"] = "h100",
    gpus: PositiveInt = 1,
    json: bool = False,
) -> None:
    """Estimate sizes, lengths, memory and hours of a training before it is begun, with warnings.

    Args:
        recipe: A YAML file, the name of a built-in recipe, or a run folder for its own.
        units: Run folder whose corpus and units are measured (default: the one given as recipe).
        system: Name of the system (default: all of the recipe).
        gpu: Kind of GPU.
        gpus: Number of GPUs.
        json: Print the plan as JSON.
    """
    if (given := RunLayout(Path(recipe))).recipe.exists():
        units = units or (given.folder if given.units.is_dir() else None)
        recipe = str(given.recipe)
    read, _ = load_with(find_recipe(recipe), {})
    if system and system not in read.systems:
        raise InputError(f"{recipe}: has no system {system!r}; it has: {', '.join(read.systems)}")

    import json as json_module

    from unitweave.lm.plan import format_plan, make_plan, measure

    at = RunLayout(units) if units else None
    corpus = at.corpus if at else _manifest(read.corpus.manifest)
    own = at.text_lm_model if at else None
    plans = []
    for name in [system] if system else list(read.systems):
        settings = read.systems[name]
        tokenizer = settings.pretrained or (str(own) if own is not None and own.exists() else None)
        lengths = measure(settings, corpus, at.units if at else None, tokenizer)
        plans.append(make_plan(name, settings, read.codebook.num_units, read.text_lm.shape, lengths, gpu, gpus))
    if json:
        print(json_module.dumps([asdict(one) for one in plans], indent=2))
    else:
        print("\n\n".join("\n".join(format_plan(one, gpu, gpus)) for one in plans))


def _manifest(folder: str | None) -> Path | None:
    """The corpus folder that a recipe names, if it is there already."""
    return Path(folder) if folder is not None and (Path(folder) / "manifest.parquet").exists() else None
