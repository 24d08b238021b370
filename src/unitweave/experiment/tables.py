"""The tables of the page of results, as Markdown, from what the findings hold."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from unitweave.experiment import figures
from unitweave.experiment.findings import METRICS, Comparison
from unitweave.experiment.plan import Cell
from unitweave.experiment.results import GridResults, Result, signatures
from unitweave.interleaving.schedule import text_ratio
from unitweave.metrics.intervals import Interval
from unitweave.metrics.significance import Difference
from unitweave.score.table import shown


def amounts_table(grid: GridResults) -> str:
    rows = [
        [name, language, f"{counted['pairs']:.0f}", f"{counted['hours']:.2f}"]
        for name, languages in grid.amounts.items()
        for language, counted in languages.items()
    ]
    return _table(["data", "source language", "utterance pairs", "hours of source speech"], rows)


def systems_table(grid: GridResults) -> str:
    """What each system is, from the settings of its first training, and what all of a model have in common."""
    experiment = grid.plan.experiment
    first = {(r.cell.system, r.cell.model): r.cell for r in reversed(grid.results)}
    rows = []
    for system in dict.fromkeys([experiment.baseline, experiment.method, *experiment.systems]):
        differs = "; ".join(_flat(experiment.systems[system] or {})) or "nothing: the recipe's own"
        schedules: dict[tuple[str, str], list[str]] = {}  # a model may have a schedule of its own
        for model in experiment.models:
            if (system, model) in first:
                schedules.setdefault(_schedule(grid, first[system, model]), []).append(model)
        for (start, until), models in schedules.items():
            name = f"{system} ({', '.join(models)})" if len(schedules) > 1 else system
            rows.append([name, differs, start, until])
    common = []
    for model in dict.fromkeys(r.cell.model for r in grid.results):
        settings = next(grid.plan.recipe.systems[r.cell.name] for r in grid.results if r.cell.model == model)
        training = settings.training
        common.append(
            f"{model}: {training.batch_size} utterance pairs a step, {training.optimizer} at a learning rate of "
            f"{training.learning_rate:g}."
        )
    tested = f"Tested on {len(grid.results[0].references)} utterances."
    deviation, several = grid.scatter("asr_bleu")
    scatter = (
        f"Trainings that differ only in the seed scatter by {deviation:.1f} ASR-BLEU (standard deviation, pooled over "
        f"the {several} {'systems' if several > 1 else 'system'} here with several seeds)."
        if several
        else "No system here has several seeds, so how far seeds scatter is not known."
    )
    makings = list(grid.makings.values())
    made = (
        f"The trainings are of {len(makings)} makings of the shared stages, {' and '.join(makings)}: the same "
        "settings, done again, as on another machine. Systems are compared only within one."
        if len(makings) > 1
        else ""
    )
    table = _table(["system", "what is its own", "text at the first step", "pure units from"], rows)
    return f"{table}\n\n{' '.join(filter(None, [*common, tested, scatter, made]))}"


def _schedule(grid: GridResults, cell: Cell) -> tuple[str, str]:
    """The share of text at a cell's first step, and from where on it trains on pure units."""
    ratio = text_ratio(grid.plan.recipe.systems[cell.name].schedule, cell.steps)
    ratios = [ratio(step) for step in range(cell.steps)]
    last = max((step + 1 for step, value in enumerate(ratios) if value > 0), default=0)
    return f"{ratios[0]:.0%}", "never" if last == cell.steps else f"{100 * last / cell.steps:.0f} % of the run"


def _flat(settings: Mapping[str, Any], above: str = "") -> list[str]:
    """Nested settings as "a.b: value" each."""
    found = []
    for key, value in settings.items():
        if isinstance(value, Mapping):
            found += _flat(value, f"{above}{key}.")
        else:
            found.append(f"{above}{key}: {value}")
    return found


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
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


def unequal_table(comparisons: Sequence[Comparison]) -> str:
    """Systems against others that have trained for more steps; the group's steps are the system's."""
    own = ["steps", "system", "against", "its steps", "score", "the other's", "the system's"]
    rows = _rows(comparisons, lambda c: [c.system, c.against, str(c.against_steps)])
    return _table(["model", "data", "hours", *own, "difference", "seeds", "finding"], rows)


def further_table(comparisons: Sequence[Comparison]) -> str:
    """The comparisons asked for, at equal steps."""
    own = ["steps", "system", "against", "score", "the other's", "the system's"]
    rows = _rows(comparisons, lambda c: [c.system, c.against])
    return _table(["model", "data", "hours", *own, "difference", "seeds", "finding"], rows)


def _rows(comparisons: Sequence[Comparison], named: Callable[[Comparison], list[str]]) -> list[list[str]]:
    """A row for each comparison and score; `named` is what stands between the group and the score."""
    return [
        [
            *_of_group(c),
            *named(c),
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


def _of_group(c: Comparison) -> list[str]:
    return [c.group[0], c.group[1], f"{c.hours:.2f}", str(c.group[2])]


def _signed(found: Difference) -> str:
    return f"{found.mean:+z.1f} [{found.low:+z.1f}, {found.high:+z.1f}]"


def best_on_dev_table(grid: GridResults, rows: Sequence[dict[str, Result]]) -> str:
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


def ablations_table(grid: GridResults, found: Sequence[tuple[Comparison, Comparison | None]]) -> str:
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
                str(len(d.by_seed)),
                _signed(d),
                d.verdict,
                *((_signed(e), str(len(e.by_seed)), e.verdict) if e else ("", "", "")),
            ]
        )
    heads = ["model", "data", "hours", "steps", "system", "ASR-BLEU", "text BLEU", "seeds"]
    return _table(
        [
            *heads,
            f"ASR-BLEU against {experiment.method}",
            "finding",
            f"against {experiment.baseline}",
            "seeds",
            "finding",
        ],
        rows,
    )


def looks_table(grid: GridResults) -> str:
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


def language_differences_table(grid: GridResults, comparisons: Sequence[Comparison]) -> str:
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
            shown = [*(f"{mean:.1f}" for mean in means), _signed(found), str(len(found.by_seed)), found.verdict]
            rows.append([language, f"{hours[language]:.2f}", c.group[0], c.group[1], str(c.group[2]), *shown])
    first = comparisons[0]
    heads = ["language", "hours", "model", "data", "steps", f"{first.against}, ASR-BLEU", first.system]
    return _table([*heads, "difference", "seeds", "finding"], rows)


def languages_table(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        scores = {metric: figures.language_scores(r, metric) for metric in METRICS}
        for language in sorted(scores["asr_bleu"], key=lambda code: -r.hours.get(code, 0.0)):
            shown = [f"{scores[metric][language]:.1f}" if language in scores[metric] else "" for metric in METRICS]
            rows.append([language, f"{r.hours.get(language, 0.0):.2f}", *_axes(r), *shown])
    return _table(["language", "hours", "model", "data", "system", "steps", "seed", *METRICS.values()], rows)


def ceilings_table(grid: GridResults) -> str:
    """What reference and resynthesized speech reach, in each making of the shared stages."""
    of_making = {r.making: r.ceilings for r in reversed(grid.results) if r.ceilings}
    makings = [making for making in grid.makings if making in of_making]
    rows = [
        [*_making(grid, making), name, _shown(row.asr_bleu), _shown(row.asr_wer)]
        for making in makings
        for name, row in of_making[making].items()
    ]
    return _table([*_making_head(grid), "what the recognizer heard", "ASR-BLEU", "ASR WER"], rows)


def _making_head(grid: GridResults) -> list[str]:
    return ["making"] if len(grid.makings) > 1 else []


def _making(grid: GridResults, making: str) -> list[str]:
    """The cell of a making in a row; none where all have the same."""
    return [grid.makings[making]] if len(grid.makings) > 1 else []


def cells_table(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        commits, commands, machines = (
            ", ".join(dict.fromkeys(str(s.get(key, "?")) for s in r.sittings)) or "?"
            for key in ("commit", "command", "machine")
        )
        scores = [_interval(r, "asr_bleu"), _interval(r, "text_bleu"), _interval(r, "transcript_wer")]
        rows.append(
            [*_axes(r), *_making(grid, r.making), *scores, f"{r.seconds / 60:.1f}", commits, f"`{commands}`", machines]
        )
    heads = ["model", "data", "system", "steps", "seed", *_making_head(grid), "ASR-BLEU", "text BLEU", "transcript WER"]
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
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})"


def _interval(r: Result, metric: str) -> str:
    return _shown(getattr(r.scores, metric))


def _shown(value: Interval | None) -> str:
    return "" if value is None else shown(value, 1, interval=True)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
