"""Units: how good those of each layer would be, what an encoder takes, and units from and for elsewhere."""

from pathlib import Path
from typing import Any, Literal

from unitweave.config.recipe import find_recipe, load_with
from unitweave.config.types import PositiveInt
from unitweave.core.errors import InputError
from unitweave.core.layout import RunLayout

UnitFormat = Literal["fairseq", "s2ut"]


def probe_layers(run: Path, *, layers: str = "", overrides: dict[str, Any]) -> None:
    """Measure how good units of each layer of the encoder would be; the run is not changed.

    Args:
        run: A run folder with a corpus and an encoder.
        layers: Layers, separated by commas, as in 1,2,3 (default: all).
    """
    at = RunLayout(run)
    if not at.recipe.exists():
        raise InputError(f"{run}: not a run folder (no recipe.yaml)")
    try:
        numbers = [int(layer) for layer in layers.split(",") if layer]
    except ValueError:
        raise InputError(f"--layers {layers}: must be numbers separated by commas, as in 1,2,3") from None
    recipe, _ = load_with(at.recipe, overrides)

    from unitweave.core.stage import fingerprint_of
    from unitweave.units.probe import as_table, probe_layers

    for stage in ("corpus", "encoder"):
        fingerprint_of(run, stage)
    print(as_table(probe_layers(at.corpus, at.encoder_model, recipe.codebook, numbers)))


def alignment(run: Path, *, count: PositiveInt = 20, page: Path | None = None) -> None:
    """List the worst-aligned recordings, whose texts may differ from what is said, before any LM is trained.

    Args:
        run: A run folder with extracted units.
        count: How many of them.
        page: HTML file for their spectrograms with word boundaries, and their sound.
    """
    from unitweave.score.alignment import as_table, worst_aligned, write_page

    found, spread = worst_aligned(run, count)
    scores = [one.score for one in found]
    print(f"{len(found)} recordings with words; median score {scores[len(scores) // 2]:.2f}\n")
    print(as_table(found[:count]))
    if page is not None:
        write_page(page, found[:count], spread)
        print(f"\npage: {page}")


def error_rates(corpus: Path, encoders: list[Path], *, split: str = "test", fold_accents: bool = False) -> None:
    """Compare encoders by the error rates of their CTC output on the same recordings, per language.

    Args:
        corpus: A corpus folder.
        encoders: Folders of encoders, or of runs that have one.
        split: Split of the corpus: train, dev or test.
        fold_accents: Compare without acute accents and diaereses, for transcripts that lack them.
    """
    from unitweave.units.error_rates import compare

    print(compare(encoders, corpus, split, fold_accents))


def plan(recipe: str, *, overrides: dict[str, Any]) -> None:
    """Estimate memory and hours of the encoder's training on several GPUs.

    Args:
        recipe: A YAML file, or the name of a built-in recipe.
    """
    read, _ = load_with(find_recipe(recipe), overrides)

    from unitweave.units.estimate import plan

    print(plan(read.encoder))


def export_units(run: Path, *, format: UnitFormat, out: Path, reduce: bool = False) -> None:
    """Write the units of a run as files for other toolkits.

    Args:
        run: A run folder with units.
        format: Layout of the files.
        out: Folder to write to.
        reduce: Merge repeated units.
    """
    from unitweave.core.stage import fingerprint_of
    from unitweave.units.fairseq import export_units

    for stage in ("corpus", "units"):
        fingerprint_of(run, stage)
    for path in export_units(out, format, RunLayout(run).corpus, RunLayout(run).units, reduce):
        print(path)


def import_units(run: Path, *, format: UnitFormat, from_: Path, num_units: PositiveInt) -> None:
    """Take the units of a run from files of another toolkit.

    Args:
        run: A run folder with a corpus.
        format: Layout of the files.
        from_: Folder with the files.
        num_units: Size of the codebook that the units are from.
    """
    if not from_.is_dir():
        raise InputError(f"{from_}: no such folder")

    from unitweave.core.files import digest_of_file
    from unitweave.core.stage import fingerprint_of, run_stage
    from unitweave.units.fairseq import import_units

    files = sorted(path for path in from_.rglob("*") if path.is_file())
    inputs = {str(path.relative_to(from_)): digest_of_file(path) for path in files}
    run_stage(
        run,
        "units",
        {"import": format, "num_units": num_units},
        {"corpus": fingerprint_of(run, "corpus"), **inputs},
        lambda folder: import_units(folder, format, from_, RunLayout(run).corpus, num_units),
    )
