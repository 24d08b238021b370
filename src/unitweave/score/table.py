"""The score table for the terminal."""

from collections.abc import Mapping
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COLUMNS = (
    # key in a row of scores.json, heading, digits
    ("asr_bleu", "ASR-BLEU", 1),
    ("asr_wer", "ASR\nWER %", 1),
    ("text_bleu", "text\nBLEU", 1),
    ("text_chrf", "text\nchrF", 1),
    ("transcript_wer", "transcr.\nWER %", 1),
    ("agreement_wer", "agree\nWER %", 1),
)
MOS_HEADINGS = {"dnsmos_ovrl": "DNS\nMOS", "utmos": "UT\nMOS"}


def print_table(scores: Mapping[str, Any], console: Console | None = None) -> None:
    """Print systems, ceilings, significance and the signature of a scores.json on standard output."""
    console = console or Console(highlight=False)
    table = Table(
        title=f"{scores['signature_fields']['utterances']} utterances",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    table.add_column("system", no_wrap=True)
    for _, heading, _ in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    mos = mos_names(scores)
    for name in mos:
        table.add_column(MOS_HEADINGS.get(name, name), justify="right", no_wrap=True)
    for kind in ("systems", "ceilings"):
        for name, row in scores[kind].items():
            label = name if kind == "systems" else f"{name} *"
            cells = [shown(row.get(key), digits, interval=key == "asr_bleu") for key, _, digits in COLUMNS]
            table.add_row(escape(label), *map(escape, cells), *(shown(row.get("mos", {}).get(key), 2) for key in mos))
        table.add_section()
    console.print(table)
    if scores["ceilings"]:
        console.print("* a ceiling: the same recognizer on a perfect translation")
    console.print(details(scores), soft_wrap=True, markup=False)
    for line in remarks(scores):
        console.print(line, soft_wrap=True, markup=False)


DETAILS = (
    ("asr_chrf", "ASR chrF", 1),
    ("transcript_cer", "transcript CER %", 1),
    ("unit_error_rate", "unit errors %", 1),
    ("unit_error_rate_without_repeats", "unit errors without repeats %", 1),
    ("words_per_second", "words/s", 2),
    ("silence_share", "silence share", 2),
)


def details(scores: Mapping[str, Any]) -> str:
    """The lesser numbers, a line for each row of the table."""
    lines = []
    for name, row in (scores["systems"] | scores["ceilings"]).items():
        known = [f"{heading} {shown(row[key], digits)}" for key, heading, digits in DETAILS if row.get(key) is not None]
        lines.append(f"{name}: {', '.join(known)}")
    return "\n".join(lines)


def remarks(scores: Mapping[str, Any]) -> list[str]:
    """What stands below the table: what the columns mean, significance, notes and the signature."""
    lines = [
        "Square brackets hold the 95 % interval. ASR WER is what the recognizer hears against the reference, agreement "
        "against what the model wrote."
    ]
    for test in scores["significance"]:
        where = f" in {test['language']}" if "language" in test else ""
        lines.append(
            f"{test['system']} against {test['against']}{where}: {test['difference']:+.1f} ASR-BLEU, "
            f"p = {test['p_value']:.4f} ({test['test']})"
        )
    silent = {name: row["silent_utterances"] for name, row in scores["systems"].items() if row["silent_utterances"]}
    for name, count in silent.items():
        lines.append(f"{name}: nothing heard in {count} utterances; they count as empty")
    lines += list(scores.get("notes", ()))
    predictors = scores.get("mos_predictors", {})
    if predictors.get("signatures"):
        lines.append(
            f"MOS: {', '.join(predictors['signatures'])}, on {predictors['utterances']} utterances of each row"
        )
    lines.append(f"signature: {scores['signature']}")
    return lines


def mos_names(scores: Mapping[str, Any]) -> list[str]:
    """Names of the predicted MOS that any row has; of DNSMOS's three, the overall one."""
    rows = [*scores["systems"].values(), *scores["ceilings"].values()]
    return sorted({name for row in rows for name in row.get("mos", {})} - {"dnsmos_sig", "dnsmos_bak"})


def shown(value: Mapping[str, Any] | float | None, digits: int, interval: bool = False) -> str:
    """A score as the table shows it; a dash where there is none."""
    if value is None:
        return "–"
    if not isinstance(value, Mapping):
        return f"{value:.{digits}f}"
    text = f"{value['score']:.{digits}f}"
    if interval and value.get("low") is not None:
        text += f" [{value['low']:.{digits}f}, {value['high']:.{digits}f}]"
    return text
