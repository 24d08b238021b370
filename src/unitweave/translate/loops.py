"""What counts as a loop: a unit, a pattern of units or a phrase of a text that only repeats itself."""

from collections.abc import Sequence

import numpy as np
import torch

from unitweave.config.translate import DecodingSettings

_RATE = 50  # units a second that the following three numbers, and DecodingSettings.max_unit_repeats, are meant for
LOOP_WINDOW = 120  # units (2.4 s) that a loop has to last
_MAX_PERIOD = 40
LOOP_CHECK_EVERY = 20
# A phrase that is said three times in a row is a loop where it takes up 24 tokens: "no, no, no" and laughter are none.
PHRASE_REPEATS, PHRASE_LOOP = 3, 24
LONGEST_PHRASE = 64  # tokens


def loop_window(frame_rate: float) -> int:
    """Units that a loop has to last at a frame rate."""
    return max(2, round(LOOP_WINDOW * frame_rate / _RATE))


def max_repeats(settings: DecodingSettings, frame_rate: float) -> int:
    """Maximum repetitions of a unit in a row at a frame rate."""
    return max(1, round(settings.max_unit_repeats * frame_rate / _RATE))


def count_repeats(tokens: Sequence[int]) -> int:
    """How often the last token stands at the end."""
    count = 0
    while count < len(tokens) and tokens[-1 - count] == tokens[-1]:
        count += 1
    return count


def in_a_loop(units: Sequence[int], frame_rate: float = _RATE) -> bool:
    """Whether the last 2.4 s (LOOP_WINDOW units at 50 a second) only repeat a pattern of at most 0.8 s.

    Checked only now and then, at lengths that do not depend on the batch.
    """
    window, max_period = loop_window(frame_rate), max(2, round(_MAX_PERIOD * frame_rate / _RATE))
    if len(units) < window or len(units) % LOOP_CHECK_EVERY:
        return False
    tail = np.asarray(units[-window:])
    return any(bool((tail[period:] == tail[:-period]).all()) for period in range(1, max_period + 1))


class PhraseLoops:
    """Whether texts that grow token by token only repeat a phrase; one row for each text.

    Attributes:
        recent: int64 [rows, periods]: the last tokens, the newest first; -1 before the beginning.
        runs: int64 [rows, periods]: how many tokens in a row have equaled the one a period (1, 2, ...) before them.
    """

    def __init__(self, rows: int, device: torch.device | str = "cpu") -> None:
        self.recent = torch.full((rows, LONGEST_PHRASE), -1, device=device)
        self.runs = torch.zeros((rows, LONGEST_PHRASE), dtype=torch.long, device=device)
        period = torch.arange(1, LONGEST_PHRASE + 1, device=device)
        # The first of the repeated phrases equals nothing before it.
        self._needed = torch.maximum((PHRASE_REPEATS - 1) * period, PHRASE_LOOP - period)

    def select(self, rows: torch.Tensor) -> None:
        """Keep these rows, in this order; a row may be named several times."""
        self.recent, self.runs = self.recent[rows], self.runs[rows]

    def advance(self, token: torch.Tensor, begins: torch.Tensor) -> torch.Tensor:
        """Take in the next token of each row; `begins`: bool [rows], where a new text begins after it.

        Returns:
            bool [rows]: whether the text is in a loop.
        """
        self.runs = torch.where(self.recent == token[:, None], self.runs + 1, 0)
        self.recent = torch.cat([token[:, None], self.recent[:, :-1]], dim=1)
        self.runs.masked_fill_(begins[:, None], 0)
        self.recent.masked_fill_(begins[:, None], -1)
        return (self.runs >= self._needed).any(1)


def first_phrase_loop(tokens: Sequence[int]) -> int | None:
    """How many tokens of a text it takes until it is in a loop; None for never."""
    loops, never = PhraseLoops(1), torch.zeros(1, dtype=torch.bool)
    found = (n for n, token in enumerate(tokens, 1) if bool(loops.advance(torch.tensor([token]), never)))
    return next(found, None)
