"""unitweave experiment: a grid of trainings, and its page of results."""

from pathlib import Path
from typing import TYPE_CHECKING

from unitweave.commands.base import Parser
from unitweave.core.errors import InputError

if TYPE_CHECKING:
    from unitweave.experiment.plan import Plan, Trial


def experiment(arguments: list[str]) -> None:
    """unitweave experiment EXPERIMENT --out FOLDER [--plan] [--hours H] [--only PATTERN ...] [--page FILE]"""
    parser = Parser(
        prog="unitweave experiment",
        description="Run the missing trials of a grid of trainings, then write the page of results.",
    )
    parser.add_argument("experiment", help="a YAML file, or the name of a built-in experiment")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the experiment")
    parser.add_argument("--plan", action="store_true", help="print the grid and how long it will take, and exit")
    parser.add_argument(
        "--measure", type=int, metavar="STEPS", help="run the shared stages and time this many steps of each model"
    )
    parser.add_argument("--hours", type=float, help="stop after this many hours; the same command continues later")
    parser.add_argument("--only", nargs="+", default=[], metavar="PATTERN", help="trials by name, with * and ?")
    parser.add_argument(
        "--pretrained",
        nargs="+",
        action="extend",
        default=[],
        metavar="MODEL=FOLDER",
        help="folder of a model's pretrained weights",
    )
    parser.add_argument("--page", type=Path, help="the page of results (default: results.md in the folder)")
    given = parser.parse_args(arguments)
    if given.hours is not None and given.hours <= 0:
        raise InputError(f"--hours {given.hours:g} must be greater than 0")
    if given.measure is not None and given.measure < 1:
        raise InputError(f"--measure {given.measure} must be greater than 0")

    from unitweave.experiment.driver import chosen, prepare, run_session
    from unitweave.experiment.hours import measure
    from unitweave.experiment.page import write_page
    from unitweave.experiment.plan import builtin_experiments, load_experiment
    from unitweave.pipeline import check_run_folder

    builtin = {path.stem: path for path in builtin_experiments()}
    path = Path(given.experiment)
    if not path.is_file():  # a folder may have the name of the built-in experiment that wrote it
        if given.experiment not in builtin:
            raise InputError(f"{path}: no such experiment; give a YAML file or one of: {', '.join(builtin)}")
        path = builtin[given.experiment]
    folders = dict(_named(text) for text in given.pretrained)
    plan, content = load_experiment(path, folders)
    check_run_folder(given.out)
    trials = chosen(plan.trials, given.only)
    if given.measure:
        prepare(given.out, plan, content)
        measure(given.out, plan, trials, given.measure)
    if given.plan:
        _show_plan(given.out, plan, trials)
        return
    name = given.experiment if given.experiment in builtin else path.name
    command = f"unitweave experiment {name} --out FOLDER"
    complete = run_session(given.out, plan, content, command, given.only, given.hours)
    page = write_page(given.page or given.out / "results.md", [given.out])
    print(f"{'all chosen trials are done' if complete else 'not all trials are done yet'}; results: {page}")


def results(arguments: list[str]) -> None:
    """unitweave experiment results FOLDER... --page FILE"""
    from unitweave.experiment.page import write_page

    parser = Parser(
        prog="unitweave experiment results",
        description="Write one page about one or several experiments; folders of the same experiment are combined.",
    )
    parser.add_argument("folders", type=Path, nargs="+", help="folders or archives of experiments, complete or not")
    parser.add_argument(
        "--page", type=Path, required=True, help="the Markdown file; its figures go into a folder next to it"
    )
    given = parser.parse_args(arguments)
    print(write_page(given.page, given.folders))


def archive(arguments: list[str]) -> None:
    """unitweave experiment archive FOLDER -o ARCHIVE"""
    from unitweave.experiment.archive import write_archive

    parser = Parser(
        prog="unitweave experiment archive",
        description="Archive what the page is written from, without models and recordings: settings, dev curves, "
        "scores and every translated sentence of the finished trials.",
    )
    parser.add_argument("folder", type=Path, help="the folder of an experiment")
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="ARCHIVE", help="the folder to write")
    given = parser.parse_args(arguments)
    trials = write_archive(given.out, given.folder)
    print(f"{given.out}: {len(trials)} trials; for their page: unitweave experiment results {given.out} --page FILE")


def _named(text: str) -> tuple[str, str]:
    name, equals, folder = text.partition("=")
    if not equals or not folder:
        raise InputError(f"--pretrained {text!r}: write MODEL=FOLDER")
    return name, folder


def _show_plan(folder: Path, plan: "Plan", trials: "list[Trial]") -> None:
    """The grid as a table: each trial, its state and the time that it still needs."""
    from unitweave.experiment.hours import plan_rows, shared_to_do

    rows = plan_rows(folder, plan, trials)
    width = max(len(trial.name) for trial in trials)
    known = 0.0
    unknown = 0
    for trial, state, seconds in rows:
        shown = "" if state == "done" else "?" if seconds is None else f"{seconds / 60:.1f} min"
        print(f"{trial.name:<{width}}  {trial.steps:>7} steps  {shown:>10}  {state}")
        known += seconds or 0.0
        unknown += seconds is None
    print(
        f"\n{len(rows)} trials, {sum(state == 'done' for _, state, _ in rows)} done; {known / 3600:.2f} hours left",
        end="",
    )
    print(f", and {unknown} trials of unknown length (time them with --measure 4)" if unknown else "")
    if stages := shared_to_do(folder, plan):
        print(f"not counted: {', '.join(stages)}, which all trials share and which run first")
