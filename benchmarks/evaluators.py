"""What `unitweave live evaluate` says of latency, beside what SimulEval and OmniSTEval say of its logs.

    pip install --no-deps simuleval omnisteval && pip install textgrid
    python benchmarks/evaluators.py FOLDER

FOLDER is what `live evaluate --out FOLDER` wrote. Seconds; the exit code is 1 where two differ by more than rounding.
SimulEval scores the speech and the committed texts, OmniSTEval the texts; one of them suffices.
"""

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from unitweave.metrics.latency import length_adaptive_average_lagging

_ROUNDED = 1e-4  # seconds; score.json has four decimals
Line = dict


def simuleval() -> Callable[[str, list[Line], bool], float] | None:
    """SimulEval's scores of instances, by name, in seconds; None where it is not installed."""
    try:
        from simuleval.evaluator.instance import SpeechOutputInstance
        from simuleval.evaluator.scorers.latency_scorer import LATENCY_SCORERS_DICT
    except ModuleNotFoundError as missing:
        print(f"without SimulEval ({missing})")
        return None

    class Spoken(SpeechOutputInstance):
        """An instance of speech as a log has it; SimulEval's own class for logs takes all for texts."""

        source_length = reference_length = None  # properties there, of a source that is read

        def __init__(self, line: Line) -> None:
            self.metrics: dict[str, float] = {}
            self.__dict__ |= line
            self.source_length, self.reference_length = line["source_length"], len(line["reference"].split())

    def score(metric: str, lines: list[Line], aware: bool) -> float:
        instances = {number: Spoken(line) for number, line in enumerate(lines)}
        return LATENCY_SCORERS_DICT[metric](computation_aware=aware, use_ref_len=True)(instances) / 1000

    return score


def omnisteval() -> Callable[[str, list[Line], bool], float] | None:
    """OmniSTEval's LAAL of instances, in seconds; None where it is not installed."""
    try:
        from omnisteval.scoring import LAALScorer
    except ModuleNotFoundError as missing:
        print(f"without OmniSTEval ({missing})")
        return None

    def score(metric: str, lines: list[Line], aware: bool) -> float:
        names = {"delays": "emission_cu", "elapsed": "emission_ca"}
        instances = [SimpleNamespace(**{names.get(k, k): v for k, v in line.items()}) for line in lines]
        for instance in instances:
            instance.reference_length = len(instance.reference.split())
        return LAALScorer(aware)(instances) / 1000

    return score


def as_words(line: Line) -> Line:
    """The instance with the words of its speech in place of its chunks."""
    return line | {"delays": line["word_delays"], "elapsed": line["word_elapsed"]}


def lagging(lines: list[Line], times: str) -> float:
    """Our LAAL of instances, in seconds."""
    found = []
    for line in lines:
        words, seconds = len(line["reference"].split()), line["source_length"] / 1000
        found.append(length_adaptive_average_lagging([delay / 1000 for delay in line[times]], seconds, words))
    return float(np.mean(found))


def comparisons(folder: Path) -> Iterator[tuple[str, float, str, list[Line], bool, bool]]:
    """Name, our value, the evaluators' metric, what it is of, whether computing counts, whether it is of texts."""
    score = json.loads((folder / "score.json").read_text())

    def read(log: Path) -> list[Line]:
        return [line for line in map(json.loads, log.read_text().splitlines()) if line["delays"]]

    speech, texts = read(folder / "instances.log"), read(folder / "text/instances.log")
    words = [as_words(line) for line in speech]
    for aware, times in ((False, "delays"), (True, "elapsed")):
        ours, name = score[times], ", with computing" if aware else ""
        yield f"StartOffset{name}", ours["start_offset"], "StartOffset", speech, aware, False
        if not aware:  # SimulEval's does not count computing
            yield "EndOffset", ours["end_offset"], "EndOffset", speech, aware, False
        yield f"ATD{name}", ours["atd"], "ATD", speech, aware, False
        yield f"LAAL{name}", ours["laal"], "LAAL", words, aware, False
        yield f"LAAL of the texts{name}", lagging(texts, times), "LAAL", texts, aware, True


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    theirs = {"SimulEval": simuleval(), "OmniSTEval": omnisteval()}
    folders = sorted(log.parent for log in Path(sys.argv[1]).glob("*/instances.log"))
    if not folders or not any(theirs.values()):
        sys.exit(f"{sys.argv[1]}: no instances.log in a folder of it, or no evaluator is installed")
    worst = 0.0
    print("| | latency | ours | SimulEval | OmniSTEval |\n| --- | --- | ---: | ---: | ---: |")
    for folder in folders:
        for name, ours, metric, lines, aware, of_texts in comparisons(folder):
            cells = []
            for evaluator, score in theirs.items():
                if score is None or (evaluator == "OmniSTEval" and not of_texts):
                    cells.append("")
                    continue
                value = score(metric, lines, aware)
                worst = max(worst, abs(value - ours))
                cells.append(f"{value:.4f}")
            print(f"| {folder.name} | {name} | {ours:.4f} | {' | '.join(cells)} |")
    print(f"\nlargest difference: {worst:.1e} s")
    sys.exit(1 if worst > _ROUNDED else 0)


if __name__ == "__main__":
    main()
