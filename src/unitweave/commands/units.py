"""unitweave units: the encoder, the codebook, extraction, and units from and for elsewhere."""

from pathlib import Path
from typing import Any

from unitweave.commands.base import Parser, open_run, settings_of, stage_command
from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout


def train_encoder(arguments: list[str]) -> None:
    """unitweave units train-encoder RUN [--encoder.KEY VALUE ...]

    Started by torchrun or accelerate launch, all processes train together.
    """
    stage_command("units train-encoder", "encoder", "encoder", arguments)


def codebook(arguments: list[str]) -> None:
    """unitweave units codebook RUN [--codebook.KEY VALUE ...]"""
    stage_command("units codebook", "codebook", "codebook", arguments)


def extract(arguments: list[str]) -> None:
    """unitweave units extract RUN [--units.KEY VALUE ...]"""
    stage_command("units extract", "units", "units", arguments)


def probe_layers(arguments: list[str]) -> None:
    """unitweave units probe-layers RUN [--layers 1,2,3] [--codebook.KEY VALUE ...]"""
    from unitweave.core.stage import fingerprint_of
    from unitweave.units.probe import as_table, probe_layers

    parser = Parser(prog="unitweave units probe-layers")
    parser.add_argument("run", type=Path, help="run folder with a corpus and an encoder")
    parser.add_argument("--layers", default="", help="layers, as in 1,2,3 (default: all)")
    known, rest = parser.parse_known_args(arguments)
    try:
        layers = [int(layer) for layer in known.layers.split(",") if layer]
    except ValueError:
        raise InputError(f"--layers {known.layers}: give numbers with commas between, as in 1,2,3") from None
    settings = _settings(known.run, "codebook", rest, parser.prog)
    for stage in ("corpus", "encoder"):
        fingerprint_of(known.run, stage)
    at = RunLayout(known.run)
    print(as_table(probe_layers(at.corpus, at.encoder_model, settings, layers)))


def plan(arguments: list[str]) -> None:
    """unitweave units plan RECIPE [--encoder.KEY VALUE ...]"""
    from unitweave.commands.base import recipes_folder
    from unitweave.units.estimate import plan

    parser = Parser(prog="unitweave units plan")
    parser.add_argument("recipe", help="a recipe file, or the name of a built-in one")
    known, rest = parser.parse_known_args(arguments)
    built_in = recipes_folder() / f"{known.recipe}.yaml"
    print(
        plan(_settings_of_recipe(built_in if built_in.exists() else Path(known.recipe), "encoder", rest, parser.prog))
    )


def export_units(arguments: list[str]) -> None:
    """unitweave units export RUN --format fairseq|s2ut -o DIR [--reduce]"""
    from unitweave.core.stage import fingerprint_of
    from unitweave.units.fairseq import FORMATS, export_units

    parser = Parser(prog="unitweave units export")
    parser.add_argument("run", type=Path, help="run folder with units")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--reduce", action="store_true", help="write repeated units once")
    options = parser.parse_args(arguments)
    for stage in ("corpus", "units"):
        fingerprint_of(options.run, stage)
    for path in export_units(
        options.output, options.format, RunLayout(options.run).corpus, RunLayout(options.run).units, options.reduce
    ):
        print(path)


def import_units(arguments: list[str]) -> None:
    """unitweave units import RUN --format fairseq|s2ut --from DIR --num-units N"""
    from unitweave.core.files import digest_of_file
    from unitweave.core.stage import fingerprint_of, run_stage
    from unitweave.units.fairseq import FORMATS, import_units

    parser = Parser(prog="unitweave units import")
    parser.add_argument("run", type=Path, help="run folder with a corpus")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--from", dest="source", type=Path, required=True, help="folder with the files")
    parser.add_argument("--num-units", type=int, required=True, help="size of the codebook that made them")
    options = parser.parse_args(arguments)
    if not options.source.is_dir():
        raise InputError(f"{options.source}: no such folder")
    files = sorted(path for path in options.source.rglob("*") if path.is_file())
    inputs = {str(path.relative_to(options.source)): digest_of_file(path) for path in files}
    corpus = RunLayout(options.run).corpus
    run_stage(
        options.run,
        "units",
        {"import": options.format, "num_units": options.num_units},
        {"corpus": fingerprint_of(options.run, "corpus"), **inputs},
        lambda folder: import_units(folder, options.format, options.source, corpus, options.num_units),
    )


def _settings(run: Path, section: str, arguments: list[str], prog: str) -> Any:
    """One section of a run's recipe with the flags' values, without keeping them."""
    open_run(run, None, {})  # a clear word where this is no run folder
    return _settings_of_recipe(RunLayout(run).recipe, section, arguments, prog)


def _settings_of_recipe(recipe: Path, section: str, arguments: list[str], prog: str) -> Any:
    import yaml

    from unitweave.config.recipe import load_recipe, merged, parse_recipe

    load_recipe(recipe)
    given = settings_of([section], arguments, prog) if arguments else {}
    return getattr(parse_recipe(merged(yaml.safe_load(recipe.read_text(encoding="utf-8")), given)), section)
