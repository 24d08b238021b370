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
    """Estimate sizes, lengths, memory and hours of a training and of translating, and warn of likely mistakes.

    Args:
        recipe: A YAML file, the name of a built-in recipe, or a run folder, whose recipe is taken.
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

    from unitweave.core.manifest import read_manifest
    from unitweave.corpus.tasks import check_tasks, describe_tasks
    from unitweave.lm.estimate import model_config
    from unitweave.lm.plan import format_plan, make_plan, measure
    from unitweave.training.hardware import GPUS
    from unitweave.translate.estimate import as_lines, translation_hours
    from unitweave.units.dataset import FRAME_RATE, read_units_metadata, units_per_second

    layout = RunLayout(units) if units else None
    corpus = layout.corpus if layout else _manifest(read.corpus.manifest)
    text_lm = layout.text_lm_model if layout else None
    plans = []
    pairs = read_manifest(corpus) if corpus is not None else None
    for name in [system] if system else list(read.systems):
        settings = read.systems[name]
        if pairs is not None:
            check_tasks(pairs, settings.tasks, f"systems.{name}", extra_text=settings.extra_text is not None)
        tokenizer = settings.pretrained or (str(text_lm) if text_lm is not None and text_lm.exists() else None)
        lengths = measure(settings, corpus, layout.units if layout else None, tokenizer)
        plans.append(make_plan(name, settings, read.codebook.num_units, read.text_lm.shape, lengths, gpu, gpus))
    utterances, seconds = _test_set(corpus)
    rate = units_per_second(read_units_metadata(layout.units)) if layout and layout.units.exists() else FRAME_RATE
    hours = {
        plan.system: translation_hours(
            model_config(read.systems[plan.system].pretrained, read.text_lm.shape), plan.facts["parameters"], GPUS[gpu],
            read.translate.batch_size, utterances, seconds, rate,
        )
        for plan in plans
    }  # fmt: skip
    if json:
        content = [asdict(plan) | {"translation_hours": hours[plan.system]} for plan in plans]
        print(json_module.dumps(content, indent=2))
    else:
        if pairs is not None:
            print(describe_tasks(pairs))
        texts = [
            [*format_plan(plan, gpu, gpus), *as_lines(hours[plan.system], gpu, utterances, seconds)] for plan in plans
        ]
        print("\n\n".join("\n".join(lines) for lines in texts))


def _manifest(folder: str | None) -> Path | None:
    """The corpus folder that a recipe names, if it is there already."""
    return Path(folder) if folder is not None and (Path(folder) / "manifest.parquet").exists() else None


def _test_set(corpus: Path | None) -> tuple[int, float]:
    """Utterances of the test split and their mean seconds; the paper's where there is no corpus yet."""
    from unitweave.core.manifest import read_manifest
    from unitweave.translate.estimate import PAPER_SECONDS, PAPER_UTTERANCES

    pairs = read_manifest(corpus, "test") if corpus is not None else []
    if not pairs:
        return PAPER_UTTERANCES, PAPER_SECONDS
    return len(pairs), sum((p.src_seconds or 0) + (p.tgt_seconds or 0) for p in pairs) / 2 / len(pairs)
