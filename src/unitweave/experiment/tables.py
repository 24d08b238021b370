"""The tables of the page of results about its scores, as Markdown, from what the findings hold."""

import fnmatch
import itertools
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from unitweave.core.markdown import markdown_table
from unitweave.experiment import figures
from unitweave.experiment.findings import METRICS, Comparison
from unitweave.experiment.results import GridResults, Result, Training, signatures
from unitweave.metrics.bleu import bleu_of_counts
from unitweave.metrics.intervals import Interval
from unitweave.metrics.significance import Difference, half_width_of_mean
from unitweave.score.table import shown


def comparisons_table(comparisons: Sequence[Comparison]) -> str:
    rows = []
    for c in comparisons:
        for metric, name in METRICS.items():
            difference = c.differences[metric]
            rows.append(
                [
                    *_of_group(c),
                    name,
                    *_sides(c, metric),
                    "" if difference.scatter is None else f"{difference.scatter:.1f}",
                    f"{len(c.ours)} on {c.machines}",
                    c.verdict(difference),
                ]
            )
    first = comparisons[0]
    table = markdown_table(
        [
            "model",
            "data",
            "hours",
            "steps",
            "metric",
            first.against,
            first.system,
            "difference",
            "scatter",
            "trainings on machines",
            "finding",
        ],
        rows,
    )
    note = (
        "Scores are means over the trainings with minimum and maximum; the scatter is the standard deviation of the "
        "difference between single trainings, and machines are counted by kind."
    )
    return f"{table}\n\n{note}"


def machines_table(comparisons: Sequence[Comparison]) -> str | None:
    """The same comparisons on each kind of machine by itself; None where none has several."""
    rows = [
        [*_of_group(c), machine, name, *_sides(own, metric), str(len(own.ours))]
        for c in comparisons
        if c.machines > 1
        for machine, own in c.by_machine.items()
        for metric, name in METRICS.items()
    ]
    if not rows:
        return None
    first = comparisons[0]
    heads = ["model", "data", "hours", "steps", "machine", "metric", first.against, first.system, "difference"]
    return markdown_table([*heads, "trainings"], rows)


def agreement_table(comparisons: Sequence[Comparison]) -> str | None:
    """What is heard against what each system wrote; None where no system wrote a translation."""
    rows = []
    for c in comparisons:
        pairs = [(c.theirs[t].score("agreement_wer"), c.ours[t].score("agreement_wer")) for t in c.ours]
        known = [(theirs, ours) for theirs, ours in pairs if theirs is not None and ours is not None]
        if known:
            theirs, ours = zip(*known, strict=True)
            values = [one - other for one, other in zip(ours, theirs, strict=True)]
            mean, half = sum(values) / len(values), half_width_of_mean(values)
            interval = "" if half is None else f" [{mean - half:+.1f}, {mean + half:+.1f}]"
            rows.append([*_of_group(c), str(len(values)), _range(theirs), _range(ours), f"{mean:+.1f}{interval}"])
    if not rows:
        return None
    first = comparisons[0]
    table = markdown_table(
        ["model", "data", "hours", "steps", "trainings", first.against, first.system, "difference"], rows
    )
    return (
        f"{table}\n\nAgreement WER: the word error rate of the recognizer's transcript of the speech against the "
        "translation that the system wrote. Lower is better, however good the translation is. Brackets: 95 % interval "
        "over three trainings or more (Student's t)."
    )


def unequal_table(comparisons: Sequence[Comparison]) -> str:
    """Systems against others that have trained for more steps; the group's steps are the system's."""
    headings = ["steps", "system", "against", "steps of that", "metric", "score of that", "score of the system"]
    rows = _rows(comparisons, lambda c: [c.system, c.against, str(c.against_steps)])
    return markdown_table(["model", "data", "hours", *headings, "difference", "trainings", "finding"], rows)


def further_table(comparisons: Sequence[Comparison]) -> str:
    """The requested comparisons, at equal steps."""
    headings = ["steps", "system", "against", "metric", "score of that", "score of the system"]
    rows = _rows(comparisons, lambda c: [c.system, c.against])
    return markdown_table(["model", "data", "hours", *headings, "difference", "trainings", "finding"], rows)


def _rows(comparisons: Sequence[Comparison], named: Callable[[Comparison], list[str]]) -> list[list[str]]:
    """A row for each comparison and score; `named` gives what goes between the group and the metric."""
    return [
        [
            *_of_group(c),
            *named(c),
            name,
            *_sides(c, metric),
            str(len(c.ours)),
            c.verdict(c.differences[metric]),
        ]
        for c in comparisons
        for metric, name in METRICS.items()
    ]


def _sides(c: Comparison, metric: str) -> list[str]:
    """Both systems' scores and their difference."""
    return [_spread(c.theirs, metric), _spread(c.ours, metric), _signed(c.differences[metric])]


def _of_group(c: Comparison) -> list[str]:
    return [c.group[0], c.group[1], f"{c.hours:.2f}", str(c.group[2])]


def _signed(difference: Difference) -> str:
    return f"{difference.mean:+z.1f} [{difference.low:+z.1f}, {difference.high:+z.1f}]"


def best_on_dev_table(grid: GridResults, results: Sequence[dict[str, Result]]) -> str:
    rows = [
        [*_axes(r), f"{r.dev_bleu:.1f}", _interval(r, "asr_bleu"), _interval(r, "text_bleu")]
        for chosen in results
        for r in chosen.values()
    ]
    unfinished = "" if not grid.partial else " Some trainings are missing, so this may still change."
    return (
        markdown_table(["model", "data", "system", "steps", "seed", "dev text BLEU", "ASR-BLEU", "text BLEU"], rows)
        + "\n\nThe number of steps is the one with the highest dev score of those tried; each is a training of its "
        f"own, with its schedule and learning rate stretched over its steps.{unfinished}"
    )


def ablations_table(grid: GridResults, ablations: Sequence[tuple[Comparison, Comparison | None]]) -> str:
    experiment = grid.plan.experiment
    rows = []
    for against, base in ablations:
        d, e = against.differences["asr_bleu"], base.differences["asr_bleu"] if base else None
        rows.append(
            [
                *_of_group(against),
                against.system,
                _spread(against.ours, "asr_bleu"),
                _spread(against.ours, "text_bleu"),
                str(len(d.by_training)),
                _signed(d),
                against.verdict(d),
                *((_signed(e), str(len(e.by_training)), base.verdict(e)) if base and e else ("", "", "")),
            ]
        )
    heads = ["model", "data", "hours", "steps", "system", "ASR-BLEU", "text BLEU", "trainings"]
    return markdown_table(
        [
            *heads,
            f"ASR-BLEU against {experiment.method}",
            "finding",
            f"against {experiment.baseline}",
            "trainings",
            "finding",
        ],
        rows,
    )


def evaluations_table(grid: GridResults) -> str:
    """Text BLEU on the dev split at each evaluation, mean over the trainings: was it still rising at the end?"""
    evaluations = grid.plan.experiment.evaluations
    curves_of: dict[tuple[str, ...], list[list[float]]] = {}
    for r in grid.results:
        if len(r.curve) == evaluations and all("bleu" in scores for _, scores in r.curve):
            model, data, system, steps, _ = _axes(r)
            curves_of.setdefault((model, data, system, steps), []).append([scores["bleu"] for _, scores in r.curve])
    heads = ["model", "data", "system", "steps", "trainings"]
    shares = [f"at {100 * evaluation / evaluations:.0f} %" for evaluation in range(1, evaluations + 1)]
    rows = [
        [
            *key,
            str(len(curves)),
            *(f"{sum(evaluation) / len(evaluation):.1f}" for evaluation in zip(*curves, strict=True)),
        ]
        for key, curves in curves_of.items()
    ]
    return "Dev text BLEU during training, mean over the trainings:\n\n" + markdown_table([*heads, *shares], rows)


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
            difference = c.languages[language]
            shown = [
                *(f"{mean:.1f}" for mean in means),
                _signed(difference),
                str(len(difference.by_training)),
                c.verdict(difference),
            ]
            rows.append([language, f"{hours[language]:.2f}", c.group[0], c.group[1], str(c.group[2]), *shown])
    first = comparisons[0]
    heads = ["language", "hours", "model", "data", "steps", f"{first.against}, ASR-BLEU", first.system]
    return markdown_table([*heads, "difference", "trainings", "finding"], rows)


def parts_table(grid: GridResults, comparisons: Sequence[Comparison]) -> str:
    """Method against baseline on each part of the test split, means over the trainings; "" where no parts are named."""
    rows = []
    patterns = grid.plan.experiment.parts
    for name, c in itertools.product(patterns, comparisons):
        ids = next(iter(c.ours.values())).ids
        of = [next((part for part, pattern in patterns.items() if fnmatch.fnmatchcase(id, pattern)), "") for id in ids]
        chosen = np.array([part == name for part in of])
        if not chosen.any():
            continue
        row = [name, str(chosen.sum()), *map(str, c.group), str(len(c.ours))]
        for metric in METRICS:
            difference = c.on(chosen, metric)
            for side in (c.theirs, c.ours):
                scores = [bleu_of_counts(r.counts[metric][chosen].sum(0)) for r in side.values()]
                row.append(f"{sum(scores) / len(scores):.1f}")
            row += [_signed(difference), c.verdict(difference)]
        rows.append(row)
    if not rows:
        return ""
    systems = comparisons[0].against, comparisons[0].system
    heads = ["part", "utterances", "model", "data", "steps", "trainings"]
    for label in METRICS.values():
        heads += [f"{label}: {systems[0]}", systems[1], "difference", "finding"]
    return markdown_table(heads, rows)


def languages_table(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        scores = {metric: figures.language_scores(r, metric) for metric in METRICS}
        for language in sorted(scores["asr_bleu"], key=lambda code: -r.hours.get(code, 0.0)):
            shown = [f"{scores[metric][language]:.1f}" if language in scores[metric] else "" for metric in METRICS]
            rows.append([language, f"{r.hours.get(language, 0.0):.2f}", *_axes(r), *shown])
    return markdown_table(["language", "hours", "model", "data", "system", "steps", "seed", *METRICS.values()], rows)


def ceilings_table(grid: GridResults) -> str:
    """What reference and resynthesized speech reach, in each build of the shared stages."""
    of_build = {r.build: r.ceilings for r in reversed(grid.results) if r.ceilings}
    builds = [build for build in grid.builds if build in of_build]
    rows = [
        [*_build(grid, build), name, _shown(row.asr_bleu), _shown(row.asr_wer)]
        for build in builds
        for name, row in of_build[build].items()
    ]
    return markdown_table([*_build_head(grid), "speech", "ASR-BLEU", "ASR WER"], rows)


def _build_head(grid: GridResults) -> list[str]:
    return ["build"] if len(grid.builds) > 1 else []


def _build(grid: GridResults, build: str) -> list[str]:
    """The build as a value of a row; none where all have the same."""
    return [grid.builds[build]] if len(grid.builds) > 1 else []


def trials_table(grid: GridResults) -> str:
    rows = []
    for r in grid.results:
        commits, commands, machines = (
            ", ".join(dict.fromkeys(str(s.get(key, "?")) for s in r.sessions)) or "?"
            for key in ("commit", "command", "machine")
        )
        scores = [_interval(r, metric) for metric in ("asr_bleu", "text_bleu", "transcript_wer", "agreement_wer")]
        rows.append(
            [
                *_axes(r),
                *_build(grid, r.build),
                *scores,
                f"{r.seconds / 60:.1f}",
                commits,
                f"`{commands}`",
                str(r.training.threads or "?"),
                machines,
            ]
        )
    heads = ["model", "data", "system", "steps", "seed", *_build_head(grid), "ASR-BLEU", "text BLEU", "transcript WER"]
    heads += ["agreement WER", "training, minutes", "commit", "command", "threads", "machine"]
    table = markdown_table(heads, rows)
    skipped = "".join(f"\n- `{trial.name}` was skipped: the dev score no longer rose" for trial in grid.skipped)
    signature = "\n".join(f"    {line}" for line in signatures(grid.results))
    return (
        f"{table}\n\nBrackets: 95 % interval over the utterances (sacrebleu's bootstrap). A + after a commit: with "
        f"uncommitted changes.{skipped and chr(10) + skipped}\n\nSignature of the ASR-BLEU:\n\n{signature}"
    )


def _axes(r: Result) -> list[str]:
    return [r.trial.model, r.trial.data, r.trial.system, str(r.trial.steps), str(r.trial.seed)]


def _spread(results: Mapping[Training, Result], metric: str) -> str:
    """Mean over the trainings, with minimum and maximum where there are several."""
    return _range([value for r in results.values() if (value := r.score(metric)) is not None])


def _range(values: Sequence[float]) -> str:
    if not values:
        return ""
    mean = sum(values) / len(values)
    return f"{mean:.1f}" if len(values) == 1 else f"{mean:.1f} ({min(values):.1f} to {max(values):.1f})"


def _interval(r: Result, metric: str) -> str:
    return _shown(getattr(r.scores, metric))


def _shown(value: Interval | None) -> str:
    return "" if value is None else shown(value, 1, interval=True)
