"""The figures of the results page, as SVG files that do not change when the numbers do not."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from unitweave.core.files import write_text
from unitweave.experiment.findings import METRICS, Comparison
from unitweave.experiment.results import GridResults, Result

# Wong's palette, which readers with color blindness can tell apart; the marker says the same as the color.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def score_figure(path: Path, experiments: Sequence[tuple[GridResults, Sequence[Comparison]]], metric: str) -> bool:
    """A panel per experiment and language model: score of baseline and method against hours of training speech.

    A line is the mean over the trainings, and every training a mark. Further requested comparisons have hollow marks.
    """
    panels = [
        (results, model, sorted((c for c in own if c.group[0] == model), key=lambda c: c.hours))
        for results, own in experiments
        for model in dict.fromkeys(c.group[0] for c in own)
    ]
    if not panels:
        return False
    figure, axes = _panels(len(panels), (4.0, 2.9), METRICS[metric])
    for ax, (results, model, own) in zip(axes, panels, strict=True):
        experiment = results.plan.experiment
        for i, system in enumerate((experiment.baseline, experiment.method)):
            side = [c.theirs if i == 0 else c.ours for c in own]
            scores = [[r.score(metric) or 0.0 for r in results_of.values()] for results_of in side]
            means = [sum(values) / len(values) for values in scores]
            hours = [c.hours for c in own]
            ax.plot(hours, means, color=COLOURS[i], marker=MARKERS[i], markersize=4, label=system)
            spread = [[m - min(v) for m, v in zip(means, scores, strict=True)]]
            spread += [[max(v) - m for m, v in zip(means, scores, strict=True)]]
            ax.errorbar(hours, means, yerr=spread, color=COLOURS[i], fmt="none", capsize=3, linewidth=1)
            for hour, values in zip(hours, scores, strict=True):
                ax.plot([hour] * len(values), values, MARKERS[i], color=COLOURS[i], alpha=0.35, markersize=4)
        _others(ax, results, own, metric)
        if metric == "asr_bleu":
            _ceilings(ax, results)
        _hours_axis(ax, [c.hours for c in own])
        languages = sorted({language for result in results.results for language in result.hours})
        steps = sorted({c.group[2] for c in own})
        span = f"{steps[0]}" if len(steps) == 1 else f"{steps[0]} to {steps[-1]}"
        ax.set_title(f"{model} ({_literal(', '.join(languages))}), {span} steps", fontsize=10)
        ax.set_xlabel("hours of training speech")
    axes[0].set_ylim(bottom=0, top=1.06 * axes[0].get_ylim()[1])
    handles: dict[str, Any] = {}
    for ax in axes:
        handles |= {label: handle for handle, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside upper center", ncols=len(handles), frameon=False)
    _save(figure, path)
    return True


def _panels(count: int, size: tuple[float, float], label: str) -> tuple[Figure, list[Any]]:
    """A figure of `count` panels of a size in inches, up to three in a row, on the same vertical axis."""
    columns = min(3, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(1.0 + size[0] * columns, 0.6 + size[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, sharey=True, squeeze=False).flatten()
    for ax in axes[::columns]:
        ax.set_ylabel(label)
    for ax in axes[count:]:
        ax.set_visible(False)
    return figure, list(axes[:count])


def _others(ax: Any, results: GridResults, comparisons: Sequence[Comparison], metric: str) -> None:
    """Mean scores of further compared systems, for instance at another learning rate, in the same groups."""
    experiment = results.plan.experiment
    roles = {pair.against: 0 for pair in experiment.comparisons} | {pair.system: 1 for pair in experiment.comparisons}
    for system, i in roles.items():  # drawn as the baseline is, or as the method
        if system in (experiment.baseline, experiment.method):
            continue
        found = [(c.hours, list(results.find(c.group, system).values())) for c in comparisons]
        points = [(hours, sum(r.score(metric) or 0.0 for r in each) / len(each)) for hours, each in found if each]
        if points:
            style = {"color": COLOURS[i], "marker": MARKERS[i], "markerfacecolor": "none", "linestyle": "none"}
            ax.plot(*zip(*points, strict=True), markersize=6, label=system, **style)


def _hours_axis(ax: Any, hours: Sequence[float]) -> None:
    """A logarithmic axis with a tick at each amount of speech."""
    ticks = sorted(set(hours))
    ax.set_xscale("log")
    ax.set_xticks(ticks, [f"{tick:.2g}" for tick in ticks], minor=False)
    ax.set_xticks([], minor=True)
    if len(ticks) == 1:  # a logarithmic axis around a single point has no sensible limits of its own
        ax.set_xlim(ticks[0] / 3, ticks[0] * 3)


def _ceilings(ax: Any, results: GridResults) -> None:
    for name, row in results.ceilings.items():
        if (score := row.score("asr_bleu")) is None:
            continue
        ax.axhline(score, color="#777777", linewidth=0.8, linestyle=":")
        ax.annotate(_literal(name), (0.01, score), xycoords=("axes fraction", "data"), fontsize=7, va="bottom")


def curve_figure(path: Path, results: GridResults, metric: str, label: str) -> bool:
    """A panel per model, amount and number of steps: a dev score against the optimizer step, a line per training."""
    groups = [g for g in results.groups() if any(r.curve for r in results.results if r.trial.group == g)]
    if not groups:
        return False
    figure, axes = _panels(len(groups), (3.2, 2.6), label)
    experiment = results.plan.experiment
    # Baseline and method first, so that they have the colors that they have in the other figures.
    systems = list(dict.fromkeys([experiment.baseline, experiment.method, *experiment.systems]))
    for ax, group in zip(axes, groups, strict=True):
        for result in (r for r in results.results if r.trial.group == group):
            i = systems.index(result.trial.system)
            points = [(step, scores[metric]) for step, scores in result.curve if metric in scores]
            first = result.training == min(results.find(group, result.trial.system))
            ax.plot(
                [step for step, _ in points],
                [score for _, score in points],
                color=COLOURS[i % len(COLOURS)],
                marker=MARKERS[i % len(MARKERS)],
                markersize=3,
                linewidth=1,
                alpha=0.8,
                label=result.trial.system if first else None,
            )
        ax.set_title(f"{group[0]}, {group[1]} ({results.hours(group[1]):.2f} h), {group[2]} steps", fontsize=9)
        ax.set_xlabel("optimizer step", fontsize=8)
        ax.legend(fontsize=6, frameon=False)
    _save(figure, path)
    return True


def language_figure(path: Path, results: GridResults, metric: str) -> bool:
    """A panel per model, amount and number of steps: score per language against that language's hours.

    One mark per training of baseline and method; a language without training speech is left out.
    """
    experiment = results.plan.experiment
    systems = (experiment.baseline, experiment.method)
    panels: dict[tuple[str, str, int], list[tuple[int, float, float, str]]] = {}
    for result in (r for r in results.results if r.trial.system in systems):
        for language, value in language_scores(result, metric).items():
            if hours := result.hours.get(language):
                mark = (systems.index(result.trial.system), hours, value, language)
                panels.setdefault(result.trial.group, []).append(mark)
    if not panels:
        return False
    figure, axes = _panels(len(panels), (4.0, 2.9), METRICS[metric])
    ordered = [group for group in results.groups() if group in panels]
    for ax, group in zip(axes, ordered, strict=True):
        marks = panels[group]
        for i, system in enumerate(systems):
            own = [(hours, value) for number, hours, value, _ in marks if number == i]
            if own:
                ax.plot(*zip(*own, strict=True), MARKERS[i], color=COLOURS[i], label=system, alpha=0.8)
        highest = {own: max((y, x) for _, x, y, other in marks if other == own) for *_, own in sorted(marks)}
        for language, (y, x) in sorted(highest.items()):
            ax.annotate(_literal(language), (x, y), textcoords="offset points", xytext=(5, 4), fontsize=8)
        _hours_axis(ax, [x for _, x, _, _ in marks])
        ax.set_title(f"{group[0]}, {group[1]}, {group[2]} steps", fontsize=10)
        ax.set_xlabel("hours of the language's training speech")
    axes[0].set_ylim(bottom=0, top=1.1 * axes[0].get_ylim()[1])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=2, frameon=False)
    _save(figure, path)
    return True


def language_scores(result: Result, metric: str) -> dict[str, float]:
    """Language -> score; empty for a test set in one language."""
    rows = {language: row.score(metric) for language, row in result.scores.languages.items()}
    return {language: score for language, score in rows.items() if score is not None}


def _literal(name: str) -> str:
    """A name that matplotlib does not read as TeX."""
    return name.replace("$", r"\$")


def _save(figure: Figure, path: Path) -> None:
    """Write SVG without a date and with reproducible ids, its text as text."""
    content = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "unitweave", "svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None}, facecolor="white")
    write_text(path, "\n".join(line.rstrip() for line in content.getvalue().splitlines()) + "\n")
