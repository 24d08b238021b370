"""unitweave lm: the language models."""

from pathlib import Path

from unitweave.commands.base import Parser, open_run, print_settings, recipes_folder, settings_of, stage_command
from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout


def text(arguments: list[str]) -> None:
    """unitweave lm text RUN [--text_lm.KEY VALUE ...]"""
    stage_command("lm text", "text_lm", "text_lm", arguments)


def train(arguments: list[str]) -> None:
    """unitweave lm train RUN --system NAME [--lm.KEY VALUE ...]

    Started by torchrun or accelerate launch, all processes train together.
    """
    parser = Parser(prog="unitweave lm train", add_help=False)
    parser.add_argument("run", type=Path, help="the run folder")
    parser.add_argument("--system", help="name of the system (default: all of the recipe)")
    if {"-h", "--help"} & set(arguments):
        parser.print_help()
        print_settings(["lm"])
        return
    known, rest = parser.parse_known_args(arguments)
    run = open_run(known.run, None, settings_of(["lm"], rest, parser.prog) if rest else {})
    if known.system and known.system not in run.recipe.systems:
        raise InputError(
            f"{known.run}: the recipe has no system {known.system!r}; it has: {', '.join(run.recipe.systems)}"
        )
    for system in [known.system] if known.system else run.recipe.systems:
        run.lm(system)


def plan(arguments: list[str]) -> None:
    """unitweave lm plan RECIPE|RUN [--units RUN] [--system NAME] [--gpu KIND] [--gpus N] [--json]"""
    parser = Parser(prog="unitweave lm plan", description="What a training will be like, before it is begun.")
    parser.add_argument("recipe", help="a YAML file, the name of a built-in recipe, or a run folder, for its own")
    parser.add_argument(
        "--units", type=Path, metavar="RUN", help="a run folder whose corpus and units are measured (default: RECIPE's)"
    )
    parser.add_argument("--system", help="name of the system (default: all of the recipe)")
    parser.add_argument("--gpu", default="h100", help="kind of GPU (default: h100)")
    parser.add_argument("--gpus", type=int, default=1, help="how many of them (default: 1)")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")
    known = parser.parse_args(arguments)

    import json
    from dataclasses import asdict

    from unitweave.config.recipe import load_recipe
    from unitweave.lm.plan import format_plan, make_plan, measure

    builtin, given = recipes_folder() / f"{known.recipe}.yaml", Path(known.recipe)
    if RunLayout(given).recipe.exists():
        known.units = known.units or (given if RunLayout(given).units.is_dir() else None)
        given = RunLayout(given).recipe
    recipe = load_recipe(builtin if builtin.exists() and not given.is_file() else given)
    if known.system and known.system not in recipe.systems:
        raise InputError(f"{known.recipe}: has no system {known.system!r}; it has: {', '.join(recipe.systems)}")
    systems = [known.system] if known.system else list(recipe.systems)
    at = RunLayout(known.units) if known.units else None
    corpus = at.corpus if at else _manifest(recipe.corpus.manifest)
    units, own = (at.units, at.text_lm_model) if at else (None, None)
    plans = []
    for name in systems:
        settings = recipe.systems[name]
        tokenizer = settings.pretrained or (str(own) if own is not None and own.exists() else None)
        lengths = measure(settings, corpus, units, tokenizer)
        plans.append(
            make_plan(name, settings, recipe.codebook.num_units, recipe.text_lm.shape, lengths, known.gpu, known.gpus)
        )
    if known.json:
        print(json.dumps([asdict(one) for one in plans], indent=2))
    else:
        print("\n\n".join("\n".join(format_plan(one, known.gpu, known.gpus)) for one in plans))


def _manifest(folder: str | None) -> Path | None:
    """The corpus folder that a recipe names, if it is there already."""
    return Path(folder) if folder is not None and (Path(folder) / "manifest.parquet").exists() else None
