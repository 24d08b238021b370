"""unitweave experiment: a grid of trainings, and its page of results."""

from pathlib import Path
from typing import TYPE_CHECKING

from unitweave.config.types import PositiveInt, PositiveNumber
from unitweave.core.errors import InputError
from unitweave.core.imports import quick_imports

if TYPE_CHECKING:
    from unitweave.experiment.plan import ExperimentPlan, Trial


def experiment(
    experiment: str,
    *,
    out: Path,
    plan: bool = False,
    measure: PositiveInt | None = None,
    hours: PositiveNumber | None = None,
    only: list[str] = [],  # noqa: B006
    pretrained: list[str] = [],  # noqa: B006
    page: Path | None = None,
) -> None:
    """Run the missing trials of a grid of trainings, then write the page of results.

    Args:
        experiment: A YAML file, or the name of a built-in experiment.
        out: The folder of the experiment.
        plan: Only print the grid and the hours that it will take.
        measure: Run the shared stages, time this many training steps of each model, and print the plan.
        hours: Stop after this many hours; the same command continues later.
        only: Names of the trials to run, with * and ? as wildcards (default: all).
        pretrained: Folders of the experiment's models, each as MODEL=FOLDER.
        page: Markdown file for the results (default: results.md in the folder).
    """
    from unitweave.core.files import is_read_only
    from unitweave.core.layout import check_run_folder
    from unitweave.experiment.plan import builtin_experiments, load_experiment

    builtin = {path.stem: path for path in builtin_experiments()}
    path = Path(experiment)
    if not path.is_file():  # a folder may be called like a built-in experiment: the one that it made
        if experiment not in builtin:
            raise InputError(f"{path}: no such experiment; give a YAML file or one of: {', '.join(builtin)}")
        path = builtin[experiment]
    grid, content = load_experiment(path, dict(_named(text) for text in pretrained))
    check_run_folder(out)

    with quick_imports():
        from unitweave.experiment.driver import chosen, prepare, run_session
        from unitweave.experiment.hours import measure as measure_models
        from unitweave.experiment.page import check_page, write_page

    if page:
        check_page(page)
    trials = chosen(grid.trials, only)
    if measure:
        prepare(out, grid, content, trials)
        measure_models(out, grid, trials, measure)
    if plan or measure:
        _show_plan(out, grid, trials)
        return
    name = experiment if experiment in builtin else path.name
    complete = run_session(out, grid, content, f"unitweave experiment {name} --out FOLDER", only, hours)
    state = "all chosen trials are done" if complete else "not all trials are done yet"
    try:
        print(f"{state}; results: {write_page(page or out / 'results.md', [out])}")
    except OSError as error:
        if page or not is_read_only(error):
            raise
        print(f"{state}; {out} is read-only, so its page of results stays as it is (--page writes one elsewhere)")


def results(folders: list[Path], *, page: Path) -> None:
    """Write one page about one or several experiments; several folders of one experiment are merged.

    Args:
        folders: Folders or archives of experiments, finished or not.
        page: The Markdown file; its figures are written next to it.
    """
    from unitweave.experiment.page import write_page

    print(write_page(page, folders))


def archive(folder: Path, *, out: Path, without_texts: bool = False) -> None:
    """Copy what the page of results is written from, without models and recordings.

    These are the settings, dev curves, scores and all translated sentences of the finished trials.

    Args:
        folder: The folder of an experiment.
        out: The folder to write.
        without_texts: Write only BLEU's counts for each sentence and not its text, for a corpus whose texts you may not
            pass on.
    """
    from unitweave.experiment.archive import write_archive

    trials = write_archive(out, folder, texts=not without_texts)
    print(f"{out}: {len(trials)} trials; 'unitweave experiment results {out} --page PAGE.md' writes their page")


def expect(folders: list[Path], *, out: Path, system: str | None = None) -> None:
    """Write the range of the scores of several trainings, which a later run of the recipe prints beside its own.

    Args:
        folders: Folders or archives of one experiment.
        out: The JSON file, RECIPE.expected.json beside the recipe.
        system: The system to compare with the baseline (default: the experiment's method).
    """
    from unitweave.experiment.expected import write_expected

    ranges = write_expected(out, folders, system)
    print(f"{out}: {ranges.trainings} trainings, difference {ranges.difference[0]} to {ranges.difference[1]} ASR-BLEU")


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise InputError(f"--pretrained {text!r}: write MODEL=FOLDER")
    return name, folder


def _show_plan(folder: Path, plan: "ExperimentPlan", trials: "list[Trial]") -> None:
    """The grid as a table: each trial, its state and the time that it still needs."""
    from unitweave.experiment.hours import plan_rows, shared_to_do

    rows = plan_rows(folder, plan, trials)
    width = max(len(trial.name) for trial in trials)
    total = 0.0
    unknown = 0
    for trial, state, seconds in rows:
        shown = "" if state == "done" else "?" if seconds is None else f"{seconds / 60:.1f} min"
        print(f"{trial.name:<{width}}  {trial.steps:>7} steps  {shown:>10}  {state}")
        total += seconds or 0.0
        unknown += seconds is None
    print(
        f"\n{len(rows)} trials, {sum(state == 'done' for _, state, _ in rows)} done; {total / 3600:.2f} hours left",
        end="",
    )
    print(f", and {unknown} trials of unknown length (time them with --measure 4)" if unknown else "")
    if stages := shared_to_do(folder, plan):
        print(f"not counted: {', '.join(stages)}, which all trials share and which run first")
