"""The page of results: Markdown and figures, written from the files of one or several grids and nothing else."""

import re
from collections.abc import Sequence
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.experiment import figures
from unitweave.experiment.findings import (
    METRICS,
    Comparison,
    ablations,
    against_longer,
    best_on_dev,
    further,
    in_words,
    method_against_baseline,
    of_language,
    still_rising,
    surest,
)
from unitweave.experiment.results import GridResults, read_grid, signatures
from unitweave.experiment.state import read_experiment_folder
from unitweave.experiment.systems import amounts_table, systems_table
from unitweave.experiment.tables import (
    ablations_table,
    agreement_table,
    best_on_dev_table,
    ceilings_table,
    comparisons_table,
    evaluations_table,
    further_table,
    language_differences_table,
    languages_table,
    machines_table,
    parts_table,
    trials_table,
    unequal_table,
)
from unitweave.metrics.significance import VERDICTS


def write_page(path: Path, folders: Sequence[Path]) -> Path:
    """Write the page about the experiments in `folders`; its figures go into a folder of the same name next to it.

    Folders (or archives) of experiments with the same title are combined. Raises InputError when a folder
    does not belong to an experiment, when parts do not fit together, and when `path` cannot be a page.
    """
    path = Path(path)
    check_page(path)
    parts_of: dict[str, list[Path]] = {}
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        parts_of.setdefault(str(read_experiment_folder(folder).get("title")), []).append(folder)
    grids = [read_grid(*own) for own in parts_of.values()]
    comparisons = [method_against_baseline(grid) for grid in grids]
    slugs = _slugs([grid.plan.experiment.title for grid in grids])
    parts = ["# Results", _HEAD, *_summary(grids, comparisons)]
    overview = path.parent / path.stem / "asr-bleu.svg"
    finals = [(grid, surest(own)) for grid, own in zip(grids, comparisons, strict=True)]
    if len(grids) > 1 and figures.score_figure(overview, finals, "asr_bleu"):
        caption = "ASR-BLEU of both systems against hours of training speech, a panel per experiment and language model"
        parts.append(f"![{caption}]({path.stem}/{overview.name})")
    for grid, own in zip(grids, comparisons, strict=True):
        parts += _experiment(grid, own, path, slugs[grid.plan.experiment.title])
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def check_page(path: Path) -> None:
    """Raise InputError where a page cannot be written, before hours are spent on it."""
    if path.suffix != ".md" or path.is_dir():
        raise InputError(f"{path}: a page is a Markdown file; give it a name that ends in .md")


_HEAD = """This page is written by `unitweave experiment results`; no number and no finding on it is typed by hand. Each
experiment is a grid of trainings that share corpus, encoder, codebook, units, text LM, vocoder and decoding, and differ
only in what the tables say. Compared systems have equal steps, unless the steps of both are given, and see the same
utterances in the same order. The test split is translated and scored once per training, and no setting is chosen on it.
docs/experiments.md says how to reproduce it.

A difference is the difference of corpus BLEU between trainings of two systems with the same seed, number of threads and
kind of machine, and the same units and vocoder. Seed, threads and machine all change a training at random, by far more
than a rounding error: each experiment states by how much. The brackets behind a difference are its 95 % interval from
1,000 resamples of the utterances; from three trainings on it is widened by the scatter of the differences over the
trainings (Student's t). With one or two it says nothing about other trainings, and a difference between two single ones
scatters 1.4 times as far as they do. Of twenty comparisons without any true difference about one excludes 0 by chance.
A difference is called

""" + "\n".join(f"- **{name}**: {rule}" for name, rule in VERDICTS.items())


def _summary(grids: Sequence[GridResults], comparisons: Sequence[Sequence[Comparison]]) -> list[str]:
    """What is established and what is not, over all experiments."""
    parts = ["## What is established, and what is not"]
    for grid, own in zip(grids, comparisons, strict=True):
        done = len(grid.results) + len(grid.repeated)
        state = f"**Partial: {done} of {done + len(grid.missing)} trials are done.** " if grid.partial else ""
        lines = [f"{state}{_title(grid)}:", ""]
        found = [
            (c.verdict(c.differences[metric]), in_words(c, metric) + _unfinished(c)) for c in own for metric in METRICS
        ]
        found += [
            (c.verdict(difference), of_language(c, language, grid.hours(c.group[1], language)))
            for c in own
            for language, difference in c.languages.items()
        ]
        others = [*against_longer(grid), *further(grid), *(c for c, _ in ablations(grid))]
        found += [(c.verdict(c.differences["asr_bleu"]), in_words(c, "asr_bleu") + _unfinished(c)) for c in others]
        ordered = [f"- {verdict}: {text}" for name in VERDICTS for verdict, text in found if verdict == name]
        parts.append("\n".join(lines + (ordered or ["- nothing yet: no two compared systems are done"])))
    return parts


def _unfinished(comparison: Comparison) -> str:
    rising = " and ".join(still_rising(comparison))
    return f"; the dev score of {rising} was still rising at the end" if rising else ""


def _experiment(grid: GridResults, comparisons: Sequence[Comparison], page: Path, slug: str) -> list[str]:
    experiment = grid.plan.experiment
    parts = [f"## {_title(grid)}"]
    if experiment.question:
        parts.append(" ".join(experiment.question.split()))
    if experiment.notes:
        parts.append(" ".join(experiment.notes.split()))
    if grid.partial:
        parts.append(_missing(grid))
    if grid.amounts:
        parts += ["### Training speech", amounts_table(grid)]
    if not grid.results:
        return parts
    if len(found := signatures(grid.results)) > 1:
        parts.append(f"**The scores have {len(found)} different signatures and must not be compared with each other.**")

    def picture(name: str, drawn: bool, caption: str) -> None:
        if drawn:
            parts.append(f"![{caption}]({page.stem}/{slug}-{name}.svg)")

    def place(name: str) -> Path:
        return page.parent / page.stem / f"{slug}-{name}.svg"

    parts += ["### Systems", systems_table(grid)]
    final = surest(comparisons)
    if comparisons:
        parts.append(f"### {experiment.method} against {experiment.baseline}, at equal steps")
        for metric, name in METRICS.items():
            caption = f"{name} of both systems against hours of training speech"
            file = metric.replace("_", "-")
            picture(file, figures.score_figure(place(file), [(grid, final)], metric), caption)
        parts.append(comparisons_table(comparisons))
        if by_machine := machines_table(comparisons):
            parts += ["Each kind of machine by itself:", by_machine]
    if agreement := agreement_table(comparisons):
        parts += ["### Does the speech say what was written?", agreement]
    if in_parts := parts_table(grid, comparisons):
        parts += ["### Parts of the test split", in_parts]
    if longer := against_longer(grid):
        parts += ["### Against a system with more steps", unequal_table(longer)]
    if dev := best_on_dev(grid):
        parts += ["### Each trained until its dev score stops rising", best_on_dev_table(grid, dev)]
    if asked := further(grid):
        parts += ["### Further comparisons", further_table(asked)]
    if others := ablations(grid):
        parts += ["### Ablations and further systems", ablations_table(grid, others)]
    drawn = figures.curve_figure(place("curves"), grid, "bleu", "dev text BLEU")
    if drawn:
        parts.append("### Learning curves")
    picture("curves", drawn, "Text BLEU on the dev split during training")
    if drawn:
        parts.append(evaluations_table(grid))
    if any(figures.language_scores(result, "asr_bleu") for result in grid.results):
        parts.append("### Per language")
        if any(c.languages for c in comparisons):
            parts.append(language_differences_table(grid, comparisons))
        parts.append(languages_table(grid))
        picture(
            "languages",
            figures.language_figure(place("languages"), grid, "asr_bleu"),
            "ASR-BLEU per language against its hours of training speech",
        )
    if grid.ceilings:
        parts += ["### Ceilings", ceilings_table(grid)]
    parts += ["### Every training", trials_table(grid)]
    return [*parts, _repeated(grid)] if grid.repeated else parts


def _repeated(grid: GridResults) -> str:
    lines = ["Not counted, since each is one of these trainings over again, the same to the last digit:", ""]
    return "\n".join(lines + [f"- `{r.trial.name}` ({r.training.machine})" for r in grid.repeated])


def _missing(grid: GridResults) -> str:
    done = len(grid.results) + len(grid.repeated)
    lines = [f"**Partial: {done} of {done + len(grid.missing)} trials are done.** Missing:", ""]
    return "\n".join(lines + [f"- `{trial.name}` ({state})" for trial, state in grid.missing])


def _title(grid: GridResults) -> str:
    return " ".join(grid.plan.experiment.title.split())


def _slugs(titles: Sequence[str]) -> dict[str, str]:
    """Title -> the name of its figures; titles that only signs tell apart, or other scripts, are numbered."""
    slugs: dict[str, str] = {}
    for title in titles:
        slug, number = _slug(title), 2
        while slug in slugs.values():
            slug, number = f"{_slug(title)}-{number}", number + 1
        slugs[title] = slug
    return slugs


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "experiment"
