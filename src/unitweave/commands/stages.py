"""The stages of a run: all of them, or one."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitweave.commands.base import begun_run
from unitweave.core.errors import InputError
from unitweave.core.stage import STAGE_FILE

if TYPE_CHECKING:
    from unitweave.pipeline import Run


def run(recipe: str, *, out: Path, overrides: dict[str, Any]) -> None:
    """Do every stage of a recipe that is not yet done.

    Args:
        recipe: A YAML file, or the name of a built-in recipe.
        out: The run folder.
    """
    from unitweave.core.distributed import process_index

    with begun_run(out, recipe, overrides) as opened:
        opened.all()
    if opened.from_speech and process_index() == 0:
        _show(opened.folder, opened.speaking)
        _compare_with_before(opened)


def _show(folder: Path, systems: Sequence[str]) -> None:
    """The end of a run: the table, and where to look and listen."""
    from unitweave.core.files import is_read_only
    from unitweave.core.layout import RunLayout
    from unitweave.core.progress import echo
    from unitweave.score.scores import read_scores
    from unitweave.score.table import print_table

    layout = RunLayout(folder)
    print_table(read_scores(layout.score))
    try:
        if not _is_newest(layout.report):
            from unitweave.score.report import write_report  # and with it matplotlib

            write_report(layout.report, [folder])
        print(f"\nreport: {layout.report}")
    except OSError as error:
        if not is_read_only(error):
            raise
        echo(f"{folder} is read-only, so its report stays as it is")
    for system in sorted(systems):
        for wav in sorted((layout.translate(system) / "audio").glob("*.wav"))[:3]:
            print(f"listen: {wav}")


def _is_newest(report: Path) -> bool:
    """Whether a run's report was written after its stages."""
    stages = [path for depth in ("*", "*/*") for path in report.parent.glob(f"{depth}/{STAGE_FILE}")]
    return report.exists() and all(path.stat().st_mtime <= report.stat().st_mtime for path in stages)


def _compare_with_before(opened: "Run") -> None:
    """The last lines: whether what was seen is what other runs of the same recipe have seen."""
    from unitweave.experiment.expected import expected_for, in_words
    from unitweave.score.scores import read_scores

    if (expected := expected_for(opened.recipe)) is not None:
        print(f"\n{in_words(expected, read_scores(opened.layout.score))}")


def _stage(method: str, description: str) -> Callable[..., None]:
    """The command of one stage, which is a method of Run."""

    def command(run: Path, *, recipe: Path | None = None, overrides: dict[str, Any]) -> None:
        with begun_run(run, recipe, overrides) as opened:
            getattr(opened, method)()

    command.__doc__ = f"""{description}

    Args:
        run: The run folder.
        recipe: Begin the folder with this recipe.
    """
    return command


_LAUNCHED = "Under torchrun or accelerate launch, all processes train together."
corpus = _stage("corpus", "Build the corpus of a run, or import the one that its recipe names.")
train_encoder = _stage("encoder", f"Train the speech encoder with CTC, or fine-tune a pretrained one. {_LAUNCHED}")
codebook = _stage("codebook", "Make the k-means codebook by clustering hidden states of the encoder.")
extract = _stage("units", "Extract the units and word frames of every recording.")
text_lm = _stage("text_lm", "Train the small text language model.")
train_vocoder = _stage("vocoder", f"Train the vocoder, which synthesizes speech from units. {_LAUNCHED}")


def train_lm(run: Path, *, system: str | None = None, recipe: Path | None = None, overrides: dict[str, Any]) -> None:
    """Fine-tune the language model on interleaved speech and text.

    Under torchrun or accelerate launch, all processes train together.

    Args:
        run: The run folder.
        system: Name of the system to train (default: all of the recipe).
        recipe: Begin the folder with this recipe.
    """
    with begun_run(run, recipe, overrides) as opened:
        systems = opened.recipe.systems
        if system and system not in systems:
            raise InputError(f"{run}: the recipe has no system {system!r}; it has: {', '.join(systems)}")
        chosen = [system] if system else list(systems)
        opened.check(chosen, ["lm"])
        for name in chosen:
            opened.lm(name)
