"""Batched forced alignment against Python loops over frames and states, one utterance at a time, as a markdown table.

    python benchmarks/alignment.py [--utterances 256] [--threads 1] [--repeats 3]

Random CTC output of utterances as long as those of the embedded corpus (about 2 s, 25 characters) and
as those of CVSS-C (about 6 s, 60 characters). Times are processor time.
All give the same path scores; that is checked.
"""

import argparse
import itertools
import math
import time
from typing import Any

import torch

from unitweave.units.align import forced_align


def plain(log_probs: Any, target: list[int], blank: int = 0) -> tuple[list[int], float]:
    """Viterbi in plain Python, over a numpy array or (faster) over lists of floats."""
    labels = [blank]
    for character in target:
        labels += [character, blank]
    states = len(labels)
    score = [-math.inf] * states
    score[0], score[1] = log_probs[0][blank], log_probs[0][labels[1]]
    back = []
    for row in log_probs[1:]:
        new, choices = [], []
        for s in range(states):
            best, step = score[s], 0
            if s > 0 and score[s - 1] > best:
                best, step = score[s - 1], 1
            if s > 2 and s % 2 and labels[s] != labels[s - 2] and score[s - 2] > best:
                best, step = score[s - 2], 2
            new.append(best + row[labels[s]])
            choices.append(step)
        score = new
        back.append(choices)
    state = states - 2 if score[-2] > score[-1] else states - 1
    final, path = score[state], [state]
    for choices in reversed(back):
        state -= choices[state]
        path.append(state)
    return path[::-1], float(final)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=256)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3, help="rounds; the fastest of each counts")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print("| utterances | loop over arrays, ms each | loop over lists, ms each | batched, ms each | ratios |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for frames, characters, classes in ((110, 25, 36), (300, 60, 40)):
        generator = torch.Generator().manual_seed(0)
        count = options.utterances
        log_probs = torch.randn(count, frames, classes, generator=generator).log_softmax(-1)
        targets = torch.randint(1, classes, (count, characters), generator=generator).tolist()
        lengths = torch.randint(3 * frames // 4, frames + 1, (count,), generator=generator)
        arrays = [row[:n].numpy() for row, n in zip(log_probs, lengths.tolist(), strict=True)]
        lists = [row.tolist() for row in arrays]
        fastest = [math.inf] * 3
        for _ in range(options.repeats):
            times = [time.process_time()]
            [plain(rows, target) for rows, target in zip(arrays, targets, strict=True)]
            times.append(time.process_time())
            expected = [plain(rows, target)[1] for rows, target in zip(lists, targets, strict=True)]
            times.append(time.process_time())
            _, scores = forced_align(log_probs, lengths, targets)
            times.append(time.process_time())
            fastest = [min(f, b - a) for f, (a, b) in zip(fastest, itertools.pairwise(times), strict=True)]
        assert torch.allclose(scores, torch.tensor(expected), atol=1e-2), "the two do not agree"
        slow, medium, fast = (1000 * f / count for f in fastest)
        print(
            f"| {count} of {frames} frames, {characters} characters | {slow:.2f} | {medium:.2f} | {fast:.4f} "
            f"| {slow / fast:.0f} x, {medium / fast:.0f} x |"
        )


if __name__ == "__main__":
    main()
