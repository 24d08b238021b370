"""One progress line per stage: what is being done, how far it is, how long it will take."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

console = Console(file=sys.stderr, highlight=False)


class Meter:
    """How far a piece of work is. `advance` and `describe` may be called from any thread."""

    def __init__(self, label: str, total: int, done: int = 0) -> None:
        self.label, self.total, self.done, self.before = label, total, done, done
        self.note = ""

    def advance(self, amount: int = 1, note: str | None = None) -> None:
        """Say that `amount` more of the work is done; `note` replaces the words behind the bar."""
        self.done += amount
        if note is not None:
            self.note = note
        self._show()

    def _show(self) -> None:
        pass


class _BarMeter(Meter):
    def __init__(self, label: str, total: int, done: int, progress: Progress) -> None:
        super().__init__(label, total, done)
        self._progress = progress
        self._task = progress.add_task(label, total=total, completed=done, note="")

    def _show(self) -> None:
        self._progress.update(self._task, completed=self.done, note=self.note)


class _LineMeter(Meter):
    """For logs: a line now and then instead of a moving bar."""

    seconds_between = 15.0

    def __init__(self, label: str, total: int, done: int) -> None:
        super().__init__(label, total, done)
        self._start = self._last = time.monotonic()

    def _show(self) -> None:
        now = time.monotonic()
        if now - self._last < self.seconds_between and self.done != self.total:
            return
        self._last = now
        elapsed = now - self._start
        made = self.done - self.before  # of what this call does, not of what an earlier one had done
        left = elapsed / made * max(self.total - self.done, 0) if made else 0.0
        console.print(
            f"{self.label}: {self.done}/{self.total}, {elapsed:.0f} s, {left:.0f} s left {self.note}".rstrip()
        )


@contextlib.contextmanager
def meter(label: str, total: int, done: int = 0) -> Iterator[Meter]:
    """Show progress on `label` while the block runs; `done` is what an earlier run had finished."""
    if console.is_terminal:
        columns = (
            TextColumn("{task.description:<26}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Progress(*columns, console=console) as progress:
            yield _BarMeter(label, total, done, progress)
    else:
        yield _LineMeter(label, total, done)


def echo(text: str) -> None:
    """Print a line to the terminal (standard error; results go to standard output)."""
    console.print(text)
