"""Doing a grid: the stages that all cells share, then cell after cell; what is done is skipped."""

import contextlib
import fcntl
import fnmatch
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from unitweave.core.errors import InputError
from unitweave.core.files import remove, write_text
from unitweave.core.progress import say
from unitweave.core.stage import STAGE_FILE, StageResult
from unitweave.experiment import provenance
from unitweave.experiment.archive import is_archive
from unitweave.experiment.hours import estimate
from unitweave.experiment.plan import Cell, Plan
from unitweave.experiment.state import EXPERIMENT_FILE, is_done, is_needed
from unitweave.experiment.subsets import write_subset
from unitweave.lm.model.start import check_loadable
from unitweave.lm.train.finetune import train_lm
from unitweave.pipeline import Run, contents, weights_digest
from unitweave.score.score import score_run, scored_by
from unitweave.translate.dev_evaluation import DEV_FILE, dev_evaluator


class TimeUp(BaseException):
    """The hours of this sitting are over. Like an interruption from the keyboard, it is nobody's to catch below."""


class Grid(Run):
    """The run folder of an experiment; a cell is a system of it, trained on its own part of the data."""

    def __init__(self, folder: Path, plan: Plan, command: str = "") -> None:
        super().__init__(folder, plan.recipe)
        self.plan, self.command = plan, command
        self.cells = {cell.name: cell for cell in plan.cells}

    def shared(self) -> None:
        """The stages that all cells share."""
        self.corpus_and_units()
        self.text_lm()
        self.vocoder()
        for name in dict.fromkeys(cell.data for cell in self.plan.cells):
            self.subset(name)

    def subset(self, name: str) -> str:
        """The manifest of one amount of training speech."""
        amount = self.plan.experiment.data[name]
        at = self.at
        return self._stage(
            at.subset(name), {"amount": amount}, (at.corpus,), lambda f: write_subset(f, at.corpus, amount)
        )

    def lm(self, name: str) -> str:
        """The training of one cell. Like any system's, but on its part of the data."""
        settings = self.recipe.systems[name]
        at, subset = self.at, self.at.subset(self.cells[name].data)
        text_lm = at.text_lm_model if settings.pretrained is None else None

        def work(folder: Path) -> StageResult:
            provenance.note(folder, self.command)
            remove_unfinished_looks(folder)
            try:
                evaluator = dev_evaluator(subset, settings.evaluation)
                return train_lm(folder, settings, subset, at.units, text_lm, evaluator)
            except InputError:
                if {path.name for path in folder.iterdir()} == {STAGE_FILE, provenance.FILE_NAME}:
                    remove(folder / provenance.FILE_NAME)  # refused before it began: what was there before comes back
                raise

        # A pretrained model counts by its weights, not by the folder that they are in.
        weights = None if settings.pretrained is None else weights_digest(settings.pretrained) or settings.pretrained
        counted = settings if weights is None else replace(settings, pretrained=weights)
        reads = (subset, at.units, *([at.text_lm] if text_lm else []))
        return self._stage(at.lm(name), counted, reads, work, contents(settings.extra_text))

    def score_cell(self, cell: Cell) -> str:
        """The scores of one cell on the test split. The ceilings, which all cells share, come with the first one."""
        settings = replace(self.recipe.score, ceilings=cell == self.plan.cells[0] and self.recipe.score.ceilings)
        at, output = self.at, self.at.translate(cell.name)
        return self._stage(
            at.scores(cell.name),
            settings,
            (at.corpus, at.units, at.vocoder, output),
            lambda f: score_run(
                f, settings, at.corpus, at.units, at.vocoder, {cell.name: output}, at.subset(cell.data)
            ),
            scored_by(settings),
        )

    def do(self, cell: Cell) -> None:
        """Train, translate the test split once, score."""
        self.lm(cell.name)
        self.translate(cell.name)
        self.score_cell(cell)


def remove_unfinished_looks(folder: Path) -> None:
    """Drop a line of dev.jsonl that a kill cut off, so that what follows stands on lines of its own."""
    path = folder / DEV_FILE
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def chosen(cells: Sequence[Cell], only: Sequence[str]) -> list[Cell]:
    """The cells whose name fits one of the patterns (as file names do: * and ?); all without a pattern.

    Raises InputError for a pattern that fits none.
    """
    for pattern in only:
        if not any(fnmatch.fnmatchcase(cell.name, pattern) for cell in cells):
            raise InputError(f"--only {pattern!r} fits no cell of the grid; --plan lists them")
    return [c for c in cells if not only or any(fnmatch.fnmatchcase(c.name, pattern) for pattern in only)]


def prepare(folder: Path, plan: Plan, content: dict[str, Any]) -> None:
    """The stages that all cells share, and a copy of the experiment; one process does them, others wait for it.

    Raises InputError when the folder is an archive, which has nothing to go on from.
    """
    if is_archive(folder):
        raise InputError(
            f"{folder}: an archive, without models; give another --out, and name both to 'unitweave experiment results'"
        )
    write_text(folder / EXPERIMENT_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True))
    with _locked(folder, "shared", wait=True):
        Grid(folder, plan).shared()


def check_pretrained(plan: Plan, cells: Sequence[Cell]) -> None:
    """Raise InputError for weights that are not there, before anything that was made with them is touched."""
    names = dict.fromkeys(plan.recipe.systems[cell.name].pretrained for cell in cells)
    for name in names:
        if name is not None:
            check_loadable(name)


def sit(
    folder: Path,
    plan: Plan,
    content: dict[str, Any],
    command: str,
    only: Sequence[str] = (),
    hours: float | None = None,
) -> bool:
    """Do what is missing of the grid, for `hours` at most; returns whether all chosen cells are done.

    A cell is begun only when it is likely to end in time (but the first of a sitting always is); at the
    end of the hours the work stops where it is, and goes on from its last checkpoint the next time.
    Several processes may share a folder: each takes cells that no other one is at.
    """
    folder = Path(folder)
    cells = chosen(plan.cells, only)
    check_pretrained(plan, cells)
    grid = Grid(folder, plan, command)
    end = None if hours is None else time.monotonic() + 3600 * hours
    complete, begun = True, False
    try:
        with _alarm(end):
            prepare(folder, plan, content)
            for number, cell in enumerate(cells, 1):
                if not is_needed([folder], plan, cell):
                    complete &= is_needed([folder], plan, cell) is False
                    continue
                with _locked(folder, cell.name) as free:
                    if not free:
                        say(f"cell {number} of {len(cells)}, {cell.name}: another process is at it")
                        complete = False
                        continue
                    expected = estimate(folder, plan, cell)
                    left = None if end is None else end - time.monotonic()
                    if begun and left is not None and expected is not None and 0 < left < expected:
                        say(f"{cell.name}: would take {expected / 60:.0f} minutes, {left / 60:.0f} are left")
                        complete = False
                        continue
                    say(f"cell {number} of {len(cells)}: {cell.name}")
                    begun |= not is_done(folder, plan, cell)
                    grid.do(cell)
    except TimeUp:
        say(f"{hours:g} hours are over; the same command goes on from here")
        return False
    return complete


@contextlib.contextmanager
def _alarm(end: float | None) -> Iterator[None]:
    """Raise TimeUp in the block when the clock reaches `end`."""
    if end is None:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise TimeUp

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, max(0.001, end - time.monotonic()))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _locked(folder: Path, name: str, wait: bool = False) -> Iterator[bool]:
    """Hold the lock of a cell; yields whether it was free. The system lets go of it when a process is killed."""
    path = folder / "locks" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
