"""Running a grid: the stages that all trials share, then trial by trial; what is done is skipped."""

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

import torch
import yaml

from unitweave.config.lm import LmSettings
from unitweave.core.errors import InputError
from unitweave.core.files import content_digests, is_read_only, remove, weights_digest, write_text
from unitweave.core.layout import DEV_FILE
from unitweave.core.progress import echo
from unitweave.core.stage import STAGE_FILE, StageResult
from unitweave.experiment import provenance
from unitweave.experiment.build import is_archive
from unitweave.experiment.hours import estimate
from unitweave.experiment.plan import ExperimentPlan, Trial
from unitweave.experiment.state import EXPERIMENT_FILE, is_done, is_needed
from unitweave.experiment.subsets import write_subset
from unitweave.lm.train.finetune import train_lm
from unitweave.pipeline import Run
from unitweave.preflight import STAGES
from unitweave.score.identity import scored_by
from unitweave.score.score import score_run
from unitweave.translate.dev_evaluation import dev_evaluator


class TimeUp(BaseException):
    """The hours of this session are over. Like an interrupt from the keyboard, nothing below may catch it."""


class Grid(Run):
    """The run folder of an experiment; a trial is a system of it, trained on its own part of the data."""

    def __init__(self, folder: Path, plan: ExperimentPlan, command: str = "") -> None:
        super().__init__(folder, plan.recipe)
        self.plan, self.command = plan, command
        self.trials = {trial.name: trial for trial in plan.trials}

    def shared(self) -> None:
        """The stages that all trials share."""
        self.corpus_and_units()
        self.text_lm()
        self.vocoder()
        for name in dict.fromkeys(trial.data for trial in self.plan.trials):
            self.subset(name)

    def subset(self, name: str) -> str:
        """The manifest of one amount of training speech."""
        amount = self.plan.experiment.data[name]
        layout = self.layout
        return self._stage(
            layout.subset(name),
            {"amount": amount},
            (layout.corpus,),
            lambda f: write_subset(f, layout.corpus, amount, self.recipe.lm.train_pairs),
        )

    def lm(self, name: str) -> str:
        """The training of one trial. Like any system's, but on its part of the data."""
        settings = self.recipe.systems[name]
        layout, subset = self.layout, self.layout.subset(self.trials[name].data)
        text_lm = layout.text_lm_model if settings.pretrained is None else None

        def work(folder: Path) -> StageResult:
            provenance.note(folder, self.command)
            remove_unfinished_evaluations(folder)
            try:
                evaluator = dev_evaluator(subset, settings.evaluation)
                return train_lm(folder, settings, subset, layout.units, text_lm, evaluator)
            except InputError:
                if {path.name for path in folder.iterdir()} == {STAGE_FILE, provenance.FILE_NAME}:
                    remove(folder / provenance.FILE_NAME)  # refused before it began: the earlier result is restored
                raise

        reads = (subset, layout.units, *([layout.text_lm] if text_lm else []))
        return self._stage(layout.lm(name), self.lm_settings(name), reads, work, content_digests(settings.extra_text))

    def lm_settings(self, name: str) -> LmSettings:
        """A trial's settings as its stage records them: a pretrained model by its weights, not by their folder."""
        settings = self.recipe.systems[name]
        weights = None if settings.pretrained is None else weights_digest(settings.pretrained) or settings.pretrained
        return settings if weights is None else replace(settings, pretrained=weights)

    def score_trial(self, trial: Trial) -> str:
        """The scores of one trial on the test split. The ceilings, which all trials share, come with the first one."""
        settings = replace(self.recipe.score, ceilings=trial == self.plan.trials[0] and self.recipe.score.ceilings)
        layout, output = self.layout, self.layout.translate(trial.name)
        return self._stage(
            layout.scores(trial.name),
            settings.in_fingerprint(),
            (layout.corpus, layout.units, layout.vocoder, output),
            lambda f: score_run(
                f,
                settings,
                layout.corpus,
                layout.units,
                layout.vocoder,
                {trial.name: output},
                layout.subset(trial.data),
            ),
            scored_by(settings, self.targets),
            every_process=True,
        )

    def do(self, trial: Trial) -> None:
        """Train, translate the test split once, score; with as many threads as the trial names."""
        with torch_threads(trial.threads):
            self.lm(trial.name)
            self.translate(trial.name)
            self.score_trial(trial)


@contextlib.contextmanager
def torch_threads(number: int) -> Iterator[None]:
    """Let torch compute with this many threads; 0 changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def remove_unfinished_evaluations(folder: Path) -> None:
    """Drop a half-written last line of dev.jsonl, so that what follows is on lines of its own."""
    path = folder / DEV_FILE
    if path.exists():
        content = path.read_bytes()
        path.write_bytes(content[: content.rfind(b"\n") + 1])


def chosen(trials: Sequence[Trial], only: Sequence[str]) -> list[Trial]:
    """The trials whose name matches one of the patterns (with * and ?); all of them without a pattern.

    Raises InputError for a pattern that matches none.
    """
    for pattern in only:
        if not any(fnmatch.fnmatchcase(trial.name, pattern) for trial in trials):
            raise InputError(f"--only {pattern!r} matches no trial of the grid; --plan lists them")
    return [c for c in trials if not only or any(fnmatch.fnmatchcase(c.name, pattern) for pattern in only)]


def prepare(folder: Path, plan: ExperimentPlan, content: dict[str, Any], trials: Sequence[Trial]) -> None:
    """The stages that all trials share, and a copy of the experiment; one process runs them, the others wait.

    Raises InputError when the folder is an archive, from which nothing can continue, or something is missing that these
    trials need.
    """
    if is_archive(folder):
        raise InputError(
            f"{folder}: an archive without models; give another --out, and pass both to 'unitweave experiment results'"
        )
    to_score = [] if all(is_done(folder, plan, trial) for trial in trials) else ["score"]
    Grid(folder, plan).check([trial.name for trial in trials], [*STAGES[:-1], *to_score])
    kept, text = folder / EXPERIMENT_FILE, yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if not kept.exists() or kept.read_bytes() != text.encode():  # a finished one may lie in a place that is read-only
        write_text(kept, text)
    with _locked(folder, "shared", wait=True):
        Grid(folder, plan).shared()


def run_session(
    folder: Path,
    plan: ExperimentPlan,
    content: dict[str, Any],
    command: str,
    only: Sequence[str] = (),
    hours: float | None = None,
) -> bool:
    """Run the missing trials of the grid; returns whether all chosen trials are done.

    A trial is begun only when it is likely to end in time (but the first of a session always is). At the end of
    the hours the work stops where it is, and continues from its last checkpoint the next time. Several processes
    may share a folder: each takes trials that no other is working on.

    Args:
        folder: The folder of the experiment.
        plan: The experiment.
        content: Its plain content, which is kept in the folder.
        command: What the user typed, for the provenance.
        only: Patterns of trial names; empty for all.
        hours: When to stop; None for never.
    """
    folder = Path(folder)
    trials = chosen(plan.trials, only)
    grid = Grid(folder, plan, command)
    end = None if hours is None else time.monotonic() + 3600 * hours
    complete, begun = True, False
    try:
        with _alarm(end):
            prepare(folder, plan, content, trials)
            for number, trial in enumerate(trials, 1):
                if not is_needed([folder], plan, trial):
                    complete &= is_needed([folder], plan, trial) is False
                    continue
                with _locked(folder, trial.name) as free:
                    if not free:
                        echo(f"trial {number} of {len(trials)}, {trial.name}: another process is working on it")
                        complete = False
                        continue
                    expected = estimate(folder, plan, trial)
                    left = None if end is None else end - time.monotonic()
                    if begun and left is not None and expected is not None and 0 < left < expected:
                        echo(f"{trial.name}: needs {expected / 60:.0f} minutes, {left / 60:.0f} remain")
                        complete = False
                        continue
                    echo(f"trial {number} of {len(trials)}: {trial.name}")
                    begun |= not is_done(folder, plan, trial)
                    grid.do(trial)
    except TimeUp:
        echo(f"the {hours:g} hours are up; the same command continues from here")
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
    """Hold the lock of a trial; yields whether it was free. The system releases it when a process is killed."""
    path = folder / "locks" / name
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        if not is_read_only(error):
            raise
        yield True  # no process can do anything there
        return
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        yield True
