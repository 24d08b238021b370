"""The report: one self-contained HTML page about one run or several, to look at and listen to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import jinja2
from markupsafe import Markup, escape

from unitweave import __version__
from unitweave.config.interleave import InterleaveSettings, ScheduleSettings
from unitweave.config.recipe import parse_settings
from unitweave.core.audio import SAMPLE_RATE, read_audio
from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.natural import comparable_text
from unitweave.core.records import read_json_lines
from unitweave.core.scripts import join_words
from unitweave.core.stage import STAGE_FILE, read_stage
from unitweave.interleaving.schedule import text_ratio
from unitweave.score import pictures, table
from unitweave.score.charts import Line, line_chart
from unitweave.score.outputs import SystemOutputs, read_outputs
from unitweave.score.scores import RESYNTHESIS, ScoredUtterance, Scores, read_scores, read_utterances
from unitweave.units.dataset import UnitRow, read_units

Kind = TypeVar("Kind")

HEADINGS = {"asr_wer": "ASR WER %", "transcript_wer": "transcript WER %", "agreement_wer": "agreement WER %"}
WORST = 8  # utterances of each system
LOSSES = ("loss_source", "loss_transcript", "loss_translation", "loss_target")
_DRAWN = ("step", "ratio", "loss", "bleu", "wer", "seconds", *LOSSES)
PICTURE_RATIO = 0.5  # the pictures show the interleaving at that text ratio of the schedule which is nearest to this


@dataclass(frozen=True)
class Interleaving:
    """The interleaving that the pictures show: that of the first system whose schedule asks for text."""

    system: str | None
    ratio: float
    settings: InterleaveSettings
    deduplicate: bool

    def at(self, side: str) -> float:
        """The text ratio on the side "source" or "target"."""
        return self.ratio if self.settings.sides in ("both", side) else 0.0


@dataclass
class RunData:
    """What the report reads of one run folder."""

    name: str
    folder: Path
    scores: Scores
    utterances: dict[str, ScoredUtterance]
    pairs: dict[str, Pair]
    units: Mapping[tuple[str, str], UnitRow]
    logs: dict[str, list[dict[str, Any]]]
    dev: dict[str, list[dict[str, Any]]]
    outputs: dict[str, SystemOutputs]
    stages: dict[str, dict[str, Any]]


def write_report(path: Path, runs: Sequence[Path]) -> Path:
    """Write one HTML file about `runs`, which must have been scored; nothing in it needs the network.

    Raises InputError when a run has no scores or its folder is no run.
    """
    if not runs:
        raise InputError("report: name one or more run folders")
    data = [_read_run(Path(run), len(runs) > 1) for run in runs]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["running"] = join_words  # normalized texts, in which each ideograph is a word
    signatures = {run.scores.signature for run in data}
    page = environment.get_template("report.html.jinja").render(
        version=__version__,
        runs=[_run_part(run) for run in data],
        charts=[Markup(chart) for chart in _charts(data)],
        score_rows=_score_rows(data),
        columns=[HEADINGS.get(key, heading.replace("\n", " ")) for key, heading, _ in table.COLUMNS],
        mos=[heading for _, heading in _mos_columns(data)],
        several_signatures=len(signatures) > 1,
    )
    write_text(Path(path), page)
    return Path(path)


def _read_run(folder: Path, several: bool) -> RunData:
    if not folder.is_dir():
        raise InputError(f"{folder}: no such run folder")
    scores = read_scores(folder / "score")
    systems = list(scores.systems)
    pairs = {pair.id: pair for pair in read_manifest(folder / "corpus", "test")}
    have_units = any((folder / "units").glob("units-*.parquet"))
    units = read_units(folder / "units", scores.examples) if have_units else {}
    logs = {system: _lines_if_any(folder / "lm" / system / "log.jsonl") for system in systems}
    names = ["corpus", "units", "vocoder", *(f"lm/{system}" for system in systems)]
    names += [f"translate/{system}" for system in systems] + ["score"]
    return RunData(
        name=folder.resolve().name if several else "",
        folder=folder,
        scores=scores,
        utterances={row.id: row for row in read_utterances(folder / "score")},
        pairs=pairs,
        units=units,
        logs=logs,
        dev={system: _lines_if_any(folder / "lm" / system / "dev.jsonl") for system in systems},
        outputs={system: read_outputs(RunLayout(folder).translate(system), pairs) for system in systems},
        stages={name: read_stage(folder, name) for name in names if (folder / name / STAGE_FILE).exists()},
    )


def _lines_if_any(path: Path) -> list[dict[str, Any]]:
    """The lines of a log that may not be there, with numbers where the charts need them."""
    rows = read_json_lines(path) if path.exists() else []
    for number, row in enumerate(rows, 1):
        wrong = [key for key in _DRAWN if not isinstance(row.get(key, 0), int | float | None)]
        if wrong or "step" not in row:
            raise InputError(f"{path}, line {number}: damaged ({(wrong or ['step'])[0]!r} must be a number)")
    return rows


def _run_part(run: RunData) -> dict[str, Any]:
    return {
        "name": run.name,
        "folder": str(run.folder),
        "facts": _facts(run),
        "stages": [
            {
                "name": name,
                "seconds": stage.get("seconds"),
                "counts": _plain(stage.get("counts", {})),
                "settings": _plain(stage.get("settings", {})),
            }
            for name, stage in run.stages.items()
        ],
        "interleaving": (interleaving := _interleaving(run)),
        "examples": [_example(run, id, interleaving) for id in run.scores.examples if id in run.utterances],
        "notes": table.notes(run.scores),
        "languages": _parts(run, "languages"),
        "speakers": _parts(run, "speakers"),
        "details": _details(run.scores),
        "worst": _worst(run),
    }


def _facts(run: RunData) -> list[tuple[str, str]]:
    hours = run.scores.training_hours
    facts = [("Training split", ", ".join(f"{language}: {value:g} h" for language, value in hours.items()))]
    facts.append(("Tested on", f"{run.scores.signature.utterances} utterances of the test split"))
    for system, log in run.logs.items():
        if log:
            ratios = [ratio for _, ratio in _ratios(run, system)]
            kind = "units only" if not max(ratios) else f"text ratio from {ratios[0]:g} to {ratios[-1]:g}"
            stage = run.stages.get(f"lm/{system}", {})
            seconds = stage.get("seconds") or log[-1].get("seconds") or 0.0
            pairs = stage.get("counts", {}).get("pairs")
            count = "" if not isinstance(pairs, int) else f"{pairs:,} utterance pairs, "
            facts.append((f"System {system}", f"{count}{log[-1]['step']} steps, {kind}, {seconds / 60:.1f} minutes"))
    return facts + _provenance(run)


def _provenance(run: RunData) -> list[tuple[str, str]]:
    """When, where, by which code and commands the stages were done; those of earlier versions do not say it."""
    provenances = [stage["provenance"] for stage in run.stages.values() if isinstance(stage.get("provenance"), Mapping)]
    versions = {stage.get("versions", {}).get("unitweave") for stage in run.stages.values()} - {None}
    facts = []
    for title, key in (("Commit", "commit"), ("Machine", "machine"), ("Command", "command"), ("Done", "finished")):
        values = list(dict.fromkeys(str(record[key]) for record in provenances if key in record))
        if key == "finished" and len(values) > 1:
            values = [f"{min(values)} to {max(values)}"]
        if values:
            facts.append((title, "; ".join(values)))
    return facts or [("Version", ", ".join(sorted(versions)))] * bool(versions)


def _ratios(run: RunData, system: str) -> list[tuple[float, float]]:
    """(step, text ratio) at every step; the log has only every tenth or so, which misses short stairs."""
    schedule = _lm_setting(run, system, "schedule")
    if schedule.get("shape", "function") == "function":  # that may not be importable here
        return [(row["step"], row.get("ratio", 0.0)) for row in run.logs[system]]
    steps = _lm_setting(run, system, "training").get("steps")
    if not isinstance(steps, int):
        raise InputError(f"{run.folder / 'lm' / system / STAGE_FILE}: damaged (no number of steps)")
    ratio = text_ratio(_parsed(run, system, "schedule", ScheduleSettings), steps)
    return [(step, ratio(step)) for step in range(steps + 1)]


def _lm_setting(run: RunData, system: str, name: str) -> dict[str, Any]:
    """An object among the settings in a system's stage.json."""
    content = run.stages.get(f"lm/{system}", {}).get("settings", {}).get(name, {})
    if not isinstance(content, dict):
        raise InputError(f"{run.folder / 'lm' / system / STAGE_FILE}: damaged ({name!r} must be an object)")
    return content


def _parsed(run: RunData, system: str, name: str, kind: type[Kind]) -> Kind:
    try:
        return parse_settings(kind, _lm_setting(run, system, name), name)
    except InputError as error:
        raise InputError(f"{run.folder / 'lm' / system / STAGE_FILE}: damaged ({error})") from None


def _interleaving(run: RunData) -> Interleaving:
    for system in run.logs:
        ratios = [ratio for _, ratio in _ratios(run, system) if ratio > 0] if run.logs[system] else []
        if ratios:
            interleave = _parsed(run, system, "interleave", InterleaveSettings)
            ratio = min(ratios, key=lambda ratio: abs(ratio - PICTURE_RATIO))
            merged = run.stages.get(f"lm/{system}", {}).get("settings", {}).get("deduplicate", False)
            return Interleaving(system, ratio, interleave, bool(merged))
    return Interleaving(None, 0.0, InterleaveSettings(), False)


def _plain(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for key, value in values.items():
        if isinstance(value, Mapping):
            rows += _plain(value, f"{prefix}{key}.")
        else:
            rows.append((prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)))
    return rows


def _charts(runs: Sequence[RunData]) -> list[str]:
    def label(run: RunData, name: str) -> str:
        return f"{run.name}: {name}" if run.name else name

    def over_steps(source: str, key: str) -> list[Line]:
        return [
            Line(label(run, system), [(row["step"], row[key]) for row in rows if row.get(key) is not None])
            for run in runs
            for system, rows in getattr(run, source).items()
        ]

    schedules = [
        Line(label(run, system), _ratios(run, system), True) for run in runs for system, log in run.logs.items() if log
    ]

    charts = [
        (
            "Text ratio of the training sequences",
            line_chart("Text ratio", "step", schedules, 1.0),
        ),
        ("Training loss", line_chart("Training loss", "step", over_steps("logs", "loss"))),
        ("Text BLEU on the dev split", line_chart("Dev text BLEU", "step", over_steps("dev", "bleu"), 100.0)),
        ("Transcript WER on the dev split, %", line_chart("Dev WER", "step", over_steps("dev", "wer"))),
    ]
    for run in runs:
        for system, rows in run.logs.items():
            lines = [
                Line(key.removeprefix("loss_"), [(row["step"], row[key]) for row in rows if row.get(key) is not None])
                for key in LOSSES
            ]
            title = f"Loss by part of the sequence, {label(run, system)}"
            charts.append((title, line_chart(title, "step", lines)))
    return [f"<figure><figcaption>{escape(title)}</figcaption>{svg}</figure>" for title, svg in charts if svg]


def _mos_columns(runs: Sequence[RunData]) -> list[tuple[str, str]]:
    names = sorted({name for run in runs for name in table.mos_names(run.scores)})
    return [(name, table.MOS_HEADINGS.get(name, name).replace("\n", "")) for name in names]


def _score_rows(runs: Sequence[RunData]) -> list[dict[str, Any]]:
    mos = [name for name, _ in _mos_columns(runs)]
    return [
        {
            "name": f"{run.name}: {name}" if run.name else name,
            "ceiling": name in run.scores.ceilings,
            "bar": row.asr_bleu.score if row.asr_bleu else 0.0,
            "low": row.asr_bleu.low if row.asr_bleu else None,
            "high": row.asr_bleu.high if row.asr_bleu else None,
            "cells": table.cells(row),
            "mos": table.mos_cells(row, mos),
        }
        for run in runs
        for name, row in run.scores.all.items()
    ]


def _parts(run: RunData, kind: str) -> list[dict[str, Any]]:
    """The main score of parts of the utterances ("languages", by falling hours of training speech, or "speakers")."""
    hours = run.scores.training_hours
    rows = {name: parts for name, row in run.scores.systems.items() if (parts := getattr(row, kind))}
    names = sorted({part for parts in rows.values() for part in parts}, key=lambda part: (-hours.get(part, 0.0), part))
    return [
        {
            "name": part,
            "hours": hours.get(part) if kind == "languages" else None,
            "utterances": next(parts[part].utterances for parts in rows.values() if part in parts),
            "cells": [(name, table.main_score(parts[part]) if part in parts else "–") for name, parts in rows.items()],
        }
        for part in names
    ]


def _details(scores: Scores) -> dict[str, Any]:
    """The minor numbers, in the columns that any row has."""
    columns = [one for one in table.DETAILS if any(getattr(row, one[0]) is not None for row in scores.all.values())]
    rows = {
        name: [table.shown(getattr(row, key), digits) for key, _, digits in columns] for name, row in scores.all.items()
    }
    return {"columns": [heading for _, heading, _ in columns], "rows": rows}


def _worst(run: RunData) -> list[dict[str, Any]]:
    """The utterances of each system with the lowest chrF of the ASR transcript, or of the text where there is none."""
    from sacrebleu.metrics import CHRF

    metric, scores = CHRF(), []
    for system, row in run.scores.systems.items():
        rated = []
        for utterance in run.utterances.values():
            output, pair = utterance.outputs[system], run.pairs[utterance.id]
            natural = run.outputs[system][utterance.id].texts == "natural"
            if row.asr_bleu:
                text, reference = output.asr_normalized, utterance.reference
            elif output.translation is not None:
                text = comparable_text(output.translation, pair.tgt_lang, natural)
                reference = utterance.reference
            else:
                text = comparable_text(output.transcript or "", pair.src_lang, natural)
                reference = utterance.source or ""
            rated.append((round(metric.sentence_score(text, [reference]).score, 1), utterance.id, utterance, output))
        rated.sort(key=lambda entry: entry[:2])
        scores.append({"system": system, "rows": [(score, u, output) for score, _, u, output in rated[:WORST]]})
    return scores


def _example(run: RunData, id: str, interleaving: Interleaving) -> dict[str, Any]:
    pair, utterance = run.pairs[id], run.utterances[id]
    players = []
    for name, side, audio, text, units in (
        ("Source", "source", pair.src_audio, join_words(utterance.source or ""), run.units.get((id, "src"))),
        ("Reference", "target", pair.tgt_audio, join_words(utterance.reference), run.units.get((id, "tgt"))),
    ):
        player = _player(name, audio, text)
        if audio is not None and units is not None and len(units.words):
            one, settings = interleaving, interleaving.settings
            words = pictures.word_boxes(units, one.at(side), settings, one.deduplicate, player["seconds"])
            width = pictures.picture_width(player["seconds"], words)
            player |= {"words": words, "rows": max(word.row for word in words) + 1, "width": width}
            player["interleaved"] = pictures.interleaved_pieces(words, settings)
        players.append(player)
    for system, outputs in run.outputs.items():
        output, audio = utterance.outputs[system], outputs[id].audio
        player = _player(
            system, audio and str(RunLayout(run.folder).translate(system) / audio), output.translation or ""
        )
        players.append(player | {"asr": output.asr_transcript, "transcript": output.transcript, "system": True})
    kept = run.folder / "score" / "resynthesized" / f"{id}.wav"
    if RESYNTHESIS in utterance.outputs and kept.exists():
        player = _player("Reference units, resynthesized", str(kept), join_words(utterance.reference))
        players.append(player | {"asr": utterance.outputs[RESYNTHESIS].asr_transcript})
    return {"id": id, "language": pair.src_lang, "players": players}


def _player(name: str, audio: str | None, text: str) -> dict[str, Any]:
    player: dict[str, Any] = {"name": name, "text": text, "asr": None, "transcript": None, "system": False}
    player |= {"audio": None, "picture": None, "words": [], "rows": 0, "width": 0, "interleaved": [], "seconds": 0.0}
    if audio is None:
        return player
    waveform = read_audio(audio)
    seconds = len(waveform) / SAMPLE_RATE
    made = {"audio": pictures.audio_uri(waveform), "picture": pictures.spectrogram_uri(waveform), "seconds": seconds}
    return player | made | {"width": pictures.picture_width(seconds, [])}
