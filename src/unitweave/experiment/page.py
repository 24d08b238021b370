"""The page of results: Markdown and figures, written from the files of one or several grids and nothing else."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.experiment import figures
from unitweave.experiment.findings import (
    METRICS,
    Comparison,
    ablations,
    best_on_dev,
    in_words,
    method_against_baseline,
    method_against_longer_baseline,
    of_language,
    still_rising,
    surest,
)
from unitweave.experiment.results import GridResults, Result, read_grid, signatures
from unitweave.experiment.statistics import VERDICTS, Difference
from unitweave.weave.schedule import text_ratio


def write_page(path: Path, folders: Sequence[Path]) -> Path:
    """Write the page about the experiments in `folders`; its figures go into a folder beside it, of its name.

    Raises InputError when a folder is no experiment's, or two have the same title.
    """
    path = Path(path)
    grids = [read_grid(folder) for folder in folders]
    titles = [grid.plan.experiment.title for grid in grids]
    if len(set(titles)) < len(titles):
        raise InputError("two of the experiments have the same title; the page could not tell them apart")
    comparisons = [method_against_baseline(grid) for grid in grids]
    parts = ["# Results", _HEAD, *_summary(grids, comparisons)]
    overview = path.parent / path.stem / "asr-bleu.svg"
    finals = [(grid, surest(own)) for grid, own in zip(grids, comparisons, strict=True)]
    if len(grids) > 1 and figures.score_figure(overview, finals, "asr_bleu"):
        caption = "ASR-BLEU of both systems against hours of training speech, a panel per experiment and language model"
        parts.append(f"![{caption}]({path.stem}/{overview.name})")
    for grid, own in zip(grids, comparisons, strict=True):
        parts += _experiment(grid, own, path)
    write_text(path, "\n\n".join(parts) + "\n")
    return path


_HEAD = """This page is written by `unitweave experiment`; no number and no finding on it is typed by hand. Each
experiment is a grid of trainings that share corpus, encoder, codebook, units, text LM, vocoder and decoding, and differ
only in what the tables say. Compared systems have equal steps, unless the steps of both are named, and see the same
utterances in the same order. The test split is translated and scored once per training, and nothing is chosen on it.
docs/experiments.md says how to do it again.

A difference is of corpus BLEU between systems with the same seeds; behind it stands its 95 % interval, from 1,000
resamples of the utterances; from three seeds on it is widened by the scatter of their differences (Student's t). With
fewer seeds it says nothing of other seeds: how far trainings scatter that differ only in the seed is said with each
experiment, and a difference between two of them scatters 1.4 times as far. Of twenty comparisons without any true
difference about one leaves 0 out by chance, and more where there is but one seed. By rule a difference is called

""" + "\n".join(f"- **{name}**: {rule}" for name, rule in VERDICTS.items())


def _summary(grids: Sequence[GridResults], comparisons: Sequence[Sequence[Comparison]]) -> list[str]:
    """What is established and what is not, over all experiments."""
    parts = ["## What is established, and what is not"]
    for grid, own in zip(grids, comparisons, strict=True):
        done = len(grid.results)
        state = f"**Partial: {done} of {done + len(grid.missing)} cells are done.** " if grid.partial else ""
        lines = [f"{state}{grid.plan.experiment.title}:", ""]
        found = [
            (c.differences[metric].verdict, in_words(c, metric) + _unfinished(c)) for c in own for metric in METRICS
        ]
        found += [
            (difference.verdict, of_language(c, language, grid.hours(c.group[1], language)))
            for c in own
            for language, difference in c.languages.items()
        ]
        others = [*method_against_longer_baseline(grid), *(c for c, _ in ablations(grid))]
        found += [(c.differences["asr_bleu"].verdict, in_words(c, "asr_bleu")) for c in others]
        ordered = [f"- {verdict}: {text}" for name in VERDICTS for verdict, text in found if verdict == name]
        parts.append("\n".join(lines + (ordered or ["- nothing yet: no two compared systems are done"])))
    return parts


def _unfinished(comparison: Comparison) -> str:
    rising = " and ".join(still_rising(comparison))
    return f"; the dev score of {rising} still rose at the end" if rising else ""


def _experiment(grid: GridResults, comparisons: Sequence[Comparison], page: Path) -> list[str]:
    experiment = grid.plan.experiment
    parts = [f"## {experiment.title}"]
    if experiment.question:
        parts.append(" ".join(experiment.question.split()))
    if grid.partial:
        parts.append(_missing(grid))
    if grid.amounts:
        parts += ["### Training speech", _amounts(grid)]
    if not grid.results:
        return parts
    if len(found := signatures(grid.results)) > 1:
        parts.append(f"**The scores have {len(found)} different signatures and must not be compared.**")

    def picture(name: str, drawn: bool, caption: str) -> None:
        if drawn:
            parts.append(f"![{caption}]({page.stem}/{_slug(experiment.title)}-{name}.svg)")

    def place(name: str) -> Path:
        return page.parent / page.stem / f"{_slug(experiment.title)}-{name}.svg"

    parts += ["### Systems", _systems(grid)]
    final = surest(comparisons)
    if comparisons:
        parts.append(f"### {experiment.method} against {experiment.baseline}, at equal steps")
        for metric, name in METRICS.items():
            caption = f"{name} of both systems against hours of training speech"
            file = metric.replace("_", "-")
            picture(file, figures.score_figure(place(file), [(grid, final)], metric), caption)
        parts.append(_comparisons(comparisons))
    if longer := method_against_longer_baseline(grid):
        parts += [f"### {experiment.method} against a {experiment.baseline} with more steps", _unequal(longer)]
    if dev := best_on_dev(grid):
        parts += ["### Each trained until its dev score stops rising", _best_on_dev(grid, dev)]
    if others := ablations(grid):
        parts += ["### Further systems, and the paper's ablations", _ablations(grid, others)]
    drawn = figures.curve_figure(place("curves"), grid, "bleu", "dev text BLEU")
    if drawn:
        parts.append("### Learning curves")
    picture("curves", drawn, "Text BLEU on the dev split during training")
    if drawn:
        parts.append(_looks(grid))
    if any(figures.language_scores(result, "asr_bleu") for result in grid.results):
        parts.append("### Per language")
        if any(c.languages for c in comparisons):
            parts.append(_language_differences(grid, comparisons))
        parts.append(_languages(grid))
        picture(
            "languages",
            figures.language_figure(place("languages"), grid, "asr_bleu"),
            "ASR-BLEU per language against its hours of training speech",
        )
    if grid.ceilings:
        parts += ["### Ceilings", _ceilings(grid)]
    return [*parts, "### Every training", _cells(grid)]


def _missing(grid: GridResults) -> str:
    done = len(grid.results)
    lines = [f"**Partial: {done} of {done + len(grid.missing)} cells are done.** Missing:", ""]
    return "\n".join(lines + [f"- `{cell.name}` ({state})" for cell, state in grid.missing])


def _amounts(grid: GridResults) -> str:
    rows = [
        [name, language, f"{counted['pairs']:.0f}", f"{counted['hours']:.2f}"]
        for name, languages in grid.amounts.items()
        for language, counted in languages.items()
    ]
    return _table(["data", "source language", "utterance pairs", "hours of source speech"], rows)


def _systems(grid: GridResults) -> str:
    """What each system is, from the settings of its first training, and what all of a model have in common."""
    experiment = grid.plan.experiment
    first = {r.cell.system: r.cell for r in reversed(grid.results)}
    rows = []
    for system in dict.fromkeys([experiment.baseline, experiment.method, *experiment.systems]):
        if system not in first:
            continue
        cell = first[system]
        schedule = grid.plan.recipe.systems[cell.name].schedule
        ratio = text_ratio(schedule, cell.steps)
        ratios = [ratio(step) for step in range(cell.steps)]
        last = max((step + 1 for step, value in enumerate(ratios) if value > 0), default=0)
        until = "never" if last == cell.steps else f"{100 * last / cell.steps:.0f} % of the run"
        differs = "; ".join(flat(experiment.systems[system] or {})) or "nothing: the recipe's own"
        rows.append([system, differs, f"{ratios[0]:.0%}", until])
    common = []
    for model in dict.fromkeys(r.cell.model for r in grid.results):
        settings = next(grid.plan.recipe.systems[r.cell.name] for r in grid.results if r.cell.model == model)
        optimiser = settings.optimiser
        common.append(
            f"{model}: {optimiser.batch} utterance pairs a step, {optimiser.optimiser} at a learning rate of "
            f"{optimiser.learning_rate:g}."
        )
    tested = f"Tested on {len(grid.results[0].references)} utterances."
    deviation, several = grid.scatter("asr_bleu")
    scatter = (
        f"Trainings that differ only in the seed scatter by {deviation:.1f} ASR-BLEU (standard deviation, pooled over "
        f"the {several} {'systems' if several > 1 else 'system'} here with several seeds)."
        if several
        else "No system here has several seeds, so how far seeds scatter is not known."
    )
    table = _table(["system", "what is its own", "text at the first step", "pure units from"], rows)
    return f"{table}\n\n{' '.join([*common, tested, scatter])}"


def flat(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Nested settings as "a.b: value" each."""
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += flat(value, f"{above}{key}.")
        else:
            found.append(f"{above}{key}: {value}")
    return found


def _comparisons(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for c in comparisons:
        for metric, name in METRICS.items():
            found = c.differences[metric]
            p_values = " ".join(f"{p:.3f}" for p in c.p_values.values()) if metric == "asr_bleu" else ""
            rows.append(
                [
                    *_of_group(c),
                    name,
                    _spread(c.theirs, metric),
                    _spread(c.ours, metric),
                    _signed(found),
                    p_values,
                    found.verdict,
                ]
            )
    first = comparisons[0]
    table = _table(
        ["model", "data", "hours", "steps", "score", first.against, first.system, "difference", "p by seed", "finding"],
        rows,
    )
    note = "Scores are means over the seeds, with the lowest and the highest; p is sacrebleu's paired bootstrap."
    return f"{table}\n\n{note}"


def _unequal(comparisons: Sequence[Comparison]) -> str:
    """The same at unequal steps, all in favour of the baseline."""
    rows = [
        [
            *_of_group(c),
            str(c.against_steps),
            name,
            _spread(c.theirs, metric),
            _spread(c.ours, metric),
            _signed(c.differences[metric]),
            str(len(c.ours)),
            c.differences[metric].verdict,
        ]
        for c in comparisons
        for metric, name in METRICS.items()
    ]
    first = comparisons[0]
    steps = [f"steps of {first.system}", f"of {first.against}"]
    heads = ["model", "data", "hours", *steps, "score", first.against, first.system, "difference", "seeds", "finding"]
    return _table(heads, rows)


def _of_group(c: Comparison) -> list[str]:
    return [c.group[0], c.group[1], f"{c.hours:.2f}", str(c.group[2])]


def _signed(found: Difference) -> str:
    return f"{found.mean:+.1f} [{found.low:+.1f}, {found.high:+.1f}]"


def _best_on_dev(grid: GridResults, rows: Sequence[dict[str, Result]]) -> str:
    cells = [
        [*_axes(r), f"{r.dev_bleu:.1f}", _interval(r, "asr_bleu"), _interval(r, "text_bleu")]
        for chosen in rows
        for r in chosen.values()
    ]
    unfinished = "" if not grid.partial else " Some trainings are missing, so this may still change."
    return (
        _table(["model", "data", "system", "steps", "seed", "dev text BLEU", "ASR-BLEU", "text BLEU"], cells)
        + "\n\nThe number of steps is the one with the highest dev score of those tried; each is a training of its "
        f"own, with its schedule and learning rate stretched over its steps.{unfinished}"
    )


def _ablations(grid: GridResults, found: Sequence[tuple[Comparison, Comparison | None]]) -> str:
    experiment = grid.plan.experiment
    rows = []
    for against, base in found:
        d = against.differences["asr_bleu"]
        e = base.differences["asr_bleu"] if base else None
        rows.append(
            [
                *_of_group(against),
                against.system,
                _spread(against.ours, "asr_bleu"),
                _spread(against.ours, "text_bleu"),
                str(len(d.each)),
                _signed(d),
                d.verdict,
                _signed(e) if e else "",
                e.verdict if e else "",
            ]
        )
    heads = ["model", "data", "hours", "steps", "system", "ASR-BLEU", "text BLEU", "seeds"]
    return _table(
        [*heads, f"ASR-BLEU against {experiment.method}", "finding", f"against {experiment.baseline}", "finding"], rows
    )


def _looks(grid: GridResults) -> str:
    """Text BLEU on the dev split at each look, mean over the seeds: whether it still rose at the end."""
    looks = grid.plan.experiment.looks
    rows: dict[tuple[str, ...], list[list[float]]] = {}
    for r in grid.results:
        if len(r.curve) == looks:
            model, data, system, steps, _ = _axes(r)
            rows.setdefault((model, data, system, steps), []).append([scores["bleu"] for _, scores in r.curve])
    heads = ["model", "data", "system", "steps", "seeds"]
    shares = [f"at {100 * look / looks:.0f} %" for look in range(1, looks + 1)]
    cells = [
        [*key, str(len(curves)), *(f"{sum(look) / len(look):.1f}" for look in zip(*curves, strict=True))]
        for key, curves in rows.items()
    ]
    return "Dev text BLEU along the training, mean over the seeds:\n\n" + _table([*heads, *shares], cells)


def _language_differences(grid: GridResults, comparisons: Sequence[Comparison]) -> str:
    """Method against baseline on each language's utterances, the language with most speech first."""
    rows = []
    for c in comparisons:
        hours = {language: grid.hours(c.group[1], language) for language in c.languages}
        for language in sorted(hours, key=lambda code: -hours[code]):
            means = [
                sum(figures.language_scores(r, "asr_bleu")[language] for r in side.values()) / len(side)
                for side in (c.theirs, c.ours)
            ]
            found = c.languages[language]
            shown = [*(f"{mean:.1f}" for mean in means), _signed(found), str(len(found.each)), found.verdict]
            rows.append([language, f"{hours[language]:.2f}", c.group[0], c.group[1], str(c.group[2]), *shown])
    first = comparisons[0]
    heads = ["language", "hours", "model", "data", "steps", f"{first.against}, ASR-BLEU", first.system]
    return _table([*heads, "difference", "seeds", "finding"], rows)


def _languages(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        scores = {metric: figures.language_scores(r, metric) for metric in METRICS}
        for language in sorted(scores["asr_bleu"], key=lambda code: -r.hours.get(code, 0.0)):
            shown = [f"{scores[metric][language]:.1f}" for metric in METRICS]
            rows.append([language, f"{r.hours.get(language, 0.0):.2f}", *_axes(r), *shown])
    return _table(["language", "hours", "model", "data", "system", "steps", "seed", *METRICS.values()], rows)


def _ceilings(grid: GridResults) -> str:
    rows = [[name, _shown(row.get("asr_bleu")), _shown(row.get("asr_wer"))] for name, row in grid.ceilings.items()]
    return _table(["what the recogniser heard", "ASR-BLEU", "ASR WER"], rows)


def _cells(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        commits, commands, machines = (
            ", ".join(dict.fromkeys(str(s.get(key, "?")) for s in r.sittings)) or "?"
            for key in ("commit", "command", "machine")
        )
        scores = [_interval(r, "asr_bleu"), _interval(r, "text_bleu"), _interval(r, "transcript_wer")]
        rows.append([*_axes(r), *scores, f"{r.seconds / 60:.1f}", commits, f"`{commands}`", machines])
    heads = ["model", "data", "system", "steps", "seed", "ASR-BLEU", "text BLEU", "transcript WER"]
    table = _table([*heads, "training, minutes", "commit", "command", "machine"], rows)
    spared = "".join(f"\n- `{cell.name}` was not needed: the dev score no longer rose" for cell in grid.spared)
    signature = "\n".join(f"    {line}" for line in signatures(grid.results))
    return (
        f"{table}\n\nBrackets: 95 % over the utterances (sacrebleu's bootstrap). A + behind a commit: with changes "
        f"beside it.{spared and chr(10) + spared}\n\nSignature of the ASR-BLEU:\n\n{signature}"
    )


def _axes(r: Result) -> list[str]:
    return [r.cell.model, r.cell.data, r.cell.system, str(r.cell.steps), str(r.cell.seed)]


def _spread(results: dict[int, Result], metric: str) -> str:
    """Mean over the seeds, with lowest and highest where there are several."""
    values = [value for r in results.values() if (value := r.score(metric)) is not None]
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})"


def _interval(r: Result, metric: str) -> str:
    return _shown(r.row.get(metric))


def _shown(value: dict[str, float | None] | None) -> str:
    if value is None:
        return ""
    low, high = value.get("low"), value.get("high")
    return f"{value['score']:.1f}" + (f" [{low:.1f}, {high:.1f}]" if low is not None and high is not None else "")


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "experiment"
