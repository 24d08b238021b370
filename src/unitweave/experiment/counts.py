"""What corpus BLEU adds up, per test utterance: enough for a page of results, without the texts."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unitweave.core.errors import InputError
from unitweave.core.records import read_records
from unitweave.core.stage import check_count
from unitweave.metrics.bleu import sentence_counts
from unitweave.score.scores import UTTERANCES_FILE, read_utterances

COUNTS_FILE = "counts.jsonl"
_COLUMNS = 10  # of `sentence_counts`


@dataclass
class UtteranceCounts:
    """A test utterance of one trial, without its texts.

    Attributes:
        language: Of the source.
        asr_bleu: `sentence_counts` of what the recognizer hears against the reference.
        text_bleu: Likewise of what the model wrote.
    """

    id: str
    language: str
    asr_bleu: list[int]
    text_bleu: list[int]


def read_counts(folder: Path, trial: str, texts: Mapping[str, str]) -> list[UtteranceCounts]:
    """The counts of one trial, as an archive without texts has them, or counted from the texts.

    Args:
        folder: The trial's folder of scores.
        trial: Its name, under which utterances.jsonl has its outputs.
        texts: Utterance -> its normalized reference translation.

    Raises:
        InputError: A file is damaged or of another trial.
    """
    if (path := folder / COUNTS_FILE).exists():
        found = read_records(UtteranceCounts, path)
        check_count(folder, "utterances", len(found), "write the archive again")
        if any(len(counts) != _COLUMNS for line in found for counts in (line.asr_bleu, line.text_bleu)):
            raise InputError(f"{path}: damaged (expected {_COLUMNS} counts per score); write the archive again")
        return found
    path, lines = folder / UTTERANCES_FILE, read_utterances(folder)
    if lacking := [line.id for line in lines if trial not in line.outputs]:
        raise InputError(f"{path}: utterance {lacking[0]!r} has no output of {trial}")
    if unknown := [line.id for line in lines if line.id not in texts]:
        raise InputError(f"{path}: utterance {unknown[0]!r} is not in the corpus's test split")
    outputs = [line.outputs[trial] for line in lines]
    heard = sentence_counts([output.asr_normalized for output in outputs], [line.reference for line in lines])
    written = sentence_counts([output.translation or "" for output in outputs], [texts[line.id] for line in lines])
    return [
        UtteranceCounts(line.id, line.language or "", asr.tolist(), text.tolist())
        for line, asr, text in zip(lines, heard, written, strict=True)
    ]
