"""What corpus BLEU adds up, per test utterance: enough for a page of results, without the texts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from unitweave.core.errors import InputError
from unitweave.core.manifest import Pair
from unitweave.core.natural import comparable_text
from unitweave.core.records import read_records
from unitweave.core.stage import check_count
from unitweave.experiment.build import is_archive
from unitweave.metrics.bleu import bleu_of_counts, sentence_counts
from unitweave.score.scores import UTTERANCES_FILE, ScoredUtterance, Scores, SystemScores, read_utterances

COUNTS_FILE = "counts.jsonl"
_COLUMNS = 10  # of `sentence_counts`
_ROUNDING = 0.01  # BLEU
_MOST = 10**6  # words of a sentence


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


def system_scores(scores: Scores, folder: Path, trial: str) -> SystemScores:
    """Those of one trial, whose folder of scores this is. Raises InputError where there are none."""
    if trial not in scores.systems:
        raise InputError(f"{folder}/scores.json: no scores of {trial}")
    return scores.systems[trial]


def read_counts(folder: Path, trial: str, scores: SystemScores, pairs: Mapping[str, Pair]) -> list[UtteranceCounts]:
    """The counts of one trial, as an archive without texts has them, or counted from the texts.

    Args:
        folder: The trial's folder of scores.
        trial: Its name, under which utterances.jsonl has its outputs.
        scores: Its scores; their corpus BLEU is what the counts have to add up to.
        pairs: Utterance -> its pair in the test split.

    Raises:
        InputError: A file is damaged, of another trial, or of other scores.
    """
    mend = "write the archive again" if is_archive(folder.parents[1]) else f"delete {folder} to score again"
    if (path := folder / COUNTS_FILE).exists():
        found = read_records(UtteranceCounts, path)
        check_count(folder, "utterances", len(found), mend)
        for line in found:
            if not (_can_be(line.asr_bleu) and _can_be(line.text_bleu)):
                raise InputError(f"{path}: damaged (the counts of {line.id!r} cannot be a sentence's); {mend}")
    else:
        path = folder / UTTERANCES_FILE
        found = _count(path, read_utterances(folder), trial, scores, pairs)
    for name in ("asr_bleu", "text_bleu"):
        if (score := getattr(scores, name)) is None:
            continue
        total = bleu_of_counts(np.array([getattr(line, name) for line in found]).sum(0))
        if not abs(total - score.score) <= _ROUNDING:  # nor may it be NaN
            sums = f"its {name} adds up to {total:.2f}, but scores.json has {score.score:.2f}"
            raise InputError(f"{path}: {sums}; {mend}")
    return found


def _can_be(counts: list[int]) -> bool:
    """Whether these can be the counts of one sentence: matches, n-grams, and the two lengths."""
    if len(counts) != _COLUMNS or min(counts) < 0 or max(counts) > _MOST:
        return False
    matches, ngrams, length = counts[:4], counts[4:8], counts[8]
    return ngrams == [max(length - n, 0) for n in range(4)] and all(
        m <= n for m, n in zip(matches, ngrams, strict=True)
    )


def _count(
    path: Path, lines: Sequence[ScoredUtterance], trial: str, scores: SystemScores, pairs: Mapping[str, Pair]
) -> list[UtteranceCounts]:
    if lacking := [line.id for line in lines if trial not in line.outputs]:
        raise InputError(f"{path}: utterance {lacking[0]!r} has no output of {trial}")
    if unknown := [line.id for line in lines if line.id not in pairs]:
        raise InputError(f"{path}: utterance {unknown[0]!r} is not in the corpus's test split")
    outputs, own = [line.outputs[trial] for line in lines], [pairs[line.id] for line in lines]
    heard = sentence_counts([output.asr_normalized for output in outputs], [line.reference for line in lines])
    natural = scores.natural_bleu is not None  # of natural text alone
    texts = [
        comparable_text(output.translation or "", pair.tgt_lang, natural)
        for output, pair in zip(outputs, own, strict=True)
    ]
    written = sentence_counts(texts, [pair.tgt_text or "" for pair in own])
    return [
        UtteranceCounts(line.id, line.language or "", asr.tolist(), text.tolist())
        for line, asr, text in zip(lines, heard, written, strict=True)
    ]
