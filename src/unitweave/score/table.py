"""The score table for the terminal."""

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from unitweave.metrics.intervals import Interval
from unitweave.score.scores import Scores, SystemScores

COLUMNS = (
    # field of SystemScores, heading, digits
    ("asr_bleu", "ASR-BLEU", 1),
    ("asr_wer", "ASR\nWER %", 1),
    ("text_bleu", "text\nBLEU", 1),
    ("text_chrf", "text\nchrF", 1),
    ("transcript_wer", "transcr.\nWER %", 1),
    ("agreement_wer", "agree\nWER %", 1),
)
DETAILS = (
    ("asr_chrf", "ASR chrF", 1),
    ("natural_bleu", "BLEU of natural text", 1),
    ("transcript_cer", "transcript CER %", 1),
    ("unit_error_rate", "unit error rate %", 1),
    ("unit_error_rate_without_repeats", "unit error rate without repeats %", 1),
    ("words_per_second", "words/s", 2),
    ("silence_ratio", "silence ratio", 2),
    ("duration_ratio", "duration ratio", 2),
    ("speaker_similarity", "speaker similarity", 2),
    ("comet", "COMET", 4),
)
MOS_HEADINGS = {"dnsmos_ovrl": "DNS\nMOS", "utmos": "UT\nMOS"}


def print_table(scores: Scores, console: Console | None = None) -> None:
    """Print systems, ceilings, significance and the signature on standard output."""
    console = console or Console(highlight=False)
    table = Table(
        title=f"{scores.signature.utterances} utterances",
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
    for rows, mark in ((scores.systems, ""), (scores.ceilings, " *")):
        for name, row in rows.items():
            table.add_row(*map(escape, [name + mark, *cells(row), *mos_cells(row, mos)]))
        table.add_section()
    console.print(table)
    if scores.ceilings:
        console.print("* a ceiling: the same recognizer on a perfect translation")
    console.print(details(scores), soft_wrap=True, markup=False)
    for line in [*speakers(scores), *notes(scores)]:
        console.print(line, soft_wrap=True, markup=False)


def cells(row: SystemScores) -> list[str]:
    """The numbers of one row, under the headings of `COLUMNS`."""
    return [shown(getattr(row, key), digits, interval=key == "asr_bleu") for key, _, digits in COLUMNS]


def mos_cells(row: SystemScores, names: list[str]) -> list[str]:
    """The predicted MOS of one row, in the order of `names`."""
    return [shown(row.mos[name].score if name in row.mos else None, 2) for name in names]


def details(scores: Scores) -> str:
    """The minor numbers, a line for each row of the table."""
    lines = []
    for name, row in scores.all.items():
        columns = [(heading, getattr(row, key), digits) for key, heading, digits in DETAILS]
        values = [f"{heading} {shown(value, digits)}" for heading, value, digits in columns if value is not None]
        lines.append(f"{name}: {', '.join(values)}")
    return "\n".join(lines)


def notes(scores: Scores) -> list[str]:
    """What goes below the table: what the columns mean, significance, notes and the signature."""
    lines = [
        "Square brackets: 95 % interval. ASR WER compares the ASR transcript with the reference, agreement WER with "
        "what the model wrote."
    ]
    for test in scores.significance:
        where = f" in {test.language}" if test.language else ""
        lines.append(
            f"{test.system} against {test.against}{where}: {test.difference:+z.1f} ASR-BLEU, "
            f"p = {test.p_value:.4f} ({test.test})"
        )
    for name, row in scores.systems.items():
        if row.silent_utterances:
            lines.append(f"{name}: {row.silent_utterances} utterances without recognizable speech; they count as empty")
    lines += scores.notes
    if scores.mos_predictors:
        lines.append(f"MOS: {', '.join(scores.mos_predictors)}, on {scores.mos_utterances} utterances of each row")
    if scores.speaker_model:
        lines.append(f"speaker similarity to the source: {scores.speaker_model}")
    if scores.comet_model:
        lines.append(f"COMET of the ASR transcripts: {scores.comet_model}")
    lines.append(f"signature: {scores.signature}")
    return lines


def speakers(scores: Scores) -> list[str]:
    """The main score for seen and for unseen speakers, a line for each system and kind."""
    return [
        f"{name}, {kind} speakers: {main_score(part)} on {part.utterances} utterances"
        for name, row in scores.systems.items()
        for kind, part in row.speakers.items()
    ]


def main_score(row: SystemScores) -> str:
    """ASR-BLEU with its interval; of a system that gives text only its text BLEU, or the WER of its transcripts."""
    kinds = (("", "asr_bleu"), ("text BLEU ", "text_bleu"), ("transcript WER ", "transcript_wer"))
    label, key = next(((label, key) for label, key in kinds if getattr(row, key) is not None), kinds[0])
    return label + shown(getattr(row, key), 1, interval=True)


def mos_names(scores: Scores) -> list[str]:
    """Names of the predicted MOS that any row has; of DNSMOS's three, the overall one."""
    return sorted({name for row in scores.all.values() for name in row.mos} - {"dnsmos_sig", "dnsmos_bak"})


def shown(value: Interval | float | None, digits: int, interval: bool = False) -> str:
    """A score as the table shows it; a dash where there is none."""
    if value is None:
        return "–"
    if not isinstance(value, Interval):
        return f"{value:z.{digits}f}"
    text = f"{value.score:z.{digits}f}"
    if interval and value.low is not None and value.high is not None:
        text += f" [{value.low:z.{digits}f}, {value.high:z.{digits}f}]"
    return text
