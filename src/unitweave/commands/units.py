"""Units: how good those of each layer would be, what an encoder takes, and units from and for elsewhere."""

from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from unitweave.commands.base import open_run
from unitweave.config.recipe import find_recipe, load_with
from unitweave.config.types import NonNegativeInt, PositiveInt, PositiveNumber
from unitweave.config.units import ExtractionSettings
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports
from unitweave.core.layout import RunLayout
from unitweave.core.lock import locked

UnitFormat = Literal["fairseq", "s2ut"]
ImportFormat = Literal["fairseq", "s2ut", "json", "parquet"]


def probe_layers(run: Path, *, layers: str = "", overrides: dict[str, Any]) -> None:
    """Measure the quality of units from each layer of the encoder, without changing the run.

    Args:
        run: A run folder with a corpus and an encoder.
        layers: Layers, separated by commas, as in 1,2,3 (default: all).
    """
    layout = RunLayout(run)
    if not layout.recipe.exists():
        raise InputError(f"{run}: not a run folder (no recipe.yaml)")
    try:
        numbers = [int(layer) for layer in layers.split(",") if layer]
    except ValueError:
        raise InputError(f"--layers {layers}: must be numbers separated by commas, as in 1,2,3") from None
    recipe, _ = load_with(layout.recipe, overrides)

    from unitweave.core.files import read_json_object
    from unitweave.core.stage import stage_fingerprint

    for stage in ("corpus", "encoder"):
        stage_fingerprint(run, stage)
    blocks = read_json_object(layout.encoder_model / "config.json").get("num_hidden_layers")
    if isinstance(blocks, int) and (wrong := [layer for layer in numbers if not 1 <= layer <= blocks]):
        raise InputError(f"--layers: the encoder has layers 1 to {blocks} (got {wrong[0]})")

    with quick_imports():
        from unitweave.units.probe import as_table, probe_layers

    print(as_table(probe_layers(layout.corpus, layout.encoder_model, recipe.codebook, numbers)))


def alignment(run: Path, *, count: PositiveInt = 20, page: Path | None = None) -> None:
    """List the worst-aligned recordings: their texts may differ from what is said.

    Args:
        run: A run folder with extracted units.
        count: Number of recordings to list.
        page: HTML file to write, with their spectrograms, word boundaries and sound.
    """
    if not RunLayout(run).corpus.is_dir():
        raise InputError(f"{run}: not a run folder (no corpus)")

    from unitweave.score.alignment import as_table, worst_aligned, write_page

    scores, worst, spread = worst_aligned(run, count)
    print(f"{len(scores)} recordings with words; median score {scores[len(scores) // 2]:.2f}\n")
    print(as_table(worst))
    if page is not None:
        write_page(page, worst, spread)
        print(f"\npage: {page}")


def error_rates(
    corpus: Path,
    encoders: list[Path],
    *,
    split: str = "test",
    fold_accents: bool = False,
    beam: NonNegativeInt = 0,
    lm_texts: list[Path] = [],  # noqa: B006
) -> None:
    """Compare encoders by WER and CER of their CTC output on the same recordings, per language.

    Args:
        corpus: A corpus folder.
        encoders: Folders of encoders, or of runs that have one.
        split: Split of the corpus: train, dev or test.
        fold_accents: Compare without acute accents and diaereses, for transcripts that lack them.
        beam: Also transcribe by a beam search of this width, such as 16, with a character language model of the train
            split's transcripts; its weight and the bias against the blank are chosen on the dev split (0: do not).
        lm_texts: Further texts for the language model: corpus folders (their train split) and tables of parallel text.
    """
    if lm_texts and not beam:
        raise InputError("--lm-texts: needs --beam")
    if beam and split == "dev":
        raise InputError("--beam: its settings are chosen on the dev split; give --split test")

    from unitweave.core.manifest import read_manifest

    if not len(read_manifest(corpus, split)):
        raise InputError(f"{corpus}: no recording with a transcript in the {split} split")
    for folder in encoders:
        own = folder if (folder / "config.json").exists() else RunLayout(folder).encoder_model
        if not (own / "config.json").exists():
            raise InputError(f"{own}: no encoder here; train one with 'unitweave units train-encoder'")

    with quick_imports():
        from unitweave.units.error_rates import compare

    print(compare(encoders, corpus, split, fold_accents, beam=beam, lm_texts=lm_texts))


def plan(recipe: str, *, overrides: dict[str, Any]) -> None:
    """Estimate memory and hours of the encoder's training on one GPU, for each of several kinds.

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
    from unitweave.core.stage import stage_fingerprint
    from unitweave.units.fairseq import export_units

    for stage in ("corpus", "units"):
        stage_fingerprint(run, stage)
    with locked(out):
        for path in export_units(out, format, RunLayout(run).corpus, RunLayout(run).units, reduce):
            print(path)


def import_units(
    run: Path,
    *,
    format: ImportFormat,
    from_: Path,
    num_units: PositiveInt,
    frame_rate: PositiveNumber = 50.0,
    deduplicated: bool = False,
    alignments: Path | None = None,
    align: bool = False,
    codebook: str | None = None,
    overrides: dict[str, Any],
) -> None:
    """Import the units of a run from files of other tools.

    Name the speech tokenizer that made them in `units.tokenizer`, if you have it: it is checked on some recordings, and
    makes the units of the recordings that will be translated.

    Args:
        run: A run folder with a corpus.
        format: Layout of the files.
        from_: Folder with the files.
        num_units: Size of the codebook.
        frame_rate: Units per second, repetitions included.
        deduplicated: The units have no repetitions.
        alignments: Folder with word times in src/ and tgt/: CTM, TextGrid, JSON, CSV or Audacity labels.
        align: Find the word times with the run's encoder (unitweave units train-encoder).
        codebook: A name for the codebook, where no `units.tokenizer` is named: runs with units of the same name can
            share a vocoder and models.
    """
    for folder in (from_, alignments):
        if folder is not None and not folder.is_dir():
            raise InputError(f"{folder}: no such folder")
    if align and alignments is not None:
        raise InputError("--align and --alignments: give one of them")
    layout = RunLayout(run)
    settings = (
        open_run(run, None, overrides).recipe.units if layout.recipe.exists() or overrides else ExtractionSettings()
    )

    from unitweave.core.files import file_digest
    from unitweave.core.stage import run_stage, stage_fingerprint
    from unitweave.units.importing import UnitSource, import_units
    from unitweave.units.tokenizer import configured_tokenizer

    inputs = {"corpus": stage_fingerprint(run, "corpus")} | (
        {"encoder": stage_fingerprint(run, "encoder")} if align else {}
    )
    for folder in filter(None, (from_, alignments)):
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        below = "" if folder == from_ else "alignments/"
        inputs |= {below + str(path.relative_to(folder)): file_digest(path) for path in files}
    tokenizer = configured_tokenizer(settings)
    if tokenizer is not None and codebook is not None:
        raise InputError("--codebook: units.tokenizer names the codebook already; give one of them")
    name = tokenizer.fingerprint if tokenizer is not None else f"named-{codebook}" if codebook else ""
    about = UnitSource(num_units, frame_rate, deduplicated, name)
    encoder = layout.encoder_model if align else None
    run_stage(
        run,
        "units",
        {"import": format} | asdict(about),
        inputs,
        lambda f: import_units(f, format, from_, layout.corpus, about, alignments, encoder, tokenizer),
    )
